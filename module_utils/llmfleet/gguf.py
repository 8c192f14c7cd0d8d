"""Read the header of a GGUF model file: what the model is, and whether the file is whole.

Only the header is read, in bounded time and memory whatever the bytes are.
"""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput

_CHUNK = 1 << 20
# Real models stay far below: headers of some MB, a few thousand tensors, some hundred keys, under a million list items
# (vocabulary and merges), chat templates of some hundred kB.
_MAX_HEADER = 1 << 28
_MAX_TENSORS = 1 << 17
_MAX_KEYS = 1 << 14
_MAX_ITEMS = 1 << 22
_MAX_NAME = 1 << 16
_MAX_TEXT = 1 << 24
_MAX_DIMENSIONS = 4
_MAX_NESTING = 2
_MAX_ALIGNMENT = 1 << 20

_SCALARS = {
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
_STRING, _ARRAY = 8, 9
_U32, _U64 = _SCALARS[4], _SCALARS[10]

_TYPES = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
    40: (64, 36),  # NVFP4
    41: (128, 18),  # Q1_0
    42: (64, 18),  # Q2_0
}
"""Weights per block and bytes per block of each ggml type."""

_FETCH_AGAIN = "get the file again"


@dataclass(frozen=True)
class GgufHeader:
    """What the header says. Zero and "" stand for what it does not say."""

    version: int
    tensor_count: int
    architecture: str
    name: str
    context_length: int
    block_count: int
    split_number: int
    """Which part of a model in several files this is, from 0."""
    split_count: int
    """How many files the model has; 1 for a model in one file."""
    needed_size: int
    """Bytes the file must have for its tensors; 0 when a tensor's type is unknown here."""
    weight_count: int = 0
    """Weights in the tensors of this file."""
    file_type: int | None = None
    """Number of the type that most of the weights have (`llama_ftype`), None where the header does not say."""

    def facts(self) -> dict[str, t.Any]:
        """Return what a user wants to know about the model."""
        return {
            "architecture": self.architecture,
            "name": self.name,
            "context_length": self.context_length,
            "block_count": self.block_count,
            "tensor_count": self.tensor_count,
            "split_count": self.split_count,
            "version": self.version,
        }


def check_start(start: bytes, size: int) -> None:
    """Raise BadInput unless a file of ``size`` bytes whose first bytes are ``start`` can be a GGUF file."""
    if size == 0:
        raise BadInput(f"the file is empty; {_FETCH_AGAIN}")
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        raise BadInput("the file is a web page (it starts with `<`), not a GGUF model; download the model itself")
    if text.startswith(b"version https://git-lfs"):
        raise BadInput(
            "the file is a git LFS pointer, not the model it stands for; run `git lfs pull` where it came from"
        )
    if not start.startswith(b"GGUF"):
        raise BadInput(f"the file is not a GGUF model (it starts with {start[:4]!r} instead of b'GGUF')")


def read_header(stream: t.BinaryIO, size: int) -> GgufHeader:
    """Return the header of the GGUF file ``stream``, which is ``size`` bytes long.

    Raises BadInput with a sentence about "the file" when an engine could not load it.
    """
    reader = _Reader(stream, size)
    check_start(reader.peek(64), size)
    reader.skip(4)
    version = reader.scalar(_U32)
    if version not in (2, 3):
        if version & 0xFFFF == 0 and version:
            raise BadInput("the file is a GGUF model for big-endian machines; get the little-endian one")
        raise BadInput(
            f"the file is GGUF version {version}, and engines read versions 2 and 3; convert the model again"
        )
    tensor_count = reader.count(_MAX_TENSORS, "tensors")
    metadata = _read_metadata(reader, reader.count(_MAX_KEYS, "keys"))
    needed, weight_count = _measure(reader, tensor_count, metadata)
    if needed > size:
        raise BadInput(f"the file is cut off: its tensors need {needed} bytes and it has {size}; {_FETCH_AGAIN}")

    architecture = _text(metadata, "general.architecture")
    header = GgufHeader(
        version=version,
        tensor_count=tensor_count,
        architecture=architecture,
        name=_text(metadata, "general.name"),
        context_length=_number(metadata, f"{architecture}.context_length"),
        block_count=_number(metadata, f"{architecture}.block_count"),
        split_number=_number(metadata, "split.no"),
        split_count=_number(metadata, "split.count") or 1,
        needed_size=needed,
        weight_count=weight_count,
        file_type=_file_type(metadata),
    )
    # only the first part of a split model carries the description
    if not architecture and header.split_number == 0:
        raise BadInput("the file is a GGUF file without `general.architecture`, so no engine can load it as a model")
    return header


