"""The rows of the llama.cpp image: back-ends with what they need of a toolchain, and the programs of an image.

The rows of rocm, musa and intel follow llama.cpp's own .devops/*.Dockerfile of the default ref. Their SDKs are images
of several gigabytes that cannot be had everywhere: what is generated from these rows is linted, but was not built.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

BACK_ENDS = ("cpu", "cuda", "rocm", "musa", "intel", "vulkan")
CONTENTS = ("server", "light", "full")

_SERVER = ("llama-server",)
_LIGHT = ("llama-cli", "llama-completion")
PROGRAMS: t.Mapping[str, tuple[str, ...]] = {
    "server": _SERVER,
    "light": _LIGHT,
    "full": (*_SERVER, *_LIGHT, "llama-quantize", "llama-gguf-split", "llama-bench"),
}
"""The programs of an image by its contents; the first one is what the image starts."""


@dataclass(frozen=True)
class Variant:
    """A back-end: what its toolchain and CMake need on top of the common part.

    ``sdk`` are the images that bring its toolchain, in the order they are tried; empty where the distribution's own
    packages do (``cuda`` chooses by toolkit and is not in the row). ``libraries`` are folders of that image which the
    finished programs search, beside the system's; ``loaded`` are libraries (patterns) and ``data`` files which are
    opened at run time, so that nothing else tells that they are needed.
    """

    title: str
    packages: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ("amd64", "arm64")
    sdk: tuple[str, ...] = ()
    distribution: str = ""
    libraries: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    setup: str = ""  # shell words before cmake
    environment: tuple[tuple[str, str], ...] = ()  # of the finished image


VARIANTS: t.Mapping[str, Variant] = {
    "cpu": Variant("CPU"),
    "cuda": Variant(
        "NVIDIA CUDA",
        # NCCL serves tensor-split over several GPUs only and is 200 MB; without it ggml copies between them itself
        flags=("-DGGML_CUDA=ON", "-DGGML_CUDA_NCCL=OFF"),
        environment=(("NVIDIA_DRIVER_CAPABILITIES", "compute,utility"),),
    ),
    "rocm": Variant(
        "AMD ROCm",
        flags=(
            "-DGGML_HIP=ON",
            # every GPU that rocBLAS of this SDK has kernels for
            "-DAMDGPU_TARGETS=gfx908;gfx90a;gfx942;gfx1030;gfx1100;gfx1101;gfx1102;gfx1150;gfx1151;gfx1200;gfx1201",
        ),
        architectures=("amd64",),
        sdk=(
            "docker.io/rocm/dev-ubuntu-24.04:7.2.1-complete",
            "docker.m.daocloud.io/rocm/dev-ubuntu-24.04:7.2.1-complete",
        ),
        distribution="ubuntu:noble",
        libraries=("/opt/rocm/lib",),
        data=("/opt/rocm/lib/rocblas/library", "/opt/rocm/lib/hipblaslt/library"),
        setup='HIPCXX="$(hipconfig -l)/clang" HIP_PATH="$(hipconfig -R)"',
    ),
    "musa": Variant(
        "Moore Threads MUSA",
        packages=("musa-mualg-5-2", "musa-muthrust-5-2", "libmthreads-compute"),
        flags=("-DGGML_MUSA=ON",),
        architectures=("amd64",),
        sdk=("registry.mthreads.com/mcconline/musa_sdk:5.2.0-devel-ubuntu22.04-s5000",),
        distribution="ubuntu:jammy",
        libraries=("/usr/local/musa/lib",),
        environment=(("MTHREADS_DRIVER_CAPABILITIES", "compute,utility"),),
    ),
    "intel": Variant(
        "Intel SYCL",
        flags=(
            "-DGGML_SYCL=ON",
            "-DGGML_SYCL_F16=ON",
            "-DCMAKE_C_COMPILER=icx",
            "-DCMAKE_CXX_COMPILER=icpx",
        ),
        architectures=("amd64",),
        sdk=(
            "docker.io/intel/oneapi-toolkit:2026.1.1-devel-ubuntu24.04",
            "docker.m.daocloud.io/intel/oneapi-toolkit:2026.1.1-devel-ubuntu24.04",
        ),
        distribution="ubuntu:noble",
        packages=("libze-dev", "libze-intel-gpu1", "intel-opencl-icd"),
        libraries=("/opt/intel/oneapi/redist/lib",),
        # SYCL opens its adapters, the adapters open the driver, and MKL the code for the processor it finds
        loaded=(
            "/opt/intel/oneapi/redist/lib/libur_adapter_*.so.0",
            "/opt/intel/oneapi/redist/lib/libmkl_*avx*.so.?",
            "/usr/lib/*/libze_intel_gpu.so.1",
            "/usr/lib/*/intel-opencl/libigdrcl.so",
        ),
        data=("/etc/OpenCL/vendors",),
    ),
    "vulkan": Variant(
        "Vulkan",
        packages=("glslc", "libvulkan-dev", "mesa-vulkan-drivers", "spirv-headers"),
        flags=("-DGGML_VULKAN=ON",),
        loaded=("/usr/lib/*/libvulkan_*.so",),
        data=("/usr/share/vulkan/icd.d",),
        environment=(("NVIDIA_DRIVER_CAPABILITIES", "graphics,compute,utility"),),
    ),
}

COMMON_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    # the programs share one copy of the libraries, found beside them
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    # linked in, so that a back-end whose driver is missing is an error and not a silent fall-back to the processor
    "-DGGML_BACKEND_DL=OFF",
    # the image may travel to another host than the one that builds it
    "-DGGML_NATIVE=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    # both would fetch from the network while building
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_ALL_WARNINGS=OFF",
)
"""For every image. None of them may depend on the host that builds."""
