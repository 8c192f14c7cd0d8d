"""Which vLLM image a host needs for its services, and why. Pure.

`need` says what to ask of the module vllm_image in check mode, `settle` makes the plan of the host from its answer.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import cpu_level, gpus
from ansible.module_utils.llmfleet import published_images as published
from ansible.module_utils.llmfleet.cuda_host import row_of
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.services import Service, parse_all
from ansible.module_utils.llmfleet.vllm_recipe import VllmRequest

Data = dict[str, t.Any]

ENGINE = "vllm"
AUTO, CPU, CUDA = "auto", "cpu", "cuda"

_TWO = "images; name that of the latter in their `image`"


def need(raw_services: t.Any, facts: Data, host: str, variant: str = AUTO, tag: str = "") -> Data:
    """Return {needed, variant, tag, why, problems, warnings} for ``host``; raises BadInput for services that are wrong.

    ``facts`` are those of host_info; ``variant`` and ``tag`` what the inventory asks for (auto and "" choose).
    """
    started = [one for one in parse_all(raw_services) if one.engine == ENGINE and one.state == "started"]
    own = [one for one in started if not one.image and one.runtime == "container"]
    found: Data = {"needed": bool(own), "variant": "", "tag": "", "why": "", "problems": [], "warnings": []}
    if not own:
        return {**found, "why": "no service of this host uses vLLM's image"}
    try:
        architecture = cpu_level.architecture(facts["platform"]["architecture"])
        found["variant"], found["why"] = variant_for(own, facts["gpu"], variant, "vllm_image_variant", _TWO)
        if found["variant"] == CPU:
            VllmRequest(architecture).check()
            return found
        verdict = published.vllm(row_of(host, architecture, facts["gpu"]))
        if tag:
            return {**found, "tag": tag, "why": f"vllm_image_tag is {tag}"}
        if not verdict.tag:
            fix = f"; {verdict.fix}" if verdict.fix else ""
            raise BadInput(f"no vLLM image suits this host: {verdict.why}{fix}, or name one in vllm_image_tag")
        found.update(tag=verdict.tag, why=verdict.why, warnings=[verdict.fix] if verdict.fix else [])
    except BadInput as problem:
        found["problems"].append(str(problem))
    return found


def variant_for(services: t.Sequence[Service], gpu: Data, asked: str, setting: str, two: str) -> tuple[str, str]:
    """Return (variant, why). Raises BadInput when no single image or environment serves all ``services``.

    ``setting`` names the variable that holds ``asked``; ``two`` says what it takes where some compute on the GPU and
    others do not, and the way out.
    """
    if asked != AUTO:
        return asked, f"{setting} is {asked}"
    has_gpu = gpu["verdict"] == gpus.GPU
    on_cpu = [one.name for one in services if one.device == CPU or (one.device == AUTO and not has_gpu)]
    on_gpu = [one.name for one in services if one.name not in on_cpu]
    if on_cpu and on_gpu:
        raise BadInput(
            f"services {', '.join(on_gpu)} run vLLM on the GPU and {', '.join(on_cpu)} on the CPU, "
            f"which takes two {two}"
        )
    if on_gpu and not has_gpu:
        raise BadInput(
            f"service {on_gpu[0]}: `device` is gpu, and this host has none that can be used ({gpu['reason']})"
        )
    return (CUDA, gpu["reason"]) if on_gpu else (CPU, gpu["reason"] if not has_gpu else "its services say device: cpu")


def settle(wanted: Data, answer: Data) -> Data:
    """Return the plan of a host: {action, image, variant, why, problems, warnings}.

    ``wanted`` is from `need`, ``answer`` what the module vllm_image said in check mode ({} when it was not asked).
    ``action`` is none, keep, pull, build or refuse.
    """
    plan: Data = {
        "action": "none",
        "image": "",
        "variant": wanted["variant"],
        "tag": wanted["tag"],
        "why": wanted["why"],
        "problems": list(wanted["problems"]),
        "warnings": list(wanted["warnings"]),
    }
    if not wanted["needed"]:
        return plan
    if not plan["problems"] and ("action" not in answer or answer.get("failed")):
        plan["problems"] = [str(answer.get("msg") or "the module vllm_image gave no answer; see its output")]
    if plan["problems"]:
        return {**plan, "action": "refuse", "why": plan["problems"][0]}
    said = f"{answer['why']}; {wanted['why']}" if wanted["why"] else answer["why"]
    return {**plan, "action": answer["action"], "image": answer["image"], "why": said}
