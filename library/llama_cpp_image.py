#!/usr/bin/python
"""Provide a llama.cpp image: keep it, pull it or build it from source."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llama_cpp_image
short_description: Provide a llama.cpp image on a host
description:
  - Makes sure that the host's docker engine has a llama.cpp image, by pulling the published one or by building it.
  - An image is known by what was asked for. One made from the same inputs that covers the GPUs, drivers and processors
    in question is kept, however the network is doing.
  - Sources, toolchains and registries are lists of candidates; each is probed, and the next one is used when it fails.
  - Older images of the same kind are removed, but for some to go back to and those that containers use.
options:
  state:
    description: Whether the image is there, or everything this module made and kept is gone.
    type: str
    choices: [present, absent]
    default: present
  source:
    description: C(auto) keeps what is there, pulls the published image where it fits and a registry answers, or builds.
    type: str
    choices: [auto, pull, build]
    default: auto
  variant:
    description: Back-end to build for.
    type: str
    choices: [cpu, cuda, rocm, musa, intel, vulkan]
    default: cpu
  contents:
    description: C(server) has llama-server, C(light) the command line programs, C(full) these and the model tools.
    type: str
    choices: [server, light, full]
    default: server
  ref:
    description: Commit or tag of llama.cpp. For C(latest) see M(llama_cpp_ref). It may be empty where nothing is built.
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
  fa_all_quants:
    description: CUDA kernels for every pair of types that the K and V cache may have; they take long to compile.
    type: bool
    default: false
  architectures:
    description: CUDA architectures of all GPUs the image is for, such as C(86-real).
    type: list
    elements: str
    default: []
  toolkits:
    description: CUDA versions that serve all drivers the image is for, best first.
    type: list
    elements: str
    default: []
  cuda_images:
    description: CUDA images to build on, C({tag}) being replaced. After them come wheels and packages.
    type: list
    elements: str
    default: ['docker.io/nvidia/cuda:{tag}', 'docker.m.daocloud.io/nvidia/cuda:{tag}']
  torch_indexes:
    description: Package indexes or pages with PyTorch for CPUs, for C(full). Local files of pip's find-links go before.
    type: list
    elements: str
    default:
      - https://download.pytorch.org/whl/cpu
      - https://mirrors.nju.edu.cn/pytorch/whl/cpu
      - https://mirror.sjtu.edu.cn/pytorch-wheels/cpu
      - https://mirrors.aliyun.com/pytorch-wheels/cpu
  gpu_access:
    description: How containers get this host's NVIDIA GPUs. With it an image for them is tried on one.
    type: str
    choices: ['', nvidia, nvidia_cdi]
    default: ''
  cpu_level: {description: 'Processor features to use, C(auto) or such as C(x86-64-v3).', type: str, default: auto}
  cpu_level_planned:
    description: What C(auto) means, the best level of all hosts the image is for. Empty takes that of this host.
    type: str
    default: ''
  base: {description: 'Distribution to build on, such as C(debian:bookworm). Empty: as here.', type: str, default: ''}
  base_images:
    description: Images of it, C({base}) being replaced. With none that answers, debootstrap makes one.
    type: list
    elements: str
    default: ['docker.io/library/{base}', 'docker.m.daocloud.io/library/{base}']
  registries:
    description: Registries (or prefixes of mirrors) the published image may be pulled from.
    type: list
    elements: str
    default: [ghcr.io, ghcr.m.daocloud.io, ghcr.nju.edu.cn]
  repository: {description: Repository of the published image., type: str, default: ggml-org/llama.cpp}
  tag: {description: "Tag of the published image, empty when none fits. Not given, it follows from I(ref).", type: str}
  published_why: {description: Why no published image fits., type: str, default: ''}
  digest: {description: 'Digest (C(sha256:...)) to pull it by, instead of the tag.', type: str, default: ''}
  pypi_index: {description: Package index. Empty takes the one the host's pip is set up with., type: str, default: ''}
  pypi_index_fallback: {description: Package index for hosts that have no pip to ask., type: str, default: ''}
  ca_bundle: {description: CA certificates to trust when building. Empty takes the host's., type: path, default: ''}
  work_dir: {description: Where sources and logs are kept., type: path, default: /var/lib/llmfleet}
  docker_cli: {description: Docker client., type: path, default: docker}
  build_cli: {description: Docker client to build with. Empty takes one that offers BuildKit., type: path, default: ''}
  buildkit:
    description: How I(build_cli) offers BuildKit; C(none) uses the legacy builder.
    type: str
    choices: [auto, buildx, embedded, none]
    default: auto
  jobs: {description: 'Compilers at once. 0: one per processor, as far as memory goes.', type: int, default: 0}
  received: {description: 'Whether it was sent here. It is ours then, and none is made.', type: bool, default: false}
  keep: {description: How many older images of this variant and contents stay., type: int, default: 2}
  timeout: {description: 'Seconds one step (a pull, the build) may take.', type: int, default: 7200}
attributes:
  check_mode:
    support: full
    description: Probes what would be used and changes nothing.
  diff_mode:
    support: full
    description: Shows the image before and after, and older ones that go.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Provide llama.cpp, pulled or built
  llama_cpp_image:

- name: Build for two kinds of GPU with a flag of one's own
  llama_cpp_image:
    source: build
    variant: cuda
    architectures: [86-real, 90-real]
    toolkits: [13.0.2, 12.8.1]
    cmake_flags: [-DGGML_OPENMP=OFF]

- name: Remove the images, sources and logs
  llama_cpp_image:
    state: absent
"""

