#!/usr/bin/python
"""Ansible module: a helper container beside the engines, such as the gateway or the web UI."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: side_container
short_description: Keep a helper container as it is declared
description:
  - Keeps one container with its configuration files, and proves that it answers. An unchanged one is only verified.
  - A changed container is handed over as M(llm_service) does, and the previous one with its previous files is put back
    when the new one fails. Where only files differ, the running container gets a signal, or a restart.
options:
  name:
    description: Name of the container, and of its folder in I(directory).
    type: str
    required: true
  state:
    description: Whether it runs, or is gone with its files. Volumes stay unless I(purge).
    type: str
    choices: [started, absent]
    default: started
  image: {description: 'Image, already on the host. Required to start it.', type: str, default: ''}
  argv: {description: Arguments after the image., type: list, elements: str, default: []}
  entrypoint: {description: Program in place of the image's own., type: str, default: ''}
  env:
    description: Environment, which anybody reads who may ask docker. Secrets go into I(files).
    type: dict
    default: {}
  files:
    description: Files that the container reads, all of them below I(files_target).
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path relative to I(files_target)., type: str, required: true}
      content: {description: What is in it. It is shown nowhere., type: str, required: true}
      mode: {description: 'Mode of the file, which belongs to I(user).', type: str, default: '0440'}
  files_target:
    description: Folder in the container that I(files) are in, read-only. A running container sees new content.
    type: str
    default: ''
  volumes:
    description: Folders of the host that it may write to. They are made when they are missing, and given to I(user).
    type: list
    elements: dict
    default: []
    suboptions:
      source: {description: Absolute path on the host., type: str, required: true}
      target: {description: Absolute path in the container., type: str, required: true}
  user: {description: 'User and group it runs as, in numbers.', type: str, default: '10001:10001'}
  network:
    description: V(host) shares the host's network, V(bridge) reaches out and publishes what I(publish) says.
    type: str
    choices: [host, bridge]
    default: bridge
  publish:
    description: Ports to publish, as C(address:port:port inside).
    type: list
    elements: str
    default: []
  listens:
    description:
      - Addresses that it takes on the host with I(network=host), as C(address:port). Those that are new must be free,
        which is looked at before anything changes. Those of I(publish) are known.
    type: list
    elements: str
    default: []
  caps: {description: 'Capabilities it keeps, all others are dropped.', type: list, elements: str, default: []}
  tmp_mib: {description: 'Size of /tmp, which is in memory.', type: int, default: 64}
  memory: {description: 'Memory limit, such as C(512m). Empty is none.', type: str, default: ''}
  read_only: {description: 'Whether it can write nowhere but to I(volumes) and /tmp.', type: bool, default: true}
  stop_seconds: {description: Seconds it gets to end by itself when it is stopped., type: int, default: 30}
  check_argv:
    description:
      - Program and arguments that look at the new files in a container of their own, such as C(nginx -t), before
        anything changes. What it says when it fails is the error.
    type: list
    elements: str
    default: []
  reload_signal:
    description: Signal that makes it read its files again, such as V(HUP). Empty restarts it when files differ.
    type: str
    default: ''
  health:
    description: What proves that it works. Without it, it only has to stay up.
    type: dict
    suboptions:
      url: {description: 'Address that is asked from the host.', type: str, default: ''}
      status: {description: HTTP status that it must answer., type: int, default: 200}
      timeout: {description: Seconds it may take to come up., type: float, default: 60}
      contains:
        description: Text that must be in the answer. One that the files bring proves that they were read.
        type: str
        default: ''
  purge: {description: 'Whether I(state=absent) deletes the volumes in its folder.', type: bool, default: false}
  directory:
    description: Where helpers keep their files, one folder a helper.
    type: path
    default: /var/lib/llmfleet/side
  docker_cli: {description: Docker client., type: str, default: docker}
attributes:
  check_mode:
    support: full
    description: Says what would be done. I(check_argv) is run where the image and the volumes are there.
  diff_mode:
    support: full
    description: Shows the specification before and after, files as digests.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Keep a proxy in front of the services
  side_container:
    name: proxy
    image: llmfleet/gateway:0123456789ab
    network: host
    listens: ["127.0.0.1:8480"]
    files:
      - path: nginx.conf
        content: "{{ lookup('template', 'nginx.conf.j2') }}"
    files_target: /etc/gateway
    argv: [-c, /etc/gateway/nginx.conf, -g, "daemon off;"]
    check_argv: [nginx, -t, -c, /etc/gateway/nginx.conf]
    reload_signal: HUP
    health:
      url: http://127.0.0.1:8480/health

- name: Take it away with all that it kept
  side_container:
    name: proxy
    state: absent
    purge: true
"""

