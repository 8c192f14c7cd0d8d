"""GGUF headers: real ones, what users point at by mistake, damaged ones, and arbitrary bytes."""

from __future__ import annotations

import io
import struct
import time

import pytest
from ansible.module_utils.llmfleet import gguf, tiny_gguf
from ansible.module_utils.llmfleet.errors import BadInput
from hypothesis import given, settings
from hypothesis import strategies as st


def tiny() -> bytes:
    stream = io.BytesIO()
    tiny_gguf.write(stream, layers=1, dim=32)
    return stream.getvalue()


TINY = tiny()


def read(data: bytes, size: int | None = None) -> gguf.GgufHeader:
    return gguf.read_header(io.BytesIO(data), len(data) if size is None else size)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def key(name: str, kind: int, layout: str, *values: object) -> bytes:
    return text(name) + struct.pack("<I", kind) + struct.pack("<" + layout, *values)


ARCHITECTURE = text("general.architecture") + struct.pack("<I", 8) + text("llama")


def header(*keys: bytes, tensors: tuple[bytes, ...] = (), version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)


def tensor(shape: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    return text("t") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def padded(data: bytes, alignment: int = 32) -> bytes:
    return data + bytes(-len(data) % alignment)


def test_reads_a_model() -> None:
    assert read(TINY) == gguf.GgufHeader(
        version=3,
        tensor_count=12,
        architecture="llama",
        name="llmfleet tiny",
        context_length=4096,
        block_count=1,
        split_number=0,
        split_count=1,
        needed_size=len(TINY),
        weight_count=37152,
        file_type=0,
    )


def test_weights_of_an_unknown_type_are_counted_too() -> None:
    found = read(header(ARCHITECTURE, tensors=(tensor((32, 2), 0), tensor((32, 3), 999))))
    assert (found.needed_size, found.weight_count, found.file_type) == (0, 160, None)


def test_facts_are_plain_data() -> None:
    facts = read(TINY).facts()
    assert facts["architecture"] == "llama"
    assert facts["context_length"] == 4096


def test_reads_version_2_and_a_split_model() -> None:
    first = header(ARCHITECTURE, key("split.no", 2, "H", 0), key("split.count", 2, "H", 3), version=2)
    later = header(key("split.no", 2, "H", 2), key("split.count", 2, "H", 3))
    assert (read(first).version, read(first).split_number, read(first).split_count) == (2, 0, 3)
    assert (read(later).architecture, read(later).split_number) == ("", 2)


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [
        ((64,), 0, 256),
        ((64, 3), 1, 384),
        ((64, 2), 8, 136),
        ((256, 2), 14, 420),
        ((256,), 12, 144),
        ((32, 2, 2), 2, 72),
    ],
)
def test_needs_the_bytes_of_its_last_tensor(shape: tuple[int, ...], kind: int, size: int) -> None:
    start = padded(header(ARCHITECTURE, tensors=(tensor((32,), 0), tensor(shape, kind, 128))))
    assert read(start + bytes(128 + size)).needed_size == len(start) + 128 + size
    with pytest.raises(BadInput, match=f"cut off: its tensors need {len(start) + 128 + size} bytes and it has"):
        read(start + bytes(128 + size - 1))


def test_respects_the_alignment() -> None:
    start = header(ARCHITECTURE, key("general.alignment", 4, "I", 4096), tensors=(tensor((8,), 0),))
    assert read(padded(start, 4096) + bytes(32)).needed_size == 4096 + 32


def test_does_not_judge_the_size_with_an_unknown_tensor_type() -> None:
    assert read(header(ARCHITECTURE, tensors=(tensor((32,), 0), tensor((32,), 999)))).needed_size == 0


def test_absent_and_senseless_values_are_zero() -> None:
    found = read(header(ARCHITECTURE, key("llama.context_length", 6, "f", 1.5), key("llama.block_count", 5, "i", -1)))
    assert (found.context_length, found.block_count, found.name) == (0, 0, "")


def test_passes_over_lists_of_every_kind() -> None:
    lists = [
        text(f"l{kind}") + struct.pack("<IIQ", 9, kind, 3) + bytes(3 * layout.size)
        for kind, layout in gguf._SCALARS.items()
    ]
    nested = text("n") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 8, 2) + text("a") + text("")
    assert read(header(*lists, nested, ARCHITECTURE)).architecture == "llama"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
