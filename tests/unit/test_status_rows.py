"""What was seen on a host beside what the inventory says: a verdict for each service."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.status_rows import of_host, unseen, wrong

ROW = {
    "name": "chat",
    "state": "running",
    "answering": True,
    "problem": "",
    "fix": "",
    "urls": {"host": "u", "lan": None},
}
LEVELS = {"levels": {"token": 0.2}}


def host(*rows, services=(), results=(), **look):
    return of_host({"services": list(rows), "helpers": [], "wsl": False, **look}, "gpu1", services, results)


@pytest.mark.parametrize(
    ("row", "state", "verdict"),
    [
        ({}, "started", "ready"),
        ({"answering": False, "problem": "not ready after 5 s"}, "started", "not ready"),
        ({"answering": False, "state": "restarting", "problem": "the engine ended"}, "started", "not ready"),
        # not asked
        ({"answering": None}, "started", "running"),
        ({"answering": None, "problem": "its specification cannot be read"}, "started", "not ready"),
        ({"answering": False, "state": "exited"}, "started", "ended"),
        ({"answering": False, "state": "exited"}, "stopped", "stopped"),
        # nobody stopped it
        ({"answering": False, "state": "exited", "problem": "out of memory"}, "stopped", "ended"),
        ({"answering": False, "state": "exited"}, "", "stopped"),
        ({"answering": False, "state": "exited", "problem": "out of memory"}, "", "ended"),
        ({}, "", "ready"),
    ],
)
def test_the_verdict_is_about_what_was_wanted(row, state, verdict):
    services = [{"name": "chat", "state": state}] if state else []
    (found,) = host({**ROW, **row}, services=services)["services"]
    assert (found["verdict"], found["in_inventory"]) == (verdict, bool(state))


def test_what_is_not_there_is_missing_only_where_it_is_wanted():
    services = [{"name": "chat"}, {"name": "old", "state": "absent"}, {"name": "idle", "state": "stopped"}]
    found = host(services=services)
    assert [(row["name"], row["verdict"]) for row in found["services"]] == [("chat", "missing")]
    assert wrong(found) == ["service chat is missing; deploy it with site.yml"]


def test_the_inventorys_order_comes_first_and_others_are_shown_too():
    found = host({**ROW, "name": "a"}, {**ROW, "name": "b"}, services=[{"name": "b"}, {"name": "c"}])
    assert [row["name"] for row in found["services"]] == ["b", "c", "a"]


def test_an_inventory_that_is_nonsense_does_not_hide_what_runs():
    for services in (None, "chat", {"name": "chat"}, ["chat", None, {"model": "tiny"}]):
        (row,) = host(ROW, services=services)["services"]
        assert row["verdict"] == "ready"


def test_a_run_has_verified_what_it_launched():
    result = {"service": {"name": "chat"}, "verification": LEVELS, "urls": {"host": "h", "lan": "l"}}
    (row,) = host({**ROW, "answering": None, "verification": None}, results=[result])["services"]
    assert (row["verdict"], row["verification"], row["urls"]["lan"]) == ("ready", LEVELS, "l")


def test_a_helper_that_is_wanted_has_to_run():
    idle = {"name": "llm-gateway", "state": "exited", "problem": ""}

    def said(row, *wanted):
        return wrong(of_host({"services": [], "helpers": [row], "wsl": False}, "gpu1", [], helpers=wanted))

    assert said(idle) == []
    assert said(idle, "llm-gateway", "open-webui") == [
        "llm-gateway: it is stopped; run site.yml",
        "open-webui: it is missing; deploy it with site.yml",
    ]
    assert said({**idle, "state": "running"}, "llm-gateway") == []
    assert said({**idle, "problem": "it ended"}, "llm-gateway") == ["llm-gateway: it ended"]


def test_what_was_asked_anew_counts_more_than_what_a_run_found():
    result = {"service": {"name": "chat"}, "verification": LEVELS, "urls": {}}
    (row,) = host({**ROW, "answering": False, "problem": "it ended"}, results=[result])["services"]
    assert row["verdict"] == "not ready"


def test_a_service_without_a_container_is_known_by_the_run_that_started_it():
    result = {"service": {"name": "chat"}, "verification": LEVELS, "urls": {"host": "h", "lan": None}}
    (row,) = host(services=[{"name": "chat"}], results=[result])["services"]
    assert (row["verdict"], row["state"], row["urls"]["host"]) == ("ready", "running", "h")


def test_a_service_that_was_taken_away_is_no_row():
    result = {"service": {"name": "old"}, "action": "remove", "why": "state is absent"}
    assert host(services=[{"name": "old", "state": "absent"}], results=[result])["services"] == []


@pytest.mark.parametrize(
    ("look", "problem"),
    [
        ({"unreachable": True, "msg": "Task failed: no\n route"}, "unreachable: no route"),
        ({"failed": True, "msg": "Missing sudo password"}, "failed: Missing sudo password"),
        ({"msg": "Missing sudo password"}, "failed: Missing sudo password"),
        ({}, "failed: nothing was seen of it"),
    ],
)
def test_a_host_that_cannot_be_looked_at_is_a_problem(look, problem):
    found = of_host(look, "gpu1", [{"name": "chat"}])
    assert found["problem"] == problem
    assert wrong(found) == [problem]


def test_problems_are_sentences_with_cause_and_fix():
    found = host({**ROW, "answering": False, "problem": "the port is taken", "fix": "choose another"})
    assert wrong(found) == ["service chat is not ready: the port is taken; choose another"]
    assert wrong(host(ROW)) == []
    # what answers, if not everywhere, is not wrong
    assert wrong(host({**ROW, "problem": "the LAN address does not work"})) == []


def test_a_helper_that_does_not_answer_is_wrong_too():
    found = host(helpers=[{"name": "gateway", "problem": "nothing answers at 192.0.2.1:8443"}, {"name": "web"}])
    assert wrong(found) == ["gateway: nothing answers at 192.0.2.1:8443"]


def test_only_what_was_named_is_told():
    helpers = [{"name": name, "state": "running", "problem": ""} for name in ("gateway", "web")]
    look = {"services": [ROW], "helpers": helpers}
    found = of_host(look, "gpu1", [{"name": "gone"}, {"name": "chat"}], (), ["chat", "web"], ["gateway", "lost"])
    assert [row["name"] for row in found["services"]] == ["chat"]
    assert [row["name"] for row in found["helpers"]] == ["web"]


def test_hosts_of_which_nothing_is_known_failed_before():
    hosts = unseen([{"host": "b"}], ["a", "b"])
    assert [one["host"] for one in hosts] == ["a", "b"]
    assert hosts[0]["problem"].startswith("failed: ")
