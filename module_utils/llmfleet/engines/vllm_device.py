"""Whether vLLM computes on the GPU. Pure.

A vLLM is built for one kind of device and ends when it finds none, so the line with its configuration is proof enough:
`Initializing a V1 LLM engine (v0.33.0) with config: ... device_config=cuda, ...` (v1/engine/core.py).
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.llmfleet.engines.base import DeviceError

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.services import Service
    from ansible.module_utils.llmfleet.timed_run import Answer

LIST_DEVICES: tuple[str, ...] = ()
"""No second process is asked: it would load all of PyTorch."""

_DEVICE = re.compile(r"Initializing a V?1? ?LLM engine .*?device_config=(?:DeviceConfig\(device=device\(type=')?(\w+)")
_TAKEN = re.compile(r"Model loading took ([\d.]+) GiB")


def gpu_argv(service: Service) -> list[str]:
    """Return nothing: an image for GPUs uses them without being told. Free arguments hide no proof."""
    del service
    return []


def planned_layers(argv: t.Sequence[str]) -> int | None:
    """Return 0: all layers are on the GPU, however many there are."""
    del argv
    return 0


def fell_back(log: str) -> bool:
    """Whether the log already tells that the server computes on the CPU against the plan."""
    found = _DEVICE.search(log)
    return found is not None and found[1] == "cpu"


def proven_by_log(log: str) -> bool:
    """Whether the log holds what `judge` needs."""
    return _DEVICE.search(log) is not None


def judge(log: str, planned: int, listing: Answer | None, *, fresh: bool, variant: str) -> str:
    """Return what proves that vLLM computes on a GPU, such as `cuda, 15.3 GiB of weights`. Raises DeviceError."""
    del planned, listing, variant
    found = _DEVICE.search(log)
    if found is None and not fresh:
        return "a GPU; the log of its start is gone, and an image for GPUs starts with one only"
    if found is None:
        raise DeviceError(
            "vLLM's log does not say which device it computes on",
            "no line `Initializing a V1 LLM engine ... device_config=`",
            "take options about logging out of `args` and `env`, or set `verify.level: token` to do without this proof",
        )
    if found[1] == "cpu":
        raise DeviceError(
            "vLLM computes on the CPU, and a GPU was planned",
            "device_config=cpu",
            "name an image for this GPU (`image`), or set `device: cpu`",
        )
    taken = _TAKEN.search(log)
    return f"{found[1]}, {taken[1]} GiB of weights" if taken else found[1]
