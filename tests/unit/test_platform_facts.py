"""os-release files as the distributions ship them."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.platform_facts import distribution

DEBIAN = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
"""
MINT = "NAME='Linux Mint'\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=22\nVERSION_CODENAME=wilma\n"
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
        (MINT, "Debian", "22", "wilma"),
        (ROCKY, "RedHat", "9.5", ""),
        ("NAME=Arch\nID=arch\n", "arch", "", ""),
        ("", "linux", "", ""),
    ],
)
def test_distribution(text, family, version, codename):
    found = distribution(text)
    assert (found["os_family"], found["distribution_version"], found["codename"]) == (family, version, codename)
