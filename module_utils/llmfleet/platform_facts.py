"""Which platform a host is: distribution, package manager, WSL. Pure, from os-release(5) and the kernel's words."""

from __future__ import annotations

import shlex
import typing as t

DEBIAN, RED_HAT = "Debian", "RedHat"

DEBIAN_KIN = frozenset({"debian", "ubuntu"})
RED_HAT_KIN = frozenset({"rhel", "fedora", "centos", "openeuler", "anolis", "opencloudos", "alinux", "tencentos"})
"""Distributions (ID or ID_LIKE, in lower case) that are built like RHEL; some of them name no kin of their own."""

PROGRAMS = {"apt": "apt-get", "dnf": "dnf"}
"""Package managers and the program that tells that one is there."""


def distribution(os_release: str) -> dict[str, str]:
    """Return {os_family, distribution, distribution_id, distribution_version, codename} from /etc/os-release's text.

    os_family is Ansible's word: Debian for Debian, Ubuntu and their derivatives (ID or ID_LIKE says so), RedHat
    likewise, otherwise the distribution's own ID. The codename is that of the Ubuntu a derivative is made from where
    it says so, since repositories for Ubuntu know no other (docs.docker.com/engine/install/ubuntu).
    """
    words: dict[str, str] = {}
    for line in os_release.splitlines():
        try:
            words.update(dict(word.split("=", 1) for word in shlex.split(line, comments=True) if "=" in word))
        except ValueError:  # a quote left open spoils its own line only
            continue
    own = words.get("ID", "linux")
    kin = {own.lower(), *words.get("ID_LIKE", "").lower().split()}
    family = own
    if kin & DEBIAN_KIN:
        family = DEBIAN
    elif kin & RED_HAT_KIN:
        family = RED_HAT
    return {
        "os_family": family,
        "distribution": words.get("NAME", own),
        "distribution_id": own,
        "distribution_version": words.get("VERSION_ID", ""),
        "codename": words.get("UBUNTU_CODENAME") or words.get("VERSION_CODENAME", ""),
    }


def package_manager(os_family: str, has: t.Callable[[str], bool]) -> str:
    """Return apt, dnf or "": the family's own where it is there, since some hosts have the other one's too.

    ``has`` tells whether a program is there.
    """
    order = ("dnf", "apt") if os_family == RED_HAT else ("apt", "dnf")
    return next((manager for manager in order if has(PROGRAMS[manager])), "")


def is_wsl(kernel: str, mark_found: bool) -> bool:
    """Whether this is a distribution under WSL: its kernel says so, or it has one of WSL's own files."""
    return mark_found or "microsoft" in kernel.lower()
