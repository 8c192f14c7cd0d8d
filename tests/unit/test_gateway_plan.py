"""What the role is told of the gateway."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.gateway import plan
from test_gateway_nginx import LAYOUT
from test_gateway_request import HOSTS, SAID

GIVEN = {"certificate": "text", "private_key": "key", "path": "/c.pem", "action": "make", "address": "10.0.0.9"}


def test_hosts():
    found = plan.hosts(["a", "b", "c"], [[], None, [1]], ["10.0.0.1", "", "10.0.0.3"], ["", "", "10.1.0.3"])
    assert [(row["host"], row["address"], row["services"]) for row in found] == [
        ("a", "10.0.0.1", []),
        ("b", "b", []),
        ("c", "10.1.0.3", [1]),
    ]


def test_problems():
    said = {**SAID, "names": []}
    assert plan.problems(said, HOSTS, "a") == []
    (problem,) = plan.problems({**said, "names": ["bad name"]}, HOSTS, "a")
    assert "llm_gateway_names" in problem
    (problem,) = plan.problems(said, HOSTS, "b")
    assert "cannot reach" in problem


def test_only_nginx_reads_what_is_secret():
    made = plan.container(SAID, HOSTS, "a", "program", LAYOUT, GIVEN)
    assert {row["path"]: row["mode"] for row in made["files"]} == {
        "nginx.conf": "0400",
        "gateway.js": "0444",
        "tables.js": "0444",
        "certificate.pem": "0444",
        "private_key.pem": "0400",
    }
    assert made["listens"] == ["0.0.0.0:8443", "127.0.0.1:8480"]
    assert made["health"]["contains"] in made["files"][0]["content"]
    assert made["check_argv"][0] == made["entrypoint"] == "nginx"


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("0.0.0.0", "https://10.0.0.9:8443/v1"),
        ("10.0.0.8", "https://10.0.0.8:8443/v1"),
        ("::1", "https://[::1]:8443/v1"),
    ],
)
def test_where_it_answers(bind, url):
    found = plan.result({**SAID, "bind": bind}, HOSTS, "a", GIVEN)
    assert found["urls"] == [url]
    assert found["local_url"] == "http://127.0.0.1:8480/v1"
    assert (found["models"], found["keys"]) == (["chat", "embed"], ["alice"])


def test_the_report_says_how_to_call_it():
    found = plan.result({**SAID, "web_ui": "http://127.0.0.1:3000"}, HOSTS, "a", GIVEN)
    text = plan.report("a", {**found, "action": "reload"})
    assert "a: gateway (reload)" in text
    assert "curl --cacert gateway.pem https://10.0.0.9:8443/v1/models -H" in text
    assert "web UI        https://10.0.0.9:8443/" in text
    assert "/c.pem on the host" in text
    given = plan.result({**SAID, "bind": "127.0.0.1", "keys": []}, HOSTS, "a", {**GIVEN, "action": "given"})
    text = plan.report("a", {**given, "action": "keep"})
    assert "cacert" not in text
    assert "none are asked for" in text
