"""The memory that llama-server takes, buffer by buffer. Pure.

Sizes follow llama.cpp at commit 0c1e57098: weights src/llama-model.cpp (`load_tensors`: which layer goes where), caches
src/llama-kv-cache*.cpp and src/llama-memory-recurrent.cpp, outputs and cells `llama_context`. They are exact. The
compute buffer is what ggml's allocator finds for a whole graph; here it is estimated from the widest step of a layer
(`Layer.work`). tests/integration/test_memory_llama.py compares all of them with what a real server says.

Weights in RAM count once. A server that rearranges them for its processor (`CPU_REPACK` in its log) keeps the file
mapped besides, but the system takes those pages back when it needs them.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory.llama_run import CACHE_TYPES, GIB, MIB, Run
from ansible.module_utils.llmfleet.memory.shape import LARGEST, ROWS, Layer, Shape
from ansible.module_utils.llmfleet.memory.terms import RAM, Need

GPU_OVERHEAD = GIB
"""CUDA's context, its memory pools and workspace on each GPU; llama.cpp's own `--fit` leaves as much free
(`fit_params_target`)."""
HOST_OVERHEAD = 256 * MIB
"""The program, its threads' buffers, the vocabulary and the HTTP server."""
_PIPELINE_COPIES = 4
"""Copies of the inputs that several GPUs need to work at the same time (GGML_SCHED_MAX_COPIES)."""
_F16, _F32 = 2, 4


def layer_cache(layer: Layer, shape: Shape, run: Run) -> int:
    """Return the bytes that ``layer`` keeps: keys and values of all requests, and its recurrent state."""
    cells = (run.window_cells(layer.window) if layer.window else run.cells) * run.streams
    keys = _row(layer.kv_heads, layer.key_length, run.key_type, run)
    heads, length = layer.kv_heads, layer.value_length
    if not run.flash_attention and heads * length:
        # values lie transposed then, and rows of different length are padded to the longest
        heads, length = 1, max(one.kv_heads * one.value_length for one in shape.layers)
    values = _row(heads, length, run.value_type, run)
    index = _row(1, layer.index, run.key_type, run)
    state = (layer.conv_state + layer.ssm_state) * _F32 * run.parallel
    return cells * (keys + values + index) + state


def compute(shape: Shape, run: Run, layers: t.Sequence[Layer]) -> int:
    """Return about how many bytes the steps of one device take that holds ``layers``, without the masks."""
    tokens = run.tokens
    embedding = tokens * shape.embedding_length * _F32
    blocks = shape.extra.get(ROWS, 4) * embedding
    width = max((_width(layer, shape, run) for layer in layers), default=0)
    outputs = tokens if run.embeddings else min(tokens, run.parallel)
    logits = outputs * shape.vocab_size * _F32
    states = max((one.state_work * _F32 * run.parallel for one in layers), default=0)
    return max(blocks + width * tokens * _F32 + states, embedding + logits)


def _width(layer: Layer, shape: Shape, run: Run) -> int:
    """Return the elements per token that are alive at the widest step of ``layer``."""
    if run.flash_attention or not layer.kv_heads:
        return layer.work
    # every head's products with all keys
    cells = run.window_cells(layer.window) if layer.window else run.cells
    scores = layer.heads * cells
    if shape.mla:
        return scores + layer.work
    return max(layer.work, scores + layer.heads * (layer.key_length + layer.value_length))


def masks(shape: Shape, run: Run) -> int:
    """Return the bytes of the masks that say which tokens see which."""
    size = _F16 if run.flash_attention else _F32
    lengths = {run.window_cells(one.window) if one.window else run.cells for one in shape.layers if one.kv_heads}
    windows = {bool(one.window) for one in shape.layers if one.kv_heads}
    # two caches have two masks, also where they are of one length
    count = max(len(windows), len(lengths))
    total = sum(lengths) if len(lengths) == count else count * max(lengths, default=0)
    # without a cache every token sees those of its batch
    return (total if shape.causal else run.tokens) * run.tokens * size


def output(shape: Shape, run: Run) -> int:
    """Return the bytes of what the server hands out, always in RAM."""
    rows = run.parallel
    return rows * (shape.vocab_size + (shape.embedding_length if run.embeddings else 0)) * _F32