RETURN = r"""
action: {description: 'C(keep), C(pull), C(build) or C(remove), done or to be done.', returned: success, type: str}
image: {description: What services are started from., returned: state is present, type: str}
why: {description: The reason for I(action)., returned: state is present, type: str}
image_id: {description: Id of the image. Empty while it is not there., returned: state is present, type: str}
size_bytes: {description: Size of the image. 0 while it is not there., returned: state is present, type: int}
layers: {description: 'Digests of its layers, the lowest first.', returned: state is present, type: list, elements: str}
recipe: {description: Identity of what it is made from., returned: state is present, type: str}
build_key: {description: Identity of what was asked for., returned: state is present, type: str}
commit: {description: Commit of llama.cpp. Empty where not known., returned: state is present, type: str}
cpu_level: {description: Processor level of the image., returned: state is present, type: str}
cuda: {description: CUDA version of the image. Empty without., returned: state is present, type: str}
architectures: {description: Its CUDA architectures., returned: state is present, type: list, elements: str}
toolchain: {description: 'The compilers: kind, image, distribution, how.', returned: action is build, type: dict}
build_source: {description: Candidate used and its commit., returned: when it was built, type: dict}
buildkit: {description: How the image was built., returned: when it was built, type: str}
pruned: {description: Older images and sources that go., returned: state is present, type: list, elements: str}
removed: {description: Images and folders removed., returned: state is absent, type: list, elements: str}
in_use:
  description: Images that would go but stay, with the containers that use them or docker's reason.
  returned: success
  type: dict
tried: {description: Candidates as they were tried with the results., returned: always, type: list, elements: dict}
log: {description: Log file on the host. Empty when there was nothing to log., returned: always, type: str}
seconds: {description: Time the module took., returned: state is present, type: float}
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
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF
from ansible.module_utils.llmfleet.image_variants import BACK_ENDS, CONTENTS
from ansible.module_utils.llmfleet.python_parts import TORCH_INDEXES
from ansible.module_utils.llmfleet.toolchain_choice import CUDA_IMAGES

BASE_IMAGES = ("docker.io/library/{base}", "docker.m.daocloud.io/library/{base}")
REGISTRIES = ("ghcr.io", "ghcr.m.daocloud.io", "ghcr.nju.edu.cn")

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "source": {"type": "str", "choices": ["auto", "pull", "build"], "default": "auto"},
    "variant": {"type": "str", "choices": list(BACK_ENDS), "default": "cpu"},
    "contents": {"type": "str", "choices": list(CONTENTS), "default": "server"},
    "ref": {"type": "str", "default": DEFAULT_REF},
    "sources": {"type": "list", "elements": "dict"},
    "cmake_flags": {"type": "list", "elements": "str", "default": []},
    "fa_all_quants": {"type": "bool", "default": False},
    "architectures": {"type": "list", "elements": "str", "default": []},
    "toolkits": {"type": "list", "elements": "str", "default": []},
    "cuda_images": {"type": "list", "elements": "str", "default": list(CUDA_IMAGES)},
    "torch_indexes": {"type": "list", "elements": "str", "default": list(TORCH_INDEXES)},
    "gpu_access": {"type": "str", "choices": ["", "nvidia", "nvidia_cdi"], "default": ""},
    "cpu_level": {"type": "str", "default": "auto"},
    "cpu_level_planned": {"type": "str", "default": ""},
    "base": {"type": "str", "default": ""},
    "base_images": {"type": "list", "elements": "str", "default": list(BASE_IMAGES)},
    "registries": {"type": "list", "elements": "str", "default": list(REGISTRIES)},
    "repository": {"type": "str", "default": "ggml-org/llama.cpp"},
    "tag": {"type": "str"},
    "published_why": {"type": "str", "default": ""},
    "digest": {"type": "str", "default": ""},
    "pypi_index": {"type": "str", "default": ""},
    "pypi_index_fallback": {"type": "str", "default": ""},
    "ca_bundle": {"type": "path", "default": ""},
    "work_dir": {"type": "path", "default": "/var/lib/llmfleet"},
    "docker_cli": {"type": "path", "default": "docker"},
    "build_cli": {"type": "path", "default": ""},
    "buildkit": {"type": "str", "choices": ["auto", "buildx", "embedded", "none"], "default": "auto"},
    "jobs": {"type": "int", "default": 0},
    "received": {"type": "bool", "default": False},
    "keep": {"type": "int", "default": 2},
    "timeout": {"type": "int", "default": 7200},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params: dict[str, t.Any] = module.params
    started = time.monotonic()
    job = None
    try:
        if params["state"] == "absent":
            docker = Docker(module.run_command, find_program(params["docker_cli"]))
            module.exit_json(**remove(docker, Path(params["work_dir"]), module.check_mode), tried=[], log="")
        job = ImageJob(params, module.check_mode, module.run_command)
        result, log = job.provide(), job.log.name()
        module.exit_json(**result, tried=job.tried, log=log, seconds=round(time.monotonic() - started, 2))
    except LlmfleetError as problem:
        module.fail_json(msg=str(problem), tried=job.tried if job else [], log=job.log.name() if job else "")


if __name__ == "__main__":
    main()
