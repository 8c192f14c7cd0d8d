"""The Python environment of vLLM: what it is made of, its identity and its place. Pure."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet import vllm_pins
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_template import TRIPLETS

ROOT = "/opt/llmfleet"
"""Where environments are, unless said otherwise; the folder of each is named after what it is made of."""
USER = "llmfleet-vllm"
"""The system user that services run as."""
PREFIX = "vllm-"
NOTE = "llmfleet.json"
"""Written into an environment last: one without it is not whole."""

CPU, CUDA = "cpu", "cuda"

PYTHONS = ("python3", "python3.12", "python3.11", "python3.13", "python3.10")
"""Programs to look for, in order: the distribution's own first, as its packages suit it."""

PINNED_PYTHONS = ((3, 11), (3, 14))
"""Oldest and newest Python of the versions that are pinned for CPUs, and of releases that are not known."""
PYTHONS_OF: t.Mapping[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "0.33.0": ((3, 11), (3, 14)),
    "0.19.1": ((3, 10), (3, 13)),
    "0.10.2": ((3, 9), (3, 13)),
    "0.8.5": ((3, 9), (3, 12)),
}
"""Release for GPUs -> oldest and newest Python, as their packages say (Requires-Python)."""

NEEDS_BYTES: t.Mapping[str, int] = {CPU: 5 << 30, CUDA: 20 << 30}
"""Free space that making one asks for (measured on a CPU: 2.6 GB, and what pip unpacks meanwhile)."""

Versions = t.Mapping[str, t.Optional[tuple[int, int]]]


@dataclass(frozen=True)
class VenvRequest:
    """What is asked for; ``python`` is the (major, minor) of the Python it is made with."""

    variant: str
    version: str
    architecture: str
    python: tuple[int, int]

    def requirements(self) -> str:
        """Return what pip installs: every package with its version, or vLLM, which names its own."""
        return vllm_pins.requirements() if self.variant == CPU else f"vllm=={self.version}\n"

    def key(self) -> str:
        """Return the identity of what the environment is made of: 12 hexadecimal digits."""
        asked = [self.requirements(), self.variant, self.architecture, list(self.python)]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]

    def path(self, root: str = ROOT) -> str:
        """Return the folder of the environment."""
        return f"{root}/{PREFIX}{self.variant}-{self.key()}"

    def what(self) -> str:
        """Return in words what is made."""
        torch = f" with torch {vllm_pins.TORCH}" if self.variant == CPU else " for CUDA"
        return f"vLLM {self.version}{torch} on Python {_dotted(self.python)}"


def request_for(variant: str, version: str, architecture: str, python: tuple[int, int]) -> VenvRequest:
    """Return the request; raises BadInput for what cannot be made. ``version`` is of vLLM for GPUs."""
    if architecture not in TRIPLETS:
        raise BadInput(f"vLLM has no packages for {architecture}; serve with llama_server there.")
    if variant == CPU:
        return VenvRequest(CPU, vllm_pins.VLLM, architecture, python)
    if not re.fullmatch(r"\d+(\.\d+)+\w*", version):
        raise BadInput(
            f"vLLM for CUDA needs its version, such as 0.33.0, not {version!r}; the plan gives one that fits."
        )
    return VenvRequest(CUDA, version, architecture, python)


def choose_python(asked: str, version: str, found: Versions) -> str:
    """Return the program among ``found`` (its version, None where it is not there) that suits; raises BadInput.

    ``version`` is of vLLM for GPUs, "" for what is pinned for CPUs.
    """
    oldest, newest = PYTHONS_OF.get(version, PINNED_PYTHONS)
    words = f"vLLM {version or vllm_pins.VLLM} in a venv needs Python {_dotted(oldest)} to {_dotted(newest)}"
    if asked:
        there = found.get(asked)
        if there is None:
            raise BadInput(f"vllm_venv_python {asked} is not on this host; install it, or leave the variable empty.")
        if not oldest <= there <= newest:
            raise BadInput(f"{words}, and {asked} is {_dotted(there)}; name another one in vllm_venv_python.")
        return asked
    suiting = [name for name in PYTHONS if oldest <= (found.get(name) or (0, 0)) <= newest]
    if not suiting:
        have = ", ".join(f"{name} {_dotted(there)}" for name, there in found.items() if there) or "none"
        raise BadInput(
            f"{words}, and this host has {have}; install one beside it (vllm_venv_python names it), or take "
            "`runtime: container`."
        )
    return suiting[0]


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def preload(architecture: str, path: str) -> tuple[str, ...]:
    """Return the libraries that vLLM on a CPU is to be started with, where they are there: the allocator and OpenMP."""
    libraries = [f"/usr/lib/{TRIPLETS[architecture]}/libtcmalloc_minimal.so.4", "/usr/lib64/libtcmalloc_minimal.so.4"]
    return (*libraries, f"{path}/lib/libiomp5.so")


def is_environment(name: str) -> bool:
    """Whether a folder of this name is one that was made here."""
    return re.fullmatch(rf"{PREFIX}({CPU}|{CUDA})-[0-9a-f]{{12}}", name) is not None
