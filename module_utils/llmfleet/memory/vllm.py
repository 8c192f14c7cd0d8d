"""Whether a model fits as vLLM runs it, and with which settings. Pure.

vLLM takes a fixed part of each GPU (gpu_memory_utilization of its whole memory). What weights, computation and CUDA
leave of that becomes the cache, one pool for all requests, in which one request of full length has to fit
(v1/core/kv_cache_utils.py). So more or longer requests never run out of memory, they wait; what can fail is the start.

The cache per token is exact (vllm_cache). What computation takes cannot be known without the GPU: `_compute` is an
estimate on the safe side of what vLLM measures at its start, and no GPU was there to prove it.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory.config_shape import heads_of
from ansible.module_utils.llmfleet.memory.shape import SAFETENSORS, Shape
from ansible.module_utils.llmfleet.memory.terms import RAM, Ask, DeviceRoom, Need, Room, Verdict, gib
from ansible.module_utils.llmfleet.memory.vllm_cache import (
    PLAIN,
    Pool,
    cpu_cache_bytes,
    element_bytes,
    pool,
    step_tokens,
)

_GIB, _MIB = 1 << 30, 1 << 20

WANTED_CONTEXT = 32768
"""Tokens of a request when the service leaves it open: as DEFAULT_CONTEXT_LENGTH of the engine."""

UTILIZATION = 0.9
"""Part of a GPU that is asked for when the service leaves it open; vLLM's own default was 0.9 and is 0.92 now."""

_LEAST_CONTEXT = 2048
"""A plan that leaves less than this to a request is no use; then it does not fit."""

_CUDA = 768 * _MIB
"""What CUDA, its libraries and captured graphs take of a GPU."""
_NCCL = 512 * _MIB
"""What a GPU takes more when it works with others."""

_PROGRAM = 1536 * _MIB
"""RAM that vLLM with PyTorch takes on a CPU beside weights and cache; measured: 1.3 GiB."""
_SYSTEM = 1 * _GIB
"""RAM that stays for the system."""


def judge(shape: Shape, ask: Ask, room: Room) -> Verdict:
    """Return whether the model fits into ``room`` as asked. Raises BadInput for what no memory would make work."""
    if shape.format != SAFETENSORS:
        raise BadInput("vLLM reads models of the Hugging Face format, not GGUF; set `engine: llama_server`")
    trained = shape.context_length
    if ask.context_length and trained and ask.context_length > trained:
        raise BadInput(f"context_length {ask.context_length} is more than the {trained} tokens of the model")
    if not room.devices:
        return _on_cpu(shape, ask, room)
    verdicts = [_on_gpus(shape, ask, room, parts) for parts in _ways_to_split(shape, ask, room)]
    whole = next((one for one in verdicts if one.fits and not one.settings.get("_shortened")), None)
    # one GPU with a shorter context comes after more GPUs with the whole one
    fitting = whole or next((one for one in reversed(verdicts) if one.fits), None)
    found = fitting or verdicts[-1]
    return Verdict(
        found.fits,
        {name: value for name, value in found.settings.items() if not name.startswith("_")},
        found.needs,
        found.room,
        found.short,
        found.change,
        found.why,
    )


def _ways_to_split(shape: Shape, ask: Ask, room: Room) -> list[int]:
    """Return over how many GPUs the model may be split, the fewest first."""
    count, heads = len(room.devices), heads_of(shape)
    if ask.tensor_parallel:
        parts = ask.tensor_parallel
        if parts > count:
            raise BadInput(f"tensor_parallel is {parts}, and the host has {_gpus(count)}; lower it")
        if heads % parts:
            raise BadInput(f"tensor_parallel {parts} does not divide the model's {heads} attention heads; lower it")
        return [parts]
    # powers of two, which heads and vocabularies are made for
    return [parts for parts in (1, 2, 4, 8, 16) if parts <= count and not heads % parts] or [1]


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _weights(shape: Shape, dtype: str, bits: int = 16) -> int:
    """Return the bytes of the weights in the type they are computed in: plain ones are turned into it."""
    if shape.quant not in PLAIN:
        return shape.weights
    stored = shape.extra.get("dtype_bytes", 2)
    wanted = 4 if dtype in ("float", "float32") else bits // 8
    return shape.weights * wanted // stored


