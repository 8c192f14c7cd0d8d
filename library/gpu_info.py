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

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import gpu_look

ARGUMENT_SPEC = {
    "nvidia_smi": {"type": "path", "default": ""},
    "sysfs_root": {"type": "path", "default": "/sys"},
    "timeout": {"type": "int", "default": 20},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(changed=False, **gpu_look.look(**module.params))


if __name__ == "__main__":
    main()
