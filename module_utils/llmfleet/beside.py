"""What a service's container sees of the host beside the model itself: other models, adapters, templates. Edge code."""

from __future__ import annotations

import hashlib
import os
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet import hf_folder, model_file
from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.engines import options
from ansible.module_utils.llmfleet.engines.base import Mount
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub.manifest import SAFETENSORS
from ansible.module_utils.llmfleet.services import Service


@dataclass(frozen=True)
class Beside:
    """Where it is in the container, and what it is."""

    inside: t.Mapping[str, str]
    """Key of the service -> path in the container of the model that it names."""
    mounts: tuple[Mount, ...]
    contexts: t.Mapping[str, int]
    """Key of the service -> context that the model was trained for, where it is known."""
    fingerprints: t.Mapping[str, str]
    """Path in the container -> identity of the content, so that a file that changed is noticed."""


def look(engine: t.Any, service: Service, paths: t.Mapping[str, str], foresee: bool) -> Beside:
    """Return what ``service`` needs beside its model; raises BadInput for what is missing or cannot be read.

    ``paths``: key -> path on the host of the other models that it names. With ``foresee`` they may still be missing.
    """
    inside: dict[str, str] = {}
    mounts: list[Mount] = []
    marks: dict[str, str] = {}
    contexts: dict[str, int] = {}
    for key, reference in service.more_models.items():
        path = paths.get(key, "")
        if not path:
            raise BadInput(f"service {service.name}: `more_paths` does not say where the model of `{key}` is")
        inside[key] = target = options.target_of(key, path)
        if foresee and not os.path.exists(path):
            continue
        try:
            found, marks[target], contexts[key] = _model(engine, path, target)
        except LlmfleetError as error:
            raise BadInput(f"service {service.name}: {key} {reference}: {error}") from None
        mounts += found
    for target, path in options.files(service, engine.OPTIONS).items():
        try:
            marks[target] = _fingerprint(path)
        except BadInput as error:
            raise BadInput(f"service {service.name}: {path}: {error}") from None
        mounts.append(Mount(path, target))
    return Beside(inside, tuple(mounts), contexts, marks)


def _model(engine: t.Any, path: str, target: str) -> tuple[list[Mount], str, int]:
    """Return the mounts, the identity and the context (0: not known) of a model that shall be seen at ``target``."""
    if engine.MODEL_FORMAT == SAFETENSORS:
        folder = hf_folder.read(path, target)
        return [Mount(source, seen) for source, seen in folder.folders], folder.fingerprint, 0
    file = model_file.read(path)
    context = file.header.context_length or 0
    if len(file.files) > 1:
        # parts find each other by name
        return [Mount(os.path.dirname(path), os.path.dirname(target))], file.fingerprint, context
    return [Mount(path, target)], file.fingerprint, context


def _fingerprint(path: str) -> str:
    """Return the identity of a file, or of a folder by those of its files."""
    if not os.path.exists(path):
        raise BadInput("there is no such file on this host; check the path")
    if os.path.isfile(path):
        return _of_file(path)
    marks = []
    for folder, _, names in sorted(os.walk(path)):
        marks += [f"{name}\0{_of_file(os.path.join(folder, name))}\n" for name in sorted(names)]
    return hashlib.sha256("".join(marks).encode()).hexdigest()


def _of_file(path: str) -> str:
    status = os.stat(path)
    if not (status.st_mode & 0o004 or status.st_uid == RUN_UID):
        raise BadInput(f"the user {RUN_UID} that engines run as may not read it; `chmod o+r` it")
    return model_file.fingerprint_of(path)
