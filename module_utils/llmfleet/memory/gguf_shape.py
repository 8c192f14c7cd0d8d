"""The shape of a GGUF model, from its header. Pure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import replace

from ansible.module_utils.llmfleet import weight_types
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory import gguf_layers
from ansible.module_utils.llmfleet.memory.shape import GGUF, LARGEST, MAX_LAYERS, ROWS, Layer, Shape

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.gguf import GgufHeader, Tensor

Dims = t.Mapping[str, tuple[int, ...]]
"""Name of a layer's tensor, without the layer -> its dimensions."""

_BLOCK = re.compile(r"blk\.(\d{1,4})\.(.+)")
_OUTPUT = ("output.weight", "output.bias", "output_norm.weight", "output_norm.bias", "token_embd_norm.weight")
_INPUT = ("token_embd.weight", "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight")


def from_gguf(header: GgufHeader) -> Shape:
    """Return the shape of the model with this header (of a split model that of `read_model`, which has all tensors).

    Raises BadInput for a file that holds no language model: no layers, or more than any model has.
    """
    count = header.block_count
    if not 0 < count <= MAX_LAYERS:
        raise BadInput(
            f"the file says it has {count} layers of the architecture {header.architecture[:40]!r}, so it is no "
            f"language model (a vision part, an adapter?)"
        )
    keys = gguf_layers.Keys(header)
    used = gguf_layers.used_layers(keys, count)
    plain = gguf_layers.layers(keys, count)
    blocks: list[list[Tensor]] = [[] for _ in range(count)]
    ends: dict[str, int] = {"input": 0, "output": 0, "other": 0}
    has_output = False
    vocab = keys.number("vocab_size") or header.array_lengths.get("tokenizer.ggml.tokens", 0)
    for tensor in header.tensors:
        found = _BLOCK.fullmatch(tensor.name)
        if found and int(found[1]) < count:
            blocks[int(found[1])].append(tensor)
        elif tensor.name in _INPUT:
            ends["input"] += tensor.bytes
            if tensor.name == _INPUT[0] and len(tensor.dims) > 1:
                vocab = tensor.dims[1]
        elif tensor.name in _OUTPUT:
            ends["output"] += tensor.bytes
            has_output = has_output or tensor.name == _OUTPUT[0]
        else:
            ends["other"] += tensor.bytes
    embedding = keys.number("embedding_length")
    used_experts = keys.number("expert_used_count")
    # input, residual, and what a norm and a projection leave behind; hybrids and MLA arrange it in one less
    rows = 3 if gguf_layers.is_mla(keys) or any(layer.conv_state for layer in plain) else 4
    layers = [_weighed(layer, tensors, keys, rows) for layer, tensors in zip(plain[:used], blocks)]
    kind = weight_types.of_number(header.file_type)
    complete = len(header.tensors) >= header.split_tensor_count
    return Shape(
        format=GGUF,
        architecture=header.architecture,
        layers=tuple(layers),
        context_length=header.context_length,
        embedding_length=embedding,
        vocab_size=vocab,
        input_bytes=ends["input"],
        output_bytes=ends["output"],
        other_bytes=ends["other"],
        # in the first part of a split model the head may only be out of sight
        tied=not has_output and complete and gguf_layers.keeps_cache(keys),
        mla=gguf_layers.is_mla(keys),
        expert_count=keys.number("expert_count"),
        expert_used=used_experts,
        quant=kind.name if kind else "",
        causal=gguf_layers.keeps_cache(keys),
        extra={LARGEST: max((tensor.bytes for tensor in header.tensors), default=0), ROWS: rows},
    )


