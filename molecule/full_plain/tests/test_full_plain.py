"""The engine runs without systemd, and took its settings while a container ran."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def daemon(host):
    """What the engine that runs says of itself."""
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


def test_nothing_of_systemd_is_at_work(host):
    assert not host.file("/run/systemd/system").exists
    assert host.check_output("cat /proc/1/comm") != "systemd"


def test_the_host_is_known_for_what_it_is(host):
    facts = host.ansible("host_info", become=True)
    assert facts["platform"]["wsl"]
    assert facts["docker"]["init"] != "systemd"


def test_docker_ce_runs(host, daemon):
    assert host.package("docker-ce").is_installed
    assert daemon["ServerVersion"].startswith("26.1.")


def test_the_container_and_the_engine_run_on_with_the_same_processes(host):
    assert host.check_output("docker inspect --format '{{.State.Pid}}' keep") == host.check_output("cat /root/keep.pid")
    assert host.check_output("cat /run/docker.pid") == host.check_output("cat /root/dockerd.pid")


def test_a_pull_goes_through_the_mirror_that_was_added(host, daemon):
    assert daemon["RegistryConfig"]["Mirrors"] == ["http://registry.test:5000/"]
    # library/hello is nowhere but in registry.test: Docker Hub could not have answered
    assert host.check_output("docker run --rm hello:1") != ""


def test_a_port_is_published(host):
    # needs iptables, which the host did not have
    host.check_output("docker run --detach --rm --name web --publish 127.0.0.1:8099:80 owner:1 httpd -f -h /bin")
    try:
        assert (
            host.run("python3 -c 'import urllib.request; urllib.request.urlopen(\"http://127.0.0.1:8099/busybox\")'").rc
            == 0
        )
    finally:
        host.check_output("docker stop --time 0 web")
