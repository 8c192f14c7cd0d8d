"""One service's row of the plan: what will run, where and on which device, or why it cannot. Pure."""

from __future__ import annotations

import re
import typing as t
from collections import Counter

from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gpus import NVIDIA, VENDOR_TITLES
from ansible.module_utils.llmfleet.services import Service

Data = dict[str, t.Any]

VENDORS_OF: t.Mapping[str, tuple[str, ...]] = {
    "cpu": (),
    "cuda": (NVIDIA,),
    "rocm": ("amd",),
    "musa": ("moore_threads",),
    "intel": ("intel",),
    "vulkan": (NVIDIA, "amd", "intel"),
    # of a given image whose name tells nothing
    "": (NVIDIA, "amd", "moore_threads", "intel"),
}
"""Back-end of an image -> whose GPUs it computes on."""


def plan_service(service: Service, facts: Data, toolkit: Data, image: Data, models: Data) -> Data:
    """Return one service's row of the plan; ``models`` maps `model` to the checked model. Raises BadInput.

    ``device`` says where it computes, ``gpus`` (for llm_service) how its container gets the host's GPUs, "" for none.
    """
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
    device, gpus, why = _device(service, facts["gpu"], toolkit, image)
    return {
        **row,
        "model": f"{service.model} ({model['action']})",
        "model_path": model["path"],
        "image": f"{reference} ({'given' if service.image else image['action']})",
        "image_reference": reference,
        "address": f"{service.bind}:{service.port}",
        "device": device,
        "gpus": gpus,
        "why": why,
    }


def variant_of(reference: str) -> str:
    """Return the back-end that the tag of an image names (server-cuda13, cuda-0123456789ab), "" when it names none."""
    words = re.split(r"[^a-z0-9]+", reference.partition("@")[0].rpartition("/")[2].partition(":")[2].lower())
    for word in words:
        name = re.sub(r"\d+$", "", word)
        if name in VENDORS_OF or name == "sycl":
            return "intel" if name == "sycl" else name
    return ""


def _device(service: Service, gpu: Data, toolkit: Data, image: Data) -> tuple[str, str, str]:
    """Return (where the service computes, how its container gets GPUs, why). Raises BadInput."""
    where = f"service {service.name}"
    if image.get("action") == "refuse" and not service.image:
        # the plan of the image says what is wrong already
        return "", "", image["why"]
    variant = variant_of(service.image) if service.image else image.get("variant") or "cpu"
    gpus = [one for one in gpu["gpus"] if one["vendor"] in VENDORS_OF[variant] and _runs(one)]
    # nothing is known of a given image that its tag does not tell, so only the user can say that it is for GPUs
    wanted = service.device == "gpu" or (service.device == "auto" and variant not in ("", "cpu"))
    if not wanted:
        if service.verify.level == "device":
            why = _why_cpu(gpu, image)
            raise BadInput(f"{where}: `verify.level: device` is about GPUs, and it would run on the CPU: {why}")
        if service.device == "auto":
            said = "the image given names no GPU back-end (`device: gpu` if it has one)" if service.image else ""
            return "CPU", "", _why_cpu(gpu, image, said)
        # it does not start without the libraries of the driver, which come with the GPUs
        access = _access(gpus, toolkit) if gpus and variant not in ("", "cpu") else ""
        return "CPU", access, "`device` is cpu"
    if variant == "cpu":
        named = service.image or image["image"]
        raise BadInput(
            f"{where}: `device` is gpu, but the image {named} is for the CPU ({_why_cpu(gpu, image)}); set "
            "llama_cpp_image_variant, or name an image for this GPU in `image`"
        )
    if not gpus:
        raise BadInput(
            f"{where}: its image is for {_titles(variant)} GPUs, and this host has none that can be used "
            f"({gpu['reason']}); mend that, or {_way_out(service)}"
        )
    if gpus[0]["vendor"] == NVIDIA and toolkit.get("state") == "absent":
        raise BadInput(
            f"{where}: containers get no GPU while nvidia_container_toolkit_state is absent; set it to present, or "
            f"{_way_out(service)}"
        )
    ENGINES[service.engine].OFFLOAD.gpu_argv(service)
    count = Counter(one["name"] for one in gpus)
    names = ", ".join(name if number == 1 else f"{number}x {name}" for name, number in count.items())
    layers = f"{service.gpu_layers} layers on the GPU, the others on the CPU" if service.gpu_layers else "all layers"
    return f"GPU: {names}", _access(gpus, toolkit), f"{layers}; {gpu['reason']}"


def _runs(gpu: Data) -> bool:
    """Whether containers can use ``gpu``: of NVIDIA's nvidia-smi must have listed it, others need their driver."""
    return bool(gpu["usable"] if gpu["vendor"] == NVIDIA else gpu["driver_loaded"])


def _access(gpus: t.Sequence[Data], toolkit: Data) -> str:
    vendor = str(gpus[0]["vendor"])
    return "nvidia_cdi" if vendor == NVIDIA and toolkit.get("cdi") else vendor


def _titles(variant: str) -> str:
    return " or ".join(VENDOR_TITLES[vendor] for vendor in VENDORS_OF[variant])


def _way_out(service: Service) -> str:
    if service.image:
        return "name an image for the CPU and set `device: cpu`"
    return "set llama_cpp_image_variant: cpu and leave `device` out"


def _why_cpu(gpu: Data, image: Data, said: str = "") -> str:
    """Return why a service computes on the CPU: no GPU there, or else what chose the image."""
    if gpu["verdict"] != "gpu":
        return str(gpu["reason"])
    return f"{gpu['reason']}; {said or image.get('variant_why') or 'the image is for the CPU'}"
