"""The shape of a model in Hugging Face format, from its config.json and the size of its weights. Pure.

Names of keys are those that configurations of well-known models have (transformers' `*Config` classes); families that
spell them otherwise are in the tables below. A model made of parts (text, vision) has its text part in `text_config`.
"""

from __future__ import annotations

import math
import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory.shape import MAX_LAYERS, SAFETENSORS, Layer, Shape

Config = t.Mapping[str, t.Any]

_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_FEED_FORWARD = ("intermediate_size", "ffn_hidden_size", "n_inner", "d_ff")
_CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "model_max_length",
)
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_EXPERTS_USED = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")
_BIGGEST = 1 << 40
"""More than any count in a configuration; one that claims more is not believed."""

BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}
"""Bytes of one number, by the names that PyTorch has for its types."""
_SHORT = {"float32": "f32", "float": "f32", "float16": "f16", "half": "f16", "bfloat16": "bf16"}

_WINDOWED = ("sliding_attention", "chunked_attention")
_RECURRENT = ("linear_attention", "mamba", "recurrent", "mamba2", "conv", "ssm")
_NO_CACHE = ("BertModel", "BertFor", "RobertaModel", "RobertaFor", "NewModel", "ModernBert", "NomicBert", "GteModel")
"""Beginnings or parts of architectures that read both ways and keep no cache."""


def from_config(config: Config, weights: int = 0) -> Shape:
    """Return the Shape of the model with this config.json and ``weights`` bytes of weight files (0: not known).

    Raises BadInput with a sentence for a configuration that cannot be understood.
    """
    text = _text_part(config)
    layers, hidden = _count(text, _LAYERS), _count(text, _HIDDEN)
    if not layers or not hidden:
        raise BadInput("config.json says neither num_hidden_layers nor hidden_size, so its memory cannot be planned")
    if layers > MAX_LAYERS:
        raise BadInput(f"config.json claims {layers} layers; it is damaged")
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type", "")
    architecture = str(named)[:100]
    causal = not any(part in architecture for part in _NO_CACHE)
    size = BYTES.get(_dtype(config, text), 2)
    vocabulary = _count(text, ("vocab_size",)) or _count(config, ("vocab_size",))
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))
    table = min(vocabulary * hidden * size, weights // 2)
    head = 0 if tied or not causal else table
    each, other = divmod(max(0, weights - table - head), layers)
    bare = Layer(heads=_count(text, _HEADS), weights=each, ff=_count(text, _FEED_FORWARD))
    kinds = _kinds(text, layers)
    return Shape(
        format=SAFETENSORS,
        architecture=architecture,
        layers=tuple(_layer(text, bare, kinds[number], number, causal) for number in range(layers)),
        context_length=_context(text),
        embedding_length=hidden,
        vocab_size=vocabulary,
        input_bytes=table,
        output_bytes=head,
        other_bytes=other,
        tied=tied,
        mla=_is_mla(text),
        expert_count=_count(text, _EXPERTS),
        expert_used=_count(text, _EXPERTS_USED),
        quant=_quant(config, text),
        causal=causal,
        extra={"dtype_bytes": size},
    )


def _text_part(config: Config) -> Config:
    if not isinstance(config, t.Mapping):
        raise BadInput("config.json is no JSON object; fetch the model again")
    for name in _TEXT_PARTS:
        part = config.get(name)
        if isinstance(part, t.Mapping) and (_count(part, _LAYERS) or name == "thinker_config"):
            return _text_part(part)
    return config


def _count(config: Config, names: t.Sequence[str]) -> int:
    """Return the first of the keys ``names`` that is a count, 0 when none is."""
    for name in names:
        value = config.get(name)
        if type(value) is int and 0 < value < _BIGGEST:
            return value
    return 0


def _dtype(config: Config, text: Config) -> str:
    for part in (text, config):
        for name in ("dtype", "torch_dtype"):
            if isinstance(part.get(name), str):
                return str(part[name]).rpartition(".")[2]
    return "bfloat16"


def _quant(config: Config, text: Config) -> str:
    for part in (config, text):
        method = part.get("quantization_config")
        if isinstance(method, t.Mapping) and isinstance(method.get("quant_method"), str):
            return str(method["quant_method"])[:40]
    dtype = _dtype(config, text)
    return _SHORT.get(dtype, dtype[:40])


def _is_mla(text: Config) -> bool:
    return _count(text, ("kv_lora_rank",)) > 0


def _context(text: Config) -> int:
    """Return the tokens vLLM derives as the longest context (config/model.py, _get_and_verify_max_len)."""
    context = _count(text, _CONTEXT)
    rope = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(rope, t.Mapping):
        return context
    kind = rope.get("rope_type", rope.get("type", ""))
    factor = rope.get("factor", 1)
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 1 <= factor < 1 << 16:
        return context
    if kind == "yarn":
        return int((_count(rope, ("original_max_position_embeddings",)) or context) * factor)
    return int(context * factor) if kind in ("linear", "dynamic", "ntk") else context


def _kinds(text: Config, layers: int) -> list[str]:
    """Return for each layer `full`, `window` or `recurrent`."""
    for named in (text.get("layer_types"), text.get("layers_block_type")):
        if isinstance(named, list) and len(named) >= layers:
            return [_kind(str(name)) for name in named[:layers]]
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str) and len(pattern) >= layers:
        return [{"M": "recurrent", "*": "full"}.get(mark, "none") for mark in pattern[:layers]]
    every = _count(text, ("full_attention_interval",))
    if every:
        return ["full" if (number + 1) % every == 0 else "recurrent" for number in range(layers)]
    every = _count(text, ("attn_layer_period",))
    if every:
        first = text.get("attn_layer_offset")
        offset = first if type(first) is int else 0
        return ["full" if number % every == offset % every else "recurrent" for number in range(layers)]
    if text.get("model_type") in ("mamba", "mamba2", "falcon_mamba"):
        return ["recurrent"] * layers
    return _windows(text, layers)


