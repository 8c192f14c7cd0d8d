"""The plan: from what is wanted and what is there to what will happen, or why it cannot. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import engine_plan, host_verdicts, toolkit_plan
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.services import Service, parse_all

Data = dict[str, t.Any]

NO_IMAGE: Data = {"action": "keep", "image": "", "why": "no service needs one"}

ARCHITECTURES = ("x86_64", "aarch64")
"""Machine architectures (``uname -m``) that images are built for."""

IMAGE_BYTES = 3 * 1024**3
"""Free space that installing an engine and building or pulling an engine's image asks for (measured: 2.1 GB)."""


def plan_service(service: Service, facts: Data, image: Data, models: Data) -> Data:
    """Return one service's row of the plan; ``models`` maps `model` to the checked model. Raises BadInput."""
    row: Data = {"name": service.name, "engine": service.engine, "state": service.state}
    if service.state != "started":
        return {**row, "model": "", "image": "", "address": "", "device": "", "why": f"state is {service.state}"}
    model = models[service.model]
    trained_for = (model.get("gguf") or {}).get("context_length")
    if service.context_length and trained_for and service.context_length > trained_for:
        raise BadInput(
            f"service {service.name}: `context_length` {service.context_length} is more than the {trained_for} tokens "
            f"that {service.model} was trained for"
        )
    reference = service.image or image["image"]
    why = facts["gpu"]["reason"]
    if facts["gpu"]["verdict"] == "gpu":
        why += "; images for GPUs are not there yet, so it runs on the CPU"
    return {
        **row,
        "model": f"{service.model} ({model['action']})",
        "model_path": model["path"],
        "image": f"{reference} ({'given' if service.image else image['action']})",
        "image_reference": reference,
        "address": f"{service.bind}:{service.port}",
        "device": "CPU",
        "why": why,
    }


def make_plan(
    raw_services: t.Any, host: str, facts: Data, engine: Data, toolkit: Data, image: Data, models: Data, now: float
) -> Data:
    """Return the plan: {host, wsl, engine, toolkit, image, models_changed, services, warnings, problems}.

    ``facts``: what host_info says; ``engine`` and ``toolkit``: the plans of docker_engine and
    nvidia_container_toolkit; ``image`` and ``models``: what llama_cpp_image and model_fetch say in check mode,
    ``image`` is empty where no service asks for one; ``now``: the controller's clock in seconds since the epoch.
    Every problem and warning is one sentence.
    """
    image = image or NO_IMAGE
    changes = engine["action"] not in (engine_plan.KEEP, engine_plan.START) or image["action"] != "keep"
    verdicts = host_verdicts.verdicts(facts, {"image_bytes": IMAGE_BYTES if changes else 0, "now": now, "gpu": False})
    parts = (verdicts, engine, toolkit)
    plan: Data = {"host": host, "engine": engine, "toolkit": toolkit, "image": image, "services": []}
    plan["warnings"] = [warning for part in parts for warning in part["warnings"]]
    plan["problems"] = problems = [f"{host}: {problem}" for part in parts for problem in part["problems"]]
    plan["wsl"] = facts["platform"]["wsl"]
    plan["models_changed"] = any(model["action"] != "keep" for model in models.values())
    architecture = facts["platform"]["architecture"]
    if architecture not in ARCHITECTURES:
        problems.append(f"{host}: architecture {architecture} is not supported ({', '.join(ARCHITECTURES)} are)")
    try:
        services = parse_all(raw_services)
    except BadInput as problem:
        problems.append(f"{host}: {problem}")
        return plan
    for service in services:
        try:
            plan["services"].append(plan_service(service, facts, image, models))
        except BadInput as problem:
            problems.append(f"{host}: {problem}")
    return plan


def problems_of(raw_services: t.Any, host: str) -> list[str]:
    """Return what is wrong with a host's services, as far as the inventory alone tells."""
    try:
        parse_all(raw_services)
    except BadInput as problem:
        return [f"{host}: {problem}"]
    return []


def table(plans: t.Sequence[Data]) -> str:
    """Return the plans of all hosts as one text table: what will happen where, and why; then the warnings."""
    rows = [("HOST", "WHAT", "ACTION", "DETAIL", "WHY")]
    for plan in plans:
        host, image, toolkit = plan["host"], plan["image"], plan["toolkit"]
        rows.append((host, "docker engine", *engine_plan.row(plan["engine"])))
        rows.append((host, "nvidia toolkit", *toolkit_plan.row(toolkit)))
        if image["image"]:
            rows.append((host, "llama.cpp image", image["action"], image["image"], image["why"]))
        if not plan["services"]:
            rows.append((host, "services", "none", "", "llm_services is empty or not set"))
        for service in plan["services"]:
            detail = ", ".join(
                filter(None, [service["engine"], service["device"], service["model"], service["address"]])
            )
            rows.append((host, f"service {service['name']}", service["state"], detail, service["why"]))
    warnings = [f"warning: {plan['host']}: {warning}" for plan in plans for warning in plan["warnings"]]
    return "\n".join([_aligned(rows), *warnings])


def _aligned(rows: t.Sequence[t.Sequence[str]]) -> str:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
