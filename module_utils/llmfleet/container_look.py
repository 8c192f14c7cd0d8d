"""What docker says of containers that carry a label, in a few words, with the memory they take. Edge code."""

from __future__ import annotations

import calendar
import json
import time
import typing as t

from ansible.module_utils.llmfleet import container_usage
from ansible.module_utils.llmfleet.docker_cli import Docker

Data = dict[str, t.Any]

ENDED = ("exited", "created", "dead")
_ENDED_BY_HAND = (0, 137, 143)
"""Exit statuses of what `docker stop` ended."""


def containers_by(docker: Docker, label: str) -> dict[str, list[Data]]:
    """Return value of ``label`` -> its containers as `docker inspect` tells them."""
    ids = docker.text("ps", "--all", "--no-trunc", "--quiet", "--filter", f"label={label}").split()
    found: dict[str, list[Data]] = {}
    # one that goes away meanwhile makes the exit status bad, not what is said of the others
    for one in json.loads(docker.attempt("container", "inspect", *ids)[1] or "[]") if ids else ():
        found.setdefault(one["Config"]["Labels"][label], []).append(one)
    return found


def life(container: Data, now: float | None = None) -> Data:
    """Return {container, state, image_id, restarts, started_at, uptime_seconds} of any container."""
    state = container["State"]
    started = calendar.timegm(time.strptime(state["StartedAt"][:19], "%Y-%m-%dT%H:%M:%S"))
    runs = state["Status"] == "running"
    return {
        "container": container["Name"].lstrip("/"),
        "state": state["Status"],
        "image_id": container.get("Image", ""),
        "restarts": container.get("RestartCount", 0),
        "started_at": f"{state['StartedAt'][:19]}Z" if runs else None,
        "uptime_seconds": int((time.time() if now is None else now) - started) if runs else None,
    }


def stopped(container: Data) -> bool:
    """Whether somebody stopped a container, which then is no problem, or has not started it yet."""
    state = container["State"]
    return state["Status"] == "created" or (not state.get("OOMKilled") and state.get("ExitCode") in _ENDED_BY_HAND)


def with_usage(docker: Docker, found: t.Sequence[tuple[Data, Data]]) -> list[Data]:
    """Return the rows of (container, row) with what memory those take that run."""
    pids = {box["Id"]: int(box["State"]["Pid"]) for box, _ in found if box["State"]["Status"] == "running"}
    memory, gpu = container_usage.memory(docker, pids), container_usage.gpu_memory(list(pids))
    return [
        {**row, "memory_bytes": memory.get(box["Id"]), "gpu_memory_bytes": gpu.get(box["Id"])} for box, row in found
    ]
