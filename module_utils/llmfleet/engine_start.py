"""Starting the docker engine on a host without systemd: which pid files are stale, what a log says of a failure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

DAEMONS = ("dockerd", "containerd")


@dataclass(frozen=True)
class PidFile:
    """A pid file with its content and the name of the live process it points to ("" when there is none)."""

    path: str
    text: str
    process: str = ""

    @property
    def pid(self) -> int:
        """The process it names, or 0."""
        text = self.text.strip()
        return int(text) if text.isdigit() else 0

    @property
    def stale(self) -> bool:
        """Whether its daemon is gone: a killed daemon leaves the file, and the number goes to any new process."""
        return self.process not in DAEMONS


def live_name(stat: str) -> str:
    """Return the process's name in the words of /proc/PID/stat, or "" for a zombie, which is no process any more."""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return "" if rest.split()[0] in ("Z", "X") else name


def running_daemon(files: t.Sequence[PidFile]) -> int:
    """Return the pid of a live dockerd named by one of ``files``, or 0."""
    return next((file.pid for file in files if file.process == "dockerd"), 0)


def last_error(log: str) -> str:
    """Return the line of dockerd's ``log`` that says why it stopped, without its clutter; "" for an empty log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for pattern in (r"failed to start daemon|unable to configure the Docker daemon", r"level=(fatal|error)", r"."):
        for line in reversed(lines):
            if re.search(pattern, line):
                found = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
                return found.group(1).replace('\\"', '"') if found else line
    return ""