RETURN = r"""
action:
  description:
    - What was (or in check mode would be) done, C(keep), C(create), C(replace), C(reload), C(restart), C(start),
      C(finish), C(restore), C(remove) or C(none).
  returned: always
  type: str
why: {description: 'The reason for the action, one line.', returned: always, type: str}
health_seconds: {description: Seconds until it answered., returned: when it runs, type: float}
left: {description: Volumes that stay on the host., returned: state is absent, type: list, elements: str}
diagnosis:
  description: On failure the C(cause), the C(evidence) and the C(fix).
  returned: on failure
  type: dict
log_tail: {description: On failure the container's last lines., returned: on failure, type: list, elements: str}
rolled_back: {description: On failure whether the previous state was put back., returned: on failure, type: bool}
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.handover import RolledBackError
from ansible.module_utils.llmfleet.side.job import SideJob
from ansible.module_utils.llmfleet.watch import NotReadyError


def _option(kind: str, default: t.Any = "", **more: t.Any) -> dict[str, t.Any]:
    return {"type": kind, "default": default, **more}


def _words() -> dict[str, t.Any]:
    return _option("list", [], elements="str")


def _rows(**options: dict[str, t.Any]) -> dict[str, t.Any]:
    return _option("list", [], elements="dict", options=options)


_NEEDED = {"type": "str", "required": True}

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "name": _NEEDED,
    "state": _option("str", "started", choices=["started", "absent"]),
    "image": _option("str"),
    "argv": _words(),
    "entrypoint": _option("str"),
    "env": _option("dict", {}),
    "files": _rows(path=_NEEDED, content={**_NEEDED, "no_log": True}, mode=_option("str", "0440")),
    "files_target": _option("str"),
    "volumes": _rows(source=_NEEDED, target=_NEEDED),
    "user": _option("str", "10001:10001"),
    "network": _option("str", "bridge", choices=["host", "bridge"]),
    "publish": _words(),
    "listens": _words(),
    "caps": _words(),
    "tmp_mib": _option("int", 64),
    "memory": _option("str"),
    "read_only": _option("bool", True),
    "stop_seconds": _option("int", 30),
    "check_argv": _words(),
    "reload_signal": _option("str"),
    "health": {
        "type": "dict",
        "options": {
            "url": _option("str"),
            "status": _option("int", 200),
            "timeout": _option("float", 60),
            "contains": _option("str"),
        },
    },
    "purge": _option("bool", False),
    "directory": _option("path", "/var/lib/llmfleet/side"),
    "docker_cli": _option("str", "docker"),
}


def main() -> None:
    """Read, decide, carry out unless in check mode, report."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params, name = module.params, module.params["name"]
    docker = Docker(module.run_command, params["docker_cli"])
    has_engine = module.get_bin_path(docker.executable) is not None
    try:
        job = SideJob(params, Path(params["directory"]) / name, docker if has_engine else None, module.check_mode)
    except (LlmfleetError, OSError) as error:
        module.fail_json(msg=str(error))
    try:
        module.exit_json(**job.run())
    except (NotReadyError, RolledBackError) as error:
        back = isinstance(error, RolledBackError)
        cause = error.error if isinstance(error, RolledBackError) else error
        # it is printed as it is: secrets reach the container in files only
        tail = cause.log.splitlines()[-50:]
        told = {key: value for key, value in job.result.items() if key != "diff"}
        module.fail_json(
            msg=f"{name}: {error}", **{**told, "diagnosis": cause.diagnosis, "log_tail": tail, "rolled_back": back}
        )
    except (LlmfleetError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