def checkpoints(shape: Shape, run: Run) -> int:
    """Return the bytes of RAM that the states kept for going back in a conversation may grow to.

    Only layers with a window or a recurrent state need them; the others can go back by themselves.
    """
    one = 0
    for layer in shape.layers:
        one += (layer.conv_state + layer.ssm_state) * _F32
        if layer.window and not run.full_windows:
            row = _row(layer.kv_heads, layer.key_length, run.key_type, run)
            row += _row(layer.kv_heads, layer.value_length, run.value_type, run)
            one += min(layer.window, run.cells) * row
    return one * max(0, run.checkpoints) * run.parallel


def needs(shape: Shape, run: Run, gpu_layers: int, shares: t.Mapping[str, int]) -> dict[str, Need]:
    """Return what each device and RAM must hold.

    ``shares``: name of each GPU -> bytes there, by whose proportion layers are split among them; ``gpu_layers`` counts
    from the last layer, and the output head is one of them.
    """
    layers = shape.layers
    if run.one_gpu:
        shares = dict(list(shares.items())[:1])
    elif any(run.tensor_split):
        given = [*run.tensor_split, *[0] * len(shares)]
        shares = {name: share for name, share in zip(shares, given) if share}
    place = placement(len(layers), gpu_layers, shares)
    # the program opens every GPU, also one that gets no layer
    kept = {name: Need(overhead=GPU_OVERHEAD) for name in shares}
    kept[RAM] = Need(weights=shape.input_bytes + shape.other_bytes, overhead=HOST_OVERHEAD + output(shape, run))
    held: dict[str, list[Layer]] = {}
    sizes: dict[int, int] = {}
    for number, layer in enumerate(layers):
        name = place[number]
        held.setdefault(name, []).append(layer)
        if id(layer) not in sizes:
            sizes[id(layer)] = layer_cache(layer, shape, run)
        aside = layer.experts if number < run.experts_on_cpu and name != RAM else 0
        kept[name] += Need(weights=layer.weights - aside)
        kept[RAM] += Need(weights=aside)
        kept[name if run.cache_on_gpu else RAM] += Need(kv=sizes[id(layer)])
    head = place[len(layers)]
    # the head of a tied model is the embedding; RAM holds it already, a GPU gets a copy
    kept[head] += Need(weights=shape.output_bytes + (shape.input_bytes if shape.tied and head != RAM else 0))

    seen = masks(shape, run)
    if not shares:
        kept[RAM] += Need(compute=seen + compute(shape, run, layers))
        return kept
    in_ram = held.get(RAM, [])
    # inputs are prepared in RAM also when all layers are on GPUs
    inputs = 2 * run.tokens * shape.embedding_length * _F32
    kept[RAM] += Need(compute=seen + (compute(shape, run, in_ram) if in_ram else inputs))
    copies = _PIPELINE_COPIES if len(shares) > 1 and gpu_layers > len(layers) else 1
    # long prompts are computed on the GPU also for layers in RAM, one tensor after the other
    borrowed = shape.extra.get(LARGEST, 0) if in_ram or run.experts_on_cpu else 0
    for name in shares:
        if name in place:
            kept[name] += Need(compute=copies * seen + compute(shape, run, held.get(name, ())) + borrowed)
    return kept


def placement(layers: int, gpu_layers: int, shares: t.Mapping[str, int]) -> list[str]:
    """Return where each layer and, last, the output head lies: the name of a GPU or RAM."""
    total = sum(shares.values())
    on_gpu = min(gpu_layers, layers + 1) if total else 0
    if on_gpu <= 0:
        return [RAM] * (layers + 1)
    first = layers + 1 - on_gpu
    ends = []
    summed = 0
    for name, share in shares.items():
        summed += share
        ends.append((summed / total, name))
    last = ends[-1][1]
    return [
        RAM if number < first else next((name for end, name in ends if (number - first) / on_gpu < end), last)
        for number in range(layers + 1)
    ]


def _row(heads: int, length: int, kind: str, run: Run) -> int:
    """Return the bytes of one row; raises BadInput when it cannot be cut into the blocks of its type.

    With flash attention no block may reach into the next head (llama_init_from_model in llama.cpp).
    """
    block, size = CACHE_TYPES[kind]
    whole, named = (length, "heads") if run.flash_attention else (heads * length, "rows")
    if heads and whole % block:
        raise BadInput(
            f"cache_type {kind} stores keys and values in blocks of {block} numbers, and this model has {named} of "
            f"{whole}; use f16 or bf16"
        )
    return heads * length // block * size
