"""What the modules that run services answer to Ansible. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import spec
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.handover import RolledBackError
from ansible.module_utils.llmfleet.lifecycle import Decision
from ansible.module_utils.llmfleet.services import Service
from ansible.module_utils.llmfleet.watch import NotReadyError

Result = dict[str, t.Any]
Specs = tuple[t.Optional[spec.Spec], t.Optional[spec.Spec]]

LOG_LINES = 50


def asked(raw: t.Mapping[str, t.Any], service: Service) -> Result:
    """Return `service` of a result: as it was asked for (``raw``), with what others need to call it."""
    return {**raw, "has_api_key": service.has_api_key, "prompt": service.verify.prompt}


def without_engine(raw: t.Mapping[str, t.Any], service: Service, check_mode: bool) -> Result:
    """Return the result on a host without a docker client. Raises LlmfleetError where that cannot be."""
    if not check_mode and service.state != "absent":
        raise LlmfleetError(f"service {service.name}: there is no docker client on this host; run the whole site.yml")
    changes = check_mode and service.state == "started"
    action = "create" if changes else "none"
    return {"service": dict(raw), "changed": changes, "action": action, "why": "no engine is running yet"}


def foreseen(raw: t.Mapping[str, t.Any], service: Service, decision: Decision, specs: Specs) -> Result:
    """Return the result of carrying out ``decision``; ``specs``: that of the service before and after it."""
    before, after = specs
    shown = "" if decision.action == "remove" else spec.printable(after or before)
    return {
        "service": asked(raw, service),
        "changed": decision.changes,
        "action": decision.action,
        "why": decision.why,
        "diff": {"before": spec.printable(before), "after": shown},
    }


def rolled_back(result: Result, msg: str, error: RolledBackError) -> Result:
    """Return what to fail with when the previous one was put back."""
    verified = error.previous.as_dict() if error.previous else None
    return failure(result, msg, error.error, rolled_back=True, previous_verification=verified)


def failure(result: Result, msg: str, error: NotReadyError, **more: t.Any) -> Result:
    """Return what to fail with; the log is printed as it is, so secrets never reach it (they travel by file)."""
    return {
        "rolled_back": False,
        **{key: value for key, value in result.items() if key != "diff"},
        "msg": msg,
        "diagnosis": error.diagnosis,
        "log_tail": error.log.splitlines()[-LOG_LINES:],
        "verification": error.report.as_dict(),
        **more,
    }
