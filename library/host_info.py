#!/usr/bin/python
"""Everything the plan needs to know of a host, in one visit."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_info
short_description: Look at a host's platform, GPUs and docker engine in one visit
description:
  - Returns what M(gpu_info) and M(docker_engine_info) return, and the platform. One module instead of three, because
    the plan is made at every run, and on many hosts each visit costs.
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
  description: The distribution and the machine's architecture as C(uname -m) names it.
  returned: always
  type: dict
  sample:
    os_family: Debian
    distribution: Ubuntu
    distribution_version: "24.04"
    codename: noble
    architecture: x86_64
gpu:
  description: See M(gpu_info).
  returned: always
  type: dict
docker:
  description: See M(docker_engine_info).
  returned: always
  type: dict
"""

import os
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import engine_look, gpu_look
from ansible.module_utils.llmfleet.platform_facts import distribution

ARGUMENT_SPEC: dict[str, t.Any] = {"timeout": {"type": "int", "default": 20}}
OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    seconds = module.params["timeout"]
    text = next((Path(path).read_text(encoding="utf-8") for path in OS_RELEASE if os.path.exists(path)), "")
    module.exit_json(
        changed=False,
        platform={**distribution(text), "architecture": os.uname().machine},
        gpu=gpu_look.look(timeout=seconds),
        docker=engine_look.look(seconds),
    )


if __name__ == "__main__":
    main()
