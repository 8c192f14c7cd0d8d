"""vLLM without containers: what runs, as whom, what it answers, and what becomes of it when something goes wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

UNIT = "llmfleet-vllm-chat.service"

# runs on the host with nothing but its Python; prints the status and the body
ASK = """
import sys, urllib.error, urllib.request
url, key, body = sys.argv[1:]
headers = {"Content-Type": "application/json", **({"Authorization": "Bearer " + key} if key else {})}
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, body.encode() or None, headers), timeout=60)
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    print(0, error)
    sys.exit()
print(answer.status, answer.read().decode())
"""


@pytest.fixture(scope="module")
def service():
    """The service as the inventory describes it."""
    inventory = yaml.safe_load((Path(__file__).parents[1] / "inventory.yml").read_text())
    return inventory["llm_hosts"]["vars"]["llm_services"][0]


def ask(host, service, path, key="", payload=None):
    url = f"http://127.0.0.1:{service['port']}{path}"
    answer = host.check_output("python3 -c %s %s %s %s", ASK, url, key, json.dumps(payload) if payload else "")
    status, _, body = answer.partition(" ")
    return int(status), body


def chat(host, service):
    prompt = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16, "temperature": 0}
    return ask(host, service, "/v1/chat/completions", service["api_key"], prompt)


def show(host, name):
    return host.check_output("systemctl show --property=%s --value %s", name, UNIT)


def module(host, service, **fields):
    """Run llm_service_venv for the service with other fields; return its result."""
    venv = host.check_output("readlink -f /opt/llmfleet/vllm-cpu-*")
    given = {key: value for key, value in {**service, **fields}.items() if key != "api_key"}
    arguments = {"service": given, "api_key": service["api_key"], "venv": venv, "model_path": service["model"]}
    return host.ansible("llm_service_venv", json.dumps(arguments), check=False, become=True)


def test_no_docker_came_along(host):
    assert not host.exists("docker")
    assert not host.exists("dockerd")


def test_it_runs_as_a_user_of_its_own_and_starts_with_the_host(host):
    assert host.service(UNIT).is_enabled
    status = host.check_output("cat /proc/%s/status", show(host, "MainPID"))
    lines = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert set(lines["Uid"]) == {str(host.user("llmfleet-vllm").uid)}
    assert {int(lines[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert lines["NoNewPrivs"] == ["1"]
    assert host.user("llmfleet-vllm").shell == "/usr/sbin/nologin"


def test_file_systems_are_read_only_but_for_its_caches(host):
    # testinfra has no words for another process's mounts
    mounts = host.check_output("cat /proc/%s/mounts", show(host, "MainPID")).splitlines()
    options = {line.split()[1]: line.split()[3].split(",") for line in mounts}
    assert "ro" in options["/"]
    assert "rw" in options["/var/lib/llmfleet/cache/vllm-venv"]
    assert options["/home"] != options["/"], "homes are hidden"


def test_the_key_is_where_only_the_engine_can_read_it(host, service):
    key = service["api_key"]
    for text in (
        "cat /etc/systemd/system/" + UNIT,
        f"systemctl show {UNIT}",
        "ps -eo args",
        f"journalctl --unit {UNIT}",
    ):
        assert key not in host.check_output(text), text
    files = host.check_output("grep --recursive --files-with-matches %s /var/lib/llmfleet", key).split()
    assert files
    for file in map(host.file, files):
        assert (file.user, file.group, file.mode) == ("root", "llmfleet-vllm", 0o440), file.path


def test_only_the_port_of_the_service_is_open_to_others(host, service):
    listening = [line.split()[3] for line in host.check_output("ss -Hltn").splitlines()]
    assert [one for one in listening if not one.startswith("127.")] == [f"0.0.0.0:{service['port']}"]


def test_it_answers_those_who_have_the_key(host, service):
    status, body = chat(host, service)
    assert status == 200, body
    assert json.loads(body)["choices"][0]["message"]["content"].startswith("Hello from llmfleet")
    for place in ("/v1/models", "/metrics", "/invocations"):
        assert ask(host, service, place)[0] == 401


def test_an_option_that_the_engine_does_not_take_stops_nothing(host, service):
    before = show(host, "MainPID")
    result = module(host, service, args=["--no-such-flag"])
    assert "diagnosis" in result, result
    assert "--no-such-flag" in result["diagnosis"]["cause"]
    assert (result["changed"], result["rolled_back"], show(host, "MainPID")) == (False, False, before)


def test_one_that_fails_when_it_starts_is_rolled_back(host, service):
    result = module(host, service, context_length=100_000)
    assert "diagnosis" in result, result
    assert result["rolled_back"], result
    assert "made for less than 100000 tokens" in result["diagnosis"]["cause"]
    assert set(result["previous_verification"]["levels"]) == {"process", "http", "model", "token"}
    assert chat(host, service)[0] == 200
    assert module(host, service)["action"] == "keep"


def test_an_engine_that_is_killed_comes_back(host, service):
    before = show(host, "MainPID")
    host.check_output("kill -9 %s", before)
    deadline = time.monotonic() + 300
    while chat(host, service)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(2)
    assert show(host, "MainPID") != before
    assert int(show(host, "NRestarts")) >= 1
