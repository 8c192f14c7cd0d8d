"""What nvidia-smi complains about, and what to do. Pure; the sentences are those of nvidia-smi and NVML."""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.llmfleet.gpu_smi import words
from ansible.module_utils.llmfleet.gpus import PciDevice, Problem, SmiAnswer

_LOAD = "load the driver's kernel module (modprobe nvidia; with Secure Boot it must be signed)"
_LOST = (
    "reboot the host; if it comes back, look for Xid 79 in the kernel log (dmesg) and check the GPU's power and cooling"
)
MISMATCH = "version mismatch"
FIXES = (
    (
        MISMATCH,
        "reboot the host, so that the kernel module matches the driver just installed; unattended upgrades do this "
        "unless the driver's packages are held",
    ),
    ("couldn't communicate", _LOAD),
    ("driver not loaded", _LOAD),
    ("libnvidia-ml", "reinstall the driver: its management library is missing"),
    ("insufficient permissions", "give the user access to /dev/nvidia*, or run as root"),
    ("permission denied", "give the user access to nvidia-smi and /dev/nvidia*, or run as root"),
    ("requires reset", "stop what uses the GPU and reset it (nvidia-smi --gpu-reset), or reboot the host"),
    ("is lost", _LOST),
    ("fallen off", _LOST),
    ("unable to determine the device handle", _LOST),
    ("no devices were found", "look for NVRM messages in the kernel log (dmesg)"),
    ("inforom is corrupted", "the GPU works; have its infoROM repaired by the vendor when errors follow"),
    ("err!", _LOST),
    ("unknown error", _LOST),
)
"""(words in small letters, fix): the first that occurs counts."""
OTHERWISE = "reinstall the NVIDIA driver or reboot the host"
WSL_FIX = "update the NVIDIA driver in Windows, then run wsl --shutdown"


def fix_of(text: str) -> str | None:
    """Return what to do about nvidia-smi's words, None when they mean nothing known."""
    return next((fix for pattern, fix in FIXES if pattern in text.lower()), None)


def hanging(question: str, seconds: float) -> Problem:
    """Return the problem of a question that got no answer in time."""
    return Problem(
        f"{question} gave no answer within {seconds:g} s",
        "reboot the host, a GPU or its driver hangs; where GPUs are only slow to wake, let them stay awake (systemctl "
        "enable --now nvidia-persistenced)",
    )


def failure(smi: SmiAnswer, module_version: str | None = None) -> Problem:
    """Return what went wrong with an nvidia-smi that listed no GPU."""
    if smi.rc is None:
        return hanging(smi.path, smi.seconds)
    lines = list(words(smi.out, smi.err))
    # the line after the first ("NVML library version: ...") only adds figures
    said = lines[0].rstrip(".") if lines else f"exit status {smi.rc} without a word"
    text = " ".join(lines)
    library = re.search(r"library version: *([\d.]+)", text)
    if MISMATCH in text.lower() and module_version and library:
        said += f" (the kernel module is {module_version}, the library {library[1]})"
    return Problem(f"{smi.path} says: {said}", fix_of(text) or OTHERWISE)


def without_smi(device: PciDevice, module_version: str | None, wanted: str) -> Problem:
    """Return why no nvidia-smi answers for ``device``."""
    if device.driver == "vfio-pci":
        return Problem("it is set aside for virtual machines (vfio-pci)", "unbind it from vfio-pci to use it here")
    if module_version:
        return Problem(
            f"{wanted} was not found though driver {module_version} is loaded", "install the driver's utilities"
        )
    held = f" (the {device.driver} driver holds it)" if device.driver else ""
    return Problem(f"its driver is not: {wanted} was not found{held}", "install the driver")


def of_lines(lines: t.Iterable[str]) -> list[Problem]:
    """Return the problems among nvidia-smi's remarks; one that means nothing known is none."""
    found = ((line.rstrip("."), fix_of(line)) for line in lines)
    return list(dict.fromkeys(Problem(f"nvidia-smi says: {line}", fix) for line, fix in found if fix))
