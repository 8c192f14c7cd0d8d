"""The module that tests a served API: what it takes, and what it answers."""

from __future__ import annotations

import json
import typing as t

import api_server
import llm_api_test
import pytest
from ansible.module_utils.testing import patch_module_args

SERVICE = {"name": "chat", "model": "/models/m.gguf", "port": 8080}


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        llm_api_test.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out.splitlines()[-1]))


@pytest.fixture
def server():
    with api_server.serving() as running:
        yield running


def test_an_endpoint_by_its_address(server, capsys):
    result = run(capsys, url=server.url, served_name="chat")
    assert not result.get("failed"), result
    assert not result["changed"]
    assert (result["url"], result["lan"]) == (server.url, None)
    # of a server of which nothing is known neither metrics nor tokens are asked
    assert {path for _, path, _ in server.asked} & {"/metrics", "/tokenize"} == set()
    assert result["lines"][0] == f"API at {server.url}"
    assert len(result["lines"]) == len(result["checks"]) + 1


def test_a_service_says_engine_task_and_name(server, capsys):
    service = {**SERVICE, "port": server.server_port, "task": "embed"}
    result = run(capsys, service=service)
    assert [check["name"] for check in result["checks"]] == ["health", "models", "embeddings", "metrics", "tokenize"]
    assert result["url"] == server.url
    assert result["lines"][0] == f"service chat at {server.url}"


def test_the_address_for_other_machines_is_told(server, capsys, monkeypatch):
    monkeypatch.setattr("ansible.module_utils.llmfleet.addresses.lan_address", lambda _: "192.0.2.7")
    service = {**SERVICE, "port": server.server_port, "bind": "0.0.0.0"}
    server.key = api_server.KEY
    result = run(capsys, service=service, api_key=api_server.KEY, checks=["models", "key"])
    assert result["lan"] == f"http://192.0.2.7:{server.server_port}"
    assert {check["name"]: check["ok"] for check in result["checks"]} == {"models": True, "key": True}
    # from another machine the service is the same, and its address is not
    again = run(capsys, service=service, url=server.url, api_key=api_server.KEY, checks=["models"])
    assert again["url"] == server.url


def test_what_fails_is_one_sentence(server, capsys):
    server.answers["POST", "/v1/chat/completions"] = (400, "no chat template")
    result = run(capsys, service={**SERVICE, "port": server.server_port}, checks=["models", "chat"])
    assert result["failed"]
    assert result["msg"].startswith(f"service chat at {server.url}: 1 of 2 checks of the API failed: chat: ")
    assert "no chat template" in result["msg"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give `service`, or `url` and `served_name`"),
        ({"url": "http://127.0.0.1:1"}, "give `service`, or `url` and `served_name`"),
        ({"url": "127.0.0.1:1", "served_name": "chat"}, "not an http(s) URL"),
        ({"url": "http://127.0.0.1:1", "served_name": "chat", "engine": "ollama"}, "unknown engine `ollama`"),
        ({"url": "http://127.0.0.1:1", "served_name": "chat", "checks": ["cat"]}, "no check is called cat (known: "),
        ({"service": {**SERVICE, "prot": 1}}, "unknown key `prot`"),
        (
            {"url": "http://127.0.0.1:1", "served_name": "chat", "engine": "llama_server", "task": "score"},
            "engine llama_server does not do `task: score`",
        ),
    ],
)
def test_what_cannot_be_is_refused(capsys, arguments, words):
    result = run(capsys, **arguments)
    assert result["failed"]
    assert words in result["msg"]
