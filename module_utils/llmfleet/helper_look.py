"""Which helpers (gateway, web UI) run on a host, and on which addresses they answer. Edge code; changes nothing."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet.addresses import lan_address
from ansible.module_utils.llmfleet.constants import LABEL_SIDE
from ansible.module_utils.llmfleet.container_look import ENDED, containers_by, life, stopped, with_usage
from ansible.module_utils.llmfleet.docker_cli import Docker

Data = dict[str, t.Any]

KNOCK_SECONDS = 3


def helpers(docker: Docker) -> list[Data]:
    """Return one row for each helper (gateway, web UI) that has a container on this host."""
    found = []
    for name, boxes in sorted(containers_by(docker, LABEL_SIDE).items()):
        # beside it there may be what an interrupted roll-out left
        box = next((box for box in boxes if box["State"]["Status"] == "running"), boxes[0])
        row: Data = {"name": name, "image": box["Config"]["Image"], **life(box), "addresses": [], "problem": ""}
        if row["state"] == "running":
            _knock(box, row)
        elif not (row["state"] in ENDED and stopped(box)):
            row["problem"] = f"it is {row['state']}; docker logs {row['container']} says why"
        found.append((box, row))
    return with_usage(docker, found)


def _knock(container: Data, row: Data) -> None:
    """Write into the row of a helper on which addresses it answers, of those that it was accepted with."""
    for bind, port in _listens(container):
        address = ipaddress.ip_address(bind)
        near, far = bind, bind
        if address.is_unspecified:
            near = "127.0.0.1" if address.version == 4 else "::1"
            far = lan_address(address.version) or near
        shown = f"[{far}]:{port}" if ":" in far else f"{far}:{port}"
        try:
            with socket.create_connection((near, port), timeout=KNOCK_SECONDS):
                row["addresses"].append(shown)
        except OSError as error:
            row["problem"] = f"nothing answers at {shown}: {error}; docker logs {row['container']} may say why"


def _listens(container: Data) -> list[tuple[str, int]]:
    """Return the addresses of a helper, from the record beside its files on the host."""
    for mount in container.get("Mounts") or ():
        record = os.path.join(os.path.dirname(mount.get("Source") or ""), "record.json")
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError), open(record, encoding="utf-8") as file:
            rows = [row.partition(" ") for row in json.load(file)["listens"]]
            return [(host, int(port)) for host, _, port in rows]
    return []
