"""Whether a model fits, with which settings, and what would help."""

from __future__ import annotations

import re
import typing as t
from dataclasses import replace

import pytest
from ansible.module_utils.llmfleet.engines.llama_server import DEFAULT_CONTEXT_LENGTH
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory.llama_fit import Search, kept_for_system
from ansible.module_utils.llmfleet.memory.plan import judge
from ansible.module_utils.llmfleet.memory.shape import LARGEST, Layer, Shape
from ansible.module_utils.llmfleet.memory.terms import RAM, Ask, DeviceRoom, Room, Verdict, gib
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

MIB, GIB = 1 << 20, 1 << 30
LAYER = Layer(heads=32, kv_heads=8, key_length=128, value_length=128, weights=110 * MIB, ff=12288, work=3 * 12288)
MODEL = Shape(
    "gguf", "qwen3", (LAYER,) * 36, 40960, 4096, 151_936, input_bytes=330 * MIB, output_bytes=480 * MIB, quant="Q4_K_M",
    extra={LARGEST: 480 * MIB},
)  # fmt: skip
"""About Qwen3 8B: 4.7 GiB of weights, 576 MiB of cache for 4096 tokens."""


def gpus(*sizes: float, ram: float = 64) -> Room:
    return Room(tuple(DeviceRoom(f"GPU {n}", int(size * GIB)) for n, size in enumerate(sizes)), int(ram * GIB))


def ask(**fields: t.Any) -> Ask:
    return Ask("llama_server", **fields)


def test_what_fits_is_left_as_it_is() -> None:
    found = judge(MODEL, ask(), gpus(24))
    assert found.fits
    assert found.settings == {}
    assert (found.short, found.change) == (0, "")
    assert re.fullmatch(r"fits: 6\.\d GiB of 23\.6 GiB of GPU 0", found.why)


def test_keys_and_values_are_halved_first() -> None:
    found = judge(MODEL, ask(), gpus(6))
    assert found.fits
    assert found.settings == {"cache_type": "q8_0"}
    assert "flash attention" in found.why
    # not where they cannot be
    for changed in (replace(MODEL, mla=True), replace(MODEL, layers=(replace(LAYER, key_length=80),) * 36)):
        assert "cache_type" not in judge(changed, ask(), gpus(6)).settings
    assert "cache_type" not in judge(MODEL, ask(args=("-fa", "off")), gpus(6)).settings


def test_then_layers_are_left_in_ram() -> None:
    found = judge(MODEL, ask(), gpus(4))
    assert found.fits
    assert set(found.settings) == {"gpu_layers"}
    assert 0 < found.settings["gpu_layers"] < 37
    assert f"gpu_layers {found.settings['gpu_layers']} of 37 (slower)" in found.why
    # one more would not fit
    one_more = judge(
        MODEL, ask(gpu_layers=found.settings["gpu_layers"] + 1, context_length=4096, cache_type="f16"), gpus(4)
    )
    assert not one_more.fits
    assert f"gpu_layers {found.settings['gpu_layers']} of 37 would fit" in one_more.change


def test_the_context_is_shortened_last() -> None:
    # half a MiB per token, which leaves room for some tokens only
    heavy = replace(MODEL, layers=(replace(LAYER, kv_heads=32),) * 36)
    found = judge(heavy, ask(), Room((), 6 * GIB + 512 * MIB))
    assert found.fits
    assert found.settings["context_length"] in (2048, 1024, 512)


def test_the_usual_context_is_that_of_the_engine() -> None:
    wanted = judge(MODEL, ask(context_length=DEFAULT_CONTEXT_LENGTH), gpus(24))
    assert judge(MODEL, ask(), gpus(24)).needs == wanted.needs
    short = replace(MODEL, context_length=2048)
    assert judge(short, ask(), gpus(24)).needs == judge(short, ask(context_length=2048), gpus(24)).needs


def test_a_context_that_is_too_long_is_refused_with_one_that_fits() -> None:
    found = judge(MODEL, ask(context_length=40960, gpu_layers=99), gpus(8))
    assert not found.fits
    assert found.short > GIB
    assert found.why.startswith("does not fit: it needs 11.")
    assert "where 7.9 GiB may be taken" in found.why
    context = int(re.search(r"context_length (\d+)", found.change)[1])  # type: ignore[index]
    assert context % 256 == 0
    assert judge(MODEL, ask(context_length=context, gpu_layers=99), gpus(8)).fits
    assert not judge(MODEL, ask(context_length=context + 1024, gpu_layers=99), gpus(8)).fits


