"""What llama-server needs on each device; tests/integration/test_memory_llama.py compares it with a real server."""

from __future__ import annotations

import typing as t
from dataclasses import replace
from pathlib import Path

import gguf_models
import pytest
from ansible.module_utils.llmfleet import gguf
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory import llama
from ansible.module_utils.llmfleet.memory.llama_run import Run, run_of
from ansible.module_utils.llmfleet.memory.shape import LARGEST, Layer, Shape, from_gguf
from ansible.module_utils.llmfleet.memory.terms import RAM, Ask
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20
LAYER = Layer(heads=32, kv_heads=8, key_length=128, value_length=128, weights=100 * MIB, work=9000)
SHAPE = Shape(
    "gguf", "llama", (LAYER,) * 10, 32768, 4096, 128_000, input_bytes=300 * MIB, output_bytes=400 * MIB,
    extra={LARGEST: 50 * MIB},
)  # fmt: skip

# MiB that a real server printed for its caches (KV and RS), its graph and its outputs, with a context of 4096 tokens
MEASURED = {
    "llama": (16.00, 30.01, 0.06),
    "qwen3moe": (32.00, 48.01, 0.06),
    "gemma3": (9.00, 54.27, 0.06),
    "phi3": (64.00, 28.01, 0.06),
    "deepseek2": (18.00, 56.01, 0.06),
    "gpt-oss": (19.00, 36.77, 0.06),
    "mamba2": (6.21, 32.13, 0.06),
    "jamba": (4.45, 46.03, 0.06),
    "qwen3next": (7.14, 35.01, 0.06),
    "lfm2": (16.03, 28.02, 0.06),
}


@pytest.mark.parametrize("name", MEASURED)
def test_figures_of_a_real_server(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    gguf_models.write(gguf_models.MODELS[name](), path)
    shape = from_gguf(gguf.read_model([str(path)]))
    run = Run(4096)
    need = llama.needs(shape, run, 0, {})[RAM]
    planned = (need.kv / MIB, need.compute / MIB, llama.output(shape, run) / MIB)
    for ours, real in zip(planned, MEASURED[name]):
        assert ours == pytest.approx(real, rel=0.02, abs=0.01)


# --- how it is run ----------------------------------------------------------------------------------------------------


def run(*args: str, **ask: t.Any) -> Run:
    return run_of(Ask("llama_server", args=args, **ask), 4096, "f16")


def test_arguments_that_change_the_memory_are_honoured() -> None:
    assert run() == Run(4096)
    made = run("-ub", "1024", "--batch-size=4096", "--swa-full", "-kvu", "-nkvo", "--cache-ram", "100", "-ctk", "q8_0")
    assert made == Run(
        4096, ubatch=1024, batch=4096, full_windows=True, unified_cache=True, cache_on_gpu=False,
        prompt_cache=100 * MIB, key_type="q8_0",
    )  # fmt: skip
    assert run("--cache-ram", "-1").prompt_cache > 1 << 49
    assert run("-fa", "off").flash_attention is False
    assert run("-fa", "on").flash_attention is True
    assert run("-ts", "3,1.5").tensor_split == (3_000_000, 1_500_000)
    assert run("-sm", "none").one_gpu
    assert run("--mmproj", "x.gguf", "-md", "y").uncounted == ("--mmproj", "-md")
    assert run(ubatch=64).ubatch == 64


@pytest.mark.parametrize("args", [("-ub",), ("-ub", "x"), ("--cache-ram", "9" * 30), ("-ts", "a,b"), ("-ts", "")])
def test_arguments_that_mean_nothing_are_llama_servers_to_refuse(args: tuple[str, ...]) -> None:
    assert run(*args) == Run(4096)


def test_types_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput, match="none that llama-server knows"):
        run_of(Ask("llama_server"), 4096, "q3_0")
    with pytest.raises(BadInput, match="need flash attention"):
        run_of(Ask("llama_server", args=("-fa", "off")), 4096, "q8_0")
    with pytest.raises(BadInput, match="blocks of 32"):
        llama.layer_cache(replace(LAYER, kv_heads=1, key_length=80), SHAPE, Run(4096, key_type="q8_0"))
    # four heads of 80 make a row of ten blocks, but with flash attention each head has blocks of its own
    odd = replace(LAYER, kv_heads=4, key_length=80, value_length=64)
    with pytest.raises(BadInput, match="blocks of 32 numbers, and this model has heads of 80; use f16 or bf16"):
        llama.layer_cache(odd, SHAPE, Run(4096, key_type="q8_0"))
    slow = Run(4096, key_type="q8_0", flash_attention=False)
    whole = replace(slow, key_type="f16")
    saved = 4096 * (4 * 80 * 2 - 10 * 34)
    assert llama.layer_cache(odd, SHAPE, slow) == llama.layer_cache(odd, SHAPE, whole) - saved


