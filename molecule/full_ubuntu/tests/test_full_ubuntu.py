"""Docker CE for Ubuntu runs, and the system knows where it came from."""

from __future__ import annotations

import pytest

PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_are_those_for_ubuntu(host, package):
    policy = host.check_output(f"apt-cache policy {package}")
    installed = next(line.split()[1] for line in policy.splitlines() if line.startswith("  Installed:"))
    assert "http://mirrors.test/good/docker-ce/linux/ubuntu noble/stable amd64" in policy
    # containerd.io's version does not name a release
    assert "noble" in installed or package == "containerd.io"


def test_the_source_names_the_release_and_nothing_of_debian(host):
    source = host.file("/etc/apt/sources.list.d/docker.sources").content_string
    assert "URIs: http://mirrors.test/good/docker-ce/linux/ubuntu\n" in source
    assert "Suites: noble\n" in source
    assert host.run("apt-get update").rc == 0


def test_an_upgrade_of_the_system_leaves_the_engine_alone(host):
    assert "docker-ce" in host.check_output("apt-mark showhold")


def test_a_container_runs(host):
    host.check_output("docker import /usr/local/share/llmfleet-test/hello.tar test:1")
    assert host.check_output("docker run --rm test:1 echo works") == "works"


def test_the_engine_starts_at_boot(host):
    assert host.service("docker").is_enabled
    assert host.service("containerd").is_enabled
