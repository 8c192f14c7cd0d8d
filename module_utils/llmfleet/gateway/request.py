"""What is asked of a gateway, checked."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import dataclass
from urllib.parse import urlsplit

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gateway import access, fleet

UI_NAMES = ("api", "openai", "ollama", "static", "ws")
"""Beginnings of paths that Open WebUI has for itself."""


@dataclass(frozen=True)
class Request:
    """A gateway: where it listens, who may use it, what it passes on to."""

    bind: str
    port: int
    local_port: int
    keys: tuple[access.Access, ...]
    groups: tuple[fleet.Group, ...]
    max_body_mib: int = 32
    access_log: bool = True
    web_ui: str = ""

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return not self.keys

    def allowed(self, one: access.Access) -> list[int]:
        """Return the positions of the groups that the holder of a key may use."""
        wanted = set(one.services)
        return [at for at, group in enumerate(self.groups) if not wanted or wanted & set(group.owners)]


def make(said: t.Mapping[str, t.Any], hosts: t.Sequence[fleet.Data], gateway_host: str) -> Request:
    """Return the gateway that the role's variables ``said`` describe; raises BadInput.

    ``hosts``: {host, address, services} of all hosts with services.
    """
    bind = _bind(said["bind"])
    web_ui = _web_ui(said["web_ui"])
    for field in ("services", "names"):
        if not isinstance(said.get(field, []), list):
            raise BadInput(f"llm_gateway_{field} must be a list")
    found = fleet.backends(hosts, gateway_host, said["services"])
    ports = (_port("llm_gateway_port", said["port"]), _port("llm_gateway_local_port", said["local_port"]))
    _free(ports, [one for one in found if one.host == gateway_host], hosts, gateway_host)
    keys = access.parse(said["keys"])
    if not keys and not ipaddress.ip_address(bind).is_loopback:
        raise BadInput(
            f"llm_gateway_bind: {bind} lets other machines use the services: set llm_gateway_keys too, or bind to "
            "127.0.0.1"
        )
    max_body = said["max_body_mib"]
    if not isinstance(max_body, int) or isinstance(max_body, bool) or not 1 <= max_body <= 1024:
        raise BadInput("llm_gateway_max_body_mib must be a number from 1 to 1024 (MiB)")
    groups = fleet.groups(found)
    if not groups:
        those = " that llm_gateway_services names" if said["services"] else ""
        raise BadInput(f"the gateway has nothing to publish: no host of llm_hosts has a started service{those}")
    names = {name for group in groups for name in group.names}
    # a service that is stopped for an hour makes no key wrong
    published = fleet.published(hosts, said["services"])
    for one in keys:
        for name in one.services:
            if name not in published:
                known = ", ".join(sorted(published))
                raise BadInput(f"key {one.name} of the gateway: there is no service {name} (there are {known})")
    for name in UI_NAMES if web_ui else ():
        if name in names:
            raise BadInput(f"service {name}: Open WebUI has paths of this name behind the gateway; rename the service")
    return Request(bind, *ports, keys, groups, max_body, bool(said["access_log"]), web_ui)


def _bind(said: str) -> str:
    try:
        return str(ipaddress.ip_address(said))
    except ValueError:
        raise BadInput(f"llm_gateway_bind must be an IP address such as 0.0.0.0 or 127.0.0.1, not {said!r}") from None


def _port(name: str, said: t.Any) -> int:
    if not isinstance(said, int) or isinstance(said, bool) or not 1 <= said <= 65535:
        raise BadInput(f"{name} must be a port from 1 to 65535, not {said!r}")
    return said


def _free(
    ports: tuple[int, int], own: t.Sequence[fleet.Backend], hosts: t.Sequence[fleet.Data], gateway_host: str
) -> None:
    """Raise BadInput when the gateway wants a port that a service of its host has."""
    if ports[0] == ports[1]:
        raise BadInput(f"llm_gateway_port and llm_gateway_local_port are both {ports[0]}; they need a port each")
    taken = {one.service.port: one.service.name for one in own}
    rows = [row for host in hosts if host["host"] == gateway_host for row in host["services"]]
    taken.update({row["port"]: row["name"] for row in rows if row.get("port") and row.get("state") != "absent"})
    for name, port in zip(("llm_gateway_port", "llm_gateway_local_port"), ports):
        if port in taken:
            raise BadInput(f"{name}: {port} is the port of service {taken[port]} on this host; choose another")


def _web_ui(said: str) -> str:
    """Return the address of the web UI without a slash at its end."""
    if not said:
        return ""
    parts = urlsplit(said)
    fit = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/") and not parts.query
    if not fit or not re.fullmatch(r"[\w.:/\[\]-]+", said, re.ASCII):
        raise BadInput(f"llm_gateway_web_ui must be an address such as http://127.0.0.1:3000, not {said!r}")
    return said.rstrip("/")
