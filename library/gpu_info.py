#!/usr/bin/python
"""Tell what GPUs a host has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Tell what GPUs a host has and whether their driver answers
description:
  - Asks C(nvidia-smi), wherever it is (WSL2 keeps its own), and reads the PCI bus.
  - Tells an NVIDIA GPU without a working driver from no GPU at all, with the reason and the fix.
  - GPUs of other vendors are listed, but no verdict is built on them.
options:
  nvidia_smi:
    description:
      - Path of the C(nvidia-smi) to ask. Empty means to look on the PATH, in C(/usr/bin) and in C(/usr/lib/wsl/lib).
    type: path
    default: ""
  sysfs_root:
    description:
      - Where sysfs is mounted.
    type: path
    default: /sys
  timeout:
    description:
      - Seconds to wait for C(nvidia-smi), which hangs on a sick driver.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Look for GPUs
  gpu_info:
  register: __gpu

- name: Say what was found
  ansible.builtin.debug:
    msg: "{{ __gpu['verdict'] }}: {{ __gpu['reason'] }}"
"""

RETURN = r"""
verdict:
  description: C(gpu) when an NVIDIA GPU answers, C(no_driver) when one is there and its driver is not, else C(none).
  returned: success
  type: str
  sample: no_driver
reason:
  description: The verdict in one sentence, with the fix where there is something to fix.
  returned: success
  type: str
  sample: no NVIDIA GPU on the PCI bus
gpus:
  description: The GPUs. What only a driver knows is null without one.
  returned: success
  type: list
  elements: dict
  contains:
    index: {description: Index as nvidia-smi counts., type: int}
    uuid: {description: UUID to hand to containers., type: str}
    name: {description: Product name., type: str}
    vendor: {description: 'C(nvidia), C(amd), C(intel) or C(moore_threads).', type: str}
    memory_mib: {description: Its own memory in MiB; null with unified memory., type: int}
    compute_capability: {description: 'CUDA compute capability, such as 8.6.', type: str}
    driver_loaded: {description: Whether its vendor's kernel driver holds it., type: bool}
    usable: {description: Whether a service can be given this GPU., type: bool}
    pci_address: {description: Address on the PCI bus; null when nvidia-smi listed it., type: str}
    pci_id: {description: Vendor and device number on the PCI bus; null when nvidia-smi listed it., type: str}
driver_version:
  description: Version of the NVIDIA driver, or null.
  returned: success
  type: str
nvidia_smi:
  description: The nvidia-smi that was asked, or null.
  returned: success
  type: str
remarks:
  description: What nvidia-smi had to complain about beside its answer.
  returned: success
  type: list
  elements: str
"""

import glob
import os
import shutil

from ansible.module_utils.basic import AnsibleModule
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

ARGUMENT_SPEC = {
    "nvidia_smi": {"type": "path", "default": ""},
    "sysfs_root": {"type": "path", "default": "/sys"},
    "timeout": {"type": "int", "default": 20},
}


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


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    wanted = params["nvidia_smi"] or "nvidia-smi"
    path = find_nvidia_smi(wanted)
    smi = ask(path, params["timeout"]) if path else None
    version = read_line(os.path.join(params["sysfs_root"], "module/nvidia/version")) or None
    report = judge(read_bus(params["sysfs_root"]), smi, version, wanted)
    module.exit_json(changed=False, **report.as_result())


if __name__ == "__main__":
    main()
