"""What CUDA is made of, as data: toolkits, the GPUs each compiles for, the drivers that carry it.

A driver *carries* a CUDA version in full when it was made for that one or a later one: it then compiles its PTX as
well. Within a major version an older driver still runs native code (minor-version compatibility).

Where figures come from, by the words in the rows:

- ``notes``: the toolkits' release notes (https://docs.nvidia.com/cuda/cuda-toolkit-release-notes) and the names of the
  local installers, which hold the versions of both toolkit and driver
- ``llama.cpp``: the comments in its ggml/src/ggml-cuda/CMakeLists.txt
- ``nvcc``: https://docs.nvidia.com/cuda/cuda-compiler-driver-nvcc, by the PTX version that brought the architecture
- ``unsure``: sources contradict each other or are second-hand

No plan rests on an unsure driver alone: what nvidia-smi names as its highest CUDA comes first. Tags of nvidia/cuda are
ones that several public projects build on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


def numbers(text: str | None) -> tuple[int, ...]:
    """Return the numbers of a version, () when there are none: "570.86.10" gives (570, 86, 10)."""
    return tuple(int(part) for part in re.findall(r"\d+", text or ""))


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: a minor version, by its newest release that there is an image of."""

    version: str
    driver: str
    """Oldest Linux driver that carries the minor version in full."""
    devel: str = ""
    """Tag of nvidia/cuda to compile in; "" for a toolkit that is not built with."""
    base: str = ""
    """Tag of nvidia/cuda to test the container toolkit with; its distributions differ, as do those of the hosts."""
    wheel: str = ""
    """Version of its compiler in wheels on the package index."""
    packages: tuple[str, ...] = ()
    """Distributions whose own nvidia-cuda-toolkit is this minor version."""
    source: str = "notes"

    @property
    def minor(self) -> tuple[int, ...]:
        """(major, minor): drivers and compilers go by it."""
        return numbers(self.version)[:2]

    @property
    def name(self) -> str:
        """The minor version as it is written: 12.8."""
        return ".".join(self.version.split(".")[:2])


TOOLKITS = (
    Toolkit("13.4.1", "615", "13.4.1-devel-ubuntu24.04", source="unsure"),
    Toolkit("13.3.1", "610.43.02", "13.3.1-devel-ubuntu24.04", source="unsure"),
    Toolkit("13.1.1", "590.44.01", "13.1.1-devel-ubuntu24.04"),
    Toolkit("13.0.2", "580.65.06", "13.0.2-devel-ubuntu24.04", "13.0.3-base-ubuntu24.04", "13.0.88"),
    Toolkit("12.9.1", "575.51.03", "12.9.1-devel-ubuntu24.04", "12.9.1-base-ubuntu22.04"),
    Toolkit("12.8.1", "570.86.10", "12.8.1-devel-ubuntu24.04", "12.8.1-base-ubuntu24.04"),
    Toolkit("12.6.3", "560.28.03", "12.6.3-devel-ubuntu24.04"),
    Toolkit("12.5.1", "555.42.02", "12.5.1-devel-ubuntu22.04"),
    Toolkit("12.4.1", "550.54.14", "12.4.1-devel-ubuntu22.04", "12.4.1-base-ubuntu22.04", "", ("debian:trixie",)),
    Toolkit("12.3.2", "545.23.06", "12.3.2-devel-ubuntu22.04"),
    Toolkit("12.2.2", "535.54.03", "12.2.2-devel-ubuntu22.04"),
    Toolkit("12.1.1", "530.30.02", "12.1.1-devel-ubuntu22.04"),
    Toolkit("12.0.1", "525.60.13", "12.0.1-devel-ubuntu22.04", packages=("ubuntu:noble",)),
    Toolkit("11.8.0", "520.61.05", "11.8.0-devel-ubuntu22.04", "11.8.0-base-ubuntu22.04", "", ("debian:bookworm",)),
    # llama.cpp is not built with older ones; they tell what a driver carries, and what it can be tested with
    Toolkit("11.7.1", "515.43.04"),
    Toolkit("11.6.2", "510.39.01"),
    Toolkit("11.5.2", "495.29.05"),
    Toolkit("11.4.3", "470.42.01", base="11.4.3-base-ubuntu20.04"),
    Toolkit("11.3.1", "465.19.01"),
    Toolkit("11.2.2", "460.27.03"),
    Toolkit("11.1.1", "455.23"),
    Toolkit("11.0.3", "450.51.05"),
    Toolkit("10.2", "440.33"),
)
"""Newest first."""

BUILDERS = tuple(row for row in TOOLKITS if row.devel)
"""The toolkits that llama.cpp is built with, newest first."""

BROKEN = {"13.2": "its compiler spoils quantised models (llama.cpp issue 21255, mended in 13.3)"}
"""Minor versions that are left out above, and why."""

FAMILIES = {13: "580", 12: "525.60.13", 11: "450.80.02"}
"""Major version: oldest driver that runs native code of all its minor versions
(https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html)."""


@dataclass(frozen=True)
class Architecture:
    """A compute capability: which toolkits compile for it."""

    capability: str
    first: str
    """First minor version with native code for it."""
    last: str = ""
    """Last one, "" while none has dropped it."""
    last_branch: str = ""
    """Last branch of drivers that knows it (NVIDIA's schedule of deprecations for Unix drivers)."""
    jetson: bool = False
    """A module whose CUDA is JetPack's own: it does not run what is compiled for servers, nor the other way round."""
    portable: bool = True
    """Whether PTX for it runs on later GPUs: llama.cpp compiles 12.x with what only that very chip has (120a)."""
    source: str = "nvcc"

    @property
    def code(self) -> str:
        """As compilers write it: 86 for 8.6."""
        return self.capability.replace(".", "")


ARCHITECTURES = (
    Architecture("5.0", "6.0", "12.9", "580"),
    Architecture("5.2", "7.0", "12.9", "580"),
    Architecture("5.3", "7.0", "12.9", jetson=True),
    Architecture("6.0", "8.0", "12.9", "580"),
    Architecture("6.1", "8.0", "12.9", "580"),
    Architecture("6.2", "8.0", "12.9", jetson=True),
    Architecture("7.0", "9.0", "12.9", "580"),
    Architecture("7.2", "9.2", "12.9", jetson=True),
    Architecture("7.5", "10.0"),
    Architecture("8.0", "11.0"),
    Architecture("8.6", "11.1", source="llama.cpp"),
    Architecture("8.7", "11.4", jetson=True),
    Architecture("8.9", "11.8", source="llama.cpp"),
    Architecture("9.0", "11.8", source="llama.cpp"),
    Architecture("10.0", "12.8"),
    Architecture("10.3", "12.9", source="unsure"),
    Architecture("11.0", "13.0", source="unsure"),
    Architecture("12.0", "12.8", portable=False, source="llama.cpp"),
    Architecture("12.1", "12.9", portable=False, source="llama.cpp"),
)
"""Lowest first. GPUs that are not in it are not planned for."""

CAPABILITIES = {row.capability: row for row in ARCHITECTURES}

PTX_CODE = "90"
"""PTX for GPUs to come where no GPU of a group has any that is portable: what llama.cpp's own images have."""


def toolkit(version: str) -> Toolkit | None:
    """Return the row of a version (12.8.1, 12.8), None when there is none."""
    return next((row for row in TOOLKITS if version in (row.version, row.name)), None)
