"""The API of a real llama-server: as the real openai package uses it, and as the self-test judges it."""

from __future__ import annotations

import subprocess
import time
import typing as t

import openai_calls
import pytest
from helpers import docker, free_port, run_module

KEY = "first-key-0123456789"
CHINESE = {"grammar": 'root ::= "你好,世界!🙂"'}


class Served:
    """A service of this test on the real engine."""

    def __init__(self, image: str, model: str, folder: str, task: str) -> None:
        self.name, self.task, self.port = f"test-api-{task}-{free_port()}", task, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.service = {"name": self.name, "model": model, "port": self.port, "context_length": 512, "task": task}
        if task == "embed":
            # the tiny model writes; that its vectors mean nothing is nothing to this test
            self.service["pooling"] = "mean"
        self.arguments = {"image": image, "model_path": model, "directory": folder, "api_key": KEY}

    def launch(self, **fields: t.Any) -> dict[str, t.Any]:
        return run_module("llm_service", {"service": {**self.service, **fields}, **self.arguments})

    def test(self, **more: t.Any) -> dict[str, t.Any]:
        return run_module("llm_api_test", {"service": self.service, "api_key": KEY, **more})


TASKS = ("generate", "embed", "rerank")


@pytest.fixture(scope="module")
def services(image, tiny, tmp_path_factory):
    """One service for each task."""
    folder = str(tmp_path_factory.mktemp("services"))
    made = {task: Served(image, str(tiny), folder, task) for task in TASKS}
    try:
        for service in made.values():
            launched = service.launch()
            assert not launched.get("failed"), launched
            service.verification = launched["verification"]
        yield made
    finally:
        for service in made.values():
            subprocess.run(["docker", "rm", "--force", service.name], capture_output=True, check=False)


@pytest.fixture
def writer(services):
    return services["generate"]


@pytest.mark.parametrize(
    ("task", "proof"),
    [("generate", None), ("embed", "vectors of 64 numbers"), ("rerank", "scores of 2 documents")],
)
def test_verification_asks_for_what_the_service_is_for(services, task, proof):
    verified = services[task].verification
    assert list(verified["levels"]) == ["process", "http", "model", "token"]
    assert (verified["reply"] is None) is (proof is not None)
    assert (verified["proof"] or "").startswith(proof or "")


OWN = {
    "generate": {"chat", "chat_stream", "chinese", "completions", "responses", "messages"},
    "embed": {"embeddings"},
    "rerank": {"rerank"},
}


@pytest.mark.parametrize("task", TASKS)
def test_the_self_test_passes(services, task):
    result = services[task].test()
    assert not result.get("failed"), result
    assert {check["name"] for check in result["checks"]} == OWN[task] | {
        *("health", "models", "key", "metrics", "tokenize")
    }
    assert all(check["ok"] for check in result["checks"]), result
    assert (result["url"], result["lan"]) == (services[task].url, None)


def test_a_wrong_key_and_a_wrong_name_are_found(writer):
    result = writer.test(api_key="another-key-0123456789", checks=["models", "metrics"])
    assert "1 of 1 checks of the API failed: models: " in result["msg"]
    assert "refuses the API key" in result["msg"]
    asked = {"url": writer.url, "served_name": "other", "api_key": KEY, "checks": ["models"]}
    assert f"serves {writer.name}, not other" in run_module("llm_api_test", asked)["msg"]


def test_a_service_for_another_task_is_told_apart(writer):
    asked = {"url": writer.url, "served_name": writer.name, "api_key": KEY}
    result = run_module("llm_api_test", {**asked, "engine": "llama_server", "task": "embed", "checks": ["embeddings"]})
    assert "embeddings: " in result["msg"]
    assert "501" in result["msg"]


def test_the_real_client_is_content(services, writer):
    openai_calls.generates(writer.url, KEY, writer.name, "Hello from llmfleet", CHINESE)
    openai_calls.is_closed(writer.url, writer.name)
    openai_calls.embeds(services["embed"].url, KEY, services["embed"].name)


def test_a_path_that_is_open_is_found(image, tiny):
    """Without a key everything answers, which a caller who has one would not notice."""
    name, port = f"test-api-open-{free_port()}", free_port()
    docker(
        *("run", "--detach", "--rm", "--name", name, "--publish", f"127.0.0.1:{port}:8080"),
        *("--volume", f"{tiny}:/models/tiny.gguf:ro", image, "--model", "/models/tiny.gguf", "--alias", "chat"),
        *("--host", "0.0.0.0", "--port", "8080", "--metrics", "--ctx-size", "512"),
    )
    try:
        asked = {"url": f"http://127.0.0.1:{port}", "served_name": "chat"}
        assert not run_module("llm_health", {**asked, "timeout": 30}).get("failed")
        checked = {**asked, "engine": "llama_server", "api_key": KEY, "checks": ["key", "chat"]}
        result = run_module("llm_api_test", checked)
        assert result["failed"]
        for path in ("GET /v1/models", "GET /metrics", "POST /v1/chat/completions"):
            assert f"{path} (HTTP " in result["msg"]
        assert [check["ok"] for check in result["checks"]] == [False, True]
    finally:
        docker("rm", "--force", name)


def test_levels_speed_and_answer(writer):
    held = writer.launch(verify={"min_tokens_per_second": 0.1, "max_first_token_seconds": 60, "answer": "llmfleet"})
    assert not held["changed"], held
    assert list(held["verification"]["levels"])[-3:] == ["token", "speed", "answer"]


def test_an_engine_that_is_killed_comes_back(writer):
    """kill -9 of the process itself, which docker does not take for a manual stop."""

    def restarts() -> str:
        return docker("container", "inspect", "--format", "{{.RestartCount}}", writer.name).strip()

    before = restarts()
    subprocess.run(
        ["kill", "-9", docker("container", "inspect", "--format", "{{.State.Pid}}", writer.name).strip()], check=True
    )
    deadline = time.monotonic() + 30
    while restarts() == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = writer.launch()
    assert not again.get("failed"), again
    assert again["verification"]["levels"]["token"]
