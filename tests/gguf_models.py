"""Write GGUF models of many architectures that llama-server loads, to measure what memory each takes.

Their tensors have true names, shapes and types but only zeros for values, which no disk stores: the files have holes.
They answer nonsense; what they are for is the buffers that a server allocates for them. Names and shapes are those that
`load_arch_tensors` of llama.cpp's src/models/*.cpp asks for (commit 0c1e57098).
"""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.llmfleet import tiny_gguf

F32, F16 = 0, 1
_BYTES = {F32: 4, F16: 2}
_U32, _FLOAT, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5

Tensors = list[tuple[str, tuple[int, ...]]]


@dataclass
class Model:
    """A model to write."""

    name: str
    architecture: str
    layers: int
    embedding: int
    vocab: int
    keys: dict[str, t.Any]
    """Metadata below the architecture; ints become u32, floats f32, lists arrays of i32 (bool: arrays of bool)."""
    tensors: Tensors = field(default_factory=list)

    def add(self, name: str, *dims: int) -> None:
        """Add a tensor of these dimensions, the row's length first."""
        self.tensors.append((name, dims))


def write(model: Model, path: Path) -> None:
    """Write ``model`` to ``path``; the file has its full size and takes only some hundred kB of the disk."""
    arch = model.architecture
    tokens = tiny_gguf.vocabulary()
    tokens += [(f"<filler{number}>", 1) for number in range(model.vocab - len(tokens))]
    pairs: list[tuple[str, bytes]] = [
        ("general.architecture", _value(arch)),
        # not the name itself: llama.cpp treats the vocabulary of a `phi3` by its name
        ("general.name", _value("stand-in")),
        (f"{arch}.block_count", _value(model.layers)),
        (f"{arch}.embedding_length", _value(model.embedding)),
        (f"{arch}.vocab_size", _value(model.vocab)),
        (f"{arch}.attention.layer_norm_rms_epsilon", _value(1e-5)),
        (f"{arch}.attention.layer_norm_epsilon", _value(1e-5)),
        *((f"{arch}.{key}", _value(value)) for key, value in model.keys.items()),
        ("tokenizer.ggml.model", _value("llama")),
        ("tokenizer.ggml.pre", _value("default")),
        ("tokenizer.ggml.tokens", _many(_STRING, [_text(text) for text, _ in tokens])),
        ("tokenizer.ggml.scores", _many(_FLOAT, [struct.pack("<f", -float(n)) for n in range(len(tokens))])),
        ("tokenizer.ggml.token_type", _many(_I32, [struct.pack("<i", kind) for _, kind in tokens])),
        ("tokenizer.ggml.unknown_token_id", _value(0)),
        ("tokenizer.ggml.bos_token_id", _value(1)),
        ("tokenizer.ggml.eos_token_id", _value(2)),
    ]
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(model.tensors), len(pairs)))
    for key, value in pairs:
        out += _text(key) + value
    offset = 0
    for name, dims in model.tensors:
        kind = _kind(name, dims)
        out += _text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        offset += _padded(_size_of(kind, dims))
    with path.open("wb") as file:
        file.write(out.ljust(_padded(len(out)), b"\0"))
        file.truncate(_padded(len(out)) + offset)


def _size_of(kind: int, dims: t.Iterable[int]) -> int:
    """Return the bytes of a tensor."""
    size = _BYTES[kind]
    for length in dims:
        size *= length
    return size


def _kind(name: str, dims: tuple[int, ...]) -> int:
    # as the converter does it: vectors, convolutions, states and routers stay in full precision
    if len([length for length in dims if length > 1]) < 2 or any(
        word in name for word in ("conv1d", "shortconv.conv", "ssm_a", "ffn_gate_inp", ".bias")
    ):
        return F32
    return F16


