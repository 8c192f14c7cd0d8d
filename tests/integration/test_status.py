"""What playbooks/status.yml says of services that real llama-servers serve, and of those that do not serve."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import tiny_hf
import yaml
from helpers import docker, free_port, run_module

ROOT = Path(__file__).resolve().parents[2]
KEY = "status-key-0123456789"
NAMES = ("test-status-chat", "test-status-stopped", "test-status-other")
PATIENT = 200
"""Seconds after which a load ends; a busy machine takes longer than usual for the same answers."""
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, image: str, tiny: Path) -> t.Iterator[dict[str, int]]:
    """A service with a key on every address, one that is stopped, and one that no inventory names: name -> port."""
    folder = tmp_path_factory.mktemp("status")
    ports = {name: free_port() for name in NAMES}

    def deploy(name: str, key: str = "", **fields: t.Any) -> None:
        service = {"name": name, "model": str(tiny), "port": ports[name], "context_length": 1024, **fields}
        more = {"image": image, "model_path": str(tiny), "directory": str(folder / "services"), "api_key": key}
        result = run_module("llm_service", {"service": service, **more})
        assert not result.get("failed"), result

    deploy(NAMES[0], KEY, bind="0.0.0.0", parallel=2)
    deploy(NAMES[1])
    deploy(NAMES[1], state="stopped")
    deploy(NAMES[2])
    yield ports
    for name in NAMES:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)


def seen(**arguments: t.Any) -> dict[str, dict[str, t.Any]]:
    """Return the rows of this module's services."""
    result = run_module("llm_service_info", {"names": list(NAMES), **arguments})
    assert not result.get("failed"), result
    return {row["name"]: row for row in result["services"]}


def status(folder: Path, *arguments: str, code: int, **hosts: t.Any) -> tuple[str, dict[str, t.Any]]:
    """Run the playbook; return what it printed and the JSON file that it wrote."""
    folder.joinpath("inventory.yml").write_text(yaml.safe_dump({"llm_hosts": {"hosts": hosts}}, allow_unicode=True))
    playbook = str(Path(sys.executable).parent / "ansible-playbook")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    path = folder / "status.json"
    argv = [
        playbook,
        "playbooks/status.yml",
        "-i",
        str(folder / "inventory.yml"),
        "-e",
        json.dumps({"report_json": str(path), "report_only": [*NAMES, "test-status-gone"]}),
        *arguments,
    ]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == code, done.stdout
    return done.stdout, json.loads(path.read_text()) if path.exists() else {}


def test_services_are_asked_measured_and_left_as_they_are(services, tiny):
    before = docker(
        "ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Status}}", "--filter", "name=test-status"
    )
    rows = seen(streams=[1, 2], load_seconds=PATIENT)
    chat = rows[NAMES[0]]
    assert (chat["answering"], chat["problem"], chat["state"]) == (True, "", "running")
    assert list(chat["verification"]["levels"]) == ["process", "http", "model", "token"]
    assert chat["urls"]["host"] == f"http://127.0.0.1:{services[NAMES[0]]}/v1"
    assert [(load["streams"], load["answered"], load["errors"]) for load in chat["loads"]] == [(1, 2, {}), (2, 4, {})]
    # every answer is as long as was asked for: the model itself would end sooner
    assert chat["loads"][1]["tokens"] == 4 * 32
    assert 0 < chat["loads"][1]["first_token_p50"] <= chat["loads"][1]["first_token_p95"]
    assert chat["loads"][1]["total_tokens_per_second"] > 0
    assert 1 << 20 < chat["memory_bytes"] < 1 << 30
    assert chat["model"]["path"] == str(tiny)
    assert re.fullmatch(r"fingerprint:[0-9a-f]{64}", chat["model"]["digest"])
    assert chat["image_id"].startswith("sha256:")
    assert chat["uptime_seconds"] >= 0
    stopped = rows[NAMES[1]]
    assert (stopped["answering"], stopped["state"], stopped["problem"]) == (False, "exited", "")
    assert docker(
        "ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Status}}", "--filter", "name=test-status"
    )
    assert [line.split()[:2] for line in before.splitlines()] == [
        line.split()[:2]
        for line in docker(
            "ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}}", "--filter", "name=test-status"
        ).splitlines()
    ]


def test_memory_is_what_docker_says_too(services):
    from ansible.module_utils.llmfleet.container_usage import size_of

    assert services
    mine = seen(level="none")[NAMES[0]]["memory_bytes"]
    shown = size_of(docker("stats", "--no-stream", "--format", "{{.MemUsage}}", NAMES[0]).partition("/")[0])
    assert shown == pytest.approx(mine, rel=0.5)


