"""What a host must have for a service, looked at before anything changes. Edge code of the module llm_service."""

from __future__ import annotations

import json
import os
import secrets
import typing as t
from dataclasses import dataclass, field, replace

from ansible.module_utils.llmfleet import beside, gpu_way, hf_folder, model_file, spec
from ansible.module_utils.llmfleet.addresses import who_listens
from ansible.module_utils.llmfleet.constants import LABEL_SERVICE
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.engines.base import Launch, Mount
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gpu_access import NVIDIA_WAYS
from ansible.module_utils.llmfleet.hub.manifest import SAFETENSORS
from ansible.module_utils.llmfleet.memory.config_shape import from_config
from ansible.module_utils.llmfleet.memory.shape import Shape
from ansible.module_utils.llmfleet.services import Service


def find_own(docker: Docker, name: str) -> dict[str, t.Any] | None:
    """Return the container ``name``; raise LlmfleetError when it belongs to somebody else."""
    container = docker.inspect("container", name)
    if container and LABEL_SERVICE not in (container["Config"].get("Labels") or {}):
        raise LlmfleetError(
            f"service {name}: a container of this name exists that llmfleet did not make; rename the service, "
            f"or remove that container (docker rm {name})"
        )
    return container


@dataclass(frozen=True)
class Model:
    """What is known of the model on this host."""

    fingerprint: str = ""
    context: int | None = None
    more: t.Mapping[str, t.Any] = field(default_factory=dict)
    """Further arguments of the engine's launch()."""


def _read_file(path: str) -> Model:
    found = model_file.read(path)
    return Model(found.fingerprint, found.header.context_length or None)


def read_shape(folder: str, size: int) -> Shape | None:
    """Return the shape of the model of ``size`` bytes in a folder with a config.json, None where it is not known."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as stream:
        config = json.load(stream)
    try:
        return from_config(config, size)
    except BadInput:
        # the engine may know it all the same
        return None


def _read_folder(engine: t.Any, path: str) -> Model:
    """Return what is known of a model in Hugging Face format; its links are followed to where the files are."""
    found = hf_folder.read(path, engine.target_of(path))
    shape = read_shape(path, found.size)
    mounts = tuple(Mount(source, target) for source, target in found.folders)
    context = shape.context_length if shape else 0
    return Model(found.fingerprint, context or None, {"shape": shape, "mounts": mounts})


def resolve(
    docker: Docker,
    service: Service,
    *,
    image: str,
    model_path: str,
    more_paths: t.Mapping[str, str] | None = None,
    api_key: str,
    foresee: bool,
    gpus: str = "",
    gpu_ids: t.Sequence[str] = (),
    gpu_access: str = "auto",
    before: spec.Spec | None = None,
    salt: str = "",
    caches: str = spec.CACHES,
) -> tuple[spec.Spec, Launch]:
    """Return the wanted specification and how the engine is launched by it; raises LlmfleetError.

    ``more_paths``: key -> path on the host of the other models that the service names;
    ``gpus``: how containers get the host's GPUs (one of gpu_access.PLANNED), "" when this one gets none; ``gpu_ids``:
    which, where the service chooses; ``gpu_access``: the way that the user asks for, or `auto`; ``before``: the
    specification that runs; ``caches``: the folder with what engines keep between containers.
    With ``foresee`` (check mode on a new host) the image and the model may still be missing.
    """
    if not image or not (model_path or service.models):
        raise LlmfleetError(f"service {service.name}: `image` and `model_path` are needed to start it")
    on_gpu = bool(gpus) and service.device != "cpu"
    if service.device == "gpu" and not gpus:
        raise LlmfleetError(f"service {service.name}: `device` is gpu, but `gpus` does not say how it gets one")
    if service.gpus and not gpu_ids:
        raise LlmfleetError(f"service {service.name}: `gpus` chooses GPUs, but `gpu_ids` does not say what they are")
    if service.verify.level == "device" and not on_gpu:
        raise LlmfleetError(f"service {service.name}: `verify.level: device` is about GPUs, and it runs on the CPU")
    found = docker.inspect("image", image)
    if found is None and not foresee:
        raise LlmfleetError(f"service {service.name}: image {image} is not on this host; build or pull it first")
    engine = ENGINES[service.engine]
    model = Model()
    there = os.path.exists(model_path)
    if not service.models and (there or not foresee):
        try:
            model = _read_folder(engine, model_path) if engine.MODEL_FORMAT == SAFETENSORS else _read_file(model_path)
        except LlmfleetError as error:
            way = "" if there else "; playbooks/models.yml fetches models"
            raise LlmfleetError(f"service {service.name}: model {model_path}: {error}{way}") from None
    more = beside.look(engine, service, more_paths or {}, foresee)
    if service.models:
        model = Model(more={"contexts": more.contexts})
    launch = engine.launch(service, model_path, model.context, api_key, bool(gpus), more=more.inside, **model.more)
    launch = replace(launch, mounts=(*launch.mounts, *more.mounts))
    engine_now = gpu_way.look(docker) if gpus in NVIDIA_WAYS else gpu_way.Engine()
    try:
        way = gpu_way.choose(gpus, gpu_access, gpu_ids, engine_now)
        nodes = gpu_way.nodes_of(gpus, gpu_ids)
    except LlmfleetError as error:
        raise LlmfleetError(f"service {service.name}: {error}") from None
    wanted = spec.build(
        service,
        launch,
        image=image,
        image_id=found["Id"] if found else "",
        model_fingerprint=model.fingerprint,
        files=more.fingerprints,
        # under the same salt an unchanged secret has an unchanged digest
        salt=salt or (before or {}).get("salt") or secrets.token_hex(8),
        gpus=way,
        gpu_ids=nodes,
        groups=gpu_way.device_groups(way, nodes),
        caches=caches,
    )
    return (gpu_way.kept(wanted, before, engine_now) if gpu_access == "auto" else wanted), launch


def check_port(docker: Docker, service: Service, before: spec.Spec | None, wanted: spec.Spec) -> None:
    """Raise LlmfleetError when the port that a new or moved service needs is taken."""
    if before is None or before["publish"] != wanted["publish"]:
        listener = who_listens(docker, service.bind, service.port)
        if listener:
            raise LlmfleetError(
                f"service {service.name}: port {service.port} on {service.bind} is taken by {listener}; "
                "choose another `port` or stop it"
            )
