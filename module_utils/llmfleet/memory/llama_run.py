"""How llama-server is run, as far as its memory is concerned: by what a service and its free arguments say. Pure.

Flags and defaults are those of llama.cpp's common/arg.cpp and common/common.h at commit 0c1e57098.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, replace

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory.terms import Ask

GIB, MIB = 1 << 30, 1 << 20

CACHE_TYPES = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18), "q4_1": (32, 20),
    "iq4_nl": (32, 18), "q5_0": (32, 22), "q5_1": (32, 24),
}  # fmt: skip
"""Elements per block and bytes per block of the types that keys and values may have."""

DEFAULT_CACHE_TYPE = "f16"
DEFAULT_BATCH, DEFAULT_UBATCH = 2048, 512
PROMPT_CACHE = 8192 * MIB
"""`--cache-ram`: prompts that the server keeps in RAM, at most; it fills up with use."""
CHECKPOINTS = 32
"""`--ctx-checkpoints`: states of layers with a window or a recurrent state that are kept per request, at most."""


@dataclass(frozen=True)
class Run:
    """How the server is run, with nothing left open. Lengths in tokens."""

    context: int
    """Of one request."""
    parallel: int = 1
    key_type: str = DEFAULT_CACHE_TYPE
    value_type: str = DEFAULT_CACHE_TYPE
    batch: int = DEFAULT_BATCH
    ubatch: int = DEFAULT_UBATCH
    flash_attention: bool = True
    unified_cache: bool = False
    """Whether the requests share one cache (`--kv-unified`)."""
    full_windows: bool = False
    """Whether layers with a window keep the whole context all the same (`--swa-full`)."""
    cache_on_gpu: bool = True
    experts_on_cpu: int = 0
    """How many layers, from the first, leave their experts in RAM (`--n-cpu-moe`)."""
    prompt_cache: int = PROMPT_CACHE
    """Bytes; the limit of what the server keeps of earlier prompts."""
    checkpoints: int = CHECKPOINTS
    embeddings: bool = False
    tensor_split: tuple[int, ...] = ()
    """By what proportion layers are split among the GPUs (`--tensor-split`), () by their memory."""
    one_gpu: bool = False
    """Whether only the first GPU is used (`--split-mode none`)."""
    uncounted: tuple[str, ...] = ()
    """Free arguments that take memory which cannot be foreseen."""

    @property
    def cells(self) -> int:
        """Tokens that one stream of the cache holds."""
        total = padded(self.context * self.parallel)
        return total if self.unified_cache else padded(total // self.parallel)

    @property
    def streams(self) -> int:
        """How many caches of that size there are."""
        return 1 if self.unified_cache else self.parallel

    @property
    def tokens(self) -> int:
        """Tokens that are computed at once."""
        total = self.cells * self.streams
        tokens = min(total, self.batch, self.ubatch)
        return -(-tokens // self.parallel) * self.parallel

    def window_cells(self, window: int) -> int:
        """Return the tokens that one stream of a cache with this window holds."""
        if self.full_windows:
            return self.cells
        ubatch = min(self.cells * self.streams, self.batch, self.ubatch)
        return padded(min(self.cells, window * (self.parallel if self.unified_cache else 1) + ubatch))


_VALUED = {
    "-b": "batch", "--batch-size": "batch", "-ub": "ubatch", "--ubatch-size": "ubatch",
    "-ctk": "key_type", "--cache-type-k": "key_type", "-ctv": "value_type", "--cache-type-v": "value_type",
    "-ncmoe": "experts_on_cpu", "--n-cpu-moe": "experts_on_cpu", "-cram": "prompt_cache", "--cache-ram": "prompt_cache",
    "-fa": "flash_attention", "--flash-attn": "flash_attention",
    "-ctxcp": "checkpoints", "--ctx-checkpoints": "checkpoints", "--swa-checkpoints": "checkpoints",
    "-ts": "tensor_split", "--tensor-split": "tensor_split", "-sm": "one_gpu", "--split-mode": "one_gpu",
}  # fmt: skip
_SWITCHES: dict[str, tuple[str, t.Any]] = {
    "-kvu": ("unified_cache", True),
    "--kv-unified": ("unified_cache", True),
    "--swa-full": ("full_windows", True),
    "-nkvo": ("cache_on_gpu", False),
    "--no-kv-offload": ("cache_on_gpu", False),
    "-cmoe": ("experts_on_cpu", 1 << 20),
    "--cpu-moe": ("experts_on_cpu", 1 << 20),
    "--embedding": ("embeddings", True),
    "--embeddings": ("embeddings", True),
    "--rerank": ("embeddings", True),
    "--reranking": ("embeddings", True),
}
_UNCOUNTED = (
    "-mm", "--mmproj", "--mmproj-url", "-mmu", "-md", "--model-draft", "--spec-draft-model", "--lora", "--lora-scaled",
    "--control-vector", "-ot", "--override-tensor", "-dev", "--device",
)  # fmt: skip
_OFF = ("off", "0", "disabled", "false")


def run_of(ask: Ask, context: int, cache_type: str) -> Run:
    """Return how the server is run when it is asked so, with this context and type of keys and values.

    Free arguments that change what memory is needed are honoured; others are passed over. Raises BadInput for types of
    keys and values that llama-server does not know or cannot use so.
    """
    found: dict[str, t.Any] = {}
    args = list(ask.args)
    for position, arg in enumerate(args):
        name, _, value = arg.partition("=")
        value = value or (args[position + 1] if position + 1 < len(args) else "")
        if name in _SWITCHES:
            found.update([_SWITCHES[name]])
        elif name in _UNCOUNTED:
            found["uncounted"] = (*found.get("uncounted", ()), name)
        elif name in _VALUED:
            read = _read(_VALUED[name], value)
            found.update({} if read is None else {_VALUED[name]: read})
    if ask.batch:
        found["batch"] = ask.batch
    if ask.ubatch:
        found["ubatch"] = ask.ubatch
    if found.get("embeddings") and "ubatch" not in found:
        # a text is one piece
        found.update(ubatch=context, batch=found.get("batch", context))
    run = Run(context=context, parallel=max(1, ask.parallel), key_type=cache_type, value_type=cache_type)
    run = replace(run, **found)
    for kind in (run.key_type, run.value_type):
        if kind not in CACHE_TYPES:
            raise BadInput(f"cache_type {kind!r} is none that llama-server knows: {', '.join(CACHE_TYPES)}")
    if not run.flash_attention and CACHE_TYPES[run.value_type][0] > 1:
        raise BadInput(
            f"values of the type {run.value_type} need flash attention, which `flash_attention: false` turns off; "
            f"leave that out, or use cache_type f16"
        )
    return replace(run, batch=max(1, run.batch), ubatch=max(1, run.ubatch))


def _read(field: str, value: str) -> t.Any:
    """Return what ``value`` of a flag means for ``field`` of Run; None when it means nothing."""
    if field in ("key_type", "value_type"):
        return value
    if field == "flash_attention":
        return value not in _OFF
    if field == "one_gpu":
        return value == "none"
    if field == "tensor_split":
        # proportions such as 3,1 or 0.6,0.4
        parts = re.split(r"[,/]+", value)
        if not all(re.fullmatch(r"\d{1,9}(\.\d{1,6})?", part) for part in parts):
            return None
        return tuple(int(float(part) * 1_000_000) for part in parts)
    if not re.fullmatch(r"-?\d{1,9}", value):
        return None
    if field == "prompt_cache":
        # without a limit it takes what it gets
        return int(value) * MIB if int(value) >= 0 else 1 << 50
    return int(value)


def padded(tokens: int) -> int:
    """Return the cells that a cache for ``tokens`` has."""
    return -(-tokens // 256) * 256
