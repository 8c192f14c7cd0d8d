"""The words of the memory plan: what is asked, what a host has, what is needed and the verdict. Pure data.

Bytes everywhere. Zero and "" in an `Ask` mean that the user left it open, so the plan fills it in.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass, field

RAM = "ram"
"""Name of the host's memory among the devices of a verdict."""


@dataclass(frozen=True)
class Ask:
    """What a service says about how the model is run; 0 and "" are left to the plan."""

    engine: str
    """llama_server or vllm."""
    context_length: int = 0
    """Tokens one request may use."""
    parallel: int = 1
    """Requests at the same time."""
    cache_type: str = ""
    gpu_layers: int = 0
    """llama_server: layers on the GPUs; 0 is as many as fit."""
    gpu_memory_utilization: float = 0.0
    """vllm: share of each GPU's memory it may take."""
    tensor_parallel: int = 0
    """vllm: GPUs that share the model."""
    threads: int = 0
    batch: int = 0
    ubatch: int = 0
    args: tuple[str, ...] = ()
    """The service's free arguments: some of them (such as `--flash-attn off`) change what is needed."""
    memory: int = 0
    """Limit of the container's memory in bytes (`memory` of the service), 0: none."""
    dtype: str = ""
    """vllm: type to compute in."""


@dataclass(frozen=True)
class DeviceRoom:
    """A GPU; ``name`` as in `needs` of the verdict."""

    name: str
    total: int
    """Bytes it has."""
    used_by_others: int = 0
    """Bytes that are taken for good by something else (other services of the plan, a desktop)."""

    @property
    def room(self) -> int:
        """Bytes that are left for the service."""
        return max(0, self.total - self.used_by_others)


@dataclass(frozen=True)
class Room:
    """What a host has; without ``devices`` the model runs in RAM."""

    devices: tuple[DeviceRoom, ...] = ()
    ram_total: int = 0
    """Bytes of the host's memory; 0: not known, so that nothing is said about it."""
    unified: bool = False
    """Whether the GPU computes in the host's RAM (Grace, Jetson, APUs): then there is one pool."""
    ram_used: int = 0
    """Bytes of RAM that are taken for good by something else (other services of the plan)."""


@dataclass(frozen=True)
class Need:
    """Bytes that a service takes on one device."""

    weights: int = 0
    kv: int = 0
    """Keys and values of the context, and the state of recurrent layers."""
    compute: int = 0
    overhead: int = 0
    """What the runtime itself takes: the GPU's context, the program, its caches in RAM."""

    @property
    def total(self) -> int:
        """Bytes together."""
        return self.weights + self.kv + self.compute + self.overhead

    def __add__(self, other: Need) -> Need:
        """Return both together."""
        return Need(
            self.weights + other.weights,
            self.kv + other.kv,
            self.compute + other.compute,
            self.overhead + other.overhead,
        )


@dataclass(frozen=True)
class Verdict:
    """Whether it fits, and how."""

    fits: bool
    settings: t.Mapping[str, t.Any] = field(default_factory=dict)
    """Fields of the service that the user left open and the plan filled in; those that he set are never among them."""
    needs: t.Mapping[str, Need] = field(default_factory=dict)
    """Name of the device (RAM for the host's memory) -> bytes."""
    room: t.Mapping[str, int] = field(default_factory=dict)
    """Name of the device -> bytes the service may take there."""
    short: int = 0
    """Bytes that are missing, on the device that lacks most; 0 when it fits."""
    change: str = ""
    """The smallest change that would make it fit, as words for the user; "" when it fits."""
    why: str = ""
    """One sentence for the plan, such as `fits: 5.3 of 22.5 GiB on GPU 0`."""

    @property
    def total(self) -> int:
        """Bytes on all devices together."""
        return sum(need.total for need in self.needs.values())

    def as_data(self) -> dict[str, t.Any]:
        """Return it as JSON-able data."""
        return {**asdict(self), "needs": {name: asdict(need) for name, need in self.needs.items()}}


def gib(count: int) -> str:
    """Return ``count`` bytes as words: `5.3 GiB`, or MiB below one GiB."""
    if count < 1 << 30:
        return f"{-(-count // (1 << 20))} MiB"
    return f"{count / (1 << 30):.1f} GiB"
