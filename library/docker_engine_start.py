#!/usr/bin/python
"""Start or stop the docker engine of a host that is not run by systemd."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine_start
short_description: Start or stop the docker engine of a host that is not run by systemd
description:
  - Starts the engine through the distribution's init script, or C(dockerd) itself where there is none or it fails (in
    a container it may not raise limits), and waits until it answers. Where systemd runs the host, use that.
  - Removes the pid files a killed daemon leaves behind, only when the process they name is no docker daemon.
options:
  state:
    description: Whether the engine shall run.
    type: str
    choices: [started, stopped]
    default: started
  timeout:
    description: Seconds to wait for the engine to answer, or to end.
    type: int
    default: 60
  cli:
    description: The docker client to ask.
    type: path
    default: docker
  init_script:
    description: The distribution's init script.
    type: path
    default: /etc/init.d/docker
  dockerd:
    description: The daemon to start where there is no init script, or where that fails.
    type: path
    default: dockerd
  defaults_file:
    description: The shell file with the daemon's options (C(DOCKER_OPTS)) and environment.
    type: path
    default: /etc/default/docker
  log_file:
    description: Where the daemon writes its log.
    type: path
    default: /var/log/docker.log
  run_dir:
    description: Where the daemons keep their pid files.
    type: path
    default: /var/run
attributes:
  check_mode: {support: full, description: 'Starts and stops nothing, and says whether it would.'}
  diff_mode: {support: none, description: There is no text to compare.}
author: [llmfleet contributors (@llmfleet)]
"""

EXAMPLES = r"""
- name: Start the docker engine
  docker_engine_start:
  become: true
"""

RETURN = r"""
started_with: {description: 'What started the engine, empty when it ran already.', returned: success, type: str}
remark:
  description: Why the init script did not start the engine when C(dockerd) itself had to, else empty.
  returned: success
  type: str
cleared:
  description: The stale pid files removed.
  returned: success
  type: list
  elements: str
waited_s: {description: 'Seconds until the engine answered, or ended.', returned: success, type: float}
"""

import typing as t
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import engine_process
from ansible.module_utils.llmfleet.engine_process import EngineProblem, Setup, Started

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "timeout": {"type": "int", "default": 60},
    "cli": {"type": "path", "default": "docker"},
    "init_script": {"type": "path", "default": "/etc/init.d/docker"},
    "dockerd": {"type": "path", "default": "dockerd"},
    "defaults_file": {"type": "path", "default": "/etc/default/docker"},
    "log_file": {"type": "path", "default": "/var/log/docker.log"},
    "run_dir": {"type": "path", "default": "/var/run"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    setup = Setup(**{name: value for name, value in module.params.items() if name != "state"})
    try:
        if module.params["state"] == "started":
            done = engine_process.start(setup, module.check_mode)
        else:
            changed, waited = engine_process.stop(setup, module.check_mode)
            done = Started(changed, waited_s=waited)
    except EngineProblem as exc:
        module.fail_json(msg=str(exc))
    except PermissionError as exc:
        module.fail_json(msg=f"{exc.filename or 'the docker engine'}: permission denied; run this task with become")
    module.exit_json(**asdict(done))


if __name__ == "__main__":
    main()
