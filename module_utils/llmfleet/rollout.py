"""Carrying out a Decision on the containers of one service, so that a failure leaves the old one answering."""

from __future__ import annotations

import os
import re
import shutil
import typing as t

from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.handover import Handover
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.lifecycle import NEXT, PREVIOUS
from ansible.module_utils.llmfleet.rehearsal import RefusedError, new_arguments, rehearse
from ansible.module_utils.llmfleet.services import Service, Verify
from ansible.module_utils.llmfleet.spec import STOP_SECONDS, Spec, create_argv, identity, stored
from ansible.module_utils.llmfleet.verify import Report
from ansible.module_utils.llmfleet.watch import NotReadyError, docker_refused, wait_ready


class Rollout(Handover[Report]):
    """The containers of ``service`` on this host; ``directory`` holds its secret files, one folder a specification.

    ``make_room`` frees the port right before a new container starts, where something else has served until then.
    """

    def __init__(
        self, docker: Docker, service: Service, directory: str, make_room: t.Callable[[], object] | None = None
    ) -> None:
        super().__init__(docker, service.name, STOP_SECONDS)
        self._make_room = make_room
        self._verify = service.verify
        self._directory = directory
        self._secrets: t.Mapping[str, str] = {}
        self.instead: dict[str, t.Any] = {}

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
                return self.verify(wanted)
            except NotReadyError as error:
                # equal but not answering: a restart is what an operator would try first
                self.instead = {"changed": True, "action": "restart", "why": str(error)}
                return self.start(wanted)
        if action == "start":
            return self.start(wanted)
        if action == "finish":
            return self.finish(wanted)
        if action == "restore":
            return self.restore()
        self._secrets = secrets
        return self.replace(wanted)

    def verify(self, spec: Spec, *, put_back: bool = False) -> Report:
        """Return the verification report of the running container made from ``spec``; raises NotReadyError."""
        # the bounds of the roll-out that failed are not what the previous container was accepted by
        verify = Verify(level=self._verify.level, timeout=self._verify.timeout) if put_back else self._verify
        host, port = re.fullmatch(r"(.+):(\d+):\d+", spec["publish"]).groups()  # type: ignore[union-attr]
        # a wildcard address is reached through the loopback address of its family
        address = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
        endpoint = Endpoint(f"http://{address}:{port}", self._api_key(spec), timeout=120)
        return wait_ready(self._docker, spec, endpoint, verify)

    def _api_key(self, spec: Spec) -> str:
        """Return the API key of the container made from ``spec``, from the file that it was given."""
        if "api_key" not in spec["secrets"]:
            return ""
        with open(f"{self._secrets_dir(spec)}/api_key", encoding="utf-8") as file:
            # the engine may have been given it more than once
            return file.readline().strip()

    def _secrets_dir(self, spec: Spec) -> str:
        return f"{self._directory}/{identity(spec)}"

    def stop(self) -> None:
        """Stop the service; a half-done roll-out is undone first."""
        if self._docker.inspect("container", self._name + PREVIOUS):
            self._reinstate()
        self._discard(self._name + NEXT)
        self._docker.text("stop", "-t", str(STOP_SECONDS), self._name)

    def remove(self) -> None:
        """Remove every container of the service and its secret files."""
        super().remove()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _create(self, spec: Spec) -> None:
        self._prepare(spec)
        self._rehearse(spec)
        rc, out, err = self._docker.attempt(*create_argv(spec, self._name + NEXT, self._secrets_dir(spec)))
        if rc != 0:
            self._discard(self._name + NEXT)
            raise docker_refused(err or out)

    def _retired(self) -> None:
        if self._make_room:
            self._make_room()

    def _rehearse(self, wanted: Spec) -> None:
        """Raise RefusedError for arguments that the engine does not take, while the present container still serves."""
        current = self._docker.inspect("container", self._name)
        if current is None or current["State"]["Status"] != "running":
            return
        if not new_arguments(stored(current), wanted):
            return
        folder = self._secrets_dir(wanted)
        try:
            rehearse(self._docker, wanted, self._name + NEXT, folder, ENGINES[wanted["engine"]])
        except RefusedError:
            shutil.rmtree(folder, ignore_errors=True)
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
        folder = self._secrets_dir(spec)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name, value in self._secrets.items():
            temporary = f"{folder}/.{name}"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400), "w", encoding="utf-8") as file:
                file.write(value + "\n")
            os.chown(temporary, RUN_UID, RUN_UID)
            os.replace(temporary, f"{folder}/{name}")

    def _settle(self, kept: Spec) -> None:
        """Delete the secret files of other specifications; only now is none of them needed any more."""
        if os.path.isdir(self._directory):
            for folder in os.listdir(self._directory):
                if folder != identity(kept):
                    shutil.rmtree(f"{self._directory}/{folder}", ignore_errors=True)
