"""Looking for GPUs on this host. Edge code, shared by the modules gpu_info and host_info."""

from __future__ import annotations

import glob
import inspect
import os
import shutil
import sys
import typing as t

from ansible.module_utils.llmfleet import gpu_libs
from ansible.module_utils.llmfleet.gpu_merge import parse_libraries
from ansible.module_utils.llmfleet.gpu_smi import (
    DETAILS_QUERY,
    LIST_QUERY,
    OLD_QUERY,
    QUERY,
    parse_query,
    refused,
)
from ansible.module_utils.llmfleet.gpu_verdict import judge, leaves_open
from ansible.module_utils.llmfleet.gpu_xml import parse_details
from ansible.module_utils.llmfleet.gpus import ACCELERATOR_CLASS, DISPLAY_CLASS, NVIDIA, PciDevice, SmiAnswer
from ansible.module_utils.llmfleet.timed_run import timed_run

SMI = "nvidia-smi"
WSL_SMI = "/usr/lib/wsl/lib/nvidia-smi"
SEARCH_DIRS = ("/usr/bin",)
FEW_GPUS, WAKING_SECONDS = 4, 2
"""GPUs that nothing keeps awake are woken one after the other for each answer."""


def read_line(path: str) -> str:
    """Return the content of a sysfs file, or "" where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def read_bus(sysfs_root: str) -> list[PciDevice]:
    """Return the displays and accelerators on the PCI bus, in the order of their addresses."""
    devices = []
    for path in sorted(glob.glob(os.path.join(glob.escape(sysfs_root), "bus/pci/devices/*"))):
        class_id = read_line(os.path.join(path, "class")).replace("0x", "")
        # servers have hundreds of functions: the others cost one look each
        if not class_id.startswith((DISPLAY_CLASS, ACCELERATOR_CLASS)):
            continue
        vendor_id, device_id = (read_line(os.path.join(path, name)).replace("0x", "") for name in ("vendor", "device"))
        driver = os.path.join(path, "driver")
        node = read_line(os.path.join(path, "numa_node"))
        devices.append(
            PciDevice(
                address=os.path.basename(path),
                vendor_id=vendor_id,
                device_id=device_id,
                class_id=class_id,
                driver=os.path.basename(os.path.realpath(driver)) if os.path.exists(driver) else "",
                virtual_function=os.path.lexists(os.path.join(path, "physfn")),
                # -1 where the host has one node, or its firmware does not tell
                numa_node=int(node) if node.isdigit() else None,
            )
        )
    return devices


def find_nvidia_smi(wanted: str) -> str | None:
    """Return the nvidia-smi to ask, or None."""
    # a driver for Linux, installed in WSL2 by mistake, has one on the PATH that never finds a GPU
    if wanted == SMI and os.access(WSL_SMI, os.X_OK):
        return WSL_SMI
    return shutil.which(wanted, path=os.pathsep.join([os.environ.get("PATH", ""), *SEARCH_DIRS]))


def ask(path: str, seconds: int) -> SmiAnswer:
    """Return nvidia-smi's answers to two questions, three with an old driver or MIG devices.

    Without an answer to the first there is nothing to ask further.
    """
    first = timed_run([path, *QUERY], seconds)
    old = not first.timed_out and refused(first.out, first.err)
    if not old and (first.timed_out or not parse_query(first.out)[0]):
        return SmiAnswer(path, first.rc, first.out, first.err, seconds=float(seconds))

    second = timed_run([path, *DETAILS_QUERY], seconds)
    hung = " ".join((path, *DETAILS_QUERY)) if second.timed_out else ""
    details = None if second.timed_out else parse_details(second.out)
    if old and not (details and details.gpus):
        first = timed_run([path, *OLD_QUERY], seconds)
        return SmiAnswer(
            path, first.rc, first.out, first.err, second.out, with_capability=False, hung=hung, seconds=float(seconds)
        )
    listing = ""
    if details and any(gpu.mig_mode == "enabled" for gpu in details.gpus):
        listing = timed_run([path, *LIST_QUERY], seconds).out
    out = "" if old else first.out
    return SmiAnswer(
        path, second.rc if old else first.rc, out, first.err, second.out, listing, not old, hung, float(seconds)
    )


def ask_libraries(seconds: int) -> str:
    """Return what the driver's libraries say, asked by a process of its own."""
    program = inspect.getsource(gpu_libs)
    return timed_run([sys.executable or "python3", "-I", "-c", program], seconds).out


def patience(timeout: int, bus: t.Sequence[PciDevice]) -> int:
    """Return the seconds to wait for an answer about the GPUs of ``bus``."""
    return timeout + WAKING_SECONDS * max(0, sum(device.vendor == NVIDIA for device in bus) - FEW_GPUS)


def look(nvidia_smi: str = "", sysfs_root: str = "/sys", timeout: int = 20) -> dict[str, t.Any]:
    """Return what the module gpu_info returns; the arguments are its options."""
    wanted = nvidia_smi or SMI
    path = find_nvidia_smi(wanted)
    version = read_line(os.path.join(sysfs_root, "module/nvidia/version")) or None
    bus = read_bus(sysfs_root)
    seconds = patience(timeout, bus)
    smi = ask(path, seconds) if path else None
    report = judge(bus, smi, version, wanted)
    # where nvidia-smi hangs the libraries do as well
    if leaves_open(report) and not (smi and smi.hung):
        report = judge(bus, smi, version, wanted, parse_libraries(ask_libraries(seconds)))
    return report.as_result()
