"""One llama-server with several models: each is verified, and callers reach each by its name."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import tiny_gguf
from helpers import docker, free_port, run_module
from test_deploy import LOCAL, changed, site, write_inventory

NAME = "test-router"
KEY = "router-key-0123456789"


@pytest.fixture
def models(tmp_path, tiny):
    """Return the paths of two models of the same vocabulary."""
    tmp_path.chmod(0o755)
    small = tmp_path / "small.gguf"
    with small.open("wb") as file:
        tiny_gguf.write(file, layers=1)
    small.chmod(0o644)
    yield {"chat": str(tiny), "small-Q4.x": str(small)}
    for suffix in ("", ".previous", ".next"):
        subprocess.run(["docker", "rm", "-f", NAME + suffix], capture_output=True, check=False)


def deploy(image: str, folder: Path, port: int, models: dict[str, str], **fields):
    return run_module(
        "llm_service",
        {
            "service": {"name": NAME, "models": models, "port": port, **fields},
            "api_key": KEY,
            "image": image,
            "more_paths": {f"models/{name}": path for name, path in models.items()},
            "directory": str(folder / "services"),
        },
    )


def ask(port: int, path: str, **content):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps(content).encode() if content else None,
        {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def chat(port: int, model: str):
    return ask(port, "/v1/chat/completions", model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=8)


def test_several_models_behind_one_port(image, tmp_path, models):
    port = free_port()
    first = deploy(image, tmp_path, port, models)
    assert first["action"] == "create"
    assert list(first["verification"]["levels"]) == ["process", "http", "model", "token"]
    assert first["verification"]["answered"] == list(models)
    listed = {row["id"]: row["status"] for row in ask(port, "/v1/models")[1]["data"]}
    # one at a time unless the service says more
    assert {name: status["value"] for name, status in listed.items()} == {"chat": "unloaded", "small-Q4.x": "loaded"}
    assert "--ctx-size" in listed["chat"]["args"]
    for name in models:
        status, answer = chat(port, name)
        assert (status, answer["model"]) == (200, name)
        assert answer["choices"][0]["message"]["content"]
    status, answer = chat(port, "other")
    assert (status, answer["error"]["message"]) == (400, "model 'other' not found")

    container = docker("container", "inspect", "-f", "{{.Id}} {{.State.StartedAt}}", NAME)
    again = deploy(image, tmp_path, port, models)
    assert (again["changed"], again["action"]) == (False, "keep")
    assert docker("container", "inspect", "-f", "{{.Id}} {{.State.StartedAt}}", NAME) == container

    tested = run_module("llm_api_test", {"service": {"name": NAME, "models": models, "port": port}, "api_key": KEY})
    assert {check["name"] for check in tested["checks"] if check["ok"]} >= {"chat", "metrics", "tokenize"}

    more = {**models, "third": models["chat"]}
    added = deploy(image, tmp_path, port, more, models_loaded=3)
    assert added["action"] == "replace"
    assert "--models-max 1 -> --models-max 3" in added["why"]
    assert added["verification"]["answered"] == list(more)
    listed = ask(port, "/v1/models")[1]["data"]
    assert [row["status"]["value"] for row in listed] == ["loaded"] * 3

    renamed = deploy(image, tmp_path, port, {**models, "fourth": models["chat"]}, models_loaded=3)
    assert renamed["action"] == "replace"
    assert chat(port, "third")[0] == 400
    rows = run_module("llm_service_info", {"names": [NAME]})["services"]
    assert [(row["answering"], row["served_name"]) for row in rows] == [(True, "chat")]


def test_a_model_that_cannot_be_loaded_is_no_ready_service(image, tmp_path, models):
    port = free_port()
    assert deploy(image, tmp_path, port, models)["action"] == "create"
    broken = tmp_path / "broken.gguf"
    content = Path(models["chat"]).read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    broken.chmod(0o644)
    failed = deploy(image, tmp_path, port, {**models, "broken": str(broken)})
    assert failed["failed"]
    assert "broken" in failed["msg"]
    # what served before serves again
    assert chat(port, "chat")[0] == 200


def test_from_the_inventory_to_the_report(image, tmp_path, models):
    assert image
    port = free_port()
    # one is made by the store, the other is there
    service = {"name": NAME, "models": {**models, "chat": "tiny"}, "port": port, "api_key": KEY}
    folders = {"model_store_dir": str(tmp_path / "store"), "llm_service_directory": str(tmp_path / "services")}
    inventory = write_inventory(
        tmp_path / "inventory",
        {"localhost": {**LOCAL, "llm_services": [service]}},
        llama_cpp_image_source="build",
        **folders,
    )
    first = site(inventory)
    assert f"chat: tiny (generate); small-Q4.x: {models['small-Q4.x']} (keep)" in first
    assert "1 of 2 models in memory at once" in first
    assert "answered      chat, small-Q4.x: each of them" in first
    assert '"model": "chat"' in first
    assert KEY not in first
    assert changed(site(inventory)) == 0
    assert [chat(port, name)[0] for name in service["models"]] == [200, 200]
    # other tests have services on this machine
    site(inventory, "-e", json.dumps({"report_only": [NAME]}), playbook="playbooks/status.yml")
    # looking has unloaded nothing
    states = {row["id"]: row["status"]["value"] for row in ask(port, "/v1/models")[1]["data"]}
    assert states == {"chat": "unloaded", "small-Q4.x": "loaded"}
