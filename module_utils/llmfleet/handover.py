"""Handing a name over from one container to the next, so that a failure leaves the old one answering.

What is named how is told in lifecycle. A subclass says how a container is created and what proves that it works.
"""

from __future__ import annotations

import typing as t
from abc import ABC, abstractmethod

from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.lifecycle import NEXT, PREVIOUS
from ansible.module_utils.llmfleet.spec import Spec, stored
from ansible.module_utils.llmfleet.watch import NotReadyError, docker_refused, log_of

Proof = t.TypeVar("Proof", covariant=True)
"""What a verification returns."""


class RolledBackError(Exception):
    """The new container failed; ``restored`` says what became of the previous one."""

    def __init__(self, error: NotReadyError, restored: str, previous: t.Any) -> None:
        super().__init__(f"{error}. {restored}")
        self.error = error
        self.previous = previous


class Steps(t.Protocol[Proof]):
    """What a Decision about a service may ask for, whatever it runs in."""

    instead: dict[str, t.Any]
    """What was done beyond the decision: fields of a module's result."""

    def verify(self, spec: Spec, *, put_back: bool = False) -> Proof: ...
    def start(self, spec: Spec) -> Proof: ...
    def replace(self, wanted: Spec) -> Proof: ...
    def finish(self, wanted: Spec) -> Proof: ...
    def restore(self) -> Proof: ...
    def stop(self) -> None: ...
    def remove(self) -> None: ...


def carry_out(steps: Steps[Proof], action: str, wanted: Spec | None) -> Proof | None:
    """Do ``action`` of a Decision; return the proof that it works, None when nothing is left running.

    Raises NotReadyError or RolledBackError.
    """
    if wanted is None:
        if action == "remove":
            steps.remove()
        elif action == "stop":
            steps.stop()
        return None
    if action == "keep":
        try:
            return steps.verify(wanted)
        except NotReadyError as error:
            # equal but not answering: a restart is what an operator would try first
            steps.instead = {"changed": True, "action": "restart", "why": str(error)}
            return steps.start(wanted)
    if action == "restore":
        return steps.restore()
    return {"start": steps.start, "finish": steps.finish}.get(action, steps.replace)(wanted)


class Handover(ABC, t.Generic[Proof]):
    """The containers of the name ``name``; one that is stopped gets ``stop_seconds`` to end by itself."""

    def __init__(self, docker: Docker, name: str, stop_seconds: int) -> None:
        self._docker, self._name, self._stop_seconds = docker, name, stop_seconds

    @abstractmethod
    def verify(self, spec: Spec, *, put_back: bool = False) -> Proof:
        """Return the proof that the container made from ``spec`` works; raises NotReadyError.

        ``put_back``: it is one that had been accepted before, so that bounds of the present roll-out do not count.
        """

    @abstractmethod
    def _create(self, spec: Spec) -> None:
        """Create ``<name>.next``; raises NotReadyError."""

    def _retired(self) -> None:
        """Do what must be done between the end of the old container and the start of the new one."""

    def _settle(self, kept: Spec) -> None:
        """Tidy up: the container made from ``kept`` is the accepted one."""

    def start(self, spec: Spec) -> Proof:
        """Start the existing container again and verify it."""
        self._docker.text("restart", "-t", str(self._stop_seconds), self._name)
        return self.verify(spec)

    def replace(self, wanted: Spec) -> Proof:
        """Create the wanted container, hand over from the present one (if any) and verify.

        Raises NotReadyError when nothing had to be put back, RolledBackError otherwise. Re-entrant: it goes on from
        whatever an interruption left.
        """
        self._discard(self._name + NEXT)
        self._create(wanted)
        if self._docker.inspect("container", self._name + PREVIOUS):
            # only a container that was never verified stands beside .previous
            self._discard(self._name)
        elif self._docker.inspect("container", self._name):
            self._docker.text("rename", self._name, self._name + PREVIOUS)
        self._retire()
        self._docker.text("rename", self._name + NEXT, self._name)
        return self._start_new(wanted)

    def finish(self, wanted: Spec) -> Proof:
        """Go on with a hand-over that was interrupted after the new container had got the name."""
        container = self._docker.inspect("container", self._name)
        if container and container["State"]["Status"] == "created":
            return self._start_new(wanted)
        return self._prove(wanted)

    def _start_new(self, wanted: Spec) -> Proof:
        self._retired()
        rc, out, err = self._docker.attempt("start", self._name)
        if rc != 0:
            self._roll_back(docker_refused(err or out))
        return self._prove(wanted)

    def _prove(self, wanted: Spec) -> Proof:
        """Verify the new container, then let the previous one go, or put it back."""
        try:
            proof = self.verify(wanted)
        except NotReadyError as error:
            self._roll_back(error)
        self._discard(self._name + PREVIOUS)
        self._settle(wanted)
        return proof

    def restore(self) -> Proof:
        """Put .previous back as it was, running and verified."""
        spec = self._reinstate()
        self._docker.text("start", self._name)
        proof = self.verify(spec, put_back=True)
        self._settle(spec)
        return proof

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
        """Remove every container of the name."""
        if self._docker.inspect("container", self._name):
            self._docker.text("stop", "-t", str(self._stop_seconds), self._name)
        for suffix in (NEXT, "", PREVIOUS):
            self._discard(self._name + suffix)

    def _retire(self) -> None:
        """Stop .previous, then drop its restart policy: updating a running GPU container takes its GPUs away."""
        previous = self._name + PREVIOUS
        if self._docker.inspect("container", previous):
            self._docker.text("stop", "-t", str(self._stop_seconds), previous)
            self._docker.text("update", "--restart", "no", previous)

    def _roll_back(self, error: NotReadyError) -> t.NoReturn:
        error.log = error.log or log_of(self._docker, self._name)
        if not self._docker.inspect("container", self._name + PREVIOUS):
            self._discard(self._name)
            raise error
        try:
            previous: Proof | None = self.restore()
            said = "The previous container is back and verified"
        except (NotReadyError, DockerError) as failed:
            previous, said = None, f"The previous container is back but does not answer: {failed}"
        raise RolledBackError(error, said, previous)

    def _discard(self, container: str) -> None:
        """Remove a container that serves nobody: never verified, already stopped, or just stopped."""
        if self._docker.inspect("container", container):
            self._docker.text("rm", "--force", container)
