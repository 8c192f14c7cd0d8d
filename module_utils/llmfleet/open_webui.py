"""Open WebUI as the inventory describes it: its environment, and the services it talks to. Pure.

Everything goes to the container in one file, which roles/open_webui/files/launch.py reads.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from urllib.parse import urlsplit

from ansible.module_utils.llmfleet import services
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gateway import fleet
from ansible.module_utils.llmfleet.services import Service

Data = dict[str, t.Any]
Hosts = t.Sequence[t.Mapping[str, t.Any]]
"""{host, address, services} of hosts with services."""

GATEWAY_KEY = "open-webui"
"""Name of its key among llm_gateway_keys."""

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
    # without a bound: on a slow machine a long answer takes its time
    "AIOHTTP_CLIENT_TIMEOUT": "",
    # how these begin; an administrator may change them in the browser
    "ENABLE_COMMUNITY_SHARING": "false",
    "RAG_EMBEDDING_ENGINE": "openai",
}


def make(said: t.Mapping[str, t.Any], hosts: Hosts, here: str, gateway: t.Mapping[str, t.Any]) -> Data:
    """Return {problem, settings}: what launch.py reads, or why it cannot be.

    ``said``: the role's variables without their prefix. ``gateway``: {port, keys, services} of the one on the host
    ``here``, as its own variables have them, {} for none.
    """
    try:
        return {"problem": "", "settings": _make(said, hosts, here, gateway)}
    except LlmfleetError as problem:
        return {"problem": str(problem), "settings": {}}


def _make(said: t.Mapping[str, t.Any], hosts: Hosts, here: str, gateway: t.Mapping[str, t.Any]) -> Data:
    _check(said)
    if said["api_url"]:
        connections, embedding = [_connection(_url(said["api_url"]), said["api_key"])], {}
    elif gateway:
        connections, embedding = _through(gateway, said["api_key"], _reached(hosts))
    else:
        connections, embedding = _directly(hosts, here)
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
            raise BadInput(f"open_webui_env: {name!r} is no name of a variable of Open WebUI, such as ENABLE_WEB_SEARCH")
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


def _connection(url: str, key: str, models: t.Sequence[str] = ()) -> Data:
    """Return one connection. ``models``: those to offer, named where the address has others too; else it is asked."""
    if ";" in key:
        raise BadInput(f"the API key for {url} holds `;`, which separates keys in Open WebUI; choose another key")
    # models that are named stay in the list while their service is restarted
    return {"url": url, "key": key, "config": {"model_ids": list(models)} if models else {}}


def _through(gateway: t.Mapping[str, t.Any], api_key: str, found: t.Sequence[Service]) -> tuple[list[Data], Data]:
    """Return the one connection to the gateway on this host, and what reads files there."""
    keys = {row.get("name"): row for row in gateway["keys"]}
    if keys and not api_key and GATEWAY_KEY not in keys:
        raise BadInput(
            f"the web UI has no key for the gateway: add one named {GATEWAY_KEY} to llm_gateway_keys, or give it in "
            "open_webui_api_key"
        )
    row = next((one for one in keys.values() if api_key and one.get("key") == api_key), keys.get(GATEWAY_KEY, {}))
    allowed = [names for names in (gateway["services"], row.get("services")) if names]
    usable = [one for one in found if all(one.name in names for names in allowed)]
    url, key = f"http://127.0.0.1:{gateway['port']}/v1", api_key or row.get("key", "")
    models = dict.fromkeys(one.served_name for one in usable if one.task == "generate")
    if not models:
        raise BadInput("the web UI has no model to talk to: no service that its key allows has `task: generate`")
    embedding = next((_embedding(url, key, one.served_name) for one in usable if one.task == "embed"), {})
    return [_connection(url, key, list(models))], embedding


def _directly(hosts: Hosts, here: str) -> tuple[list[Data], Data]:
    """Return a connection to each service, and what reads files."""
    for host in hosts:
        for one in _reached([host]):
            if host["host"] != here and not one.public:
                raise BadInput(
                    f"the web UI on {here} cannot reach service {one.name} on {host['host']}, whose `bind` is "
                    f"{one.bind}: put a gateway on {here} (group llm_gateway), or bind the service to an address of its "
                    "network (with an `api_key`)"
                )
    found = fleet.backends(hosts, here, [])
    chats = {one.address: one for one in found if one.service.task == "generate"}
    if not chats:
        raise BadInput(
            "the web UI has nothing to talk to: no host of llm_hosts has a started service with `task: generate`; set "
            "open_webui_api_url, or take the host out of the group open_webui"
        )
    rows = [_connection(f"http://{one.address}/v1", one.api_key) for one in chats.values()]
    vectors = (one for one in found if one.service.task == "embed")
    embedding = next((_embedding(f"http://{one.address}/v1", one.api_key, one.service.served_name) for one in vectors), {})
    return rows, embedding


def _embedding(url: str, key: str, model: str) -> dict[str, str]:
    """Return the variables that let files be searched with the vectors of a service."""
    return {
        "RAG_EMBEDDING_ENGINE": "openai",
        "RAG_EMBEDDING_MODEL": model,
        "RAG_OPENAI_API_BASE_URL": url,
        "RAG_OPENAI_API_KEY": key,
        "BYPASS_EMBEDDING_AND_RETRIEVAL": "false",
    }


def _reached(hosts: Hosts) -> list[Service]:
    """Return the services of ``hosts`` that run."""
    found: list[Service] = []
    for host in hosts:
        try:
            found += [one for one in services.parse_all(host["services"]) if one.state == "started"]
        except LlmfleetError as error:
            raise BadInput(f"{host['host']}: {error}") from None
    return found
