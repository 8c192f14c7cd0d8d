#!/usr/bin/python
"""Tell what GPUs a host has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Tell what GPUs a host has and whether their driver answers
description:
  - Asks C(nvidia-smi), wherever it is (WSL2 keeps its own), then the driver's libraries for what an old C(nvidia-smi)
    does not tell, and reads the PCI bus.
  - Tells an NVIDIA GPU without a working driver from no GPU at all, with the reason and the fix.
  - What no source tells is null; nothing is guessed.
  - GPUs of other vendors are listed, but no verdict is built on them.
options:
  nvidia_smi:
    description:
      - Path of the C(nvidia-smi) to ask. Empty means that of C(/usr/lib/wsl/lib) where there is one, else that on the
        PATH, else that in C(/usr/bin).
    type: path
    default: ""
  sysfs_root:
    description:
      - Where sysfs is mounted.
    type: path
    default: /sys
  timeout:
    description:
      - Seconds to wait for each answer of C(nvidia-smi), which hangs on a sick driver; two more for each GPU after the
        fourth, since GPUs that nothing keeps awake are woken one by one.
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
    memory_total_bytes: {description: Its own memory in bytes; null with unified memory., type: int}
    memory_free_bytes: {description: 'The part of it that is free, in bytes.', type: int}
    unified_memory: {description: 'Whether it shares the memory of the host, as GB10 and Thor do.', type: bool}
    compute_capability: {description: 'CUDA compute capability, such as 8.6.', type: str}
    capability_source: {description: 'C(nvidia-smi), C(libcuda), C(nvml), or C(table): by its product name.', type: str}
    driver_loaded: {description: Whether its vendor's kernel driver holds it., type: bool}
    usable: {description: Whether a service can be given this GPU., type: bool}
    pci_address: {description: Address on the PCI bus (under WSL2 on that of Windows)., type: str}
    pci_id: {description: Vendor and device number on the PCI bus; null under WSL2., type: str}
    numa_node: {description: The NUMA node it is attached to; null where there is one only., type: int}
    power_limit_watts: {description: The power it is limited to., type: float}
    display_attached: {description: Whether a display is connected to it., type: bool}
    mig_mode: {description: 'C(enabled) or C(disabled); null for a GPU that knows no MIG.', type: str}
    mig_devices:
      description: Its MIG devices; null for a GPU that knows no MIG.
      type: list
      elements: dict
      contains:
        index: {description: Index on its GPU., type: int}
        uuid: {description: UUID to hand to containers., type: str}
        profile: {description: 'Profile, such as 1g.10gb.', type: str}
        gpu_instance: {description: Number of its GPU instance., type: int}
        compute_instance: {description: Number of its compute instance., type: int}
        memory_total_bytes: {description: Its memory in bytes., type: int}
        memory_free_bytes: {description: 'The part of it that is free, in bytes.', type: int}
    processes:
      description: What uses it, as far as nvidia-smi is allowed to see; null when that is unknown.
      type: list
      elements: dict
      contains:
        pid: {description: Process number on the host., type: int}
        name: {description: The program without its arguments., type: str}
        type: {description: 'C(C) for computing, C(G) for graphics, C(C+G) for both.', type: str}
        memory_bytes: {description: GPU memory that it uses., type: int}
architectures:
  description: Compute capabilities of the usable NVIDIA GPUs as compilers write them, without repetition, lowest first.
  returned: success
  type: list
  elements: str
  sample: ["86", "90"]
cuda_version:
  description: The highest CUDA version that the driver supports, or null.
  returned: success
  type: str
  sample: "12.8"
problems:
  description: What is wrong with GPUs and their driver.
  returned: success
  type: list
  elements: dict
  contains:
    cause: {description: What is wrong., type: str}
    fix: {description: What to do., type: str}
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
