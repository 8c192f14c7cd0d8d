"""The container that has served a service until now, when the service moves into a venv. Edge code."""

from __future__ import annotations

import os

from ansible.module_utils.llmfleet import spec as container_spec
from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.rollout import Rollout
from ansible.module_utils.llmfleet.services import Service, Verify
from ansible.module_utils.llmfleet.verify import Report
from ansible.module_utils.llmfleet.wanted import find_own
from ansible.module_utils.llmfleet.watch import NotReadyError


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
        verify = self._service.verify
        try:
            self._docker.text("start", self._service.name)
            rollout = Rollout(self._docker, self._service, os.path.join(self._directory, self._service.name))
            report = rollout.verify(self.spec, Verify(level=verify.level, timeout=verify.timeout))
        except (NotReadyError, DockerError) as failed:
            return f"The container is back but does not answer: {failed}", None
        return "The container is back and verified", report
