"""Reloading and restarting the docker daemon, and reading its words. Edge code of the module docker_daemon_apply.

Nothing here makes systemd read its unit files again: that takes the GPUs away from running containers (NVML: Unknown
Error) where the engine uses systemd's cgroup driver.
"""

from __future__ import annotations

import os
import signal
import time
import typing as t

from ansible.module_utils.llmfleet import engine_process
from ansible.module_utils.llmfleet.engine_info import SYSTEMD_MARK
from ansible.module_utils.llmfleet.engine_process import EngineProblem, Setup
from ansible.module_utils.llmfleet.engine_start import last_error
from ansible.module_utils.llmfleet.timed_run import timed_run

UNIT = "docker.service"


class Plain:
    """The daemon of a host without systemd: its pid file, its log file, signals."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.offset = engine_process.size(setup.log_file)

    def mark(self) -> None:
        """Count the words from here."""
        self.offset = engine_process.size(self.setup.log_file)

    def words(self) -> str:
        """Return what the daemon has logged since the mark."""
        return engine_process.read_log(self.setup.log_file, self.offset)

    def pid(self) -> int:
        """Return the running daemon's process id, or 0."""
        return engine_process.daemon_pid(self.setup.run_dir)

    def reload(self) -> None:
        """Ask the daemon to read its file again; it answers in its log only."""
        pid = self.pid()
        if not pid:
            raise EngineProblem("the docker engine does not run")
        os.kill(pid, signal.SIGHUP)

    def restart(self) -> None:
        """End the daemon and start it; returns when it answers."""
        engine_process.stop(self.setup)
        engine_process.start(self.setup)


class Systemd(Plain):
    """The daemon as systemd's docker.service."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.since = time.time()

    def mark(self) -> None:
        super().mark()
        self.since = time.time()

    def words(self) -> str:
        # by the field: --unit would add systemd's own words on the unit, which name no cause
        since = f"--since=@{self.since:.6f}"
        return timed_run(["journalctl", "--no-pager", "--output=cat", since, f"_SYSTEMD_UNIT={UNIT}"], 10).out

    def pid(self) -> int:
        text = timed_run(["systemctl", "show", "--property=MainPID", "--value", UNIT], 10).out.strip()
        return int(text) if text.isdigit() and text != "0" else super().pid()

    def reload(self) -> None:
        if not self.pid():
            raise EngineProblem("the docker engine does not run")
        answer = timed_run(["systemctl", "reload", UNIT], 20)
        if answer.rc != 0:
            raise EngineProblem(f"systemctl reload docker: {answer.said or 'no end in time'}")

    def restart(self) -> None:
        # after three failed starts systemd refuses a fourth until told to forget them
        timed_run(["systemctl", "reset-failed", UNIT, "docker.socket"], 10)
        answer = timed_run(["systemctl", "restart", UNIT], self.setup.timeout)
        if answer.timed_out:
            raise EngineProblem(f"the docker engine did not start within {self.setup.timeout} s{self._because()}")
        if answer.rc != 0:
            raise EngineProblem(f"the docker engine did not start{self._because() or f': {answer.said}'}")

    def _because(self) -> str:
        timed_run(["journalctl", "--sync"], 5)
        why = last_error(self.words())
        return f": {why}" if why else ""


def control(setup: Setup) -> Plain:
    """Return what controls the daemon of this host."""
    return Systemd(setup) if os.path.isdir(SYSTEMD_MARK) else Plain(setup)


def wait_until(done: t.Callable[[], bool], seconds: float, pause: float = engine_process.POLL_S) -> bool:
    """Return whether ``done`` came true in time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
