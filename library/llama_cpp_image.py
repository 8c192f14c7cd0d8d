#!/usr/bin/python
"""Provide a llama.cpp image: keep it, pull it or build it from source."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llama_cpp_image
short_description: Provide a llama.cpp image on a host
description:
  - Makes sure that the host's docker engine has an image with llama-server, llama-cli, llama-quantize and
    llama-gguf-split, by pulling the published one or by building it from source.
  - An image is identified by a key of everything asked for (ref, pins, flags, processor level, base, template). With
    the same key nothing is built, however the network is doing.
  - Sources, base images and registries are lists of candidates; each is probed, and the next one is used when it fails.
options:
  state:
    description: Whether the image is there, or everything this module made and kept is gone.
    type: str
    choices: [present, absent]
    default: present
  source:
    description:
      - C(auto) keeps an image that is there, pulls the published one where a registry answers and it fits, else builds.
      - C(pull) and C(build) do only that.
    type: str
    choices: [auto, pull, build]
    default: auto
  variant:
    description: Back-end to build for.
    type: str
    choices: [cpu]
    default: cpu
  ref:
    description:
      - Commit or tag of llama.cpp. A branch name is taken as it stands, a branch that moves on is not noticed.
    type: str
    default: 0c1e57098bba43ac29e6e3b677cdceebdd22334f
  sources:
    description:
      - Where the source comes from, in order. Each row has one of C(git) (URL), C(archive) (URL or path on the host,
        with C(sha256)) and C(sdist) (name on the package index, with C(version) and C(sha256)).
      - C(ref) in a row is the llama.cpp ref it carries; the row is passed over when another one is asked for.
      - Without it, two git mirrors and the llama-cpp-python sdist are tried.
    type: list
    elements: dict
  cmake_flags:
    description: More CMake flags, as C(-DNAME=VALUE). They come last and win.
    type: list
    elements: str
    default: []
  targets:
    description: Programs to build.
    type: list
    elements: str
    default: [llama-server, llama-cli, llama-quantize, llama-gguf-split]
  cpu_level:
    description:
      - Processor features the programs may use. C(auto) takes the best that this host has, among C(x86-64-v3),
        C(x86-64-v2), C(x86-64), C(armv8.2-a) and C(armv8-a).
    type: str
    default: auto
  base:
    description: Distribution of the build stage, as C(distribution:codename). Empty takes the host's own.
    type: str
    default: ''
  base_images:
    description:
      - Images the build stage may start from, C({base}) being replaced. With none that answers, one is made with
        debootstrap from the host's own package mirror.
    type: list
    elements: str
    default: ['docker.io/library/{base}', 'docker.m.daocloud.io/library/{base}']
  registries:
    description: Registries (or prefixes of mirrors) the published image may be pulled from.
    type: list
    elements: str
    default: [ghcr.io, ghcr.m.daocloud.io, ghcr.nju.edu.cn]
  repository:
    description: Repository of the published image.
    type: str
    default: ggml-org/llama.cpp
  tag:
    description: Tag of the published image. Empty takes the one that belongs to I(ref), where there is one.
    type: str
    default: ''
  digest:
    description: Digest of the published image, as C(sha256:...); it is pulled by this instead of the tag.
    type: str
    default: ''
  pypi_index:
    description: Package index for sdists. Empty takes the one the host's pip is set up with.
    type: str
    default: ''
  pypi_index_fallback:
    description: Package index for hosts that have no pip to ask.
    type: str
    default: ''
  ca_bundle:
    description:
      - CA certificates the build trusts, for networks that inspect TLS. Empty takes the host's. They are not kept in
        the image.
    type: path
    default: ''
  work_dir:
    description: Where sources and logs are kept.
    type: path
    default: /var/lib/llmfleet
  docker_cli:
    description: Docker client.
    type: path
    default: docker
  build_cli:
    description: Docker client to build with. Empty takes the one on the host that offers BuildKit.
    type: path
    default: ''
  buildkit:
    description: How I(build_cli) offers BuildKit; C(none) uses the legacy builder.
    type: str
    choices: [auto, buildx, embedded, none]
    default: auto
  jobs:
    description: Compilers at once. 0 takes one per processor, as far as memory goes.
    type: int
    default: 0
  timeout:
    description: Seconds one step (a pull, the build) may take.
    type: int
    default: 7200
attributes:
  check_mode:
    support: full
    description: Probes what would be used and changes nothing.
  diff_mode:
    support: full
    description: Shows the image before and after.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Provide llama.cpp, pulled or built
  llama_cpp_image:

- name: Build a release with a flag of one's own
  llama_cpp_image:
    source: build
    ref: b11206
    cmake_flags: [-DGGML_OPENMP=OFF]

- name: Remove the images, sources and logs
  llama_cpp_image:
    state: absent
"""

