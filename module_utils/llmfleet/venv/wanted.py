"""What a host must have for a service in a venv, looked at before anything changes. Edge code."""

from __future__ import annotations

import os
import pwd
import stat
import typing as t
from dataclasses import replace

from ansible.module_utils.llmfleet import beside, hf_folder
from ansible.module_utils.llmfleet.addresses import who_listens
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.engines.base import Launch, Mount
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.services import Service
from ansible.module_utils.llmfleet.spec import Spec
from ansible.module_utils.llmfleet.venv import service_spec
from ansible.module_utils.llmfleet.venv.recipe import NOTE
from ansible.module_utils.llmfleet.venv.systemd import UnitsAsContainers
from ansible.module_utils.llmfleet.wanted import read_shape


def resolve(
    service: Service,
    place: service_spec.Place,
    *,
    model_path: str,
    more_paths: t.Mapping[str, str],
    api_key: str,
    salt: str,
    foresee: bool,
) -> tuple[Spec, Launch]:
    """Return the wanted specification and how the engine is launched by it; raises LlmfleetError.

    ``more_paths``: key -> path on the host of the other models that the service names. With ``foresee`` (check mode on
    a new host) the environment and the model may still be missing.
    """
    where = f"service {service.name}"
    if not place.venv or not model_path:
        raise LlmfleetError(f"{where}: `venv` and `model_path` are needed to start it")
    if service.device == "gpu" and not place.gpus:
        raise LlmfleetError(f"{where}: `device` is gpu, but `gpus` does not say how it gets one")
    if not foresee and not os.path.exists(f"{place.venv}/{NOTE}"):
        raise LlmfleetError(f"{where}: {place.venv} is not there or not whole; playbooks/images.yml makes it")
    engine = ENGINES[service.engine]
    fingerprint, context, more = "", None, t.cast("dict[str, t.Any]", {})
    if os.path.exists(model_path) or not foresee:
        try:
            fingerprint, context, more = _look(engine, model_path, place.user)
        except LlmfleetError as error:
            way = "" if os.path.exists(model_path) else "; playbooks/models.yml fetches models"
            raise LlmfleetError(f"{where}: model {model_path}: {error}{way}") from None
    further = beside.look(engine, service, more_paths, foresee)
    launch = engine.launch(service, model_path, context, api_key, bool(place.gpus), more=further.inside, **more)
    launch = replace(launch, mounts=(*launch.mounts, *further.mounts))
    wanted = service_spec.build(
        service, launch, place, model_fingerprint=fingerprint, files=further.fingerprints, salt=salt
    )
    return wanted, launch


def _look(engine: t.Any, path: str, user: str) -> tuple[str, int | None, dict[str, t.Any]]:
    """Return (fingerprint, context, further arguments of launch) of the model; raises LlmfleetError."""
    real = os.path.realpath(path)
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        # it is made together with the environment
        uid = -1
    # its links lead to where they do on the host, as nothing is mounted elsewhere
    found = hf_folder.read(path, real, reader_uid=uid)
    for folder, _ in found.folders:
        _check_reachable(folder, user)
    shape = read_shape(path, found.size)
    mounts = (Mount(real, engine.target_of(path)), *(Mount(source, source) for source, _ in found.folders[1:]))
    context = shape.context_length if shape else 0
    return found.fingerprint, context or None, {"shape": shape, "mounts": mounts}


def _check_reachable(folder: str, user: str) -> None:
    """Raise BadInput when a folder above is closed; those of homes are shown to the unit past them."""
    above = os.path.dirname(folder)
    while above not in ("/", "") and not folder.startswith(service_spec.HOMES):
        if not os.stat(above).st_mode & stat.S_IXOTH:
            raise BadInput(f"{above} is closed for the user {user}; `chmod o+x` it, or move the model")
        above = os.path.dirname(above)


def check_port(service: Service, wanted: Spec, befores: t.Iterable[Spec | None], units: UnitsAsContainers) -> None:
    """Raise LlmfleetError when the port is taken by others than those (unit, container) that make room."""
    own = [before["publish"].rpartition(":")[0] for before in befores if before]
    if wanted["publish"].rpartition(":")[0] in own:
        return
    listener = who_listens(units, service.bind, service.port)
    if listener:
        raise LlmfleetError(
            f"service {service.name}: port {service.port} on {service.bind} is taken by {listener}; "
            "choose another `port` or stop it"
        )
