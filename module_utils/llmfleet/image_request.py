"""What is asked for when a llama.cpp image is made, its identity, and the compiler flags that follow from it.

The identity is a digest of what was *asked for*, not of what answered on the day: a network that fails later never
causes a rebuild, and a changed pin, flag or template always does. It has two parts. The recipe is everything that has
nothing to do with the hosts the image is for; the build key adds what it covers (GPU architectures, CUDA toolkits,
processor level). An image with the right recipe that covers a host is good for that host, whatever its key.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.constants import LABEL_BUILD_KEY, RUN_UID
from ansible.module_utils.llmfleet.constants import LABEL_VARIANT as LABEL_VARIANT
from ansible.module_utils.llmfleet.cpu_level import CPU_LEVELS
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_scripts import STUBS
from ansible.module_utils.llmfleet.image_template import parts
from ansible.module_utils.llmfleet.image_toolchain import Toolchain
from ansible.module_utils.llmfleet.image_variants import COMMON_FLAGS, CONTENTS, PROGRAMS, VARIANTS

REPOSITORY = "llmfleet/llama.cpp"
DEFAULT_REF = "0c1e57098bba43ac29e6e3b677cdceebdd22334f"

LABEL_STAGE = "io.llmfleet.stage"
LABEL_SOURCE = "io.llmfleet.source"
LABEL_RECIPE = "io.llmfleet.recipe"
LABEL_CONTENTS = "io.llmfleet.contents"
LABEL_CUDA = "io.llmfleet.cuda"
LABEL_ARCHITECTURES = "io.llmfleet.architectures"
LABEL_CPU_LEVEL = "io.llmfleet.cpu-level"
LABEL_REVISION = "org.opencontainers.image.revision"

_FA_ALL_QUANTS = "-DGGML_CUDA_FA_ALL_QUANTS=ON"


@dataclass(frozen=True)
class BuildRequest:
    """Everything that was asked for.

    ``cpu_level`` is the level built for, ``cpu_level_asked`` what the inventory says (``auto`` or a level).
    ``architectures`` are CMake's CUDA architectures such as ``86-real``; ``toolkits`` the CUDA versions that serve all
    hosts the image is for, best first. ``base_asked`` is ``distribution:codename`` or "".
    """

    ref: str
    pins: tuple[tuple[tuple[str, str], ...], ...]  # of each source candidate, in order
    cmake_flags: tuple[str, ...]
    cpu_level: str
    cpu_level_asked: str = "auto"
    variant: str = "cpu"
    contents: str = "server"
    architecture: str = "amd64"
    base_asked: str = ""
    architectures: tuple[str, ...] = ()
    toolkits: tuple[str, ...] = ()
    fa_all_quants: bool = False

    def recipe(self) -> str:
        """Return the identity of what is asked for, apart from what it has to cover."""
        return _digest(self._recipe())

    def key(self) -> str:
        """Return the build key: the recipe and what the image covers."""
        covers = {
            "cpu_level": self.cpu_level,
            "architectures": sorted(self.architectures),
            "toolkits": list(self.toolkits),
        }
        return _digest({**self._recipe(), "covers": covers})

    def _recipe(self) -> dict[str, t.Any]:
        row = VARIANTS[self.variant]
        return {
            "ref": self.ref,
            "pins": self.pins,
            "flags": [*COMMON_FLAGS, *row.flags, *self.cmake_flags],
            "fa_all_quants": self.fa_all_quants,
            "cpu_level": self.cpu_level_asked,
            "variant": self.variant,
            "contents": self.contents,
            "programs": self.programs(),
            "architecture": self.architecture,
            "base": self.base_asked,
            "row": (row.packages, row.libraries, row.loaded, row.data, row.setup, row.environment),
            "uid": RUN_UID,
            "template": parts(self.variant, self.contents),
        }

    def image(self, repository: str = REPOSITORY) -> str:
        """Return the reference the image is tagged with."""
        kind = self.variant if self.contents == "server" else f"{self.variant}-{self.contents}"
        return f"{repository}:{kind}-{self.key()}"

    def programs(self) -> tuple[str, ...]:
        """Return the programs of the image; it starts the first one."""
        return PROGRAMS[self.contents]

    def flags(self, toolchain: Toolchain | None = None) -> list[str]:
        """Return the CMake flags in full; what a user adds comes last and wins."""
        level = next(row for row in CPU_LEVELS if row.name == self.cpu_level)
        release = re.fullmatch(r"b(\d+)", self.ref)
        stamp = (
            f"-DLLAMA_BUILD_NUMBER={release[1] if release else 0}",
            f"-DLLAMA_BUILD_COMMIT={short_ref(self.ref)}",
        )
        cuda: list[str] = []
        if self.variant == "cuda":
            cuda.append(f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(self.architectures)}")
            cuda += [_FA_ALL_QUANTS] if self.fa_all_quants else []
        if toolchain and toolchain.cuda:
            cuda += toolchain.cuda_flags()
            # the programs do not name these libraries, but the linker wants to see that all is defined
            folders = ":".join((STUBS, *toolchain.libraries()))
            cuda.append(f"-DCMAKE_EXE_LINKER_FLAGS=-Wl,-rpath-link,{folders}")
        return [*COMMON_FLAGS, *level.flags, *VARIANTS[self.variant].flags, *cuda, *stamp, *self.cmake_flags]

    def packages(self, toolchain: Toolchain) -> list[str]:
        """Return the packages of the toolchain stage."""
        wanted = ("ccache", "cmake", "g++", "ninja-build")
        return [*wanted, *VARIANTS[self.variant].packages, *toolchain.packages()]

    def labels(self, toolchain: Toolchain) -> dict[str, str]:
        """Return the labels that say what the image is; where it came from is added by the build."""
        return {
            LABEL_BUILD_KEY: self.key(),
            LABEL_RECIPE: self.recipe(),
            LABEL_VARIANT: self.variant,
            LABEL_CONTENTS: self.contents,
            LABEL_CUDA: toolchain.cuda,
            LABEL_ARCHITECTURES: ";".join(self.architectures),
            LABEL_CPU_LEVEL: self.cpu_level,
        }


def _digest(asked: t.Mapping[str, t.Any]) -> str:
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def is_commit(ref: str) -> bool:
    """Tell a full commit id from a branch or a tag."""
    return re.fullmatch(r"[0-9a-f]{40}", ref) is not None


def short_ref(ref: str) -> str:
    """Return a ref the way llama.cpp prints it."""
    return ref[:9] if is_commit(ref) else ref


def check_request(request: BuildRequest, builds: bool = True) -> None:
    """Refuse what cannot be built, before anything changes; what only names an image (not ``builds``) may say less."""
    if not re.fullmatch(r"[\w][\w./-]{0,199}", request.ref) or ".." in request.ref:
        raise BadInput(
            f"ref {request.ref!r} is not a commit, tag or branch name; write one like {DEFAULT_REF[:12]} in full."
        )
    for flag in request.cmake_flags:
        if not re.fullmatch(r"-D\w+(:\w+)?=[^\r\n]*", flag):
            raise BadInput(f"cmake_flags: {flag!r} is not of the form -DNAME=VALUE.")
    if request.contents not in CONTENTS:
        raise BadInput(f"contents {request.contents} does not exist; use one of {', '.join(CONTENTS)}.")
    row = VARIANTS[request.variant]
    if request.architecture not in row.architectures:
        raise BadInput(
            f"variant {request.variant} cannot be built on {request.architecture}, "
            f"only on {' and '.join(row.architectures)}; use another variant there."
        )
    _check_cuda(request, builds)


def _check_cuda(request: BuildRequest, builds: bool) -> None:
    for architecture in request.architectures:
        if not re.fullmatch(r"\d{2,3}[af]?-(real|virtual)", architecture):
            raise BadInput(f"architectures: {architecture!r} is not of the form 86-real or 86-virtual.")
    for toolkit in request.toolkits:
        if not re.fullmatch(r"\d{2}\.\d+(\.\d+)?", toolkit):
            raise BadInput(f"toolkits: {toolkit!r} is not a CUDA version such as 12.8.1.")
    if builds and request.variant == "cuda" and not (request.architectures and request.toolkits):
        raise BadInput(
            "variant cuda needs architectures and toolkits; the plan gives them from the GPUs and drivers of the hosts."
        )


def jobs(cpus: int, memory_bytes: int) -> int:
    """Return how many compilers to run at once: one per CPU, each with 1.5 GiB of memory to itself."""
    return max(1, min(cpus, memory_bytes // (3 << 29)))
