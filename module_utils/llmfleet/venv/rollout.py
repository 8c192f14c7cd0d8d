"""Carrying out a Decision on the unit of one service, so that a failure leaves the old one answering. Edge code.

The unit that is replaced is kept as ``<unit>.previous`` beside it, where systemd does not read it, until the new one is
verified. What is left after an interruption tells how far it came, as with containers (see lifecycle).
"""

from __future__ import annotations

import os
import pwd
import time
import typing as t

from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.handover import RolledBackError, carry_out
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.lifecycle import Seen
from ansible.module_utils.llmfleet.rehearsal import RefusedError
from ansible.module_utils.llmfleet.secret_files import SecretFiles
from ansible.module_utils.llmfleet.services import Service
from ansible.module_utils.llmfleet.spec import Spec
from ansible.module_utils.llmfleet.venv import unit
from ansible.module_utils.llmfleet.venv.before import PREVIOUS, ContainerBefore, take_away
from ansible.module_utils.llmfleet.venv.rehearsal import rehearse
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
        self._files = SecretFiles(directory)
        self._secrets: t.Mapping[str, str] = {}
        self._file = f"{units}/{self._unit}"
        self._seen = UnitsAsContainers(systemd)
        self.instead: dict[str, t.Any] = {}

    def look(self) -> tuple[Seen | None, Seen | None]:
        """Return the unit and the one it has replaced, as found."""
        text, previous = _read(self._file), _read(self._file + PREVIOUS)
        current = None if text is None else Seen(unit.stored(text), status_of(self._systemd.show(self._unit)))
        return current, None if previous is None else Seen(unit.stored(previous), "exited")

    def carry_out(self, action: str, wanted: Spec | None, secrets: t.Mapping[str, str]) -> Report | None:
        """Do ``action`` of a Decision as handover.carry_out does; a new unit gets ``secrets``."""
        self._secrets = secrets
        return carry_out(self, action, wanted)

    def verify(self, spec: Spec, *, put_back: bool = False) -> Report:
        """Return the verification report of the running unit made from ``spec``; raises NotReadyError."""
        address, port = endpoint_of(spec)
        endpoint = Endpoint(f"http://{address}:{port}", self._files.api_key(spec), timeout=120)
        return wait_ready(self._seen, spec, endpoint, self._verify.put_back() if put_back else self._verify)

    def start(self, spec: Spec) -> Report:
        """Start the unit again and verify it."""
        if not self._before.there:
            return self._restart(spec)
        # a former run was interrupted before the unit had taken over from the container
        self._before.stop()
        return self.finish(spec)

    def replace(self, wanted: Spec) -> Report:
        """Put the wanted unit in the place of the present one (if any), start and verify it.

        Raises NotReadyError when nothing had to be put back, RolledBackError otherwise. Re-entrant: it goes on from
        whatever an interruption left.
        """
        self._write_secrets(wanted)
        _make_folders(wanted)
        self._rehearse(wanted)
        # beside .previous stands only a unit that was never verified
        if os.path.exists(self._file) and not os.path.exists(self._file + PREVIOUS):
            os.replace(self._file, self._file + PREVIOUS)
        _write(self._file, unit.render(wanted, self._files.folder(wanted)), 0o644)
        self._before.stop()
        return self.finish(wanted)

    def _rehearse(self, wanted: Spec) -> None:
        """Raise RefusedError for arguments that the engine does not take, while what runs now still serves."""
        if status_of(self._systemd.show(self._unit)) != "running" and not self._before.there:
            return
        try:
            rehearse(wanted, self._files.folder(wanted), ENGINES[wanted["engine"]])
        except RefusedError:
            self._files.drop(wanted)
            self.instead = {"changed": False}
            raise

    def finish(self, wanted: Spec) -> Report:
        """Start the new unit and verify it, then let the previous one go, or put it back."""
        try:
            report = self._restart(wanted)
        except NotReadyError as error:
            self._roll_back(error)
        _remove(self._file + PREVIOUS)
        self._files.keep_only(wanted)
        self._before.remove()
        return report

    def _restart(self, spec: Spec, *, put_back: bool = False) -> Report:
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
        return self.verify(spec, put_back=put_back)

    def restore(self) -> Report:
        """Put .previous back as it was, running and verified."""
        spec = self._reinstate()
        report = self._restart(spec, put_back=True)
        self._files.keep_only(spec)
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
        self._files.remove()

    def _write_secrets(self, spec: Spec) -> None:
        """Write the files that only root and the user of the unit read: not handed over by systemd (LoadCredential=),
        as that comes to nothing where the host is a container itself."""
        if not self._secrets:
            return
        folder, group = self._files.folder(spec), pwd.getpwnam(spec["user"]).pw_gid
        for path, mode in ((os.path.dirname(self._files.directory), 0o711), (self._files.directory, 0o711), (folder, 0o750)):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, mode)
        os.chown(folder, -1, group)
        for name, value in self._secrets.items():
            _write(f"{folder}/{name}", value + "\n", 0o440, group)


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
