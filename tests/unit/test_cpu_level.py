"""What a processor can do, as a level that code may rely on."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.cpu_level import architecture, cpu_features, cpu_level
from ansible.module_utils.llmfleet.errors import BadInput


@pytest.mark.parametrize(
    ("arch", "flags", "level"),
    [
        ("amd64", "sse4_2 avx avx2 bmi2 fma f16c avx512f", "x86-64-v3"),
        ("amd64", "sse4_2 avx", "x86-64-v2"),
        ("amd64", "sse2", "x86-64"),
        ("arm64", "fp asimd asimddp asimdhp", "armv8.2-a"),
        ("arm64", "fp asimd", "armv8-a"),
    ],
)
def test_the_cpu_level_follows_the_flags(arch, flags, level):
    assert cpu_level("auto", arch, flags.split()).name == level


def test_a_named_level_is_taken_and_a_foreign_one_refused():
    assert "-DGGML_AVX2=OFF" in cpu_level("x86-64-v2", "amd64", []).flags
    with pytest.raises(BadInput, match="x86-64-v2 does not exist on arm64"):
        cpu_level("x86-64-v2", "arm64", [])


def test_only_flags_of_every_core_count():
    assert cpu_features("flags\t\t: a b c\nmodel: x\nflags\t\t: b c d\n") == {"b", "c"}
    assert cpu_features("Features\t: fp asimd\n") == {"fp", "asimd"}
    assert cpu_features("") == frozenset()


def test_architectures():
    assert architecture("aarch64") == "arm64"
    with pytest.raises(BadInput, match="riscv64"):
        architecture("riscv64")
