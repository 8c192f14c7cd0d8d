"""The plan: from what is wanted and what is there to what will happen, or why it cannot. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.services import Service, parse_all

Data = dict[str, t.Any]

ARCHITECTURES = ("x86_64", "aarch64")
"""Machine architectures (``uname -m``) that images are built for."""

INSTALLABLE_FAMILIES = ("Debian",)
"""OS families whose own docker package the docker_engine role installs."""


def plan_engine(host: str, facts: Data, source: str) -> Data:
    """Return {action, why} for the docker engine of a host; action keep, start or install. Raises BadInput."""
    engine, platform = facts["docker"], facts["platform"]
    if source == "mirror":
        raise BadInput(
            f"{host}: docker_engine_source `mirror` (Docker CE from a mirror) is not available in this version; "
            "use `auto` or `distro`, or install Docker CE yourself and use `existing`"
        )
    if engine["reachable"]:
        return {"action": "keep", "why": f"docker {engine['server_version']} answers"}
    if source == "existing":
        raise BadInput(
            f"{host}: docker_engine_source is `existing`, but no docker engine answers ({engine['error']}); "
            "install one or use `auto`"
        )
    if engine["problem"] == "not_running":
        return {"action": "start", "why": "docker is installed but does not run"}
    if engine["problem"] != "nothing_there":
        raise BadInput(f"{host}: {engine['error']}")
    if platform["os_family"] not in INSTALLABLE_FAMILIES:
        raise BadInput(
            f"{host}: docker cannot be installed on {platform['distribution']} {platform['distribution_version']} yet "
            "(Debian and Ubuntu only); install it yourself, it is then used as it is"
        )
    return {"action": "install", "why": "no docker engine on this host: the distribution's docker.io is installed"}


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


def make_plan(raw_services: t.Any, host: str, facts: Data, engine_source: str, image: Data, models: Data) -> Data:
    """Return the plan of ``host``: {host, engine, image, models_changed, services, problems}.

    ``facts``: what host_info says; ``image`` and ``models``: what llama_cpp_image and model_fetch say in check mode.
    Every problem is one sentence in ``problems``.
    """
    problems: list[str] = []
    plan: Data = {"host": host, "engine": {}, "image": image, "services": [], "problems": problems}
    plan["models_changed"] = any(model["action"] != "keep" for model in models.values())
    architecture = facts["platform"]["architecture"]
    if architecture not in ARCHITECTURES:
        problems.append(f"{host}: architecture {architecture} is not supported ({', '.join(ARCHITECTURES)} are)")
    try:
        plan["engine"] = plan_engine(host, facts, engine_source)
    except BadInput as problem:
        problems.append(str(problem))
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
    """Return the plans of all hosts as one text table: what will happen where, and why."""
    rows = [("HOST", "WHAT", "ACTION", "DETAIL", "WHY")]
    for plan in plans:
        engine, image = plan["engine"], plan["image"]
        if engine:
            rows.append((plan["host"], "docker engine", engine["action"], "", engine["why"]))
        if image:
            rows.append((plan["host"], "llama.cpp image", image["action"], image["image"], image["why"]))
        if not plan["services"]:
            rows.append((plan["host"], "services", "none", "", "llm_services is empty or not set"))
        for service in plan["services"]:
            detail = ", ".join(
                filter(None, [service["engine"], service["device"], service["model"], service["address"]])
            )
            rows.append((plan["host"], f"service {service['name']}", service["state"], detail, service["why"]))
    return _aligned(rows)


def _aligned(rows: t.Sequence[t.Sequence[str]]) -> str:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
