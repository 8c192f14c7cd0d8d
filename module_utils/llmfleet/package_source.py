"""Where Docker's own packages for a distribution lie below a mirror's root. Pure.

Layout: docs.docker.com/engine/install (ubuntu, debian, rhel, centos, fedora); every mirror keeps it.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.mirror_index import version_key

Data = dict[str, t.Any]

DEBIAN_SUITES = ("bookworm", "trixie")
UBUNTU_SUITES = ("jammy", "noble", "resolute")
APT_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Machine names of ``uname -m`` and what dpkg calls them."""

YUM_FOLDERS = {"rhel": "rhel", "fedora": "fedora"}
"""Distributions with packages of their own; all others of the family take those for CentOS."""

OLDEST_RELEASE = 9
"""The first release of the RHEL family that is supported."""


def _rhel_release(distribution: str, version: str) -> int:
    """Return the RHEL release that a distribution's version corresponds to; 0 when there is none.

    openEuler, Anolis and OpenCloudOS count differently: openEuler 22.03 and later and the 23 releases of the others
    are built on what RHEL 9 has, openEuler 24.03 on what RHEL 10 has (LinuxMirrors, as read in 2026).
    """
    major = int(version.split(".")[0]) if version.split(".")[0].isdigit() else 0
    if distribution == "openeuler":
        return 10 if major >= 24 else 9 if major >= 22 else 8
    if distribution in ("anolis", "opencloudos"):
        return 9 if major >= 23 else 8
    return major


def repository(platform: t.Mapping[str, t.Any]) -> Data:
    """Return {kind, path, suite, architecture, key_path} of Docker's repository for a platform of host_info.

    ``path`` and ``key_path`` are relative to a mirror's root. Raises BadInput where Docker has no packages.
    """
    machine, codename = platform["architecture"], platform["codename"]
    named = f"{platform['distribution']} {platform['distribution_version']}".strip()
    if machine not in APT_ARCHITECTURES:
        raise BadInput(f"there are no Docker CE packages for the architecture {machine}")
    if platform["os_family"] == "Debian":
        if codename not in DEBIAN_SUITES + UBUNTU_SUITES:
            known = ", ".join(DEBIAN_SUITES + UBUNTU_SUITES)
            raise BadInput(f"Docker CE is installed on {known}, and {named} is {codename or 'none of them'}")
        path = "linux/debian" if codename in DEBIAN_SUITES else "linux/ubuntu"
        architecture = APT_ARCHITECTURES[machine]
        return {
            "kind": "apt",
            "path": path,
            "suite": codename,
            "architecture": architecture,
            "key_path": f"{path}/gpg",
        }
    if platform["os_family"] == "RedHat":
        own = platform["distribution_id"].lower()
        folder = YUM_FOLDERS.get(own, "centos")
        release = _rhel_release(own, platform["distribution_version"])
        if release < OLDEST_RELEASE:
            raise BadInput(
                f"Docker CE is installed on release {OLDEST_RELEASE} or newer of the RHEL family, not {named}"
            )
        path = f"linux/{folder}/{release}/{machine}/stable"
        return {
            "kind": "yum",
            "path": path,
            "suite": str(release),
            "architecture": machine,
            "key_path": f"linux/{folder}/gpg",
        }
    raise BadInput(f"Docker CE cannot be installed on {named}")


def upstream(version: str) -> str:
    """Return the program's version in a package version: 26.1.5 of `5:26.1.5-1~debian.12~bookworm`."""
    return version.rpartition(":")[2].split("-")[0].split("~")[0].split("+")[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _as_written(installed: str, wanted: str) -> str:
    """Return an installed package version without its epoch where ``wanted`` is given without one."""
    return installed if ":" in wanted else installed.rpartition(":")[2]


def satisfies(installed: str, wanted: str) -> bool:
    """Whether an installed package version is the wanted one: the same, or its beginning as in `26.1`."""
    return _as_written(installed, wanted) == wanted or f"{upstream(installed)}.".startswith(f"{wanted}.")


def is_older(wanted: str, installed: str) -> bool:
    """Whether installing ``wanted`` (a version or its beginning) in place of ``installed`` is a downgrade."""
    if "-" in wanted:  # that of a package, whose revision counts too
        return bool(version_key(wanted) < version_key(_as_written(installed, wanted)))
    new = _numbers(upstream(wanted))
    return new < _numbers(upstream(installed))[: len(new)]
