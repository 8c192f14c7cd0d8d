#!/usr/bin/python
"""Ansible module: the life of one service's container on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llm_service
short_description: Serve a model from a container and prove that it answers
description:
  - Brings one service to the wanted state and verifies it. An unchanged service is only verified.
  - A changed service is handed over. The new container is created, the running one is renamed to C(<name>.previous)
    and stopped, and the new one is started and verified. If it fails, the previous one is put back and verified.
  - Whatever an interrupted run left behind is finished or undone by the next run.
options:
  service:
    description:
      - The service as in C(llm_services), without its C(api_key).
    type: dict
    required: true
  api_key:
    description:
      - Key that callers must send. It reaches the engine through a file and is stored nowhere else.
    type: str
    default: ""
  image:
    description:
      - Image that the engine runs from, already on the host. Required to start a service.
    type: str
    default: ""
  model_path:
    description:
      - The model on the host, a GGUF file or, for vllm, a folder. Required to start a service without C(models).
    type: path
    default: ""
  more_paths:
    description:
      - The other models that the service names, by its key, such as C(draft_model), as C(model_path) does for C(model).
      - Those of C(models) have the keys C(models/NAME).
    type: dict
    default: {}
  gpus:
    description:
      - How the container gets the GPUs of the host. Empty, it gets none and serves from the CPU.
      - V(nvidia) is the NVIDIA container toolkit's hook, V(nvidia_cdi) its device list, or what the docker engine has
        in place of it (see C(gpu_access)). The others are the vendors' own ways, untried.
    type: str
    choices: ["", nvidia, nvidia_cdi, amd, intel, moore_threads]
    default: ""
  gpu_ids:
    description:
      - Which GPUs it gets, UUIDs of NVIDIA's, PCI addresses of AMD's and Intel's, numbers of others; empty, all.
    type: list
    elements: str
    default: []
  gpu_access:
    description:
      - Way to NVIDIA's GPUs, C(--device nvidia.com/gpu=...), C(--gpus) or C(--runtime nvidia); refused where the docker
        engine does not have it. V(auto) takes the first that works, and leaves a service that runs its own.
    type: str
    choices: [auto, cdi, gpus, runtime]
    default: auto
  directory:
    description:
      - Where secret files of services are kept, one folder a service.
    type: path
    default: /var/lib/llmfleet/services
  unit_directory:
    description:
      - Where those of units are kept, for a service that ran in a venv until now.
    type: path
    default: /var/lib/llmfleet/units
  cache_directory:
    description:
      - Where engines that compile at their start keep what they made, one folder an engine.
    type: path
    default: /var/lib/llmfleet/cache
  docker_cli:
    description: The docker client to use.
    type: str
    default: docker
attributes:
  check_mode:
    description: Says what would be done, and fails on input that cannot work.
    support: full
  diff_mode:
    description: Shows the specification before and after, secrets as digests.
    support: full
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Serve a local model
  llm_service:
    service: {name: chat, model: /models/qwen3-8b-Q4_K_M.gguf, port: 8080, context_length: 8192}
    image: llmfleet/llama.cpp:cpu-0123456789ab
    model_path: /models/qwen3-8b-Q4_K_M.gguf

- name: Serve it from the GPUs and prove that every layer is there
  llm_service:
    service: {name: chat, model: /models/qwen3-8b-Q4_K_M.gguf, port: 8080, device: gpu}
    image: llmfleet/llama.cpp:cuda-0123456789ab
    model_path: /models/qwen3-8b-Q4_K_M.gguf
    gpus: nvidia

- name: Take the service away
  llm_service:
    service: {name: chat, state: absent}
"""

