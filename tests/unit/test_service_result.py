"""What a service's module answers, whatever it runs in."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.service_result import LOG_LINES, asked, failure, without_engine
from ansible.module_utils.llmfleet.services import parse
from ansible.module_utils.llmfleet.watch import NotReadyError

RAW = {"name": "chat", "model": "m", "port": 8080}


def service(**fields):
    return parse({**RAW, **fields})


def test_callers_learn_what_they_need_and_no_key():
    told = asked(RAW, service(api_key="secret-key", verify={"prompt": "Hi"}))
    assert told == {**RAW, "has_api_key": True, "prompt": "Hi"}


@pytest.mark.parametrize(
    ("state", "check_mode", "action"),
    [("started", True, "create"), ("stopped", True, "none"), ("absent", False, "none")],
)
def test_without_an_engine_it_is_foreseen(state, check_mode, action):
    made = without_engine(RAW, service(state=state), check_mode)
    assert (made["action"], made["changed"]) == (action, action == "create")


def test_without_an_engine_nothing_can_be_started():
    with pytest.raises(LlmfleetError, match="service chat: there is no docker client on this host"):
        without_engine(RAW, service(), check_mode=False)


def test_a_failure_has_the_end_of_the_log_and_no_diff():
    log = "\n".join(map(str, range(100)))
    error = NotReadyError({"cause": "it died", "evidence": "line", "fix": "mend it"}, log)
    failed = failure({"changed": True, "diff": {"before": "a"}}, "service chat: it died", error, rolled_back=True)
    assert failed["log_tail"] == [str(line) for line in range(100 - LOG_LINES, 100)]
    assert (failed["msg"], failed["rolled_back"], failed["changed"]) == ("service chat: it died", True, True)
    assert "diff" not in failed
    assert not failure({}, "", error)["rolled_back"]
