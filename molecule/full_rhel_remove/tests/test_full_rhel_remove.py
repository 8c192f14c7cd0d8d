"""Nothing of the engine, of its data and of where it came from is left."""

from __future__ import annotations

import pytest


def test_no_package_is_left(host):
    packages = host.check_output("rpm --query --all --queryformat '%{NAME} '").split()
    assert {"docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin"}.isdisjoint(packages)
    assert "rocky-release" in packages


def test_nobody_trusts_the_key_any_more(host):
    assert host.check_output("rpm --query --all 'gpg-pubkey*'") == ""


@pytest.mark.parametrize(
    "pattern",
    [
        *("/etc/yum.repos.d/docker*", "/etc/pki/rpm-gpg/docker*", "/etc/docker/daemon.json*", "/var/lib/llmfleet"),
        *("/var/lib/docker", "/var/lib/containerd"),
    ],
)
def test_no_file_is_left(host, pattern):
    assert host.run(f"ls -d {pattern}").stdout == ""


def test_no_process_is_left(host):
    assert host.run("pgrep -x 'dockerd|containerd'").rc == 1
