"""What config.json says of a model, the cache that vLLM keeps for it, and whether it fits."""

from __future__ import annotations

import typing as t

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory.config_shape import from_config, heads_of, weights_of
from ansible.module_utils.llmfleet.memory.plan import Ask, DeviceRoom, Room, judge
from ansible.module_utils.llmfleet.memory.shape import Shape, shape_from
from ansible.module_utils.llmfleet.memory.vllm_cache import cpu_cache_bytes, element_bytes, pool
from hypothesis import given
from hypothesis import strategies as st

GIB = 1 << 30
LLAMA: dict[str, t.Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
"""Llama 3.1 8B, whose weights are 16,060,522,496 bytes."""
LLAMA_BYTES = 16_060_522_496


def llama(**changes: t.Any) -> Shape:
    return from_config({**LLAMA, **changes}, LLAMA_BYTES)


def windows(shape: Shape) -> list[int]:
    return [layer.window for layer in shape.layers]


def test_a_plain_model():
    shape = llama()
    assert (shape.format, shape.architecture, len(shape.layers)) == ("safetensors", "LlamaForCausalLM", 32)
    assert (shape.context_length, shape.quant, shape.causal, shape.tied) == (131072, "bf16", True, False)
    assert shape.weights == LLAMA_BYTES
    assert shape.input_bytes == shape.output_bytes == 128256 * 4096 * 2
    assert {layer.kv_elements for layer in shape.layers} == {2 * 8 * 128}
    assert shape_from(shape.as_data()) == shape


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_key_value_heads": None}, 2 * 32 * 128),
        ({"head_dim": 64}, 2 * 8 * 64),
        ({"multi_query": True}, 2 * 128),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, 576),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64, "index_head_dim": 128}, 704),
        ({"num_key_value_heads": [8] * 32}, 2 * 8 * 128),
    ],
)
def test_what_a_token_keeps(changes, expected):
    assert llama(**changes).layers[0].kv_elements == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sliding_window": 4096}, [4096] * 32),
        ({"sliding_window": None}, [0] * 32),
        ({"sliding_window": 4096, "use_sliding_window": False}, [0] * 32),
        ({"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28}, [0] * 28 + [4096] * 4),
        ({"sliding_window": 512, "sliding_window_pattern": 6}, ([512] * 5 + [0]) * 5 + [512] * 2),
        ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 16}, [128, 0] * 16),
        ({"sliding_window": 512, "model_type": "gemma2"}, [512, 0] * 16),
    ],
)
def test_which_layers_look_back_over_a_window(changes, expected):
    assert windows(llama(**changes)) == expected


def test_a_model_of_text_and_pictures_has_its_text_part_inside():
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": LLAMA, "vision_config": {"x": 1}}
    shape = from_config(whole, LLAMA_BYTES)
    assert shape.architecture == "Gemma3ForConditionalGeneration"
    assert len(shape.layers) == 32


def test_recurrent_layers_keep_a_state_and_no_tokens():
    shape = llama(
        full_attention_interval=4,
        linear_conv_kernel_dim=4,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
    )
    kept = [bool(layer.kv_elements) for layer in shape.layers]
    assert kept == [False, False, False, True] * 8
    assert shape.layers[0].ssm_state == 32 * 128 * 128
    assert shape.layers[0].conv_state == 3 * (2 * 2048 + 4096)
    assert [bool(layer.kv_elements) for layer in llama(attn_layer_period=8, attn_layer_offset=4).layers[:8]] == [
        number == 4 for number in range(8)
    ]


