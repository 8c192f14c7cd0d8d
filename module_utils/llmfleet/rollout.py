"""Carrying out a Decision on the containers of one service, so that a failure leaves the old one answering."""

from __future__ import annotations

import os
import re
import typing as t

from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.handover import Handover, carry_out
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.lifecycle import NEXT, PREVIOUS
from ansible.module_utils.llmfleet.rehearsal import RefusedError, new_arguments, rehearse
from ansible.module_utils.llmfleet.secret_files import SecretFiles
from ansible.module_utils.llmfleet.services import Service
from ansible.module_utils.llmfleet.spec import STOP_SECONDS, Spec, create_argv, stored
from ansible.module_utils.llmfleet.verify import Report
from ansible.module_utils.llmfleet.watch import docker_refused, wait_ready


class Before(t.Protocol):
    """What has served the service until now without a container, if it is there."""

    there: bool

    def stop(self) -> None:
        """Free the port."""


class Rollout(Handover[Report]):
    """The containers of ``service`` on this host; ``directory`` holds its secret files, one folder a specification.

    ``before`` is stopped right before a new container starts.
    """

    def __init__(self, docker: Docker, service: Service, directory: str, before: Before | None = None) -> None:
        super().__init__(docker, service.name, STOP_SECONDS)
        self._before = before if before and before.there else None
        self._verify = service.verify
        self._files = SecretFiles(directory)
        self._secrets: t.Mapping[str, str] = {}
        self.instead: dict[str, t.Any] = {}

    def carry_out(self, action: str, wanted: Spec | None, secrets: t.Mapping[str, str]) -> Report | None:
        """Do ``action`` of a Decision as handover.carry_out does; a new container gets ``secrets``."""
        self._secrets = secrets
        return carry_out(self, action, wanted)

    def verify(self, spec: Spec, *, put_back: bool = False) -> Report:
        """Return the verification report of the running container made from ``spec``; raises NotReadyError."""
        verify = self._verify.put_back() if put_back else self._verify
        host, port = re.fullmatch(r"(.+):(\d+):\d+", spec["publish"]).groups()  # type: ignore[union-attr]
        # a wildcard address is reached through the loopback address of its family
        address = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
        endpoint = Endpoint(f"http://{address}:{port}", self._files.api_key(spec), timeout=120)
        return wait_ready(self._docker, spec, endpoint, verify)

    def stop(self) -> None:
        """Stop the service; a half-done roll-out is undone first."""
        if self._docker.inspect("container", self._name + PREVIOUS):
            self._reinstate()
        self._discard(self._name + NEXT)
        self._docker.text("stop", "-t", str(STOP_SECONDS), self._name)

    def remove(self) -> None:
        """Remove every container of the service and its secret files."""
        super().remove()
        self._files.remove()

    def _create(self, spec: Spec) -> None:
        self._prepare(spec)
        self._rehearse(spec)
        rc, out, err = self._docker.attempt(*create_argv(spec, self._name + NEXT, self._files.folder(spec)))
        if rc != 0:
            self._discard(self._name + NEXT)
            raise docker_refused(err or out)

    def _retired(self) -> None:
        if self._before:
            self._before.stop()

    def _rehearse(self, wanted: Spec) -> None:
        """Raise RefusedError for arguments that the engine does not take, while what runs now still serves."""
        current = self._docker.inspect("container", self._name)
        runs = current is not None and current["State"]["Status"] == "running"
        if not (runs or self._before) or not new_arguments(stored(current) if runs else None, wanted):
            return
        try:
            rehearse(self._docker, wanted, self._name + NEXT, self._files.folder(wanted), ENGINES[wanted["engine"]])
        except RefusedError:
            self._files.drop(wanted)
            self.instead = {"changed": False}
            raise

    def _prepare(self, spec: Spec) -> None:
        """Write what a container of ``spec`` is given from the host."""
        self._write_secrets(spec)
        for folder in spec.get("caches", {}).values():
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, 0o700)
            os.chown(folder, RUN_UID, RUN_UID)

    def _write_secrets(self, spec: Spec) -> None:
        if not self._secrets:
            return
        folder = self._files.folder(spec)
        os.makedirs(self._files.directory, mode=0o700, exist_ok=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name, value in self._secrets.items():
            temporary = f"{folder}/.{name}"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400), "w", encoding="utf-8") as file:
                file.write(value + "\n")
            os.chown(temporary, RUN_UID, RUN_UID)
            os.replace(temporary, f"{folder}/{name}")

    def _settle(self, kept: Spec) -> None:
        # only now is none of the others needed any more
        self._files.keep_only(kept)
