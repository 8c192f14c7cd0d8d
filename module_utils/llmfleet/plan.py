"""The plan: from what is wanted and what is there to what will happen, or why it cannot. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import (
    cuda_plan,
    engine_plan,
    gpus,
    host_verdicts,
    image_fleet,
    image_plan,
    toolkit_plan,
)
from ansible.module_utils.llmfleet.cpu_level import ARCHITECTURES as IMAGE_ARCHITECTURES
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.published_images import vllm
from ansible.module_utils.llmfleet.service_plan import plan_service
from ansible.module_utils.llmfleet.services import parse_all

Data = dict[str, t.Any]

NO_IMAGE: Data = image_plan.settle({**image_fleet.EMPTY, "why": "no service needs one"}, None)

ARCHITECTURES = ("x86_64", "aarch64")
"""Machine architectures (``uname -m``) that images are built for."""

IMAGE_BYTES = 3 * 1024**3
"""Free space that installing an engine and building or pulling an engine's image asks for (measured: 2.1 GB)."""


def make_plan(
    raw_services: t.Any, host: str, facts: Data, engine: Data, toolkit: Data, image: Data, models: Data, now: float
) -> Data:
    """Return the plan: {host, wsl, engine, toolkit, image, models_changed, services, vllm, warnings, problems}.

    ``facts``: what host_info says; ``engine`` and ``toolkit``: the plans of docker_engine and
    nvidia_container_toolkit; ``image``: the plan of llama_cpp_image, which may be empty; ``models``: what model_fetch
    says in check mode; ``now``: the controller's clock in seconds since the epoch.
    Every problem and warning is one sentence.
    """
    image = image or NO_IMAGE
    brings = image["action"] not in (image_fleet.KEEP, image_fleet.NONE)
    changes = engine["action"] not in (engine_plan.KEEP, engine_plan.START) or brings
    verdicts = host_verdicts.verdicts(facts, {"image_bytes": IMAGE_BYTES if changes else 0, "now": now, "gpu": False})
    parts = (verdicts, engine, toolkit, image)
    plan: Data = {"host": host, "engine": engine, "toolkit": toolkit, "image": image, "services": []}
    plan["warnings"] = [warning for part in parts for warning in part["warnings"]]
    plan["problems"] = problems = [f"{host}: {problem}" for part in parts for problem in part["problems"]]
    plan["wsl"] = facts["platform"]["wsl"]
    plan["models_changed"] = any(model["action"] != "keep" for model in models.values())
    architecture = facts["platform"]["architecture"]
    plan["vllm"] = _vllm(facts, host)
    if architecture not in ARCHITECTURES and not image["problems"]:
        problems.append(f"{host}: architecture {architecture} is not supported ({', '.join(ARCHITECTURES)} are)")
    try:
        services = parse_all(raw_services)
    except BadInput as problem:
        problems.append(f"{host}: {problem}")
        return plan
    for service in services:
        try:
            plan["services"].append(plan_service(service, facts, toolkit, image, models))
        except BadInput as problem:
            problems.append(f"{host}: {problem}")
    return plan


def _vllm(facts: Data, host: str) -> str:
    """Return which of vLLM's images suits the GPUs of a host, or why none does; "" without GPUs."""
    architecture = IMAGE_ARCHITECTURES.get(facts["platform"]["architecture"], "")
    if facts["gpu"]["verdict"] != gpus.GPU or not architecture:
        return ""
    verdict = vllm(cuda_plan.row_of(host, architecture, facts["gpu"]))
    return "; ".join(filter(None, [verdict.why, verdict.fix]))


def problems_of(raw_services: t.Any, host: str) -> list[str]:
    """Return what is wrong with a host's services, as far as the inventory alone tells."""
    try:
        parse_all(raw_services)
    except BadInput as problem:
        return [f"{host}: {problem}"]
    return []


def table(plans: t.Sequence[Data]) -> str:
    """Return the plans of all hosts as one text table: what will happen where, and why.

    Below it come the images that are made for several hosts or for GPUs, what vLLM offers for the GPUs, and warnings.
    """
    rows = [("HOST", "WHAT", "ACTION", "DETAIL", "WHY")]
    for plan in plans:
        host, image, toolkit = plan["host"], plan["image"], plan["toolkit"]
        rows.append((host, "docker engine", *engine_plan.row(plan["engine"])))
        rows.append((host, "nvidia toolkit", *toolkit_plan.row(toolkit)))
        if image["action"] != image_fleet.NONE:
            rows.append((host, "llama.cpp image", image["action"], image["image"], image["why"]))
        if not plan["services"]:
            rows.append((host, "services", "none", "", "llm_services is empty or not set"))
        for service in plan["services"]:
            detail = ", ".join(
                filter(None, [service["engine"], service["device"], service["model"], service["address"]])
            )
            rows.append((host, f"service {service['name']}", service["state"], detail, service["why"]))
    images = image_plan.lines({plan["host"]: plan["image"] for plan in plans})
    vllm_lines = [f"vLLM image for {plan['host']}: {plan['vllm']}" for plan in plans if plan["vllm"]]
    warnings = [f"warning: {plan['host']}: {warning}" for plan in plans for warning in plan["warnings"]]
    return "\n".join([_aligned(rows), *images, *vllm_lines, *warnings])


def _aligned(rows: t.Sequence[t.Sequence[str]]) -> str:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
