"""Keys of the gateway: what is accepted, and that messages show none."""

from __future__ import annotations

import hashlib

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gateway.access import Access, parse

KEY = "0123456789abcdef"


def test_what_is_kept_of_a_key():
    row = {"name": "alice", "key": KEY, "services": ["chat"], "requests_per_minute": 60, "parallel": None}
    assert parse([row]) == (Access("alice", hashlib.sha256(KEY.encode()).hexdigest(), ("chat",), 60, 0),)
    assert KEY not in repr(parse([row]))


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (None, "llm_gateway_keys must be a list"),
        ({"alice": KEY}, "llm_gateway_keys must be a list"),
        (["alice"], "must be a mapping"),
        # as of a variable of the environment that is not set
        ([{"name": "alice", "key": ""}], "key alice of the gateway: `key` is empty"),
        ([{"key": KEY}], "`name` must be"),
        ([{"name": "", "key": KEY}], "`name` must be"),
        ([{"name": 'a"b', "key": KEY}], "`name` must be"),
        ([{"name": "anybody", "key": KEY}], "`name` must be"),
        ([{"name": "alice"}], "key alice of the gateway: `key` must be a string"),
        ([{"name": "alice", "key": 1234567890123456}], "quote it"),
        ([{"name": "alice", "key": f"{KEY} secret-part"}], "visible ASCII"),
        ([{"name": "alice", "key": "secret-part"}], "shorter than 16"),
        ([{"name": "alice", "key": KEY, "service": "chat"}], "unknown field `service` (known: name, key, services"),
        ([{"name": "alice", "key": KEY, "services": "chat"}], "`services` must be a list"),
        ([{"name": "alice", "key": KEY, "requests_per_minute": -1}], "`requests_per_minute` must be a number"),
        ([{"name": "alice", "key": KEY, "parallel": True}], "`parallel` must be a number"),
        # nginx compares names without case
        ([{"name": "alice", "key": KEY}, {"name": "Alice", "key": f"{KEY}2"}], "alice is there twice"),
        ([{"name": "alice", "key": KEY}, {"name": "bob", "key": KEY}], "alice has the same key as another one"),
    ],
)
def test_what_is_refused(rows, why):
    with pytest.raises(BadInput) as caught:
        parse(rows)
    assert why in str(caught.value)
    assert KEY not in str(caught.value)
    assert "secret-part" not in str(caught.value)