def test_fewer_requests_at_a_time_may_be_the_smallest_change() -> None:
    room = Room((), 12 * GIB)
    found = judge(MODEL, ask(parallel=16, context_length=8192, cache_type="q8_0"), room)
    assert not found.fits
    parallel = int(re.search(r"parallel (\d+)", found.change)[1])  # type: ignore[index]
    assert judge(MODEL, ask(parallel=parallel, context_length=8192, cache_type="q8_0"), room).fits
    assert not judge(MODEL, ask(parallel=parallel + 1, context_length=8192, cache_type="q8_0"), room).fits


def test_many_requests_at_a_time_are_planned_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    real = Search.best
    monkeypatch.setattr(Search, "best", lambda search: tried.append(search.ask.parallel) or real(search))  # type: ignore[func-returns-value]
    assert "parallel" in judge(MODEL, ask(parallel=100_000, context_length=4096, gpu_layers=37), gpus(24)).change
    assert len(tried) < 100


def test_a_smaller_quantisation_is_named_when_no_setting_helps() -> None:
    found = judge(replace(MODEL.sized(16 * GIB), quant="BF16"), ask(), Room((), 12 * GIB))
    assert not found.fits
    assert re.fullmatch(r"[\d.]+ GiB are missing; its Q8_0 would fit", found.change)
    assert judge(MODEL, ask(), Room((), 2 * GIB)).change.endswith("are missing")


def test_what_no_gpu_and_no_ram_can_hold() -> None:
    found = judge(MODEL.sized(40 * GIB), ask(), gpus(12, ram=16))
    assert not found.fits
    assert "RAM, where 15.0 GiB may be taken, has too little for the rest" in found.why
    # together they lack less than the GPU alone
    assert 14 * GIB < found.short < 20 * GIB


def test_several_gpus_share_a_model() -> None:
    big = MODEL.sized(30 * GIB)
    assert judge(big, ask(), gpus(24)).settings
    found = judge(big, ask(), gpus(24, 24))
    assert found.fits
    assert not found.settings
    assert re.search(r"of GPU 0, .* of GPU 1", found.why)


def test_unified_memory_is_one_pool() -> None:
    room = Room((DeviceRoom("GPU 0", 0),), 16 * GIB, unified=True)
    found = judge(MODEL, ask(), room)
    assert found.fits
    assert set(found.needs) == {RAM}
    assert not judge(MODEL.sized(15 * GIB), ask(), room).fits


def test_other_services_and_the_limit_of_the_container_count() -> None:
    assert judge(MODEL, ask(), Room((), 16 * GIB)).fits
    assert not judge(MODEL, ask(), Room((), 16 * GIB, ram_used=10 * GIB)).fits
    assert not judge(MODEL, ask(memory=4 * GIB), Room((), 16 * GIB)).fits
    used = Room((DeviceRoom("GPU 0", 24 * GIB, 20 * GIB),), 64 * GIB)
    assert judge(MODEL, ask(), used).settings
    # nothing is said about RAM that nothing is known of
    assert judge(MODEL, ask(), Room((DeviceRoom("GPU 0", 24 * GIB),))).fits


def test_the_cache_of_earlier_prompts_is_warned_of() -> None:
    found = judge(MODEL, ask(), Room((), 12 * GIB))
    assert found.fits
    assert "keeps up to 8.0 GiB of earlier prompts in RAM" in found.why
    advised = re.search(r"`cache_ram: (\d+)` bounds", found.why)[1]  # type: ignore[index]
    assert "earlier prompts" not in judge(MODEL, ask(args=("--cache-ram", advised)), Room((), 12 * GIB)).why
    assert "earlier prompts" not in judge(MODEL, ask(), Room((), 64 * GIB)).why


def test_checkpoints_of_windows_and_states_are_warned_of() -> None:
    windowed = replace(MODEL, layers=(replace(LAYER, window=1024),) * 36)
    room = Room((), 16 * GIB)
    # 1024 tokens of 4 KiB in 36 layers, 32 times
    found = judge(windowed, ask(), room)
    assert "8.0 GiB of earlier prompts and 4.5 GiB of checkpoints" in found.why
    advised = re.search(r"`cache_ram: (\d+)` and `args: \[--ctx-checkpoints, '(\d+)'\]` bound", found.why)
    assert advised
    args = ("--cache-ram", advised[1], "--ctx-checkpoints", advised[2])
    assert "earlier prompts" not in judge(windowed, ask(args=args), room).why
    assert "checkpoints" not in judge(MODEL, ask(), room).why