def _weighed(layer: Layer, tensors: t.Sequence[Tensor], keys: gguf_layers.Keys, rows: int) -> Layer:
    """Return ``layer`` with its weights, and what is alive at its widest step beside ``rows`` embeddings per token."""
    if not tensors:
        # in another part of a split model
        length = keys.number("feed_forward_length")
        experts = keys.number("expert_used_count") * (keys.number("expert_feed_forward_length") or length)
        return replace(layer, ff=length, work=3 * max(length, experts))
    embedding, used_experts = keys.number("embedding_length"), keys.number("expert_used_count")
    dims = {tensor.name.split(".", 2)[2]: tensor.dims for tensor in tensors}
    return replace(
        layer,
        weights=sum(tensor.bytes for tensor in tensors),
        experts=sum(tensor.bytes for tensor in tensors if "_exps." in tensor.name),
        ff=_rows(dims, "ffn_up.weight") or _rows(dims, "ffn_up_exps.weight"),
        work=max(
            _feed_forward(layer, dims, embedding, used_experts, rows),
            _attention(layer, dims, embedding, keys),
            _recurrent(layer, dims, keys),
        ),
        state_work=_copies(layer, dims) * (layer.conv_state + layer.ssm_state),
    )


def _rows(dims: Dims, name: str) -> int:
    found = dims.get(name, ())
    return found[1] if len(found) > 1 else 0


def _feed_forward(layer: Layer, dims: Dims, embedding: int, used_experts: int, rows: int) -> int:
    """Return the elements per token of gate, up and their product, which are alive together."""
    up, gated = _rows(dims, "ffn_up.weight"), "ffn_gate.weight" in dims
    # without a gate of its own the matrix holds both when the way down is half as long
    down = dims.get("ffn_down.weight", (0,))[0]
    dense = (3 if gated else 1) * up - _hole(up, embedding)
    if down and down < up:
        # nothing of the norm is left behind when one projection gives gate and up
        dense = up + down - embedding
    experts = used_experts * (_rows(dims, "ffn_up_exps.weight") or _rows(dims, "ffn_gate_up_exps.weight") // 2)
    # what the experts give back has a row for each of them
    back = used_experts * embedding
    if not experts or back <= 2 * experts:
        return max(dense, 3 * experts)
    if rows == 3:
        return max(dense, 3 * experts + back + embedding)
    # it does not fit into the place of gate and up; they fit into that of the queries and a norm or not
    queries = layer.heads * layer.key_length
    beside = 3 * experts if experts > max(queries, embedding) else 0
    return max(dense, back + queries + beside - embedding)


def _hole(length: int, embedding: int) -> int:
    """Return what is saved when the next result fits into the place that a norm has left."""
    return embedding if length <= embedding else 0


def _attention(layer: Layer, dims: Dims, embedding: int, keys: gguf_layers.Keys) -> int:
    """Return the elements per token of queries, results and what else is alive with them."""
    if not layer.kv_heads:
        return 0
    queries, results = layer.heads * layer.key_length, layer.heads * layer.value_length
    if gguf_layers.is_mla(keys):
        # queries as they come, without their rope part multiplied into the latent's length, and both parts joined
        return (
            2 * layer.heads * keys.number("attention.key_length_mla")
            + queries
            + queries
            - (layer.heads * keys.number("rope.dimension_count"))
        )
    fused = _rows(dims, "attn_qkv.weight")
    if fused:
        return fused + results - _hole(0, embedding)
    return queries + results - _hole(queries, embedding)


def _recurrent(layer: Layer, dims: Dims, keys: gguf_layers.Keys) -> int:
    """Return the elements per token of a recurrent layer's projections, convolution and scan."""
    if not layer.conv_state:
        return 0
    embedding, inner = keys.number("embedding_length"), keys.number("ssm.inner_size")
    conv = _rows(dims, "ssm_conv1d.weight")
    if not conv:
        return 4 * embedding
    if "ssm_x.weight" in dims:
        return 5 * inner
    if "ssm_in.weight" in dims:
        # Mamba 2 keeps its one large projection until the end
        return 3 * conv + inner + embedding
    # a delta net has its keys once more beside the convolution
    return 2 * conv + inner + (conv - inner) // 2


def _copies(layer: Layer, dims: Dims) -> int:
    """Return how many copies of the state of a request are alive while a recurrent layer is computed."""
    if not layer.ssm_state or "ssm_x.weight" in dims:
        return 1
    return 2 if "ssm_in.weight" in dims else 3
