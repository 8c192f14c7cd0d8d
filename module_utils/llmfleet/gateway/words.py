"""nginx's way to write things down. Pure."""

from __future__ import annotations

TARGET = "/etc/llmfleet/gateway"
"""Folder of the files in the container."""

CERTIFICATE, KEY = "certificate.pem", "private_key.pem"

DOWN_SECONDS = 5
"""For how long a backend that failed is asked no more."""


def block(head: str, *rows: str) -> list[str]:
    """Return the lines of ``head`` with ``rows`` inside."""
    return [f"{head} {{", *(f"    {row}" for row in rows), "}"]


def quoted(text: str) -> str:
    """Return ``text`` as one word, in which nginx still sees variables."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def plain(text: str) -> str:
    """Return ``text`` as one word as it is; nginx has no other way to write a dollar sign."""
    return quoted(text).replace("$", "${llm_dollar}")


def address(host: str) -> str:
    """Return ``host`` as it is written before a port."""
    return f"[{host}]" if ":" in host else host
