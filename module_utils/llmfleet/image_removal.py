"""Taking away what the llama_cpp_image module has made and kept on a host."""

from __future__ import annotations

import shutil
import typing as t
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.llmfleet import pulled_images
from ansible.module_utils.llmfleet.base_image import BASE_REPOSITORY, LABEL_BASE
from ansible.module_utils.llmfleet.build_host import CONTEXT
from ansible.module_utils.llmfleet.constants import LABEL_BUILD_KEY
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.host_edge import LOCK, images_present
from ansible.module_utils.llmfleet.image_builder import TOOLCHAIN_REPOSITORY
from ansible.module_utils.llmfleet.image_prune import SOURCES_FOLDER, take_all_away
from ansible.module_utils.llmfleet.image_request import LABEL_STAGE, REPOSITORY

OURS = tuple(f"{repository}:" for repository in (REPOSITORY, BASE_REPOSITORY, TOOLCHAIN_REPOSITORY))
"""How names of images begin that are taken away here; those of other modules stand on the same base image and have its
label."""
LABELS = (LABEL_BUILD_KEY, LABEL_BASE, LABEL_STAGE)


def remove(docker: Docker, work: Path, check_mode: bool) -> dict[str, t.Any]:
    """Remove our images, sources and logs; an image that a container uses is left and named."""
    images = _our_images(docker, work) if docker.executable else {}
    removed, in_use = take_all_away(docker, images, check_mode)
    files = [path for path in _our_files(work) if path.exists()]
    for path in files:
        if not check_mode:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        removed.append(str(path))
    if not check_mode:
        for folder in (work / "sources", work / "logs", work):
            with suppress(OSError):  # not empty: others keep their files there
                folder.rmdir()
    return {"changed": bool(removed), "action": "remove", "removed": removed, "in_use": in_use}


def _our_images(docker: Docker, work: Path) -> dict[str, list[str]]:
    """Return image id -> names (the id itself for an image without a name)."""
    found: dict[str, list[str]] = {}
    line = "{{.ID}} {{.Repository}}:{{.Tag}}"
    for label in LABELS:
        listed = docker.text("images", "--no-trunc", "--filter", f"label={label}", "--format", line)
        for row in listed.splitlines():
            identity, name = row.split(" ", 1)
            names = found.setdefault(identity, [])
            name = identity if "<none>" in name else name
            # an image someone builds on top of ours inherits its labels, and is not ours
            mine = name.startswith(OURS) or (name == identity and label == LABEL_STAGE)
            if mine and name not in names:
                names.append(name)
    for name, image in images_present(docker, sorted(pulled_images.read(work))).items():
        found.setdefault(image["Id"], []).append(name)
    return {identity: names for identity, names in found.items() if names}


def _our_files(work: Path) -> list[Path]:
    logs = sorted(path for name in ("llama_cpp", "model") for path in (work / "logs").glob(f"{name}-*.log"))
    return [work / SOURCES_FOLDER, work / pulled_images.PULLED_RECORD, work / LOCK, work / CONTEXT, *logs]