RETURN = r"""
action:
  description: C(keep), C(pull), C(build) or C(remove); in check mode what would be done.
  returned: success
  type: str
image:
  description: Reference to start services from.
  returned: state is present
  type: str
  sample: llmfleet/llama.cpp:cpu-0123456789ab
why:
  description: The reason for I(action).
  returned: state is present
  type: str
image_id:
  description: Id of the image, empty while it is not there.
  returned: state is present
  type: str
size_bytes:
  description: Size of the image, 0 while it is not there.
  returned: state is present
  type: int
build_key:
  description: Identity of what was asked for.
  returned: state is present
  type: str
cpu_level:
  description: The processor level built for.
  returned: state is present
  type: str
base:
  description: Kind (C(present), C(pull), C(bootstrap)) and reference of the image of the build stage.
  returned: action is build
  type: dict
build_source:
  description: Candidate used, and the commit it holds where that is known.
  returned: action is build and not in check mode
  type: dict
buildkit:
  description: How the image was built, C(buildx), C(embedded) or C(none).
  returned: action is build and not in check mode
  type: str
tried:
  description: Candidates in the order they were tried, with the result of each.
  returned: always
  type: list
  elements: dict
log:
  description: Log file of the build or pull on the host, empty when there was none.
  returned: always
  type: str
seconds:
  description: Time the module took.
  returned: success
  type: float
removed:
  description: Images and folders removed.
  returned: state is absent
  type: list
  elements: str
in_use:
  description: Images left, with the names of the containers that use them or docker's reason.
  returned: state is absent
  type: dict
"""

import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.host_edge import find_program
from ansible.module_utils.llmfleet.image_job import ImageJob
from ansible.module_utils.llmfleet.image_removal import remove
from ansible.module_utils.llmfleet.image_source import DEFAULT_SOURCES
from ansible.module_utils.llmfleet.llama_image import DEFAULT_REF, TOOLS, VARIANTS

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "source": {"type": "str", "choices": ["auto", "pull", "build"], "default": "auto"},
    "variant": {"type": "str", "choices": list(VARIANTS), "default": "cpu"},
    "ref": {"type": "str", "default": DEFAULT_REF},
    "sources": {"type": "list", "elements": "dict"},
    "cmake_flags": {"type": "list", "elements": "str", "default": []},
    "targets": {"type": "list", "elements": "str", "default": list(TOOLS)},
    "cpu_level": {"type": "str", "default": "auto"},
    "base": {"type": "str", "default": ""},
    "base_images": {
        "type": "list",
        "elements": "str",
        "default": ["docker.io/library/{base}", "docker.m.daocloud.io/library/{base}"],
    },
    "registries": {"type": "list", "elements": "str", "default": ["ghcr.io", "ghcr.m.daocloud.io", "ghcr.nju.edu.cn"]},
    "repository": {"type": "str", "default": "ggml-org/llama.cpp"},
    "tag": {"type": "str", "default": ""},
    "digest": {"type": "str", "default": ""},
    "pypi_index": {"type": "str", "default": ""},
    "pypi_index_fallback": {"type": "str", "default": ""},
    "ca_bundle": {"type": "path", "default": ""},
    "work_dir": {"type": "path", "default": "/var/lib/llmfleet"},
    "docker_cli": {"type": "path", "default": "docker"},
    "build_cli": {"type": "path", "default": ""},
    "buildkit": {"type": "str", "choices": ["auto", "buildx", "embedded", "none"], "default": "auto"},
    "jobs": {"type": "int", "default": 0},
    "timeout": {"type": "int", "default": 7200},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = dict(module.params)
    if params["sources"] is None:
        params["sources"] = list(DEFAULT_SOURCES)
    started = time.monotonic()
    if params["state"] == "absent":
        docker = Docker(module.run_command, find_program(params["docker_cli"]))
        try:
            module.exit_json(**remove(docker, Path(params["work_dir"]), module.check_mode), tried=[], log="")
        except LlmfleetError as problem:
            module.fail_json(msg=str(problem))
    try:
        job = ImageJob(params, module.check_mode, module.run_command)
    except LlmfleetError as problem:
        module.fail_json(msg=str(problem), tried=[], log="")
    try:
        result = job.provide()
    except LlmfleetError as problem:
        module.fail_json(msg=str(problem), tried=job.tried, log=job.log.name())
    module.exit_json(**result, tried=job.tried, log=job.log.name(), seconds=round(time.monotonic() - started, 2))


if __name__ == "__main__":
    main()
