"""A rehearsal: the new container's image reads its arguments, while the old container still serves.

An argument that the engine does not take is found without a second of outage. The engine says what to run
(`rehearsal` in engines/*), and only a failure that its table explains counts: an image may know no rehearsal.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines.base import diagnose
from ansible.module_utils.llmfleet.spec import Spec, create_argv
from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run
from ansible.module_utils.llmfleet.watch import NotReadyError

SECONDS = 120.0
"""How long arguments are waited for; vLLM takes some ten seconds to load its code."""


class RefusedError(NotReadyError):
    """The engine does not take the new arguments; what serves until now was not touched."""

    def __str__(self) -> str:
        return f"{super().__str__()}. What runs now serves on as before"


def new_arguments(before: Spec | None, wanted: Spec) -> bool:
    """Whether ``wanted`` has something to rehearse that the running container of ``before`` has not shown to work."""
    told = ("image_id", "entrypoint", "argv", "env", "mounts")
    return before is None or any(before.get(key) != wanted.get(key) for key in told)


def rehearse(
    docker: Docker, spec: Spec, container: str, secrets_dir: str, engine: t.Any, run: TimedRunner = timed_run
) -> None:
    """Raise RefusedError when the engine refuses the arguments of ``spec``.

    ``container`` is the name of the container that is made for it, and removed again; it publishes nothing.
    """
    rehearsed = {**spec, **engine.rehearsal(spec), "publish": "", "restart_policy": "no"}
    rc, _, _ = docker.attempt(*create_argv(rehearsed, container, secrets_dir))
    try:
        done = run([docker.executable, "start", "--attach", container], SECONDS) if rc == 0 else None
    finally:
        docker.attempt("rm", "--force", container)
    log = done.out + done.err if done and done.rc else ""
    found = diagnose(log, engine.FAILURES)
    if found:
        raise RefusedError(found, log)
