"""What the module side_container does on a host: look, decide, carry out. Edge code."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.module_utils.llmfleet.addresses import who_listens
from ansible.module_utils.llmfleet.constants import LABEL_SIDE
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.lifecycle import NEXT, PREVIOUS, Decision, describe
from ansible.module_utils.llmfleet.side import parts
from ansible.module_utils.llmfleet.side import spec as side_spec
from ansible.module_utils.llmfleet.side.files import FileKeeper
from ansible.module_utils.llmfleet.side.keeper import SideKeeper, decide_side
from ansible.module_utils.llmfleet.spec import Spec, stored

LOOKS = ("create", "replace", "reload", "restart", "start", "finish")
"""Actions before which the new files are looked at."""


class SideJob:
    """One run of the module on the helper whose folder is ``home``; ``docker`` is None where there is no client."""

    def __init__(self, params: t.Mapping[str, t.Any], home: Path, docker: Docker | None, check_mode: bool) -> None:
        self._params, self._home, self._check_mode = params, home, check_mode
        self._docker = docker
        self._side = parts.parse(params, str(home))
        owner = self._side.owner if self._side.user else (0, 0)
        self._files = FileKeeper(home, self._side.files, owner)
        self.result: dict[str, t.Any] = {"changed": False, "action": "none", "why": "there is no such container"}

    def run(self) -> dict[str, t.Any]:
        """Bring the helper to its state; return the module's result. Raises what the module tells."""
        if self._params["state"] == "absent":
            return self._absent()
        if self._docker is None:
            if not self._check_mode:
                raise LlmfleetError(
                    f"{self._side.name}: there is no docker client on this host; run the whole site.yml"
                )
            self.result.update(changed=True, action="create", why="no engine is running yet")
            return self.result
        return self._started(self._docker)

    def _look(self, docker: Docker) -> tuple[list[t.Any], list[Spec | None]]:
        containers = [self._own(docker, self._side.name + suffix) for suffix in ("", PREVIOUS)]
        return containers, [stored(container) for container in containers]

    def _own(self, docker: Docker, name: str) -> dict[str, t.Any] | None:
        container = docker.inspect("container", name)
        if container and LABEL_SIDE not in (container["Config"].get("Labels") or {}):
            raise LlmfleetError(
                f"{name}: a container of this name exists that is none of these helpers; give another name, or remove "
                f"that container (docker rm {name})"
            )
        return container

    def _started(self, docker: Docker) -> dict[str, t.Any]:
        side, files = self._side, self._files
        containers, specs = self._look(docker)
        image = docker.inspect("image", side.image)
        if image is None and not self._check_mode:
            raise LlmfleetError(f"{side.name}: image {side.image} is not on this host; build or pull it first")
        wanted = side_spec.build(side, image["Id"] if image else "")
        seen = [describe(container, spec) for container, spec in zip(containers, specs)]
        had = files.known.get("listens") or []
        decision = decide_side(side, "started", seen[0], seen[1], wanted, files.why(), had)
        self._tell(decision, specs[0] or specs[1], wanted)
        keeper = SideKeeper(docker, side, files)
        if decision.action in LOOKS:
            self._check_addresses(docker, had if any(seen) else [])
            keeper.check(wanted, self._check_mode)
        if not self._check_mode:
            seconds = keeper.carry_out(decision.action, wanted)
            self.result.update(keeper.instead, health_seconds=seconds)
        return self.result

    def _tell(self, decision: Decision, before: Spec | None, after: Spec | None) -> None:
        diff = {
            "before": side_spec.printable(before, self._files.before),
            "after": side_spec.printable(after, self._files.after),
        }
        self.result.update(changed=decision.changes, action=decision.action, why=decision.why, diff=diff)

    def _check_addresses(self, docker: Docker, had: t.Sequence[str]) -> None:
        """Raise LlmfleetError when a port that it takes anew belongs to somebody; ``had`` are the addresses it has."""
        ports = {row.rpartition(" ")[2] for row in had}
        for host, port in self._side.listens:
            # of a port that it has on another address, it would be told itself
            listener = "" if str(port) in ports else who_listens(docker, host, port)
            if listener:
                raise LlmfleetError(
                    f"{self._side.name}: port {port} on {host} is taken by {listener}; choose another or stop it"
                )

    def _absent(self) -> dict[str, t.Any]:
        specs: list[Spec | None] = [None, None]
        if self._docker:
            containers, specs = self._look(self._docker)
            # one that an interruption left behind counts as well
            if any(containers) or self._own(self._docker, self._side.name + NEXT):
                self._tell(Decision("remove", "state is absent"), specs[0] or specs[1], None)
        volumes = {**((specs[0] or specs[1] or {}).get("volumes", {})), **self._side.volumes}
        rest = [self._home / name for name in parts.RESERVED]
        if any(path.exists() for path in rest) or (self._params["purge"] and self._home.exists()):
            self.result.update(changed=True, action="remove", why="state is absent")
        keeper = SideKeeper(self._docker or Docker(_nothing), self._side, self._files)
        if not self._check_mode:
            if self._docker:
                keeper.remove()
            self.result["left"] = keeper.clear(volumes.values(), self._params["purge"])
        return self.result


def _nothing(*_: t.Any, **__: t.Any) -> tuple[int, str, str]:
    return 127, "", "there is no docker client"