class _Reader:
    """Reads a header front to back through one chunk at a time; every step is checked against the file's size."""

    def __init__(self, stream: t.BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._chunk = b""
        self._start = 0
        self._place = 0
        self._items = 0

    @property
    def place(self) -> int:
        return self._start + self._place

    def peek(self, count: int) -> bytes:
        """Return up to ``count`` bytes without passing them."""
        if self._place + count > len(self._chunk):
            self._start, self._place = self.place, 0
            self._stream.seek(self._start)
            self._chunk = self._stream.read(max(count, _CHUNK))
        return self._chunk[self._place : self._place + count]

    def take(self, count: int) -> bytes:
        data = self.peek(count)
        self.skip(count)
        if len(data) < count:
            raise self._cut_off()
        return data

    def skip(self, count: int) -> None:
        if self.place + count > self._size:
            raise self._cut_off()
        if self.place + count > _MAX_HEADER:
            raise _damaged(f"it is longer than {_MAX_HEADER} bytes")
        self._place += count

    def scalar(self, layout: struct.Struct) -> t.Any:
        return layout.unpack(self.take(layout.size))[0]

    def count(self, limit: int, what: str) -> int:
        number: int = self.scalar(_U64)
        if number > limit:
            raise _damaged(f"it claims {number} {what}")
        return number

    def text(self, limit: int, what: str) -> str:
        return self.take(self.count(limit, f"bytes of {what}")).decode(errors="replace")

    def value(self, kind: int) -> t.Any:
        """Return a scalar or string; arrays are passed over and give None."""
        if kind == _STRING:
            return self.text(_MAX_TEXT, "text")
        if kind == _ARRAY:
            self._skip_array()
            return None
        if kind not in _SCALARS:
            raise _damaged(f"it has a value of unknown type {kind}")
        return self.scalar(_SCALARS[kind])

    def _skip_array(self, nesting: int = 1) -> None:
        kind = self.scalar(_U32)
        count = self.count(_MAX_ITEMS, "items in a list")
        self._items += count
        if self._items > _MAX_ITEMS or nesting > _MAX_NESTING:
            raise _damaged("its lists are too long or too deep")
        if kind == _STRING:
            self._skip_texts(count)
        elif kind == _ARRAY:
            for _ in range(count):
                self._skip_array(nesting + 1)
        elif kind in _SCALARS:
            self.skip(count * _SCALARS[kind].size)
        else:
            raise _damaged(f"it has a list of unknown type {kind}")

    def _skip_texts(self, count: int) -> None:
        """Pass over ``count`` strings: a vocabulary has hundreds of thousands, so the inner loop does little."""
        length_at = _U64.unpack_from
        while count:
            if len(self.peek(_U64.size)) < _U64.size:
                raise self._cut_off()
            chunk, place = self._chunk, self._place
            last = len(chunk) - _U64.size
            while count and place <= last:
                length = length_at(chunk, place)[0]
                if length > _MAX_TEXT:
                    raise _damaged(f"it claims {length} bytes of text")
                place += _U64.size + length
                count -= 1
            self.skip(place - self._place)

    def _cut_off(self) -> BadInput:
        return BadInput(f"the file is cut off within its header: it has only {self._size} bytes; {_FETCH_AGAIN}")


def _read_metadata(reader: _Reader, count: int) -> dict[str, t.Any]:
    """Return the scalars and short texts among the keys; a tokenizer's lists and chat templates are not kept."""
    metadata = {}
    for _ in range(count):
        key = reader.text(_MAX_NAME, "key")
        value = reader.value(reader.scalar(_U32))
        if len(key) <= 256 and (not isinstance(value, str) or len(value) <= 1024):
            metadata[key] = value
    return metadata


def _measure(reader: _Reader, tensor_count: int, metadata: t.Mapping[str, t.Any]) -> tuple[int, int]:
    """Return (where the last tensor ends, or 0 when a tensor's type is unknown; how many weights all of them have)."""
    end = total = 0
    all_known = True
    for _ in range(tensor_count):
        name = reader.text(_MAX_NAME, "tensor name")
        dimensions = reader.scalar(_U32)
        if dimensions > _MAX_DIMENSIONS:
            raise _damaged(f"a tensor has {dimensions} dimensions")
        shape = struct.unpack(f"<{dimensions}Q", reader.take(8 * dimensions))
        kind = reader.scalar(_U32)
        offset = reader.scalar(_U64)
        weights = 1
        for length in shape:
            weights *= length
        total += weights
        if kind not in _TYPES:
            all_known = False
            continue
        block_weights, block_bytes = _TYPES[kind]
        if (shape and shape[0] % block_weights) or weights >= 1 << 63:
            raise _damaged(f"tensor {name[:64]!r} has the impossible shape {list(shape)}")
        end = max(end, offset + weights // block_weights * block_bytes)

    alignment = _number(metadata, "general.alignment") if "general.alignment" in metadata else 32
    if not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise _damaged("its alignment is not a power of two")
    if not all_known:
        return 0, total
    if end == 0:
        return reader.place, total
    return end + -(-reader.place // alignment) * alignment, total


def _damaged(problem: str) -> BadInput:
    return BadInput(f"the file's header is damaged: {problem}; {_FETCH_AGAIN}")


def _file_type(metadata: t.Mapping[str, t.Any]) -> int | None:
    value = metadata.get("general.file_type")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(metadata: t.Mapping[str, t.Any], key: str) -> int:
    value = metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _text(metadata: t.Mapping[str, t.Any], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""
