"""Open WebUI as the inventory describes it: its environment, and the services it talks to. Pure.

Everything goes to the container in one file, which roles/open_webui/files/launch.py reads.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from urllib.parse import urlsplit

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.open_webui.connections import Hosts, connection, directly, reached, through

Data = dict[str, t.Any]

ROLES = ("pending", "user", "admin")

ALWAYS: t.Mapping[str, str] = {
    "DATA_DIR": "/data",
    # it writes its pages' static files anew at each start
    "STATIC_DIR": "/tmp/static",  # noqa: S108 - of the container
    "HOME": "/tmp",  # noqa: S108
    "ENV": "prod",
    "OFFLINE_MODE": "true",
    "ENABLE_VERSION_UPDATE_CHECK": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    "ENABLE_OPENAI_API": "true",
    "ENABLE_OLLAMA_API": "false",
    # how these begin; an administrator may change them in the browser
    "ENABLE_COMMUNITY_SHARING": "false",
    "RAG_EMBEDDING_ENGINE": "openai",
}


def make(said: t.Mapping[str, t.Any], hosts: Hosts, here: str, gateway: t.Mapping[str, t.Any]) -> Data:
    """Return {problem, settings, url, listens}: what launch.py reads and where it answers, or why it cannot be.

    ``said``: the role's variables without their prefix. ``gateway``: {port, keys, services} of the one on the host
    ``here``, as its own variables have them, {} for none. ``url`` is the address on the host itself, ``listens`` what
    is taken there.
    """
    try:
        settings = _make(said, hosts, here, gateway)
    except LlmfleetError as problem:
        return {"problem": str(problem), "settings": {}, "url": "", "listens": ""}
    bind, port = ipaddress.ip_address(said["bind"]), said["port"]
    local = ("127.0.0.1" if bind.version == 4 else "::1") if bind.is_unspecified else str(bind)
    return {
        "problem": "",
        "settings": settings,
        "url": f"http://{_written(local, port)}",
        "listens": _written(bind, port),
    }


def _written(address: t.Any, port: int) -> str:
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def _make(said: t.Mapping[str, t.Any], hosts: Hosts, here: str, gateway: t.Mapping[str, t.Any]) -> Data:
    _check(said)
    own = [row for host in hosts if host["host"] == here for row in host["services"]]
    taken = {row.get("port"): f"service {row.get('name')}" for row in own if row.get("state") != "absent"}
    if gateway:
        taken[gateway["port"]] = "the gateway"
    if said["port"] in taken:
        raise BadInput(
            f"open_webui_port: {said['port']} is the port of {taken[said['port']]} on this host; choose another"
        )
    embedding: dict[str, str] = {}
    if said["api_url"]:
        connections = [connection(_url(said["api_url"]), said["api_key"])]
    elif gateway:
        connections, embedding = through(gateway, said["api_key"], reached(hosts, here))
    else:
        connections, embedding = directly(hosts, here)
    owned = {**_wishes(said), **embedding, **_extra(said["env"])}
    # without a model that makes vectors of texts, files that are given to a chat are read as a whole
    first = {} if embedding else {"BYPASS_EMBEDDING_AND_RETRIEVAL": "true"}
    account = {
        "WEBUI_ADMIN_EMAIL": said["admin_email"],
        "WEBUI_ADMIN_PASSWORD": said["admin_password"],
        "WEBUI_ADMIN_NAME": said["admin_name"],
    }
    secret = {"WEBUI_SECRET_KEY": said["secret_key"]} if said["secret_key"] else {}
    return {
        "image": "",
        "env": {**ALWAYS, **first, **(account if said["admin_email"] else {}), **secret, **owned},
        "owned": sorted(owned),
        "connections": connections,
        "listen": [said["bind"], said["port"]],
    }


def _check(said: t.Mapping[str, t.Any]) -> None:
    for name, value in said.items():
        if name not in ("port", "signup", "models_for_all", "env") and not isinstance(value, str):
            raise BadInput(f"open_webui_{name} must be a string (quote it)")
    if not isinstance(said["env"], dict):
        raise BadInput("open_webui_env must be a mapping of variables to strings")
    try:
        loopback = ipaddress.ip_address(said["bind"]).is_loopback
    except ValueError:
        raise BadInput(
            f"open_webui_bind must be an IP address such as 127.0.0.1 or 0.0.0.0, not {said['bind']!r}"
        ) from None
    if not 1 <= said["port"] <= 65535:
        raise BadInput(f"open_webui_port must be a port from 1 to 65535, not {said['port']}")
    email, password = said["admin_email"], said["admin_password"]
    if bool(email) != bool(password):
        raise BadInput("open_webui_admin_email and open_webui_admin_password belong together: give both or none")
    if email and not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        raise BadInput(f"open_webui_admin_email must be an address such as admin@example.org, not {email!r}")
    # bcrypt, which it keeps passwords with, reads no more
    if len(password.encode()) > 72:
        raise BadInput("open_webui_admin_password is longer than 72 bytes; choose a shorter one")
    if not email and not loopback:
        raise BadInput(
            f"open_webui_bind: {said['bind']} lets other machines use the web UI, and whoever comes first becomes its "
            "administrator: set open_webui_admin_email and open_webui_admin_password too, or bind to 127.0.0.1"
        )
    if said["default_role"] not in ROLES:
        raise BadInput(f"open_webui_default_role must be one of {', '.join(ROLES)}, not {said['default_role']!r}")
    if said["url"]:
        _url(said["url"], "open_webui_url")


def _wishes(said: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Return what the variables come to; those that are left open are the administrators' to set in the browser."""
    wishes = {
        "ENABLE_SIGNUP": str(bool(said["signup"])).lower(),
        "DEFAULT_USER_ROLE": said["default_role"],
        # else each model had to be released by hand before others than administrators see it
        "BYPASS_MODEL_ACCESS_CONTROL": str(bool(said["models_for_all"])).lower(),
        "WEBUI_NAME": said["name"],
        "WEBUI_URL": said["url"],
        "DEFAULT_LOCALE": said["locale"],
        "DEFAULT_MODELS": said["default_model"],
    }
    return {name: value for name, value in wishes.items() if value}


