"""What a processor can do, as a baseline that compiled code may rely on."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput


@dataclass(frozen=True)
class CpuLevel:
    """A baseline of processor features: which host flags prove it, and the CMake flags that use it."""

    name: str
    architecture: str
    needs: frozenset[str]
    flags: tuple[str, ...]


def _x86(name: str, needs: str, on: str) -> CpuLevel:
    every = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")
    flags = tuple(f"-DGGML_{feature}={'ON' if feature in on.split() else 'OFF'}" for feature in every)
    return CpuLevel(name, "amd64", frozenset(needs.split()), flags)


CPU_LEVELS = (
    _x86("x86-64-v3", "avx avx2 bmi2 fma f16c sse4_2", "SSE42 AVX AVX2 BMI2 FMA F16C"),
    _x86("x86-64-v2", "sse4_2", "SSE42"),
    _x86("x86-64", "", ""),
    CpuLevel("armv8.2-a", "arm64", frozenset({"asimddp", "asimdhp"}), ("-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16",)),
    CpuLevel("armv8-a", "arm64", frozenset(), ("-DGGML_CPU_ARM_ARCH=armv8-a",)),
)
"""Best first within an architecture, so that the first one a host proves is the one to use."""

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def architecture(machine: str) -> str:
    """Return Docker's name for the machine type ``uname -m`` gives."""
    try:
        return ARCHITECTURES[machine]
    except KeyError:
        raise BadInput(
            f"This host's architecture {machine} is not supported for llama.cpp images; use an amd64 or arm64 host."
        ) from None


def cpu_features(cpuinfo: str) -> frozenset[str]:
    """Return the processor flags of /proc/cpuinfo that every core has."""
    rows = re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset.intersection(*(frozenset(row.split()) for row in rows)) if rows else frozenset()


def cpu_level(wanted: str, arch: str, features: t.Collection[str]) -> CpuLevel:
    """Return the level asked for, or for ``auto`` the best one that the processor proves."""
    own = [level for level in CPU_LEVELS if level.architecture == arch]
    if wanted == "auto":
        return next(level for level in own if level.needs <= frozenset(features))
    for level in own:
        if level.name == wanted:
            return level
    names = ", ".join(level.name for level in own)
    raise BadInput(f"cpu_level {wanted} does not exist on {arch}; use auto or one of {names}.")
