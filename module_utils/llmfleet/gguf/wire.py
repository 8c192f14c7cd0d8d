"""The encoding of a GGUF header: read front to back, in bounded time and memory whatever the bytes are."""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import BadInput

FETCH_AGAIN = "get the file again"

_CHUNK = 1 << 20
# Real models stay far below: headers of at most some 20 MB, a few thousand tensors, some hundred keys, under a million
# list items (vocabulary and merges), chat templates of some hundred kB, lists by layer of at most some hundred items.
_MAX_HEADER = 1 << 27
_MAX_TENSORS = 1 << 16
_MAX_KEYS = 1 << 14
_MAX_ITEMS = 1 << 22
_MAX_LISTS = 1 << 16
_MAX_NAME = 1 << 10
_MAX_TEXT = 1 << 24
_MAX_NESTING = 2
# what is kept of the values: each, and all together
_KEPT_NAME = 256
_SHORT_TEXT, _KEPT_TEXT, _KEPT_TEXTS = 1 << 8, 1 << 12, 1 << 20
_KEPT_ITEMS, _KEPT_ITEMS_IN_ALL = 1 << 12, 1 << 17

SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
"""Layout of a value of each type."""
STRING, ARRAY = 8, 9
U32, U64 = SCALARS[4], SCALARS[10]


def damaged(problem: str) -> BadInput:
    """Return the error for a header that says what cannot be."""
    return BadInput(f"the file's header is damaged: {problem}; {FETCH_AGAIN}")


@dataclass(frozen=True)
class Metadata:
    """The keys of a header and as much of their values as a plan can use."""

    values: dict[str, t.Any] = field(default_factory=dict)
    """Scalars, texts up to 4 KiB, and lists of up to 4096 numbers (as tuples)."""
    array_lengths: dict[str, int] = field(default_factory=dict)
    """Items of every list, whether it is kept or not (a vocabulary is not)."""
    text_lengths: dict[str, int] = field(default_factory=dict)
    """Bytes of every text, whether it is kept or not (a chat template often is not)."""


class Reader:
    """Reads a header through one chunk at a time; every step is checked against the file's size.

    The stream is read front to back, and left at a place of no meaning.
    """

    def __init__(self, stream: t.BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._stream_place = -1
        self._chunk = b""
        self._start = 0
        self._place = 0
        self._items = 0
        self._lists = 0
        self._kept_text = 0
        self._kept_items = 0

    @property
    def place(self) -> int:
        """Bytes passed so far."""
        return self._start + self._place

    def peek(self, count: int) -> bytes:
        """Return up to ``count`` bytes without passing them."""
        if self._place + count > len(self._chunk):
            rest = self._chunk[self._place :]
            self._start, self._place = self.place, 0
            wanted = self._start + len(rest)
            if self._stream_place != wanted:
                self._stream.seek(wanted)
            more = self._stream.read(max(count - len(rest), _CHUNK))
            self._stream_place = wanted + len(more)
            self._chunk = rest + more
        return self._chunk[self._place : self._place + count]

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        data = self.peek(count)
        self.skip(count)
        if len(data) < count:
            raise self._cut_off()
        return data

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        if self.place + count > self._size:
            raise self._cut_off()
        if self.place + count > _MAX_HEADER:
            raise damaged(f"it is longer than {_MAX_HEADER} bytes")
        self._place += count

    def scalar(self, layout: struct.Struct) -> t.Any:
        """Return the next value of that layout."""
        return layout.unpack(self.take(layout.size))[0]

    def count_of_tensors(self) -> int:
        """Return how many tensors the header says there are."""
        return self._count(_MAX_TENSORS, "tensors")

    def name(self, what: str) -> str:
        """Return the next name of a key or tensor."""
        data = self.take(self._count(_MAX_NAME, f"bytes of {what}"))
        if not data or b"\0" in data:
            raise damaged(f"a {what} is {'not text' if data else 'empty'}")
        return data.decode(errors="replace")

    def metadata(self) -> Metadata:
        """Return the keys and the smaller values."""
        found = Metadata()
        names = set()
        for _ in range(self._count(_MAX_KEYS, "keys")):
            name = self.name("key")
            if name in names:
                raise damaged(f"it has the key {name[:64]!r} twice")
            names.add(name)
            self._value(name[:_KEPT_NAME], self.scalar(U32), found)
        return found

    def _value(self, name: str, kind: int, found: Metadata) -> None:
        """Read a value of that type; keep what is worth it under ``name``."""
        if kind == STRING:
            length = found.text_lengths[name] = self._count(_MAX_TEXT, "bytes of text")
            # whatever else is there, names and the like are kept
            if length <= _SHORT_TEXT or (length <= _KEPT_TEXT and self._kept_text + length <= _KEPT_TEXTS):
                self._kept_text += length
                found.values[name] = self.take(length).decode(errors="replace")
            else:
                self.skip(length)
        elif kind == ARRAY:
            kind, count = self._list_start(1)
            found.array_lengths[name] = count
            layout = SCALARS.get(kind)
            if layout and count <= _KEPT_ITEMS and self._kept_items + count <= _KEPT_ITEMS_IN_ALL:
                self._kept_items += count
                found.values[name] = struct.unpack(f"<{count}{layout.format[-1]}", self.take(count * layout.size))
            else:
                self._skip_items(kind, count, 1)
        elif kind in SCALARS:
            found.values[name] = self.scalar(SCALARS[kind])
        else:
            raise damaged(f"it has a value of unknown type {kind}")

    def _list_start(self, nesting: int) -> tuple[int, int]:
        """Return the type and number of a list's items."""
        kind: int = self.scalar(U32)
        count = self._count(_MAX_ITEMS, "items in a list")
        self._items += count
        self._lists += 1
        if self._items > _MAX_ITEMS or self._lists > _MAX_LISTS or nesting > _MAX_NESTING:
            raise damaged("its lists are too long, too many or too deep")
        return kind, count

    def _skip_items(self, kind: int, count: int, nesting: int) -> None:
        if kind == STRING:
            self._skip_texts(count)
        elif kind == ARRAY:
            for _ in range(count):
                self._skip_items(*self._list_start(nesting + 1), nesting + 1)
        elif kind in SCALARS:
            self.skip(count * SCALARS[kind].size)
        else:
            raise damaged(f"it has a list of unknown type {kind}")

    def _skip_texts(self, count: int) -> None:
        """Pass over ``count`` strings: a vocabulary has hundreds of thousands, so the inner loop does little."""
        length_at = U64.unpack_from
        while count:
            if len(self.peek(U64.size)) < U64.size:
                raise self._cut_off()
            chunk, place = self._chunk, self._place
            last = len(chunk) - U64.size
            while count and place <= last:
                length = length_at(chunk, place)[0]
                if length > _MAX_TEXT:
                    raise damaged(f"it claims {length} bytes of text")
                place += U64.size + length
                count -= 1
            self.skip(place - self._place)

    def _count(self, limit: int, what: str) -> int:
        number: int = self.scalar(U64)
        if number > limit:
            raise damaged(f"it claims {number} {what}")
        return number

    def _cut_off(self) -> BadInput:
        return BadInput(f"the file is cut off within its header: it has only {self._size} bytes; {FETCH_AGAIN}")
