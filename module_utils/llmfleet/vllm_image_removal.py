"""Taking vLLM images away: older ones after a build, and all that vllm_image has made and kept. Edge code."""

from __future__ import annotations

import json
import os
import shutil
import typing as t
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.host_edge import images_present
from ansible.module_utils.llmfleet.image_prune import Image, take_away
from ansible.module_utils.llmfleet.vllm_recipe import REPOSITORY

RECORD = "pulled_vllm_images.json"
"""In the work folder: the images that this module has pulled."""


def prune(docker: Docker, kept: str) -> list[str]:
    """Take our images but ``kept`` away, unless containers use them; return what went."""
    gone = []
    for identity, all_names in _ours(docker).items():
        names = [name for name in all_names if name != kept]
        if names and not take_away(docker, Image(identity, tuple(names)), check_mode=False):
            gone += names
    return gone


def _ours(docker: Docker) -> dict[str, list[str]]:
    """Return image id -> names that this project gave."""
    line = "{{.ID}} {{.Repository}}:{{.Tag}}"
    found: dict[str, list[str]] = {}
    for row in docker.text("images", "--no-trunc", "--format", line, REPOSITORY).splitlines():
        identity, name = row.split(" ", 1)
        if "<none>" not in name:
            found.setdefault(identity, []).append(name)
    return found


def pulled(work: Path) -> list[str]:
    """Return the names of images that were pulled here."""
    try:
        return [str(name) for name in json.loads((work / RECORD).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def remember(work: Path, reference: str) -> None:
    """Note that ``reference`` was pulled, so that it can be taken away again."""
    new = work / f"{RECORD}.new"
    new.write_text(json.dumps(sorted({*pulled(work), reference})), encoding="utf-8")
    os.replace(new, work / RECORD)


def remove(docker: Docker, work: Path, check_mode: bool) -> dict[str, t.Any]:
    """Remove our images, those that we pulled, the logs and the engine's caches; images in use are left, named."""
    images = _ours(docker) if docker.executable else {}
    for name, image in images_present(docker, pulled(work), lenient=True).items():
        images.setdefault(str(image["Id"]), []).append(name)
    removed: list[str] = []
    in_use: dict[str, list[str]] = {}
    for identity, names in images.items():
        reasons = take_away(docker, Image(identity, tuple(names)), check_mode)
        if reasons:
            in_use[names[0]] = reasons
        else:
            removed += names
    files = [work / RECORD, work / "cache" / "vllm", *sorted((work / "logs").glob("vllm-*.log"))]
    for path in filter(Path.exists, files):
        removed.append(str(path))
        if not check_mode:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for folder in (work / "cache", work / "logs"):
        if not check_mode:
            with suppress(OSError):  # not empty, or never there
                folder.rmdir()
    return {"changed": bool(removed), "action": "remove", "removed": removed, "in_use": in_use}
