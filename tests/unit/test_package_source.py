"""Docker's repository for each distribution, and how package versions compare."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.package_source import is_older, repository, satisfies, upstream


def platform(family, identity, version, codename="", machine="x86_64"):
    return {
        "os_family": family,
        "distribution": identity,
        "distribution_id": identity,
        "distribution_version": version,
        "codename": codename,
        "architecture": machine,
    }


@pytest.mark.parametrize(
    ("host", "kind", "path", "suite", "architecture"),
    [
        (platform("Debian", "debian", "12", "bookworm"), "apt", "linux/debian", "bookworm", "amd64"),
        (platform("Debian", "ubuntu", "24.04", "noble", "aarch64"), "apt", "linux/ubuntu", "noble", "arm64"),
        # a derivative, which host_info gives the codename of what it descends from
        (platform("Debian", "linuxmint", "22", "noble"), "apt", "linux/ubuntu", "noble", "amd64"),
        (platform("RedHat", "rocky", "9.4"), "yum", "linux/centos/9/x86_64/stable", "9", "x86_64"),
        (platform("RedHat", "rhel", "10.1", "", "aarch64"), "yum", "linux/rhel/10/aarch64/stable", "10", "aarch64"),
        (platform("RedHat", "fedora", "43"), "yum", "linux/fedora/43/x86_64/stable", "43", "x86_64"),
        (platform("RedHat", "openEuler", "24.03"), "yum", "linux/centos/10/x86_64/stable", "10", "x86_64"),
        (platform("RedHat", "openEuler", "22.03"), "yum", "linux/centos/9/x86_64/stable", "9", "x86_64"),
    ],
)
def test_each_distribution_has_its_place_on_a_mirror(host, kind, path, suite, architecture):
    found = repository(host)
    assert (found["kind"], found["path"], found["suite"], found["architecture"]) == (kind, path, suite, architecture)
    folder = "/".join(path.split("/")[:2])
    assert found["key_path"] == f"{folder}/gpg"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (platform("Debian", "debian", "13", "trixie", "riscv64"), "architecture riscv64"),
        (platform("Debian", "debian", "10", "buster"), "debian 10 is buster"),
        (platform("RedHat", "rocky", "8.9"), "release 9 or newer of the RHEL family, not rocky 8.9"),
        (platform("RedHat", "openEuler", "20.03"), "not openEuler 20.03"),
        (platform("suse", "opensuse", "15"), "cannot be installed on opensuse 15"),
    ],
)
def test_where_docker_has_no_packages_the_reason_is_named(host, words):
    with pytest.raises(BadInput, match=words):
        repository(host)


@pytest.mark.parametrize(
    ("package", "program"),
    [
        ("5:26.1.5-1~debian.12~bookworm", "26.1.5"),
        ("5:20.10.24~3-0~debian-bookworm", "20.10.24"),
        ("20.10.24+dfsg1-1+deb12u1", "20.10.24"),
        ("3:29.7.2-1.el9", "29.7.2"),
        ("26.1", "26.1"),
    ],
)
def test_the_version_of_the_program_in_that_of_the_package(package, program):
    assert upstream(package) == program


@pytest.mark.parametrize(
    ("installed", "wanted", "same", "older"),
    [
        ("5:26.1.5-1~debian.12~bookworm", "26.1", True, False),
        ("5:26.1.5-1~debian.12~bookworm", "5:26.1.5-1~debian.12~bookworm", True, False),
        ("5:26.1.5-1~debian.12~bookworm", "26.1.50", False, False),
        ("5:26.10.0-1~debian.12~bookworm", "26.1", False, True),
        ("5:26.1.5-1~debian.12~bookworm", "5:20.10.24~3-0~debian-bookworm", False, True),
        ("5:9.0.0-1", "26", False, False),
        # that of a package, without its epoch, and with another revision
        ("5:26.1.5-1~debian.12~bookworm", "26.1.5-1~debian.12~bookworm", True, False),
        ("3:26.1.5-1.el9", "26.1.5-1.el9", True, False),
        ("5:26.1.5-2~debian.12~bookworm", "5:26.1.5-1~debian.12~bookworm", False, True),
        ("5:26.1.5-1~debian.12~bookworm", "26.1.5-2~debian.12~bookworm", False, False),
    ],
)
def test_versions_compare_by_their_numbers(installed, wanted, same, older):
    assert satisfies(installed, wanted) is same
    assert is_older(wanted, installed) is older
