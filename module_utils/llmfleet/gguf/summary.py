"""What a GGUF header says about a model, under names that are the same for every architecture.

Keys and what stands for an absent one are those of llama.cpp (src/llama-arch.cpp and src/llama-model.cpp, commit
0c1e57098).
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import weight_types
from ansible.module_utils.llmfleet.gguf.header import GgufHeader

ATTENTION, RECURRENT, HYBRID = "attention", "recurrent", "hybrid"

_STATES = ("ssm.", "wkv.", "kda.", "shortconv.")
"""Beginnings of the keys of layers that keep a state of fixed size instead of keys and values."""


def summary(header: GgufHeader) -> dict[str, t.Any]:
    """Return JSON-able facts about the model. 0, "", [] and False stand for what the header does not say.

    ``heads`` and the like are one number, or a list with one number per layer where layers differ.
    """
    keys = _Keys(header)
    heads = keys.by_layer("attention.head_count")
    kv_heads = keys.by_layer("attention.head_count_kv") or heads
    most_heads = max(heads) if isinstance(heads, list) else heads
    per_head = keys.number("embedding_length") // most_heads if most_heads else 0
    return {
        "architecture": header.architecture,
        "name": header.name,
        "version": header.version,
        "layers": header.block_count,
        "context_length": header.context_length,
        "embedding_length": keys.number("embedding_length"),
        "feed_forward_length": keys.by_layer("feed_forward_length"),
        "vocabulary_size": header.array_lengths.get("tokenizer.ggml.tokens", 0) or keys.number("vocab_size"),
        "heads": heads,
        "kv_heads": kv_heads,
        "key_length": keys.number("attention.key_length") or per_head,
        "value_length": keys.number("attention.value_length") or per_head,
        "sliding_window": keys.number("attention.sliding_window"),
        "sliding_window_pattern": keys.by_layer("attention.sliding_window_pattern"),
        "mla": bool(keys.number("attention.kv_lora_rank")),
        "kv_lora_rank": keys.number("attention.kv_lora_rank"),
        "layer_kind": _layer_kind(keys, kv_heads),
        "experts": {
            "count": keys.number("expert_count"),
            "used": keys.number("expert_used_count"),
            "shared": keys.number("expert_shared_count"),
        },
        "embedding_model": keys.number("pooling_type") > 0 or keys.value("attention.causal") is False,
        "quant": _quant(header),
        "quantisation": quantisation(header),
        "weight_count": header.weight_count,
        "tensor_count": header.tensor_count,
        "tensor_bytes": sum(tensor.bytes for tensor in header.tensors),
        "split_count": header.split_count,
        "needed_size": header.needed_size,
        "chat_template": header.has_chat_template,
        "tokenizer": header.tokenizer,
    }


def quantisation(header: GgufHeader) -> list[dict[str, t.Any]]:
    """Return type, tensors, weights and bytes of every type of tensor, the one with the most bytes first."""
    rows: dict[str, dict[str, t.Any]] = {}
    for tensor in header.tensors:
        row = rows.setdefault(tensor.type_name, {"type": tensor.type_name, "tensors": 0, "weights": 0, "bytes": 0})
        row["tensors"] += 1
        row["weights"] += tensor.weights
        row["bytes"] += tensor.bytes
    return sorted(rows.values(), key=lambda row: (-row["bytes"], row["type"]))


def _quant(header: GgufHeader) -> str:
    """Return the model's type as users call it (Q4_K_M), else the type that most of its bytes have."""
    named = weight_types.of_number(header.file_type)
    if named:
        return named.name
    rows = quantisation(header)
    return rows[0]["type"] if rows else ""


def _layer_kind(keys: _Keys, kv_heads: int | list[int]) -> str:
    """Return what layers keep of the context: keys and values, a state of fixed size, or some this and some that."""
    if not keys.any_of(_STATES):
        return ATTENTION
    # a recurrent model names no heads, or 0 of them
    return HYBRID if any(kv_heads if isinstance(kv_heads, list) else [kv_heads]) else RECURRENT


class _Keys:
    """The values of the architecture's own keys; anything but what is wanted counts as absent."""

    def __init__(self, header: GgufHeader) -> None:
        self._metadata = header.metadata
        self._prefix = f"{header.architecture}."

    def value(self, key: str) -> t.Any:
        return self._metadata.get(self._prefix + key)

    def number(self, key: str) -> int:
        return _count(self.value(key))

    def by_layer(self, key: str) -> int | list[int]:
        """Return one number, or a list where the values of layers differ."""
        value = self.value(key)
        if not isinstance(value, tuple):
            return _count(value)
        numbers = [int(one) if isinstance(one, bool) else _count(one) for one in value]
        return numbers if len(set(numbers)) > 1 else (numbers or [0])[0]

    def any_of(self, starts: tuple[str, ...]) -> bool:
        wanted = tuple(self._prefix + start for start in starts)
        return any(key.startswith(wanted) for key in self._metadata)


def _count(value: t.Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
