"""Who asks whom for an image."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_peers import spread
from hypothesis import given
from hypothesis import strategies as st

hosts = st.lists(st.integers(1, 200).map(str), max_size=60)


def test_eight_hosts() -> None:
    peers = spread("b", list("12345678"))
    assert peers == {
        "1": ["b"], "2": ["b"],
        "3": ["1", "b"], "4": ["1", "b"], "5": ["2", "b"], "6": ["2", "b"],
        "7": ["3", "1", "b"], "8": ["3", "1", "b"],
    }  # fmt: skip


def test_a_chain() -> None:
    assert spread("b", ["1", "2", "3"], fan_out=1) == {"1": ["b"], "2": ["1", "b"], "3": ["2", "1", "b"]}


@given(hosts, st.integers(1, 4))
def test_few_copies_and_every_way_ends_at_the_builder(receivers: list[str], fan_out: int) -> None:
    peers = spread("0", receivers, fan_out)
    assert set(peers) == set(receivers)
    first = [asked[0] for asked in peers.values()]
    assert all(first.count(host) <= fan_out for host in first)
    for name, asked in peers.items():
        assert asked[-1] == "0"
        assert name not in asked
        assert len(set(asked)) == len(asked)
        # what it asks second is what its parent asks first, and so on: an ended host is bridged
        assert asked[1:] == peers.get(asked[0], [])


@given(hosts)
def test_no_way_is_long(receivers: list[str]) -> None:
    peers = spread("0", receivers)
    assert all(2 ** (len(asked) - 1) <= len(peers) + 1 for asked in peers.values())


def test_the_builder_does_not_ask_itself() -> None:
    assert spread("b", ["b", "1", "1"]) == {"1": ["b"]}


def test_a_fan_out_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput):
        spread("b", ["1"], 0)
