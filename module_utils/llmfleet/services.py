"""What a user may say about a service, checked before anything changes."""

from __future__ import annotations

import difflib
import ipaddress
import re
import typing as t

from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.service_fields import (
    DEVICES,
    LEVELS,
    STATES,
    TYPES,
    VERIFY_TYPES,
    Service,
    Verify,
)

__all__ = ["LEVELS", "Service", "Verify", "parse", "parse_all", "without_secrets"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_MEMORY = re.compile(r"[1-9][0-9]*[bkmg]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECRET_ENV = re.compile(r"(?i)(^|_)(api_?key|token|secret|password)$")


def _nearest(word: str, known: t.Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else f" (known: {', '.join(known)})"


def _typed(where: str, given: t.Mapping[str, t.Any], types: t.Mapping[str, tuple[t.Any, str]]) -> dict[str, t.Any]:
    """Return ``given`` without its nulls after checking key names and value types."""
    for key, value in given.items():
        if key not in types:
            raise BadInput(f"{where}: unknown key `{key}`{_nearest(str(key), types)}")
        wanted, words = types[key]
        # YAML's true is an int for Python; no numeric field means it
        if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise BadInput(f"{where}: `{key}` must be {words}, not {value!r}")
    return {key: value for key, value in given.items() if value is not None}


def _check(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise BadInput(f"{where}: {problem}")


def parse(raw: t.Any, position: int = 0) -> Service:
    """Return the Service that ``raw`` (one item of ``llm_services``) describes.

    Raises BadInput: one sentence that names the service, the field, what is wrong and what would be right.
    ``api_key`` is checked here and leaves the result, so that a Service can be printed.
    """
    _check(isinstance(raw, dict), f"llm_services[{position}]", f"must be a mapping with at least `name`, not {raw!r}")
    name = raw.get("name")
    where = f"service {name}" if isinstance(name, str) and name else f"llm_services[{position}]"
    given = _typed(where, raw, TYPES)
    _check(bool(given.get("name")), where, "`name` is missing")
    _check(
        _NAME.fullmatch(given["name"]) is not None,
        where,
        "`name` names the container too: use up to 63 lower-case letters, digits, `_`, `.` or `-`, "
        "beginning with a letter or digit",
    )
    _check(not given["name"].endswith((".previous", ".next")), where, "`name` may not end in .previous or .next")
    api_key = given.pop("api_key", "")
    _check(
        re.search(r"[\s,]|^#", api_key) is None,
        where,
        "`api_key` may not contain white space or commas, nor begin with #",
    )
    verify = Verify(**_typed(f"{where}: verify", given.pop("verify", {}), VERIFY_TYPES))
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
    _check(service.state in STATES, where, f"`state` must be one of {', '.join(STATES)}, not {service.state!r}")
    verify = service.verify
    _check(
        verify.level in ("", *LEVELS),
        where,
        f"`verify.level` must be one of {', '.join(LEVELS)}, not {verify.level!r}",
    )
    _check(verify.max_tokens > 0, where, "`verify.max_tokens` must be at least 1")
    _check(verify.timeout > 0, where, "`verify.timeout` must be at least 1 second")
    needs_token = verify.answer or verify.min_tokens_per_second or verify.max_first_token_seconds
    _check(
        not needs_token or verify.level in ("", "token", "device"),
        where,
        f"a speed or an answer can only be verified at `verify.level: token` or device, not {verify.level}",
    )
    _check(
        min(verify.min_tokens_per_second, verify.max_first_token_seconds) >= 0,
        where,
        "`verify` bounds may not be negative",
    )
    _check_device(service, where)
    _check_engine(service, where)
    for name in ("context_length", "threads", "tensor_parallel"):
        _check(getattr(service, name) >= 0, where, f"`{name}` may not be negative: {getattr(service, name)}")
    _check(service.parallel >= 1, where, f"`parallel` must be at least 1, not {service.parallel}")
    _check(
        not service.memory or _MEMORY.fullmatch(service.memory) is not None,
        where,
        f"`memory` must be a whole number followed by b, k, m or g, such as 8g, not {service.memory!r}",
    )
    _check(
        not service.model_sha256 or _SHA256.fullmatch(service.model_sha256) is not None,
        where,
        "`model_sha256` must be 64 lower-case hexadecimal digits",
    )
    _check_arguments(service, where)
    if service.state != "absent":
        _check_listening(service, where)


def _check_device(service: Service, where: str) -> None:
    _check(service.device in DEVICES, where, f"`device` must be one of {', '.join(DEVICES)}, not {service.device!r}")
    _check(
        service.gpu_layers >= 0,
        where,
        f"`gpu_layers` may not be negative: {service.gpu_layers} (0: all; `device: cpu` for none)",
    )
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
        said = getattr(service, name)
        _check(said in ("", *words), where, f"`{name}` must be one of {', '.join(words)}, not {said!r}")
    _check(
        0 <= service.gpu_memory_utilization <= 1,
        where,
        f"`gpu_memory_utilization` is a part of the GPU's memory, such as 0.9, not {service.gpu_memory_utilization}",
    )
    unfit = re.fullmatch(engine.REFUSED_MODELS, service.model, re.IGNORECASE) is not None
    _check(not unfit, where, f"`model` is {service.model}: {engine.REFUSED_MODELS_WHY}")


def _check_listening(service: Service, where: str) -> None:
    _check(
        bool(service.model),
        where,
        "`model` is missing: give a path, a repository such as org/name, a URL with model_sha256, or tiny",
    )
    _check(bool(service.port), where, "`port` is missing")
    _check(1 <= service.port <= 65535, where, f"`port` must be between 1 and 65535, not {service.port}")
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
            _SECRET_ENV.search(key) is None,
            where,
            f"`env` holds {key}, which looks like a secret: anyone who may run docker inspect would read it",
        )


def parse_all(raw: t.Any) -> list[Service]:
    """Return the services of one host, checked one by one and against each other; raises BadInput."""
    if not isinstance(raw, list):
        raise BadInput(f"llm_services must be a list of services, not {raw!r}")
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
