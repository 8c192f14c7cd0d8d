"""The mirror is used, and neither the owner's container nor their settings noticed."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timezone

import pytest


@pytest.fixture(scope="module")
def daemon(host):
    """What the engine that runs says of itself."""
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


def test_the_container_runs_on_with_the_same_process(host):
    before = host.check_output("cat /root/keep.pid")
    assert host.check_output("docker inspect --format '{{.State.Pid}}' keep") == before


def test_the_engine_was_not_restarted(host):
    assert host.check_output("systemctl show --property MainPID --value docker") == host.check_output(
        "cat /root/dockerd.pid"
    )


def test_a_pull_goes_through_the_mirror(host):
    began = datetime.now(timezone.utc).isoformat()
    # other scenarios pull the same image
    logs = ["docker", "logs", "--since", began, "llmfleet-test-registry"]
    assert "/manifests/" not in subprocess.run(logs, capture_output=True, text=True, check=True).stdout
    host.check_output("docker pull hello:1")
    log = subprocess.run(logs, capture_output=True, text=True, check=True)
    assert "/v2/library/hello/manifests/1" in log.stdout + log.stderr


def test_the_owners_settings_live_on(host, daemon):
    assert daemon["Labels"] == ["owner=somebody"]
    assert {"10.9.9.9:5000", "registry.test:5000"} <= set(daemon["RegistryConfig"]["IndexConfigs"])
    written = json.loads(host.check_output("cat /etc/docker/daemon.json"))
    assert list(written)[:4] == ["max-concurrent-downloads", "labels", "insecure-registries", "log-opts"]
    assert written["log-opts"] == {"max-size": "7m"}


def test_the_file_keeps_its_mode_and_a_backup_is_there(host):
    file = host.file("/etc/docker/daemon.json")
    assert (file.mode, file.user, file.group) == (0o640, "root", "docker")
    assert host.check_output("ls /etc/docker/daemon.json.* | wc -l") == "1"
