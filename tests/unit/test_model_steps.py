"""Which steps lead from a model to the GGUF file that is wanted."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from ansible.module_utils.llmfleet import model_steps, weight_types
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.model_steps import Source, Wish
from hypothesis import given
from hypothesis import strategies as st

TYPES = weight_types.TYPES
HF = Source("/srv/hf/Tiny-1B", "hf", 2_000_000_000, "x", 1_000_000_000, TYPES["BF16"], "/in/srv/hf/Tiny-1B")
F16 = Source("/srv/Tiny-1B-F16.gguf", "gguf", 2_000_000_000, "x", 1_000_000_000, TYPES["F16"], "/in/Tiny-1B-F16.gguf")
Q4 = replace(F16, size=600_000_000, type=TYPES["Q4_K_M"])
PARTS = replace(F16, path="/srv/Tiny-00001-of-00003.gguf", inside="/in/Tiny-00001-of-00003.gguf", parts=3)


def names(source: Source, wish: Wish) -> list[str]:
    return [step.name for step in model_steps.plan(source, wish, "out").steps]


@pytest.mark.parametrize(
    ("source", "wish", "steps"),
    [
        (HF, Wish(TYPES["Q4_K_M"]), ["convert to BF16", "quantise to Q4_K_M"]),
        (replace(HF, type=TYPES["F16"]), Wish(TYPES["Q4_K_M"]), ["convert to F16", "quantise to Q4_K_M"]),
        (replace(HF, type=TYPES["F32"]), Wish(TYPES["Q4_K_M"]), ["convert to BF16", "quantise to Q4_K_M"]),
        (HF, Wish(TYPES["Q8_0"]), ["convert to Q8_0"]),
        (HF, Wish(TYPES["F32"]), ["convert to F32"]),
        (replace(HF, type=TYPES["F32"]), Wish(None), ["convert to F32"]),
        (HF, Wish(None, 10**9), ["convert to BF16", "split into parts of 1000M at most"]),
        (F16, Wish(TYPES["Q4_K_M"]), ["quantise to Q4_K_M"]),
        (F16, Wish(TYPES["Q8_0"], 10**8), ["quantise to Q8_0", "split into parts of 100M at most"]),
        (F16, Wish(None, 10**9), ["split into parts of 1000M at most"]),
        (PARTS, Wish(None), ["merge"]),
        (PARTS, Wish(TYPES["F16"]), ["merge"]),
        (PARTS, Wish(TYPES["Q5_K_M"]), ["quantise to Q5_K_M"]),
        (PARTS, Wish(None, 10**9), ["merge", "split into parts of 1000M at most"]),
        (Q4, Wish(TYPES["Q2_K"], allow_requantize=True), ["quantise to Q2_K"]),
        (F16, Wish(TYPES["IQ2_XS"], imatrix="abc"), ["quantise to IQ2_XS"]),
    ],
)
def test_steps(source: Source, wish: Wish, steps: list[str]) -> None:
    assert names(source, wish) == steps


@pytest.mark.parametrize(
    ("source", "wish", "sentence"),
    [
        (F16, Wish(None), "nothing to do: it is one GGUF file"),
        (F16, Wish(TYPES["F16"]), "nothing to do: it is one GGUF file"),
        (F16, Wish(None, 3 * 10**9), "the whole model fits into one part"),
        (Q4, Wish(TYPES["Q2_K"]), "Q4_K_M already, and quantising it a second time"),
        (F16, Wish(TYPES["IQ1_S"]), "IQ1_S needs an importance matrix"),
        (HF, Wish(TYPES["Q2_K_S"]), "Q2_K_S needs an importance matrix"),
        (F16, Wish(TYPES["Q8_0"], options=("--imatrix", "/x")), "--imatrix is set by imatrix"),
        (F16, Wish(TYPES["Q8_0"], options=("--dry-run",)), "--dry-run is set by check mode"),
        (F16, Wish(TYPES["Q8_0"], options=("pure",)), "does not start with `--`"),
        (F16, Wish(TYPES["Q8_0"], options=("--pure", "a b")), "'a b' is no argument"),
        (HF, Wish(TYPES["Q8_0"], options=("--pure",)), "Q8_0 is written by the converter"),
        (PARTS, Wish(None, options=("--pure",)), "the type stays as it is"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(source: Source, wish: Wish, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        model_steps.plan(source, wish, "out")


def test_commands_of_a_whole_chain() -> None:
    wish = Wish(TYPES["Q4_K_M"], 5 * 10**9, "digest", options=("--output-tensor-type", "q8_0"))
    convert, quantize, split = model_steps.plan(HF, wish, "Tiny-1B-Q4_K_M").steps
    assert convert.program == "convert"
    assert convert.argv == ("/in/srv/hf/Tiny-1B", "--outtype", "bf16", "--outfile", "/out/converted.gguf")
    assert quantize.argv == (
        *("--imatrix", "/imatrix.gguf", "--output-tensor-type", "q8_0"),
        *("/out/converted.gguf", "/out/quantized.gguf", "Q4_K_M"),
    )
    assert quantize.removes == "converted.gguf"
    assert split.argv == ("--split", "--split-max-size", "5000M", "/out/quantized.gguf", "/out/Tiny-1B-Q4_K_M")
    assert split.removes == "quantized.gguf"


@given(
    source=st.sampled_from([HF, F16, Q4, PARTS]),
    wanted=st.sampled_from([None, *TYPES.values()]),
    split=st.sampled_from([0, 10**8, 10**9]),
)
def test_every_step_works_on_what_is_there(source: Source, wanted: t.Any, split: int) -> None:
    try:
        plan = model_steps.plan(source, Wish(wanted, split, "digest", allow_requantize=True), "out")
    except BadInput:
        return
    there = {source.inside}
    for step in plan.steps:
        read = {word for word in step.argv if word.startswith(("/in", "/out")) and not word.endswith(step.output)}
        assert read <= there, step
        there.add(f"/out/{step.output}")
        if step.removes:
            there.remove(f"/out/{step.removes}")
    # one result is left, and room for it was counted
    assert there - {source.inside} == {f"/out/{plan.steps[-1].output}"}
    assert plan.needed_bytes > (source.weight_count * (wanted.bits if wanted else 4) / 8) * 0.99
    if wanted:
        assert plan.type == wanted


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("10G", 10**10), ("500M", 5 * 10**8), ("2gb", 2 * 10**9), (" 1G ", 10**9)]
)
def test_sizes(text: str, size: int) -> None:
    assert model_steps.parse_split_size(text) == size


@pytest.mark.parametrize("text", ["10", "0G", "1.5G", "G", "-1G", "10T", "10 G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadInput, match="is no size; write a whole number"):
        model_steps.parse_split_size(text)


@pytest.mark.parametrize(
    ("source", "wanted", "name"),
    [
        (HF, TYPES["Q4_K_M"], "Tiny-1B-Q4_K_M"),
        (HF, None, "Tiny-1B-BF16"),
        (F16, TYPES["Q4_K_M"], "Tiny-1B-Q4_K_M"),
        (F16, None, "Tiny-1B-F16"),
        (PARTS, None, "Tiny"),
        (PARTS, TYPES["Q8_0"], "Tiny-Q8_0"),
        (replace(HF, path="/c/models--Qwen--Qwen3-8B/snapshots/0a1b"), TYPES["Q8_0"], "Qwen3-8B-Q8_0"),
        (replace(HF, path="/srv/hf/Tiny/"), TYPES["Q8_0"], "Tiny-Q8_0"),
    ],
)
def test_the_result_is_called_after_source_and_type(source: Source, wanted: t.Any, name: str) -> None:
    assert model_steps.default_name(source, wanted) == name
