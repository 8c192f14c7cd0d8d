"""The data of the CUDA plan is in the order and of the kind that its readers rely on."""

from __future__ import annotations

import re

import pytest
from ansible.module_utils.llmfleet.cuda_tables import (
    ARCHITECTURES,
    BROKEN,
    BUILDERS,
    CAPABILITIES,
    FAMILIES,
    PTX_CODE,
    TOOLKITS,
    numbers,
    toolkit,
)
from ansible.module_utils.llmfleet.gpu_products import PRODUCTS


@pytest.mark.parametrize(
    ("text", "answer"), [("570.86.10", (570, 86, 10)), ("12.8", (12, 8)), ("", ()), (None, ()), ("unknown", ())]
)
def test_numbers(text, answer):
    assert numbers(text) == answer


def test_toolkits_are_in_order_and_named_once():
    minors = [row.minor for row in TOOLKITS]
    assert minors == sorted(set(minors), reverse=True)
    drivers = [numbers(row.driver) for row in TOOLKITS]
    assert drivers == sorted(set(drivers), reverse=True)


def test_drivers_of_a_family_carry_at_least_its_first_toolkit():
    for major, driver in FAMILIES.items():
        first = min((row for row in TOOLKITS if row.minor[0] == major), key=lambda row: row.minor)
        # 11.0 became general with 450.51.05, and compatibility with 450.80.02
        assert numbers(first.driver)[0] == numbers(driver)[0]


@pytest.mark.parametrize("row", BUILDERS, ids=lambda row: row.version)
def test_images_are_of_the_toolkit(row):
    assert re.fullmatch(rf"{re.escape(row.version)}-devel-ubuntu2[24]\.04", row.devel)
    assert row.minor >= (11, 8)
    assert row.name not in BROKEN
    assert not row.wheel or numbers(row.wheel)[:2] == row.minor
    assert row.minor[0] in FAMILIES


@pytest.mark.parametrize("row", [row for row in TOOLKITS if row.base], ids=lambda row: row.version)
def test_test_images_are_of_the_minor_version(row):
    assert row.base.startswith(f"{row.name}.")


def test_architectures_are_in_order_and_named_once():
    order = [numbers(row.capability) for row in ARCHITECTURES]
    assert order == sorted(set(order))
    assert list(CAPABILITIES) == [row.capability for row in ARCHITECTURES]


def test_later_generations_begin_later():
    """Pascal needs no toolkit newer than Turing does, and so on; what was dropped was dropped from below."""
    rows = [row for row in ARCHITECTURES if numbers(row.capability) < (10,) and not row.jetson]
    firsts = [numbers(row.first) for row in rows]
    assert firsts == sorted(firsts)
    assert {row.last for row in ARCHITECTURES if numbers(row.capability) < (7, 5)} == {"12.9"}
    assert {row.last for row in ARCHITECTURES if numbers(row.capability) >= (7, 5)} == {""}


def test_the_portable_code_is_one_that_all_toolkits_compile():
    (row,) = [row for row in ARCHITECTURES if row.code == PTX_CODE]
    assert row.portable
    assert not row.last
    assert all(numbers(row.first) <= kit.minor for kit in BUILDERS)


def test_every_capability_that_products_have_is_planned_for():
    assert {capability for capability, _names in PRODUCTS} == set(CAPABILITIES)


@pytest.mark.parametrize(
    ("version", "found"), [("12.8.1", "12.8.1"), ("12.8", "12.8.1"), ("12.8.0", None), ("12", None), ("", None)]
)
def test_toolkit(version, found):
    row = toolkit(version)
    assert (row.version if row else None) == found
