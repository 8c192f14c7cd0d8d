"""The engine, spoken to through the ``docker`` command and its JSON output.

The command runner is passed in, so modules hand over ``AnsibleModule.run_command`` and tests a table of answers.
"""

from __future__ import annotations

import csv
import io
import json
import typing as t

from ansible.module_utils.llmfleet.errors import LlmfleetError

Runner = t.Callable[..., tuple[int, str, str]]


class DockerError(LlmfleetError):
    """The docker command failed; carries its own words."""


class Docker:
    """A docker client at ``executable`` run through ``run`` (signature of ``AnsibleModule.run_command``)."""

    def __init__(self, run: Runner, executable: str = "docker") -> None:
        self._run = run
        self.executable = executable

    def attempt(self, *args: str, **options: t.Any) -> tuple[int, str, str]:
        """Return (exit status, stdout, stderr) of ``docker args`` without judging them."""
        return self._run([self.executable, *args], **options)

    def text(self, *args: str, **options: t.Any) -> str:
        """Return stdout of ``docker args``; raise DockerError with docker's own message when it fails."""
        rc, out, err = self.attempt(*args, **options)
        if rc != 0:
            said = (err or out).strip() or f"exit status {rc}"
            raise DockerError(f"docker {args[0]} failed: {said}")
        return out

    def inspect(self, kind: str, name: str) -> dict[str, t.Any] | None:
        """Return ``docker <kind> inspect name``, or None when there is no such object.

        Any other failure (engine down, no permission) raises DockerError.
        """
        rc, out, err = self.attempt(kind, "inspect", name)
        if rc == 0:
            return t.cast("dict[str, t.Any]", json.loads(out)[0])
        if "no such" in err.lower():
            return None
        raise DockerError(f"docker {kind} inspect {name} failed: {err.strip() or out.strip()}")


def bind_mount(source: str, target: str, writable: bool = False) -> str:
    """Return the value of ``--mount`` for a bind mount; docker parses it as CSV, so a comma in a path is quoted."""
    line = io.StringIO()
    words = ["type=bind", f"src={source}", f"dst={target}", *([] if writable else ["readonly"])]
    csv.writer(line, lineterminator="").writerow(words)
    return line.getvalue()
