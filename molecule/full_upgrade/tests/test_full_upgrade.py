"""The newer engine runs, and the containers did not notice."""

from __future__ import annotations

import json

import pytest


def test_the_newer_engine_runs(host):
    daemon = json.loads(host.check_output("docker version --format '{{json .}}'"))
    assert daemon["Server"]["Version"].startswith("26.1.")
    assert daemon["Client"]["Version"].startswith("26.1.")
    # containerd is a service of its own, with a package of its own
    running = host.check_output("readlink /proc/$(systemctl show --property MainPID --value containerd)/exe")
    assert running == "/usr/bin/containerd", "it was replaced on the disk only"


def test_the_containers_run_on_with_the_same_processes(host):
    now = host.check_output("docker inspect --format '{{.Name}} {{.State.Pid}}' always keep")
    assert now == host.check_output("cat /root/processes")


@pytest.mark.parametrize("name", ["always", "keep"])
def test_the_newer_engine_has_them_in_hand(host, name):
    assert host.check_output(f"docker exec {name} echo works") == "works"


def test_the_packages_are_held_again(host):
    held = host.check_output("apt-mark showhold").split()
    assert {"docker-ce", "docker-ce-cli", "containerd.io"} <= set(held)


def test_new_containers_start(host):
    assert host.run("docker run --rm owner:1 true").rc == 0
