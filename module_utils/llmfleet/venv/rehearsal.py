"""A rehearsal: the new environment reads the arguments while the old unit serves; see rehearsal. Edge code."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR, diagnose
from ansible.module_utils.llmfleet.rehearsal import SECONDS, RefusedError
from ansible.module_utils.llmfleet.spec import Spec
from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run


def rehearse(spec: Spec, secrets_dir: str, engine: t.Any, run: TimedRunner = timed_run) -> None:
    """Raise RefusedError when the engine refuses the arguments of ``spec``, read as the user that it will run as.

    Only a failure that the engine's table explains counts, as a release may know no rehearsal.
    """
    asked = engine.rehearsal(spec)
    env = [f"{name}={value}".replace(SECRETS_DIR, secrets_dir) for name, value in sorted(spec["env"].items())]
    command = [f"{spec['venv']}/bin/{asked['entrypoint']}", *asked["argv"]]
    done = run(["runuser", "-u", spec["user"], "--", "env", "-i", *env, *command], SECONDS)
    log = done.out + done.err if done.rc else ""
    found = diagnose(log, engine.FAILURES)
    if found:
        raise RefusedError(found, log)
