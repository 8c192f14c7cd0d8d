"""What a user may say about a service, checked before anything changes."""

from __future__ import annotations

import difflib
import ipaddress
import re
import typing as t

from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.model_ref import masked
from ansible.module_utils.llmfleet.service_fields import (
    KEYS,
    LEVELS,
    NEEDS_TOKEN,
    RESERVED,
    SECRET_ENV,
    VERIFY_KEYS,
    Key,
    Service,
    Verify,
)

__all__ = ["LEVELS", "Service", "Verify", "parse", "parse_all", "without_secrets"]


def _close(word: str, known: t.Iterable[str]) -> str:
    word, known = word.lower(), list(known)
    begun = [name for name in known if len(word) > 2 and name.startswith(word)]
    close = begun if len(begun) == 1 else difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _nearest(word: str, known: t.Iterable[str]) -> str:
    return _close(word, known) or f" (known: {', '.join(known)})"


def _shown(value: t.Any) -> str:
    """Return a value as a message may show it: what is inside of lists and mappings may be secret."""
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value)


def _typed(where: str, given: t.Mapping[str, t.Any], keys: t.Mapping[str, Key]) -> dict[str, t.Any]:
    """Return ``given`` without its nulls after checking key names and value types."""
    for name, value in given.items():
        if name not in keys:
            raise BadInput(f"{where}: unknown key `{name}`{_nearest(str(name), keys)}")
        key = keys[name]
        # YAML's true is an int for Python; no numeric field means it
        if value is not None and (not isinstance(value, key.kind) or isinstance(value, bool)):
            found = "what is given here (quote it)" if key.secret else _shown(value)
            raise BadInput(f"{where}: `{name}` must be {key.words}, not {found}")
    return {name: value for name, value in given.items() if value is not None}


