"""Which Python environment a host needs for its services with `runtime: venv`, and why. Pure.

`need` says what to ask of the module vllm_venv in check mode, `settle` makes the plan of the host from its answer. The
plan has the words of an image's (action, image, variant, why), as that is what a service is planned with.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import cpu_level
from ansible.module_utils.llmfleet import published_images as published
from ansible.module_utils.llmfleet.cuda_host import row_of
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.services import parse_all
from ansible.module_utils.llmfleet.vllm_image_plan import AUTO, CPU, variant_for

Data = dict[str, t.Any]

_TWO = "environments, and a host has one; give the latter to llama_server, or another host"
NO_VENV: Data = {"action": "none", "image": "", "why": "no service needs one", "problems": [], "warnings": []}


def need(raw_services: t.Any, facts: Data, host: str, variant: str = AUTO, version: str = "") -> Data:
    """Return {needed, variant, version, packages, why, problems, warnings} for ``host``; raises BadInput for services
    that are wrong.

    ``facts`` are those of host_info; ``variant`` and ``version`` what the inventory asks for (auto and "" choose).
    """
    own = [one for one in parse_all(raw_services) if one.runtime == "venv" and one.state == "started"]
    found: Data = {"needed": bool(own), "variant": "", "version": "", "why": "", "problems": [], "warnings": []}
    found["packages"] = "apt" if facts["platform"]["package_manager"] == "apt" else "dnf"
    if not own:
        return {**found, "why": "no service of this host runs in a venv"}
    try:
        architecture = cpu_level.architecture(facts["platform"]["architecture"])
        found["variant"], found["why"] = variant_for(own, facts["gpu"], variant, "vllm_venv_variant", _TWO)
        if found["variant"] == CPU:
            return found
        if version:
            return {**found, "version": version, "why": f"vllm_venv_version is {version}"}
        verdict = published.vllm(row_of(host, architecture, facts["gpu"]), published.VLLM_ON_PYPI)
        if not verdict.tag:
            fix = f"; {verdict.fix}" if verdict.fix else ""
            raise BadInput(f"no vLLM of the package index suits this host: {verdict.why}{fix}")
        found.update(version=verdict.tag.lstrip("v"), why=verdict.why, warnings=[verdict.fix] if verdict.fix else [])
    except BadInput as problem:
        found["problems"].append(str(problem))
    return found


def settle(wanted: Data, answer: Data) -> Data:
    """Return the plan of a host: {action, image (the folder), variant, version, python, packages, why, problems,
    warnings}.

    ``wanted`` is from `need`, ``answer`` what the module vllm_venv said in check mode ({} when it was not asked).
    ``action`` is none, keep, build or refuse.
    """
    plan: Data = {**NO_VENV, "python": "", **{key: wanted[key] for key in ("variant", "version", "packages", "why")}}
    plan.update(problems=list(wanted["problems"]), warnings=list(wanted["warnings"]))
    if not wanted["needed"]:
        return plan
    if not plan["problems"] and ("action" not in answer or answer.get("failed")):
        plan["problems"] = [str(answer.get("msg") or "the module vllm_venv gave no answer; see its output")]
    if plan["problems"]:
        return {**plan, "action": "refuse", "why": plan["problems"][0]}
    why = "; ".join(filter(None, [answer["why"], wanted["why"]]))
    return {**plan, "action": answer["action"], "image": answer["venv"], "python": answer["python"], "why": why}
