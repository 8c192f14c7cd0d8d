"""Which containers run, and which of them a restart of the daemon stopped. Edge code of docker_daemon_apply."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.timed_run import Answer, timed_run


@dataclass(frozen=True)
class Box:
    """A running container."""

    id: str
    name: str
    pid: int


class Containers:
    """The containers of the engine that the client ``cli`` reaches."""

    def __init__(self, cli: str = "docker", seconds: float = 20) -> None:
        self.cli, self.seconds = cli, seconds

    def _docker(self, *args: str) -> Answer:
        return timed_run([self.cli, *args], self.seconds)

    def running(self) -> dict[str, Box]:
        """Return the running containers by id."""
        listed = self._docker("ps", "--quiet", "--no-trunc")
        ids = listed.out.split()
        looked = self._docker("container", "inspect", *ids) if listed.rc == 0 and ids else listed
        try:
            # one that ended meanwhile makes the exit status bad, not what is said of the others
            told = json.loads(looked.out) if ids else []
        except ValueError:
            told = None
        # no answer is not "none": a restart would stop them
        if listed.rc != 0 or looked.timed_out or told is None:
            why = looked.said if looked.err and not looked.timed_out else "no answer in time"
            raise LlmfleetError(f"the containers of this host could not be listed: {why}; see docker's log, run again")
        boxes = (Box(one["Id"], one["Name"].lstrip("/"), int(one["State"]["Pid"])) for one in told)
        return {box.id: box for box in boxes if box.pid}

    def start(self, boxes: t.Iterable[Box]) -> dict[str, str]:
        """Start containers again; return by name why some did not start."""
        left = list(boxes)
        why: dict[str, str] = {}
        # twice: one that lives in another's network can start only after it
        for _ in range(2):
            why = {}
            for box in left:
                answer = self._docker("start", box.id)
                if answer.rc != 0:
                    why[box.name] = answer.said or "no answer in time"
            left = [box for box in left if box.name in why]
        return why


def kept(before: t.Mapping[str, Box], after: t.Mapping[str, Box]) -> list[str]:
    """Return the names of the containers that ran on all the time, with the same process."""
    return sorted(box.name for box in before.values() if box.id in after and after[box.id].pid == box.pid)


def stopped(before: t.Mapping[str, Box], after: t.Mapping[str, Box]) -> list[Box]:
    """Return the containers that ran before and do not any more."""
    return sorted((box for box in before.values() if box.id not in after), key=lambda box: box.name)
