"""After all that went wrong the engine runs the owner's containers with the owner's settings and with ours."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize("name", ["always", "keep"])
def test_the_containers_run(host, name):
    assert host.check_output(f"docker exec {name} echo works") == "works"


def test_the_file_has_the_owners_settings_and_ours(host):
    assert json.loads(host.check_output("cat /etc/docker/daemon.json")) == {
        "max-concurrent-downloads": 5,
        "registry-mirrors": ["http://registry.test:5000"],
        "log-driver": "json-file",
        "log-opts": {"max-size": "5m"},
    }


def test_the_engine_runs_with_them(host):
    daemon = json.loads(host.check_output("docker info --format '{{json .}}'"))
    assert daemon["RegistryConfig"]["Mirrors"] == ["http://registry.test:5000/"]
    assert not daemon["Labels"]
    assert host.service("docker").is_running


def test_nothing_is_pending(host):
    assert "pending" not in json.loads(host.check_output("cat /var/lib/llmfleet/docker_daemon.json"))
