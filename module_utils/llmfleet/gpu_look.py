"""Looking for GPUs on this host. Edge code, shared by the modules gpu_info and host_info."""

from __future__ import annotations

import glob
import os
import shutil
import typing as t

from ansible.module_utils.llmfleet.gpus import (
    CAPABILITY_QUERY,
    QUERY,
    SEARCH_DIRS,
    PciDevice,
    SmiAnswer,
    judge,
    parse_query,
)
from ansible.module_utils.llmfleet.timed_run import timed_run


def read_line(path: str) -> str:
    """Return the content of a sysfs file, or "" where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def read_bus(sysfs_root: str) -> list[PciDevice]:
    """Return the functions on the PCI bus, in the order of their addresses."""
    devices = []
    for path in sorted(glob.glob(os.path.join(glob.escape(sysfs_root), "bus/pci/devices/*"))):
        vendor_id, device_id, class_id = (
            read_line(os.path.join(path, name)).replace("0x", "") for name in ("vendor", "device", "class")
        )
        driver = os.path.join(path, "driver")
        devices.append(
            PciDevice(
                address=os.path.basename(path),
                vendor_id=vendor_id,
                device_id=device_id,
                class_id=class_id,
                driver=os.path.basename(os.path.realpath(driver)) if os.path.exists(driver) else "",
                virtual_function=os.path.lexists(os.path.join(path, "physfn")),
            )
        )
    return devices


def find_nvidia_smi(wanted: str) -> str | None:
    """Return the nvidia-smi to ask, or None."""
    places = os.pathsep.join([os.environ.get("PATH", ""), *SEARCH_DIRS])
    return shutil.which(wanted, path=places)


def ask(path: str, seconds: int) -> SmiAnswer:
    """Return nvidia-smi's answers; the second question is not asked of one that hangs or knows no GPU."""
    first = timed_run([path, *QUERY], seconds)
    capabilities = ""
    if not first.timed_out and parse_query(first.out)[0]:
        capabilities = timed_run([path, *CAPABILITY_QUERY], seconds).out
    return SmiAnswer(path, first.rc, first.out, first.err, capabilities, float(seconds))


def look(nvidia_smi: str = "", sysfs_root: str = "/sys", timeout: int = 20) -> dict[str, t.Any]:
    """Return what the module gpu_info returns; the arguments are its options."""
    wanted = nvidia_smi or "nvidia-smi"
    path = find_nvidia_smi(wanted)
    smi = ask(path, timeout) if path else None
    version = read_line(os.path.join(sysfs_root, "module/nvidia/version")) or None
    return judge(read_bus(sysfs_root), smi, version, wanted).as_result()
