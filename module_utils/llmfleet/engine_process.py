"""Starting and stopping the docker engine where no systemd runs the host. Edge code, shared by several modules."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

from ansible.module_utils.llmfleet.engine_info import DAEMON_DIRS
from ansible.module_utils.llmfleet.engine_start import PidFile, last_error, live_name, running_daemon
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.timed_run import timed_run

PID_FILES = ("docker.pid", "docker-ssd.pid", "docker/containerd/containerd.pid")
POLL_S = 0.2
# what the init script does, but for the limits it insists on: options and proxy settings stand in the defaults file
DIRECT_START = """
[ -f "$1" ] && . "$1"
ulimit -n "$(ulimit -H -n)"
exec "$0" $DOCKER_OPTS
"""


class EngineProblem(LlmfleetError):
    """The engine could not be started or stopped; says why in its own words."""


@dataclass(frozen=True)
class Setup:
    """Where a host without systemd keeps what starts its engine, and how many seconds that may take."""

    cli: str = "docker"
    init_script: str = "/etc/init.d/docker"
    dockerd: str = "dockerd"
    defaults_file: str = "/etc/default/docker"
    log_file: str = "/var/log/docker.log"
    run_dir: str = "/var/run"
    timeout: int = 60


@dataclass(frozen=True)
class Started:
    """What it took to have a running engine."""

    changed: bool = False
    started_with: str = ""
    remark: str = ""
    cleared: tuple[str, ...] = ()
    waited_s: float = 0.0


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


def daemon_pid(run_dir: str) -> int:
    """Return the process id of the running dockerd that a pid file names, or 0."""
    return running_daemon(read_pid_files(run_dir))


def answers(cli: str) -> bool:
    """Whether the engine answers the client."""
    answer = timed_run([cli, "version", "--format", "{{.Server.Version}}"], 5)
    return answer.rc == 0 and bool(answer.out.strip())


def size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


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


def launch(setup: Setup) -> tuple[str, str, subprocess.Popen[bytes] | None]:
    """Start the engine in the background; return what started it, a remark, and the process when it is our child."""
    script, remark = setup.init_script, ""
    if os.access(script, os.X_OK):
        why = run_init_script(script, setup.timeout)
        if not why:
            return script, "", None
        # it gives up where it may not raise its limits, as in a container, though the daemon can do without
        remark = f"{script} could not start the docker engine: {why}"
    dockerd = shutil.which(setup.dockerd, path=os.pathsep.join([os.environ.get("PATH", ""), *DAEMON_DIRS]))
    if not dockerd:
        raise EngineProblem(remark or f"there is neither {script} nor {setup.dockerd}; install a docker engine")
    with open(setup.log_file, "ab") as log:
        child = subprocess.Popen(
            ["/bin/sh", "-c", DIRECT_START, dockerd, setup.defaults_file],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    return dockerd, remark, child


def wait_for_answer(setup: Setup, child: subprocess.Popen[bytes] | None, alive_seen: bool, offset: int) -> float:
    """Return the seconds until the engine answered; fail with its own words once it has ended or time is up."""
    began = time.monotonic()
    while not answers(setup.cli):
        alive = child.poll() is None if child else bool(daemon_pid(setup.run_dir))
        alive_seen = alive_seen or alive
        waited = time.monotonic() - began
        # the init script's daemon needs a moment to write its pid file
        ended = not alive and (child is not None or alive_seen or waited > 5)
        if ended or waited > setup.timeout:
            what = "ended while starting" if ended else f"did not answer within {setup.timeout} s"
            why = last_error(read_log(setup.log_file, offset)) or "it wrote no log"
            raise EngineProblem(f"the docker engine {what}: {why} (log: {setup.log_file}); correct that, run again")
        time.sleep(POLL_S)
    return round(time.monotonic() - began, 2)


def start(setup: Setup, check_mode: bool = False) -> Started:
    """Start the engine unless it answers, and wait until it does."""
    if answers(setup.cli):
        return Started()
    files = read_pid_files(setup.run_dir)
    cleared = tuple(file.path for file in files if file.stale)
    if check_mode:
        return Started(True, cleared=cleared)
    for path in cleared:
        with suppress(FileNotFoundError):
            os.remove(path)
    offset = size(setup.log_file)
    started_with, remark = "", ""
    child: subprocess.Popen[bytes] | None = None
    on_its_way = bool(running_daemon(files))
    if not on_its_way:
        started_with, remark, child = launch(setup)
    try:
        waited = wait_for_answer(setup, child, on_its_way, offset)
    finally:
        if child and child.returncode is None:
            child.returncode = 0  # it is meant to outlive this module; Popen must not complain
    return Started(True, started_with, remark, cleared, waited)


def stop(setup: Setup, check_mode: bool = False) -> tuple[bool, float]:
    """End the daemon its pid file names and wait until it is gone; return (whether there was one, seconds waited)."""
    pid = daemon_pid(setup.run_dir)
    if not pid or check_mode:
        return bool(pid), 0.0
    began = time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while process_name(pid) == "dockerd":
        if time.monotonic() - began > setup.timeout:
            raise EngineProblem(f"dockerd (process {pid}) did not end in {setup.timeout} s; end it by hand")
        time.sleep(POLL_S)
    return True, round(time.monotonic() - began, 2)
