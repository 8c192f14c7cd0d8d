"""The words an engine is described in."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Failure:
    """A line an engine prints when it fails, what it means and what to do. ``cause`` and ``fix`` may use the
    named groups of ``pattern``."""

    pattern: str
    cause: str
    fix: str
    shown: tuple[str, ...] = ()
    """What stands in the documentation for a pattern that cannot be read."""


@dataclass(frozen=True)
class Phase:
    """A stretch of an engine's start: the line that opens it, and how long it may stay silent (seconds)."""

    name: str
    pattern: str
    stall_seconds: float
    failed: bool = False
    """Whether it has failed already, and nothing but its end is awaited."""


@dataclass(frozen=True)
class Mount:
    """A read-only bind mount: ``source`` on the host, ``target`` in the container."""

    source: str
    target: str


@dataclass(frozen=True)
class Launch:
    """What the engine needs of a container: argv after the image, environment, files, and its port inside.

    What is left at its default does not show in the specification of a container.
    """

    argv: tuple[str, ...]
    port: int
    env: t.Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    secrets: t.Mapping[str, str] = field(default_factory=dict)
    """Secret name -> value; each becomes a file SECRETS_DIR/<name> that only the engine's user reads."""
    entrypoint: str = ""
    """Program in place of the image's own, which then gets all of ``argv``."""
    caches: tuple[Mount, ...] = ()
    """Folders the engine may write to, kept between containers; ``source`` is a name below the folder of caches."""
    shm_mib: int = 0
    """Upper bound of the memory that its processes share, MiB; 0 is docker's own 64."""
    tmp_mib: int = 64
    """Upper bound of /tmp, which is in memory, MiB."""


SECRETS_DIR = "/run/llmfleet"


class DeviceError(Exception):
    """The engine does not compute on the device that was planned; ``diagnosis`` is {cause, evidence, fix}."""

    def __init__(self, cause: str, evidence: str, fix: str) -> None:
        super().__init__(cause)
        self.diagnosis = {"cause": cause, "evidence": evidence, "fix": fix}


def diagnose(log: str, failures: t.Sequence[Failure]) -> dict[str, str] | None:
    """Return {cause, evidence, fix} for the first row of ``failures`` found in ``log``, else None.

    Rows stand in order of precision: a root cause before the general line that follows it.
    """
    lines = log.splitlines()
    for failure in failures:
        pattern = re.compile(failure.pattern)
        for line in lines:
            match = pattern.search(line)
            if match:
                found = {key: value or "" for key, value in match.groupdict().items()}
                return {
                    "cause": failure.cause.format(**found),
                    "evidence": line.strip()[:300],
                    "fix": failure.fix.format(**found),
                }
    return None


def phase_of(log: str, phases: t.Sequence[Phase]) -> Phase:
    """Return the latest phase of ``phases`` whose opening line stands in ``log`` (the first one needs none)."""
    for phase in reversed(phases[1:]):
        if re.search(phase.pattern, log):
            return phase
    return phases[0]
