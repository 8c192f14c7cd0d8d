"""The services that Open WebUI talks to: through the gateway of its host, or each by itself. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import services
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gateway import access, fleet
from ansible.module_utils.llmfleet.services import Service

Data = dict[str, t.Any]
Hosts = t.Sequence[t.Mapping[str, t.Any]]
"""{host, address, services} of hosts with services."""

Wiring = tuple[list[Data], dict[str, str]]
"""Connections, and the variables with which files are read."""

GATEWAY_KEY = "open-webui"
"""Name of its key among llm_gateway_keys."""


def connection(url: str, key: str, models: t.Sequence[str] = ()) -> Data:
    """Return one connection. ``models``: those to offer, named where the address has others too; else it is asked."""
    if ";" in key:
        raise BadInput(f"the API key for {url} holds `;`, which separates keys in Open WebUI; choose another key")
    # models that are named stay in the list while their service is restarted
    return {"url": url, "key": key, "config": {"model_ids": list(models)} if models else {}}


def through(gateway: t.Mapping[str, t.Any], api_key: str, found: t.Sequence[Service]) -> Wiring:
    """Return the one connection to the gateway on this host, and what reads files there."""
    access.parse(gateway["keys"])
    keys = {row["name"]: row for row in gateway["keys"]}
    if keys and not api_key and GATEWAY_KEY not in keys:
        raise BadInput(
            f'the web UI has no key for the gateway: add {{name: {GATEWAY_KEY}, key: "..."}} to llm_gateway_keys (a '
            "key of its own: openssl rand -hex 24), or set open_webui_api_key to a key that is there"
        )
    row = next((one for one in keys.values() if one["key"] == api_key), {}) if api_key else keys.get(GATEWAY_KEY, {})
    if keys and not row:
        raise BadInput("open_webui_api_key is none of llm_gateway_keys, so the gateway would refuse the web UI; add it")
    allowed = [names for names in (gateway["services"], row.get("services")) if names]
    usable = [one for one in found if all(one.name in names for names in allowed)]
    url, key = f"http://127.0.0.1:{gateway['port']}/v1", api_key or row.get("key", "")
    models = dict.fromkeys(name for one in usable if one.task == "generate" for name in one.served_names)
    if not models:
        raise BadInput("the web UI has no model to talk to: no service that its key allows has `task: generate`")
    embedding = next((_embedding(url, key, one.served_name) for one in usable if one.task == "embed"), {})
    return [connection(url, key, list(models))], embedding


def directly(hosts: Hosts, here: str) -> Wiring:
    """Return a connection to each service, and what reads files."""
    for host in hosts:
        for one in reached([host], here):
            if host["host"] != here and not one.public:
                raise BadInput(
                    f"the web UI on {here} cannot reach service {one.name} on {host['host']}, whose `bind` is "
                    f"{one.bind}: put a gateway on {here} (group llm_gateway), or bind the service to an address of "
                    "its network (with an `api_key`)"
                )
    found = fleet.backends(hosts, here, [])
    chats = {one.address: one for one in found if one.service.task == "generate"}
    if not chats:
        raise BadInput(
            "the web UI has nothing to talk to: no host of llm_hosts has a started service with `task: generate`; set "
            "open_webui_api_url, or take the host out of the group open_webui"
        )
    rows = [connection(f"http://{one.address}/v1", one.api_key) for one in chats.values()]
    vectors = (one for one in found if one.service.task == "embed")
    embedding = next(
        (_embedding(f"http://{one.address}/v1", one.api_key, one.service.served_name) for one in vectors), {}
    )
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


def reached(hosts: Hosts, here: str) -> list[Service]:
    """Return the services of ``hosts`` that run; ``here`` needs no naming in errors."""
    found: list[Service] = []
    for host in hosts:
        try:
            found += [one for one in services.parse_all(host["services"]) if one.state == "started"]
        except LlmfleetError as error:
            where = "" if host["host"] == here else f"{host['host']}: "
            raise BadInput(f"{where}{error}") from None
    return found