def _compute(shape: Shape, parts: int, memory: int, requests: int) -> int:
    """Return an estimate of what a full step takes on each GPU: hidden states, the widest layer, and the logits."""
    wide = max((layer.ff for layer in shape.layers), default=0) * max(1, shape.expert_used)
    queries = max((layer.heads * max(layer.key_length, layer.value_length) for layer in shape.layers), default=0)
    step = step_tokens(memory) * 2 * (4 * shape.embedding_length + (2 * wide + 2 * queries) // parts)
    # of the last tokens only, in 32 bits, with a copy for sampling
    logits = 2 * 4 * requests * shape.vocab_size
    return step + logits


def _on_gpus(shape: Shape, ask: Ask, room: Room, parts: int) -> Verdict:
    devices = room.devices[:parts]
    # the parts are alike, so the GPU with the least room rules
    least = min(devices, key=lambda device: device.room)
    utilization = ask.gpu_memory_utilization or _utilization(least)
    budget = int(least.total * utilization)
    found = pool(shape, element_bytes(ask.cache_type, ask.dtype), parts=parts, memory=least.total)
    fixed = Need(
        weights=-(-_weights(shape, ask.dtype) // parts),
        compute=_compute(shape, parts, least.total, ask.parallel),
        overhead=_CUDA + (_NCCL if parts > 1 else 0),
    )
    left = budget - fixed.total
    settings: dict[str, t.Any] = {}
    if not ask.tensor_parallel:
        settings["tensor_parallel"] = parts
    if not ask.gpu_memory_utilization:
        settings["gpu_memory_utilization"] = utilization
    most = shape.context_length or WANTED_CONTEXT
    wanted = ask.context_length or min(most, WANTED_CONTEXT)
    context = wanted
    if not ask.context_length:
        context = _rounded(found.longest(left, wanted), wanted)
        settings["context_length"] = context
        settings["_shortened"] = context < wanted
    least_context = ask.context_length or min(_LEAST_CONTEXT, wanted)
    target = max(context, least_context)
    need = fixed + Need(kv=found.needed(target))
    names = ", ".join(device.name for device in devices)
    needs = {device.name: need for device in devices}
    rooms = {device.name: budget for device in devices}
    short = need.total - budget
    taken = least.total - least.room
    if budget + taken > least.total:
        change = f"gpu_memory_utilization {(least.total - taken) / least.total - 0.005:.2f} or less"
        why = (
            f"does not fit: gpu_memory_utilization {utilization:g} asks for {gib(budget)} of {names}, and other "
            f"services hold {gib(taken)} of it; smallest change: {change}"
        )
        return Verdict(False, {}, needs, rooms, budget + taken - least.total, change, why)
    if short > 0:
        change = _change(shape, ask, room, found, left, short, parts)
        why = (
            f"does not fit by {gib(short)}: {_told(need, target)} of {gib(budget)} on {names}; "
            f"smallest change: {change}"
        )
        return Verdict(False, {}, needs, rooms, short, change, why)
    holds = found.tokens(max(0, left), target) if found.block_bytes else 0
    more = f", the cache holds {holds} tokens" if holds else ""
    why = f"fits: {_told(need, target)} of {gib(budget)} on {names} ({_say(settings)}{more})"
    return Verdict(True, settings, needs, rooms, 0, "", why)


def _say(settings: t.Mapping[str, t.Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if not name.startswith("_")) or "as asked"


def _told(need: Need, context: int) -> str:
    return (
        f"weights {gib(need.weights)}, computing {gib(need.compute + need.overhead)}, {context} tokens {gib(need.kv)}"
    )


def _utilization(device: DeviceRoom) -> float:
    """Return the part of the GPU that is asked for, in whole percent; other services keep theirs."""
    free = int(100 * (device.room - (_CUDA if device.used_by_others else 0)) / max(1, device.total))
    return max(1, min(int(100 * UTILIZATION), free)) / 100


def _rounded(most: int, wanted: int) -> int:
    """Return ``most`` tokens rounded down to what reads well, ``wanted`` when they reach that."""
    if most >= wanted:
        return wanted
    step = 1024 if most >= 4096 else 256
    return most // step * step


def _change(shape: Shape, ask: Ask, room: Room, found: Pool, left: int, short: int, parts: int) -> str:
    """Return the smallest change that would make it fit."""
    context = _rounded(found.longest(left, ask.context_length), ask.context_length) if ask.context_length else 0
    if context >= _LEAST_CONTEXT:
        return f"context_length {context} fits"
    if ask.context_length and not ask.cache_type:
        half = pool(shape, 1, parts=parts, memory=min(device.total for device in room.devices[:parts]))
        if half.needed(ask.context_length) <= left:
            return "cache_type fp8 fits"
    total = min(device.total for device in room.devices[:parts])
    if ask.gpu_memory_utilization and short <= total * (UTILIZATION - ask.gpu_memory_utilization):
        return f"gpu_memory_utilization {ask.gpu_memory_utilization + short / total + 0.005:.2f} fits"
    if ask.tensor_parallel and ask.tensor_parallel * 2 <= len(room.devices):
        return f"tensor_parallel {ask.tensor_parallel * 2}"
    lighter = "a quantised model (AWQ, GPTQ, FP8) or a smaller one" if shape.quant in PLAIN else "a smaller model"
    return f"{gib(short)} more on each GPU, {lighter}"


def _on_cpu(shape: Shape, ask: Ask, room: Room) -> Verdict:
    """Judge what the engine does on a CPU: 32 bits unless the service says otherwise, a cache for a few requests."""
    dtype = ask.dtype or ("float32" if shape.quant in PLAIN else "")
    most = shape.context_length or WANTED_CONTEXT
    wanted = ask.context_length or min(most, WANTED_CONTEXT)
    limit = min(room.ram_total, ask.memory or room.ram_total) if room.ram_total else ask.memory
    budget = max(0, limit - room.ram_used - (0 if ask.memory else _SYSTEM))
    fixed = Need(weights=_weights(shape, dtype), overhead=_PROGRAM)
    contexts = [wanted] if ask.context_length else _shorter(wanted)
    for context in contexts:
        need = fixed + Need(kv=cpu_cache_bytes(shape, context, ask.parallel, dtype, ask.cache_type))
        if not limit or need.total <= budget:
            settings = {} if ask.context_length else {"context_length": context}
            of = f" of {gib(budget)}" if limit else ""
            why = f"fits: {_told(need, context)}{of} RAM ({_say(settings)})"
            return Verdict(True, settings, {RAM: need}, {RAM: budget} if limit else {}, 0, "", why)
    short = need.total - budget
    if ask.context_length and fixed.total < budget:
        change = "a lower context_length or parallel"
    else:
        change = "dtype bfloat16" if dtype == "float32" and short < fixed.weights // 2 else "a smaller model"
    why = f"does not fit by {gib(short)}: {_told(need, contexts[-1])} of {gib(budget)} RAM; smallest change: {change}"
    return Verdict(False, {}, {RAM: need}, {RAM: budget}, short, change, why)


def _shorter(wanted: int) -> list[int]:
    found = [wanted]
    while found[-1] // 2 >= _LEAST_CONTEXT:
        found.append(found[-1] // 2)
    return found
