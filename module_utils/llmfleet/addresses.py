"""Addresses: which URLs reach a service, and who holds a port."""

from __future__ import annotations

import errno
import ipaddress
import socket

from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.services import Service


def lan_address(version: int = 4) -> str | None:
    """Return this host's address towards other machines, None when it has no route.

    Connecting a UDP socket sends nothing; the kernel only chooses the source address (192.0.2.1 and 2001:db8::1
    are documentation addresses, RFC 5737 and 3849).
    """
    family, target = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def service_urls(service: Service) -> dict[str, str | None]:
    """Return {host, lan}: the OpenAI base URLs that work on the host itself and from other machines."""
    return urls_of(service.bind, service.port)


def urls_of(bind: str, port: int) -> dict[str, str | None]:
    """Return {host, lan} of a service that listens on ``bind``."""
    address = ipaddress.ip_address(bind)
    local: str = bind
    if address.is_unspecified:
        local = "127.0.0.1" if address.version == 4 else "::1"
    lan = None
    if not address.is_loopback:
        lan = lan_address(address.version) if address.is_unspecified else bind
    return {"host": _url(local, port), "lan": lan and _url(lan, port)}


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def who_listens(docker: Docker, bind: str, port: int) -> str | None:
    """Return who holds ``port`` on ``bind`` (a container's name where docker publishes it), None when it is free."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                _, out, _ = docker.attempt("ps", "--filter", f"publish={port}", "--format", "{{.Names}}")
                return f"container {out.split()[0]}" if out.split() else "another program (see ss -ltnp)"
            if error.errno == errno.EADDRNOTAVAIL:
                return f"nobody, but {bind} is not an address of this host"
            raise
    return None
