"""A bare host after site.yml: what runs, as whom, and what it answers."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest
import yaml

# runs on the host with nothing but its Python; prints the status and the body
ASK = """
import sys, urllib.error, urllib.request
url, key, body = sys.argv[1:]
headers = {"Content-Type": "application/json", **({"Authorization": "Bearer " + key} if key else {})}
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, body.encode() or None, headers), timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


INVENTORY = yaml.safe_load((Path(__file__).parents[1] / "inventory.yml").read_text())
SERVICES = INVENTORY["llm_hosts"]["vars"]["llm_services"]


@pytest.fixture(scope="module")
def service():
    """The first service as the inventory describes it."""
    return SERVICES[0]


@pytest.fixture(scope="module")
def container(host, service):
    """The container that serves it, as the engine describes it."""
    return json.loads(host.check_output("docker container inspect %s", service["name"]))[0]


@pytest.fixture(scope="module")
def process(host, container):
    """The lines of the engine process's status in /proc, by name."""
    lines = host.check_output("cat /proc/%s/status", str(container["State"]["Pid"])).splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def ask_from_host(host, service, path, key="", payload=None):
    """Return (status, body) of a request that the host makes to its own address."""
    url = f"http://127.0.0.1:{service['port']}{path}"
    answer = host.check_output("python3 -c %s %s %s %s", ASK, url, key, json.dumps(payload) if payload else "")
    status, _, body = answer.partition(" ")
    return int(status), body


def test_engine_is_the_distributions_and_survives_a_reboot(host):
    assert host.package("docker.io").is_installed
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled
    assert json.loads(host.check_output("docker info --format '{{json .ServerVersion}}'"))


def test_user_who_logs_in_is_not_root(host):
    user = host.ansible.get_variables()["ansible_user"]
    assert host.user(user).uid != 0
    assert "docker" not in host.user(user).groups, "access to the engine is root access"


def test_image_was_pulled_not_built(host, container):
    image = json.loads(host.check_output("docker image inspect %s", container["Image"]))[0]
    assert any("ggml-org/llama.cpp@sha256:" in digest for digest in image["RepoDigests"])


def test_process_is_unprivileged(process):
    assert set(process["Uid"]) == {"10001"}
    assert set(process["Gid"]) == {"10001"}
    assert {int(process[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert process["NoNewPrivs"] == ["1"]


def test_file_systems_are_read_only(host, container):
    mounts = [
        line.split() for line in host.check_output("cat /proc/%s/mounts", str(container["State"]["Pid"])).splitlines()
    ]
    options = {mount[1]: mount[3].split(",") for mount in mounts}
    assert "ro" in options["/"]
    for mount in container["Mounts"]:
        assert "ro" in options[mount["Destination"]], mount


def test_limits(container, service):
    limits = container["HostConfig"]
    assert limits["LogConfig"]["Type"] == "json-file"
    assert {"max-size", "max-file"} <= set(limits["LogConfig"]["Config"])
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"
    assert limits["Memory"] == int(service["memory"].rstrip("m")) << 20


def test_key_is_where_only_the_engine_can_read_it(host, container, service):
    assert service["api_key"] not in json.dumps(container), "the engine's description shows the key to its users"
    assert service["api_key"] not in host.check_output("cat /proc/%s/cmdline", str(container["State"]["Pid"]))
    files = host.check_output("grep --recursive --files-with-matches %s /var/lib/llmfleet", service["api_key"]).split()
    assert files
    for file in map(host.file, files):
        assert (file.uid, file.mode) == (10001, 0o400), file


def test_refuses_callers_without_the_key(host, service):
    for key in ("", "not-the-key"):
        status, body = ask_from_host(host, service, "/v1/models", key)
        assert status == 401, body


def test_answers_a_chat_prompt_with_the_key(host, service):
    prompt = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    status, body = ask_from_host(host, service, "/v1/chat/completions", service["api_key"], prompt)
    assert status == 200, body
    assert json.loads(body)["usage"]["completion_tokens"] >= 1


def test_the_second_service_answers_at_a_port_of_its_own(host):
    status, body = ask_from_host(host, SERVICES[1], "/v1/models")
    assert (status, json.loads(body)["data"][0]["id"]) == (200, SERVICES[1]["name"])


def test_answers_on_the_network(host, service):
    address = host.interface("eth0").addresses[0]
    for headers, expected in (({}, 401), ({"Authorization": f"Bearer {service['api_key']}"}, 200)):
        connection = http.client.HTTPConnection(address, service["port"], timeout=30)
        connection.request("GET", "/v1/models", headers=headers)
        assert connection.getresponse().status == expected
        connection.close()
