"""What the keys of a service have to do with each other and with its engine."""

from __future__ import annotations

import re

from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.engines.options import flag_of, in_full
from ansible.module_utils.llmfleet.hub.gguf_files import PROJECTOR
from ansible.module_utils.llmfleet.model_ref import masked
from ansible.module_utils.llmfleet.service_fields import GPU_ENV, SECRET_ENV, Service
from ansible.module_utils.llmfleet.service_options import MODEL_KEYS, NEEDS, NOT_WITH_MODELS
from ansible.module_utils.llmfleet.service_verify import NEEDS_TOKEN, Verify
from ansible.module_utils.llmfleet.service_words import check, check_choice


def check_rules(service: Service, where: str) -> None:
    """Raise BadInput for a service whose keys are right one by one but not together."""
    _check_device(service, where)
    _check_runtime(service, where)
    _check_needs(service, where)
    _check_models(service, where)
    _check_engine(service, where)
    _check_arguments(service, where)


def _check_device(service: Service, where: str) -> None:
    if service.device == "cpu":
        check(not service.gpu_layers, where, f"`gpu_layers: {service.gpu_layers}` contradicts `device: cpu`")
        check(not service.gpus, where, "`gpus` contradicts `device: cpu`")
        check(service.verify.level != "device", where, "`verify.level: device` is about GPUs, and `device` is cpu")


def _check_runtime(service: Service, where: str) -> None:
    if service.runtime == "venv":
        check(
            service.engine == "vllm",
            where,
            f"`runtime: venv` is for engine vllm; engine {service.engine} runs in a container only",
        )
        check(not service.image, where, "`image` contradicts `runtime: venv`, which runs without any image")


def _check_needs(service: Service, where: str) -> None:
    for name, (other, why) in NEEDS.items():
        said, needed = (getattr(service, key) != getattr(Service, key) for key in (name, other))
        check(needed or not said, where, f"`{name}` says nothing without `{other}`: {why}")


def _check_models(service: Service, where: str) -> None:
    if not service.models:
        return
    for name in NOT_WITH_MODELS:
        alone = getattr(service, name) == getattr(Service, name)
        check(alone, where, f"`{name}` contradicts `models`: it is about one model; make a service of that one")
    check(
        service.verify.level != "device",
        where,
        "`verify.level: device` cannot be proven of several `models`, each of which is a process of its own: leave it "
        "out, or set it to token",
    )


def _check_engine(service: Service, where: str) -> None:
    """Check the fields that not every engine has, or has with other words."""
    engine = ENGINES[service.engine]
    for name, why in engine.REFUSED_FIELDS.items():
        check(
            getattr(service, name) == getattr(Service, name),
            where,
            f"`{name}` is nothing that engine {service.engine} knows: {why}",
        )
    check(
        service.task in engine.PATHS,
        where,
        f"engine {service.engine} does not do `task: {service.task}`, only {', '.join(engine.PATHS)}",
    )
    for name in NEEDS_TOKEN:
        check(
            service.task == Service.task or getattr(service.verify, name) == getattr(Verify, name),
            where,
            f"`verify.{name}` is about an answer in words, and a service for `task: {service.task}` gives none",
        )
    for name, refused in engine.REFUSED_WORDS.items():
        said = getattr(service, name)
        check(said not in refused, where, f"`{name}: {said}` does not exist: {refused.get(said)}")
    for name, words in engine.CHOICES.items():
        if getattr(service, name):
            check_choice(name, getattr(service, name), words, where)
    named = {name: getattr(service, name) for name in MODEL_KEYS}
    for name, model in {**named, **service.more_models}.items():
        eyes = name != "mmproj" and PROJECTOR.search(model) is not None
        check(
            not eyes, where, f"`{name}` is the projector {masked(model)}: name it in `mmproj`, and its model in `model`"
        )
        unfit = re.fullmatch(engine.REFUSED_MODELS, model, re.IGNORECASE) is not None
        check(not unfit, where, f"`{name}` is {masked(model)}: {engine.REFUSED_MODELS_WHY}")


def _check_arguments(service: Service, where: str) -> None:
    engine = ENGINES[service.engine]
    known = {**engine.REFUSED_FLAGS, **engine.OWNED_FLAGS, **engine.SHARED_FLAGS}
    for arg in service.args:
        given = flag_of(arg)
        flag = in_full(given, known) if engine.ABBREVIATES else given
        said = flag if flag == given else f"{given}, short for {flag}"
        check(flag not in engine.REFUSED_FLAGS, where, f"`args` may not hold {said}: {engine.REFUSED_FLAGS.get(flag)}")
        check(
            flag not in engine.OWNED_FLAGS, where, f"`args` holds {said}: say it with `{engine.OWNED_FLAGS.get(flag)}`"
        )
        shared = [
            name for name in engine.SHARED_FLAGS.get(flag, ()) if getattr(service, name) != getattr(Service, name)
        ]
        check(
            not shared, where, f"`args` holds {said}, of which `{'` and `'.join(shared)}` says a part: say it all there"
        )
    for key in service.env:
        check(key not in engine.REFUSED_ENV, where, f"`env` may not hold {key}: {engine.REFUSED_ENV.get(key)}")
        check(key not in GPU_ENV, where, f"`env` holds {key}: say it with `gpus`, so that the plan counts with it")
        check(key not in engine.OWNED_ENV, where, f"`env` holds {key}: say it with `{engine.OWNED_ENV.get(key)}`")
        check(
            re.search(SECRET_ENV, key, re.IGNORECASE) is None,
            where,
            f"`env` holds {key}, which looks like a secret: anyone who may run docker inspect would read it",
        )
