"""Docker CE is there, from the mirror that works, as it was asked for; seen from the engine that runs."""

from __future__ import annotations

import json

import pytest

PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")
USED_MIRROR = {"host-ce": "old", "host-ce-13": "good"}


@pytest.fixture(scope="module")
def daemon(host):
    """What the engine that runs says of itself."""
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


@pytest.fixture(scope="module")
def name(host):
    return host.check_output("hostname")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_are_there_and_held(host, package):
    assert host.package(package).is_installed
    assert host.check_output(f"dpkg-query -W -f '${{db:Status-Want}}' {package}") == "hold"


def test_the_version_asked_for_runs(daemon):
    assert daemon["ServerVersion"].startswith("26.1.")


def test_the_source_names_the_mirror_that_worked_and_only_that_one(host, name):
    sources = host.check_output("cat /etc/apt/sources.list.d/docker.sources")
    assert f"http://mirrors.test/{USED_MIRROR[name]}/docker-ce/linux/debian" in sources
    assert sources.count("http") == 1
    assert "Signed-By: /etc/apt/keyrings/docker.asc" in sources
    assert host.run("apt-get update").rc == 0


def test_the_engine_started_once_and_was_never_restarted(host):
    starts = host.check_output("journalctl --unit docker --output cat --no-pager | grep --count '^Started'")
    assert starts == "1"


def test_a_container_runs_from_an_image_that_came_through_the_mirror(host, daemon):
    assert daemon["RegistryConfig"]["Mirrors"] == ["http://registry.test:5000/"]
    # library/hello is nowhere but in registry.test: Docker Hub could not have answered
    assert host.check_output("docker run --rm hello:1") != ""


def test_the_engine_runs_with_the_settings(host, daemon):
    assert daemon["LiveRestoreEnabled"] is True
    assert "registry.test:5000" in daemon["RegistryConfig"]["IndexConfigs"]
    host.check_output("docker create --name probe hello:1")
    try:
        config = json.loads(host.check_output("docker inspect probe"))[0]["HostConfig"]
        assert config["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "5m"}}
    finally:
        host.check_output("docker rm probe")


def test_the_limits_of_containers_are_as_asked_for(host):
    assert host.check_output("docker run --rm hello:1 sh -c 'ulimit -n'") == "4096"
