#!/usr/bin/python
"""Ansible module: which services run on a host, whether they answer and how fast."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llm_service_info
short_description: Tell which services run on a host, whether they answer and how fast
description:
  - Finds what M(llm_service) and M(llm_service_venv) made, also services that no inventory names any more, and asks
    each whether it answers. Nothing is changed, started or restarted.
  - A service that does not answer is no failure of this module but a row with the problem and its fix.
options:
  level:
    description:
      - How far to verify. V(auto) asks for a token, and proves the device where one was planned. V(none) looks only at
        the containers.
      - Of a service with several C(models) V(auto) asks for their list only, as asking one may unload another.
    type: str
    choices: [none, auto, http, model, token]
    default: auto
  patience:
    description: Seconds to wait for a service that is still loading.
    type: int
    default: 5
  streams:
    description:
      - Loads to measure, each by its number of callers at once, as M(llm_load) does. Empty, none is. Services that do
        not generate text are left out.
    type: list
    elements: int
    default: []
  load_seconds:
    description: When each load ends at the latest.
    type: float
    default: 10
  names:
    description: The services to look at; empty, all are.
    type: list
    elements: str
    default: []
  docker_cli:
    description: The docker client to use.
    type: str
    default: docker
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
- name: Look at what runs and measure it with one and with four callers
  llm_service_info:
    streams: [1, 4]
  become: true
"""

RETURN = r"""
services:
  description: The services of the host, in the order of their names.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Name of the service., type: str}
    container: {description: "Its container or unit; after an interrupted roll-out it has another name.", type: str}
    runtime: {description: What it runs in., type: str}
    state: {description: "What docker says of the container, such as running or exited.", type: str}
    answering: {description: "Whether it answers as far as was asked, null where it was not asked.", type: bool}
    problem: {description: "What is wrong, one sentence.", type: str}
    fix: {description: What to do about it., type: str}
    verification: {description: As of M(llm_service)., type: dict}
    loads: {description: "One entry for each of O(streams), as of M(llm_load).", type: list}
    urls: {description: "Base URLs that work, C(host) and C(lan).", type: dict}
    engine: {description: The engine., type: str}
    task: {description: What the model is for., type: str}
    served_name: {description: Name under which the model is served., type: str}
    has_api_key: {description: Whether callers must send a key., type: bool}
    image: {description: Reference of the image., type: str}
    image_id: {description: Digest of the image's configuration., type: str}
    image_digests: {description: Digests under which registries know it., type: list}
    model: {description: "C(path) on the host, C(source) (repository and commit) and C(digest).", type: dict}
    memory_bytes: {description: Memory of the host that it takes., type: int}
    gpu_memory_bytes: {description: "Memory of GPUs that it takes, null where there is none.", type: int}
    started_at: {description: When the container was started., type: str}
    uptime_seconds: {description: How long it has been running., type: int}
    restarts: {description: How often docker has restarted it after it had ended by itself., type: int}
helpers:
  description:
    - Containers beside the services, such as the gateway, with the same keys as far as they apply, and C(addresses)
      of the host on which they answer.
  returned: success
  type: list
  elements: dict
wsl:
  description: Whether the host is a WSL2 machine, whose address on the LAN is not that of Windows.
  returned: success
  type: bool
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import helper_look, host_look, service_look, unit_look
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.llm_load_run import Load

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "level": {
        "type": "str",
        "choices": [service_look.NONE, service_look.AUTO, "http", "model", "token"],
        "default": service_look.AUTO,
    },
    "patience": {"type": "int", "default": 5},
    "streams": {"type": "list", "elements": "int", "default": []},
    "load_seconds": {"type": "float", "default": 10},
    "names": {"type": "list", "elements": "str", "default": []},
    "docker_cli": {"type": "str", "default": "docker"},
}


def main() -> None:
    """Look and report."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    given = module.params
    docker = Docker(module.run_command, given["docker_cli"])
    questions = service_look.Questions(
        given["level"],
        given["patience"],
        tuple(given["streams"]),
        Load(seconds=given["load_seconds"]),
        tuple(given["names"]),
    )
    services: list[dict[str, t.Any]] = []
    helpers: list[dict[str, t.Any]] = []
    try:
        if any(not 1 <= streams <= 1024 for streams in given["streams"]):
            raise BadInput("each of `streams` must be between 1 and 1024")
        found = unit_look.in_units(module.run_command)
        # where docker was never installed there are no containers
        if module.get_bin_path(docker.executable):
            found += service_look.in_containers(docker)
            helpers = helper_look.helpers(docker)
        services = service_look.look(docker, found, questions)
    except (LlmfleetError, OSError) as error:
        module.fail_json(msg=f"looking at the services: {error}")
    module.exit_json(changed=False, services=services, helpers=helpers, wsl=bool(host_look.platform()["wsl"]))


if __name__ == "__main__":
    main()
