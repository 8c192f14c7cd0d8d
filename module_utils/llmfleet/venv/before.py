"""What has served a service until now in the other runtime: it makes room, and comes back if that fails. Edge code."""

from __future__ import annotations

import os
import shutil

from ansible.module_utils.llmfleet import spec as container_spec
from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.rollout import Rollout
from ansible.module_utils.llmfleet.services import Service
from ansible.module_utils.llmfleet.venv.service_spec import UNITS, unit_of
from ansible.module_utils.llmfleet.venv.systemd import Systemd
from ansible.module_utils.llmfleet.verify import Report
from ansible.module_utils.llmfleet.wanted import find_own
from ansible.module_utils.llmfleet.watch import NotReadyError

PREVIOUS = ".previous"
"""End of the file of a unit that was replaced and may come back; systemd does not read it."""


class ContainerBefore:
    """Stopped before the unit starts, taken away once that is verified, started again when it fails.

    ``docker`` is None on a host without a client; ``directory`` holds the secret files of the container.
    """

    def __init__(self, docker: Docker | None, service: Service, directory: str) -> None:
        self._docker, self._service, self._directory = docker, service, directory
        found = find_own(docker, service.name) if docker else None
        self.spec = container_spec.stored(found)
        self.there = found is not None

    def stop(self) -> None:
        """Free the port; a container that was stopped by hand is not started again by the engine."""
        if self._docker and self.there:
            self._docker.text("stop", "-t", str(container_spec.STOP_SECONDS), self._service.name)

    def remove(self) -> None:
        """Take it away for good."""
        if self._docker and self.there:
            Rollout(self._docker, self._service, os.path.join(self._directory, self._service.name)).remove()

    def restore(self) -> tuple[str, Report | None]:
        """Start it again; return what became of it and the verification."""
        if self._docker is None or self.spec is None:
            return "The container is gone", None
        try:
            self._docker.text("start", self._service.name)
            rollout = Rollout(self._docker, self._service, os.path.join(self._directory, self._service.name))
            report = rollout.verify(self.spec, put_back=True)
        except (NotReadyError, DockerError) as failed:
            return f"The container is back but does not answer: {failed}", None
        return "The container is back and verified", report


class UnitBefore:
    """Stopped before the container starts, taken away once that is verified, started again when it fails.

    ``directory`` holds the secret files of units. Where the service has no unit nothing is asked of systemd.
    """

    def __init__(self, systemd: Systemd, name: str, directory: str, units: str = UNITS) -> None:
        self._systemd, self._unit = systemd, unit_of(name)
        self._file, self._secrets = f"{units}/{self._unit}", os.path.join(directory, name)
        self.there = os.path.exists(self._file)

    def stop(self) -> None:
        """Free the port."""
        if self.there:
            self._systemd.do("stop", self._unit)

    def restore(self) -> str:
        """See that it runs as before; return what became of it, "" where there is none."""
        if not self.there:
            return ""
        rc, _, err = self._systemd.attempt("start", self._unit)
        said = "runs" if rc == 0 else f"does not start: {err.strip()}"
        return f"the unit {self._unit} {said}"

    def remove(self) -> None:
        """Take it away for good."""
        if self.there:
            take_away(self._systemd, self._unit, self._file)
            shutil.rmtree(self._secrets, ignore_errors=True)


def take_away(systemd: Systemd, unit: str, file: str) -> None:
    """Stop the unit ``unit`` and remove its file, and the one that it has replaced."""
    systemd.attempt("disable", "--quiet", "--now", unit)
    for path in (file, file + PREVIOUS):
        if os.path.exists(path):
            os.unlink(path)
    systemd.do("daemon-reload")
    # one that had failed would stay in the list of units
    systemd.attempt("reset-failed", unit)
