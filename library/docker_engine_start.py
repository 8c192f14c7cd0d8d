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

import os
import shutil
import signal
import subprocess
import time
import typing as t
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.engine_info import DAEMON_DIRS
from ansible.module_utils.llmfleet.engine_start import PidFile, last_error, live_name, running_daemon
from ansible.module_utils.llmfleet.timed_run import timed_run

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
PID_FILES = ("docker.pid", "docker-ssd.pid", "docker/containerd/containerd.pid")
POLL_S = 0.2
# what the init script does, but for the limits it insists on: options and proxy settings stand in the defaults file
DIRECT_START = """
[ -f "$1" ] && . "$1"
ulimit -n "$(ulimit -H -n)"
exec "$0" $DOCKER_OPTS
"""


def process_name(pid: int) -> str:
    """Return the name of a live process, or "" when there is none."""
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return live_name(file.read())
    return ""


def read_pid_files(run_dir: str) -> list[PidFile]:
    files = []
    for name in PID_FILES:
        path = os.path.join(run_dir, name)
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            found = PidFile(path, file.read())
            files.append(PidFile(path, found.text, process_name(found.pid) if found.pid else ""))
    return files


def answers(cli: str) -> bool:
    """Whether the engine answers the client."""
    answer = timed_run([cli, "version", "--format", "{{.Server.Version}}"], 5)
    return answer.rc == 0 and bool(answer.out.strip())


def read_log(path: str, offset: int) -> str:
    """Return what ``path`` gained since ``offset``."""
    try:
        with open(path, "rb") as file:
            file.seek(min(offset, os.path.getsize(path)))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def run_init_script(script: str, seconds: int) -> str:
    """Let the init script start the engine; return why it did not, or ""."""
    # `service` gives the script the clean environment it has at boot
    service = shutil.which("service") if os.path.dirname(script) == "/etc/init.d" else None
    answer = timed_run([service, os.path.basename(script), "start"] if service else [script, "start"], seconds)
    if answer.rc == 0:
        return ""
    return answer.said or ("no end in time" if answer.timed_out else f"exit status {answer.rc}")


def launch(module: AnsibleModule) -> tuple[str, str, subprocess.Popen[bytes] | None]:
    """Start the engine in the background; return what started it, a remark, and the process when it is our child."""
    params = module.params
    script, remark = params["init_script"], ""
    if os.access(script, os.X_OK):
        why = run_init_script(script, params["timeout"])
        if not why:
            return script, "", None
        # it gives up where it may not raise its limits, as in a container, though the daemon can do without
        remark = f"{script} could not start the docker engine: {why}"
    dockerd = shutil.which(params["dockerd"], path=os.pathsep.join([os.environ.get("PATH", ""), *DAEMON_DIRS]))
    if not dockerd:
        module.fail_json(msg=remark or f"there is neither {script} nor {params['dockerd']}; install a docker engine")
    with open(params["log_file"], "ab") as log:
        child = subprocess.Popen(
            ["/bin/sh", "-c", DIRECT_START, dockerd, params["defaults_file"]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    return dockerd, remark, child


def wait_for_answer(
    module: AnsibleModule, child: subprocess.Popen[bytes] | None, alive_seen: bool, offset: int
) -> float:
    """Return the seconds until the engine answered; fail with its own words once it has ended or time is up."""
    params = module.params
    began = time.monotonic()
    while not answers(params["cli"]):
        alive = child.poll() is None if child else bool(running_daemon(read_pid_files(params["run_dir"])))
        alive_seen = alive_seen or alive
        waited = time.monotonic() - began
        # the init script's daemon needs a moment to write its pid file
        ended = not alive and (child is not None or alive_seen or waited > 5)
        if ended or waited > params["timeout"]:
            what = "ended while starting" if ended else f"did not answer within {params['timeout']} s"
            why = last_error(read_log(params["log_file"], offset)) or "it wrote no log"
            msg = f"the docker engine {what}: {why} (log: {params['log_file']}); correct that, run again"
            module.fail_json(msg=msg)
        time.sleep(POLL_S)
    return round(time.monotonic() - began, 2)


def start(module: AnsibleModule) -> dict[str, t.Any]:
    """Start the engine and wait until it answers."""
    params = module.params
    result: dict[str, t.Any] = {"changed": False, "started_with": "", "remark": "", "cleared": [], "waited_s": 0.0}
    if answers(params["cli"]):
        return result
    files = read_pid_files(params["run_dir"])
    result.update(changed=True, cleared=[file.path for file in files if file.stale])
    if module.check_mode:
        return result
    for path in result["cleared"]:
        with suppress(FileNotFoundError):
            os.remove(path)
    offset = os.path.getsize(params["log_file"]) if os.path.exists(params["log_file"]) else 0
    child: subprocess.Popen[bytes] | None = None
    on_its_way = bool(running_daemon(files))
    if not on_its_way:
        result["started_with"], result["remark"], child = launch(module)
    try:
        result["waited_s"] = wait_for_answer(module, child, on_its_way, offset)
    finally:
        if child and child.returncode is None:
            child.returncode = 0  # it is meant to outlive this module; Popen must not complain
    return result


def stop(module: AnsibleModule) -> dict[str, t.Any]:
    """End the daemon its pid file names and wait until it is gone."""
    params = module.params
    pid = running_daemon(read_pid_files(params["run_dir"]))
    began = time.monotonic()
    if pid and not module.check_mode:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        while process_name(pid) == "dockerd":
            if time.monotonic() - began > params["timeout"]:
                module.fail_json(msg=f"dockerd (process {pid}) did not end in {params['timeout']} s; end it by hand")
            time.sleep(POLL_S)
    waited = round(time.monotonic() - began, 2) if pid else 0.0
    return {"changed": bool(pid), "started_with": "", "remark": "", "cleared": [], "waited_s": waited}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = start(module) if module.params["state"] == "started" else stop(module)
    except PermissionError as exc:
        module.fail_json(msg=f"{exc.filename or 'the docker engine'}: permission denied; run this task with become")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
