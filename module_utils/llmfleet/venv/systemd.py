"""systemd on a host: units and their journal, and a unit in the words in which `watch` sees containers. Edge code."""

from __future__ import annotations

import datetime
import os
import time
import typing as t

from ansible.module_utils.llmfleet.docker_cli import Docker, Runner
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.venv.service_spec import unit_of

_STARTED = "ExecMainStartTimestampMonotonic"
_ASKED = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "ExecMainCode", "ExecMainStatus", _STARTED)
OLDEST = 240
"""The first systemd that tells a program which does not start from one that ends (Type=exec)."""


class Systemd:
    """systemctl and journalctl, run through ``run`` (signature of ``AnsibleModule.run_command``)."""

    def __init__(self, run: Runner) -> None:
        self._run = run

    def check(self) -> None:
        """Raise LlmfleetError where there is no systemd, or one that is too old."""
        if not os.path.isdir("/run/systemd/system"):
            raise LlmfleetError("`runtime: venv` needs systemd, and this host runs without; take `runtime: container`")
        _, out, _ = self.attempt("--version")
        version = out.split()[1] if len(out.split()) > 1 else ""
        if not version.isdigit() or int(version) < OLDEST:
            raise LlmfleetError(
                f"`runtime: venv` needs systemd {OLDEST} or newer, and this host has {version or 'none'}; take "
                "`runtime: container`"
            )

    def attempt(self, *args: str) -> tuple[int, str, str]:
        """Return (exit status, stdout, stderr) of ``systemctl args``."""
        return self._run(["systemctl", *args], environ_update={"LC_ALL": "C", "SYSTEMD_COLORS": "0"})

    def do(self, *args: str) -> None:
        """Run ``systemctl args``; raises LlmfleetError with its own words."""
        rc, out, err = self.attempt(*args)
        if rc != 0:
            raise LlmfleetError(f"systemctl {' '.join(args)} failed: {(err or out).strip()}")

    def show(self, unit: str) -> dict[str, str]:
        """Return what systemd says of ``unit``."""
        _, out, _ = self.attempt("show", unit, f"--property={','.join(_ASKED)}")
        return dict(line.partition("=")[::2] for line in out.splitlines() if "=" in line)

    def log(self, unit: str, lines: int, since: float = 0, until: float = 0) -> str:
        """Return the last ``lines`` (0: all) of what ``unit`` has printed, between two times in seconds (0: open)."""
        # its own lines only, without what systemd says of it
        argv = ["journalctl", f"_SYSTEMD_UNIT={unit}", "--output=cat", "--no-pager", "--quiet"]
        argv += ["--lines", str(lines)] if lines else []
        argv += ["--since", f"@{since:.3f}"] if since else []
        argv += ["--until", f"@{until:.3f}"] if until else []
        return self._run(argv)[1]


class UnitsAsContainers(Docker):
    """Answers what verification asks docker about a service (inspect, logs) from its unit and its journal.

    A service is ready, or fails, by the same rules in both runtimes. ``since``: what was printed before (seconds since
    the epoch) is not this start's.
    """

    def __init__(self, systemd: Systemd) -> None:
        super().__init__(_nothing)
        self._systemd = systemd
        self.since = 0.0
        self._started: dict[str, str] = {}

    def inspect(self, kind: str, name: str) -> dict[str, t.Any] | None:
        """Return the unit of service ``name`` in the form of ``docker inspect``, None when there is none."""
        said = self._systemd.show(unit_of(name)) if kind == "container" else {}
        if said.get("LoadState") in (None, "not-found"):
            return None
        return {
            "Id": name,
            "Path": "vllm",
            "Args": [],
            "Config": {"Labels": {}},
            "RestartCount": int(said.get("NRestarts") or 0),
            "State": {
                "Status": status_of(said),
                "StartedAt": self._moment(said.get(_STARTED) or "0"),
                "OOMKilled": said.get("Result") == "oom-kill",
                "ExitCode": exit_code(said),
                "Error": said.get("Result", ""),
            },
        }

    def attempt(self, *args: str, **options: t.Any) -> tuple[int, str, str]:
        """Answer ``docker logs``; of anything else there is nothing."""
        del options
        if args[0] != "logs":
            return 1, "", f"a unit has no answer to docker {args[0]}"
        named = dict(zip(args[1:-1:2], args[2:-1:2]))
        since = _seconds(named["--since"]) if "--since" in named else self.since
        until = _seconds(named["--until"]) if "--until" in named else 0
        return 0, self._systemd.log(unit_of(args[-1]), int(named.get("--tail", 0)), since, until), ""

    def _moment(self, monotonic: str) -> str:
        """Return a time since boot in microseconds as docker would say it; the same for the same, however clocks go."""
        if monotonic not in self._started:
            moment = time.time() - (time.monotonic() - int(monotonic) / 1e6)
            said = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
            self._started[monotonic] = said.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return self._started[monotonic]


def exit_code(said: t.Mapping[str, str]) -> int:
    """Return with what docker would say that a unit's program has ended: of a signal, 128 and its number."""
    killed = said.get("ExecMainCode") in ("2", "3")
    return int(said.get("ExecMainStatus") or 0) + (128 if killed else 0)


def status_of(said: t.Mapping[str, str]) -> str:
    """Return what docker would call the state of a unit."""
    if said.get("ActiveState") in ("active", "reloading"):
        return "running"
    if said.get("ActiveState") == "activating":
        # between two attempts it is down, which docker calls so
        return "restarting" if said.get("SubState", "").startswith("auto-restart") else "running"
    return "exited"


def _seconds(moment: str) -> float:
    """Return a moment as docker takes it, seconds or text, in seconds since the epoch."""
    try:
        return float(moment)
    except ValueError:
        return datetime.datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


def _nothing(*args: t.Any, **options: t.Any) -> tuple[int, str, str]:
    del args, options
    return 1, "", ""
