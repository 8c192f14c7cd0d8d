"""Run a command that may hang, with a limit on the time it is waited for.

``AnsibleModule.run_command`` waits for ever, and a program stuck in a driver call cannot even be killed. This is
edge code, kept here because several modules share it; the pure core takes its answers as plain data.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import typing as t
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a command said; ``rc`` is None when it gave no answer in time, 127 when it could not be run at all."""

    rc: int | None
    out: str = ""
    err: str = ""

    @property
    def timed_out(self) -> bool:
        return self.rc is None

    @property
    def said(self) -> str:
        """Its words, errors first, on one line."""
        return " ".join((self.err.strip() or self.out.strip()).split())


TimedRunner = t.Callable[..., Answer]


def timed_run(argv: t.Sequence[str], seconds: float = 20.0, env: t.Mapping[str, str] | None = None) -> Answer:
    """Run ``argv`` in the C locale, waiting ``seconds`` at most.

    Output goes through files: a daemon left behind by the command would hold a pipe open and keep us waiting.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "LC_ALL": "C", **(env or {})},
                cwd="/",
                start_new_session=True,
            )
        except OSError as exc:
            return Answer(127, "", f"{argv[0]}: {exc.strerror}")
        rc: int | None
        try:
            rc = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            rc = None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            try:
                process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                process.returncode = -signal.SIGKILL  # stuck in the kernel: leave it behind without Popen complaining
        out.seek(0)
        err.seek(0)
        return Answer(rc, out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace"))
