"""The header of a GGUF model file: what the model is, and whether the file is whole."""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gguf.tensor_types import LARGEST_NUMBER, REMOVED, TENSOR_TYPES
from ansible.module_utils.llmfleet.gguf.wire import FETCH_AGAIN, U32, U64, Metadata, Reader, damaged

# GGML_MAX_DIMS and GGML_MAX_NAME (with its final NUL) of ggml.h
_MAX_DIMENSIONS = 4
_MAX_TENSOR_NAME = 63
_MAX_ALIGNMENT = 1 << 20
_CHAT_TEMPLATE = "tokenizer.chat_template"


class Tensor(t.NamedTuple):
    """One tensor, as the header describes it."""

    name: str
    dims: tuple[int, ...]
    """Row length first, as ggml has it."""
    type_name: str
    """Such as Q4_K; `type 99` for a number not known here."""
    bytes: int
    """Bytes in the file, without padding; with an unknown type those up to the next tensor."""

    @property
    def weights(self) -> int:
        """How many numbers it has."""
        return _product(self.dims)


@dataclass(frozen=True)
class GgufHeader:
    """What the header says. Zero and "" stand for what it does not say.

    That of a split model's first part has its description; only the header that `read_model` returns has all tensors.
    """

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
    split_tensor_count: int
    """Tensors of all parts together, as the first part of a split model says."""
    needed_size: int
    """Bytes the file must have for its tensors; 0 when a tensor's type is unknown here."""
    weight_count: int = 0
    """Weights in the tensors of this file."""
    file_type: int | None = None
    """Number of the type that most of the weights have (`llama_ftype`), None where the header does not say."""
    metadata: t.Mapping[str, t.Any] = field(default_factory=dict, hash=False, repr=False)
    """Scalars, texts up to 4 KiB, and lists of up to 4096 numbers (as tuples) by their keys."""
    array_lengths: t.Mapping[str, int] = field(default_factory=dict, hash=False, repr=False)
    """Items of every list, also of those which are too long for ``metadata`` or no numbers (the vocabulary)."""
    tensors: tuple[Tensor, ...] = field(default=(), repr=False)
    """The tensors of this file, in the order they lie in it."""
    has_chat_template: bool = False
    tokenizer: str = ""
    """Kind of tokenizer (`tokenizer.ggml.model`): gpt2 is byte-pair encoding, llama SentencePiece."""

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
        raise BadInput(f"the file is empty; {FETCH_AGAIN}")
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
    reader = Reader(stream, size)
    check_start(reader.peek(64), size)
    reader.skip(4)
    version = reader.scalar(U32)
    if version not in (2, 3):
        if version & 0xFFFF == 0 and version:
            raise BadInput("the file is a GGUF model for big-endian machines; get the little-endian one")
        raise BadInput(
            f"the file is GGUF version {version}, and engines read versions 2 and 3; convert the model again"
        )
    tensor_count = reader.count_of_tensors()
    metadata = reader.metadata()
    tensors, needed = _read_tensors(reader, tensor_count, _alignment(metadata), size)
    if needed > size:
        raise BadInput(f"the file is cut off: its tensors need {needed} bytes and it has {size}; {FETCH_AGAIN}")

    values = metadata.values
    architecture = _text(values, "general.architecture")
    header = GgufHeader(
        version=version,
        tensor_count=tensor_count,
        architecture=architecture,
        name=_text(values, "general.name"),
        context_length=_number(values, f"{architecture}.context_length"),
        block_count=_number(values, f"{architecture}.block_count"),
        split_number=_number(values, "split.no"),
        split_count=_number(values, "split.count") or 1,
        split_tensor_count=_number(values, "split.tensors.count"),
        needed_size=needed,
        weight_count=sum(tensor.weights for tensor in tensors),
        file_type=_file_type(values),
        metadata=values,
        array_lengths=metadata.array_lengths,
        tensors=tensors,
        has_chat_template=any(
            length and (key == _CHAT_TEMPLATE or key.startswith(_CHAT_TEMPLATE + "."))
            for key, length in metadata.text_lengths.items()
        ),
        tokenizer=_text(values, "tokenizer.ggml.model"),
    )
    # only the first part of a split model carries the description
    if not architecture and header.split_number == 0:
        raise BadInput("the file is a GGUF file without `general.architecture`, so no engine can load it as a model")
    return header