def _extra(env: t.Mapping[str, t.Any]) -> dict[str, str]:
    for name, value in env.items():
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            raise BadInput(
                f"open_webui_env: {name!r} is no name of a variable of Open WebUI, such as ENABLE_WEB_SEARCH"
            )
        if name in _OWNED:
            raise BadInput(f"open_webui_env holds {name}: say it with {_OWNED[name]}")
        if not isinstance(value, str):
            raise BadInput(f"open_webui_env: {name} must be a string (quote numbers and booleans)")
    return dict(env)


_OWNED: t.Mapping[str, str] = {
    "WEBUI_SECRET_KEY": "open_webui_secret_key",
    "WEBUI_ADMIN_EMAIL": "open_webui_admin_email",
    "WEBUI_ADMIN_PASSWORD": "open_webui_admin_password",
    "WEBUI_ADMIN_NAME": "open_webui_admin_name",
    "ENABLE_SIGNUP": "open_webui_signup",
    "DEFAULT_USER_ROLE": "open_webui_default_role",
    "BYPASS_MODEL_ACCESS_CONTROL": "open_webui_models_for_all",
    "WEBUI_NAME": "open_webui_name",
    "WEBUI_URL": "open_webui_url",
    "DEFAULT_LOCALE": "open_webui_locale",
    "DEFAULT_MODELS": "open_webui_default_model",
    "DATA_DIR": "nothing, it is always /data in the container",
    "PORT": "open_webui_port",
    "HOST": "open_webui_bind",
    **dict.fromkeys(
        (
            *("OPENAI_API_BASE_URL", "OPENAI_API_BASE_URLS", "OPENAI_API_KEY", "OPENAI_API_KEYS"),
            "OPENAI_API_CONFIGS",
        ),
        "open_webui_api_url and open_webui_api_key",
    ),
}
"""Variable of Open WebUI -> the role's, for what has one."""


def _url(said: str, variable: str = "open_webui_api_url") -> str:
    parts = urlsplit(said)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[;\s]", said):
        example = "https://chat.example.org" if variable == "open_webui_url" else "http://127.0.0.1:8480/v1"
        raise BadInput(f"{variable} must be an address such as {example}, not {said!r}")
    return said.rstrip("/")
