"""vLLM's KV cache: how many bytes a block takes, and how many blocks a request. Pure.

After v1/core/kv_cache_utils.py and v1/kv_cache_interface.py of 0.32.0. The cache is one pool of blocks; a block holds
the tokens of one group of layers. Layers with the same kind of attention form groups of equal size, so that every group
can use every block; a request takes blocks for each group, those with a window for the window only.
"""

from __future__ import annotations

import typing as t
from collections import Counter
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.memory.shape import Layer, Shape

GPU_BLOCK, CPU_BLOCK = 16, 128
"""Tokens of a block; on a CPU platforms/cpu.py says so, which leaves it at 16 with a latent (MLA)."""

PLAIN = ("", "f32", "f16", "bf16")
"""What Shape.quant says of models that are not quantised."""

_GIB = 1 << 30

_CPU_REQUESTS, _CPU_CONTEXT = 4, 4096
"""The cache on a CPU holds so many requests of so many tokens, or one of full length where that is more."""


@dataclass(frozen=True)
class Pool:
    """The blocks of a model on one device."""

    block_bytes: int
    """Bytes of a block over all layers that share it; 0 when nothing is cached."""
    block: int
    """Tokens in it."""
    windows: tuple[int, ...]
    """Of each group of layers the window in tokens, 0 for the whole context."""
    states: int
    """Bytes of recurrent states per request."""
    batch: int
    """Tokens that are on their way at most: a window is held together with them."""

    def blocks(self, context: int) -> int:
        """Return the blocks that one request of ``context`` tokens takes."""
        total = 0
        for window in self.windows:
            if not window:
                total += _parts(context, self.block)
            else:
                # the window may begin inside a block
                total += _parts(min(window - 1 + self.batch, context), self.block) + 1
        return total

    def request(self, context: int) -> int:
        """Return the bytes that one request of ``context`` tokens takes."""
        return self.blocks(context) * self.block_bytes + self.states

    def needed(self, context: int, requests: int = 1) -> int:
        """Return the bytes of a cache that holds ``requests`` of ``context`` tokens; one block more is never used."""
        return self.request(context) * requests + self.block_bytes

    def tokens(self, memory: int, context: int) -> int:
        """Return the tokens that ``memory`` bytes hold as vLLM prints them: `KV cache size: N tokens`."""
        blocks = self.blocks(context)
        if not self.block_bytes or not blocks:
            return 0
        return int((memory // self.block_bytes) / blocks * context)

    def longest(self, memory: int, most: int) -> int:
        """Return the most tokens, up to ``most``, of which one request fits into ``memory`` bytes."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.needed(middle) <= memory:
                low = middle
            else:
                high = middle - 1
        return low


def _parts(count: int, size: int) -> int:
    return -(-count // size)


def step_tokens(memory: int = 0) -> int:
    """Return the tokens of a step on a GPU with ``memory`` bytes, 0 for a CPU: vLLM's default of max_num_batched_tokens
    (engine/arg_utils.py)."""
    return 16384 if memory >= 160 * _GIB else 8192 if memory >= 70 * _GIB else 2048


def pool(shape: Shape, element: int, *, parts: int = 1, memory: int = 0) -> Pool:
    """Return the Pool of a model with ``element`` bytes per number, split over ``parts`` GPUs of ``memory`` bytes.

    Without ``memory`` it is that of a CPU.
    """
    on_cpu = not memory
    block = CPU_BLOCK if on_cpu and not shape.mla else GPU_BLOCK
    # attention layers by kind: (window, bytes per token)
    kinds = Counter((layer.window, _per_token(layer, element, parts)) for layer in shape.layers if layer.kv_elements)
    recurrent = sum(layer.conv_state + layer.ssm_state for layer in shape.layers) // parts
    if not kinds:
        return Pool(0, block, (), recurrent * element, 0)
    # on GPUs the next step is prepared meanwhile
    batch = step_tokens(memory) * (1 if on_cpu else 2)
    by_window: Counter[int] = Counter()
    for (window, _size), count in kinds.items():
        by_window[window] += count
    if len(by_window) == 1:
        total = sum(size * count for (_window, size), count in kinds.items())
        return Pool(total * block, block, tuple(by_window), recurrent * element, batch)
    fewest, most = min(by_window.values()), max(by_window.values())
    # kinds of nearly equal number are filled up to the greater one
    members = most if most < fewest * 1.5 else fewest
    groups = tuple(window for window, count in by_window.items() for _ in range(_parts(count, members)))
    # all pages are as large as the largest
    page = max(size for _window, size in kinds)
    return Pool(page * members * block, block, groups, recurrent * element, batch)


def _per_token(layer: Layer, element: int, parts: int) -> int:
    # heads that are fewer than the GPUs are on several of them; a latent (MLA) is on each
    heads = max(1, _parts(layer.kv_heads, parts))
    return (heads * (layer.key_length + layer.value_length) + layer.index) * element


def element_bytes(cache_type: str, dtype: str = "") -> int:
    """Return the bytes of one number in the cache."""
    if cache_type.startswith("fp8"):
        return 1
    # left to itself, vLLM computes a model of 32 bits in 16
    return 4 if dtype in ("float", "float32") else 2


def cpu_cache_bytes(shape: Shape, context: int, parallel: int, dtype: str, cache_type: str = "") -> int:
    """Return the bytes of the cache on a CPU, 0 when the model keeps none that is known here."""
    found = pool(shape, element_bytes(cache_type, dtype))
    several = found.needed(min(context, _CPU_CONTEXT), min(parallel, _CPU_REQUESTS))
    return max(several, found.needed(context)) if found.block_bytes else 0
