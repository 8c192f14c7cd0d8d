#!/usr/bin/python
"""Provide the image of a helper, such as the gateway's nginx: keep it, pull it or build it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packaged_image
short_description: Provide the image of a helper on a host
description:
  - Makes sure that the host's docker engine has the image of a helper. The official one is pulled in a fixed version
    where a registry answers, else one is built of packages of the distribution or of PyPI.
  - An image that is there already is kept, however the network is doing.
options:
  state:
    description: Whether the image is there, or everything this module made and kept of I(kind) is gone.
    type: str
    choices: [present, absent]
    default: present
  kind:
    description: Which image. V(gateway) is nginx with its JavaScript module, V(open_webui) the web UI.
    type: str
    choices: [gateway, open_webui]
    required: true
  source:
    description: Where it comes from. V(auto) pulls, and builds where no registry delivers.
    type: str
    choices: [auto, pull, build]
    default: auto
  tag: {description: 'Tag of the official image. Empty: the one it was tried with.', type: str, default: ''}
  repositories:
    description: Repositories with the official image, in order. Empty are its own and mirrors of it.
    type: list
    elements: str
    default: []
  base: {description: 'Distribution to build on, such as C(debian:bookworm). Empty: as here.', type: str, default: ''}
  base_images:
    description: Images of it, C({base}) being replaced. With none that answers, debootstrap makes one.
    type: list
    elements: str
    default: ['docker.io/library/{base}', 'docker.m.daocloud.io/library/{base}']
  pypi_index: {description: Package index. Empty takes the one the host's pip is set up with., type: str, default: ''}
  pypi_index_fallback: {description: Package index for hosts that have no pip to ask., type: str, default: ''}
  ca_bundle: {description: CA certificates to trust when building. Empty takes the host's., type: path, default: ''}
  work_dir: {description: Where logs are kept., type: path, default: /var/lib/llmfleet}
  docker_cli: {description: Docker client., type: path, default: docker}
  build_cli: {description: Docker client to build with. Empty takes one that offers BuildKit., type: path, default: ''}
  buildkit:
    description: How I(build_cli) offers BuildKit; C(none) uses the legacy builder.
    type: str
    choices: [auto, buildx, embedded, none]
    default: auto
  timeout: {description: 'Seconds one step (a pull, the build) may take.', type: int, default: 3600}
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
- name: Have the gateway's image
  packaged_image:
    kind: gateway
  register: image

- name: Build it on a host without a way to any registry
  packaged_image:
    kind: gateway
    source: build

- name: Remove the images and logs
  packaged_image:
    kind: gateway
    state: absent
"""

RETURN = r"""
action: {description: 'C(keep), C(pull), C(build) or C(remove), done or to be done.', returned: success, type: str}
image: {description: What the container is started from., returned: state is present, type: str}
why: {description: The reason for I(action)., returned: state is present, type: str}
layout: {description: 'What differs between images, such as paths.', returned: state is present, type: dict}
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

import os
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import base_image
from ansible.module_utils.llmfleet.cpu_level import architecture
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.host_edge import find_program
from ansible.module_utils.llmfleet.packaged import RECIPES
from ansible.module_utils.llmfleet.packaged.base import PackagedRequest
from ansible.module_utils.llmfleet.packaged.job import PackagedJob
from ansible.module_utils.llmfleet.packaged.removal import Leavings

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "kind": {"type": "str", "choices": list(RECIPES), "required": True},
    "source": {"type": "str", "choices": ["auto", "pull", "build"], "default": "auto"},
    "tag": {"type": "str", "default": ""},
    "repositories": {"type": "list", "elements": "str", "default": []},
    "base": {"type": "str", "default": ""},
    "base_images": {
        "type": "list",
        "elements": "str",
        "default": ["docker.io/library/{base}", "docker.m.daocloud.io/library/{base}"],
    },
    "pypi_index": {"type": "str", "default": ""},
    "pypi_index_fallback": {"type": "str", "default": ""},
    "ca_bundle": {"type": "path", "default": ""},
    "work_dir": {"type": "path", "default": "/var/lib/llmfleet"},
    "docker_cli": {"type": "path", "default": "docker"},
    "build_cli": {"type": "path", "default": ""},
    "buildkit": {"type": "str", "choices": ["auto", "buildx", "embedded", "none"], "default": "auto"},
    "timeout": {"type": "int", "default": 3600},
}


def main() -> None:
    """Keep, pull or build the image, or take it away."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params: dict[str, t.Any] = module.params
    recipe = RECIPES[params["kind"]]
    job = None
    try:
        asked = base_image.check_base(params["base"]) if params["base"] else ""
        request = PackagedRequest(recipe, architecture(os.uname().machine), asked)
        if params["state"] == "absent":
            docker = Docker(module.run_command, find_program(params["docker_cli"]))
            leavings = Leavings(request.slug, request.repository)
            module.exit_json(**leavings.remove(docker, Path(params["work_dir"]), module.check_mode), tried=[], log="")
        repositories = params["repositories"] or recipe.repositories
        published = [f"{row}:{params['tag'] or recipe.tag}" for row in repositories]
        source = params["source"]
        job = PackagedJob(
            params,
            module.check_mode,
            module.run_command,
            request,
            published if source != "build" else [],
            builds=source != "pull",
            why="it is the official image",
        )
        result = job.provide()
        layout = recipe.layouts["built" if result["image"] == request.image() else "official"]
        module.exit_json(**result, layout=dict(layout), tried=job.tried, log=job.log.name())
    except (LlmfleetError, OSError) as problem:
        module.fail_json(msg=str(problem), tried=job.tried if job else [], log=job.log.name() if job else "")


if __name__ == "__main__":
    main()
