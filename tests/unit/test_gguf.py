"""GGUF headers: real ones, what users point at by mistake, damaged ones, and arbitrary bytes."""

from __future__ import annotations

import dataclasses
import io
import struct
import time

import pytest
from ansible.module_utils.llmfleet import gguf, tiny_gguf
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gguf import wire
from ansible.module_utils.llmfleet.gguf.tensor_types import TENSOR_TYPES
from gguf_bytes import ARCHITECTURE, header, key, padded, tensor, text, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

TINY = tiny()


def read(data: bytes, size: int | None = None) -> gguf.GgufHeader:
    return gguf.read_header(io.BytesIO(data), len(data) if size is None else size)


def test_reads_a_model() -> None:
    found = read(TINY)
    assert dataclasses.replace(found, metadata={}, array_lengths={}, tensors=()) == gguf.GgufHeader(
        version=3,
        tensor_count=12,
        architecture="llama",
        name="llmfleet tiny",
        context_length=4096,
        block_count=1,
        split_number=0,
        split_count=1,
        split_tensor_count=0,
        needed_size=len(TINY),
        weight_count=37152,
        file_type=0,
        has_chat_template=True,
        tokenizer="llama",
    )
    assert found.metadata["llama.attention.head_count_kv"] == 1
    assert found.metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert found.metadata["tokenizer.ggml.add_bos_token"] is True
    words = len(tiny_gguf.vocabulary())
    assert found.array_lengths["tokenizer.ggml.tokens"] == words
    assert found.metadata["tokenizer.ggml.scores"] == tuple(-float(place) for place in range(words))
    assert "tokenizer.ggml.tokens" not in found.metadata
    assert found.tensors[0] == gguf.Tensor("token_embd.weight", (32, words), "F32", 4 * 32 * words)
    assert found.tensors[1] == ("blk.0.attn_norm.weight", (32,), "F32", 128)
    assert sum(one.weights for one in found.tensors) == found.weight_count


def test_a_header_can_be_a_key() -> None:
    assert len({read(TINY), read(TINY)}) == 1


@pytest.mark.parametrize(
    ("count", "kept"), [(0, True), (4096, True), (4097, False)], ids=["none", "as many as are kept", "one more"]
)
def test_lists_of_numbers_are_kept_up_to_a_length(count: int, kept: bool) -> None:
    found = read(header(ARCHITECTURE, text("l") + struct.pack(f"<IIQ{count}i", 9, 5, count, *range(count))))
    assert found.array_lengths["l"] == count
    assert found.metadata.get("l") == (tuple(range(count)) if kept else None)


def test_what_is_kept_of_lists_and_texts_is_bounded() -> None:
    lists = [text(f"l{n}") + struct.pack("<IIQ", 9, 0, 4096) + bytes(4096) for n in range(1000)]
    texts = [text(f"t{n}") + struct.pack("<I", 8) + text("x" * 4096) for n in range(1000)]
    found = read(header(*lists, *texts, ARCHITECTURE))
    assert len(found.array_lengths) == 1000
    assert 1 << 16 <= sum(len(one) for one in found.metadata.values() if isinstance(one, tuple)) <= 1 << 18
    assert 1 << 19 <= sum(len(one) for one in found.metadata.values() if isinstance(one, str)) <= 1 << 21
    # what comes after is kept for what it is
    assert read(header(*lists, key("llama.block_count", 4, "I", 7), ARCHITECTURE)).block_count == 7


@pytest.mark.parametrize(
    ("name", "value", "there"),
    [
        ("tokenizer.chat_template", "{{ messages }}", True),
        ("tokenizer.chat_template", "x" * 100_000, True),
        ("tokenizer.chat_template.tool_use", "x", True),
        ("tokenizer.chat_template", "", False),
        ("tokenizer.chat_templates", "x", False),
    ],
    ids=["short", "long", "named", "empty", "another key"],
)
def test_a_chat_template_is_noticed(name: str, value: str, there: bool) -> None:
    found = read(header(ARCHITECTURE, text(name) + struct.pack("<I", 8) + text(value)))
    assert found.has_chat_template is there


@pytest.mark.parametrize("kind", TENSOR_TYPES)
def test_every_type_of_tensor_has_its_size(kind: int) -> None:
    name, weights, size = TENSOR_TYPES[kind]
    start = padded(header(ARCHITECTURE, tensors=(tensor((weights * 3, 2), kind),)))
    found = read(start + bytes(size * 6))
    assert found.tensors == (("t", (weights * 3, 2), name, size * 6),)
    assert found.needed_size == len(start) + size * 6


def test_weights_of_an_unknown_type_are_counted_too() -> None:
    found = read(header(ARCHITECTURE, tensors=(tensor((32, 2), 0), tensor((32, 3), 999, 256, "u"))))
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
    start = padded(header(ARCHITECTURE, tensors=(tensor((32,), 0), tensor(shape, kind, 128, "u"))))
    assert read(start + bytes(128 + size)).needed_size == len(start) + 128 + size
    with pytest.raises(BadInput, match=f"cut off: its tensors need {len(start) + 128 + size} bytes and it has"):
        read(start + bytes(128 + size - 1))


