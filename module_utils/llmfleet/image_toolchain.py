"""What an image is compiled with, once that is known: a plain description that the Dockerfile and the labels need."""

from __future__ import annotations

from dataclasses import dataclass

from ansible.module_utils.llmfleet.image_scripts import CUDA_ROOT

KINDS = ("base", "image", "wheels", "packages")


@dataclass(frozen=True)
class Toolchain:
    """The compilers of a build.

    ``kind``: ``base`` is the distribution's own compilers, ``image`` an SDK image that brings them, ``wheels`` the CUDA
    toolkit from the package index on the distribution, ``packages`` the distribution's CUDA toolkit. ``base`` is the
    image reference of the first stage ("" where it is made or chosen later), ``distribution`` what it is, as
    debian:bookworm, and ``cuda`` the toolkit's version ("" without one).
    """

    kind: str
    base: str = ""
    distribution: str = ""
    cuda: str = ""

    def packages(self) -> tuple[str, ...]:
        """Return the distribution's packages this toolchain needs on top of the compilers."""
        return ("nvidia-cuda-toolkit", "nvidia-cuda-toolkit-gcc") if self.kind == "packages" else ()

    def cuda_flags(self) -> tuple[str, ...]:
        """Return the CMake flags that say where the CUDA toolkit is."""
        if not self.cuda:
            return ()
        if self.kind == "packages":
            return ("-DCMAKE_CUDA_COMPILER=/usr/bin/nvcc",)
        return (f"-DCMAKE_CUDA_COMPILER={CUDA_ROOT}/bin/nvcc", f"-DCUDAToolkit_ROOT={CUDA_ROOT}")

    def libraries(self) -> tuple[str, ...]:
        """Return the folders of the CUDA libraries that programs are run with."""
        return (f"{CUDA_ROOT}/lib64",) if self.cuda and self.kind != "packages" else ()

    def stub(self) -> str:
        """Return a shell pattern for the library to link with instead of the driver's."""
        if not self.cuda:
            return ""
        return "/usr/lib/*/stubs/libcuda.so" if self.kind == "packages" else f"{CUDA_ROOT}/lib64/stubs/libcuda.so"
