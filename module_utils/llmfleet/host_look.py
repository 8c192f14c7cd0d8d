"""Looking at what a host brings along: platform, machine, packages, disks, clock, toolkit, images. Edge code.

What programs answer is taken apart by the pure functions that come first. ``root`` stands before every path read, so
that tests can look at a host of files.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet import cpu_level, image_look, package_lock
from ansible.module_utils.llmfleet.engine_info import DEFAULT_ROOT
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.host_edge import SYSTEM_DIRS, read_text
from ansible.module_utils.llmfleet.platform_facts import distribution, is_wsl, package_manager
from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run

Data = dict[str, t.Any]

DOCKER_CE = ("docker-ce", "docker-ce-cli", "docker-ce-rootless-extras", "containerd.io", "docker-buildx-plugin")
OTHER_ENGINES = ("docker.io", "docker-cli", "docker-buildx", "docker-compose-v2", "docker-doc", "moby-engine")
SHARED = ("docker-compose-plugin", "docker-compose", "docker-engine", "podman-docker", "containerd", "runc")
RPM_ENGINES = ("docker", "docker-client", "docker-common", "docker-latest", "podman")
"""Packages of the RHEL family that are, or stand in the way of, an engine; Debian's `docker` is another program."""

TOOLKIT = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools")
TOOLKIT_KIN = ("libnvidia-container1", "nvidia-container-runtime", "nvidia-docker2")
PACKAGES = (*DOCKER_CE, *OTHER_ENGINES, *SHARED, *TOOLKIT, *TOOLKIT_KIN)

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
WSL_MARKS = ("/run/WSL", "/proc/sys/fs/binfmt_misc/WSLInterop")
VERSION_LOCKS = ("/etc/dnf/plugins/versionlock.list", "/etc/dnf/versionlock.toml")
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CONTAINERD_ROOT = "/var/lib/containerd"
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
BUILD_LOGS = "/var/lib/llmfleet/logs/llama_cpp-*.log"
HOOK = "nvidia-container-runtime-hook"

NAMED_BY = {"nvidia": re.compile(r"libnvidia-container"), "docker": re.compile(r"docker\S*/linux/(debian|ubuntu)\b")}
"""What a package source says of whose packages it offers; mirrors keep these parts of the official addresses."""

ON_DISK = "iUFWt"
"""dpkg's states in which a version of the package is on the disk, complete or not (dpkg-query(1))."""


def read_dpkg(shown: str) -> Data:
    """Return {installed, held} from lines of `dpkg-query -W -f='${Package}\\t${Version}\\t${db:Status-Abbrev}\\n'`."""
    rows = [line.split("\t") for line in shown.splitlines() if line.count("\t") == 2]
    there = {name: (version, state) for name, version, state in rows if state[1:2] in ON_DISK and version}
    return {
        "installed": {name: version for name, (version, _) in there.items()},
        "held": sorted(name for name, (_, state) in there.items() if state.startswith("h")),
    }


def read_rpm(shown: str, locks: str) -> Data:
    """Return {installed, held} from `rpm -q` (name, epoch, version-release) and the files of dnf's versionlock."""
    rows = [line.split("\t") for line in shown.splitlines() if line.count("\t") == 2]
    installed = {name: version if epoch == "0" else f"{epoch}:{version}" for name, epoch, version in rows}
    # dnf 4 writes NAME-EPOCH:VERSION-RELEASE.*, dnf 5 name = "NAME"
    lines = [line.strip() for line in locks.splitlines()]
    held = {
        name
        for name in installed
        for line in lines
        if re.match(rf'({re.escape(name)}-\d|name\s*=\s*"{re.escape(name)}")', line)
    }
    return {"installed": installed, "held": sorted(held)}


def names_repository(text: str, pattern: t.Pattern[str]) -> bool:
    """Whether a file of apt's sources uses a repository; comments and entries that are switched off do not count."""
    for entry in re.split(r"\n\s*\n", text):
        lines = [line for line in entry.splitlines() if not line.lstrip().startswith("#")]
        off = any(re.match(r"enabled:\s*(no|false|0)\b", line, re.IGNORECASE) for line in lines)
        if not off and any(pattern.search(line) for line in lines):
            return True
    return False


HOSTS_MARK = "# Written by llmfleet"
"""How the docker_engine role begins a hosts.toml."""


