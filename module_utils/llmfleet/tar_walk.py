"""A tar stream taken apart at the borders of its large entries, as it passes.

Format: POSIX.1-2008 pax, "ustar Interchange Format"; sizes from 8 GiB on as GNU tar's base-256 or a pax record.
"""

from __future__ import annotations

import hashlib
import re
import typing as t

BLOCK = 512
EXTENSIONS = b"xgLK"
"""Types of the headers that stand before another one: pax records, and GNU tar's long names."""

LONGEST_EXTENSION = 1 << 20
WITHOUT_DATA = b"123456"
"""Links, devices, folders and pipes: their size field does not count."""


class Event(t.NamedTuple):
    """``begin`` and ``end`` enclose the ``data`` of a large entry, its headers included; ``small`` is all the rest.

    ``digest`` (of ``end``): sha256 of the entry's content, as ``sha256:...``; "" when the stream ended before it did.
    ``name`` (of ``end``): the entry's name, "" when it does not stand in the header itself.
    """

    kind: str
    data: bytes = b""
    digest: str = ""
    name: str = ""


class TarWalk:
    """Feed it the stream in pieces of any size; all ``data`` of its events put together is the stream again.

    From a block on that is no header, everything is ``small``: a stream of another kind passes unharmed.
    """

    def __init__(self, large: int) -> None:
        self._large = large
        self._head = bytearray()
        self._wanted = BLOCK
        self._extension = 0  # where the data of the extension header at hand begins in _head, 0 for none
        self._size: int | None = None  # from a pax record
        self._content = self._padding = 0
        self._hash: t.Any = None
        self._name = ""
        self._opaque = False

    def feed(self, piece: bytes) -> t.Iterator[Event]:
        """Take the next bytes and yield what they complete."""
        view = memoryview(piece)
        while view:
            if self._opaque:
                yield Event("small", bytes(view))
                return
            if self._content or self._padding:
                view, taken = self._take(view)
                yield Event("data" if self._hash else "small", taken)
                if self._hash and not (self._content or self._padding):
                    yield self._close()
                continue
            missing = self._wanted - len(self._head)
            self._head += view[:missing]
            view = view[missing:]
            if len(self._head) == self._wanted:
                yield from self._header()

    def finish(self) -> t.Iterator[Event]:
        """Yield what is left at the end of the stream."""
        if self._head:
            yield Event("small", bytes(self._head))
            self._head.clear()
        if self._hash:
            yield Event("end")
            self._hash = None

    def _take(self, view: memoryview) -> tuple[memoryview, bytes]:
        taken = view[: self._content + self._padding]
        content = min(len(taken), self._content)
        if self._hash:
            self._hash.update(taken[:content])
        self._content -= content
        self._padding -= len(taken) - content
        return view[len(taken) :], bytes(taken)

    def _close(self) -> Event:
        digest = self._hash.hexdigest()
        self._hash = None
        return Event("end", digest=f"sha256:{digest}", name=self._name)

    def _header(self) -> t.Iterator[Event]:
        if self._extension:
            self._note_extension()
            return
        block = bytes(self._head[-BLOCK:])
        size = self._size_of(block) if _is_header(block) else None
        if size is None:
            # zeros end an archive; they belong to nothing and anything else is not ours to understand
            self._opaque = any(block)
            yield from self._emit(0)
            return
        kind = block[156:157]
        if kind in EXTENSIONS and kind:
            if size > LONGEST_EXTENSION:
                self._opaque = True
                yield from self._emit(0)
                return
            self._extension = len(self._head) if size else 0
            self._wanted = len(self._head) + (_padded(size) or BLOCK)
            return
        size = 0 if kind in WITHOUT_DATA and kind else (size if self._size is None else self._size)
        yield from self._emit(size)

    def _note_extension(self) -> None:
        """Read the pax records at hand for a size; the header that they belong to comes next."""
        data = bytes(self._head[self._extension :])
        if self._head[self._extension - BLOCK + 156 : self._extension - BLOCK + 157] == b"x":
            found = re.search(rb"(?:^|\n)\d+ size=(\d+)\n", data)
            self._size = int(found.group(1)) if found else self._size
        self._extension = 0
        self._wanted = len(self._head) + BLOCK

    def _emit(self, size: int) -> t.Iterator[Event]:
        head = bytes(self._head)
        self._head.clear()
        self._wanted, self._size = BLOCK, None
        self._content, self._padding = size, _padded(size) - size
        if size >= self._large:
            self._hash = hashlib.sha256()
            self._name = _name(head)
            yield Event("begin")
            yield Event("data", head)
        else:
            yield Event("small", head)

    @staticmethod
    def _size_of(block: bytes) -> int | None:
        field = block[124:136]
        if field[0] & 0x80:
            return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        text = field.strip(b" \0")
        try:
            return int(text, 8) if text else 0
        except ValueError:
            return None


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _name(head: bytes) -> str:
    """Return the name in the last block of ``head``, "" where it may be in another one: behind extension headers."""
    if len(head) > BLOCK and (b" path=" in head or head[156:157] == b"L"):
        return ""
    block = head[-BLOCK:]
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    # GNU tar's own format has times where the prefix of the others is
    joined = prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name
    return joined.decode("utf-8", "replace")


def _is_header(block: bytes) -> bool:
    """Whether the checksum, taken with its own field as blanks, is right."""
    try:
        said = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return said == sum(block[:148]) + 8 * 32 + sum(block[156:])
