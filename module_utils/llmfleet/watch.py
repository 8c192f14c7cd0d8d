"""Watching a container become ready: fast polls, death noticed at once, patience only while there is progress."""

from __future__ import annotations

import functools
import re
import time
import typing as t

from ansible.module_utils.llmfleet.container_failures import explain_death, explain_refusal
from ansible.module_utils.llmfleet.device_check import check_device, planned
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.engines.base import DeviceError, diagnose, phase_of
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.services import Verify
from ansible.module_utils.llmfleet.spec import Spec
from ansible.module_utils.llmfleet.verify import FailedError, NotYetError, Report, advance

PROCESS_SECONDS = 2.0
"""How long a container must stay up before the level `process` is believed when nothing else is checked."""
LATE_SECONDS = 1.0
"""How long after the end of a container docker may learn that it was for want of memory: two events, in any order."""
KILLED = 137
"""Exit code after SIGKILL."""


class NotReadyError(Exception):
    """The container will not become ready; ``diagnosis`` is {cause, evidence, fix}."""

    def __init__(self, diagnosis: dict[str, str], log: str = "", report: Report | None = None) -> None:
        super().__init__(f"{diagnosis['cause']} ({diagnosis['evidence']}); {diagnosis['fix']}")
        self.diagnosis = diagnosis
        self.log = log
        self.report = report or Report()


def log_of(docker: Docker, container: str, lines: int = 400) -> str:
    """Return the last ``lines`` of a container's output, both streams."""
    _, out, err = docker.attempt("logs", "--tail", str(lines), container)
    return out + err


def docker_refused(said: str) -> NotReadyError:
    """Return the error for docker's own refusal ``said`` to create or start a container."""
    return NotReadyError(explain_refusal(said))


def death_of(docker: Docker, first: t.Mapping[str, t.Any], now: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return how the container ``first`` ended (ExitCode, OOMKilled), which its restart policy has started again.

    Its state ``now`` tells little of the death, docker's events do.
    """
    window = ("--since", first["State"]["StartedAt"], "--until", "0s")
    kinds = ("--filter", "event=die", "--filter", "event=oom", "--filter", f"container={first.get('Id', '')}")
    _, out, _ = docker.attempt("events", *window, *kinds, "--format", "{{.Action}} {{.Actor.Attributes.exitCode}}")
    events = [line.split() for line in out.splitlines() if line.split()]
    codes = [words[1] for words in events if words[0] == "die" and words[-1].isdigit()]
    return {
        "OOMKilled": now["State"].get("OOMKilled") or any(words[0] == "oom" for words in events),
        "ExitCode": int(codes[-1]) if codes else now["State"].get("ExitCode") or None,
    }


def _how_it_ended(
    docker: Docker, first: t.Mapping[str, t.Any], found: t.Mapping[str, t.Any], spec: Spec
) -> t.Mapping[str, t.Any]:
    """Return how the container ``first`` ended (ExitCode, OOMKilled), which is or runs again as ``found``."""
    state: t.Mapping[str, t.Any] = found["State"]
    if state["Status"] == "running":
        state = death_of(docker, first, found)
    until = time.monotonic() + LATE_SECONDS
    while spec["memory"] and state.get("ExitCode") == KILLED and not state.get("OOMKilled"):
        if time.monotonic() >= until:
            break
        time.sleep(0.1)
        now = docker.inspect("container", spec["name"]) or found
        state = {**state, "OOMKilled": death_of(docker, first, now)["OOMKilled"]}
    return state


def _explain_answer(error: FailedError, log: str, engine: t.Any, report: Report) -> dict[str, str]:
    """Return {cause, evidence, fix} for an answer that proves a failure; where the engine failed its log says why."""
    failed = re.search(r"failed while answering|HTTP 5\d\d", str(error))
    # one that is refused says itself what is wrong
    said = log if failed else str(error) if "HTTP 4" in str(error) else ""
    found = diagnose(said, engine.FAILURES)
    if found:
        return {**found, "cause": f"{error}: {found['cause']}"}
    return {
        "cause": str(error),
        "evidence": f"verification level after {list(report.levels)[-1]}",
        "fix": "see log_tail",
    }


def wait_ready(docker: Docker, spec: Spec, endpoint: Endpoint, verify: Verify) -> Report:
    """Return the Report once the container of ``spec`` has reached the goal of ``verify``; raise NotReadyError as soon
    as that is hopeless.

    A service on a GPU climbs to `device` when nothing else was asked for.
    Hopeless: the container ended or was restarted (with a restart policy a crashed one never stays exited), an
    answer proves a failure, the log stays silent longer than its phase allows, or verify.timeout has passed.
    """
    container, engine = spec["name"], ENGINES[spec["engine"]]
    layers = planned(spec, engine) if verify.goal(on_gpu=True) == "device" else None
    begun = progressed = logged = time.monotonic()
    report, seen_log, not_yet = Report(), "", "it has not been asked yet"
    first: t.Mapping[str, t.Any] | None = None
    while True:
        found = docker.inspect("container", container)
        now = time.monotonic()
        if found is None:
            raise NotReadyError(
                {"cause": "the container was removed by somebody else", "evidence": container, "fix": "run again"}
            )
        first = first or found
        ended = found["State"]["Status"] != "running"
        restarted = found["RestartCount"] > first["RestartCount"] or (
            found["State"]["StartedAt"] != first["State"]["StartedAt"]
        )
        if ended or restarted:
            log, state = log_of(docker, container), _how_it_ended(docker, first, found, spec)
            raise NotReadyError(explain_death(state, log, engine, spec["memory"]), log, report)
        report.levels.setdefault("process", round(now - begun, 3))
        device = None if layers is None else functools.partial(check_device, docker, found, layers, engine)
        if verify.level == "process" and now - begun >= PROCESS_SECONDS:
            return report
        try:
            if verify.level != "process":
                if device and engine.OFFLOAD.fell_back(seen_log):
                    # on the CPU a big model takes minutes to answer; the verdict stands already
                    device()
                name, task = spec["served_name"], spec.get("task", "generate")
                several = {"names": spec["models"]} if "models" in spec else {}
                advance(endpoint, engine.HEALTH_PATH, name, verify, report, begun, device, task, **several)
                return report
        except NotYetError as error:
            not_yet = str(error)
        except DeviceError as error:
            raise NotReadyError(error.diagnosis, log_of(docker, container), report) from None
        except FailedError as error:
            log = log_of(docker, container)
            raise NotReadyError(_explain_answer(error, log, engine, report), log, report) from None
        if now - logged >= 1.0:
            log, logged = log_of(docker, container), now
            if log != seen_log:
                seen_log, progressed = log, now
        phase = phase_of(seen_log, engine.PHASES)
        if now - progressed > phase.stall_seconds or now - begun > verify.timeout:
            waited = f"{now - begun:.0f} s, silent for {now - progressed:.0f} s in phase `{phase.name}`"
            diagnosis = {
                "cause": f"not ready after {waited}",
                "evidence": not_yet,
                "fix": "see log_tail; raise verify.timeout if the host is just slow",
            }
            found_why = diagnose(seen_log, engine.FAILURES) if phase.failed else None
            raise NotReadyError(found_why or diagnosis, seen_log, report)
        # young containers are polled fast; a model that loads for minutes needs no more than four looks a second
        time.sleep(0.05 if now - begun < 5 else 0.25)
