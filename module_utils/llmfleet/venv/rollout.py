"""Carrying out a Decision on the unit of one service, so that a failure leaves the old one answering. Edge code.

The unit that is replaced is kept as ``<unit>.previous`` beside it, where systemd does not read it, until the new one is
verified. What is left after an interruption tells how far it came, as with containers (see lifecycle).
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
import typing as t

from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.handover import RolledBackError
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.lifecycle import Seen
from ansible.module_utils.llmfleet.services import Service, Verify
from ansible.module_utils.llmfleet.spec import Spec, identity
from ansible.module_utils.llmfleet.venv import unit
from ansible.module_utils.llmfleet.venv.before import PREVIOUS, ContainerBefore, take_away
from ansible.module_utils.llmfleet.venv.rehearsal import RefusedError, rehearse
from ansible.module_utils.llmfleet.venv.service_spec import UNITS, endpoint_of, unit_of
from ansible.module_utils.llmfleet.venv.systemd import Systemd, UnitsAsContainers, status_of
from ansible.module_utils.llmfleet.verify import Report
from ansible.module_utils.llmfleet.watch import NotReadyError, log_of, wait_ready


class UnitRollout:
    """The unit of ``service``; ``directory`` holds its secret files, ``before`` the container that served it so far."""

    def __init__(
        self, systemd: Systemd, service: Service, directory: str, before: ContainerBefore, units: str = UNITS
    ) -> None:
        self._systemd, self._verify, self._before = systemd, service.verify, before
        self._name, self._unit = service.name, unit_of(service.name)
        self._directory = directory
        self._file = f"{units}/{self._unit}"
        self._seen = UnitsAsContainers(systemd)
        self.instead: dict[str, t.Any] = {}

    def look(self) -> tuple[Seen | None, Seen | None]:
        """Return the unit and the one it has replaced, as found."""
        text, previous = _read(self._file), _read(self._file + PREVIOUS)
        current = None if text is None else Seen(unit.stored(text), status_of(self._systemd.show(self._unit)))
        return current, None if previous is None else Seen(unit.stored(previous), "exited")

    def carry_out(self, action: str, wanted: Spec | None, secrets: t.Mapping[str, str]) -> Report | None:
        """Do ``action`` of a Decision; return the verification report, None when nothing is left running.

        Raises NotReadyError or RolledBackError. Whatever it did beyond the decision stands in ``instead``.
        """
        if wanted is None:
            if action == "remove":
                self.remove()
            elif action == "stop":
                self.stop()
            return None
        if action == "keep":
            try:
                return self._check(wanted, self._verify)
            except NotReadyError as error:
                # equal but not answering: a restart is what an operator would try first
                self.instead = {"changed": True, "action": "restart", "why": str(error)}
                return self._restart(wanted, self._verify)
        if action == "start" and not self._before.there:
            return self._restart(wanted, self._verify)
        if action == "start":
            # a former run was interrupted before the unit had taken over from the container
            self._before.stop()
        if action in ("start", "finish"):
            return self._prove(wanted)
        if action == "restore":
            return self.restore()
        return self.replace(wanted, secrets)

    def replace(self, wanted: Spec, secrets: t.Mapping[str, str]) -> Report:
        """Put the wanted unit in the place of the present one (if any), start and verify it.

        Raises NotReadyError when nothing had to be put back, RolledBackError otherwise. Re-entrant: it goes on from
        whatever an interruption left.
        """
        self._write_secrets(wanted, secrets)
        _make_folders(wanted)
        self._rehearse(wanted)
        # beside .previous stands only a unit that was never verified
        if os.path.exists(self._file) and not os.path.exists(self._file + PREVIOUS):
            os.replace(self._file, self._file + PREVIOUS)
        _write(self._file, unit.render(wanted, self._secrets_dir(wanted)), 0o644)
        self._before.stop()
        return self._prove(wanted)

    def _rehearse(self, wanted: Spec) -> None:
        """Raise RefusedError for arguments that the engine does not take, while what runs now still serves."""
        if status_of(self._systemd.show(self._unit)) != "running" and not self._before.there:
            return
        try:
            rehearse(wanted, self._secrets_dir(wanted), ENGINES[wanted["engine"]])
        except RefusedError:
            shutil.rmtree(self._secrets_dir(wanted), ignore_errors=True)
            self.instead = {"changed": False}
            raise

    def _prove(self, wanted: Spec) -> Report:
        """Start the new unit and verify it, then let the previous one go, or put it back."""
        try:
            report = self._restart(wanted, self._verify)
        except NotReadyError as error:
            self._roll_back(error)
        _remove(self._file + PREVIOUS)
        self._prune_secrets(wanted)
        self._before.remove()
        return report

    def _restart(self, spec: Spec, verify: Verify) -> Report:
        self._seen.since = time.time()
        for words in (("daemon-reload",), ("enable", "--quiet", self._unit), ("restart", self._unit)):
            rc, out, err = self._systemd.attempt(*words)
            if rc != 0:
                diagnosis = {
                    "cause": "systemd cannot start the unit",
                    "evidence": f"systemctl {words[0]}: {(err or out).strip()[:300]}",
                    "fix": f"see systemctl status {self._unit}",
                }
                raise NotReadyError(diagnosis, log_of(self._seen, self._name))
        return self._check(spec, verify)

    def _check(self, spec: Spec, verify: Verify) -> Report:
        address, port = endpoint_of(spec)
        endpoint = Endpoint(f"http://{address}:{port}", self._api_key(spec), timeout=120)
        return wait_ready(self._seen, spec, endpoint, verify)

    def restore(self) -> Report:
        """Put .previous back as it was, running and verified."""
        spec = self._reinstate()
        # the bounds of the roll-out that failed are not what the previous one was accepted by
        report = self._restart(spec, Verify(level=self._verify.level, timeout=self._verify.timeout))
        self._prune_secrets(spec)
        return report

    def _reinstate(self) -> Spec:
        os.replace(self._file + PREVIOUS, self._file)
        spec = unit.stored(_read(self._file) or "")
        if spec is None:
            raise LlmfleetError(f"{self._file} does not say what it was made from; start it by hand")
        return spec

    def _roll_back(self, error: NotReadyError) -> t.NoReturn:
        error.log = error.log or log_of(self._seen, self._name)
        if os.path.exists(self._file + PREVIOUS):
            try:
                previous: Report | None = self.restore()
                said = "The previous unit is back and verified"
            except (NotReadyError, LlmfleetError) as failed:
                previous, said = None, f"The previous unit is back but does not answer: {failed}"
            raise RolledBackError(error, said, previous)
        take_away(self._systemd, self._unit, self._file)
        if self._before.there:
            raise RolledBackError(error, *self._before.restore())
        raise error

    def stop(self) -> None:
        """Stop the service; a half-done roll-out is undone first."""
        if os.path.exists(self._file + PREVIOUS):
            self._reinstate()
        self._systemd.do("daemon-reload")
        self._systemd.do("disable", "--quiet", "--now", self._unit)

    def remove(self) -> None:
        """Remove the unit of the service and its secret files."""
        take_away(self._systemd, self._unit, self._file)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _api_key(self, spec: Spec) -> str:
        if "api_key" not in spec["secrets"]:
            return ""
        with open(f"{self._secrets_dir(spec)}/api_key", encoding="utf-8") as file:
            return file.readline().strip()

    def _secrets_dir(self, spec: Spec) -> str:
        return f"{self._directory}/{identity(spec)}"

    def _write_secrets(self, spec: Spec, secrets: t.Mapping[str, str]) -> None:
        """Write the files that only root and the user of the unit read: not handed over by systemd (LoadCredential=),
        as that comes to nothing where the host is a container itself."""
        if not secrets:
            return
        folder, group = self._secrets_dir(spec), pwd.getpwnam(spec["user"]).pw_gid
        for path, mode in ((os.path.dirname(self._directory), 0o711), (self._directory, 0o711), (folder, 0o750)):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, mode)
        os.chown(folder, -1, group)
        for name, value in secrets.items():
            _write(f"{folder}/{name}", value + "\n", 0o440, group)

    def _prune_secrets(self, kept: Spec) -> None:
        """Delete the secret files of other specifications; only now is none of them needed any more."""
        if os.path.isdir(self._directory):
            for folder in os.listdir(self._directory):
                if folder != identity(kept):
                    shutil.rmtree(f"{self._directory}/{folder}", ignore_errors=True)


def _make_folders(spec: Spec) -> None:
    owner = pwd.getpwnam(spec["user"])
    for folder in spec["writes"]:
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o700)
        os.chown(folder, owner.pw_uid, owner.pw_gid)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(path: str, text: str, mode: int, group: int = -1) -> None:
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400), "w", encoding="utf-8") as file:
        os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), mode)
        file.write(text)
    os.replace(temporary, path)


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)
