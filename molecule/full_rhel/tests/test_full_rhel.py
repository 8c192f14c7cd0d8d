"""Docker CE runs on the RHEL family in the version asked for, from packages of the right key, and stays in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

REPOSITORY = "/etc/yum.repos.d/docker-ce.repo"
TREE = "docker-ce/linux/centos/9/x86_64/stable"
FINGERPRINTS = Path(__file__).parents[3] / ".cache/fixtures/mirrors/fingerprints.json"
PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_carry_the_right_signature(host, package):
    wanted = json.loads(FINGERPRINTS.read_text())["docker_rpm"]
    signature = host.check_output("rpm --query --queryformat '%%{RSAHEADER:pgpsig}' %s", package)
    assert signature.lower().endswith(wanted.lower()[-16:])


def test_the_version_asked_for_runs_with_the_settings(host):
    daemon = json.loads(host.check_output("docker info --format '{{json .}}'"))
    assert daemon["ServerVersion"].startswith("20.10.")
    assert daemon["LoggingDriver"] == "json-file"
    assert host.service("docker").is_enabled


def test_the_source_names_the_mirror_that_worked(host):
    assert f"baseurl=http://mirrors.test/good/{TREE}\n" in host.file(REPOSITORY).content_string


def test_the_source_takes_no_packages_of_another_key(host):
    # the same packages at the same place, signed with the key of somebody else
    host.check_output(f"sed -i.right 's#/good/#/wrongkey/#' {REPOSITORY}")
    try:
        refused = host.run("dnf --refresh --assumeyes --disableexcludes=all reinstall docker-compose-plugin")
    finally:
        host.check_output(f"mv {REPOSITORY}.right {REPOSITORY} && dnf clean all")
    assert refused.rc != 0
    assert "GPG check FAILED" in refused.stderr


def test_an_upgrade_of_the_system_leaves_the_engine_alone(host):
    pid = host.check_output("systemctl show --property MainPID --value docker")
    # the mirror has 26.1.5
    assert "docker-ce" in host.check_output("dnf --quiet --disableexcludes=all list --upgrades")
    host.check_output("dnf --assumeyes upgrade")
    assert host.check_output("rpm --query --queryformat '%{VERSION}' docker-ce").startswith("20.10.")
    assert host.check_output("systemctl show --property MainPID --value docker") == pid


def test_a_container_runs(host):
    host.check_output("docker import /usr/local/share/llmfleet-test/hello.tar test:1")
    assert host.check_output("docker run --rm test:1 echo works") == "works"
