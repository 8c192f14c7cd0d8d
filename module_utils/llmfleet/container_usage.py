"""What memory containers take: of the host by docker's own figures, of GPUs by those of the driver. Edge code."""

from __future__ import annotations

import json
import re
import typing as t

from ansible.module_utils.llmfleet import gpu_look
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.gpu_smi import DETAILS_QUERY
from ansible.module_utils.llmfleet.gpu_xml import parse_details
from ansible.module_utils.llmfleet.host_edge import read_text
from ansible.module_utils.llmfleet.timed_run import timed_run

SMI_SECONDS = 10
_CGROUPS = {
    "": ("", "memory.current", "inactive_file"),
    "memory": ("/memory", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Controller -> (its hierarchy, the file of what is used, the row of memory.stat): control groups 2, then 1."""
_UNITS = {"": 1, "k": 1000, "Ki": 1 << 10, "M": 10**6, "Mi": 1 << 20, "G": 10**9, "Gi": 1 << 30, "Ti": 1 << 40}


def size_of(text: str) -> int | None:
    """Return the bytes that docker's words such as `12.3MiB` mean, None where they mean none."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([kKMGT]i?|)B\s*", text)
    unit = _UNITS.get(found[2], _UNITS.get(found[2].lower())) if found else None
    return int(float(found[1]) * unit) if found and unit else None


def memory(docker: Docker, pids: t.Mapping[str, int]) -> dict[str, int]:
    """Return id -> bytes of the host's memory that a container takes; ``pids`` maps ids to first processes.

    The kernel tells it at once. Docker's own figure, which is the same, takes two seconds, for it is about the CPU too.
    """
    found = {one: size for one, pid in pids.items() if (size := by_cgroup(pid)) is not None}
    # a unit of systemd is nothing that docker knows
    rest = [one for one in pids if one not in found and not one.endswith(".service")]
    if not rest:
        return found
    rc, out, _ = docker.attempt("stats", "--no-stream", "--no-trunc", "--format", "{{json .}}", *rest)
    for line in out.splitlines() if rc == 0 else ():
        row = json.loads(line)
        size = size_of(row.get("MemUsage", "").partition("/")[0])
        # docker writes a zero for one that has just ended
        if size:
            found[row["ID"]] = size
    return found


def by_cgroup(pid: int, root: str = "/") -> int | None:
    """Return what the control group of a process takes, without cached files that are not in use; None if unknown."""
    for line in read_text(f"{root}proc/{pid}/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if ".." in path or path in ("", "/"):
            continue
        for kind, (hierarchy, usage, cached) in _CGROUPS.items():
            folder = f"{root}sys/fs/cgroup{hierarchy}{path}"
            used = read_text(f"{folder}/{usage}").strip() if kind in controllers.split(",") else ""
            if used.isdigit():
                idle = re.search(rf"^{cached} (\d+)$", read_text(f"{folder}/memory.stat"), re.MULTILINE)
                return max(0, int(used) - (int(idle[1]) if idle else 0))
    return None


def gpu_memory(names: t.Sequence[str], root: str = "/") -> dict[str, int]:
    """Return name -> bytes of GPU memory that the processes in its control group take; {} without an NVIDIA driver.

    A name is the id of a container or that of a unit of systemd, which the path of the group holds.
    """
    smi = gpu_look.find_nvidia_smi(gpu_look.SMI) if names else None
    if not smi:
        return {}
    answer = timed_run([smi, *DETAILS_QUERY], SMI_SECONDS)
    details = None if answer.timed_out else parse_details(answer.out)
    found: dict[str, int] = {}
    for gpu in details.gpus if details else ():
        for process in gpu.processes or ():
            group = read_text(f"{root}proc/{process.pid}/cgroup")
            for name in names:
                if re.search(rf"[/-]{re.escape(name)}(\.scope|/|$)", group, re.MULTILINE):
                    found[name] = found.get(name, 0) + (process.memory_bytes or 0)
    return {name: size for name, size in found.items() if size}