def test_cells_are_padded_for_each_request() -> None:
    assert (Run(1000).cells, Run(1000).streams) == (1024, 1)
    assert (Run(1000, 3).cells, Run(1000, 3).streams) == (1024, 3)
    shared = Run(1000, 3, unified_cache=True)
    assert (shared.cells, shared.streams) == (3072, 1)
    assert Run(8192).window_cells(512) == 1024
    assert Run(8192, full_windows=True).window_cells(512) == 8192
    assert Run(512).window_cells(4096) == 512
    assert Run(100, 3).tokens == 513


# --- what it needs ----------------------------------------------------------------------------------------------------


def test_a_cache_of_known_size() -> None:
    # 8 heads of 128 for keys and for values, 2 bytes each
    assert llama.layer_cache(LAYER, SHAPE, Run(4096)) == 4096 * 8 * 256 * 2
    assert llama.layer_cache(LAYER, SHAPE, Run(4096, key_type="q8_0", value_type="q8_0")) == 4096 * 8 * 256 * 34 // 32
    assert llama.layer_cache(LAYER, SHAPE, Run(4096, 4)) == 4 * 4096 * 8 * 256 * 2


def test_everything_on_one_gpu() -> None:
    needs = llama.needs(SHAPE, Run(4096), 999, {"GPU 0": 1})
    assert needs["GPU 0"].weights == 1000 * MIB + 400 * MIB
    assert needs["GPU 0"].kv == 10 * llama.layer_cache(LAYER, SHAPE, Run(4096))
    # the embedding is looked up in RAM
    assert (needs[RAM].weights, needs[RAM].kv) == (300 * MIB, 0)


def test_a_head_that_is_the_embedding_has_a_copy_on_the_gpu() -> None:
    tied = replace(SHAPE, tied=True, output_bytes=0)
    needs = llama.needs(tied, Run(4096), 999, {"GPU 0": 1})
    assert (needs["GPU 0"].weights, needs[RAM].weights) == (1300 * MIB, 300 * MIB)
    assert llama.needs(tied, Run(4096), 0, {})[RAM].weights == 1300 * MIB


def test_the_first_layers_stay_in_ram_and_lend_their_weights_for_long_prompts() -> None:
    assert llama.placement(10, 4, {"GPU 0": 1}) == [RAM] * 7 + ["GPU 0"] * 4
    some, all_ = (llama.needs(SHAPE, Run(4096), count, {"GPU 0": 1}) for count in (4, 11))
    assert (some["GPU 0"].weights, some[RAM].weights) == (700 * MIB, 1000 * MIB)
    assert some[RAM].kv == 7 * llama.layer_cache(LAYER, SHAPE, Run(4096))
    assert some["GPU 0"].compute == all_["GPU 0"].compute + 50 * MIB


def test_layers_are_split_by_what_the_gpus_have() -> None:
    shares = {"GPU 0": 30, "GPU 1": 10}
    assert llama.placement(11, 99, shares) == ["GPU 0"] * 9 + ["GPU 1"] * 3
    needs = llama.needs(SHAPE, Run(4096), 99, shares)
    assert [needs[name].weights for name in shares] == [900 * MIB, 500 * MIB]
    assert llama.needs(SHAPE, run("-ts", "0,1"), 99, shares)["GPU 1"].weights == 1400 * MIB
    assert llama.needs(SHAPE, run("-sm", "none"), 99, shares)["GPU 0"].weights == 1400 * MIB


def test_experts_and_cache_may_stay_in_ram() -> None:
    sparse = replace(SHAPE, layers=(replace(LAYER, experts=90 * MIB),) * 10)
    needs = llama.needs(sparse, run("--n-cpu-moe", "3", "-nkvo"), 99, {"GPU 0": 1})
    assert needs["GPU 0"].weights == 1400 * MIB - 270 * MIB
    assert (needs[RAM].weights, needs["GPU 0"].kv) == (570 * MIB, 0)
    assert needs[RAM].kv > 0


def test_without_flash_attention_the_products_of_all_heads_are_kept() -> None:
    with_, without = (
        llama.compute(SHAPE, Run(8192), (LAYER,)),
        llama.compute(SHAPE, Run(8192, flash_attention=False), (LAYER,)),
    )
    assert without - with_ >= 32 * 8192 * 512 * 4 - 9000 * 512 * 4


@given(
    st.integers(1, 12), st.integers(0, 14), st.lists(st.integers(1, 100), max_size=4), st.booleans(), st.integers(1, 9)
)
def test_nothing_is_lost_wherever_it_lies(
    count: int, gpu_layers: int, shares: list[int], tied: bool, parallel: int
) -> None:
    shape = replace(SHAPE, layers=(LAYER,) * count, tied=tied, output_bytes=0 if tied else 400 * MIB)
    named = {f"GPU {number}": share for number, share in enumerate(shares)}
    found = llama.needs(shape, Run(2048, parallel), gpu_layers, named)
    copies = shape.input_bytes if tied and gpu_layers and shares else 0
    assert sum(need.weights for need in found.values()) == shape.weights + copies
    assert sum(need.kv for need in found.values()) == count * llama.layer_cache(LAYER, shape, Run(2048, parallel))
    place = llama.placement(count, gpu_layers, named)
    assert len(place) == count + 1
    assert sum(name != RAM for name in place) == (min(gpu_layers, count + 1) if shares else 0)
