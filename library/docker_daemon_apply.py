#!/usr/bin/python
"""Bring a changed daemon.json into effect: reload or restart the docker engine, compare, take back what fails."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_apply
short_description: Bring a changed daemon.json into effect
description:
  - Does what M(docker_daemon_config) noted as pending, with the least that suffices, a reload or a restart, and
    compares what the engine then runs with (C(docker info)) with the file.
  - When the engine refuses the file, does not start or runs with something else, the old file is put back, the engine
    brought back to it, and the module fails with the engine's own words.
  - Never makes systemd read its unit files again, which would take the GPUs away from running containers.
options:
  path:
    description: The daemon's configuration file.
    type: path
    default: /etc/docker/daemon.json
  record_path:
    description: The record of M(docker_daemon_config) with what is pending.
    type: path
    default: /var/lib/llmfleet/docker_daemon.json
  restart:
    description: Restart even when the record asks for less, as when what dockerd looks for at its start was installed.
    type: bool
    default: false
  restart_policy:
    description:
      - Whether the engine may be restarted. C(live-restore-only) allows it while no container runs or those that run
        outlive it, live-restore being turned on before the restart or off after it where the file asks for that. A
        reload is always allowed.
    type: str
    choices: [allowed, refuse, live-restore-only]
    default: live-restore-only
  start_stopped:
    description: Start containers again that a restart stopped and that did not come back by themselves.
    type: bool
    default: true
  timeout:
    description: Seconds to wait for the engine to end, and to answer.
    type: int
    default: 60
  cli:
    description: The docker client to ask.
    type: path
    default: docker
  dockerd:
    description: The daemon to start on hosts without systemd.
    type: path
    default: dockerd
attributes:
  check_mode: {support: full, description: 'Reloads and restarts nothing; refuses what the policy refuses.'}
  diff_mode: {support: none, description: M(docker_daemon_config) shows the text.}
author: [llmfleet contributors (@llmfleet)]
"""

EXAMPLES = r"""
- name: Bring the new configuration into effect
  docker_daemon_apply:
    restart_policy: allowed
  become: true
"""

