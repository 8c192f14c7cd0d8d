"""What the modules that run services answer to Ansible. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.services import Service
from ansible.module_utils.llmfleet.watch import NotReadyError

Result = dict[str, t.Any]

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
