"""GGUF headers that somebody made up: reading ends soon and in little memory, in a header or in a sentence."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import time
import tracemalloc
import typing as t

import pytest
from ansible.module_utils.llmfleet import gguf
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gguf import wire
from ansible.module_utils.llmfleet.gguf.tensor_types import TENSOR_TYPES
from ansible.module_utils.llmfleet.memory.shape import from_gguf
from gguf_bytes import ARCHITECTURE, ARRAY, STRING, header, model, number, numbers, tensor, text, tiny, word, words
from hypothesis import given, settings
from hypothesis import strategies as st

MIB = 1 << 20


def parse(data: bytes, size: int = -1) -> gguf.GgufHeader | None:
    """Return the header or None; everything that is made of it must work too."""
    said = ""
    try:
        found = gguf.read_header(io.BytesIO(data), len(data) if size < 0 else size)
    except BadInput as error:
        said = str(error)
    if said:
        assert "\n" not in said
        assert len(said) < 400
        return None
    json.dumps(gguf.summary(found), allow_nan=False)
    with contextlib.suppress(BadInput):
        json.dumps(from_gguf(found).as_data(), allow_nan=False)
    assert 0 <= found.needed_size <= max(size, len(data))
    assert len(found.tensors) == found.tensor_count
    assert all(one.bytes >= 0 and one.weights >= 0 for one in found.tensors)
    return found


EDGES = st.sampled_from([0, 1, 2, 31, 32, 33, 255, 256, 4096, 4097, 1 << 16, 1 << 22, (1 << 31) - 1, 1 << 31, 1 << 32])
HUGE = st.one_of(EDGES, st.sampled_from([(1 << 63) - 1, 1 << 63, (1 << 64) - 1]), st.integers(0, (1 << 64) - 1))
# hypothesis likes ends of ranges, so the one that counts stands in the middle
RARELY = st.integers(0, 30).map(lambda number: number == 17)
NAMES = st.one_of(
    st.sampled_from(
        [
            "general.architecture",
            "general.alignment",
            "general.file_type",
            "general.name",
            "split.no",
            "split.count",
            "split.tensors.count",
            "llama.block_count",
            "llama.embedding_length",
            "llama.attention.head_count",
            "llama.attention.head_count_kv",
            "llama.attention.sliding_window_pattern",
            "llama.ssm.state_size",
            "llama.attention.kv_lora_rank",
            "llama.attention.sliding_window",
            "llama.vocab_size",
            "llama.expert_count",
            "llama.pooling_type",
            "tokenizer.ggml.tokens",
            "tokenizer.chat_template",
        ]
    ),
    st.text(min_size=1, max_size=8),
)


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> bytes:
    """Type and bytes of a value; now and then they do not fit each other."""
    kind = draw(st.sampled_from([13, (1 << 32) - 1] if draw(RARELY) else [*wire.SCALARS, STRING, STRING, ARRAY, ARRAY]))
    return struct.pack("<I", kind) + draw(payloads(kind, depth))


@st.composite
def payloads(draw: st.DrawFn, kind: int, depth: int) -> bytes:
    if kind in wire.SCALARS:
        size = wire.SCALARS[kind].size
        return draw(st.one_of(st.binary(min_size=size, max_size=size), st.just(b"\1" + bytes(size - 1))))
    if kind == STRING:
        data = draw(st.one_of(st.sampled_from([b"llama", b"mamba", b"x" * 300, b"y" * 5000]), st.binary(max_size=20)))
        length = draw(HUGE) if draw(RARELY) else len(data)
        return struct.pack("<Q", length) + data
    if kind == ARRAY and depth < 4:
        inner = 99 if draw(RARELY) else draw(st.sampled_from([*wire.SCALARS, STRING, ARRAY]))
        items = draw(st.lists(payloads(inner, depth + 1), max_size=5))
        count = draw(HUGE) if draw(RARELY) else len(items)
        return struct.pack("<IQ", inner, count) + b"".join(items)
    return draw(st.binary(max_size=12))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A header that is right in most places, so that what is wrong is reached."""
    names = draw(st.lists(NAMES, max_size=6, unique=not draw(RARELY)))
    if "general.architecture" not in names and not draw(RARELY):
        names.insert(0, "general.architecture")
    keys = [text(name) + draw(values()) if name != "general.architecture" else ARCHITECTURE for name in names]
    rows = []
    offset = 0
    for place in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from([0, 1, 8, 14, 39, 99, 1 << 31]))
        lengths = HUGE if draw(RARELY) else st.sampled_from([0, 1, 256, 512])
        dims = tuple(draw(st.lists(lengths, max_size=5 if draw(RARELY) else 4)))
        name = draw(st.text(max_size=70)) if draw(RARELY) else f"blk.{place}.x"
        rows.append(tensor(dims, kind, draw(HUGE) if draw(RARELY) else offset, name))
        if kind in TENSOR_TYPES:
            weights = 1
            for one in dims:
                weights *= one
            offset += weights // TENSOR_TYPES[kind].weights * TENSOR_TYPES[kind].bytes
            offset = min(-(-offset // 32) * 32, (1 << 64) - 1)
    version = draw(st.sampled_from([0, 1 << 16] if draw(RARELY) else [2, 3]))
    data = header(*keys, tensors=tuple(rows), version=version)
    if draw(RARELY):
        data = data[:8] + struct.pack("<QQ", draw(HUGE), draw(HUGE)) + data[24:]
    if draw(RARELY):
        data = data[: draw(st.integers(0, len(data)))]
    return data + bytes(draw(st.sampled_from([0, 64, 5000])))


@settings(max_examples=400, deadline=5000)
@given(files(), st.sampled_from([-1, 1 << 40, 1 << 62]))
def test_made_up_files_end_in_a_header_or_a_sentence(data: bytes, size: int) -> None:
    parse(data, size)


RICH = model(
    word("general.name", "rich"),
    number("llama.block_count", 4),
    number("llama.embedding_length", 64),
    numbers("llama.attention.head_count", 4, 4, 0, 4),
    words("tokenizer.ggml.tokens", *"abcdefgh"),
    word("tokenizer.chat_template", "x" * 5000),
    tensors=("token_embd.weight", "blk.0.attn_q.weight", "output.weight"),
)
PLACES = [place for place in range(len(RICH)) if not b"x" * 16 <= RICH[place : place + 16] <= b"x" * 16]


@settings(max_examples=400, deadline=5000)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_a_model_with_wrong_bytes_ends_in_a_header_or_a_sentence(changes: list[tuple[int, int]], cut: bool) -> None:
    data = bytearray(RICH)
    for place, byte in changes:
        data[place] = byte
    parse(bytes(data[: changes[0][0]] if cut else data))


@pytest.mark.parametrize("name", ["split.no", "split.count", "split.tensors.count"])
def test_a_count_that_is_a_text_is_no_count(name: str) -> None:
    found = parse(model(word(name, "llama"), number("llama.block_count", 1)))
    assert found
    assert (found.split_number, found.split_count, found.split_tensor_count) == (0, 1, 0)


def test_the_model_as_it_was_is_read() -> None:
    """So that the test above starts from something that has it all."""
    found = parse(RICH)
    assert found
    assert found.has_chat_template
    assert gguf.summary(found)["heads"] == [4, 4, 0, 4]


def many_tensors() -> bytes:
    rows = tuple(tensor((8, 1, 1, 1), 0, 32 * place, f"{place:063d}") for place in range(1 << 14))
    return header(ARCHITECTURE, tensors=rows)


WORST: dict[str, t.Callable[[], bytes]] = {
    "tensors": many_tensors,
    "texts": lambda: header(*(word(f"{place:0250d}", "x" * 4096) for place in range(1 << 14))),
    "lists": lambda: header(
        *(text(f"{place}") + struct.pack("<IIQ", ARRAY, 10, 4096) + b"\xff" * 8 * 4096 for place in range(1 << 10))
    ),
    "long names": lambda: header(*(word(f"{place}" + "n" * 1_000, "") for place in range(1 << 14))),
    "long texts": lambda: header(*(word(f"{place}", "x" * (1 << 24)) for place in range(3))),
    "lists of lists": lambda: header(
        *(
            text(f"{place}") + struct.pack("<IIQ", ARRAY, ARRAY, 1 << 14) + struct.pack("<IQ", 0, 0) * (1 << 14)
            for place in range(16)
        )
    ),
    "words": lambda: header(text("l") + struct.pack("<IIQ", ARRAY, STRING, 1 << 20) + bytes(8 << 20)),
    "a real one": tiny,
}


@pytest.mark.parametrize("case", WORST)
def test_memory_and_time_are_bounded(case: str) -> None:
    stream = io.BytesIO(WORST[case]())
    began = time.monotonic()
    tracemalloc.start()
    try:
        gguf.read_header(stream, 1 << 62)
    except BadInput:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # generous: a busy machine, and counting every allocation slows it down several times
    assert time.monotonic() - began < 60
    # a quarter of the tensors that a header may have at most
    assert peak < (16 if case == "tensors" else 64) * MIB
    print(f"{case}: {peak / MIB:.1f} MiB")
