"""Carrying out a Decision on the containers of one service, so that a failure leaves the old one answering."""

from __future__ import annotations

import os
import re
import shutil
import typing as t

from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.lifecycle import NEXT, PREVIOUS
from ansible.module_utils.llmfleet.rehearsal import RefusedError, rehearse
from ansible.module_utils.llmfleet.services import Service, Verify
from ansible.module_utils.llmfleet.spec import STOP_SECONDS, Spec, create_argv, identity, stored
from ansible.module_utils.llmfleet.verify import Report
from ansible.module_utils.llmfleet.watch import NotReadyError, docker_refused, log_of, wait_ready


class RolledBackError(Exception):
    """The new container failed; ``restored`` says what became of the previous one."""

    def __init__(self, error: NotReadyError, restored: str, previous: Report | None) -> None:
        super().__init__(f"{error}. {restored}")
        self.error = error
        self.previous = previous


class Rollout:
    """The containers of ``service`` on this host; ``directory`` holds its secret files, one folder a specification."""

    def __init__(self, docker: Docker, service: Service, directory: str) -> None:
        self._docker = docker
        self._name = service.name
        self._verify = service.verify
        self._directory = directory
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
                return self.keep(wanted)
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
        return self.replace(wanted, secrets)

    def verify(self, spec: Spec, verify: Verify) -> Report:
        """Return the verification report of the running container made from ``spec``; raises NotReadyError."""
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

    def keep(self, spec: Spec) -> Report:
        """Verify the running container as it is."""
        return self.verify(spec, self._verify)

    def start(self, spec: Spec) -> Report:
        """Start the existing container again and verify it."""
        self._docker.text("restart", self._name)
        return self.verify(spec, self._verify)

    def replace(self, wanted: Spec, secrets: t.Mapping[str, str]) -> Report:
        """Create the wanted container, hand over from the present one (if any) and verify.

        Raises NotReadyError when nothing had to be put back, RolledBackError otherwise. Re-entrant: it goes on from
        whatever an interruption left.
        """
        self._discard(self._name + NEXT)
        self._prepare(wanted, secrets)
        self._rehearse(wanted)
        self._create(wanted)
        if self._docker.inspect("container", self._name + PREVIOUS):
            # only a container that was never verified stands beside .previous
            self._discard(self._name)
        elif self._docker.inspect("container", self._name):
            self._docker.text("rename", self._name, self._name + PREVIOUS)
        self._retire()
        self._docker.text("rename", self._name + NEXT, self._name)
        return self._start_new(wanted)

    def finish(self, wanted: Spec) -> Report:
        """Go on with a hand-over that was interrupted after the new container had got the service's name."""
        container = self._docker.inspect("container", self._name)
        if container and container["State"]["Status"] == "created":
            return self._start_new(wanted)
        return self._prove(wanted)

    def _start_new(self, wanted: Spec) -> Report:
        rc, out, err = self._docker.attempt("start", self._name)
        if rc != 0:
            self._roll_back(docker_refused(err or out))
        return self._prove(wanted)

    def _prove(self, wanted: Spec) -> Report:
        """Verify the new container, then let the previous one go, or put it back."""
        try:
            report = self.verify(wanted, self._verify)
        except NotReadyError as error:
            self._roll_back(error)
        self._discard(self._name + PREVIOUS)
        self._prune_secrets(wanted)
        return report

    def restore(self) -> Report:
        """Put .previous back as it was, running and verified."""
        spec = self._reinstate()
        self._docker.text("start", self._name)
        # the bounds of the roll-out that failed are not what the previous container was accepted by
        report = self.verify(spec, Verify(level=self._verify.level, timeout=self._verify.timeout))
        self._prune_secrets(spec)
        return report

    def stop(self) -> None:
        """Stop the service; a half-done roll-out is undone first."""
        if self._docker.inspect("container", self._name + PREVIOUS):
            self._reinstate()
        self._discard(self._name + NEXT)
        self._docker.text("stop", "-t", str(STOP_SECONDS), self._name)

    def _reinstate(self) -> Spec:
        """Give .previous its name and its restart policy back in place of what never was verified."""
        for suffix in (NEXT, ""):
            self._discard(self._name + suffix)
        self._docker.text("rename", self._name + PREVIOUS, self._name)
        container = self._docker.inspect("container", self._name)
        spec = stored(container)
        if spec is None or container is None:
            raise DockerError(f"container {self._name} has no readable label; start it by hand")
        # one whose policy is still its own may be running, and then it must not be updated
        if container["HostConfig"]["RestartPolicy"]["Name"] != spec["restart_policy"]:
            self._docker.text("update", "--restart", spec["restart_policy"], self._name)
        return spec

    def remove(self) -> None:
        """Remove every container of the service and its secret files."""
        if self._docker.inspect("container", self._name):
            self._docker.text("stop", "-t", str(STOP_SECONDS), self._name)
        for suffix in (NEXT, "", PREVIOUS):
            self._discard(self._name + suffix)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _rehearse(self, wanted: Spec) -> None:
        """Raise RefusedError for arguments that the engine does not take, while the present container still serves."""
        current = self._docker.inspect("container", self._name)
        if current is None or current["State"]["Status"] != "running":
            return
        folder = self._secrets_dir(wanted)
        try:
            rehearse(self._docker, wanted, self._name + NEXT, folder, ENGINES[wanted["engine"]])
        except RefusedError:
            shutil.rmtree(folder, ignore_errors=True)
            self.instead = {"changed": False}
            raise

    def _prepare(self, spec: Spec, secrets: t.Mapping[str, str]) -> None:
        """Write what a container of ``spec`` is given from the host."""
        self._write_secrets(spec, secrets)
        for folder in spec.get("caches", {}).values():
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, 0o700)
            os.chown(folder, RUN_UID, RUN_UID)

    def _create(self, spec: Spec) -> None:
        rc, out, err = self._docker.attempt(*create_argv(spec, self._name + NEXT, self._secrets_dir(spec)))
        if rc != 0:
            self._discard(self._name + NEXT)
            raise docker_refused(err or out)

    def _retire(self) -> None:
        """Stop .previous, then drop its restart policy: updating a running GPU container takes its GPUs away."""
        previous = self._name + PREVIOUS
        if self._docker.inspect("container", previous):
            self._docker.text("stop", "-t", str(STOP_SECONDS), previous)
            self._docker.text("update", "--restart", "no", previous)

    def _roll_back(self, error: NotReadyError) -> t.NoReturn:
        error.log = error.log or log_of(self._docker, self._name)
        if not self._docker.inspect("container", self._name + PREVIOUS):
            self._discard(self._name)
            raise error
        try:
            previous: Report | None = self.restore()
            said = "The previous container is back and verified"
        except (NotReadyError, DockerError) as failed:
            previous, said = None, f"The previous container is back but does not answer: {failed}"
        raise RolledBackError(error, said, previous)

    def _discard(self, container: str) -> None:
        """Remove a container that serves nobody: never verified, already stopped, or just stopped."""
        if self._docker.inspect("container", container):
            self._docker.text("rm", "--force", container)

    def _write_secrets(self, spec: Spec, secrets: t.Mapping[str, str]) -> None:
        if not secrets:
            return
        folder = self._secrets_dir(spec)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name, value in secrets.items():
            temporary = f"{folder}/.{name}"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400), "w", encoding="utf-8") as file:
                file.write(value + "\n")
            os.chown(temporary, RUN_UID, RUN_UID)
            os.replace(temporary, f"{folder}/{name}")

    def _prune_secrets(self, kept: Spec) -> None:
        """Delete the secret files of other specifications; only now is none of them needed any more."""
        if os.path.isdir(self._directory):
            for folder in os.listdir(self._directory):
                if folder != identity(kept):
                    shutil.rmtree(f"{self._directory}/{folder}", ignore_errors=True)
