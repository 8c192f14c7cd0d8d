"""Bringing a helper's container and files to what was decided, and back when that fails. Edge code."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import tempfile
import typing as t
from pathlib import Path

from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.handover import Handover, RolledBackError
from ansible.module_utils.llmfleet.lifecycle import NEXT, Decision, Seen, decide
from ansible.module_utils.llmfleet.side import spec as side_spec
from ansible.module_utils.llmfleet.side.files import FileKeeper
from ansible.module_utils.llmfleet.side.health import wait_up
from ansible.module_utils.llmfleet.side.parts import RESERVED, Side
from ansible.module_utils.llmfleet.spec import Spec
from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run
from ansible.module_utils.llmfleet.watch import NotReadyError, docker_refused, log_of

CHECK_SECONDS = 60.0
"""How long the program may look at its new files."""


def moves(side: Side, had: t.Collection[str]) -> bool:
    """Whether a port that it has (``had``, as in its record) is to be taken on another address.

    No program can listen on 0.0.0.0 while it still does on 127.0.0.1, nor the other way round.
    """
    ports = {row.rpartition(" ")[2] for row in had}
    return any(str(port) in ports and f"{host} {port}" not in had for host, port in side.listens)


def decide_side(
    side: Side,
    state: str,
    current: Seen | None,
    previous: Seen | None,
    wanted: Spec | None,
    files: str,
    had: t.Collection[str] = (),
) -> Decision:
    """Return what brings the helper to ``state``; ``files`` says what is to be done about its files, "" for nothing.

    Beside the actions of a service: reload (the signal is sent) and restart, where only files differ. ``had``: the
    addresses that it was accepted with.
    """
    found = decide(state, current, previous, wanted)
    if not files or found.action in ("remove", "none"):
        return found
    if found.action == "keep":
        return Decision("reload" if side.reload_signal and not moves(side, had) else "restart", files)
    return found if found.action == "create" else Decision(found.action, f"{found.why}; {files}")


class SideKeeper(Handover[float]):
    """The container of ``side`` and its ``files``."""

    def __init__(self, docker: Docker, side: Side, files: FileKeeper, run: TimedRunner = timed_run) -> None:
        super().__init__(docker, side.name, side.stop_seconds)
        self._side, self._files, self._run = side, files, run
        self._signalled = False
        self._accepted = [f"{host} {port}" for host, port in side.listens]
        self.instead: dict[str, t.Any] = {}

    def check(self, wanted: Spec, check_mode: bool) -> None:
        """Let the program look at its new files before anything changes; raises LlmfleetError with its own words."""
        command = self._side.check_argv
        if not command or (check_mode and not self._can_foresee(wanted)):
            return
        if not check_mode:
            os.makedirs(self._files.home, mode=0o700, exist_ok=True)
            self._make_volumes(wanted)
        with tempfile.TemporaryDirectory() as aside:
            # in check mode nothing is left on the host, not even a folder
            home = Path(aside) if check_mode else self._files.home
            folder = home / "files.next"
            container = f"{self._name}.check"
            argv = side_spec.check_argv(wanted, container, command, str(folder))
            checker = FileKeeper(home, self._side.files, self._side.owner)
            try:
                checker.write(folder, self._side.files)
                done = self._run([self._docker.executable, *argv], CHECK_SECONDS)
            finally:
                self._discard(container)
                shutil.rmtree(folder, ignore_errors=True)
        if done.rc != 0:
            lines = [line.strip() for line in (done.err or done.out).splitlines() if line.strip()]
            said = " ".join(lines)[-500:] or ("no answer in time" if done.timed_out else f"exit status {done.rc}")
            raise LlmfleetError(f"{self._name}: {command[0]} refuses its new files, so nothing was changed: {said}")

    def _can_foresee(self, wanted: Spec) -> bool:
        return bool(wanted["image_id"]) and all(map(os.path.isdir, wanted["volumes"].values()))

    def carry_out(self, action: str, wanted: Spec | None) -> float | None:
        """Do ``action``; return the seconds until it answered, None when nothing is left running.

        Raises NotReadyError or RolledBackError. Whatever it did beyond the decision stands in ``instead``.
        """
        if wanted is None:
            if action == "remove":
                self.remove()
            return None
        os.makedirs(self._files.home, mode=0o700, exist_ok=True)
        if action == "keep":
            seconds = self._keep(wanted)
        elif action in ("reload", "restart", "start"):
            seconds = self._renew(action, wanted)
        elif action == "restore":
            self._files.forward()
            seconds = super().restore()
        else:
            # one that already runs has read other files
            late = bool(self._files.differs)
            seconds = self.finish(wanted) if action == "finish" and not late else self.replace(wanted)
        self._settle(wanted)
        return seconds

    def _keep(self, wanted: Spec) -> float:
        try:
            return self.verify(wanted)
        except NotReadyError as error:
            # equal but not answering: a restart is what an operator would try first
            self.instead = {"changed": True, "action": "restart", "why": str(error)}
            return self.start(wanted)

    def verify(self, spec: Spec, *, put_back: bool = False) -> float:
        """Return the seconds until the container answered; what an answer contains belongs to the new files."""
        health = self._side.health
        wanted = dataclasses.replace(health, contains="") if put_back else health
        return wait_up(self._docker, spec["name"], wanted, reloaded=self._signalled)

    def restore(self) -> float:
        """Put .previous back with the files that it was accepted with."""
        self._put_back()
        return super().restore()

    def _put_back(self) -> bool:
        self._accepted = self._files.known.get("listens") or []
        return self._files.back()

    def _renew(self, action: str, wanted: Spec) -> float:
        """Put the files in place and let the container take them; put them back when that fails."""
        self._files.forward()
        try:
            self._take(action)
            return self.verify(wanted)
        except NotReadyError as error:
            error.log = error.log or log_of(self._docker, self._name)
            if not self._put_back():
                raise
            try:
                # whatever state it is in
                self._take("restart")
                previous: float | None = self.verify(wanted, put_back=True)
                self._settle(wanted)
                said = "Its previous files are back and verified"
            except (NotReadyError, DockerError) as failed:
                previous, said = None, f"Its previous files are back, but it does not answer: {failed}"
            raise RolledBackError(error, said, previous) from None

    def _take(self, action: str) -> None:
        self._signalled = action == "reload"
        if self._signalled:
            self._signal(signal.Signals[f"SIG{self._side.reload_signal}"])
            return
        rc, out, err = self._docker.attempt("restart", "-t", str(self._stop_seconds), self._name)
        if rc != 0:
            raise docker_refused(err or out)

    def _signal(self, number: signal.Signals) -> None:
        # after `docker kill`, whatever the signal, docker takes a later crash for a wanted end (moby issue 53415)
        container = self._docker.inspect("container", self._name)
        pid = container["State"]["Pid"] if container else 0
        try:
            if not pid:
                raise ProcessLookupError("it does not run")
            os.kill(pid, number)
        except ProcessLookupError as error:
            said = {"cause": f"it cannot be sent {number.name}", "evidence": str(error), "fix": "see log_tail"}
            raise NotReadyError(said) from None

    def _retired(self) -> None:
        self._files.forward()

    def _settle(self, kept: Spec) -> None:  # noqa: ARG002 - what the container was made from is in its label
        self._files.accept(self._accepted)

    def _create(self, spec: Spec) -> None:
        self._make_volumes(spec)
        if spec["files_target"]:
            self._files.make_folder()
        rc, out, err = self._docker.attempt(*side_spec.create_argv(spec, self._name + NEXT, str(self._files.folder)))
        if rc != 0:
            self._discard(self._name + NEXT)
            raise docker_refused(err or out)

    def _make_volumes(self, spec: Spec) -> None:
        for folder in spec["volumes"].values():
            if not os.path.isdir(folder):
                os.makedirs(folder, mode=0o750)
            os.chown(folder, *self._side.owner)

    def clear(self, volumes: t.Iterable[str], purge: bool) -> list[str]:
        """Remove the folder of the helper, with ``purge`` its volumes there too; return the volumes that stay."""
        home = self._files.home
        for name in RESERVED:
            path = home / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if purge and home.is_dir():
            shutil.rmtree(home)
        elif home.is_dir() and not any(home.iterdir()):
            home.rmdir()
        return sorted(source for source in volumes if os.path.isdir(source))