RETURN = r"""
service:
  description: The service as it was asked for, with C(has_api_key) and the C(prompt) of its verification.
  returned: always
  type: dict
action:
  description: What was (or in check mode would be) done and C(why).
  returned: always
  type: str
  sample: replace
why:
  description: The reason for the action, one line.
  returned: always
  type: str
  sample: "argv: --ctx-size 2048 -> --ctx-size 4096"
verification:
  description:
    - The levels that were reached with the seconds each took, the reply, C(first_token_seconds), C(tokens_per_second),
      and C(device), what proves that it runs on the GPU (null on a CPU).
  returned: when the service runs
  type: dict
urls:
  description: Base URLs that work, C(host) on the host itself and C(lan) from other machines (null when not published).
  returned: when the service runs
  type: dict
diagnosis:
  description: On failure the C(cause), the C(evidence) (a line of the log) and the C(fix).
  returned: on failure
  type: dict
log_tail:
  description: On failure the last lines of the failed container.
  returned: on failure
  type: list
  elements: str
rolled_back:
  description: On failure whether a previous container was put back.
  returned: on failure
  type: bool
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import lifecycle, spec
from ansible.module_utils.llmfleet.addresses import service_urls
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.gpu_access import ACCESS, PLANNED
from ansible.module_utils.llmfleet.handover import RolledBackError
from ansible.module_utils.llmfleet.rollout import Rollout
from ansible.module_utils.llmfleet.service_result import failure, foreseen, rolled_back, without_engine
from ansible.module_utils.llmfleet.services import Service, parse
from ansible.module_utils.llmfleet.venv.before import UnitBefore
from ansible.module_utils.llmfleet.venv.systemd import Systemd
from ansible.module_utils.llmfleet.wanted import check_port, find_own, resolve
from ansible.module_utils.llmfleet.watch import NotReadyError

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "service": {"type": "dict", "required": True},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "image": {"type": "str", "default": ""},
    "model_path": {"type": "path", "default": ""},
    "more_paths": {"type": "dict", "default": {}},
    "gpus": {"type": "str", "choices": ["", *PLANNED], "default": ""},
    "gpu_ids": {"type": "list", "elements": "str", "default": []},
    "gpu_access": {"type": "str", "choices": ["auto", *ACCESS], "default": "auto"},
    "directory": {"type": "path", "default": "/var/lib/llmfleet/services"},
    "unit_directory": {"type": "path", "default": "/var/lib/llmfleet/units"},
    "cache_directory": {"type": "path", "default": spec.CACHES},
    "docker_cli": {"type": "str", "default": "docker"},
}


GIVEN = ("model_path", "more_paths", "api_key", "gpus", "gpu_ids", "gpu_access")


def main() -> None:
    """Read, decide, carry out unless in check mode, report."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    docker = Docker(module.run_command, module.params["docker_cli"])
    try:
        service = parse({**module.params["service"], "api_key": module.params["api_key"]})
        run(module, docker, service)
    except (LlmfleetError, OSError) as error:
        module.fail_json(msg=str(error))


def run(module: AnsibleModule, docker: Docker, service: Service) -> None:
    """Bring ``service`` to its state and leave through exit_json or fail_json."""
    name = service.name
    # of a service that ran in a venv until now
    unit = UnitBefore(Systemd(module.run_command), name, module.params["unit_directory"])
    if module.get_bin_path(docker.executable) is None:
        result = without_engine(module.params["service"], service, module.check_mode)
        if service.state == "absent" and unit.there:
            result.update(changed=True, action="remove", why="state is absent")
            if not module.check_mode:
                unit.remove()
        module.exit_json(**result)
    containers = [find_own(docker, name + suffix) for suffix in ("", lifecycle.PREVIOUS)]
    specs = [spec.stored(container) for container in containers]
    before = specs[0] or specs[1]
    wanted: spec.Spec | None = None
    secrets: t.Mapping[str, str] = {}
    if service.state == "started":
        wanted, launch = resolve(
            docker,
            service,
            image=service.image or module.params["image"],
            foresee=module.check_mode,
            before=before,
            caches=module.params["cache_directory"],
            **{key: module.params[key] for key in GIVEN},
        )
        secrets = launch.secrets
    current, previous = map(lifecycle.describe, containers, specs)
    decision = lifecycle.decide(service.state, current, previous, wanted)
    result = foreseen(module.params["service"], service, decision, (before, wanted))
    result["changed"] = result["changed"] or unit.there
    if wanted and decision.action in ("create", "replace") and not unit.there:
        check_port(docker, service, before, wanted)
    if module.check_mode:
        module.exit_json(**result)
    rollout = Rollout(docker, service, os.path.join(module.params["directory"], name), unit)
    if decision.action not in ("create", "replace"):
        unit.stop()
    try:
        report = rollout.carry_out(decision.action, wanted, secrets)
    except NotReadyError as error:
        said = "; ".join(filter(None, [str(error), unit.restore()]))
        module.fail_json(**failure({**result, **rollout.instead}, f"service {name}: {said}", error))
    except RolledBackError as error:
        module.fail_json(**rolled_back(result, f"service {name}: {error}", error))
    except (LlmfleetError, OSError):
        unit.restore()
        raise
    if service.state != "stopped":
        unit.remove()
    result.update(rollout.instead)
    if report:
        result.update(verification=report.as_dict(), urls=service_urls(service))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
