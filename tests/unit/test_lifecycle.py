"""Every combination of what is there and what is wanted leads to one decision."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.lifecycle import Seen, decide

A = {"name": "chat", "argv": ["--ctx-size", "2048"], "secrets": {}, "salt": "x"}
B = {**A, "argv": ["--ctx-size", "4096"]}
UP_A, UP_B, DOWN_A = Seen(A, "running"), Seen(B, "running"), Seen(A, "exited")


@pytest.mark.parametrize(
    ("state", "current", "previous", "wanted", "action"),
    [
        ("started", None, None, A, "create"),
        ("started", UP_A, None, A, "keep"),
        ("started", DOWN_A, None, A, "start"),
        ("started", Seen(A, "restarting"), None, A, "start"),
        ("started", UP_A, None, B, "replace"),
        ("started", DOWN_A, None, B, "replace"),
        ("started", Seen(None, "running"), None, A, "replace"),
        # interrupted roll-outs, by how far they came
        ("started", None, UP_A, B, "replace"),
        ("started", None, DOWN_A, A, "restore"),
        ("started", UP_B, DOWN_A, B, "finish"),
        ("started", UP_B, DOWN_A, A, "restore"),
        ("started", Seen({**A, "argv": []}, "running"), DOWN_A, B, "replace"),
        ("stopped", UP_A, None, None, "stop"),
        ("stopped", Seen(A, "restarting"), None, None, "stop"),
        ("stopped", DOWN_A, None, None, "none"),
        ("stopped", None, None, None, "none"),
        ("stopped", None, DOWN_A, None, "stop"),
        ("absent", UP_A, None, None, "remove"),
        ("absent", None, DOWN_A, None, "remove"),
        ("absent", None, None, None, "none"),
    ],
)
def test_decision(state, current, previous, wanted, action):
    decision = decide(state, current, previous, wanted)
    assert decision.action == action
    assert decision.why
    assert decision.changes == (action not in ("keep", "none"))


def test_the_reason_names_what_differs():
    assert decide("started", UP_A, None, B).why == "argv: --ctx-size 2048 -> --ctx-size 4096"


def test_a_new_salt_alone_is_no_difference():
    assert decide("started", UP_A, None, {**A, "salt": "y"}).action == "keep"