def _value(value: t.Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if all(isinstance(item, bool) for item in value):
        return _many(_BOOL, [struct.pack("<?", item) for item in value])
    return _many(_I32, [struct.pack("<i", item) for item in value])


def _many(kind: int, values: list[bytes]) -> bytes:
    return struct.pack("<IIQ", _ARRAY, kind, len(values)) + b"".join(values)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(size: int) -> int:
    return -(-size // 32) * 32


# --- the architectures ------------------------------------------------------------------------------------------------


@dataclass
class _Size:
    layers: int = 4
    embedding: int = 1024
    heads: int = 16
    kv_heads: int = 4
    head: int = 64
    ff: int = 3072
    vocab: int = 16384
    context: int = 32768


def _start(name: str, architecture: str, size: _Size, *, tied: bool = False, **keys: t.Any) -> Model:
    model = Model(name, architecture, size.layers, size.embedding, size.vocab, {})
    model.keys = {
        "context_length": size.context,
        "feed_forward_length": size.ff,
        "attention.head_count": size.heads,
        "attention.head_count_kv": size.kv_heads,
        "attention.key_length": size.head,
        "attention.value_length": size.head,
        "rope.dimension_count": size.head,
        **{key.replace("__", "."): value for key, value in keys.items()},
    }
    model.add("token_embd.weight", size.embedding, size.vocab)
    model.add("output_norm.weight", size.embedding)
    if not tied:
        model.add("output.weight", size.embedding, size.vocab)
    return model


def _attention(model: Model, layer: int, size: _Size, *, bias: bool = False, norms: bool = False) -> None:
    blk = f"blk.{layer}."
    model.add(blk + "attn_norm.weight", size.embedding)
    for which, rows in (("q", size.heads), ("k", size.kv_heads), ("v", size.kv_heads)):
        model.add(f"{blk}attn_{which}.weight", size.embedding, rows * size.head)
        if bias:
            model.add(f"{blk}attn_{which}.bias", rows * size.head)
    model.add(blk + "attn_output.weight", size.heads * size.head, size.embedding)
    if norms:
        model.add(blk + "attn_q_norm.weight", size.head)
        model.add(blk + "attn_k_norm.weight", size.head)


def _ffn(model: Model, layer: int, size: _Size, *, norm: str = "ffn_norm", gate: bool = True) -> None:
    blk = f"blk.{layer}."
    if norm:
        model.add(f"{blk}{norm}.weight", size.embedding)
    if gate:
        model.add(blk + "ffn_gate.weight", size.embedding, size.ff)
    model.add(blk + "ffn_up.weight", size.embedding, size.ff)
    model.add(blk + "ffn_down.weight", size.ff, size.embedding)


def _experts(model: Model, layer: int, size: _Size, count: int, ff: int, *, norm: str = "ffn_norm") -> None:
    blk = f"blk.{layer}."
    if norm:
        model.add(f"{blk}{norm}.weight", size.embedding)
    model.add(blk + "ffn_gate_inp.weight", size.embedding, count)
    model.add(blk + "ffn_gate_exps.weight", size.embedding, ff, count)
    model.add(blk + "ffn_down_exps.weight", ff, size.embedding, count)
    model.add(blk + "ffn_up_exps.weight", size.embedding, ff, count)


def _shared_expert(model: Model, layer: int, size: _Size, ff: int) -> None:
    blk = f"blk.{layer}."
    model.add(blk + "ffn_gate_shexp.weight", size.embedding, ff)
    model.add(blk + "ffn_down_shexp.weight", ff, size.embedding)
    model.add(blk + "ffn_up_shexp.weight", size.embedding, ff)


def _llama(size: _Size | None = None) -> Model:
    size = size or _Size()
    model = _start("llama", "llama", size)
    for layer in range(size.layers):
        _attention(model, layer, size)
        _ffn(model, layer, size)
    return model


def _mixtral() -> Model:
    size = _Size(ff=1024)
    model = _start("mixtral", "llama", size, expert_count=8, expert_used_count=2)
    for layer in range(size.layers):
        _attention(model, layer, size)
        _experts(model, layer, size, 8, size.ff)
    return model


def _qwen2() -> Model:
    size = _Size(embedding=896, heads=14, kv_heads=2, ff=4864)
    model = _start("qwen2", "qwen2", size, tied=True)
    for layer in range(size.layers):
        _attention(model, layer, size, bias=True)
        _ffn(model, layer, size)
    return model


def _qwen3(size: _Size | None = None) -> Model:
    size = size or _Size(kv_heads=8, head=128)
    model = _start("qwen3", "qwen3", size, tied=True)
    for layer in range(size.layers):
        _attention(model, layer, size, norms=True)
        _ffn(model, layer, size)
    return model


def _qwen3moe() -> Model:
    size = _Size(kv_heads=4, head=128)
    model = _start("qwen3moe", "qwen3moe", size, expert_count=16, expert_used_count=8, expert_feed_forward_length=384)
    for layer in range(size.layers):
        _attention(model, layer, size, norms=True)
        _experts(model, layer, size, 16, 384)
    return model


def _gemma2() -> Model:
    size = _Size(heads=8, head=128, ff=4096, context=8192)
    model = _start("gemma2", "gemma2", size, tied=True, attention__sliding_window=1024)
    for layer in range(size.layers):
        _attention(model, layer, size)
        model.add(f"blk.{layer}.post_attention_norm.weight", size.embedding)
        _ffn(model, layer, size)
        model.add(f"blk.{layer}.post_ffw_norm.weight", size.embedding)
    return model


def _gemma3() -> Model:
    size = _Size(layers=6, embedding=1152, heads=4, kv_heads=1, head=256, ff=6912)
    model = _start("gemma3", "gemma3", size, tied=True, attention__sliding_window=512)
    for layer in range(size.layers):
        _attention(model, layer, size, norms=True)
        model.add(f"blk.{layer}.post_attention_norm.weight", size.embedding)
        _ffn(model, layer, size)
        model.add(f"blk.{layer}.post_ffw_norm.weight", size.embedding)
    return model


def _phi3() -> Model:
    size = _Size(kv_heads=16)
    model = _start("phi3", "phi3", size)
    for layer in range(size.layers):
        blk = f"blk.{layer}."
        model.add(blk + "attn_norm.weight", size.embedding)
        model.add(blk + "attn_qkv.weight", size.embedding, (size.heads + 2 * size.kv_heads) * size.head)
        model.add(blk + "attn_output.weight", size.embedding, size.embedding)
        model.add(blk + "ffn_norm.weight", size.embedding)
        model.add(blk + "ffn_up.weight", size.embedding, 2 * size.ff)
        model.add(blk + "ffn_down.weight", size.ff, size.embedding)
    return model


def _starcoder2() -> Model:
    size = _Size(kv_heads=2, ff=4096)
    model = _start("starcoder2", "starcoder2", size, tied=True)
    model.add("output_norm.bias", size.embedding)
    for layer in range(size.layers):
        blk = f"blk.{layer}."
        _attention(model, layer, size, bias=True)
        model.add(blk + "attn_norm.bias", size.embedding)
        model.add(blk + "attn_output.bias", size.embedding)
        _ffn(model, layer, size, gate=False)
        model.add(blk + "ffn_norm.bias", size.embedding)
        model.add(blk + "ffn_up.bias", size.ff)
        model.add(blk + "ffn_down.bias", size.embedding)
    return model


def _deepseek2() -> Model:
    rank, rope, nope, value, q_rank, experts, ff = 512, 64, 128, 128, 768, 16, 512
    size = _Size(heads=16, kv_heads=1, head=rank + rope)
    model = _start(
        "deepseek2",
        "deepseek2",
        size,
        attention__value_length=rank,
        attention__key_length_mla=nope + rope,
        attention__value_length_mla=value,
        attention__kv_lora_rank=rank,
        attention__q_lora_rank=q_rank,
        rope__dimension_count=rope,
        leading_dense_block_count=1,
        expert_count=experts,
        expert_used_count=4,
        expert_shared_count=1,
        expert_feed_forward_length=ff,
    )
    for layer in range(size.layers):
        blk = f"blk.{layer}."
        model.add(blk + "attn_norm.weight", size.embedding)
        model.add(blk + "attn_q_a_norm.weight", q_rank)
        model.add(blk + "attn_kv_a_norm.weight", rank)
        model.add(blk + "attn_q_a.weight", size.embedding, q_rank)
        model.add(blk + "attn_q_b.weight", q_rank, size.heads * (nope + rope))
        model.add(blk + "attn_kv_a_mqa.weight", size.embedding, rank + rope)
        model.add(blk + "attn_k_b.weight", nope, rank, size.heads)
        model.add(blk + "attn_v_b.weight", rank, value, size.heads)
        model.add(blk + "attn_output.weight", size.heads * value, size.embedding)
        if layer == 0:
            _ffn(model, layer, size)
        else:
            _experts(model, layer, size, experts, ff)
            _shared_expert(model, layer, size, ff)
    return model


def _gpt_oss(size: _Size | None = None) -> Model:
    size = size or _Size(kv_heads=8, ff=1024)
    model = _start(
        "gpt-oss",
        "gpt-oss",
        size,
        attention__sliding_window=128,
        expert_count=8,
        expert_used_count=4,
        expert_feed_forward_length=size.ff,
    )
    for layer in range(size.layers):
        blk = f"blk.{layer}."
        _attention(model, layer, size, bias=True)
        model.add(blk + "attn_output.bias", size.embedding)
        model.add(blk + "attn_sinks.weight", size.heads)
        _experts(model, layer, size, 8, size.ff, norm="post_attention_norm")
        model.add(blk + "ffn_gate_inp.bias", 8)
        model.add(blk + "ffn_gate_exps.bias", size.ff, 8)
        model.add(blk + "ffn_down_exps.bias", size.embedding, 8)
        model.add(blk + "ffn_up_exps.bias", size.ff, 8)
    return model


def _mamba_layer(model: Model, layer: int, embedding: int, state: int, rank: int, *, norms: bool) -> None:
    blk, inner = f"blk.{layer}.", 2 * embedding
    model.add(blk + "ssm_in.weight", embedding, 2 * inner)
    model.add(blk + "ssm_conv1d.weight", 4, inner)
    model.add(blk + "ssm_conv1d.bias", inner)
    model.add(blk + "ssm_x.weight", inner, rank + 2 * state)
    model.add(blk + "ssm_dt.weight", rank, inner)
    model.add(blk + "ssm_dt.bias", inner)
    model.add(blk + "ssm_a", state, inner)
    model.add(blk + "ssm_d", inner)
    model.add(blk + "ssm_out.weight", inner, embedding)
    if norms:
        model.add(blk + "ssm_dt_norm.weight", rank)
        model.add(blk + "ssm_b_norm.weight", state)
        model.add(blk + "ssm_c_norm.weight", state)


def _ssm_keys(embedding: int, state: int, rank: int) -> dict[str, int]:
    return {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 2 * embedding,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
    }


def _mamba() -> Model:
    size = _Size(layers=6)
    model = _start("mamba", "mamba", size, tied=True)
    model.keys = {
        "context_length": size.context,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        **_ssm_keys(size.embedding, 16, 64),
    }
    for layer in range(size.layers):
        model.add(f"blk.{layer}.attn_norm.weight", size.embedding)
        _mamba_layer(model, layer, size.embedding, 16, 64, norms=False)
    return model


def _mamba2() -> Model:
    size, inner, state, heads, groups = _Size(layers=6), 2048, 128, 32, 4
    model = _start("mamba2", "mamba2", size, tied=True)
    model.keys = {
        "context_length": size.context,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        **_ssm_keys(size.embedding, state, heads),
        "ssm.group_count": groups,
    }
    conv = inner + 2 * groups * state
    for layer in range(size.layers):
        blk = f"blk.{layer}."
        model.add(blk + "attn_norm.weight", size.embedding)
        model.add(blk + "ssm_in.weight", size.embedding, inner + conv + heads)
        model.add(blk + "ssm_conv1d.weight", 4, conv)
        model.add(blk + "ssm_conv1d.bias", conv)
        model.add(blk + "ssm_dt.bias", heads)
        model.add(blk + "ssm_a", 1, heads)
        model.add(blk + "ssm_d", 1, heads)
        model.add(blk + "ssm_norm.weight", inner // groups, groups)
        model.add(blk + "ssm_out.weight", inner, size.embedding)
    return model


def _jamba() -> Model:
    size = _Size()
    model = _start("jamba", "jamba", size, expert_count=4, expert_used_count=2)
    model.keys.update(_ssm_keys(size.embedding, 16, 64))
    model.keys["attention.head_count_kv"] = [size.kv_heads if layer % 4 == 2 else 0 for layer in range(size.layers)]
    for layer in range(size.layers):
        if layer % 4 == 2:
            _attention(model, layer, size)
        else:
            model.add(f"blk.{layer}.attn_norm.weight", size.embedding)
            _mamba_layer(model, layer, size.embedding, 16, 64, norms=True)
        if layer % 2:
            _experts(model, layer, size, 4, size.ff)
        else:
            _ffn(model, layer, size)
    return model


def _qwen3next() -> Model:
    size = _Size(kv_heads=2, head=128)
    state, k_heads, v_heads, ff = 128, 8, 16, 256
    model = _start(
        "qwen3next",
        "qwen3next",
        size,
        expert_count=16,
        expert_used_count=4,
        expert_feed_forward_length=ff,
        expert_shared_feed_forward_length=ff,
        ssm__conv_kernel=4,
        ssm__inner_size=v_heads * state,
        ssm__state_size=state,
        ssm__time_step_rank=v_heads,
        ssm__group_count=k_heads,
        rope__dimension_count=size.head // 4,
    )
    conv = 2 * k_heads * state + v_heads * state
    for layer in range(size.layers):
        blk = f"blk.{layer}."
        if layer % 4 == 3:
            _attention(model, layer, size, norms=True)
            # queries come with a gate of their size
            model.tensors = [
                (name, (dims[0], 2 * dims[1]) if name == blk + "attn_q.weight" else dims)
                for name, dims in model.tensors
            ]
        else:
            model.add(blk + "attn_norm.weight", size.embedding)
            model.add(blk + "attn_qkv.weight", size.embedding, conv)
            model.add(blk + "attn_gate.weight", size.embedding, v_heads * state)
            model.add(blk + "ssm_conv1d.weight", 4, conv)
            model.add(blk + "ssm_dt.bias", v_heads)
            model.add(blk + "ssm_a", v_heads)
            model.add(blk + "ssm_ba.weight", size.embedding, 2 * v_heads)
            model.add(blk + "ssm_norm.weight", state)
            model.add(blk + "ssm_out.weight", v_heads * state, size.embedding)
        model.add(blk + "post_attention_norm.weight", size.embedding)
        _experts(model, layer, size, 16, ff, norm="")
        model.add(blk + "ffn_gate_inp_shexp.weight", size.embedding)
        _shared_expert(model, layer, size, ff)
    return model


def _lfm2() -> Model:
    size = _Size(layers=6, kv_heads=8)
    model = _start("lfm2", "lfm2", size, tied=True, shortconv__l_cache=3)
    model.tensors = [(name.replace("output_norm", "token_embd_norm"), dims) for name, dims in model.tensors]
    model.keys["attention.head_count_kv"] = [size.kv_heads if layer % 3 == 2 else 0 for layer in range(size.layers)]
    for layer in range(size.layers):
        blk = f"blk.{layer}."
        if layer % 3 == 2:
            _attention(model, layer, size, norms=True)
        else:
            model.add(blk + "attn_norm.weight", size.embedding)
            model.add(blk + "shortconv.conv.weight", 3, size.embedding)
            model.add(blk + "shortconv.in_proj.weight", size.embedding, 3 * size.embedding)
            model.add(blk + "shortconv.out_proj.weight", size.embedding, size.embedding)
        _ffn(model, layer, size)
    return model


MODELS: dict[str, t.Callable[[], Model]] = {
    "llama": _llama,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3moe,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "starcoder2": _starcoder2,
    "deepseek2": _deepseek2,
    "gpt-oss": _gpt_oss,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "jamba": _jamba,
    "qwen3next": _qwen3next,
    "lfm2": _lfm2,
    # other proportions of the same architectures: attention or what the experts give back is widest
    "llama-many-heads": lambda: _llama(_Size(embedding=2048, heads=32, kv_heads=32, ff=2048)),
    "qwen3-wide": lambda: _qwen3(_Size(heads=32, kv_heads=8, head=128, ff=1024)),
    "gpt-oss-narrow": lambda: _gpt_oss(_Size(embedding=2048, kv_heads=8, ff=384)),
}
"""Name -> maker. Sizes are those of a very small model, large enough that no rounding matters."""