def test_respects_the_alignment() -> None:
    start = header(ARCHITECTURE, key("general.alignment", 4, "I", 4096), tensors=(tensor((8,), 0),))
    assert read(padded(start, 4096) + bytes(32)).needed_size == 4096 + 32


def test_a_tensor_of_unknown_type_is_as_long_as_its_place_allows() -> None:
    """Its size is not judged, but nothing else can lie there: llama.cpp wants tensors one after the other."""
    rows = (tensor((32,), 0), tensor((32,), 999, 128, "u"), tensor((32,), 0, 192, "v"), tensor((9,), 98, 320, "w"))
    start = padded(header(ARCHITECTURE, tensors=rows))
    found = read(start + bytes(400))
    assert found.needed_size == 0
    assert [(one.type_name, one.bytes) for one in found.tensors] == [
        ("F32", 128),
        ("type 999", 64),
        ("F32", 128),
        ("type 98", 80),
    ]


def test_absent_and_senseless_values_are_zero() -> None:
    found = read(header(ARCHITECTURE, key("llama.context_length", 6, "f", 1.5), key("llama.block_count", 5, "i", -1)))
    assert (found.context_length, found.block_count, found.name) == (0, 0, "")


def test_passes_over_lists_of_every_kind() -> None:
    lists = [
        text(f"l{kind}") + struct.pack("<IIQ", 9, kind, 3) + bytes(3 * layout.size)
        for kind, layout in wire.SCALARS.items()
    ]
    nested = text("n") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 8, 2) + text("a") + text("")
    found = read(header(*lists, nested, ARCHITECTURE))
    assert found.architecture == "llama"
    assert found.metadata["l7"] == (False, False, False)
    assert found.array_lengths["n"] == 1


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
    "deep list": (header(text("l") + struct.pack("<IIQIQIQ", 9, 9, 1, 9, 1, 9, 1)), "too long, too many or too deep"),
    "many lists": (
        header(text("l") + struct.pack("<IIQ", 9, 9, 1 << 17) + struct.pack("<IQ", 0, 0) * (1 << 17)),
        "too long, too many or too deep",
    ),
    "long name of a key": (header(key("k" * 1025, 4, "I", 0), ARCHITECTURE), "claims 1025 bytes of key"),
    "unknown value": (header(key("k", 77, "I", 0)), "value of unknown type 77"),
    "unknown list": (header(text("l") + struct.pack("<IIQ", 9, 77, 1)), "list of unknown type 77"),
    "five dimensions": (header(ARCHITECTURE, tensors=(tensor((1, 1, 1, 1, 1), 0),)), "5 dimensions"),
    "part of a block": (header(ARCHITECTURE, tensors=(tensor((33,), 8),)), "impossible shape"),
    "huge tensor": (header(ARCHITECTURE, tensors=(tensor((1 << 40, 1 << 40), 0),)), "impossible shape"),
    "tensor at another place": (
        header(ARCHITECTURE, tensors=(tensor((8,), 0), tensor((8,), 0, 64, "u"))),
        "tensor 'u' is said to start at byte 64 instead of 32",
    ),
    "tensors over each other": (
        header(ARCHITECTURE, tensors=(tensor((8,), 0), tensor((8,), 0, 0, "u"))),
        "instead of 32",
    ),
    "unknown tensor before its predecessor": (
        header(ARCHITECTURE, tensors=(tensor((8,), 0), tensor((8,), 99, 32, "u"), tensor((8,), 0, 31, "v"))),
        "the tensor after 'u' is said to start before it",
    ),
    "two tensors of one name": (header(ARCHITECTURE, tensors=(tensor((8,), 0), tensor((8,), 0, 32))), "of one name"),
    "long tensor name": (header(ARCHITECTURE, tensors=(tensor((8,), 0, 0, "n" * 64),)), "name has 64 characters"),
    "a key twice": (header(ARCHITECTURE, ARCHITECTURE), "the key 'general.architecture' twice"),
    "key without a name": (header(key("", 4, "I", 0)), "a key is empty"),
    "key with NUL": (header(key("a\0b", 4, "I", 0)), "a key is not text"),
    "tensor with NUL": (header(ARCHITECTURE, tensors=(tensor((8,), 0, 0, "t\0"),)), "a tensor name is not text"),
    "2^63 weights": (header(ARCHITECTURE, tensors=(tensor((1 << 63,), 0),)), "impossible shape"),
    "type of the past": (
        header(ARCHITECTURE, tensors=(tensor((32,), 31),)),
        "type Q4_0_4_4, which .* as Q4_0",
    ),
    "type of nobody": (
        header(ARCHITECTURE, tensors=(tensor((32,), 1 << 24),)),
        "the unknown type 16777216",
    ),
    "alignment 0": (header(ARCHITECTURE, key("general.alignment", 4, "I", 0)), "alignment"),
    "alignment 2^31": (header(ARCHITECTURE, key("general.alignment", 4, "I", 1 << 31)), "alignment"),
    "alignment as list": (header(ARCHITECTURE, text("general.alignment") + struct.pack("<IIQ", 9, 8, 0)), "alignment"),
    "alignment as long text": (
        header(ARCHITECTURE, text("general.alignment") + struct.pack("<I", 8) + text("x" * 5000)),
        "alignment",
    ),
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
        struct.pack("<4sIQQ", b"GGUF", 3, 1 << 16, 0),
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
