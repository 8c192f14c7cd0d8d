#!/usr/bin/python
"""Ansible module: the life of one service that runs in a venv under systemd."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llm_service_venv
short_description: Serve a model with vLLM from a venv under systemd and prove that it answers
description:
  - What M(llm_service) does with containers, for machines that cannot run them. An unchanged service is only verified.
  - A changed service is handed over. Its unit is kept as C(<unit>.previous), the new one is started and verified, and
    if that fails, the previous one is put back and verified. So is a container of the same name that served before.
  - Whatever an interrupted run left behind is finished or undone by the next run.
options:
  service: {description: 'The service as in C(llm_services), without its C(api_key).', type: dict, required: true}
  api_key:
    description: Key that callers must send. It reaches the engine through a file and is stored nowhere else.
    type: str
    default: ""
  venv:
    description: Python environment with vLLM, made by M(vllm_venv). Required to start a service.
    type: path
    default: ""
  model_path: {description: Folder of the model on the host. Required to start a service., type: path, default: ""}
  more_paths:
    description: Where the further models that the service names are on the host, by the key that names them.
    type: dict
    default: {}
  gpus:
    description: Whether the unit may use the host's NVIDIA GPUs; empty, it serves from the CPU.
    type: str
    choices: ["", nvidia]
    default: ""
  gpu_ids:
    description: UUIDs of the GPUs that it sees. With none named it sees all.
    type: list
    elements: str
    default: []
  user: {description: System user that it runs as., type: str, default: llmfleet-vllm}
  directory:
    description: Where secret files of units are kept, one folder a service.
    type: path
    default: /var/lib/llmfleet/units
  container_directory:
    description: Where those of containers are kept, for a service that was one until now.
    type: path
    default: /var/lib/llmfleet/services
  cache_directory:
    description: Where engines that compile at their start keep what they made, one folder an engine.
    type: path
    default: /var/lib/llmfleet/cache
  docker_cli:
    description: The docker client, asked for a container of the same name. A host without one has none.
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
- name: Serve a local model without docker
  llm_service_venv:
    service:
      name: chat
      engine: vllm
      runtime: venv
      model: /models/qwen3-8b
      port: 8000
    venv: /opt/llmfleet/vllm-cpu-0123456789ab
    model_path: /models/qwen3-8b

- name: Take the service away
  llm_service_venv:
    service:
      name: chat
      state: absent
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
  sample: "argv: --max-model-len 2048 -> --max-model-len 4096"
unit:
  description: Name of its systemd unit.
  returned: always
  type: str
  sample: llmfleet-vllm-chat.service
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
removed:
  description: Environments that no service runs from any more, and that went.
  returned: when the service runs
  type: list
  elements: str
diagnosis:
  description: On failure the C(cause), the C(evidence) (a line of the log) and the C(fix).
  returned: on failure
  type: dict
log_tail:
  description: On failure the last lines of the failed unit's journal.
  returned: on failure
  type: list
  elements: str
rolled_back:
  description: On failure whether a previous unit or container was put back.
  returned: on failure
  type: bool
"""

import os
import secrets as random_secrets
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import lifecycle, spec
from ansible.module_utils.llmfleet.addresses import service_urls
from ansible.module_utils.llmfleet.cpu_level import architecture
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.handover import RolledBackError
from ansible.module_utils.llmfleet.host_edge import find_program
from ansible.module_utils.llmfleet.service_result import failure, foreseen, rolled_back
from ansible.module_utils.llmfleet.services import Service, parse
from ansible.module_utils.llmfleet.venv import environments, recipe
from ansible.module_utils.llmfleet.venv.before import ContainerBefore
from ansible.module_utils.llmfleet.venv.rollout import UnitRollout
from ansible.module_utils.llmfleet.venv.service_spec import Place, unit_of
from ansible.module_utils.llmfleet.venv.systemd import Systemd, UnitsAsContainers
from ansible.module_utils.llmfleet.venv.wanted import check_port, resolve
from ansible.module_utils.llmfleet.watch import NotReadyError

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "service": {"type": "dict", "required": True},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "venv": {"type": "path", "default": ""},
    "model_path": {"type": "path", "default": ""},
    "more_paths": {"type": "dict", "default": {}},
    "gpus": {"type": "str", "choices": ["", "nvidia"], "default": ""},
    "gpu_ids": {"type": "list", "elements": "str", "default": []},
    "user": {"type": "str", "default": recipe.USER},
    "directory": {"type": "path", "default": "/var/lib/llmfleet/units"},
    "container_directory": {"type": "path", "default": "/var/lib/llmfleet/services"},
    "cache_directory": {"type": "path", "default": spec.CACHES},
    "docker_cli": {"type": "str", "default": "docker"},
}


def main() -> None:
    """Read, decide, carry out unless in check mode, report."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        run(module, parse({**module.params["service"], "api_key": module.params["api_key"]}))
    except (LlmfleetError, OSError) as error:
        module.fail_json(msg=str(error))


def run(module: AnsibleModule, service: Service) -> None:
    """Bring ``service`` to its state and leave through exit_json or fail_json."""
    params, started = module.params, service.state == "started"
    systemd = Systemd(module.run_command)
    if started:
        systemd.check()
    client = find_program(params["docker_cli"])
    docker = Docker(module.run_command, client) if client and started else None
    before = ContainerBefore(docker, service, params["container_directory"])
    rollout = UnitRollout(systemd, service, os.path.join(params["directory"], service.name), before)
    current, previous = rollout.look()
    known = (current.spec if current else None) or (previous.spec if previous else None)
    wanted, secrets = _wanted(module, service, known) if started else (None, {})
    decision = lifecycle.decide(service.state, current, previous, wanted)
    result = foreseen(params["service"], service, decision, (known, wanted))
    # decisions are worded for containers
    result.update(unit=unit_of(service.name), why=decision.why.replace("container", "unit"))
    if wanted and decision.action in ("create", "replace"):
        check_port(service, wanted, (known, before.spec), UnitsAsContainers(systemd))
    if module.check_mode:
        module.exit_json(**result)
    try:
        report = rollout.carry_out(decision.action, wanted, secrets)
    except NotReadyError as error:
        module.fail_json(**failure({**result, **rollout.instead}, f"service {service.name}: {error}", error))
    except RolledBackError as error:
        module.fail_json(**rolled_back(result, f"service {service.name}: {error}", error))
    result.update(rollout.instead)
    if report and wanted:
        result.update(verification=report.as_dict(), urls=service_urls(service), removed=[])
        if decision.action in ("replace", "finish"):
            result["removed"] = environments.prune(wanted["venv"])
    module.exit_json(**result)


def _wanted(module: AnsibleModule, service: Service, known: spec.Spec | None) -> tuple[spec.Spec, t.Mapping[str, str]]:
    """Return the specification that is wanted and the secrets that go with it."""
    params = module.params
    gpus = params["gpus"] if service.device != "cpu" else ""
    libraries = recipe.preload(architecture(os.uname().machine), params["venv"])
    place = Place(
        venv=params["venv"],
        user=params["user"],
        caches=params["cache_directory"],
        preload=() if gpus else tuple(filter(os.path.exists, libraries)),
        gpus=gpus,
        visible=tuple(params["gpu_ids"]) if gpus else (),
    )
    wanted, launch = resolve(
        service,
        place,
        model_path=params["model_path"],
        more_paths=params["more_paths"],
        api_key=params["api_key"],
        salt=known["salt"] if known else random_secrets.token_hex(8),
        foresee=module.check_mode,
    )
    return wanted, launch.secrets


if __name__ == "__main__":
    main()