class _Row(t.NamedTuple):
    """A tensor as it is written."""

    name: str
    dims: tuple[int, ...]
    kind: int
    offset: int


def _read_tensors(reader: Reader, count: int, alignment: int, size: int) -> tuple[tuple[Tensor, ...], int]:
    """Return the tensors, and the bytes that the file needs for them (0 when a tensor's type is unknown)."""
    rows = [_read_row(reader) for _ in range(count)]
    if len({row.name for row in rows}) < count:
        raise damaged("it has two tensors of one name")
    if not rows:
        return (), reader.place
    start = _padded(reader.place, alignment)
    tensors: list[Tensor] = []
    expected = 0
    for row, following in zip(rows, [*rows[1:], None]):
        if row.offset != expected:
            raise damaged(f"tensor {row.name!r} is said to start at byte {row.offset} instead of {expected}")
        known = TENSOR_TYPES.get(row.kind)
        if known:
            if (row.dims and row.dims[0] % known.weights) or _product(row.dims) >= 1 << 63:
                raise damaged(f"tensor {row.name!r} has the impossible shape {list(row.dims)}")
            taken = _product(row.dims) // known.weights * known.bytes
            expected = _padded(row.offset + taken, alignment)
        else:
            # llama.cpp wants the tensors one after the other, so the next one tells how large this one is
            expected = following.offset if following else max(row.offset, size - start)
            taken = expected - row.offset
            if taken < 0:
                raise damaged(f"the tensor after {row.name!r} is said to start before it")
        tensors.append(Tensor(row.name, row.dims, known.name if known else f"type {row.kind}", taken))
    if any(row.kind not in TENSOR_TYPES for row in rows):
        return tuple(tensors), 0
    # a file may end without the padding of its last tensor
    end = rows[-1].offset + tensors[-1].bytes
    return tuple(tensors), start + end if end else reader.place


def _read_row(reader: Reader) -> _Row:
    name = reader.name("tensor name")
    if len(name) > _MAX_TENSOR_NAME:
        raise damaged(f"a tensor's name has {len(name)} characters")
    dimensions = reader.scalar(U32)
    if dimensions > _MAX_DIMENSIONS:
        raise damaged(f"a tensor has {dimensions} dimensions")
    dims = struct.unpack(f"<{dimensions}Q", reader.take(8 * dimensions))
    kind = reader.scalar(U32)
    if kind in REMOVED:
        old, new = REMOVED[kind]
        raise BadInput(f"the file has weights of the type {old}, which engines no longer read; get the model as {new}")
    if kind > LARGEST_NUMBER:
        raise damaged(f"tensor {name!r} has the unknown type {kind}")
    return _Row(name, dims, kind, reader.scalar(U64))


def _alignment(metadata: Metadata) -> int:
    """Return the bytes that every tensor's place is a multiple of."""
    key = "general.alignment"
    # a text may be too long to be kept
    if key not in metadata.values and key not in metadata.array_lengths and key not in metadata.text_lengths:
        return 32
    alignment = _number(metadata.values, key)
    if not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise damaged("its alignment is not a power of two")
    return alignment


def _padded(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment


def _product(dims: tuple[int, ...]) -> int:
    weights = 1
    for length in dims:
        weights *= length
    return weights


def _file_type(metadata: t.Mapping[str, t.Any]) -> int | None:
    value = metadata.get("general.file_type")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(metadata: t.Mapping[str, t.Any], key: str) -> int:
    value = metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _text(metadata: t.Mapping[str, t.Any], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""
