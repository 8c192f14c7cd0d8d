"""Shared by the verifications of all scenarios."""

from __future__ import annotations

import typing as t

import pytest

EVIDENCE = (
    "docker ps --all",
    "docker ps --all --quiet | xargs --no-run-if-empty --max-lines=1 docker logs --tail 40",
    "journalctl --no-pager --output cat --unit docker | grep --invert-match level=info | tail --lines 20",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> t.Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the host itself says to the report of a failed test."""
    report = yield
    if call.when == "call" and report.failed and "host" in getattr(item, "funcargs", {}):
        host = item.funcargs["host"]  # type: ignore[attr-defined]
        for command in EVIDENCE:
            answer = host.run(command)
            report.sections.append((command, answer.stdout + answer.stderr))
    return report