def test_a_model_for_embeddings_keeps_nothing():
    shape = from_config({**LLAMA, "architectures": ["XLMRobertaModel"]}, LLAMA_BYTES)
    assert not shape.causal
    assert pool(shape, 2).request(512) == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, 131072),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, 262144),
        ({"rope_scaling": {"type": "linear", "factor": "many"}}, 131072),
        ({"rope_parameters": {"rope_type": "default"}}, 131072),
        ({"max_position_embeddings": None, "n_positions": 1024}, 1024),
    ],
)
def test_how_long_a_context_is(changes, expected):
    assert llama(**changes).context_length == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"torch_dtype": "float32"}, "f32"),
        ({"torch_dtype": None, "dtype": "float16"}, "f16"),
    ],
)
def test_what_the_weights_are(changes, expected):
    assert llama(**changes).quant == expected


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "neither num_hidden_layers nor hidden_size"),
        ([], "no JSON object"),
        ({**LLAMA, "num_hidden_layers": 10**6}, "claims 1000000 layers"),
        ({**LLAMA, "num_hidden_layers": True}, "neither"),
        ({**LLAMA, "hidden_size": "4096"}, "neither"),
    ],
)
def test_a_configuration_that_says_too_little_is_refused(config, words):
    with pytest.raises(BadInput, match=words):
        from_config(config)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        *LLAMA,
        *("text_config", "rope_scaling", "layer_types", "sliding_window", "kv_lora_rank", "quantization_config"),
        *("head_dim", "attn_layer_period", "attn_layer_offset", "hybrid_override_pattern", "num_local_experts"),
        *("full_attention_interval", "sliding_window_pattern", "layers_block_type", "max_window_layers", "dtype"),
    ]
)


@given(st.dictionaries(KEYS, JUNK, max_size=6), st.integers(0, 1 << 45))
def test_whatever_a_configuration_holds_it_is_understood_or_refused(changes, weights):
    try:
        shape = from_config({**LLAMA, **changes}, weights)
    except BadInput:
        return
    assert shape.weights == weights
    assert shape_from(shape.as_data()) == shape
    assert pool(shape, 2).needed(1000) >= 0


def test_duplicates_of_the_weights_are_not_counted():
    files = [("model-1.safetensors", 5), ("model-2.safetensors", 6), ("pytorch_model.bin", 11), ("original/x.pth", 11)]
    assert weights_of([*files, ("consolidated.safetensors", 11), ("tokenizer.json", 1)]) == 11
    assert weights_of(files[2:]) == 11
    assert weights_of([]) == 0


# of the log of vLLM 0.32.0 on a CPU, `CPU KV cache size: N tokens`
@pytest.mark.parametrize(
    ("layers", "kv_heads", "head_dim", "memory", "context", "printed"),
    [
        (2, 2, 16, 16_777_216, 512, 32_768),
        (2, 1, 32, 50_331_648, 500, 96_000),
        (4, 2, 32, 50_331_648, 500, 24_000),
    ],
)
def test_the_tokens_of_a_cache_are_those_that_vllm_prints(layers, kv_heads, head_dim, memory, context, printed):
    config = {"num_hidden_layers": layers, "num_key_value_heads": kv_heads, "head_dim": head_dim, "hidden_size": 64}
    shape = from_config({**LLAMA, **config}, 1 << 20)
    assert pool(shape, 4).tokens(memory, context) == printed


