"""Facts of a host as the module host_info returns them, for tests of what is decided from them."""

from __future__ import annotations

import copy
import typing as t

NOW = 1_790_000_000.0

BARE: dict[str, t.Any] = {
    "platform": {
        "os_family": "Debian",
        "distribution": "Debian GNU/Linux",
        "distribution_id": "debian",
        "distribution_version": "12",
        "codename": "bookworm",
        "architecture": "x86_64",
        "wsl": False,
        "kernel": "6.1.0-18-amd64",
        "cgroup_version": "2",
        "package_manager": "apt",
    },
    "gpu": {
        "verdict": "none",
        "reason": "no NVIDIA GPU on the PCI bus",
        "gpus": [],
        "driver_version": None,
        "cuda_version": None,
        "problems": [],
    },
    "docker": {
        "init": "systemd",
        "reachable": False,
        "problem": "nothing_there",
        "error": "there is no docker client and no docker engine on this host",
        "cli": "",
        "dockerd": "",
        "server_version": "",
        "root_dir": "",
        "containers_running": None,
        "live_restore": False,
        "desktop": False,
        "containerd_store": False,
        "runtimes": [],
        "default_runtime": "",
        "cdi_devices": [],
        "registry_mirrors": [],
        "started_at": None,
        "disk_free_bytes": 50 * 1024**3,
    },
    "packages": {"installed": {}, "held": []},
    "daemon": {"path": "/etc/docker/daemon.json", "text": None, "error": "", "record": {}, "flags": {}},
    "toolkit": {"ctk": "", "hook": "", "hook_changed_at": None, "cdi_specs": []},
    "disks": [{"path": "/var/lib/docker", "free_bytes": 50 * 1024**3, "total_bytes": 100 * 1024**3}],
    "clock": {"epoch": NOW},
    "package_lock": {"held": False, "path": "", "pid": 0, "process": ""},
    "apt_sources": {"nvidia": [], "docker": []},
    "registry_hosts": {},
    "machine": {
        "cpus": 8,
        "memory_bytes": 32 * 1024**3,
        "cpu_level": "x86-64-v3",
        "built_at": None,
    },
    "images": [],
}
"""A Debian 12 server without an engine and without a GPU."""

RUNNING: dict[str, t.Any] = {
    "reachable": True,
    "problem": "",
    "error": "",
    "cli": "/usr/bin/docker",
    "dockerd": "/usr/sbin/dockerd",
    "server_version": "20.10.24",
    "root_dir": "/var/lib/docker",
    "containers_running": 0,
    "runtimes": ["runc"],
    "default_runtime": "runc",
    "started_at": NOW - 3600,
}
"""What changes in `docker` when an engine answers."""

DISTRO_PACKAGES = {"docker.io": "20.10.24+dfsg1-1+b3", "containerd": "1.6.20~ds1-1+b1", "runc": "1.1.5+ds1-1+b1"}
CE_PACKAGES = {
    "docker-ce": "5:26.1.5-1~debian.12~bookworm",
    "docker-ce-cli": "5:26.1.5-1~debian.12~bookworm",
    "containerd.io": "1.7.24-1",
}


def gpu(name: str, capability: str | None, **more: t.Any) -> dict[str, t.Any]:
    """Return a usable NVIDIA GPU as gpu_info tells it, as far as plans look."""
    known = {"vendor": "nvidia", "name": name, "usable": True, "driver_loaded": True}
    return {**known, "compute_capability": capability, "unified_memory": False, **more}


def nvidia(driver: str, cuda: str | None, *gpus: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return `gpu` of a host with NVIDIA GPUs, a driver and the CUDA version that nvidia-smi tells."""
    count = f"{len(gpus)} NVIDIA GPU{'s' if len(gpus) > 1 else ''}"
    about = {"verdict": "gpu", "reason": f"{count} with driver {driver}", "problems": []}
    return {**about, "gpus": list(gpus), "driver_version": driver, "cuda_version": cuda}


def host(engine: str = "", **changes: t.Any) -> dict[str, t.Any]:
    """Return facts of a host without an engine, or with a running one (`distro` or `ce`); ``changes`` update parts."""
    facts = copy.deepcopy(BARE)
    if engine:
        facts["docker"].update(copy.deepcopy(RUNNING))
        facts["packages"]["installed"] = dict(DISTRO_PACKAGES if engine == "distro" else CE_PACKAGES)
    if engine == "ce":
        facts["docker"].update(server_version="26.1.5", dockerd="/usr/bin/dockerd")
        facts["packages"]["held"] = list(CE_PACKAGES)
    for part, values in changes.items():
        if isinstance(values, dict):
            facts[part].update(values)
        else:
            facts[part] = values
    return facts
