"""The plan: from what is wanted and what is there to what will happen, or why it cannot. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import (
    catalogue_read,
    cuda_plan,
    engine_plan,
    gpus,
    host_verdicts,
    image_plan,
    image_row,
    model_rows,
    model_words,
    toolkit_plan,
)
from ansible.module_utils.llmfleet.cpu_level import ARCHITECTURES as IMAGE_ARCHITECTURES
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory_room import MemoryRoom
from ansible.module_utils.llmfleet.published_images import vllm
from ansible.module_utils.llmfleet.service_plan import plan_service, runs_with
from ansible.module_utils.llmfleet.services import parse_all, with_more
from ansible.module_utils.llmfleet.text_table import aligned
from ansible.module_utils.llmfleet.venv.plan import NO_VENV

Data = dict[str, t.Any]

NO_IMAGE: Data = image_plan.settle({**image_row.EMPTY, "why": "no service needs one"}, None)

NO_VLLM_IMAGE: Data = {"action": "none", "image": "", "why": "no service needs one", "problems": [], "warnings": []}

ARCHITECTURES = ("x86_64", "aarch64")
"""Machine architectures (``uname -m``) that images are built for."""

IMAGE_BYTES = 3 * 1024**3
"""Free space that installing an engine and building or pulling an engine's image asks for (measured: 2.1 GB)."""


def make_plan(
    raw_services: t.Any,
    host: str,
    facts: Data,
    engine: Data,
    toolkit: Data,
    images: t.Mapping[str, Data],
    models: t.Sequence[Data],
    now: float,
    memory_rule: str = "refuse",
    running: t.Sequence[str] = (),
) -> Data:
    """Return the plan: {host, wsl, engine, toolkit, image, vllm_image, vllm_venv, models, models_changed, services,
    vllm, warnings, problems}.

    ``facts``: what host_info says; ``engine`` and ``toolkit``: the plans of docker_engine and
    nvidia_container_toolkit; ``images``: the plans of llama_cpp_image and vllm_image by engine, each of which may be
    empty or missing; ``models``: rows of model_rows; ``now``: the controller's clock in seconds since the epoch;
    ``memory_rule``: whether to `refuse` what does not fit the memory, or to `warn`; ``running``: a line for each
    container of a service that runs, with the service's name and the folders and files it was given: one that runs with
    its model already is never refused for memory, as the plan's count may err.
    Every problem and warning is one sentence.
    """
    image = images.get("llama_server") or NO_IMAGE
    second, venv = images.get("vllm") or NO_VLLM_IMAGE, images.get("vllm_venv") or NO_VENV
    idle = (image_row.KEEP, image_row.NONE)
    brings = image["action"] not in idle or second["action"] not in idle
    changes = engine["action"] not in (engine_plan.KEEP, engine_plan.START, image_row.NONE) or brings
    verdicts = host_verdicts.verdicts(facts, {"image_bytes": IMAGE_BYTES if changes else 0, "now": now, "gpu": False})
    parts = (verdicts, engine, toolkit, image, second, venv)
    plan: Data = {"host": host, "engine": engine, "toolkit": toolkit, "image": image, "services": []}
    plan["vllm_image"], plan["vllm_venv"] = second, venv
    plan["warnings"] = [warning for part in parts for warning in part["warnings"]]
    plan["problems"] = problems = [f"{host}: {problem}" for part in parts for problem in part["problems"]]
    plan["wsl"] = facts["platform"]["wsl"]
    plan["models"] = list(models)
    plan["models_changed"] = any(model["action"] != model_rows.KEEP for model in models)
    architecture = facts["platform"]["architecture"]
    plan["vllm"] = _vllm(facts, host)
    if architecture not in ARCHITECTURES and not image["problems"]:
        problems.append(f"{host}: architecture {architecture} is not supported ({', '.join(ARCHITECTURES)} are)")
    try:
        services = parse_all(raw_services)
    except BadInput as problem:
        problems.append(f"{host}: {problem}")
        return plan
    rows = {(row["engine"], row["model"]): row for row in models}
    memory = MemoryRoom(facts)
    for service in services:
        row = rows.get((service.engine, service.model), {})
        try:
            more = {key: rows.get((service.engine, model), {}) for key, model in service.more_models.items()}
            needed = tuple(more.values()) if service.models else (row, *more.values())
            for its_row in needed:
                if its_row.get("problem"):
                    raise BadInput(f"service {service.name}: {its_row['problem']}")
            its_image = venv if service.runtime == "venv" else second if service.engine == "vllm" else image
            # a process of the host reaches its GPUs without the toolkit
            way = {} if service.runtime == "venv" else toolkit
            warn = memory_rule == "warn" or all(
                runs_with(running, service.name, one.get("path", ""))
                for one in (more.values() if service.models else (row,))
            )
            planned = plan_service(service, facts, way, its_image, row, memory, warn, more)
            plan["services"].append(planned)
            plan["warnings"] += filter(None, [planned.get("warning")])
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


def problems_of(raw_services: t.Any, host: str, catalog: Data | None = None) -> list[str]:
    """Return what is wrong with a host's services, as far as the inventory alone tells; ``catalog``: `llm_catalog`."""
    problems = []
    try:
        services = parse_all(catalogue_read.resolve(raw_services, catalog))
    except BadInput as problem:
        return [f"{host}: {problem}"]
    for service in with_more(services):
        try:
            if service.model:
                model_words.parse(service.model, service.model_sha256)
        except BadInput as problem:
            problems.append(f"{host}: service {service.name}: {problem}")
    return problems


def table(plans: t.Sequence[Data]) -> str:
    """Return the plans of all hosts as one text table: what will happen where, and why.

    Below it come the images that are made for several hosts or for GPUs, what vLLM offers for the GPUs, and warnings.
    """
    rows = [("HOST", "WHAT", "ACTION", "DETAIL", "WHY")]
    for plan in plans:
        host, image, toolkit = plan["host"], plan["image"], plan["toolkit"]
        rows.append((host, "docker engine", *engine_plan.row(plan["engine"])))
        rows.append((host, "nvidia toolkit", *toolkit_plan.row(toolkit)))
        if image["action"] != image_row.NONE:
            rows.append((host, "llama.cpp image", image["action"], image["image"], image["why"]))
        if plan["vllm_image"]["action"] != image_row.NONE:
            rows.append((host, "vLLM image", *(plan["vllm_image"][key] for key in ("action", "image", "why"))))
        if plan["vllm_venv"]["action"] != image_row.NONE:
            rows.append((host, "vLLM venv", *(plan["vllm_venv"][key] for key in ("action", "image", "why"))))
        rows += model_rows.lines(host, plan["models"])
        if not plan["services"] and not plan["problems"]:
            rows.append((host, "services", "none", "", "llm_services is empty or not set"))
        for service in plan["services"]:
            detail = ", ".join(
                filter(None, [service["engine"], service["device"], service["model"], service["address"]])
            )
            rows.append((host, f"service {service['name']}", service["state"], detail, service["why"]))
    images = image_plan.lines({plan["host"]: plan["image"] for plan in plans})
    vllm_lines = [f"vLLM image for {plan['host']}: {plan['vllm']}" for plan in plans if plan["vllm"]]
    warnings = [f"warning: {plan['host']}: {warning}" for plan in plans for warning in plan["warnings"]]
    return "\n".join([aligned(rows), *images, *vllm_lines, *warnings])