def test_the_load_module_measures_and_refuses(services):
    url = f"http://127.0.0.1:{services[NAMES[0]]}"
    asked = {"url": url, "served_name": NAMES[0], "api_key": KEY, "streams": 2, "max_tokens": 8, "seconds": PATIENT}
    good = run_module("llm_load", asked)
    assert not good.get("failed"), good
    assert (good["load"]["answered"], good["load"]["tokens"]) == (4, 32)
    refused = run_module("llm_load", {"url": url, "served_name": NAMES[0], "api_key": "wrong"})
    assert "8 of 8 requests of 4 streams failed: HTTP 401" in refused["msg"]
    assert KEY not in json.dumps(good)
    nonsense = run_module("llm_load", {"url": url, "served_name": NAMES[0], "streams": 0})
    assert nonsense["msg"] == "`streams` must be between 1 and 1024, not 0"


def test_the_table_tells_of_all_hosts_and_the_file_holds_the_rest(services, tmp_path):
    chat = {"name": NAMES[0], "model": "tiny", "port": services[NAMES[0]], "bind": "0.0.0.0", "api_key": KEY}
    wanted = [chat, {"name": NAMES[1], "model": "tiny", "state": "stopped"}]
    here = {**LOCAL, "llm_services": wanted}
    output, data = status(
        tmp_path, "-e", "report_concurrency=2", code=2, here=here, 上海={"ansible_host": "127.0.0.1", "ansible_port": 1}
    )
    assert KEY not in output + json.dumps(data)
    lines = output.splitlines()
    assert "changed=0" in output
    (line,) = [line for line in lines if re.match(rf" +here +{NAMES[0]} ", line)]
    assert re.search(r"ready +token [\d.]+ s +[\d.]+ s +[\d.]+ +[\d.]+ tokens/s, p95 [\d.]+ s +\d+ MiB", line), line
    assert re.search(rf"here +{NAMES[1]} +stopped", output)
    assert re.search(rf"here +{NAMES[2]} \(not in the inventory\) +ready", output)
    assert re.search(r"上海 +unreachable", output)
    assert (data["ok"], [host["host"] for host in data["hosts"]]) == (False, ["here", "上海"])
    (row,) = [row for row in data["hosts"][0]["services"] if row["name"] == NAMES[0]]
    assert (row["verdict"], [load["streams"] for load in row["loads"]]) == ("ready", [1, 2])


def test_a_service_that_is_gone_ends_the_playbook_with_an_error_unless_that_is_not_wanted(services, tmp_path):
    assert services
    here = {**LOCAL, "llm_services": [{"name": "test-status-gone", "model": "tiny", "port": 1}]}
    quick = ("-e", "report_concurrency=0")
    output, data = status(tmp_path, *quick, code=2, here=here)
    assert "service test-status-gone is missing; deploy it with site.yml" in output
    assert not data["ok"]
    status(tmp_path, *quick, "-e", "report_strict=false", code=0, here=here)


def test_an_engine_that_was_killed_shows_its_restarts(services):
    """The restart policy brings it back; the table says that it had been away."""
    assert services
    pid = docker("container", "inspect", "-f", "{{.State.Pid}}", NAMES[2]).strip()
    os.kill(int(pid), 9)
    deadline = time.monotonic() + 20
    while (row := seen(level="none")[NAMES[2]])["restarts"] == 0 or row["state"] != "running":
        assert time.monotonic() < deadline, row
        time.sleep(0.1)
    row = seen(patience=20)[NAMES[2]]
    assert (row["answering"], row["restarts"]) == (True, 1)


@pytest.mark.full
def test_vllm_is_measured_like_any_other(tmp_path):
    made = run_module("vllm_image", {})
    assert not made.get("failed"), made
    tmp_path.chmod(0o755)
    tiny_hf.write(tmp_path / "tiny-hf", head_dim=32)
    name, path = "test-status-vllm", str(tmp_path / "tiny-hf")
    service = {"name": name, "engine": "vllm", "model": path, "port": free_port(), "context_length": 256}
    places = {"directory": str(tmp_path / "services"), "cache_directory": str(tmp_path / "cache")}
    more = {"image": made["image"], "model_path": path, "api_key": KEY, **places}
    try:
        launched = run_module("llm_service", {"service": service, **more})
        assert not launched.get("failed"), launched
        (row,) = run_module("llm_service_info", {"names": [name], "streams": [1, 2], "load_seconds": PATIENT})[
            "services"
        ]
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
    assert (row["answering"], row["problem"], row["engine"]) == (True, "", "vllm")
    # it knows ignore_eos too: the model itself would end after some 15 tokens
    assert [(load["answered"], load["tokens"], load["errors"]) for load in row["loads"]] == [(2, 64, {}), (4, 128, {})]
    assert row["loads"][0]["tokens_per_second"] > 0
    assert row["memory_bytes"] > 100 << 20
    assert row["model"]["path"] == path
