"""Variables of a Compose file: each service has its own, and literal text stays what it is."""

from __future__ import annotations

from ansible.module_utils.llmfleet.compose_variables import literal, prefixes
from hypothesis import given
from hypothesis import strategies as st


def test_variables_of_different_services_differ():
    assert prefixes(["a-b", "a.b", "a_b", "7b"]) == {"a-b": "A_B", "a.b": "A_B_2", "a_b": "A_B_3", "7b": "_7B"}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_compose_finds_no_variable_in_literal_text(text):
    assert literal(text).replace("$$", "") == text.replace("$", "")