def _kind(name: str) -> str:
    if name in _WINDOWED:
        return "window"
    return "recurrent" if name in _RECURRENT else "full"


def _windows(text: Config, layers: int) -> list[str]:
    """Return the kinds of a model that says by numbers which of its layers look back over a window only."""
    if not _count(text, ("sliding_window",)) or text.get("use_sliding_window") is False:
        return ["full"] * layers
    every = _count(text, ("sliding_window_pattern", "_sliding_window_pattern"))
    if not every:
        every = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}.get(str(text.get("model_type", "")), 0)
    if every:
        return ["full" if (number + 1) % every == 0 else "window" for number in range(layers)]
    # of Qwen's models those from this layer on
    first = _count(text, ("max_window_layers",)) if "use_sliding_window" in text else 0
    return ["full" if number < first else "window" for number in range(layers)]


def _layer(text: Config, bare: Layer, kind: str, number: int, causal: bool) -> Layer:
    values: dict[str, t.Any] = {"heads": bare.heads, "weights": bare.weights, "ff": bare.ff}
    if kind == "recurrent":
        return Layer(**values, **_states(text))
    if kind == "none" or not causal:
        return Layer(**values)
    if kind == "window":
        values["window"] = _count(text, ("sliding_window", "attention_chunk_size"))
    if _is_mla(text):
        length = _count(text, ("kv_lora_rank",)) + _count(text, ("qk_rope_head_dim",))
        return Layer(**values, kv_heads=1, key_length=length, index=_count(text, ("index_head_dim",)))
    heads = bare.heads
    length = _count(text, ("head_dim", "kv_channels")) or (_count(text, _HIDDEN) // heads if heads else 0)
    return Layer(
        **values,
        kv_heads=_kv_heads(text, heads, number),
        key_length=length,
        value_length=_count(text, ("v_head_dim",)) or length,
    )


def _kv_heads(text: Config, heads: int, number: int) -> int:
    per_layer = text.get("num_key_value_heads")
    if isinstance(per_layer, list):
        value = per_layer[number] if number < len(per_layer) else 0
        return value if type(value) is int and 0 <= value < 1 << 20 else 0
    if text.get("multi_query") is True and not text.get("new_decoder_architecture"):
        return 1
    return _count(text, _KV_HEADS) or heads


def _states(text: Config) -> dict[str, int]:
    """Return the elements a recurrent layer keeps per request (as vLLM's layers/mamba/mamba_utils.py has it)."""
    kernel = _count(text, ("linear_conv_kernel_dim",))
    if kernel:  # gated delta net: Qwen3-Next and the like
        keys = _count(text, ("linear_key_head_dim",)) * _count(text, ("linear_num_key_heads",))
        heads, length = _count(text, ("linear_num_value_heads",)), _count(text, ("linear_value_head_dim",))
        return {
            "conv_state": (2 * keys + heads * length) * (kernel - 1),
            "ssm_state": heads * length * _count(text, ("linear_key_head_dim",)),
        }
    inner = _count(text, ("mamba_d_ssm", "mamba_intermediate_size")) or (
        _count(text, _HIDDEN) * (_count(text, ("mamba_expand", "expand")) or 2)
    )
    state = _count(text, ("mamba_d_state", "ssm_state_size", "state_size"))
    kernel = _count(text, ("mamba_d_conv", "conv_kernel", "d_conv")) or 4
    # Mamba 2 has groups, whose B and C pass through the convolution too
    groups = _count(text, ("mamba_n_groups", "n_groups"))
    return {"conv_state": (inner + 2 * groups * state) * (kernel - 1), "ssm_state": inner * state}


def weights_of(files: t.Iterable[tuple[str, int]]) -> int:
    """Return the bytes of the weights among (path, size) of a model's files, duplicates in other formats left out."""
    sizes: dict[str, int] = {}
    for path, size in files:
        for suffix in (".safetensors", ".bin", ".pth"):
            if path.endswith(suffix) and "/" not in path and not path.startswith("consolidated"):
                sizes[suffix] = sizes.get(suffix, 0) + size
    return next((sizes[suffix] for suffix in (".safetensors", ".bin", ".pth") if suffix in sizes), 0)


def heads_of(shape: Shape) -> int:
    """Return what tensor parallelism has to divide: the greatest common divisor of the layers' attention heads."""
    return math.gcd(*(layer.heads for layer in shape.layers if layer.heads), 0)
