"""Tables that line up on a terminal, whatever the script of the names in it."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.text_table import aligned, width, without_empty


@pytest.mark.parametrize(
    ("text", "places"), [("chat", 4), ("上海", 4), ("a机b", 4), ("ﾊﾝ", 2), ("e\u0301", 1), ("", 0)]
)
def test_the_width_is_that_of_a_terminal(text, places):
    assert width(text) == places


def test_columns_begin_at_the_same_place_beside_wide_names():
    lines = aligned([("HOST", "SERVICE", "STATE"), ("上海-1", "聊天", "ready"), ("gpu1", "chat", "ready")]).splitlines()
    assert {width(line[: line.index("ready")]) for line in lines[1:]} == {width(lines[0][: lines[0].index("STATE")])}
    assert not [line for line in lines if line != line.rstrip()]


def test_nothing_is_an_empty_table():
    assert aligned([]) == ""


def test_columns_that_say_nothing_are_left_out():
    assert without_empty([("A", "B", "C"), ("1", "", "3"), ("", "", "4")]) == [["A", "C"], ["1", "3"], ["", "4"]]