RETURN = r"""
action: {description: 'C(none), C(reload), C(restart), or C(start) of an engine that did not run.', returned: success,
  type: str}
waited_s: {description: Seconds until the engine ran with its file., returned: success, type: float}
containers_kept: {description: 'The containers that ran on with the same process, by name.', returned: success,
  type: list, elements: str}
containers_stopped: {description: 'The containers that a restart stopped and that did not come back by themselves.',
  returned: success, type: list, elements: str}
containers_started: {description: Those of I(containers_stopped) that were started again., returned: success,
  type: list, elements: str}
restored: {description: Whether the old file was put back and the engine runs with it., returned: always, type: bool}
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import daemon_control, daemon_keys, daemon_running, running_containers
from ansible.module_utils.llmfleet.daemon_apply import ConfigFile, Daemon, Record
from ansible.module_utils.llmfleet.engine_process import EngineProblem, Setup
from ansible.module_utils.llmfleet.errors import LlmfleetError

ARGUMENT_SPEC: dict[str, t.Any] = {
    "path": {"type": "path", "default": "/etc/docker/daemon.json"},
    "record_path": {"type": "path", "default": "/var/lib/llmfleet/docker_daemon.json"},
    "restart": {"type": "bool", "default": False},
    "restart_policy": {
        "type": "str",
        "choices": ["allowed", "refuse", "live-restore-only"],
        "default": "live-restore-only",
    },
    "start_stopped": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 60},
    "cli": {"type": "path", "default": "docker"},
    "dockerd": {"type": "path", "default": "dockerd"},
}


class Run:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.params = module, module.params
        setup = Setup(cli=self.params["cli"], dockerd=self.params["dockerd"], timeout=self.params["timeout"])
        self.record = Record(self.params["record_path"])
        self.file = ConfigFile(self.params["path"], self.record, module.atomic_move)
        self.daemon = Daemon(daemon_control.control(setup), self.file)
        self.containers = running_containers.Containers(setup.cli)
        self.before: dict[str, running_containers.Box] = {}
        self.result: dict[str, t.Any] = {"changed": False, "action": "none", "waited_s": 0.0, "restored": False}
        self.result.update(containers_kept=[], containers_stopped=[], containers_started=[])

    def go(self) -> None:
        """Do what is pending."""
        pending = str(self.record.pending.get("action") or "none")
        if pending == "none" and not self.params["restart"]:
            return
        info = self.daemon.awake(wait=not self.module.check_mode)
        version = str(info.get("ServerVersion") or "")
        need = daemon_keys.needed_action(self.file.old, self.file.config, version)
        action = "restart" if self.params["restart"] else daemon_keys.greater(pending, need.kind)
        carried = daemon_running.LOST
        if info:
            self.before = self.containers.running()
            if action == "restart":
                carried = self._may_restart(need, bool(info.get("LiveRestoreEnabled")))
        self.result.update(changed=True, action=action if info else "start")
        if self.module.check_mode:
            return
        if self.file.left_interim:
            self.file.place(self.file.text)
        lost = self._remember(action)
        began = time.monotonic()
        why = self._act(action if info else "start", need, carried)
        answers = not why or self.daemon.take_back(action, version)
        self.result["waited_s"] = round(time.monotonic() - began, 2)
        if answers:
            self._count(lost)
        if why and (self.file.known or not answers or action == "reload"):
            raise LlmfleetError(self._given_up(why, action, answers))
        if why:
            self.daemon.remarks.append(f"the docker engine came up at the second attempt only: {why}")
        self.record.note({})

    def _may_restart(self, need: daemon_keys.Action, live: bool) -> str:
        """Return how running containers outlive a restart, "" for not at all; raise when there may be none."""
        names = sorted(box.name for box in self.before.values())
        carried = daemon_running.carried(live, self.file.config, need.keys) if names else daemon_running.LOST
        asks = [key for key, kind in need.keys.items() if kind == "restart"]
        because = ", ".join(asks) or "what changed since it started"
        lost = daemon_running.loses(need.keys)
        why = daemon_running.refusal(self.params["restart_policy"], names, bool(carried), because, lost)
        if why:
            raise LlmfleetError(f"{self.file.path}: {why}")
        late = [key for key in asks if key in daemon_running.NEEDS_EMPTY_NETWORKS]
        if late and carried:
            what = f"the change of {', '.join(late)} takes effect at the first start of the docker engine"
            self.daemon.remarks.append(f"{what} that finds no running container")
        return carried

    def _remember(self, action: str) -> dict[str, running_containers.Box]:
        """Note what is to be done before it is; return the containers that ran, those of a run that ended too."""
        pending = self.record.pending
        lost = {one["id"]: running_containers.Box(**one) for one in pending.get("containers") or ()}
        lost.update(self.before)
        if action != "reload":
            noted = [{"id": box.id, "name": box.name, "pid": box.pid} for box in lost.values()]
            self.record.note({**pending, "action": action, "containers": noted})
        return lost

    def _act(self, action: str, need: daemon_keys.Action, carried: str) -> str:
        """Reload or restart; return why that failed, or ""."""
        file = self.file
        try:
            if action == "reload":
                empty = {**need.empty_first, **(self.record.pending.get("empty_first") or {})}
                self.daemon.reload(file.config, file.text, empty, need.keys)
            else:
                self.daemon.restart_carrying(carried, need.keys)
        except EngineProblem as exc:
            return str(exc)
        return ""

    def _count(self, before: dict[str, running_containers.Box]) -> None:
        """Tell which containers ran on, and start those that a restart ended."""
        after = self.containers.running()
        # after a mere reload, one that is gone has ended by itself
        ended = running_containers.stopped(before, after) if self.daemon.restarted else []
        failed = self.containers.start(ended) if self.params["start_stopped"] else {box.name: "" for box in ended}
        self.daemon.remarks += [f"container {name} did not start again: {why}" for name, why in failed.items() if why]
        names = [box.name for box in ended]
        self.result["containers_kept"] = running_containers.kept(self.before, after)
        self.result["containers_stopped"] = names
        self.result["containers_started"] = [name for name in names if name not in failed]

    def _given_up(self, why: str, action: str, answers: bool) -> str:
        """Return the sentence that says what failed and how things stand now; note what is left to do."""
        file = self.file
        self.result["restored"] = file.known and answers
        if not file.known and answers:
            state = "no earlier file is known to go back to and the docker engine runs as before; correct the file"
        elif answers:
            self.record.go_back()
            back = "put back" if file.old_text is not None else "removed, as there was none before"
            state = f"the old file was {back} and the docker engine runs as before; correct the setting, run again"
        else:
            left = {key: value for key, value in self.record.pending.items() if key == "containers"}
            if file.known:
                self.record.go_back()
            self.record.note({"action": "restart", **left})
            back = "the old file was put back, but" if file.known else "no earlier file is known to go back to, and"
            state = (
                f"{back} the docker engine does not answer ({'; '.join(self.daemon.remarks) or 'it gave no reason'})"
            )
            state += "; see its log (journalctl -u docker, or /var/log/docker.log), start it, run again"
        return f"{file.path} could not be brought into effect by a {action}: {why}; {state}"


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    why = ""
    try:
        run = Run(module)
    except LlmfleetError as exc:
        module.fail_json(msg=str(exc))
    try:
        run.go()
    except LlmfleetError as exc:
        why = str(exc)
    except OSError as exc:
        denied = "; run this task with become" if isinstance(exc, PermissionError) else "; correct that, run again"
        why = f"{exc.filename or 'the docker engine'}: {exc.strerror}{denied}"
    for remark in run.daemon.remarks:
        module.warn(remark)
    if why:
        module.fail_json(msg=why, **{**run.result, "changed": False})
    module.exit_json(**run.result)


if __name__ == "__main__":
    main()
