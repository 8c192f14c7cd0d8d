"""os-release files as the distributions ship them."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.platform_facts import distribution, is_wsl, package_manager

DEBIAN = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
"""
MINT = (
    "NAME='Linux Mint'\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=22\nVERSION_CODENAME=wilma\n"
    "UBUNTU_CODENAME=noble\n"
)
UBUNTU = 'NAME=Ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME=noble\n'
OPENEULER = 'NAME="openEuler"\nVERSION="24.03 (LTS-SP1)"\nID="openEuler"\nVERSION_ID="24.03"\n'
KYLIN = 'NAME="Kylin Linux Advanced Server"\nID="kylin"\nID_LIKE="fedora"\nVERSION_ID="V10"\n'
OPENKYLIN = "NAME=openKylin\nID=openkylin\nID_LIKE=debian\nVERSION_ID=2.0\nVERSION_CODENAME=nile\n"
ROCKY = """NAME="Rocky Linux"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.5"
# a comment with an = sign
"""


@pytest.mark.parametrize(
    ("text", "family", "version", "codename"),
    [
        (DEBIAN, "Debian", "12", "bookworm"),
        (MINT, "Debian", "22", "noble"),
        (UBUNTU, "Debian", "24.04", "noble"),
        (OPENEULER, "RedHat", "24.03", ""),
        ('ID="anolis"\nVERSION_ID="23"\n', "RedHat", "23", ""),
        (KYLIN, "RedHat", "V10", ""),
        (OPENKYLIN, "Debian", "2.0", "nile"),
        ('NAME="open\nID=debian\n', "Debian", "", ""),
        (ROCKY, "RedHat", "9.5", ""),
        ("NAME=Arch\nID=arch\n", "arch", "", ""),
        ("", "linux", "", ""),
    ],
)
def test_distribution(text, family, version, codename):
    found = distribution(text)
    assert (found["os_family"], found["distribution_version"], found["codename"]) == (family, version, codename)


def test_the_id_is_kept_as_it_is_written():
    assert distribution(OPENEULER)["distribution_id"] == "openEuler"


@pytest.mark.parametrize(
    ("family", "there", "manager"),
    [
        ("Debian", {"apt-get"}, "apt"),
        ("Debian", {"apt-get", "dnf"}, "apt"),
        ("RedHat", {"apt-get", "dnf"}, "dnf"),
        ("arch", set(), ""),
    ],
)
def test_the_package_manager_is_the_familys_own(family, there, manager):
    assert package_manager(family, there.__contains__) == manager


@pytest.mark.parametrize(
    ("kernel", "mark", "expected"),
    [
        ("5.15.167.4-microsoft-standard-WSL2", False, True),
        ("4.4.0-19041-Microsoft", False, True),
        ("6.6.0-custom", True, True),
        ("6.1.0-18-amd64", False, False),
    ],
)
def test_wsl_is_known_by_its_kernel_or_its_files(kernel, mark, expected):
    assert is_wsl(kernel, mark) is expected