@pytest.mark.parametrize(
    ("changes", "printed"),
    [
        (
            {
                "num_hidden_layers": 12,
                "num_key_value_heads": 1,
                "head_dim": 64,
                "sliding_window": 256,
                "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2,
            },
            12_384,
        ),
        ({"num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 32, "sliding_window": 256}, 41_391),
        ({"num_hidden_layers": 3, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 7_280),
    ],
)
def test_the_tokens_of_a_cache_with_windows_or_a_latent_are_those_that_vllm_prints(changes, printed):
    assert pool(llama(**changes), 4).tokens(50_331_648, 4096) == printed


def test_one_block_is_never_used():
    # vLLM 0.32.0 with 48 MiB for 32 blocks: "the estimated maximum model length is 3968"
    shape = llama(num_hidden_layers=6, num_key_value_heads=8, head_dim=32)
    assert pool(shape, 4).longest(50_331_648, 4096) == 3968


def test_windows_save_memory_and_groups_are_filled_up():
    full, mixed = llama(), llama(sliding_window=512, sliding_window_pattern=4)
    assert pool(mixed, 2, memory=24 * GIB).needed(100_000) < 0.4 * pool(full, 2, memory=24 * GIB).needed(100_000)
    # 8 layers in each of 4 groups, of which one sees all
    assert sorted(pool(mixed, 2, memory=24 * GIB).windows) == [0, 512, 512, 512]
    assert pool(mixed, 2, memory=24 * GIB).block_bytes == 8 * 2 * 8 * 128 * 2 * 16


def test_the_cache_is_split_over_gpus_as_far_as_there_are_heads():
    whole = pool(llama(), 2, memory=24 * GIB).needed(1000)
    assert pool(llama(), 2, parts=4, memory=24 * GIB).needed(1000) == whole // 4
    assert pool(llama(), 2, parts=16, memory=24 * GIB).needed(1000) == whole // 8
    latent = llama(kv_lora_rank=512, qk_rope_head_dim=64)
    assert pool(latent, 2, parts=8, memory=24 * GIB).needed(1000) == pool(latent, 2, memory=24 * GIB).needed(1000)


@given(st.integers(1, 64), st.integers(1, 200_000), st.integers(0, 1 << 36))
def test_the_longest_request_is_the_longest(kv_heads, most, memory):
    found = pool(llama(num_key_value_heads=kv_heads), 2, memory=24 * GIB)
    longest = found.longest(memory, most)
    assert 0 <= longest <= most
    assert longest == 0 or found.needed(longest) <= memory
    assert longest == most or found.needed(longest + 1) > memory


def test_bytes_of_a_number():
    assert [element_bytes(*row) for row in [("",), ("fp8",), ("", "float32"), ("", "bfloat16")]] == [2, 1, 4, 2]


def test_a_long_context_on_a_cpu_costs_one_request_of_it():
    shape = llama()
    short, long = cpu_cache_bytes(shape, 4096, 64, ""), cpu_cache_bytes(shape, 32768, 64, "")
    assert 4 * 4096 * 131072 <= short < 4.1 * 4096 * 131072
    assert 32768 * 131072 <= long < 1.1 * 32768 * 131072


def gpus(*gib: float, used: float = 0) -> Room:
    rows = tuple(DeviceRoom(f"GPU {number}", int(size * GIB), int(used * GIB)) for number, size in enumerate(gib))
    return Room(devices=rows, ram_total=64 * GIB)


def test_a_model_that_fits_gets_its_settings():
    verdict = judge(llama(), Ask("vllm"), gpus(20))
    assert verdict.fits, verdict.why
    assert verdict.settings["tensor_parallel"] == 1
    assert verdict.settings["gpu_memory_utilization"] == 0.9
    assert 2048 <= verdict.settings["context_length"] < judge(llama(), Ask("vllm"), gpus(28)).settings["context_length"]
    assert verdict.why.startswith("fits: weights 15.0 GiB")
    assert judge(llama(), Ask("vllm"), gpus(80)).settings["context_length"] == 32768


def test_what_the_user_set_is_checked_and_not_changed():
    ask = Ask("vllm", context_length=8192, gpu_memory_utilization=0.95, tensor_parallel=1)
    verdict = judge(llama(), ask, gpus(24))
    assert (verdict.fits, verdict.settings) == (True, {})
    verdict = judge(llama(), Ask("vllm", context_length=131072), gpus(24))
    assert not verdict.fits
    assert verdict.settings == {}
    assert verdict.short > 0
    assert "context_length" in verdict.change
    smaller = int(verdict.change.split()[1])
    assert judge(llama(), Ask("vllm", context_length=smaller), gpus(24)).fits
    assert not judge(llama(), Ask("vllm", context_length=smaller + 2048), gpus(24)).fits


def test_more_gpus_come_before_a_shorter_context():
    verdict = judge(llama(), Ask("vllm"), gpus(20, 20))
    assert verdict.settings == {"tensor_parallel": 2, "gpu_memory_utilization": 0.9, "context_length": 32768}
    assert set(verdict.needs) == {"GPU 0", "GPU 1"}
    assert judge(llama(), Ask("vllm"), gpus(80, 80)).settings["tensor_parallel"] == 1


def test_a_model_that_is_too_large_says_what_would_help():
    verdict = judge(llama(), Ask("vllm"), gpus(12))
    assert not verdict.fits
    assert "a quantised model" in verdict.change
    assert "does not fit by" in verdict.why
    quantised = from_config({**LLAMA, "quantization_config": {"quant_method": "awq"}}, LLAMA_BYTES // 3)
    assert judge(quantised, Ask("vllm"), gpus(12)).fits


def test_what_other_services_hold_is_left_to_them():
    verdict = judge(llama(), Ask("vllm"), gpus(80, used=40))
    assert verdict.fits
    assert verdict.settings["gpu_memory_utilization"] < 0.5
    verdict = judge(llama(), Ask("vllm", gpu_memory_utilization=0.9), gpus(80, used=40))
    assert not verdict.fits
    assert "gpu_memory_utilization 0.49 or less" in verdict.change
    assert judge(llama(), Ask("vllm", gpu_memory_utilization=0.49), gpus(80, used=40)).fits


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (Ask("vllm", tensor_parallel=4), "has 2 GPUs"),
        (Ask("vllm", context_length=200_000), "131072 tokens"),
    ],
)
def test_what_no_memory_would_make_work_is_refused(ask, words):
    with pytest.raises(BadInput, match=words):
        judge(llama(), ask, gpus(80, 80))


def test_heads_must_be_divisible():
    shape = llama(num_attention_heads=14, num_key_value_heads=2)
    assert heads_of(shape) == 14
    with pytest.raises(BadInput, match="does not divide the model's 14 attention heads"):
        judge(shape, Ask("vllm", tensor_parallel=4), gpus(80, 80, 80, 80))
    verdict = judge(shape, Ask("vllm"), gpus(18, 18, 18, 18))
    assert verdict.settings.get("tensor_parallel", 2) == 2


def test_on_a_cpu_the_weights_are_of_32_bits_unless_said():
    shape = llama()
    verdict = judge(shape, Ask("vllm", parallel=64), Room(ram_total=64 * GIB))
    assert verdict.fits
    assert verdict.needs["ram"].weights == 2 * LLAMA_BYTES
    assert verdict.settings == {"context_length": 32768}
    assert judge(shape, Ask("vllm"), Room(ram_total=40 * GIB)).settings["context_length"] < 32768
    verdict = judge(shape, Ask("vllm"), Room(ram_total=24 * GIB))
    assert not verdict.fits
    assert verdict.change == "dtype bfloat16"
    assert judge(shape, Ask("vllm", dtype="bfloat16"), Room(ram_total=24 * GIB)).fits
    assert not judge(shape, Ask("vllm", dtype="bfloat16", memory=8 * GIB), Room(ram_total=24 * GIB)).fits


@given(st.lists(st.integers(4, 200), min_size=1, max_size=4), st.integers(1, 1 << 17), st.integers(0, 3))
def test_a_verdict_is_consistent(sizes, context, used):
    room = gpus(*sizes, used=used)
    for ask in (Ask("vllm"), Ask("vllm", context_length=context)):
        verdict = judge(llama(), ask, room)
        assert bool(verdict.change) != verdict.fits
        assert (verdict.short == 0) == verdict.fits
        for name, need in verdict.needs.items() if verdict.fits else ():
            assert need.total <= verdict.room[name]
        if verdict.fits:
            again = Ask("vllm", **{"context_length": ask.context_length, **verdict.settings})
            assert judge(llama(), again, room).fits, "what the plan fills in has to fit when it is asked for"
