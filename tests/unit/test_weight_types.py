"""Types of weights: what users write, and what the numbers in headers mean."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet import weight_types
from ansible.module_utils.llmfleet.errors import BadInput


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Q4_K_M", "Q4_K_M"),
        ("q4_k_m", "Q4_K_M"),
        (" q8_0 ", "Q8_0"),
        ("q4-k-m", "Q4_K_M"),
        ("Q5_K", "Q5_K_M"),
        ("fp16", "F16"),
    ],
)
def test_users_write_types_in_many_ways(text: str, name: str) -> None:
    found = weight_types.parse(text)
    assert found
    assert found.name == name


def test_keep_is_no_type() -> None:
    assert weight_types.parse("keep") is None
    assert weight_types.parse("KEEP") is None


@pytest.mark.parametrize(
    ("text", "hint"), [("Q4_KM", "did you mean Q4_K_M?"), ("", "good first choice"), ("x", "Q4_K_M")]
)
def test_another_word_is_answered_with_a_suggestion(text: str, hint: str) -> None:
    with pytest.raises(BadInput, match="is none of F32, F16") as caught:
        weight_types.parse(text)
    assert hint in str(caught.value)


def test_numbers_are_those_of_headers() -> None:
    assert weight_types.of_number(15) == weight_types.TYPES["Q4_K_M"]
    assert weight_types.of_number(0) == weight_types.TYPES["F32"]
    assert weight_types.of_number(1024) is None
    assert weight_types.of_number(None) is None
    numbers = [row.number for row in weight_types.TYPES.values()]
    assert len(set(numbers)) == len(numbers)


def test_fewer_bits_within_a_family() -> None:
    bits = {name: row.bits for name, row in weight_types.TYPES.items()}
    for order in (
        ["F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"],
        ["IQ2_M", "IQ2_S", "IQ2_XS", "IQ1_S"],
    ):
        assert [bits[name] for name in order] == sorted((bits[name] for name in order), reverse=True)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("Qwen3-8B-Q4_K_M", "Qwen3-8B"),
        ("qwen3-8b-q8_0", "qwen3-8b"),
        ("model.BF16", "model"),
        ("Qwen3-8B", "Qwen3-8B"),
        ("F16", "F16"),
        ("half-f16er", "half-f16er"),
    ],
)
def test_a_type_at_the_end_of_a_name_is_taken_off(stem: str, name: str) -> None:
    assert weight_types.without_suffix(stem) == name