def test_what_cannot_be_foreseen_is_said() -> None:
    assert "without what --mmproj takes" in judge(MODEL, ask(args=("--mmproj", "x")), gpus(24)).why


def test_what_no_memory_would_make_work_is_refused() -> None:
    with pytest.raises(BadInput, match="cache_type 'fp8' is none that llama-server knows"):
        judge(MODEL, ask(cache_type="fp8"), gpus(24))
    with pytest.raises(BadInput, match="no memory plan for the engine 'other'"):
        judge(MODEL, Ask("other"), gpus(24))
    with pytest.raises(BadInput, match="nothing is known of the model's layers"):
        judge(Shape("gguf", "llama", ()), ask(), gpus(24))


def test_a_verdict_is_data() -> None:
    data = judge(MODEL, ask(), gpus(24)).as_data()
    assert data["fits"] is True
    assert set(data["needs"]["GPU 0"]) == {"weights", "kv", "compute", "overhead"}


def test_sizes_in_words() -> None:
    assert [gib(count) for count in (0, 1, MIB, GIB - 1, GIB, int(5.34 * GIB))] == [
        "0 MiB", "1 MiB", "1 MiB", "1024 MiB", "1.0 GiB", "5.3 GiB",
    ]  # fmt: skip
    assert [kept_for_system(total * GIB) // MIB for total in (2, 8, 64, 1024)] == [512, 512, 4096, 8192]


FEW = replace(MODEL, layers=(replace(LAYER, weights=330 * MIB),) * 12)
"""Of fewer layers, for what is tried often."""
SIZE = st.floats(2, 80)
ASKS = st.builds(
    ask,
    context_length=st.sampled_from([0, 512, 4096, 40960]),
    parallel=st.integers(1, 8),
    cache_type=st.sampled_from(["", "f16", "q8_0", "q4_0"]),
    gpu_layers=st.sampled_from([0, 0, 5, 13, 99]),
)
ROOMS = st.builds(lambda sizes, ram: gpus(*sizes, ram=ram), st.lists(SIZE, max_size=3), SIZE)


@given(st.floats(0.5, 60), ASKS, ROOMS)
@settings(max_examples=100, deadline=None)
def test_a_verdict_holds_what_it_says(size: float, asked: Ask, room: Room) -> None:
    model = FEW.sized(int(size * GIB))
    found = judge(model, asked, room)
    # what the user set is never changed, and the plan is the same when it is made again
    assert not [name for name in found.settings if getattr(asked, name)]
    assert judge(model, asked, room) == found
    if found.fits:
        assert (found.short, found.change) == (0, "")
        assert all(found.needs[name].total <= bytes_ for name, bytes_ in found.room.items() if name in found.needs)
        # the settings that were filled in, given by hand
        given_ = judge(model, replace(asked, **found.settings), room)
        assert given_.fits
        assert {name: need.total for name, need in given_.needs.items()} == {
            name: need.total for name, need in found.needs.items()
        }
    else:
        assert found.short > 0
        assert found.change
        assert found.settings == {}


LONG = st.builds(
    ask,
    context_length=st.sampled_from([16384, 40960]),
    parallel=st.integers(1, 8),
    cache_type=st.sampled_from(["", "f16", "q8_0"]),
    gpu_layers=st.sampled_from([0, 5, 13]),
)


@given(st.floats(1, 12), LONG, st.builds(lambda size, ram: gpus(size, ram=ram), st.floats(3, 14), st.floats(4, 14)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_changes_that_would_fit_do(size: float, asked: Ask, room: Room) -> None:
    model = FEW.sized(int(size * GIB))
    found = judge(model, asked, room)
    assume(found.change.endswith("would fit") and "missing" not in found.change)
    for words in found.change[: -len(" would fit")].split(" or "):
        name, value = words.split()[:2]
        changed: Verdict = judge(model, replace(asked, **{name: int(value) if value.isdigit() else value}), room)
        assert changed.fits, words


@given(st.floats(0.5, 60), ASKS, SIZE, st.floats(0, 40), SIZE)
@settings(max_examples=100, deadline=None)
def test_more_memory_never_hurts(size: float, asked: Ask, gpu: float, more: float, ram: float) -> None:
    model = FEW.sized(int(size * GIB))
    assume(judge(model, asked, gpus(gpu, ram=ram)).fits)
    assert judge(model, asked, gpus(gpu + more, ram=ram + more)).fits
