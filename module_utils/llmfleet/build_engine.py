"""The engine that an image is built on: the client that offers BuildKit, the room on its disk, how much at once.

Edge code.
"""

from __future__ import annotations

import os
import shutil
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.llmfleet import host_edge as edge
from ansible.module_utils.llmfleet.build_host import (
    DOCKER_NEEDS,
    SDK_NEEDS,
    BuildFailed,
    BuildHost,
    disk_problem,
)
from ansible.module_utils.llmfleet.docker_cli import Docker, Runner
from ansible.module_utils.llmfleet.engine_info import CLIENT_DIRS, DEFAULT_ROOT, summarise
from ansible.module_utils.llmfleet.engine_look import ask_client
from ansible.module_utils.llmfleet.image_request import jobs


@dataclass(frozen=True)
class BuildEngine:
    """``docker`` is the client to build with, without an executable where no engine answers; ``info`` is its info."""

    docker: Docker
    buildkit: str = "none"  # buildx, embedded or none
    info: t.Mapping[str, t.Any] = field(default_factory=dict)

    def check_disk(self, work: Path, sdk: bool = False) -> None:
        """Raise BuildFailed when there is too little room for a build; ``sdk``: a GPU toolkit comes here for it."""
        root = str(self.info.get("DockerRootDir") or DEFAULT_ROOT)
        place = work
        while not place.exists():
            place = place.parent
        local = self.info.get("Name") == os.uname().nodename and os.path.isdir(root)
        shared = local and os.stat(root).st_dev == os.stat(place).st_dev
        docker_free = shutil.disk_usage(root).free if local else None
        needs = SDK_NEEDS if sdk else DOCKER_NEEDS
        problem = disk_problem(root, docker_free, str(place), shutil.disk_usage(place).free, shared, needs)
        if problem:
            raise BuildFailed(problem)

    def host(
        self,
        run: Runner,
        log: edge.JobLog,
        opener: t.Callable[..., t.Any],
        work: Path,
        tried: list[dict[str, str]],
    ) -> BuildHost:
        """Return the host that a job builds on: it writes to ``log``, and to ``tried`` what was of no use."""
        return BuildHost(
            docker=self.docker,
            run=run,
            stream=log.stream,
            opener=opener,
            work=work,
            log=log.path,
            info=self.info,
            environment=os.environ,
            tried=tried,
        )

    def jobs(self, asked: int) -> int:
        """Return how many compilers to run at once: ``asked``, or with 0 what processors and memory allow."""
        return asked if asked > 0 else jobs(int(self.info.get("NCPU") or 1), int(self.info.get("MemTotal") or 0))


def look(run: Runner, cli: str, build_cli: str, buildkit: str, lenient: bool) -> BuildEngine:
    """Return the engine behind the client ``cli``.

    ``build_cli`` and ``buildkit`` are what the inventory asks for ("" and ``auto`` choose). ``lenient`` takes an engine
    that does not answer for one that will: it says only what would be done.
    """
    own = [build_cli] if build_cli else [cli, *(f"{folder}/docker" for folder in CLIENT_DIRS)]
    paths = {os.path.realpath(found): found for found in map(edge.find_program, filter(None, own)) if found}
    clients = [ask_client(path)[0] for path in paths.values()]
    engine = summarise(clients, edge.find_program("dockerd"))
    if not engine.reachable:
        if lenient:
            return BuildEngine(Docker(run, ""))
        raise BuildFailed(f"An image cannot be made: {engine.error}.")
    info = dict(next(client.info for client in clients if client.path == engine.cli))
    return BuildEngine(Docker(run, engine.build_cli), engine.buildkit if buildkit == "auto" else buildkit, info)
