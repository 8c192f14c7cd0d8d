#!/usr/bin/python
"""Everything the plan needs to know of a host, in one visit."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_info
short_description: Look at everything on a host that the plan depends on, in one visit
description:
  - Returns what M(gpu_info) and M(docker_engine_info) return, and the platform, machine, packages, daemon settings,
    disks, clock and llama.cpp images. One module instead of many, because the plan is made at every run, and on many
    hosts each visit costs.
options:
  timeout:
    description:
      - Seconds that each program asked may take.
    type: int
    default: 20
attributes:
  check_mode:
    description: Looks all the same, since it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Look at the host
  host_info:
  become: true
  register: __host
"""

RETURN = r"""
platform:
  description: The distribution and the machine.
  returned: always
  type: dict
  contains:
    os_family: {description: 'C(Debian), C(RedHat) or its own ID.', type: str, sample: Debian}
    distribution: {description: Its name., type: str, sample: Ubuntu}
    distribution_id: {description: Its ID in os-release., type: str, sample: ubuntu}
    distribution_version: {description: Its version., type: str, sample: "24.04"}
    codename:
      description: Its codename, that of the Ubuntu it is made from where it says so.
      type: str
      sample: noble
    architecture: {description: As C(uname -m) names it., type: str, sample: x86_64}
    wsl: {description: Whether it runs under WSL., type: bool}
    kernel: {description: The kernel's release., type: str}
    cgroup_version: {description: C(1) or C(2)., type: str}
    package_manager: {description: 'C(apt), C(dnf) or empty.', type: str}
gpu:
  description: See M(gpu_info).
  returned: always
  type: dict
docker:
  description: See M(docker_engine_info).
  returned: always
  type: dict
packages:
  description: Packages of docker engines and of the NVIDIA container toolkit.
  returned: always
  type: dict
  contains:
    installed: {description: Version by name., type: dict, sample: {docker.io: 20.10.24+dfsg1-1+b3}}
    held: {description: Names of those held at their version., type: list, elements: str}
daemon:
  description: What the docker daemon of this host is told.
  returned: always
  type: dict
  contains:
    path: {description: Its daemon.json., type: str, sample: /etc/docker/daemon.json}
    text: {description: Content of that file; null when there is none or it cannot be read., type: str}
    error: {description: 'Why it cannot be read, else empty.', type: str}
    record: {description: What docker_daemon_config wrote down of its own work., type: dict}
    flags:
      description: Keys that its command line sets already, with the flag and where it was found.
      type: dict
      sample: {hosts: "-H fd:// (/lib/systemd/system/docker.service)"}
toolkit:
  description: What is there of the NVIDIA container toolkit.
  returned: always
  type: dict
  contains:
    ctk: {description: 'Path of C(nvidia-ctk), or empty.', type: str}
    hook: {description: 'Path of the hook through which engines reach GPUs, or empty.', type: str}
    hook_changed_at: {description: When it was put there (epoch); null without it., type: float}
    cdi_specs: {description: The CDI specifications., type: list, elements: str}
disks:
  description:
    - Room where the engine and containerd keep images, or will keep them. Empty when the engine is on another machine.
  returned: always
  type: list
  elements: dict
  contains:
    path: {description: The folder., type: str, sample: /var/lib/docker}
    free_bytes: {description: Free bytes there., type: int}
    total_bytes: {description: Size of the file system., type: int}
clock:
  description: C(epoch), the host's clock in seconds since the epoch.
  returned: always
  type: dict
package_lock:
  description: Whether the package manager's lock is held, and by whom; see M(package_lock_info).
  returned: always
  type: dict
apt_sources:
  description: Files of apt's sources that name the repositories of C(docker) (Docker CE) and C(nvidia) (its toolkit).
  returned: always
  type: dict
registry_hosts:
  description: The mirrors by registry in the hosts.toml files that the role docker_engine wrote.
  returned: always
  type: dict
  sample: {ghcr.io: ["https://ghcr.m.daocloud.io"]}
machine:
  description: What work the host can do.
  returned: always
  type: dict
  contains:
    cpus: {description: Processors that may be used., type: int}
    memory_bytes: {description: Memory of the machine; 0 when it cannot be read., type: int}
    cpu_level:
      description: Best processor level (see M(llama_cpp_image)) that every core has; empty for another architecture.
      type: str
      sample: x86-64-v3
    built_at: {description: When an image was made here last (epoch); null for never., type: float}
images:
  description: Images of repositories named llama.cpp, newest first. Empty without an engine that answers.
  returned: always
  type: list
  elements: dict
  contains:
    references: {description: 'Its names, with tag and with digest.', type: list, elements: str}
    id: {description: Its id., type: str}
    size_bytes: {description: Its size., type: int}
    created: {description: When it was made., type: str, sample: "2026-11-02T10:20:30Z"}
    labels:
      description: Labels that begin with C(io.llmfleet.) or C(org.opencontainers.image.).
      type: dict
    layers: {description: 'Digests of its layers, lowest first.', type: list, elements: str}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import daemon_look, engine_look, gpu_look, host_look

ARGUMENT_SPEC: dict[str, t.Any] = {"timeout": {"type": "int", "default": 20}}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    seconds = module.params["timeout"]
    platform, docker = host_look.platform(), engine_look.look(seconds)
    module.exit_json(
        changed=False,
        platform=platform,
        gpu=gpu_look.look(timeout=seconds),
        docker=docker,
        daemon=daemon_look.look(seconds),
        **host_look.look(platform, docker, seconds),
    )


if __name__ == "__main__":
    main()
