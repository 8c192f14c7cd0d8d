"""What is asked for when an image is made: its identity, its flags, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from ansible.module_utils.llmfleet.cpu_level import CPU_LEVELS
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF, BuildRequest, check_request, jobs
from ansible.module_utils.llmfleet.image_toolchain import Toolchain
from ansible.module_utils.llmfleet.image_variants import BACK_ENDS, CONTENTS, PROGRAMS, VARIANTS
from hypothesis import given
from hypothesis import strategies as st

GIT_PIN = (("kind", "git"),)
REQUEST = BuildRequest(ref=DEFAULT_REF, pins=(GIT_PIN,), cmake_flags=(), cpu_level="x86-64-v3")
CUDA = replace(REQUEST, variant="cuda", architectures=("86-real",), toolkits=("13.0.2", "12.8.1"))
WHEELS = Toolchain("wheels", "llmfleet/base:debian-bookworm", "debian:bookworm", "13.0.2")

ASKED = [
    {"ref": "b1"},
    {"pins": (GIT_PIN, (("kind", "archive"), ("sha256", "0" * 64)))},
    {"cmake_flags": ("-DX=1",)},
    {"cpu_level_asked": "x86-64-v3"},
    {"base_asked": "debian:trixie"},
    {"contents": "light"},
    {"variant": "vulkan"},
    {"architecture": "arm64"},
    {"fa_all_quants": True},
]
COVERED = [
    {"cpu_level": "x86-64-v2"},
    {"architectures": ("86-real", "90-real")},
    {"toolkits": ("12.8.1",)},
]


@pytest.mark.parametrize("changed", ASKED, ids=lambda row: next(iter(row)))
def test_another_wish_is_another_recipe_and_another_key(changed):
    other = replace(CUDA, **changed)
    assert other.recipe() != CUDA.recipe()
    assert other.key() != CUDA.key()


@pytest.mark.parametrize("changed", COVERED, ids=lambda row: next(iter(row)))
def test_other_hosts_are_another_key_of_the_same_recipe(changed):
    other = replace(CUDA, **changed)
    assert other.recipe() == CUDA.recipe()
    assert other.key() != CUDA.key()


def test_the_order_of_the_gpus_does_not_matter():
    both = ("61-real", "86-real")
    assert replace(CUDA, architectures=both).key() == replace(CUDA, architectures=both[::-1]).key()


@given(st.lists(st.sampled_from([*ASKED, *COVERED]), max_size=4))
def test_the_key_tells_apart_whatever_the_recipe_tells_apart(changes):
    other = CUDA
    for changed in changes:
        other = replace(other, **changed)
    if other.recipe() != CUDA.recipe():
        assert other.key() != CUDA.key()
    assert (other == CUDA) <= (other.key() == CUDA.key())


def test_the_key_is_stable_and_in_the_tag():
    assert re.fullmatch(r"[0-9a-f]{12}", REQUEST.key())
    assert REQUEST.image() == f"llmfleet/llama.cpp:cpu-{REQUEST.key()}"
    light = replace(CUDA, contents="light")
    assert light.image() == f"llmfleet/llama.cpp:cuda-light-{light.key()}"


def test_the_labels_say_what_the_image_is():
    labels = replace(CUDA, architectures=("61-real", "86-real")).labels(WHEELS)
    assert labels["io.llmfleet.cuda"] == "13.0.2"
    assert labels["io.llmfleet.architectures"] == "61-real;86-real"
    assert labels["io.llmfleet.cpu-level"] == "x86-64-v3"
    assert labels["io.llmfleet.recipe"] == CUDA.recipe()
    plain = REQUEST.labels(Toolchain("base", "x", "debian:bookworm"))
    assert (plain["io.llmfleet.cuda"], plain["io.llmfleet.architectures"]) == ("", "")
    assert (plain["io.llmfleet.variant"], plain["io.llmfleet.contents"]) == ("cpu", "server")


def test_every_image_starts_a_program_it_has():
    assert set(PROGRAMS) == set(CONTENTS)
    assert set(VARIANTS) == set(BACK_ENDS)
    assert REQUEST.programs() == ("llama-server",)
    assert set(PROGRAMS["server"]) | set(PROGRAMS["light"]) < set(PROGRAMS["full"])


def test_a_users_flag_comes_last():
    for toolchain in (None, WHEELS):
        assert replace(CUDA, cmake_flags=("-DGGML_AVX2=OFF",)).flags(toolchain)[-1] == "-DGGML_AVX2=OFF"


def test_cuda_is_compiled_for_the_gpus_that_were_asked_for_and_linked_in():
    flags = replace(CUDA, architectures=("61-real", "120-real")).flags(WHEELS)
    assert "-DCMAKE_CUDA_ARCHITECTURES=61-real;120-real" in flags
    assert "-DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc" in flags
    assert "-DGGML_CUDA_FA_ALL_QUANTS=ON" not in flags
    assert "-DGGML_CUDA_FA_ALL_QUANTS=ON" in replace(CUDA, fa_all_quants=True).flags(WHEELS)
    packaged = replace(CUDA, toolkits=("11.8.0",)).flags(Toolchain("packages", "b", "debian:bookworm", "11.8.0"))
    assert "-DCMAKE_CUDA_COMPILER=/usr/bin/nvcc" in packaged


@pytest.mark.parametrize("variant", BACK_ENDS)
def test_no_back_end_is_loaded_at_run_time_where_it_could_be_missing_without_a_word(variant):
    flags = replace(CUDA, variant=variant).flags()
    assert "-DGGML_BACKEND_DL=OFF" in flags
    assert not [flag for flag in flags if re.fullmatch(r"-DGGML_BACKEND_DL=ON|-DGGML_NATIVE=ON", flag)]


@pytest.mark.parametrize("level", [level.name for level in CPU_LEVELS])
def test_the_level_decides_the_processor_flags(level):
    row = next(row for row in CPU_LEVELS if row.name == level)
    assert set(row.flags) <= set(replace(REQUEST, cpu_level=level).flags())


@pytest.mark.parametrize(
    ("ref", "number", "commit"), [(DEFAULT_REF, "0", "0c1e57098"), ("b9", "9", "b9"), ("main", "0", "main")]
)
def test_the_build_is_stamped_with_its_ref(ref, number, commit):
    flags = replace(REQUEST, ref=ref).flags()
    assert f"-DLLAMA_BUILD_NUMBER={number}" in flags
    assert f"-DLLAMA_BUILD_COMMIT={commit}" in flags


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"ref": "-x"}, "ref"),
        ({"ref": "a..b"}, "ref"),
        ({"ref": "a b"}, "ref"),
        ({"cmake_flags": ("GGML_X=1",)}, "cmake_flags"),
        ({"cmake_flags": ("-DX=1\nRUN evil",)}, "cmake_flags"),
        ({"contents": "all"}, "server, light, full"),
        ({"variant": "rocm", "architecture": "arm64"}, "rocm cannot be built on arm64, only on amd64"),
        ({"variant": "cuda", "architectures": (), "toolkits": ("13.0.2",)}, "needs architectures and toolkits"),
        ({"variant": "cuda", "architectures": ("86-real",), "toolkits": ()}, "needs architectures and toolkits"),
        ({"architectures": ("86",)}, "86-real or 86-virtual"),
        ({"architectures": ("86-real;RUN",)}, "86-real or 86-virtual"),
        ({"toolkits": ("newest",)}, "12.8.1"),
    ],
)
def test_bad_requests_are_refused(changed, word):
    with pytest.raises(BadInput, match=word):
        check_request(replace(REQUEST, **changed))


@pytest.mark.parametrize(
    "request_", [REQUEST, CUDA, replace(CUDA, architectures=("90-real", "120a-real", "90-virtual"))]
)
def test_good_requests_are_not(request_):
    check_request(request_)


@pytest.mark.parametrize(("cpus", "gib", "expected"), [(8, 64, 8), (64, 12, 8), (4, 1, 1), (1, 0, 1)])
def test_jobs_fit_into_memory(cpus, gib, expected):
    assert jobs(cpus, gib << 30) == expected
