#!/usr/bin/python
"""Provide a vLLM image: keep it, pull it or build it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_image
short_description: Provide a vLLM image on a host
description:
  - Makes sure that the host's docker engine has a vLLM image. For GPUs the published one is pulled. For CPUs one is
    built from the packages that vLLM publishes, in versions that belong to this module.
  - An image that was made from the same inputs is kept, however the network is doing.
options:
  state:
    description: Whether the image is there, or everything this module made and kept is gone.
    type: str
    choices: [present, absent]
    default: present
  variant:
    description: What the image computes on.
    type: str
    choices: [cpu, cuda]
    default: cpu
  tag: {description: "Tag of the published image, for C(cuda).", type: str, default: ''}
  repositories:
    description: Repositories with the published image, in order.
    type: list
    elements: str
    default: [docker.io/vllm/vllm-openai, docker.m.daocloud.io/vllm/vllm-openai]
  base: {description: 'Distribution to build on, such as C(debian:bookworm). Empty: as here.', type: str, default: ''}
  base_images:
    description: Images of it, C({base}) being replaced. With none that answers, debootstrap makes one.
    type: list
    elements: str
    default: ['docker.io/library/{base}', 'docker.m.daocloud.io/library/{base}']
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
  ca_bundle: {description: CA certificates to trust when building. Empty takes the host's., type: path, default: ''}
  work_dir: {description: Where logs and the engine's caches are kept., type: path, default: /var/lib/llmfleet}
  docker_cli: {description: Docker client., type: path, default: docker}
  build_cli: {description: Docker client to build with. Empty takes one that offers BuildKit., type: path, default: ''}
  buildkit:
    description: How I(build_cli) offers BuildKit; C(none) uses the legacy builder.
    type: str
    choices: [auto, buildx, embedded, none]
    default: auto
  timeout: {description: 'Seconds one step (a pull, the build) may take.', type: int, default: 7200}
attributes:
  check_mode:
    support: full
    description: Probes what would be used and changes nothing.
  diff_mode:
    support: none
    description: An image is there or not.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Build the image for CPUs unless it is there
  vllm_image:

- name: Pull the image for GPUs
  vllm_image:
    variant: cuda
    tag: v0.33.0

- name: Remove the images, logs and caches
  vllm_image:
    state: absent
"""

RETURN = r"""
action: {description: 'C(keep), C(pull), C(build) or C(remove), done or to be done.', returned: success, type: str}
image: {description: What services are started from., returned: state is present, type: str}
why: {description: The reason for I(action)., returned: state is present, type: str}
image_id: {description: Id of the image. Empty while it is not there., returned: state is present, type: str}
size_bytes: {description: Size of the image. 0 while it is not there., returned: state is present, type: int}
base:
  description: How the image's base would be had, C(present), C(pull) or C(bootstrap).
  returned: in check mode when action is build
  type: str
pruned: {description: Older images that went., returned: state is present, type: list, elements: str}
removed: {description: Images and files removed., returned: state is absent, type: list, elements: str}
in_use: {description: 'Images that stay, with the containers that use them.', returned: state is absent, type: dict}
tried: {description: Candidates as they were tried with the results., returned: always, type: list, elements: dict}
log: {description: Log file on the host. Empty when there was nothing to log., returned: always, type: str}
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.host_edge import find_program
from ansible.module_utils.llmfleet.python_parts import TORCH_INDEXES
from ansible.module_utils.llmfleet.vllm_image_job import LEAVINGS, vllm_job

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "variant": {"type": "str", "choices": ["cpu", "cuda"], "default": "cpu"},
    "tag": {"type": "str", "default": ""},
    "repositories": {
        "type": "list",
        "elements": "str",
        "default": ["docker.io/vllm/vllm-openai", "docker.m.daocloud.io/vllm/vllm-openai"],
    },
    "base": {"type": "str", "default": ""},
    "base_images": {
        "type": "list",
        "elements": "str",
        "default": ["docker.io/library/{base}", "docker.m.daocloud.io/library/{base}"],
    },
    "torch_indexes": {"type": "list", "elements": "str", "default": list(TORCH_INDEXES)},
    "pypi_index": {"type": "str", "default": ""},
    "pypi_index_fallback": {"type": "str", "default": ""},
    "ca_bundle": {"type": "path", "default": ""},
    "work_dir": {"type": "path", "default": "/var/lib/llmfleet"},
    "docker_cli": {"type": "path", "default": "docker"},
    "build_cli": {"type": "path", "default": ""},
    "buildkit": {"type": "str", "choices": ["auto", "buildx", "embedded", "none"], "default": "auto"},
    "timeout": {"type": "int", "default": 7200},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params: dict[str, t.Any] = module.params
    job = None
    try:
        if params["state"] == "absent":
            docker = Docker(module.run_command, find_program(params["docker_cli"]))
            module.exit_json(**LEAVINGS.remove(docker, Path(params["work_dir"]), module.check_mode), tried=[], log="")
        job = vllm_job(params, module.check_mode, module.run_command)
        result = job.provide()
        module.exit_json(**result, tried=job.tried, log=job.log.name())
    except (LlmfleetError, OSError) as problem:
        module.fail_json(msg=str(problem), tried=job.tried if job else [], log=job.log.name() if job else "")


if __name__ == "__main__":
    main()
