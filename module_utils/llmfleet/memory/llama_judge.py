"""The verdict about llama-server in words: what is filled in, what is missing, and what would help. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import weight_types
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory import llama
from ansible.module_utils.llmfleet.memory.llama_fit import HALVED_CACHE, SMALLEST_CONTEXT, Attempt, Search, with_ask
from ansible.module_utils.llmfleet.memory.llama_run import DEFAULT_CACHE_TYPE, MIB
from ansible.module_utils.llmfleet.memory.shape import Shape
from ansible.module_utils.llmfleet.memory.terms import RAM, Ask, Room, Verdict, gib

_SUGGESTED = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K")
"""Quantisations that most repositories offer, best first."""


def judge(shape: Shape, ask: Ask, room: Room) -> Verdict:
    """Return whether llama-server can run the model; see plan.judge."""
    if not shape.layers:
        raise BadInput("nothing is known of the model's layers, so that its memory cannot be planned")
    search = Search(shape, ask, room)
    found = search.best()
    if found:
        return _fits(search, found)
    asked = search.asked()
    short = asked.short
    lacking = [
        f"{gib(asked.needs[name].total)} of {_title(name)}, where {gib(bytes_)} may be taken"
        for name, bytes_ in asked.room.items()
        if name in asked.needs and asked.needs[name].total > bytes_
    ]
    rest = ""
    if search.splits and RAM in asked.room and asked.needs[RAM].total <= asked.room[RAM]:
        # what the GPUs lack would be missing in RAM
        short = max(1, sum(need.total for need in asked.needs.values()) - sum(asked.room.values()))
        rest = f", and RAM, where {gib(asked.room[RAM])} may be taken, has too little for the rest"
    return Verdict(
        fits=False,
        needs=asked.needs,
        room=asked.room,
        short=short,
        change=_change(search, asked, short),
        why=f"does not fit: it needs {' and '.join(lacking)}{rest}",
    )


def _fits(search: Search, found: Attempt) -> Verdict:
    ask = search.ask
    settings: dict[str, t.Any] = {}
    said = []
    if not ask.context_length and found.context != search.usual_context:
        settings["context_length"] = found.context
        said.append(f"context_length {found.context}")
    if not ask.cache_type and found.cache_type != DEFAULT_CACHE_TYPE:
        settings["cache_type"] = found.cache_type
        said.append(f"cache_type {found.cache_type} (needs flash attention)")
    if search.shares and not ask.gpu_layers and found.gpu_layers < search.all_layers:
        settings["gpu_layers"] = found.gpu_layers
        said.append(f"gpu_layers {found.gpu_layers} of {search.all_layers} (slower)")
    taken = [
        f"{gib(found.needs[name].total)} of {gib(bytes_)} of {_title(name)}"
        for name, bytes_ in found.room.items()
        if name in found.needs and _worth_a_word(found, name)
    ]
    words = f" with {', '.join(said)}" if said else ""
    sizes = f": {', '.join(taken)}" if taken else ""
    return Verdict(
        fits=True,
        settings=settings,
        needs=found.needs,
        room=found.room,
        why=f"fits{words}{sizes}{_uncounted(found)}{_grows(search, found)}",
    )


def _worth_a_word(found: Attempt, name: str) -> bool:
    """Whether more of the model lies there than the little that always lies in RAM."""
    total = sum(need.weights + need.kv for need in found.needs.values())
    return name != RAM or (found.needs[name].weights + found.needs[name].kv) * 5 > total


def _uncounted(found: Attempt) -> str:
    return f" (without what {', '.join(found.run.uncounted)} takes)" if found.run.uncounted else ""


def _grows(search: Search, found: Attempt) -> str:
    """Return a warning when the RAM that is left does not suffice for what the server may keep of conversations."""
    if RAM not in found.room:
        return ""
    left = found.room[RAM] - found.needs[RAM].total
    states = llama.checkpoints(search.shape, found.run)
    if left >= found.run.prompt_cache + states:
        return ""
    bounds = [f"`cache_ram: {left // MIB // (4 if states else 2) // 128 * 128}`"]
    kept = f"{gib(found.run.prompt_cache)} of earlier prompts"
    if states * 4 > left:
        each = states // max(1, found.run.checkpoints)
        bounds.append(f"`args: [--ctx-checkpoints, '{left // 2 // max(1, each)}']`")
        kept += f" and {gib(states)} of checkpoints"
    return (
        f"; with use llama-server keeps up to {kept} in RAM, where {gib(left)} are left: "
        f"{' and '.join(bounds)} {'bounds' if len(bounds) == 1 else 'bound'} it"
    )


def _change(search: Search, asked: Attempt, short: int) -> str:
    """Return the smallest changes that would make it fit, as words."""
    ask = search.ask
    found: list[str] = []
    halves = ask.cache_type not in ("", HALVED_CACHE) and search.can_halve()
    if halves and _fits_then(with_ask(search, cache_type=HALVED_CACHE)):
        found.append(f"cache_type {HALVED_CACHE}")
    context = _largest_context(search) if ask.context_length else 0
    if context:
        found.append(f"context_length {context}")
    if ask.gpu_layers:
        partial = with_ask(search, gpu_layers=0).partly(asked.context, asked.cache_type)
        found += [f"gpu_layers {partial.gpu_layers} of {search.all_layers}"] if partial else []
    parallel = _most(ask.parallel, lambda count: with_ask(search, parallel=count))
    found += [f"parallel {parallel}"] if parallel else []
    if found:
        return f"{' or '.join(found[:3])} would fit"
    smaller = _smaller_quant(search)
    return f"{gib(short)} are missing{f'; {smaller}' if smaller else ''}"


def _fits_then(search: Search) -> bool:
    try:
        return search.best() is not None
    except BadInput:
        # a type that this model's rows cannot be cut into, or that needs what `args` turn off
        return False


def _most(below: int, search: t.Callable[[int], Search]) -> int:
    """Return the largest number below ``below`` with which ``search`` finds something that fits, 0 without one."""
    low, high = 0, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits_then(search(middle)) else (low, middle)
    return low


def _largest_context(search: Search) -> int:
    """Return the longest context below the one asked for that fits: a multiple of 256 tokens, from 8192 on of 1024."""
    blocks = -(-search.ask.context_length // 256)
    found = 256 * _most(blocks, lambda count: with_ask(search, context_length=count * 256))
    found = found // 1024 * 1024 if found > 8192 else found
    return found if found >= SMALLEST_CONTEXT else 0


def _smaller_quant(search: Search) -> str:
    """Return words about the best smaller quantisation of the model that would fit, "" when none would."""
    known = weight_types.TYPES.get(search.shape.quant.upper())
    for name in _SUGGESTED if known else ():
        bits = weight_types.TYPES[name].bits
        if known and bits < known.bits:
            shape = search.shape.sized(int(search.shape.weights * bits / known.bits), name)
            if Search(shape, search.ask, search.room).best():
                return f"its {name} would fit"
    return ""


def _title(name: str) -> str:
    return "RAM" if name == RAM else name
