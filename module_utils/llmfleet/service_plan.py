"""One service's row of the plan: what will run, where and on which device, or why it cannot. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from ansible.module_utils.llmfleet import model_ref
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory.shape import shape_from
from ansible.module_utils.llmfleet.memory.terms import Verdict
from ansible.module_utils.llmfleet.memory_room import MemoryRoom, gives_up
from ansible.module_utils.llmfleet.service_device import Device, device_of
from ansible.module_utils.llmfleet.services import Service, with_more

Data = dict[str, t.Any]


def plan_service(
    service: Service,
    facts: Data,
    toolkit: Data,
    image: Data,
    model: Data,
    memory: MemoryRoom,
    warn: bool = False,
    more: t.Mapping[str, Data] | None = None,
) -> Data:
    """Return one service's row of the plan. Raises BadInput.

    ``image``: the plan of its engine's image; ``model``: the row of model_plan; ``memory``: what is left of the host's;
    ``more``: key -> row of the other models that it names.
    ``device`` says where it computes, ``gpus`` (for llm_service) how its container gets the host's GPUs, "" for none,
    and ``gpu_ids`` which ones, [] for all;
    ``settings`` are fields that the user left open and the memory plan has filled in. With ``warn`` a model that does
    not fit is planned all the same, and ``warning`` says so.
    """
    row: Data = {"name": service.name, "engine": service.engine, "state": service.state}
    if service.state != "started":
        return {**row, "model": "", "image": "", "address": "", "device": "", "why": f"state is {service.state}"}
    if not service.models:
        _check_context(service, model)
    reference = service.image or image["image"]
    device = device_of(service, facts["gpu"], toolkit, image)
    if service.models:
        names, (settings, memory_why, warning) = (
            _names(service, more or {}),
            _several(service, more or {}, device, memory, warn),
        )
        hint = "each model is proven by an answer, on GPUs too" if device.gpus else ""
    else:
        names = f"{model_ref.masked(service.model)} ({model['action']})"
        hint = _one_card(service, model, device, memory)
        settings, memory_why, warning = _alone(service, model, device, memory, warn, more or {})
    return {
        **row,
        "model": names,
        "model_path": "" if service.models else model["path"],
        "more_paths": {key: row["path"] for key, row in (more or {}).items()},
        "image": f"{reference} ({'given' if service.image else image['action']})",
        "image_reference": reference,
        "address": f"{service.bind}:{service.port}",
        "device": device.title,
        "gpus": device.access,
        "gpu_ids": list(device.ids),
        "settings": settings,
        "warning": warning,
        "why": "; ".join(filter(None, [_layers(service, device, settings), device.why, memory_why, hint])),
    }


def _alone(
    service: Service, model: Data, device: Device, memory: MemoryRoom, warn: bool, more: t.Mapping[str, Data]
) -> tuple[Data, str, str]:
    """Return what _memory does of a service with one model, after those beside it."""
    # first what has a fixed size, so that the model is fitted into what is left
    others = [
        _memory(alone, row, device, memory, warn)[2] or memory.take_bytes(device.gpus, row)
        for alone, row in zip(with_more([service])[1:], more.values())
    ]
    settings, why, warning = _memory(service, model, device, memory, warn)
    return settings, why, next(filter(None, [*others, warning]), "")


def _names(service: Service, rows: t.Mapping[str, Data]) -> str:
    """Return what the plan prints of several models."""
    return "; ".join(
        f"{name}: {model_ref.masked(model)} ({row['action']})"
        for (name, model), row in zip(service.models, rows.values())
    )


def _several(
    service: Service, rows: t.Mapping[str, Data], device: Device, memory: MemoryRoom, warn: bool
) -> tuple[Data, str, str]:
    """Return what _memory does of a service with several models: the largest of them have to fit together."""
    found: list[tuple[Verdict, Service, Data]] = []
    for alone, row in zip(with_more([service]), rows.values()):
        _check_context(alone, row)
        verdict = memory.judge(alone, shape_from(row["shape"]), device.gpus) if row.get("shape") else None
        if verdict and device.title:
            found.append((verdict, alone, row))
    settings: Data = {}
    words, warning = [f"{service.loaded} of {len(service.models)} models in memory at once"], ""
    for _, alone, row in sorted(found, key=lambda one: -one[0].total)[: service.loaded]:
        filled, why, problem = _memory(alone, row, device, memory, warn)
        # arguments are the same for all of them
        settings.update({key: min(value, settings.get(key, value)) for key, value in filled.items()})
        words += [f"{model_ref.masked(alone.model)} {why}"] if why else []
        warning = warning or problem
    return settings, "; ".join(words), warning


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


def _one_card(service: Service, model: Data, device: Device, memory: MemoryRoom) -> str:
    """Return a hint where a service spreads over several GPUs what one of them holds as well; "" elsewhere.

    Parts of a layer, or layers one after the other, have to wait for what the others computed.
    """
    split = service.tensor_split or service.split_mode or {"-dev", "--device"} & set(service.args)
    spreads = service.tensor_parallel > 1 if service.engine == "vllm" else not split
    if len(device.gpus) < 2 or not spreads or not model.get("shape"):
        return ""
    shape = shape_from(model["shape"])
    together = memory.judge(service, shape, device.gpus)
    for gpu in device.gpus if together and together.fits else ():
        alone = memory.judge(replace(service, tensor_parallel=min(1, service.tensor_parallel)), shape, [gpu])
        if alone and alone.fits and not gives_up(alone, shape) and _same_context(alone, together):
            return (
                f"it fits GPU {gpu['index']} alone, and a single card is often faster than several over PCIe "
                f"(`gpus: [{gpu['index']}]`)"
            )
    return ""


def _same_context(alone: Verdict, together: Verdict | None) -> bool:
    return together is not None and alone.settings.get("context_length") == together.settings.get("context_length")


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
