"""The memory of one host as its services share it: what each may take, and what those before it have taken. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.engines import ENGINES, options
from ansible.module_utils.llmfleet.memory.shape import Shape
from ansible.module_utils.llmfleet.memory.terms import RAM, Ask, DeviceRoom, Room, Verdict
from ansible.module_utils.llmfleet.services import Service

Data = t.Mapping[str, t.Any]

UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
"""Of `memory` of a service, as docker reads it."""


def limit_of(service: Service) -> int:
    """Return the memory limit of the service's container in bytes, 0 for none."""
    return int(service.memory[:-1]) * UNITS[service.memory[-1]] if service.memory else 0


def ask_of(service: Service) -> Ask:
    """Return what the service says about how its model is run."""
    return Ask(
        engine=service.engine,
        context_length=service.context_length,
        parallel=service.parallel,
        cache_type=service.cache_type,
        gpu_layers=service.gpu_layers,
        gpu_memory_utilization=service.gpu_memory_utilization,
        tensor_parallel=service.tensor_parallel,
        threads=service.threads,
        dtype=service.dtype,
        # the models beside it are asked about by themselves
        args=(*options.argv(service.alone(), ENGINES[service.engine].OPTIONS, {}), *service.args),
        memory=limit_of(service),
    )


class MemoryRoom:
    """The memory of one host. Services ask in the order of the inventory; what one takes the next does not have.

    Only lasting facts enter, so that the plan is the same while the services run.
    """

    def __init__(self, facts: Data) -> None:
        self._ram = int(facts["machine"].get("memory_bytes") or 0)
        self._spent: dict[str, int] = {}

    def room(self, gpus: t.Sequence[Data]) -> Room | None:
        """Return what is left for a service that computes on ``gpus`` ([]: the CPU); None when it is not known."""
        # such a GPU has no memory of its own: all is in the host's
        unified = any(gpu.get("unified_memory") for gpu in gpus)
        if gpus and not unified and not all(_total(gpu) for gpu in gpus):
            return None
        if (unified or not gpus) and not self._ram:
            return None
        names = [f"GPU {number}" for number in _numbers(gpus)]
        return Room(
            devices=tuple(DeviceRoom(name, _total(gpu), self._spent.get(name, 0)) for name, gpu in zip(names, gpus)),
            ram_total=self._ram,
            unified=unified,
            ram_used=self._spent.get(RAM, 0),
        )

    def judge(self, service: Service, shape: Shape, gpus: t.Sequence[Data]) -> Verdict | None:
        """Return whether the model fits what is left; None when nothing can be said. Raises BadInput as judge does."""
        if not shape.layers:
            return None
        # the engines' plans are imported when a model is judged: most runs of a filter judge none
        from ansible.module_utils.llmfleet.memory.plan import judge

        room = self.room(gpus)
        return judge(shape, ask_of(service), room) if room else None

    def take_bytes(self, gpus: t.Sequence[Data], row: Data) -> str:
        """Count a file that is no language model (a projector), of which only the size is known; return ""."""
        if not row.get("shape"):
            name = f"GPU {_numbers(gpus)[0]}" if gpus else RAM
            self._spent[name] = self._spent.get(name, 0) + int(row.get("total_size") or 0)
        return ""

    def take(self, verdict: Verdict) -> None:
        """Count what a service of the plan takes; those after it have the rest."""
        for name, need in verdict.needs.items():
            self._spent[name] = self._spent.get(name, 0) + need.total


def _total(gpu: Data) -> int:
    return int(gpu.get("memory_total_bytes") or (gpu.get("memory_mib") or 0) << 20)


def gives_up(verdict: Verdict, shape: Shape) -> bool:
    """Whether the plan fits only by what users would not choose: layers on the CPU, or a cache of fewer bits."""
    layers = verdict.settings.get("gpu_layers")
    return bool(verdict.settings.get("cache_type")) or (layers is not None and layers < len(shape.layers))


def _numbers(gpus: t.Sequence[Data]) -> list[t.Any]:
    """Return the numbers of the GPUs (of a slice `0:1`): their own, or their places where not all have one."""
    indexes = [gpu.get("index") for gpu in gpus]
    known = {index for index in indexes if index is not None}
    return [index for index in indexes if index is not None] if len(known) == len(gpus) else list(range(len(gpus)))
