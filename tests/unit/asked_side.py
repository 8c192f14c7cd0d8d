"""Helper containers as a playbook asks for them, for the tests of what becomes of it."""

from __future__ import annotations

import os
import typing as t

import side_container
from ansible.module_utils.llmfleet.side import parts

HOME = "/srv/side/proxy"
OWN = (os.getuid(), os.getgid())


def given(**fields: t.Any) -> dict[str, t.Any]:
    """What a module's parameters are once Ansible has filled in the defaults."""
    spec = side_container.ARGUMENT_SPEC
    filled = {name: row.get("default") for name, row in spec.items()}
    rows = [{"mode": "0440", **row} for row in fields.pop("files", [])]
    asked = fields.pop("health", {})
    health = {name: row.get("default") for name, row in spec["health"]["options"].items()}
    return {**filled, "name": "proxy", "image": "i:1", "files": rows, "health": {**health, **asked}, **fields}


def side(**fields: t.Any) -> parts.Side:
    return parts.parse(given(**fields), HOME)


def file(content: str = "x", mode: int = 0o440) -> parts.File:
    return parts.File(content.encode(), mode)