WRONG = {
    "empty": (b"", "is empty"),
    "html": (b"<!DOCTYPE html><html>", "is a web page"),
    "html after blanks": (b"\xef\xbb\xbf\n  <html>", "is a web page"),
    "lfs pointer": (LFS, "git LFS pointer"),
    "other file": (b"PK\x03\x04rest", "not a GGUF model"),
    "two bytes": (b"GG", "not a GGUF model"),
    "only magic": (b"GGUF", "cut off within its header: it has only 4 bytes"),
    "version 1": (header(version=1), "GGUF version 1, and engines read versions 2 and 3"),
    "version 99": (header(version=99), "GGUF version 99"),
    "big endian": (b"GGUF\0\0\0\x03" + bytes(16), "big-endian"),
    "half a header": (TINY[:3000], "cut off within its header: it has only 3000 bytes"),
    "half the data": (TINY[: len(TINY) // 2], f"need {len(TINY)} bytes and it has {len(TINY) // 2}"),
    "no architecture": (header(), "without `general.architecture`"),
    "tensor flood": (struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 0), "claims 1152921504606846976 tensors"),
    "key flood": (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1 << 60), "claims 1152921504606846976 keys"),
    "long key": (struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1 << 40), "bytes of key"),
    "long list": (header(text("l") + struct.pack("<IIQ", 9, 8, 1 << 40)), "items in a list"),
    "deep list": (header(text("l") + struct.pack("<IIQIQIQ", 9, 9, 1, 9, 1, 9, 1)), "too long or too deep"),
    "unknown value": (header(key("k", 77, "I", 0)), "value of unknown type 77"),
    "unknown list": (header(text("l") + struct.pack("<IIQ", 9, 77, 1)), "list of unknown type 77"),
    "five dimensions": (header(ARCHITECTURE, tensors=(tensor((1, 1, 1, 1, 1), 0),)), "5 dimensions"),
    "part of a block": (header(ARCHITECTURE, tensors=(tensor((33,), 8),)), "impossible shape"),
    "huge tensor": (header(ARCHITECTURE, tensors=(tensor((1 << 40, 1 << 40), 0),)), "impossible shape"),
    "alignment 3": (header(ARCHITECTURE, key("general.alignment", 4, "I", 3)), "alignment"),
    "alignment as text": (
        header(ARCHITECTURE, text("general.alignment") + struct.pack("<I", 8) + text("x")),
        "alignment",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_says_what_is_wrong_in_one_sentence(case: str) -> None:
    data, message = WRONG[case]
    with pytest.raises(BadInput, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value)


def test_a_large_vocabulary_across_chunks() -> None:
    words = [f"word{'x' * (number % 40)}" for number in range(100_000)]
    many = (
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(words)) + b"".join(text(word) for word in words)
    )
    assert len(many) > 2 << 20
    assert read(header(many, ARCHITECTURE)).architecture == "llama"
    with pytest.raises(BadInput, match="cut off"):
        read(header(many)[:-1])


def test_a_stream_shorter_than_told_is_cut_off() -> None:
    with pytest.raises(BadInput, match="cut off"):
        read(TINY[:3000], size=len(TINY))


class Endless(io.RawIOBase):
    """A file of nearly any size whose every string is as long as it may be."""

    def __init__(self, start: bytes) -> None:
        self._start = start
        self._place = 0
        self.read_bytes = 0

    def seek(self, place: int, whence: int = 0) -> int:
        assert whence == 0
        self._place = place
        return place

    def read(self, count: int = -1) -> bytes:
        self.read_bytes += count
        data = self._start[self._place : self._place + count]
        return data + bytes(count - len(data))


@pytest.mark.parametrize(
    "start",
    [
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1 << 14),
        header(text("l") + struct.pack("<IIQ", 9, 8, 1 << 22)),
        struct.pack("<4sIQQ", b"GGUF", 3, 1 << 17, 0),
    ],
    ids=["keys", "list", "tensors"],
)
def test_a_hostile_file_of_any_size_costs_little(start: bytes) -> None:
    stream = Endless(start)
    began = time.monotonic()
    with pytest.raises(BadInput):
        gguf.read_header(stream, 1 << 50)  # type: ignore[arg-type]
    assert time.monotonic() - began < 5
    assert stream.read_bytes <= (1 << 28) + (1 << 24)


def parse(data: bytes) -> gguf.GgufHeader | None:
    try:
        return read(data)
    except BadInput:
        return None


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_end_in_a_header_or_a_sentence(data: bytes, with_magic: bool) -> None:
    parse((b"GGUF\x03\0\0\0" if with_magic else b"") + data)


HEADER_END = TINY.index(b"output.weight") + 100


@settings(max_examples=300, deadline=2000)
@given(st.lists(st.tuples(st.integers(0, HEADER_END), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_models_end_in_a_header_or_a_sentence(changes: list[tuple[int, int]]) -> None:
    data = bytearray(TINY)
    for place, byte in changes:
        data[place] = byte
    parse(bytes(data))


@settings(max_examples=150, deadline=2000)
@given(st.integers(0, len(TINY) - 1))
def test_no_beginning_of_a_model_passes_for_the_whole(length: int) -> None:
    assert parse(TINY[:length]) is None
