"""The engine runs on with the owner's containers and settings; nothing else of ours is left."""

from __future__ import annotations

import json

import pytest


def test_the_file_says_what_the_owner_wrote(host):
    assert json.loads(host.check_output("cat /etc/docker/daemon.json")) == {
        "max-concurrent-downloads": 5,
        "registry-mirrors": ["http://registry.test:5000"],
    }


def test_the_engine_runs_with_it(host):
    daemon = json.loads(host.check_output("docker info --format '{{json .}}'"))
    assert daemon["LiveRestoreEnabled"] is False
    assert daemon["RegistryConfig"]["Mirrors"] == ["http://registry.test:5000/"]
    host.check_output("docker create --name probe owner:1 true")
    try:
        log = json.loads(host.check_output("docker inspect --format '{{json .HostConfig.LogConfig}}' probe"))
    finally:
        host.check_output("docker rm probe")
    assert log == {"Type": "json-file", "Config": {}}


def test_the_containers_run_on_with_the_same_processes(host):
    now = host.check_output("docker inspect --format '{{.Name}} {{.State.Pid}}' always keep")
    assert now == host.check_output("cat /root/processes")


def test_source_key_and_hold_are_gone(host):
    assert host.run("grep --recursive --files-with-matches mirrors.test /etc/apt").rc == 1
    assert not host.file("/etc/apt/keyrings/docker.asc").exists
    assert host.check_output("apt-mark showhold") == ""


@pytest.mark.parametrize("package", ["docker-ce", "docker-ce-cli", "containerd.io"])
def test_the_packages_stay(host, package):
    assert host.package(package).is_installed


def test_only_the_record_of_the_packages_stays(host):
    assert host.check_output("find /var/lib/llmfleet -type f") == "/var/lib/llmfleet/docker_engine.json"
