"""The tiny model as a Hugging Face folder, written without torch: what it is converted to says the same sentence.

Weights and vocabulary are those of tiny_gguf; config.json, model.safetensors, tokenizer.model (SentencePiece's protocol
buffer) and tokenizer_config.json are what `save_pretrained` of a Llama model leaves behind.
"""

from __future__ import annotations

import json
import random
import struct
import typing as t
from array import array
from pathlib import Path

from ansible.module_utils.llmfleet import tiny_gguf

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names of tensors in llama.cpp and in transformers."""


ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def write(
    folder: Path, *, layers: int = 2, dim: int = 64, shards: int = 1, head_dim: int = 16, kind: str = "llama"
) -> Path:
    """Write the model into ``folder``; ``dim`` 256 is the smallest that K-quants apply to.

    vLLM computes on a CPU with a ``head_dim`` of 32 and more only. ``kind`` is one of ARCHITECTURES; what Qwen's models
    have besides (biases, norms of heads) changes nothing in what is computed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = tiny_gguf.vocabulary()
    rows = list(tiny_gguf.tensors(len(vocabulary), layers, dim))
    draw = random.Random(1).random
    weights = {_renamed(name): (shape, b"".join(_floats(row) for row in make(draw))) for name, shape, make in rows}
    heads = dim // head_dim
    weights.update(_additions(kind, layers, dim, head_dim))
    config = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "hidden_size": dim,
        "intermediate_size": 2 * dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": head_dim,
        "max_position_embeddings": tiny_gguf.CONTEXT_LENGTH,
        "vocab_size": len(vocabulary),
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 4,
        "unk_token_id": 0,
    }
    tokenizer = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "unk_token": "<unk>",
        "legacy": True,
        "chat_template": tiny_gguf.CHAT_TEMPLATE,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer.model").write_bytes(_sentencepiece(vocabulary))
    names = list(weights)
    if shards == 1:
        (folder / "model.safetensors").write_bytes(_safetensors(weights))
        return folder
    index = {}
    for number in range(shards):
        part = {name: weights[name] for name in names[number::shards]}
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        (folder / file).write_bytes(_safetensors(part))
        index.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def _additions(kind: str, layers: int, dim: int, head_dim: int) -> dict[str, tuple[tuple[int, ...], bytes]]:
    found: dict[str, tuple[tuple[int, ...], bytes]] = {}
    for layer in range(layers):
        place = f"model.layers.{layer}.self_attn"
        for name, length in (("q", dim), ("k", dim // 2), ("v", dim // 2)) if kind == "qwen2" else ():
            found[f"{place}.{name}_proj.bias"] = ((length,), _floats([0.0] * length))
        for name in ("q", "k") if kind == "qwen3" else ():
            found[f"{place}.{name}_norm.weight"] = ((head_dim,), _floats([1.0] * head_dim))
    return found


def _renamed(name: str) -> str:
    *block, kind, suffix = name.split(".")
    return ".".join(["model.layers", block[1], NAMES[kind], suffix] if block else [NAMES[kind], suffix])


def _floats(row: list[float]) -> bytes:
    return array("f", row).tobytes()


def _safetensors(weights: dict[str, tuple[tuple[int, ...], bytes]]) -> bytes:
    header: dict[str, t.Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (shape, data) in weights.items():
        # ggml names the length of a row first
        header[name] = {"dtype": "F32", "shape": list(reversed(shape)), "data_offsets": [start, start + len(data)]}
        start += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, data in weights.values())


def _sentencepiece(vocabulary: list[tuple[str, int]]) -> bytes:
    """Return a ModelProto: its pieces, the kind of model (BPE, with bytes) and a normalizer that adds nothing."""
    pieces = b""
    for place, (text, kind) in enumerate(vocabulary):
        score = struct.pack("<f", -float(place))
        pieces += _field(1, _field(1, text.encode()) + b"\x15" + score + b"\x18" + bytes([kind]))
    trainer = b"\x18\x02" + b"\x98\x02\x01"  # model_type: BPE, byte_fallback: true
    normalizer = _field(1, b"identity") + b"\x18\x01\x20\x00\x28\x01"  # add_dummy_prefix, escape_whitespaces
    return pieces + _field(2, trainer) + _field(3, normalizer)


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])
