"""How to call what a run has launched, by what it is for."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.api_calls import TASK_PATHS
from ansible.module_utils.llmfleet.closing_report import closing_report


def report(task, **verified):
    result = {
        "action": "create",
        "why": "there is no such container yet",
        "service": {"name": "one", "served_name": "m", "port": 8080, "has_api_key": False, "task": task},
        "urls": {"host": "http://127.0.0.1:8080/v1", "lan": None},
        "verification": {"levels": {"token": 0.2}, "reply": None, **verified},
    }
    return closing_report([result], "gpu1")


@pytest.mark.parametrize("task", TASK_PATHS)
def test_every_task_has_a_command(task):
    text = report(task)
    assert f"curl http://127.0.0.1:8080{TASK_PATHS[task]} -H" in text
    assert '"model": "m"' in text
    assert ("with openai" in text) == (task in ("generate", "embed"))


def test_one_that_writes_no_text_shows_what_it_answered():
    text = report("embed", proof="vectors of 768 numbers")
    assert "answered      vectors of 768 numbers" in text
    assert '.embeddings.create(model="m", input=["Hello"])' in text
    assert "replied" not in text
