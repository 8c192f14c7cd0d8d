"""Verification level `device`: the running container is asked for its GPUs, and its log for where the layers are.

Edge code of the module llm_service; what the answers mean is the engine's to say (engines/*, OFFLOAD).
"""

from __future__ import annotations

import calendar
import posixpath
import re
import time
import typing as t

from ansible.module_utils.llmfleet.constants import LABEL_VARIANT
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.spec import Spec
from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run
from ansible.module_utils.llmfleet.verify import NotYetError

LIST_SECONDS = 60.0
"""How long the list of devices is waited for; on eight GPUs it takes some seconds."""

START_SECONDS = 600
"""In this time after its start an engine has said where its layers are: it does so before it reads the weights."""


def planned(spec: Spec, engine: t.Any) -> int | None:
    """Return how many layers the container of ``spec`` is to have on GPUs, None when it is to run on the CPU."""
    return t.cast("int | None", engine.OFFLOAD.planned_layers(spec["argv"])) if spec.get("gpus") else None


def check_device(
    docker: Docker, container: t.Mapping[str, t.Any], layers: int, engine: t.Any, run: TimedRunner = timed_run
) -> str:
    """Return what proves that ``container`` (``docker inspect`` form) has ``layers`` layers on a GPU.

    A container that has just been started is asked for its devices by a second process. One that has served for a while
    is not, unless its log is no longer whole: such a process takes some hundred MB of each GPU for a moment.
    Raises DeviceError, and NotYetError when the container is not running any more.
    """
    started = container["State"]["StartedAt"]
    # docker says it in UTC, to the nanosecond
    first = calendar.timegm(time.strptime(started[:19], "%Y-%m-%dT%H:%M:%S"))
    window = ("--since", started, "--until", str(first + START_SECONDS))
    _, out, err = docker.attempt("logs", *window, container["Id"])
    log = out + err
    fresh = time.time() < first + START_SECONDS
    listing = None
    if engine.OFFLOAD.LIST_DEVICES and (fresh or not engine.OFFLOAD.proven_by_log(log)):
        argv = [docker.executable, "exec", container["Id"], _program(container), *engine.OFFLOAD.LIST_DEVICES]
        listing = run(argv, LIST_SECONDS)
        if re.search("is not running|is restarting|No such container", listing.err):
            # the watch looks at it again and finds out why
            raise NotYetError("the container ended before it could be asked for its devices")
    variant = (container["Config"].get("Labels") or {}).get(LABEL_VARIANT, "")
    return t.cast("str", engine.OFFLOAD.judge(log, layers, listing, fresh=fresh, variant=variant))


def _program(container: t.Mapping[str, t.Any]) -> str:
    """Return the engine's program; an image may start it through a small init."""
    words: list[str] = [container["Path"], *container.get("Args", ())]
    return next((word for word in words if posixpath.basename(word) == "llama-server"), words[0])
