"""The llama.cpp images that a host has, with what their labels say. Edge code; the reading of answers is pure."""

from __future__ import annotations

import json
import typing as t

from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run

Data = dict[str, t.Any]

LAST_PART = "llama.cpp"
"""Of the repositories that are looked at: those of this project, the published ones, whatever registry they are from.

Labels do not choose: an image that somebody builds on top of one of ours inherits them.
"""

LISTED = "{{.ID}} {{.Repository}}"
LABELS = ("io.llmfleet.", "org.opencontainers.image.")
"""How the labels begin that are kept."""


def candidates(listed: str) -> list[str]:
    """Return the ids of the images to look at, each once, from lines of `docker images` in the format LISTED."""
    rows = [line.split(" ", 1) for line in listed.splitlines() if " " in line]
    return list(dict.fromkeys(identity for identity, name in rows if name.rpartition("/")[2] == LAST_PART))


def read(inspected: str) -> list[Data]:
    """Return `images` of host_info from the words of `docker image inspect`, newest first; [] when they are none."""
    try:
        rows = json.loads(inspected or "[]")
    except ValueError:
        return []
    found = [_image(row) for row in rows if isinstance(row, dict) and row.get("Id")]
    return sorted(found, key=lambda image: (str(image["created"]), str(image["id"])), reverse=True)


def _image(row: Data) -> Data:
    labels = (row.get("Config") or {}).get("Labels") or {}
    return {
        "references": [*(row.get("RepoTags") or ()), *(row.get("RepoDigests") or ())],
        "id": row["Id"],
        "size_bytes": int(row.get("Size") or 0),
        "created": str(row.get("Created") or ""),
        "labels": {name: str(value) for name, value in sorted(labels.items()) if name.startswith(LABELS)},
        "layers": list((row.get("RootFS") or {}).get("Layers") or ()),
    }


def look(docker: Data, seconds: float = 20.0, run: TimedRunner = timed_run) -> list[Data]:
    """Return `images` of host_info; ``docker`` is what engine_look says. [] without an engine that answers."""
    if not docker["reachable"]:
        return []
    found = candidates(run([docker["cli"], "images", "--no-trunc", "--format", LISTED], seconds).out)
    # an image that is removed meanwhile is an error beside the others' descriptions
    return read(run([docker["cli"], "image", "inspect", *found], seconds).out) if found else []
