"""The server is as its owner had it, and the container still runs with the same process."""

from __future__ import annotations

import json


def test_the_file_says_what_the_owner_wrote(host):
    assert json.loads(host.check_output("cat /etc/docker/daemon.json")) == {
        "max-concurrent-downloads": 5,
        "labels": ["owner=somebody"],
        "insecure-registries": ["10.9.9.9:5000"],
        "log-opts": {"max-size": "7m"},
    }


def test_the_engine_has_forgotten_the_mirror(host):
    registries = json.loads(host.check_output("docker info --format '{{json .RegistryConfig}}'"))
    assert not registries["Mirrors"]
    assert "registry.test:5000" not in registries["IndexConfigs"]
    assert "10.9.9.9:5000" in registries["IndexConfigs"]


def test_neither_engine_nor_container_was_restarted(host):
    assert host.check_output("docker inspect --format '{{.State.Pid}}' keep") == host.check_output("cat /root/keep.pid")
    assert host.check_output("systemctl show --property MainPID --value docker") == host.check_output(
        "cat /root/dockerd.pid"
    )
