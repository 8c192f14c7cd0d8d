"""The CUDA toolkit as NVIDIA publishes it on the Python package index: which files, and how they are brought here.

The files are pinned by sha256, so that any index, mirror or folder may deliver them. They are nothing but zip files; no
Python is involved in their use. Edge code in ``WheelStore``, which reads indexes and folders and downloads.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ansible.module_utils.llmfleet import image_source as src
from ansible.module_utils.llmfleet.image_source import SourceError
from ansible.module_utils.llmfleet.pip_places import PipPlaces, local_path
from ansible.module_utils.llmfleet.source_fetch import Fetcher, link_or_copy

CUDA_OF_WHEELS = "13.0"
"""The oldest CUDA whose compiler is on the index, and with it the one that asks for the oldest driver (580)."""

_X86 = "manylinux2014_x86_64.manylinux_2_17_x86_64"
_ARM = "manylinux2014_aarch64.manylinux_2_17_aarch64"


@dataclass(frozen=True)
class Wheel:
    """One file of the index."""

    project: str
    name: str
    sha256: str


def _wheel(project: str, version: str, platform: str, sha256: str) -> Wheel:
    return Wheel(project, f"{project.replace('-', '_')}-{version}-py3-none-{platform}.whl", sha256)


# What nvcc and ggml-cuda need, and no more: compiler, its headers and code generator, runtime, CUB, cuBLAS.
WHEELS: t.Mapping[str, tuple[Wheel, ...]] = {
    "amd64": (
        _wheel("nvidia-cuda-nvcc", "13.0.88", _X86, "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03"),
        _wheel("nvidia-cuda-crt", "13.0.88", _X86, "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4"),
        _wheel(
            "nvidia-nvvm",
            "13.0.88",
            "manylinux2010_x86_64.manylinux_2_12_x86_64",
            "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0",
        ),
        _wheel(
            "nvidia-cuda-runtime", "13.0.96", _X86, "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"
        ),
        _wheel("nvidia-cuda-cccl", "13.0.85", _X86, "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649"),
        _wheel(
            "nvidia-cuda-culibos", "13.0.85", _X86, "5c178858405f485367175e14f8a7536af6c86c5c428d25301f2218406c316ba0"
        ),
        _wheel(
            "nvidia-cublas",
            "13.0.2.14",
            "manylinux_2_27_x86_64",
            "0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c",
        ),
    ),
    "arm64": (
        _wheel("nvidia-cuda-nvcc", "13.0.88", _ARM, "c7ff28f86a24effdc6c034fa15230c549a273e4771b10a7fec14996f8cf3307f"),
        _wheel("nvidia-cuda-crt", "13.0.88", _ARM, "ee2ea2a97073e02ee62bb27841f437332be2c248e3eac013df07997ada39c003"),
        _wheel("nvidia-nvvm", "13.0.88", _ARM, "c4376a291d72d22a315d9d2f69bdae8f8cd83a627f75bad395cee49a0fe65dc1"),
        _wheel(
            "nvidia-cuda-runtime", "13.0.96", _ARM, "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55"
        ),
        _wheel("nvidia-cuda-cccl", "13.0.85", _ARM, "6f0203e29fed809ee2b7fe9b1344df66ecab990c37d6a2e0e189b26d6c97ed7c"),
        _wheel(
            "nvidia-cuda-culibos", "13.0.85", _ARM, "0fbc37f8139bafb5d36e57a19d381b0722df18a65d9395eb697420f78cc21aad"
        ),
        _wheel(
            "nvidia-cublas",
            "13.0.2.14",
            "manylinux_2_27_aarch64",
            "17165c296de689662b96e0ef4f21dfbff3092ff00d0e3e59470f5acb08c0f87d",
        ),
    ),
}
DOWNLOAD_BYTES = 526_000_000


class WheelStore:
    """Finds wheels where pip would look and keeps them under ``folder`` by their name."""

    def __init__(self, fetcher: Fetcher, places: t.Callable[[], PipPlaces], folder: Path) -> None:
        self._fetcher, self._ask, self.folder = replace(fetcher, folder=folder), places, folder

    def missing(self, wheels: t.Sequence[Wheel]) -> str:
        """Return why one of ``wheels`` cannot be had, "" when all can; downloads only index pages."""
        wanted = [wheel for wheel in wheels if not self._kept(wheel).exists()]
        if not wanted:
            return ""
        places = self._ask()
        with ThreadPoolExecutor(max_workers=8) as pool:
            return next(filter(None, pool.map(lambda wheel: self._problem(wheel, places), wanted)), "")

    def bring(self, wheels: t.Sequence[Wheel], into: Path) -> None:
        """Put ``wheels`` into the folder ``into``; raise SourceError when one cannot be had."""
        into.mkdir(parents=True, exist_ok=True)
        places = self._ask() if any(not self._kept(wheel).exists() for wheel in wheels) else PipPlaces()
        for wheel in wheels:
            kept = self._kept(wheel)
            if not kept.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._fetcher.bring(self._find(wheel, places), kept, wheel.sha256)
            link_or_copy(kept, into / wheel.name)

    def _kept(self, wheel: Wheel) -> Path:
        return self.folder / wheel.name

    def _problem(self, wheel: Wheel, places: PipPlaces) -> str:
        try:
            self._find(wheel, places)
        except SourceError as problem:
            return str(problem)
        return ""

    def _find(self, wheel: Wheel, places: PipPlaces) -> str:
        """Return the URL or path of a wheel at the first place that has it."""
        for folder in filter(None, map(local_path, places.links)):
            if (folder / wheel.name).is_file():
                return str(folder / wheel.name)
        said = ""
        for index in places.indexes:
            try:
                files = self._listed(index, wheel.project)
            except SourceError as problem:
                said = said or str(problem)
                continue
            for file in files:
                if file.sha256 == wheel.sha256 or (file.name == wheel.name and not file.sha256):
                    return file.url
        asked = ", ".join(map(src.public_url, places.indexes)) or "none is configured"
        raise SourceError(f"no package index has {wheel.name} (asked: {asked}{'; ' + said if said else ''})")

    def _listed(self, index: str, project: str) -> list[src.IndexFile]:
        folder = local_path(index)
        if folder is None:
            return replace(self._fetcher, index=lambda: index).listed(project)
        page = folder / project / "index.html"
        if not page.is_file():
            return []
        return src.parse_index(page.read_text(encoding="utf-8", errors="replace"), "text/html", page.as_uri())
