"""One service's row of the plan: what will run, where and on which device, or why it cannot. Pure."""

from __future__ import annotations

import re
import typing as t
from collections import Counter
from dataclasses import dataclass

from ansible.module_utils.llmfleet import model_ref
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gpus import NVIDIA, VENDOR_TITLES
from ansible.module_utils.llmfleet.memory.shape import shape_from
from ansible.module_utils.llmfleet.memory_room import MemoryRoom
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


IMAGE_SETTING = {"llama_server": "llama_cpp_image_variant", "vllm": "vllm_image_variant"}
"""Engine -> the variable that decides whether its image is for GPUs."""


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


def plan_service(
    service: Service, facts: Data, toolkit: Data, image: Data, model: Data, memory: MemoryRoom, warn: bool = False
) -> Data:
    """Return one service's row of the plan. Raises BadInput.

    ``image``: the plan of its engine's image; ``model``: the row of model_plan; ``memory``: what is left of the host's.
    ``device`` says where it computes, ``gpus`` (for llm_service) how its container gets the host's GPUs, "" for none;
    ``settings`` are fields that the user left open and the memory plan has filled in. With ``warn`` a model that does
    not fit is planned all the same, and ``warning`` says so.
    """
    row: Data = {"name": service.name, "engine": service.engine, "state": service.state}
    if service.state != "started":
        return {**row, "model": "", "image": "", "address": "", "device": "", "why": f"state is {service.state}"}
    _check_context(service, model)
    reference = service.image or image["image"]
    device = device_of(service, facts["gpu"], toolkit, image)
    settings, memory_why, warning = _memory(service, model, device, memory, warn)
    return {
        **row,
        "model": f"{model_ref.masked(service.model)} ({model['action']})",
        "model_path": model["path"],
        "image": f"{reference} ({'given' if service.image else image['action']})",
        "image_reference": reference,
        "address": f"{service.bind}:{service.port}",
        "device": device.title,
        "gpus": device.access,
        "settings": settings,
        "warning": warning,
        "why": "; ".join(filter(None, [_layers(service, device, settings), device.why, memory_why])),
    }


def _check_context(service: Service, model: Data) -> None:
    """Raise BadInput for a context that the model was not trained for."""
    about = model.get("gguf") or model.get("shape") or {}
    trained_for = about.get("context_length")
    if service.context_length and trained_for and service.context_length > trained_for:
        raise BadInput(
            f"service {service.name}: `context_length` {service.context_length} is more than the {trained_for} tokens "
            f"that {model_ref.masked(service.model)} was trained for"
        )


def _layers(service: Service, device: Device, settings: Data) -> str:
    """Return which layers are on the GPU, in words; "" where there is no choice."""
    if not device.gpus or service.engine != "llama_server":
        return ""
    layers = service.gpu_layers or settings.get("gpu_layers")
    return f"{layers} layers on the GPU, the others on the CPU" if layers else "all layers"


def _memory(service: Service, model: Data, device: Device, memory: MemoryRoom, warn: bool) -> tuple[Data, str, str]:
    """Return (settings to fill in, what the plan says about memory, a warning). Raises BadInput where it lacks."""
    if not model.get("shape") or not device.title:
        return {}, "", ""
    verdict = memory.judge(service, shape_from(model["shape"]), device.gpus)
    if verdict is None:
        return {}, "", ""
    memory.take(verdict)
    if verdict.fits:
        return dict(verdict.settings), verdict.why, ""
    change = f"; {verdict.change}" if verdict.change else ""
    said = f"service {service.name}: {model_ref.masked(service.model)} {verdict.why}{change}"
    if not warn:
        raise BadInput(f"{said} (`preflight_memory: warn` tries it all the same)")
    return {}, verdict.why, said


def runs_with(running: t.Sequence[str], name: str, path: str) -> bool:
    """Whether the service ``name`` runs with the model at ``path``.

    ``running``: lines `NAME /mounted,/mounted too` of containers, as `docker ps` writes labels and mounts.
    """
    for line in running:
        service, _, mounts = line.partition(" ")
        # one file, the folder of a split one, or of a folder the folders that its links lead to
        if service == name and any(
            f"{path}/".startswith(f"{mount.rstrip('/')}/") for mount in mounts.split(",") if mount
        ):
            return bool(path)
    return False


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
    gpus = [one for one in gpu["gpus"] if one["vendor"] in VENDORS_OF[variant] and _runs(one)]
    # nothing is known of a given image that its tag does not tell, so only the user can say that it is for GPUs
    wanted = service.device == "gpu" or (service.device == "auto" and variant not in ("", "cpu"))
    if not wanted:
        if service.verify.level == "device":
            why = _why_cpu(gpu, image)
            raise BadInput(f"{where}: `verify.level: device` is about GPUs, and it would run on the CPU: {why}")
        if service.device == "auto":
            said = "the image given names no GPU back-end (`device: gpu` if it has one)" if service.image else ""
            return Device("CPU", "", _why_cpu(gpu, image, said))
        # it does not start without the libraries of the driver, which come with the GPUs
        access = _access(gpus, toolkit) if gpus and variant not in ("", "cpu") else ""
        return Device("CPU", access, "`device` is cpu")
    if variant == "cpu":
        named = service.image or image["image"]
        raise BadInput(
            f"{where}: `device` is gpu, but the image {named} is for the CPU ({_why_cpu(gpu, image)}); set "
            f"{IMAGE_SETTING[service.engine]}, or name an image for this GPU in `image`"
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
    return Device(f"GPU: {names}", _access(gpus, toolkit), gpu["reason"], tuple(gpus))


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
    return f"set {IMAGE_SETTING[service.engine]}: cpu and leave `device` out"


def _why_cpu(gpu: Data, image: Data, said: str = "") -> str:
    """Return why a service computes on the CPU: no GPU there, or else what chose the image."""
    if gpu["verdict"] != "gpu":
        return str(gpu["reason"])
    return f"{gpu['reason']}; {said or image.get('variant_why') or 'the image is for the CPU'}"
