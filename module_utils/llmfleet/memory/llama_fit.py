"""Whether llama-server can run a model in the memory of a host, and with which settings. Pure.

What the user left open is filled in by the order that hurts least: first everything as it is without a plan (all layers
on the GPU, the usual context, keys and values as f16); then keys and values as q8_0, which takes half and costs next to
nothing; then as many layers on the GPU as fit, which is slower but answers the same; and only then a shorter context,
which makes requests fail that worked before.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ansible.module_utils.llmfleet.engines.llama_server import DEFAULT_CONTEXT_LENGTH
from ansible.module_utils.llmfleet.memory import llama
from ansible.module_utils.llmfleet.memory.llama_run import CACHE_TYPES, DEFAULT_CACHE_TYPE, GIB, MIB, Run, run_of
from ansible.module_utils.llmfleet.memory.shape import Shape
from ansible.module_utils.llmfleet.memory.terms import RAM, Ask, Need, Room

SMALLEST_CONTEXT = 512
"""Tokens; with fewer no conversation is possible, so it is not gone below without being told to."""
HALVED_CACHE = "q8_0"


@dataclass(frozen=True)
class Attempt:
    """One way to run the model, and what it needs."""

    context: int
    cache_type: str
    gpu_layers: int
    """Of all, counting the output head."""
    run: Run
    needs: t.Mapping[str, Need]
    """Device -> bytes."""
    room: t.Mapping[str, int]
    """Device -> bytes that may be taken there."""

    @property
    def short(self) -> int:
        """Bytes that are missing where most are missing; 0 when it fits."""
        return max(0, *(self.needs[name].total - room for name, room in self.room.items() if name in self.needs), 0)

    @property
    def short_on_gpus(self) -> bool:
        """Whether a GPU lacks memory."""
        return any(self.needs[name].total > room for name, room in self.room.items() if name != RAM)


class Search:
    """Tries settings for one model, service and host."""

    def __init__(self, shape: Shape, ask: Ask, room: Room) -> None:
        self.shape = shape
        self.ask = ask
        self.room = room
        self.room_of = room_of(ask, room)
        self.shares = {device.name: max(1, device.room) for device in room.devices}
        self.all_layers = len(shape.layers) + 1

    def attempt(self, context: int, cache_type: str, gpu_layers: int = 0) -> Attempt:
        """Return what it needs with these settings; gpu_layers 0: all."""
        run = run_of(self.ask, context, cache_type)
        layers = min(gpu_layers or self.all_layers, self.all_layers)
        needs = llama.needs(self.shape, run, layers, self.shares)
        if self.room.unified:
            needs = {RAM: sum(needs.values(), Need())}
        return Attempt(context, cache_type, layers, run, needs, self.room_of)

    def asked(self) -> Attempt:
        """Return what it needs when nothing is made smaller."""
        return self.attempt(self.contexts()[0], self.cache_types()[0], self.ask.gpu_layers)

    def best(self) -> Attempt | None:
        """Return the settings that hurt least among those that fit, None when none do."""
        for context in self.contexts():
            for cache_type in self.cache_types():
                found = self.attempt(context, cache_type, self.ask.gpu_layers)
                if not found.short:
                    return found
            partial = self.partly(context, self.cache_types()[0])
            if partial:
                return partial
        return None

    def partly(self, context: int, cache_type: str) -> Attempt | None:
        """Return the attempt with most layers on the GPU that fits, None when there is none or nothing to choose."""
        if not self.splits:
            return None
        low, high = 0, self.all_layers
        while high - low > 1:
            middle = (low + high) // 2
            if self.attempt(context, cache_type, middle).short_on_gpus:
                high = middle
            else:
                low = middle
        # what several GPUs take does not grow evenly, so its neighbours are looked at too
        for layers in range(min(low + 2, self.all_layers - 1), max(0, low - 4), -1):
            found = self.attempt(context, cache_type, layers)
            if not found.short:
                return found
        return None

    @property
    def splits(self) -> bool:
        """Whether the plan may leave some layers in RAM."""
        return bool(self.shares) and not self.room.unified and not self.ask.gpu_layers

    @property
    def usual_context(self) -> int:
        """The context without a plan."""
        return min(DEFAULT_CONTEXT_LENGTH, self.shape.context_length or DEFAULT_CONTEXT_LENGTH)

    def contexts(self) -> list[int]:
        """The contexts to try: the one that is asked for, or the usual one and ever shorter ones."""
        if self.ask.context_length:
            return [self.ask.context_length]
        found = [self.usual_context]
        while found[-1] // 2 >= SMALLEST_CONTEXT:
            found.append(found[-1] // 2)
        return found

    def cache_types(self) -> list[str]:
        """The types of keys and values to try."""
        if self.ask.cache_type:
            return [self.ask.cache_type]
        return [DEFAULT_CACHE_TYPE, HALVED_CACHE] if self.can_halve() else [DEFAULT_CACHE_TYPE]

    def can_halve(self) -> bool:
        """Whether keys and values can be kept as q8_0, and whether that gains anything."""
        attention = [layer for layer in self.shape.layers if layer.kv_heads]
        # back-ends have no fast attention for quantised latents
        if not attention or self.shape.mla:
            return False
        block = CACHE_TYPES[HALVED_CACHE][0]
        cut = all(one.key_length % block == one.value_length % block == one.index % block == 0 for one in attention)
        return cut and run_of(self.ask, self.usual_context, DEFAULT_CACHE_TYPE).flash_attention


def room_of(ask: Ask, room: Room) -> dict[str, int]:
    """Return the bytes that the service may take on each device; RAM is missing where nothing is known of it."""
    # drivers keep some of a GPU for themselves, on larger ones more
    found = {} if room.unified else {device.name: max(0, device.room - device.total // 64) for device in room.devices}
    if room.ram_total:
        left = max(0, room.ram_total - kept_for_system(room.ram_total) - room.ram_used)
        found[RAM] = min(left, ask.memory) if ask.memory else left
    elif ask.memory:
        found[RAM] = ask.memory
    return found


def kept_for_system(ram_total: int) -> int:
    """Return the bytes of RAM that no service gets: a sixteenth, at least 512 MiB and at most 8 GiB."""
    return min(max(ram_total // 16, 512 * MIB), 8 * GIB)


def with_ask(search: Search, **changes: t.Any) -> Search:
    """Return a search for the same model and host with some fields of the service changed."""
    return Search(search.shape, replace(search.ask, **changes), search.room)
