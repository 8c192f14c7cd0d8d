"""Bringing a written daemon.json into effect, and taking it back when the daemon refuses. Edge of docker_daemon_apply.

What has to be done stands in the record (``pending``) until it is done, so that a run which ends in the middle is
repeated by the next one.
"""

from __future__ import annotations

import os
import time
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet import daemon_file, daemon_json, daemon_keys, daemon_look, daemon_running
from ansible.module_utils.llmfleet.daemon_control import Plain, wait_until
from ansible.module_utils.llmfleet.engine_info import read_client
from ansible.module_utils.llmfleet.engine_process import EngineProblem
from ansible.module_utils.llmfleet.engine_start import last_error
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.host_edge import move_into_place
from ansible.module_utils.llmfleet.timed_run import timed_run

# a reload takes a tenth of a second on an idle host
SETTLE_S = 15.0
# how long the daemon's word that it has read the file is waited for: its log level may leave that out
SILENT_S = 2.0
Config = dict[str, t.Any]
Move = t.Callable[[str, str], None]


class Record:
    """The record of docker_daemon_config; of it, only what is pending is ours."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._content = daemon_file.read_record(path)

    @property
    def pending(self) -> Config:
        return dict(self._content.get("pending") or {})

    def note(self, pending: Config) -> None:
        """Remember what is still to be done; {} for nothing."""
        self._content.pop("pending", None)
        if pending:
            self._content["pending"] = pending
        daemon_file.write_record(self.path, self._content)

    def go_back(self) -> None:
        """Forget the change that was pending: the file is again the one of the record before it."""
        self._content = dict(self.pending.get("record_before") or self._content)
        self.note({})


class ConfigFile:
    """daemon.json as it stands, and as it was before the pending change (``old``, None when that is not known)."""

    def __init__(self, path: str, record: Record, move: Move) -> None:
        self.path, self._record, self._move = path, record, move
        pending = record.pending
        swap = pending.get("swap") or {}
        self.text = self._text(path)
        # an earlier run ended between the interim file of a reload and the final one
        self.left_interim = bool(swap) and self.text == swap["interim"]
        if self.left_interim:
            self.text = swap["final"]
        self.config = daemon_json.parse(self.text or "", path)
        backup = str(pending.get("backup_file") or "")
        self.known = bool(pending.get("created")) or os.path.isfile(backup)
        self.old_text = None if pending.get("created") else self._text(backup)
        self.old = daemon_json.parse(self.old_text or "", backup) if self.known else self.config

    @staticmethod
    def _text(path: str) -> str | None:
        text, problem = daemon_look.read_daemon_json(path) if path else (None, "")
        if problem:
            raise LlmfleetError(problem)
        return text

    def place(self, text: str | None) -> None:
        """Write the file all at once, or remove it for None. Of a link, the target is written."""
        real = os.path.realpath(self.path)
        new = not os.path.exists(real)
        if text is not None:
            temporary = daemon_file.write_temporary(os.path.dirname(real), text)
            try:
                move_into_place(self._move, temporary, real)
            finally:
                with suppress(FileNotFoundError):
                    os.remove(temporary)
            if new:
                os.chmod(real, 0o644)
        elif not new:
            os.remove(real)

    def place_interim(self, interim: Config, final: str | None) -> None:
        """Write a file that is to be replaced by ``final`` soon, by the next run if this one ends before."""
        text = daemon_json.render(interim)
        self._record.note({**self._record.pending, "swap": {"interim": text, "final": final}})
        self.place(text)


class Daemon:
    """The running daemon: asked, reloaded and restarted, each until it is seen to run with its file."""

    def __init__(self, control: Plain, file: ConfigFile) -> None:
        self.control, self.file = control, file
        self.remarks: list[str] = []
        self.restarted = False

    def info(self) -> Config:
        """Return ``docker info``, {} while the engine does not answer."""
        cli = self.control.setup.cli
        answer = timed_run([cli, "info", "--format", "{{json .}}"], 10)
        client = read_client(cli, answer.rc, answer.out, answer.err)
        return dict(client.info) if client.reachable else {}

    def awake(self, wait: bool) -> Config:
        """Return ``docker info``, {} when no engine runs; one that starts just now is waited for."""
        info = self.info()
        pid = 0 if info else self.control.pid()
        if pid and wait:
            wait_until(lambda: bool(self.info()), self.control.setup.timeout)
            info = self.info()
        if pid and not info:
            raise EngineProblem(f"dockerd (process {pid}) runs but does not answer; see its log, restart it, run again")
        return info

    def reload(self, config: Config, text: str | None, empty_first: Config, changed: t.Collection[str]) -> None:
        """Let the daemon read its file, with the keys that went emptied, and see that it runs with ``changed``."""
        interim = daemon_running.with_empty(config, empty_first)
        if interim == config:
            self._signal(config, changed)
            return
        self.file.place_interim(interim, text)
        try:
            self._signal(interim, changed)
        finally:
            self.file.place(text)

    def _signal(self, config: Config, changed: t.Collection[str]) -> None:
        self.control.mark()
        self.control.reload()
        began = time.monotonic()
        left: list[daemon_running.Difference] = []

        def settled() -> bool:
            words = self.control.words()
            refused = daemon_running.reload_refused(words)
            info = {} if refused else self.info()
            if refused or (not info and not self.control.pid()):
                raise EngineProblem(refused or f"it ended: {last_error(words) or 'without a word'}")
            left[:] = daemon_running.split(daemon_running.compare(config, info), changed)[0]
            told = daemon_running.reload_confirmed(words) or time.monotonic() - began > SILENT_S
            return bool(info) and told and not left

        if not wait_until(settled, SETTLE_S):
            raise EngineProblem("; ".join(map(str, left)) or "it does not answer any more")

    def restart(self, config: Config, changed: t.Collection[str]) -> None:
        """Restart the daemon, wait until it answers and see that it runs with ``changed`` of ``config``."""
        seconds = self.control.setup.timeout
        self.restarted = True
        self.control.mark()
        self.control.restart()
        if not wait_until(lambda: bool(self.info()), seconds):
            why = last_error(self.control.words()) or "it logged nothing"
            raise EngineProblem(f"the docker engine did not answer within {seconds} s: {why}")
        ours, others = daemon_running.split(daemon_running.compare(config, self.info()), changed)
        self.remarks += [f"{self.file.path}: {one} after a restart of the docker engine" for one in others]
        if ours:
            raise EngineProblem("; ".join(map(str, ours)))

    def restart_carrying(self, carried: str, changed: t.Collection[str]) -> None:
        """Restart with live-restore on meanwhile, as ``carried`` (of daemon_running) says."""
        file, live = self.file, "live-restore"
        if daemon_running.loses(changed) and self.info().get("LiveRestoreEnabled"):
            # it would leave the processes of containers behind that no daemon knows any more
            ending = {**file.config, live: False}
            file.place_interim(ending, file.text)
            try:
                self._signal(ending, [live])
            finally:
                file.place(file.text)
        if carried == daemon_running.TURN_ON_FIRST:
            self.reload(file.config, file.text, {}, [live])
        if carried != daemon_running.TURN_OFF_LAST:
            self.restart(file.config, changed)
            return
        interim = {**file.config, live: True}
        file.place_interim(interim, file.text)
        try:
            self.restart(interim, changed)
        finally:
            file.place(file.text)
        self.reload(file.config, file.text, {live: False}, [live])

    def take_back(self, action: str, version: str) -> bool:
        """Put the old file back and bring the daemon to it; return whether it answers again."""
        file = self.file
        if file.known:
            file.place(file.old_text)
        try:
            if action == "restart" or not self.control.pid():
                self.restart(file.old, ())
            elif file.known:
                back = daemon_keys.needed_action(file.config, file.old, version)
                self.reload(file.old, file.old_text, dict(back.empty_first), sorted(back.keys))
        except EngineProblem as exc:
            self.remarks.append(f"going back: {exc}")
        return bool(self.info())
