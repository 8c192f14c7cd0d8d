"""What a user may say about a service, checked before anything changes."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import replace

from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.service_fields import KEYS, RESERVED, Service
from ansible.module_utils.llmfleet.service_key import Key
from ansible.module_utils.llmfleet.service_rules import check_rules
from ansible.module_utils.llmfleet.service_verify import LEVELS, NEEDS_TOKEN, VERIFY_KEYS, Verify
from ansible.module_utils.llmfleet.service_words import check, check_bounds, check_text, nearest, shown

__all__ = ["LEVELS", "Service", "Verify", "parse", "parse_all", "with_more", "without_secrets"]


def _typed(where: str, given: t.Mapping[str, t.Any], keys: t.Mapping[str, Key]) -> dict[str, t.Any]:
    """Return ``given`` without its nulls after checking key names and value types."""
    for name, value in given.items():
        if name not in keys:
            raise BadInput(f"{where}: unknown key `{name}`{nearest(str(name), keys)}")
        key = keys[name]
        # YAML's true is an int for Python; no numeric field means it
        fits = isinstance(value, key.kind) and isinstance(value, bool) == (key.kind is bool)
        if value is not None and not fits:
            found = "what is given here (quote it)" if key.secret else shown(value)
            raise BadInput(f"{where}: `{name}` must be {key.words}, not {found}")
    return {name: value for name, value in given.items() if value is not None}


def parse(raw: t.Any, position: int = 0) -> Service:
    """Return the Service that ``raw`` (one item of ``llm_services``) describes.

    Raises BadInput: one sentence that names the service, the field, what is wrong and what would be right.
    ``api_key`` is checked here and leaves the result, so that a Service can be printed.
    """
    where = f"llm_services[{position}]"
    check(isinstance(raw, dict), where, f"must be a mapping with at least `name`, not {shown(raw)}")
    name = raw.get("name")
    where = f"service {name}" if isinstance(name, str) and name else where
    given = _typed(where, raw, KEYS)
    check(bool(given.get("name")), where, "`name` is missing")
    check_text("name", KEYS["name"], given["name"], where)
    check(not given["name"].endswith(RESERVED), where, f"`name` may not end in {' or '.join(RESERVED)}")
    api_key = given.pop("api_key", "")
    check_text("api_key", KEYS["api_key"], api_key, where)
    verify = Verify(**_typed(f"{where}: verify", given.pop("verify", {}), VERIFY_KEYS))
    gpus = tuple(str(gpu).strip() for gpu in given.pop("gpus", ()) if _names_gpu(gpu, where))
    args, lora = tuple(given.pop("args", ())), tuple(given.pop("lora", ()))
    for key, items in (("args", args), ("lora", lora)):
        said = all(isinstance(item, str) for item in items)
        check(said, where, f"`{key}` must be a list of strings, not {list(items)!r}")
    env = given.pop("env", {})
    check(
        all(isinstance(key, str) and isinstance(value, str) for key, value in env.items()),
        where,
        "`env` must map names to strings (quote numbers and booleans)",
    )
    models = tuple(given.pop("models", {}).items())
    check(
        all(isinstance(key, str) and isinstance(model, str) and model for key, model in models),
        where,
        "`models` must map names to models, such as {chat: org/name}",
    )
    engine = given.get("engine", Service.engine)
    check(engine in ENGINES, where, f"unknown engine `{engine}`{nearest(engine, list(ENGINES))}")
    check(not (models and given.get("served_name")), where, "`served_name` contradicts `models`, which has the names")
    chosen = {"served_name": models[0][0] if models else given["name"], "parallel": ENGINES[engine].DEFAULT_PARALLEL}
    lists: dict[str, t.Any] = {"gpus": gpus, "args": args, "lora": lora, "models": models}
    service = Service(**{**chosen, **given}, **lists, env=env, verify=verify, has_api_key=bool(api_key))
    _check_values(service, where)
    return service


def _check_values(service: Service, where: str) -> None:
    check_bounds(where, service, Service, KEYS)
    verify = service.verify
    check_bounds(where, verify, Verify, VERIFY_KEYS, "verify.")
    check(
        not any(getattr(verify, name) for name in NEEDS_TOKEN) or verify.level in ("", "token", "device"),
        where,
        f"a speed or an answer can only be verified at `verify.level: token` or device, not {verify.level}",
    )
    check_rules(service, where)
    if service.state != "absent":
        _check_listening(service, where)


def _names_gpu(gpu: t.Any, where: str) -> bool:
    named = isinstance(gpu, (str, int)) and not isinstance(gpu, bool) and re.fullmatch(r"[\w:.-]+", str(gpu).strip())
    check(bool(named), where, f"`gpus` must be a list of numbers, UUIDs or PCI addresses, not {shown(gpu)} in it")
    return True


def _check_listening(service: Service, where: str) -> None:
    check(
        bool(service.model or service.models),
        where,
        "`model` is missing: give a path, a repository such as org/name, a URL with model_sha256, or tiny",
    )
    check(bool(service.port), where, "`port` is missing")
    try:
        ipaddress.ip_address(service.bind)
    except ValueError:
        raise BadInput(
            f"{where}: `bind` must be an IP address such as 127.0.0.1 or 0.0.0.0, not {service.bind!r}"
        ) from None
    check(
        service.has_api_key or not service.public,
        where,
        f"`bind: {service.bind}` lets other machines use the service: set `api_key` too, or bind to 127.0.0.1",
    )


def parse_all(raw: t.Any) -> list[Service]:
    """Return the services of one host, checked one by one and against each other; raises BadInput."""
    if not isinstance(raw, list):
        raise BadInput(f"llm_services must be a list of services, not {shown(raw)}")
    services = [parse(item, position) for position, item in enumerate(raw)]
    names: set[str] = set()
    ports: dict[int, str] = {}
    for service in services:
        check(service.name not in names, f"service {service.name}", "`name` is used twice on this host")
        names.add(service.name)
        if service.state == "started":
            other = ports.setdefault(service.port, service.name)
            check(
                other == service.name, f"service {service.name}", f"`port` {service.port} is taken by service {other}"
            )
    return services


def with_more(services: t.Iterable[Service]) -> list[Service]:
    """Return each service followed by one like it for each other model that it needs (`draft_model` and the like).

    Of one with several `models` there are only those.
    """
    found = []
    for service in services:
        alone = replace(service.alone(), model_sha256="")
        found += [] if service.models else [service]
        found += [replace(alone, model=model) for model in service.more_models.values()]
    return found


def without_secrets(raw: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Return the services as given but for their ``api_key``, so that they can be looped over and printed."""
    return [{key: value for key, value in service.items() if key != "api_key"} for service in raw]