def _at(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def find(name: str, root: str = "/") -> str:
    """Return the path of a program in the system's folders, "" when there is none; dockerd's PATH is the system's."""
    return shutil.which(name, path=os.pathsep.join(_at(root, folder) for folder in SYSTEM_DIRS)) or ""


def platform(root: str = "/") -> Data:
    """Return `platform` of host_info."""
    release = next((path for path in OS_RELEASE if os.path.exists(_at(root, path))), OS_RELEASE[0])
    found = distribution(read_text(_at(root, release)))
    kernel = read_text(_at(root, "/proc/sys/kernel/osrelease")).strip() or os.uname().release
    return {
        **found,
        "architecture": os.uname().machine,
        "wsl": is_wsl(kernel, any(os.path.exists(_at(root, mark)) for mark in WSL_MARKS)),
        "kernel": kernel,
        # a host with both hierarchies keeps its controllers in the first
        "cgroup_version": "2" if os.path.exists(_at(root, "/sys/fs/cgroup/cgroup.controllers")) else "1",
        "package_manager": package_manager(found["os_family"], lambda name: bool(find(name, root))),
    }


def machine(root: str = "/") -> Data:
    """Return `machine` of host_info: what work the host can do."""
    memory = re.search(r"^MemTotal:\s+(\d+) kB", read_text(_at(root, "/proc/meminfo")), re.MULTILINE)
    features = cpu_level.cpu_features(read_text(_at(root, "/proc/cpuinfo")))
    try:
        level = cpu_level.cpu_level("auto", cpu_level.architecture(os.uname().machine), features).name
    except BadInput:  # an architecture that no image is built for, which the plan says by itself
        level = ""
    return {
        # those that this process may use: a container or a cpuset may have fewer than the machine
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else 0,
        "cpu_level": level,
        "built_at": _built_at(root),
    }


def _built_at(root: str) -> float | None:
    """Return when an image was made here last, by the logs of that, None for never."""
    times = []
    for path in glob.glob(_at(root, BUILD_LOGS)):
        with suppress(OSError):
            times.append(os.stat(path).st_mtime)
    return round(max(times), 2) if times else None


def packages(manager: str, seconds: float = 20.0, root: str = "/", run: TimedRunner = timed_run) -> Data:
    """Return `packages` of host_info, with one question to the package manager's database."""
    if manager == "apt":
        line = "${Package}\\t${Version}\\t${db:Status-Abbrev}\\n"
        return read_dpkg(
            run(["dpkg-query", f"--admindir={_at(root, '/var/lib/dpkg')}", "-W", f"-f={line}", *PACKAGES], seconds).out
        )
    if manager == "dnf":
        line = "%{NAME}\\t%{EPOCHNUM}\\t%{VERSION}-%{RELEASE}\\n"
        locks = "\n".join(read_text(_at(root, path)) for path in VERSION_LOCKS)
        return read_rpm(run(["rpm", "-q", "--qf", line, *PACKAGES, *RPM_ENGINES], seconds).out, locks)
    return {"installed": {}, "held": []}


def toolkit(root: str = "/") -> Data:
    """Return `toolkit` of host_info; the hook's ctime tells when it was put there (packages set the mtime back)."""
    hook = find(HOOK, root)
    specs = [path for folder in CDI_FOLDERS for path in sorted(glob.glob(_at(root, f"{folder}/*.*")))]
    return {
        "ctk": find("nvidia-ctk", root),
        "hook": hook,
        "hook_changed_at": round(os.stat(hook).st_ctime, 2) if hook else None,
        "cdi_specs": [path for path in specs if path.endswith((".json", ".yaml"))],
    }


def containerd_root(root: str = "/") -> str:
    """Return where containerd keeps images, which its configuration may move (docs.docker.com/engine/storage)."""
    text = read_text(_at(root, CONTAINERD_CONFIG))
    top_level = re.split(r"^\s*\[", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.search(r"^\s*root\s*=\s*[\"']([^\"']+)[\"']", top_level, flags=re.MULTILINE)
    return found.group(1) if found else CONTAINERD_ROOT


def disks(engine_root: str, root: str = "/") -> list[Data]:
    """Return `disks` of host_info: room for ``engine_root`` and for containerd's root, existing or yet to come."""
    found: list[Data] = []
    by_device: dict[int, os.statvfs_result] = {}
    for path in (engine_root, containerd_root(root)):
        place = _at(root, path)
        while not os.path.exists(place):
            place = os.path.dirname(place)
        device = os.stat(place).st_dev
        # the same figures for both when they share a file system, whatever is written meanwhile
        room = by_device.setdefault(device, os.statvfs(place))
        found.append(
            {"path": path, "free_bytes": room.f_bavail * room.f_frsize, "total_bytes": room.f_blocks * room.f_frsize}
        )
    return found


def apt_sources(root: str = "/") -> dict[str, list[str]]:
    """Return `apt_sources` of host_info: {nvidia, docker: files of apt's that name the repository}."""
    folder = _at(root, "/etc/apt")
    paths = [f"{folder}/sources.list", *sorted(glob.glob(f"{glob.escape(folder)}/sources.list.d/*.*"))]
    texts = {path: read_text(path) for path in paths if path.endswith((".list", ".sources"))}
    return {
        name: [path for path, text in texts.items() if names_repository(text, pattern)]
        for name, pattern in NAMED_BY.items()
    }


def registry_hosts(root: str = "/") -> dict[str, list[str]]:
    """Return `registry_hosts` of host_info: the mirrors by registry in those hosts.toml files that llmfleet wrote."""
    found = {}
    for path in sorted(glob.glob(_at(root, "/etc/docker/certs.d/*/hosts.toml"))):
        text = read_text(path)
        if text.startswith(HOSTS_MARK):
            found[os.path.basename(os.path.dirname(path))] = re.findall(r'(?m)^\[host\."(.*)"\]$', text)
    return found


def look(found: Data, docker: Data, seconds: float = 20.0, root: str = "/", run: TimedRunner = timed_run) -> Data:
    """Return what host_info says besides platform (``found``), gpu, ``docker`` and daemon."""
    elsewhere = docker["reachable"] and docker["disk_free_bytes"] is None
    return {
        "packages": packages(found["package_manager"], seconds, root, run),
        "toolkit": toolkit(root),
        "disks": [] if elsewhere else disks(docker["root_dir"] or DEFAULT_ROOT, root),
        "clock": {"epoch": time.time()},
        "package_lock": package_lock.look(root),
        "apt_sources": apt_sources(root),
        "registry_hosts": registry_hosts(root),
        "machine": machine(root),
        "images": image_look.look(docker, seconds, run),
    }