def _check(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise BadInput(f"{where}: {problem}")


def _check_choice(name: str, said: str, choices: t.Sequence[str], where: str) -> None:
    _check(said in choices, where, f"`{name}` must be one of {', '.join(choices)}, not {said!r}{_close(said, choices)}")


def _check_bounds(where: str, given: t.Any, unset: t.Any, keys: t.Mapping[str, Key], prefix: str = "") -> None:
    """Check what each key may hold by itself; ``unset`` has the values of keys that are left out."""
    for name, key in keys.items():
        said = getattr(given, name, None)
        if said is None or said == getattr(unset, name, None):
            continue
        if key.choices:
            _check_choice(prefix + name, said, key.choices, where)
        if key.pattern:
            _check_text(prefix + name, key, said, where)
        if key.minimum is not None:
            _check_number(prefix + name, key, said, where)


def _check_text(name: str, key: Key, said: str, where: str) -> None:
    found = "" if key.secret else f", not {said!r}"
    _check(re.fullmatch(key.pattern, said) is not None, where, f"`{name}` {key.must}{found}")


def _check_number(name: str, key: Key, said: float, where: str) -> None:
    words = f"must be at least {key.minimum}, not {said}" if key.minimum else f"may not be negative: {said}"
    if key.maximum is not None:
        words = f"must be between {key.minimum} and {key.maximum}, not {said}"
    above = key.maximum is not None and not said <= key.maximum
    _check(said >= (key.minimum or 0) and not above, where, f"`{name}` {words}{f' ({key.hint})' if key.hint else ''}")


def parse(raw: t.Any, position: int = 0) -> Service:
    """Return the Service that ``raw`` (one item of ``llm_services``) describes.

    Raises BadInput: one sentence that names the service, the field, what is wrong and what would be right.
    ``api_key`` is checked here and leaves the result, so that a Service can be printed.
    """
    where = f"llm_services[{position}]"
    _check(isinstance(raw, dict), where, f"must be a mapping with at least `name`, not {_shown(raw)}")
    name = raw.get("name")
    where = f"service {name}" if isinstance(name, str) and name else where
    given = _typed(where, raw, KEYS)
    _check(bool(given.get("name")), where, "`name` is missing")
    _check_text("name", KEYS["name"], given["name"], where)
    _check(not given["name"].endswith(RESERVED), where, f"`name` may not end in {' or '.join(RESERVED)}")
    api_key = given.pop("api_key", "")
    _check_text("api_key", KEYS["api_key"], api_key, where)
    verify = Verify(**_typed(f"{where}: verify", given.pop("verify", {}), VERIFY_KEYS))
    args = tuple(given.pop("args", ()))
    _check(all(isinstance(arg, str) for arg in args), where, f"`args` must be a list of strings, not {list(args)!r}")
    env = given.pop("env", {})
    _check(
        all(isinstance(key, str) and isinstance(value, str) for key, value in env.items()),
        where,
        "`env` must map names to strings (quote numbers and booleans)",
    )
    engine = given.get("engine", Service.engine)
    _check(engine in ENGINES, where, f"unknown engine `{engine}`{_nearest(engine, list(ENGINES))}")
    chosen = {"served_name": given["name"], "parallel": ENGINES[engine].DEFAULT_PARALLEL}
    service = Service(**{**chosen, **given}, args=args, env=env, verify=verify, has_api_key=bool(api_key))
    _check_values(service, where)
    return service


def _check_values(service: Service, where: str) -> None:
    _check_bounds(where, service, Service, KEYS)
    verify = service.verify
    _check_bounds(where, verify, Verify, VERIFY_KEYS, "verify.")
    _check(
        not any(getattr(verify, name) for name in NEEDS_TOKEN) or verify.level in ("", "token", "device"),
        where,
        f"a speed or an answer can only be verified at `verify.level: token` or device, not {verify.level}",
    )
    _check_device(service, where)
    _check_engine(service, where)
    _check_arguments(service, where)
    if service.state != "absent":
        _check_listening(service, where)


def _check_device(service: Service, where: str) -> None:
    if service.device == "cpu":
        _check(not service.gpu_layers, where, f"`gpu_layers: {service.gpu_layers}` contradicts `device: cpu`")
        _check(service.verify.level != "device", where, "`verify.level: device` is about GPUs, and `device` is cpu")


def _check_engine(service: Service, where: str) -> None:
    """Check the fields that not every engine has, or has with other words."""
    engine = ENGINES[service.engine]
    for name, why in engine.REFUSED_FIELDS.items():
        _check(
            getattr(service, name) == getattr(Service, name),
            where,
            f"`{name}` is nothing that engine {service.engine} knows: {why}",
        )
    for name, words in (("cache_type", engine.CACHE_TYPES), ("dtype", engine.DTYPES)):
        if getattr(service, name):
            _check_choice(name, getattr(service, name), words, where)
    unfit = re.fullmatch(engine.REFUSED_MODELS, service.model, re.IGNORECASE) is not None
    _check(not unfit, where, f"`model` is {masked(service.model)}: {engine.REFUSED_MODELS_WHY}")


def _check_listening(service: Service, where: str) -> None:
    _check(
        bool(service.model),
        where,
        "`model` is missing: give a path, a repository such as org/name, a URL with model_sha256, or tiny",
    )
    _check(bool(service.port), where, "`port` is missing")
    try:
        ipaddress.ip_address(service.bind)
    except ValueError:
        raise BadInput(
            f"{where}: `bind` must be an IP address such as 127.0.0.1 or 0.0.0.0, not {service.bind!r}"
        ) from None
    _check(
        service.has_api_key or not service.public,
        where,
        f"`bind: {service.bind}` lets other machines use the service: set `api_key` too, or bind to 127.0.0.1",
    )


def _check_arguments(service: Service, where: str) -> None:
    engine = ENGINES[service.engine]
    for arg in service.args:
        flag = arg.split("=", 1)[0]
        _check(flag not in engine.REFUSED_FLAGS, where, f"`args` may not hold {flag}: {engine.REFUSED_FLAGS.get(flag)}")
        _check(
            flag not in engine.OWNED_FLAGS, where, f"`args` holds {flag}: say it with `{engine.OWNED_FLAGS.get(flag)}`"
        )
    for key in service.env:
        _check(key not in engine.OWNED_ENV, where, f"`env` holds {key}: say it with `{engine.OWNED_ENV.get(key)}`")
        _check(
            re.search(SECRET_ENV, key, re.IGNORECASE) is None,
            where,
            f"`env` holds {key}, which looks like a secret: anyone who may run docker inspect would read it",
        )


def parse_all(raw: t.Any) -> list[Service]:
    """Return the services of one host, checked one by one and against each other; raises BadInput."""
    if not isinstance(raw, list):
        raise BadInput(f"llm_services must be a list of services, not {_shown(raw)}")
    services = [parse(item, position) for position, item in enumerate(raw)]
    names: set[str] = set()
    ports: dict[int, str] = {}
    for service in services:
        _check(service.name not in names, f"service {service.name}", "`name` is used twice on this host")
        names.add(service.name)
        if service.state == "started":
            other = ports.setdefault(service.port, service.name)
            _check(
                other == service.name, f"service {service.name}", f"`port` {service.port} is taken by service {other}"
            )
    return services


def without_secrets(raw: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Return the services as given but for their ``api_key``, so that they can be looped over and printed."""
    return [{key: value for key, value in service.items() if key != "api_key"} for service in raw]
