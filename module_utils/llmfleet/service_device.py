"""Where a service computes: on which GPUs of its host, or why on the CPU. Pure."""

from __future__ import annotations

import math
import re
import typing as t
from collections import Counter
from dataclasses import dataclass

from ansible.module_utils.llmfleet import gpu_choice
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

_IMAGE_SETTING = {"llama_server": "llama_cpp_image_variant", "vllm": "vllm_image_variant"}


@dataclass(frozen=True)
class Device:
    """Where a service computes."""

    title: str
    """As the plan prints it."""
    access: str
    """How its container gets the host's GPUs (for llm_service), "" for none."""
    why: str
    gpus: tuple[Data, ...] = ()
    """Those it computes on; none on the CPU."""
    ids: tuple[str, ...] = ()
    """By what its container is given those that the service chose; empty where it gets all."""


def variant_of(reference: str) -> str:
    """Return the back-end that the tag of an image names (server-cuda13, cuda-0123456789ab), "" when it names none."""
    repository, _, tag = reference.partition("@")[0].rpartition("/")[2].partition(":")
    for word in re.split(r"[^a-z0-9]+", tag.lower()):
        name = re.sub(r"\d+$", "", word)
        if name and (name in VENDORS_OF or name == "sycl"):
            return "intel" if name == "sycl" else name
    # vLLM's own: those for other devices have another name
    return "cuda" if repository == "vllm-openai" else ""


def device_of(service: Service, gpu: Data, toolkit: Data, image: Data) -> Device:
    """Return where the service computes; ``gpu`` of host_info, the plans of toolkit and image. Raises BadInput."""
    where = f"service {service.name}"
    if image.get("action") == "refuse" and not service.image:
        # the plan of the image says what is wrong already
        return Device("", "", image["why"])
    variant = variant_of(service.image) if service.image else image.get("variant") or "cpu"
    numbered = gpu_choice.number(gpu["gpus"])
    gpus = [one for one in numbered if one["vendor"] in VENDORS_OF[variant] and _runs(one)]
    # nothing is known of a given image that its tag does not tell, so only the user can say that it is for GPUs
    wanted = service.device == "gpu" or (service.device == "auto" and variant not in ("", "cpu"))
    if not wanted:
        if service.verify.level == "device":
            why = _why_cpu(gpu, image)
            raise BadInput(f"{where}: `verify.level: device` is about GPUs, and it would run on the CPU: {why}")
        if service.gpus:
            raise BadInput(f"{where}: `gpus` chooses GPUs, and it would run on the CPU: {_why_cpu(gpu, image)}")
        if service.device == "auto":
            said = "the image given names no GPU back-end (`device: gpu` if it has one)" if service.image else ""
            return Device("CPU", "", _why_cpu(gpu, image, said))
        # it does not start without the libraries of the driver, which come with the GPUs
        access = _access(gpus, toolkit) if gpus and variant not in ("", "cpu") else ""
        return Device("CPU", access, "`device` is cpu")
    if variant == "cpu":
        named = f"image {service.image or image['image']}"
        way = f"set {_setting(service)}, or name an image for this GPU in `image`"
        if service.runtime == "venv":
            named, way = f"environment {image['image']}", f"set {_setting(service)}"
        raise BadInput(f"{where}: `device` is gpu, but the {named} is for the CPU ({_why_cpu(gpu, image)}); {way}")
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
    gpus = gpu_choice.choose(where, service.gpus, gpus)
    _check_count(service, len(gpus))
    count = Counter(one["name"] for one in gpus)
    names = ", ".join(name if number == 1 else f"{number}x {name}" for name, number in count.items())
    chosen = f" {', '.join(str(one['index']) for one in gpus)}" if service.gpus else ""
    ids = gpu_choice.ids_of(gpus) if service.gpus else ()
    return Device(f"GPU{chosen}: {names}", _access(gpus, toolkit), gpu["reason"], tuple(gpus), ids)


def _check_count(service: Service, count: int) -> None:
    """Raise BadInput where the service speaks of more GPUs than it gets."""
    sizes = {"tensor_parallel": service.tensor_parallel, "pipeline_parallel": service.pipeline_parallel}
    parts = service.tensor_split.count(",") + 1
    asked = ""
    if math.prod(max(1, size) for size in sizes.values()) > count:
        asked = " times ".join(f"`{name}` {size}" for name, size in sizes.items() if size > 1)
    elif parts > count:
        asked = f"`tensor_split` {service.tensor_split}"
    elif service.main_gpu >= count:
        asked = f"`main_gpu` {service.main_gpu} (counted from 0)"
    if asked:
        there = "it gets 1 GPU" if count == 1 else f"it gets {count} GPUs"
        way = "name more in `gpus`, or lower it" if service.gpus else "lower it"
        raise BadInput(f"service {service.name}: {asked} needs more GPUs than there are: {there}; {way}")


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
    return f"set {_setting(service)}: cpu and leave `device` out"


def _setting(service: Service) -> str:
    """Return the variable that decides whether what the service runs in is for GPUs."""
    return "vllm_venv_variant" if service.runtime == "venv" else _IMAGE_SETTING[service.engine]


def _why_cpu(gpu: Data, image: Data, said: str = "") -> str:
    """Return why a service computes on the CPU: no GPU there, or else what chose the image."""
    if gpu["verdict"] != "gpu":
        return str(gpu["reason"])
    return f"{gpu['reason']}; {said or image.get('variant_why') or 'the image is for the CPU'}"
