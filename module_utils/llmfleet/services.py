"""What a user may say about a service, checked before anything changes."""

from __future__ import annotations

import difflib
import ipaddress
import re
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput

LEVELS = ("process", "http", "model", "token", "device")
"""Verification levels in the order they are reached; each includes those before it. `device` is for GPUs only."""

DEVICES = ("auto", "cpu", "gpu")
STATES = ("started", "stopped", "absent")

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_MEMORY = re.compile(r"[1-9][0-9]*[bkmg]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECRET_ENV = re.compile(r"(?i)(^|_)(api_?key|token|secret|password)$")


@dataclass(frozen=True)
class Verify:
    """How a service proves that it is ready. Times in seconds, speed in tokens per second; 0 sets no bound."""

    level: str = ""
    prompt: str = "Say hello in one short sentence."
    max_tokens: int = 64
    answer: str = ""
    min_tokens_per_second: float = 0.0
    max_first_token_seconds: float = 0.0
    timeout: int = 3600

    def goal(self, on_gpu: bool) -> str:
        """Return the level to reach: without a word of the user `token`, and `device` on a GPU."""
        if self.level in ("", "device"):
            return "device" if on_gpu else "token"
        return self.level


@dataclass(frozen=True)
class Service:
    """A served model as the inventory describes it; only ``name`` and, to run, ``model`` and ``port`` must be given."""

    name: str
    engine: str = "llama_server"
    state: str = "started"
    model: str = ""
    model_sha256: str = ""
    port: int = 0
    bind: str = "127.0.0.1"
    served_name: str = ""
    context_length: int = 0
    parallel: int = 1
    threads: int = 0
    device: str = "auto"
    gpu_layers: int = 0
    memory: str = ""
    image: str = ""
    args: tuple[str, ...] = ()
    env: t.Mapping[str, str] = field(default_factory=dict)
    verify: Verify = Verify()
    has_api_key: bool = False

    @property
    def public(self) -> bool:
        """Whether other machines can reach the port."""
        return not ipaddress.ip_address(self.bind).is_loopback


_TYPES: dict[str, tuple[t.Any, str]] = {
    "name": (str, "a string"),
    "engine": (str, "a string"),
    "state": (str, "a string"),
    "model": (str, "a string"),
    "model_sha256": (str, "a string"),
    "port": (int, "an integer"),
    "bind": (str, "an IP address as a string"),
    "api_key": (str, "a string"),
    "served_name": (str, "a string"),
    "context_length": (int, "an integer (tokens)"),
    "parallel": (int, "an integer"),
    "threads": (int, "an integer"),
    "device": (str, "a string"),
    "gpu_layers": (int, "an integer"),
    "memory": (str, "a string such as 8g"),
    "image": (str, "a string"),
    "args": (list, "a list of strings"),
    "env": (dict, "a mapping of strings"),
    "verify": (dict, "a mapping"),
}
_VERIFY_TYPES: dict[str, tuple[t.Any, str]] = {
    "level": (str, "a string"),
    "prompt": (str, "a string"),
    "max_tokens": (int, "an integer"),
    "answer": (str, "a string"),
    "min_tokens_per_second": ((int, float), "a number"),
    "max_first_token_seconds": ((int, float), "a number"),
    "timeout": (int, "an integer (seconds)"),
}


def _nearest(word: str, known: t.Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else f" (known: {', '.join(known)})"


def _typed(where: str, given: t.Mapping[str, t.Any], types: dict[str, tuple[t.Any, str]]) -> dict[str, t.Any]:
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
    given = _typed(where, raw, _TYPES)
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
    verify = Verify(**_typed(f"{where}: verify", given.pop("verify", {}), _VERIFY_TYPES))
    args = tuple(given.pop("args", ()))
    _check(all(isinstance(arg, str) for arg in args), where, f"`args` must be a list of strings, not {list(args)!r}")
    env = given.pop("env", {})
    _check(
        all(isinstance(key, str) and isinstance(value, str) for key, value in env.items()),
        where,
        "`env` must map names to strings (quote numbers and booleans)",
    )
    service = Service(
        **{"served_name": given["name"], **given}, args=args, env=env, verify=verify, has_api_key=bool(api_key)
    )
    _check_values(service, where)
    return service


def _check_values(service: Service, where: str) -> None:
    _check(
        service.engine in ENGINES, where, f"unknown engine `{service.engine}`{_nearest(service.engine, list(ENGINES))}"
    )
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
    for name in ("context_length", "threads"):
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


def _check_listening(service: Service, where: str) -> None:
    _check(bool(service.model), where, "`model` is missing: give a GGUF path, a URL with model_sha256, or tiny")
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
