"""A model in Hugging Face format in a folder, the user's own or a snapshot of the store: whether engines can load it.

Reads file systems that may be read-only, and of large files their headers only.
"""

from __future__ import annotations

import json
import os
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet import hf_folder
from ansible.module_utils.llmfleet.errors import BadInput

MAX_CONFIG = 1 << 22
"""Bytes; what a larger config.json says is not read."""
_MAX_FILES = 10_000


@dataclass(frozen=True)
class ModelFolder:
    """A folder that an engine can load."""

    path: str
    files: tuple[str, ...]
    """All its files, but hidden ones."""
    size: int
    """Bytes of its weights."""
    total_size: int
    """Bytes of all files."""
    fingerprint: str
    config: dict[str, t.Any]
    """What config.json says."""


def is_folder(path: str) -> bool:
    """Whether ``path`` is a folder with a model in Hugging Face format, or what was to become one."""
    if not os.path.isdir(path):
        return False
    try:
        names = os.listdir(path)
    except OSError:
        return True
    if any(name.endswith(".gguf") for name in names) and "config.json" not in names:
        return False
    return any(name.endswith((".json", ".safetensors", ".bin")) or name == "snapshots" for name in names)


def read(path: str) -> ModelFolder:
    """Return what the model in the folder ``path`` is; raises BadInput with a sentence about "the folder"."""
    try:
        found = hf_folder.read(path, path)
    except BadInput as error:
        # the same look is taken by what converts models
        said = str(error).replace("so it cannot be converted", "so engines cannot load it")
        raise BadInput(said.replace("that converts may not", "that engines run as may not")) from None
    files = _files(path)
    return ModelFolder(
        path=path,
        files=files,
        size=found.size,
        total_size=sum(os.path.getsize(file) for file in files),
        fingerprint=found.fingerprint,
        config=read_config(path),
    )


def read_config(path: str) -> dict[str, t.Any]:
    """Return what config.json of the folder says, {} where it says nothing that can be read."""
    try:
        with open(os.path.join(path, "config.json"), "rb") as stream:
            return parse_config(stream.read(MAX_CONFIG))
    except OSError:
        return {}


def parse_config(text: bytes) -> dict[str, t.Any]:
    """Return what the content of a config.json says, {} where it says nothing that can be read."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _files(path: str) -> tuple[str, ...]:
    found: list[str] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(folder, name) for name in sorted(names) if not name.startswith(".")]
        if len(found) > _MAX_FILES:
            raise BadInput(f"the folder holds more than {_MAX_FILES} files, so it is not that of one model")
    return tuple(file for file in found if os.path.isfile(file))
