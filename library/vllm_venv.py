#!/usr/bin/python
"""Provide a Python environment with vLLM on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_venv
short_description: Provide a Python environment with vLLM on a host
description:
  - Makes sure of a Python environment with vLLM, for hosts that cannot run containers. For CPUs it has the versions
    that this project's image has; for GPUs the release that is asked for, with what it names itself.
  - One that was made of the same versions is kept, however the network is doing. It has its name only when it is whole.
options:
  state:
    description: Whether it is there, or everything this module made is gone that no service runs from.
    type: str
    choices: [present, absent]
    default: present
  variant:
    description: What vLLM computes on.
    type: str
    choices: [cpu, cuda]
    default: cpu
  version: {description: "Version of vLLM, for C(cuda).", type: str, default: ''}
  python:
    description: Python to make it with. Empty takes the distribution's own, or a newer one beside it.
    type: str
    default: ''
  root: {description: Folder of the environments., type: path, default: /opt/llmfleet}
  torch_indexes:
    description: Package indexes or pages with PyTorch for CPUs. Local files of pip's find-links go before.
    type: list
    elements: str
    default:
      - https://download.pytorch.org/whl/cpu
      - https://mirrors.nju.edu.cn/pytorch/whl/cpu
      - https://mirror.sjtu.edu.cn/pytorch-wheels/cpu
      - https://mirrors.aliyun.com/pytorch-wheels/cpu
  pypi_index: {description: Package index. Empty takes the one the host's pip is set up with., type: str, default: ''}
  pypi_index_fallback: {description: Package index for hosts that have no pip to ask., type: str, default: ''}
  ca_bundle: {description: CA certificates to trust. Empty takes the host's., type: path, default: ''}
  work_dir: {description: Where logs and the engine's caches are kept., type: path, default: /var/lib/llmfleet}
  timeout: {description: Seconds that one step may take., type: int, default: 7200}
attributes:
  check_mode:
    support: full
    description: Probes what would be used and changes nothing.
  diff_mode:
    support: none
    description: An environment is there or not.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Make the environment for CPUs unless it is there
  vllm_venv:

- name: Make the one for GPUs
  vllm_venv:
    variant: cuda
    version: 0.33.0

- name: Remove the environments that no service runs from
  vllm_venv:
    state: absent
"""

RETURN = r"""
action: {description: 'C(keep), C(build) or C(remove), done or to be done.', returned: success, type: str}
venv: {description: Folder of the environment., returned: state is present, type: str}
python: {description: The Python that it is made with., returned: state is present, type: str}
why: {description: The reason for I(action)., returned: state is present, type: str}
removed: {description: Folders and files removed., returned: state is absent, type: list, elements: str}
in_use: {description: 'Environments that stay, with the services in them.', returned: state is absent, type: dict}
tried: {description: Places as they were tried with the results., returned: always, type: list, elements: dict}
log: {description: Log file on the host. Empty when there was nothing to log., returned: always, type: str}
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.python_parts import TORCH_INDEXES
from ansible.module_utils.llmfleet.venv import recipe
from ansible.module_utils.llmfleet.venv.job import VenvJob, remove
from ansible.module_utils.llmfleet.venv.service_spec import UNITS

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "variant": {"type": "str", "choices": ["cpu", "cuda"], "default": "cpu"},
    "version": {"type": "str", "default": ""},
    "python": {"type": "str", "default": ""},
    "root": {"type": "path", "default": recipe.ROOT},
    "torch_indexes": {"type": "list", "elements": "str", "default": list(TORCH_INDEXES)},
    "pypi_index": {"type": "str", "default": ""},
    "pypi_index_fallback": {"type": "str", "default": ""},
    "ca_bundle": {"type": "path", "default": ""},
    "work_dir": {"type": "path", "default": "/var/lib/llmfleet"},
    "timeout": {"type": "int", "default": 7200},
}


def main() -> None:
    """Provide or remove, and report."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params: dict[str, t.Any] = module.params
    job = None
    try:
        if params["state"] == "absent":
            gone = remove(Path(params["root"]), Path(UNITS), Path(params["work_dir"]), module.check_mode)
            module.exit_json(**gone, tried=[], log="")
        job = VenvJob(params, module.check_mode)
        result = job.provide()
        module.exit_json(**result, tried=job.tried, log=job.log.name())
    except (LlmfleetError, OSError) as problem:
        module.fail_json(msg=str(problem), tried=job.tried if job else [], log=job.log.name() if job else "")


if __name__ == "__main__":
    main()
