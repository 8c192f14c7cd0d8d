"""Image references, and whether the registry behind one answers."""

from __future__ import annotations

import ipaddress
import re
import socket
import typing as t
import urllib.error
import urllib.request

Opener = t.Callable[..., t.Any]

HUB = "docker.io"
HUB_API = "registry-1.docker.io"


def split_reference(reference: str) -> tuple[str, str]:
    """Return (registry, the rest) of an image reference, as docker reads it."""
    first, slash, rest = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return HUB, reference


def join_reference(registry: str, repository: str, tag: str, digest: str = "") -> str:
    """Return the reference to pull: by digest where one is pinned, else by tag."""
    return f"{registry}/{repository}@{digest}" if digest else f"{registry}/{repository}:{tag}"


def is_loopback(registry: str) -> bool:
    """Whether the registry is on this host; docker speaks plain HTTP to those."""
    host = re.sub(r":\d+$", "", registry).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def insecure_registries(info: t.Mapping[str, t.Any]) -> set[str]:
    """Return the registries that the engine (``docker info``) may reach over plain HTTP, by name."""
    configs = (info.get("RegistryConfig") or {}).get("IndexConfigs") or {}
    return {name for name, config in configs.items() if not config.get("Secure", True)}


def hub_mirrors(info: t.Mapping[str, t.Any]) -> list[str]:
    """Return the mirrors of Docker Hub that the engine is set up with."""
    return [str(url).rstrip("/") for url in (info.get("RegistryConfig") or {}).get("Mirrors") or []]


def api_urls(registry: str, insecure: t.Collection[str] = (), mirrors: t.Sequence[str] = ()) -> list[str]:
    """Return the addresses of which one must answer for a pull from ``registry`` to be worth trying."""
    if registry == HUB:
        return [f"{url}/v2/" for url in (*mirrors, f"https://{HUB_API}")]
    plain = is_loopback(registry) or registry in insecure
    return [f"{'http' if plain else 'https'}://{registry}/v2/"]


def probe(urls: t.Sequence[str], opener: Opener, timeout: float = 5) -> str:
    """Return "" when a registry answers at one of ``urls`` (401 is an answer), else the reason why none does."""
    said = ""
    for url in urls:
        try:
            with opener(urllib.request.Request(url), timeout=timeout) as answer:  # noqa: S310 - http(s) by api_urls
                status = answer.status
        except urllib.error.HTTPError as exc:
            status = exc.code
            exc.close()
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "reason", exc)
            timed_out = isinstance(reason, (socket.timeout, TimeoutError))
            said = said or (f"no answer within {timeout:g} s" if timed_out else _words(reason))
            continue
        if status in (200, 401):
            return ""
        said = said or f"answered {status} instead of a registry's 200 or 401"
    return said


def _words(reason: t.Any) -> str:
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)
