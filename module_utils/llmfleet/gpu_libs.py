"""Asking the driver's own libraries about GPUs: what old versions of nvidia-smi do not tell.

Runs as a program of its own (``python -c``): a call into a sick driver may never return or take the process down with
it, so it needs the standard library only and prints each library's answer as soon as it has it. Symbols and numbers
are those of cuda.h and nvml.h, whose binary interface does not change.
"""

from __future__ import annotations

import ctypes
import json
import os
import typing as t

LIBCUDA, NVML = "libcuda", "nvml"
FILES = {LIBCUDA: "libcuda.so.1", NVML: "libnvidia-ml.so.1"}
WSL_DIR = "/usr/lib/wsl/lib"
CAPABILITY_MAJOR, CAPABILITY_MINOR, INTEGRATED = 75, 76, 18


def load(name: str) -> t.Any:
    """Return the library, or None; WSL2's folder is not always known to the loader."""
    for path in (FILES[name], os.path.join(WSL_DIR, FILES[name])):
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


def called(library: t.Any, name: str, *arguments: t.Any) -> bool:
    """Call a function of the library; False when it fails or an old library does not have it."""
    function = getattr(library, name, None)
    return function is not None and function(*arguments) == 0


def version_text(number: int) -> str | None:
    """Return "12.8" for 12080."""
    return f"{number // 1000}.{number % 1000 // 10}" if number >= 1000 else None


def uuid_text(raw: bytes) -> str:
    """Return the 16 bytes of a UUID the way nvidia-smi writes them."""
    digits = raw.hex()
    return "GPU-" + "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def cuda_gpu(cuda: t.Any, index: int) -> dict[str, t.Any] | None:
    """Return what libcuda knows of one device."""
    device, uuid, bus = ctypes.c_int(), ctypes.create_string_buffer(16), ctypes.create_string_buffer(32)
    if not called(cuda, "cuDeviceGet", ctypes.byref(device), index):
        return None
    attributes = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR, INTEGRATED):
        value = ctypes.c_int()
        good = called(cuda, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        attributes.append(value.value if good else None)
    major, minor, integrated = attributes
    return {
        "uuid": uuid_text(uuid.raw) if called(cuda, "cuDeviceGetUuid", uuid, device) else None,
        "pci": bus.value.decode("ascii", "replace") if called(cuda, "cuDeviceGetPCIBusId", bus, 32, device) else None,
        "capability": None if major is None or minor is None else f"{major}.{minor}",
        "integrated": None if integrated is None else bool(integrated),
    }


def ask_cuda(cuda: t.Any) -> dict[str, t.Any]:
    """Return {cuda: highest version, gpus} from libcuda, opened as ``cuda``. Makes no context on any GPU."""
    version, count = ctypes.c_int(), ctypes.c_int()
    # a stub (the toolkit has one to link against) loads, but its functions fail
    known = called(cuda, "cuDriverGetVersion", ctypes.byref(version))
    if called(cuda, "cuInit", 0):
        called(cuda, "cuDeviceGetCount", ctypes.byref(count))
    gpus = [cuda_gpu(cuda, index) for index in range(count.value)]
    return {"cuda": version_text(version.value) if known else None, "gpus": [gpu for gpu in gpus if gpu]}


def nvml_gpu(nvml: t.Any, index: int) -> dict[str, t.Any] | None:
    """Return what NVML knows of one device; None for a GPU that is lost."""
    device, uuid = ctypes.c_void_p(), ctypes.create_string_buffer(96)
    major, minor = ctypes.c_int(), ctypes.c_int()
    if not called(nvml, "nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(device)):
        return None
    good = called(nvml, "nvmlDeviceGetCudaComputeCapability", device, ctypes.byref(major), ctypes.byref(minor))
    return {
        "uuid": uuid.value.decode("ascii", "replace") if called(nvml, "nvmlDeviceGetUUID", device, uuid, 96) else None,
        "capability": f"{major.value}.{minor.value}" if good else None,
    }


def ask_nvml(nvml: t.Any) -> dict[str, t.Any]:
    """Return {cuda: highest version, gpus} from NVML, opened as ``nvml``."""
    version, count = ctypes.c_int(), ctypes.c_uint()
    if not called(nvml, "nvmlInit_v2"):
        return {"cuda": None, "gpus": []}
    known = called(nvml, "nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(version)) or called(
        nvml, "nvmlSystemGetCudaDriverVersion", ctypes.byref(version)
    )
    called(nvml, "nvmlDeviceGetCount_v2", ctypes.byref(count))
    gpus = [nvml_gpu(nvml, index) for index in range(count.value)]
    called(nvml, "nvmlShutdown")
    return {"cuda": version_text(version.value) if known else None, "gpus": [gpu for gpu in gpus if gpu]}


def main() -> None:
    """Print one line of JSON per library that is there."""
    # libcuda would hide GPUs from us as it does from the user's own programs
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    for name, ask in ((NVML, ask_nvml), (LIBCUDA, ask_cuda)):
        library = load(name)
        if library is not None:
            print(json.dumps({"library": name, **ask(library)}), flush=True)


if __name__ == "__main__":
    main()
