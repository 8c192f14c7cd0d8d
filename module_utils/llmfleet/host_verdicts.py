"""What speaks against preparing a host, and what its owner should know. Pure: from host_info's facts.

Whether Docker CE exists for the distribution is engine_plan's to say, and what the toolkit needs toolkit_plan's.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.engine_info import DEFAULT_ROOT, release
from ansible.module_utils.llmfleet.gpus import GPU, NO_DRIVER

Data = t.Mapping[str, t.Any]

OLDEST_DRIVER = 450
"""The first NVIDIA driver for which images with CUDA 11 exist; newer images need newer ones (CUDA compatibility)."""

CLOCK_WARNING_S = 300
CLOCK_PROBLEM_S = 24 * 3600
"""A day: signatures of package indexes and certificates are not valid yet, or no more."""

CGROUP_V1_OUT = (29, 0)
"""The engine from which on control groups of version 1 are deprecated (its release notes)."""

GIB = 1024**3


def verdicts(facts: Data, needs: Data) -> dict[str, list[str]]:
    """Return {problems, warnings} of a host; every one is a sentence with the thing, its cause and the fix.

    ``facts``: what host_info says; ``needs``: {image_bytes: room that images will take, now: the controller's clock
    in seconds since the epoch, gpu: whether a GPU is needed}.
    """
    problems, warnings = _gpu(facts["gpu"], facts["platform"]["wsl"], needs["gpu"])
    problems += _disks(facts, needs["image_bytes"])
    for found, severe in _clock(facts["clock"]["epoch"] - needs["now"]):
        (problems if severe else warnings).append(found)
    warnings += _cgroups(facts) + _package_lock(facts["package_lock"])
    return {"problems": problems, "warnings": warnings}


def _gpu(gpu: Data, wsl: bool, needed: bool) -> tuple[list[str], list[str]]:
    """Return (problems, warnings) about the GPU and its driver."""
    if gpu["verdict"] != GPU:
        if needed:
            return [f"a GPU is needed: {gpu['reason']}"], []
        return [], [gpu["reason"]] if gpu["verdict"] == NO_DRIVER else []
    # the driver works, but not for everything: one GPU of several is lost, no permission …
    troubles = [f"{trouble['cause']}; {trouble['fix']}" for trouble in gpu["problems"]]
    version = release(gpu["driver_version"] or "")
    if version is None or version[0] >= OLDEST_DRIVER:
        return [], troubles
    where = "in Windows" if wsl else f"({OLDEST_DRIVER} or newer)"
    words = (
        f"NVIDIA driver {gpu['driver_version']} is older than {OLDEST_DRIVER}, too old for images with CUDA 11 or newer"
    )
    return [], [*troubles, f"{words}; update the driver {where}"]


def _disks(facts: Data, needed: int) -> list[str]:
    """Return a problem for each file system that images go to and do not fit on."""
    docker = facts["docker"]
    data_root = docker["root_dir"] or DEFAULT_ROOT
    tight: dict[tuple[int, int], list[str]] = {}
    for disk in facts["disks"]:
        # an engine that runs keeps images in one of its two places; of one yet to come, either may be it
        holds_images = (disk["path"] == data_root) != docker["containerd_store"] or not docker["reachable"]
        if disk["free_bytes"] < needed and holds_images:
            tight.setdefault((disk["free_bytes"], disk["total_bytes"]), []).append(disk["path"])
    # with the containerd store, moving data-root does not move the images (docs.docker.com/engine/storage/containerd)
    movers = {True: "docker_engine_data_root", False: "`root` in /etc/containerd/config.toml"}
    return [
        f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free for {' and '.join(paths)}, and images need "
        f"{needed / GIB:.1f} GiB; make room (docker system prune removes what no container uses), or choose a folder "
        f"on a larger disk ({' and '.join(movers[path == data_root] for path in paths)})"
        for (free, total), paths in tight.items()
    ]


def _clock(ahead: float) -> list[tuple[str, bool]]:
    """Return the sentence about a clock that is off, and whether nothing can work with it."""
    off = abs(ahead)
    if off <= CLOCK_WARNING_S:
        return []
    amount = f"{off / 3600:.0f} hours" if off >= 2 * 3600 else f"{off / 60:.0f} minutes"
    words = f"the clock is {amount} {'ahead of' if ahead > 0 else 'behind'} that of the machine which runs the playbook"
    fix = "set it, best by a time service (timedatectl set-ntp true)"
    if off > CLOCK_PROBLEM_S:
        return [(f"{words}: certificates and signed package indexes are refused; {fix}", True)]
    return [(f"{words}; {fix}", False)]


def _cgroups(facts: Data) -> list[str]:
    docker = facts["docker"]
    version = release(docker["server_version"] or "")
    if facts["platform"]["cgroup_version"] != "1" or version is None or version < CGROUP_V1_OUT:
        return []
    return [
        f"the host has control groups of version 1, which docker {docker['server_version']} uses for the last years; "
        "boot it with systemd.unified_cgroup_hierarchy=1 when that suits you"
    ]


def _package_lock(lock: Data) -> list[str]:
    if not lock["held"]:
        return []
    holder = f"{lock['process'] or 'a process'} (process {lock['pid']})" if lock["pid"] else "another process"
    return [f"{holder} holds the package lock {lock['path']}; installing waits until it is done"]
