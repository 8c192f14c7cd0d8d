"""What the gateway passes on to: the services of all hosts, replicas of one model together."""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet import services
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError

Data = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Backend:
    """One service on one host, as the gateway reaches it."""

    service: services.Service
    host: str
    address: str
    """``address:port``."""
    api_key: str
    paths: tuple[str, ...]

    @property
    def where(self) -> str:
        """Return what messages call it."""
        return f"service {self.service.name} on {self.host}"


@dataclass(frozen=True)
class Group:
    """All that serve one model under one name: callers see one service."""

    model: str
    names: tuple[str, ...]
    """Names of its services; each is the beginning of a path."""
    paths: tuple[str, ...]
    backends: tuple[str, ...]
    api_key: str
    services: tuple[str, ...] = ()
    """Names of its services as keys allow them, where they are not ``names``."""

    @property
    def owners(self) -> tuple[str, ...]:
        """Return the names of its services."""
        return self.services or self.names


def backends(hosts: t.Sequence[Data], gateway_host: str, chosen: t.Sequence[str]) -> list[Backend]:
    """Return the started services among ``hosts`` ({host, address, services}) as ``gateway_host`` reaches them.

    ``chosen``: names of those to publish; none mean all. Raises BadInput.
    """
    found = []
    for host in hosts:
        try:
            parsed = services.parse_all(host["services"])
        except LlmfleetError as error:
            # the host that all this is about is named by who asks
            where = "" if host["host"] == gateway_host else f"{host['host']}: "
            raise BadInput(f"{where}{error}") from None
        for service, raw in zip(parsed, host["services"]):
            if service.state == "started" and (not chosen or service.name in chosen):
                found.append(_backend(service, host, gateway_host, str(raw.get("api_key") or "")))
    there = published(hosts, ())
    for name in chosen:
        if name not in there:
            raise BadInput(f"llm_gateway_services names {name}, and no host of llm_hosts has a service of this name")
    return found


def published(hosts: t.Sequence[Data], chosen: t.Sequence[str]) -> set[str]:
    """Return the names of services that the gateway has, or would have if they were started."""
    rows = (row for host in hosts for row in host["services"])
    names = {str(row["name"]) for row in rows if row.get("state") != "absent"}
    return names & set(chosen) if chosen else names


def _backend(service: services.Service, host: Data, gateway_host: str, api_key: str) -> Backend:
    task = service.task
    paths = tuple(ENGINES[service.engine].PATHS.get(task, ()))
    address = _address(service, str(host["address"]), host["host"] == gateway_host)
    if not address:
        raise BadInput(
            f"service {service.name} on {host['host']}: the gateway on {gateway_host} cannot reach "
            f"`bind: {service.bind}`; bind it to an address of its network (with an `api_key`), "
            "or leave it out of llm_gateway_services"
        )
    written = f"[{address}]" if ":" in address else address
    return Backend(service, str(host["host"]), f"{written}:{service.port}", api_key, paths)


def _address(service: services.Service, host_address: str, same_host: bool) -> str:
    """Return where the gateway finds ``service``, "" when it cannot."""
    bind = ipaddress.ip_address(service.bind)
    if not bind.is_unspecified:
        return service.bind if same_host or not bind.is_loopback else ""
    if same_host:
        return "127.0.0.1" if bind.version == 4 else "::1"
    try:
        return "" if ipaddress.ip_address(host_address).is_loopback else host_address
    except ValueError:
        return "" if host_address == "localhost" else host_address


def groups(found: t.Sequence[Backend]) -> tuple[Group, ...]:
    """Return the services by the model name that callers use; raises BadInput where one name means two things."""
    models: dict[str, list[Backend]] = {}
    owners: dict[str, tuple[str, Backend]] = {}
    for one, model in ((backend, name) for backend in found for name in backend.service.served_names):
        models.setdefault(model, []).append(one)
        served, other = owners.setdefault(_name(one, model), (model, one))
        if served != model:
            raise BadInput(
                f"{one.where} serves {model}, on {other.host} the same name serves {served}; "
                "the gateway needs one name for each, or one `served_name` for both"
            )
    return tuple(_group(model, members) for model, members in models.items())


def _group(model: str, members: t.Sequence[Backend]) -> Group:
    first = members[0]
    keys = {one.api_key for one in members if one.api_key}
    paths = [path for path in first.paths if all(path in one.paths for one in members)]
    for one in members[1:]:
        if one.service.task != first.service.task:
            raise BadInput(f"{one.where} and {first.where} are both called {model}, and have different tasks")
    if len(keys) > 1:
        raise BadInput(
            f"the replicas of {model} have different API keys; give {', '.join(one.where for one in members)} the same "
            "`api_key`"
        )
    names = tuple(dict.fromkeys(_name(one, model) for one in members))
    services_ = tuple(dict.fromkeys(one.service.name for one in members))
    if any(one.service.models for one in members) and len(services_) > 1:
        # who may use the other one could name the further models of the first as well
        raise BadInput(
            f"services {' and '.join(services_)} both serve {model}, one of them among several `models`: name it "
            "otherwise there, or give both services the same name"
        )
    return Group(
        model,
        names,
        tuple(paths),
        tuple(one.address for one in members),
        keys.pop() if keys else "",
        () if services_ == names else services_,
    )


def _name(one: Backend, model: str) -> str:
    """Return the beginning of a path that leads to ``model``; the name of a service with several leads to none."""
    return model if one.service.models else one.service.name
