"""The shape of a model: from headers of GGUF files, through JSON, and for other quantisations."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import typing as t
from pathlib import Path

import gguf_models
import pytest
from ansible.module_utils.llmfleet import gguf
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory.plan import judge
from ansible.module_utils.llmfleet.memory.shape import LARGEST, Layer, Shape, from_gguf, shape_from
from ansible.module_utils.llmfleet.memory.terms import Ask, DeviceRoom, Room
from hypothesis import given
from hypothesis import strategies as st


def header(architecture: str, blocks: int, **keys: t.Any) -> gguf.GgufHeader:
    """Return the header of a model without tensors; `attention__head_count` stands for `attention.head_count`."""
    metadata = {f"{architecture}.{key.replace('__', '.')}": value for key, value in keys.items()}
    return gguf.GgufHeader(3, 0, architecture, "", 4096, blocks, 0, 1, 0, 0, metadata=metadata)


def layers(architecture: str, blocks: int, **keys: t.Any) -> tuple[Layer, ...]:
    usual = {"embedding_length": 1024, "attention__head_count": 16, "attention__head_count_kv": 4}
    return from_gguf(header(architecture, blocks, **{**usual, **keys})).layers


@pytest.mark.parametrize("name", gguf_models.MODELS)
def test_every_byte_of_a_model_is_counted_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    model = gguf_models.MODELS[name]()
    gguf_models.write(model, path)
    shape = from_gguf(gguf.read_model([str(path)]))
    assert len(shape.layers) == model.layers
    assert shape.vocab_size == model.vocab
    assert shape.weights == sum(tensor.bytes for tensor in gguf.read_model([str(path)]).tensors)
    assert shape.tied == (not any(name == "output.weight" for name, _ in model.tensors))
    assert all(layer.work for layer in shape.layers)
    assert shape_from(json.loads(json.dumps(shape.as_data()))) == shape


def test_layers_that_are_alike_are_told_once() -> None:
    shape = from_gguf(header("llama", 80, embedding_length=8192, attention__head_count=64))
    assert [row["count"] for row in shape.as_data()["layers"]] == [80]


def test_keys_and_values_have_the_length_of_a_head_where_nothing_is_said() -> None:
    (layer,) = layers("llama", 1)
    assert (layer.kv_heads, layer.key_length, layer.value_length) == (4, 64, 64)
    # and every head its own keys
    assert from_gguf(header("llama", 1, embedding_length=64, attention__head_count=2)).layers[0].kv_heads == 2


@pytest.mark.parametrize(
    ("architecture", "keys", "windows"),
    [
        ("llama", {"attention__sliding_window": 4096}, "0 0 0 0 0 0"),
        ("gemma3", {"attention__sliding_window": 512}, "512 512 512 512 512 0"),
        ("gemma3", {}, "0 0 0 0 0 0"),
        ("gemma2", {}, "4096 0 4096 0 4096 0"),
        ("gpt-oss", {"attention__sliding_window": 128}, "128 0 128 0 128 0"),
        ("llama4", {}, "8192 8192 8192 0 8192 8192"),
        ("llama4", {"attention__sliding_window": 0}, "0 0 0 0 0 0"),
        ("cohere2moe", {"attention__sliding_window": 99}, "0 99 99 99 0 99"),
        (
            "gemma4",
            {"attention__sliding_window": 9, "attention__sliding_window_pattern": (True, True, False) * 2},
            "9 9 0 9 9 0",
        ),
        ("gemma3", {"attention__sliding_window": 9, "attention__sliding_window_pattern": 3}, "9 9 0 9 9 0"),
        ("exaone4", {"attention__sliding_window": 9}, "0 0 0 0 0 0"),
        ("a-new-one", {"attention__sliding_window": 9}, "0 0 0 0 0 0"),
    ],
)
def test_windows(architecture: str, keys: dict[str, t.Any], windows: str) -> None:
    assert [layer.window for layer in layers(architecture, 6, **keys)] == [int(word) for word in windows.split()]


def test_layers_with_a_window_may_have_heads_of_another_length() -> None:
    keys = {"attention__key_length": 512, "attention__key_length_swa": 256, "attention__sliding_window": 9}
    made = layers("gemma3", 6, **keys)
    assert [layer.key_length for layer in made] == [256] * 5 + [512]


def test_layers_that_reuse_the_cache_of_others_keep_nothing() -> None:
    made = layers("gemma3n", 30, attention__sliding_window=512)
    assert [bool(layer.kv_elements) for layer in made] == [True] * 20 + [False] * 10
    made = layers("gemma4", 6, attention__shared_kv_layers=2)
    assert [bool(layer.kv_elements) for layer in made] == [True] * 4 + [False] * 2


SSM = {"ssm__conv_kernel": 4, "ssm__inner_size": 2048, "ssm__state_size": 16, "ssm__group_count": 0}


@pytest.mark.parametrize(
    ("architecture", "keys", "recurrent"),
    [
        ("mamba", SSM, "1 1 1 1"),
        ("qwen3next", SSM, "1 1 1 0"),
        ("qwen35", {**SSM, "full_attention_interval": 2}, "1 0 1 0"),
        ("qwen35", {**SSM, "attention__recurrent_layers": (True, False, False, True)}, "1 0 0 1"),
        ("jamba", {**SSM, "attention__head_count_kv": (0, 0, 4, 0)}, "1 1 0 1"),
        (
            "nemotron_h",
            {**SSM, "attention__head_count_kv": (0, 4, 0, 0), "feed_forward_length": (0, 0, 9, 0)},
            "1 0 0 1",
        ),
        ("lfm2", {"shortconv__l_cache": 3, "attention__head_count_kv": (0, 0, 4, 0)}, "1 1 0 1"),
        ("llama", SSM, "0 0 0 0"),
    ],
)
def test_recurrent_layers_keep_a_state_instead_of_keys(
    architecture: str, keys: dict[str, t.Any], recurrent: str
) -> None:
    made = layers(architecture, 4, **keys)
    assert ["01"[bool(layer.conv_state)] for layer in made] == recurrent.split()
    assert not any(layer.kv_elements and layer.conv_state for layer in made)


def test_a_layer_may_keep_both() -> None:
    assert all(layer.kv_elements and layer.ssm_state for layer in layers("falcon-h1", 2, **SSM))


def test_states_of_other_kinds_of_recurrence() -> None:
    (layer,) = layers("rwkv7", 1, wkv__head_size=64)
    assert (layer.conv_state, layer.ssm_state) == (2 * 1024, 64 * 1024)
    (layer,) = layers("kimi-linear", 1, kda__head_dim=128, ssm__conv_kernel=4, attention__head_count_kv=0)
    assert (layer.conv_state, layer.ssm_state) == (3 * 3 * 16 * 128, 128 * 128 * 16)


def test_mla_keeps_one_latent() -> None:
    keys = {
        "attention__head_count_kv": 1, "attention__key_length": 576, "attention__value_length": 512,
        "attention__key_length_mla": 192, "attention__value_length_mla": 128,
    }  # fmt: skip
    (layer,) = layers("deepseek2", 1, **keys)
    assert layer.kv_elements == 576
    # files from before that was split keep whole heads
    (old,) = layers("deepseek2", 1, attention__key_length=192, attention__value_length=128, attention__head_count_kv=16)
    assert old.kv_elements == 16 * (192 + 128)


def test_sparse_attention_keeps_an_index() -> None:
    (layer,) = layers("deepseek32", 1, attention__indexer__key_length=128)
    assert layer.index == 128


def test_layers_that_predict_further_tokens_are_not_loaded() -> None:
    assert len(layers("glm4moe", 47, nextn_predict_layers=1)) == 46


def test_a_model_for_embeddings_keeps_nothing() -> None:
    shape = from_gguf(header("bert", 2, embedding_length=64, attention__head_count=2))
    assert not shape.causal
    assert not any(layer.kv_elements for layer in shape.layers)


@pytest.mark.parametrize("blocks", [0, 5000])
def test_what_has_no_layers_is_no_language_model(blocks: int) -> None:
    with pytest.raises(BadInput, match="no language model"):
        from_gguf(header("clip", blocks))


@pytest.mark.parametrize("value", [-1, "many", (1, 2, 3), True, 1.5])
def test_nonsense_in_a_header_is_no_count(value: t.Any) -> None:
    made = layers("llama", 2, attention__key_length=value, attention__sliding_window=value)
    assert all(layer.key_length >= 0 for layer in made)


# --- another size -----------------------------------------------------------------------------------------------------


def shape(**changes: t.Any) -> Shape:
    layer = Layer(heads=8, kv_heads=2, key_length=64, value_length=64, weights=1000, experts=600)
    given_ = {"input_bytes": 300, "output_bytes": 400, "extra": {LARGEST: 100, "rows": 4}, **changes}
    return Shape("gguf", "llama", (layer,) * 4, 4096, 512, 1000, **given_)


def test_another_quantisation_keeps_the_proportions() -> None:
    half = shape().sized(2350, "Q4_K_M")
    assert half.weights == 2350
    assert (half.layers[0].weights, half.layers[0].experts, half.input_bytes) == (500, 300, 150)
    assert (half.quant, half.extra) == ("Q4_K_M", {LARGEST: 50, "rows": 4})


def test_layers_of_parts_that_were_not_read_get_equal_shares() -> None:
    known, unknown = Layer(weights=1000), Layer()
    made = Shape("gguf", "llama", (known, known, unknown, unknown), input_bytes=1000).sized(5000)
    assert [layer.weights for layer in made.layers] == [1000] * 4
    # not even one layer in the first part
    made = Shape("gguf", "llama", (unknown,) * 4, input_bytes=1000).sized(5000)
    assert [layer.weights for layer in made.layers] == [1000] * 4


def test_the_first_part_of_a_split_model_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    gguf_models.write(gguf_models.MODELS["mixtral"](), path)
    whole = gguf.read_model([str(path)])
    first = dataclasses.replace(
        whole,
        tensors=whole.tensors[:13],
        split_count=2,
        split_tensor_count=len(whole.tensors),
    )
    assert "output.weight" in [tensor.name for tensor in first.tensors]
    one, all_ = from_gguf(first), from_gguf(whole)
    made = one.sized(all_.weights)
    assert made.weights == pytest.approx(all_.weights, rel=1e-6)
    assert [layer.weights for layer in made.layers] == pytest.approx([layer.weights for layer in all_.layers], rel=0.01)
    assert [layer.experts for layer in made.layers] == pytest.approx([layer.experts for layer in all_.layers], rel=0.01)
    assert [layer.work for layer in made.layers] == [layer.work for layer in all_.layers]
    # a head that is in another part is no proof that there is none
    assert not from_gguf(dataclasses.replace(first, tensors=whole.tensors[:1])).tied


# --- through JSON -----------------------------------------------------------------------------------------------------

COUNT = st.integers(0, 1 << 40)
LAYER = st.builds(Layer, COUNT, COUNT, COUNT, COUNT, COUNT, weights=COUNT)


@given(st.lists(LAYER, max_size=6), st.booleans(), st.text(max_size=5), COUNT)
def test_a_shape_survives_json(found: list[Layer], tied: bool, quant: str, count: int) -> None:
    made = Shape("gguf", "llama", tuple(found), tied=tied, quant=quant, extra={"x": count})
    assert shape_from(json.loads(json.dumps(made.as_data()))) == made


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [{"count": 1 << 30}]},
        {"layers": [{"count": 1, "heads": -1}]},
        {"layers": [{"count": 1, "heads": "8"}]},
        {"layers": [{"count": 1, "unknown": 1}]},
        {"layers": [{"heads": 1}]},
        {"layers": 3},
        {"vocab_size": "1000"},
        {"tied": 1},
        {"more": 1},
        {"extra": [1]},
    ],
)
def test_other_data_is_refused(change: dict[str, t.Any]) -> None:
    with pytest.raises(BadInput, match="not the shape of a model"):
        shape_from({**shape().as_data(), **change})


# --- hostile headers --------------------------------------------------------------------------------------------------

ARCHITECTURES = st.sampled_from(
    ["llama", "gemma3", "gemma4", "gpt-oss", "deepseek2", "jamba", "qwen3next", "mamba", "rwkv7", "kimi-linear", "lfm2",
     "nemotron_h", "falcon-h1", "exaone4", "bert", ""]
)  # fmt: skip
NAMES = (
    "embedding_length attention.head_count attention.head_count_kv attention.key_length attention.value_length "
    "attention.key_length_mla attention.value_length_mla attention.sliding_window attention.sliding_window_pattern "
    "attention.shared_kv_layers attention.recurrent_layers full_attention_interval nextn_predict_layers vocab_size "
    "ssm.conv_kernel ssm.inner_size ssm.state_size ssm.group_count wkv.head_size kda.head_dim shortconv.l_cache "
    "feed_forward_length expert_used_count rope.dimension_count"
)
KEYS = st.sampled_from(NAMES.split())
NUMBER = st.one_of(st.integers(-(1 << 63), 1 << 64), st.integers(0, 8))
VALUE = st.one_of(NUMBER, st.booleans(), st.floats(), st.text(max_size=3), st.lists(NUMBER, max_size=8).map(tuple))


@given(ARCHITECTURES, st.integers(-1, 9), st.dictionaries(KEYS, VALUE, max_size=12))
def test_whatever_a_header_says_ends_in_a_verdict_or_a_sentence(arch: str, blocks: int, said: dict[str, t.Any]) -> None:
    metadata = {f"{arch}.{key}": value for key, value in said.items()}
    found = gguf.GgufHeader(3, 0, arch, "", 0, blocks, 0, 1, 0, 0, metadata=metadata)
    with contextlib.suppress(BadInput):
        made = shape_from(json.loads(json.dumps(from_gguf(found).as_data())))
        judge(made, Ask("llama_server"), Room((DeviceRoom("GPU 0", 8 << 30),), 8 << 30))
