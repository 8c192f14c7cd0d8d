"""Watching a helper come up: it answers, or it is told at once why it will not. Edge code."""

from __future__ import annotations

import http.client
import time
import typing as t
import urllib.parse

from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.side.parts import Health
from ansible.module_utils.llmfleet.watch import NotReadyError, log_of

STAYS_SECONDS = 2.0
"""How long a container must stay up where there is nothing to ask."""

RELOAD_SECONDS = 1.0
"""How long after a signal an answer may still be that of before, unless its content tells."""


def wait_up(docker: Docker, container: str, health: Health, *, reloaded: bool = False) -> float:
    """Return the seconds until ``container`` answered as ``health`` asks; raise NotReadyError when that is hopeless."""
    least = STAYS_SECONDS if not health.url else RELOAD_SECONDS if reloaded and not health.contains else 0.0
    begun = time.monotonic()
    first = docker.inspect("container", container)
    while True:
        # looked at once more after it was asked: an answer counts only of a container that lives on
        problem = _problem(health) if health.url else ""
        found = docker.inspect("container", container)
        waited = time.monotonic() - begun
        if found is None or first is None:
            raise _not_ready("the container was removed by somebody else", container, "run again")
        if _died(first, found):
            log = log_of(docker, container)
            raise _not_ready(*_last_words(found["State"], log), log=log)
        if not problem and waited >= least:
            return round(waited, 3)
        if problem and waited > health.timeout:
            log = log_of(docker, container)
            cause = f"it does not answer as it should after {waited:.0f} s"
            raise _not_ready(cause, problem, "see log_tail; raise health.timeout if the host is just slow", log=log)
        time.sleep(0.05 if waited < 5 else 0.25)


def _died(first: t.Mapping[str, t.Any], found: t.Mapping[str, t.Any]) -> bool:
    """Whether it ended or was restarted: with a restart policy a crashed one never stays exited."""
    if found["State"]["Status"] != "running" or found["RestartCount"] > first["RestartCount"]:
        return True
    return bool(found["State"]["StartedAt"] != first["State"]["StartedAt"])


def _last_words(state: t.Mapping[str, t.Any], log: str) -> tuple[str, str, str]:
    if state.get("OOMKilled"):
        return "it was killed because it used more than `memory`", "OOMKilled", "raise `memory`"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = lines[-1][:300] if lines else (state.get("Error") or "it printed nothing")
    return f"it ended with exit code {state.get('ExitCode')}", said, "see log_tail in the result"


def _not_ready(cause: str, evidence: str, fix: str, log: str = "") -> NotReadyError:
    return NotReadyError({"cause": cause, "evidence": evidence, "fix": fix}, log)


def _problem(health: Health) -> str:
    """Return "" when the address answers as it should, else what it does instead."""
    parts = urllib.parse.urlsplit(health.url)
    endpoint = Endpoint(f"{parts.scheme}://{parts.netloc}")
    try:
        status, body = endpoint.get(urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")), timeout=5)
    except (OSError, http.client.HTTPException) as error:
        return f"{health.url} does not answer: {error}"
    if status != health.status:
        return f"{health.url} says HTTP {status} in place of {health.status}: {body.strip()[:200]}"
    return "" if health.contains in body else f"{health.url} does not say {health.contains!r}: {body.strip()[:200]}"
