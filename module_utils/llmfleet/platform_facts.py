"""Which distribution and architecture a host has, from os-release(5). Pure."""

from __future__ import annotations

import shlex


def distribution(os_release: str) -> dict[str, str]:
    """Return {os_family, distribution, distribution_version, codename} from the text of /etc/os-release.

    os_family is Ansible's word: Debian for Debian, Ubuntu and their derivatives (ID or ID_LIKE says so), RedHat
    likewise, otherwise the distribution's own ID.
    """
    words = dict(word.split("=", 1) for word in shlex.split(os_release, comments=True) if "=" in word)
    own = words.get("ID", "linux")
    kin = {own, *words.get("ID_LIKE", "").split()}
    family = own
    if kin & {"debian", "ubuntu"}:
        family = "Debian"
    elif kin & {"rhel", "fedora", "centos"}:
        family = "RedHat"
    return {
        "os_family": family,
        "distribution": words.get("NAME", own),
        "distribution_version": words.get("VERSION_ID", ""),
        "codename": words.get("VERSION_CODENAME", ""),
    }
