"""Whether a file that arrived as a hub has it can be loaded. Edge code."""

from __future__ import annotations

import os

from ansible.module_utils.llmfleet import gguf, safetensors_header
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import own_folder
from ansible.module_utils.llmfleet.hub.manifest import RepoFile


def check_start(file: RepoFile, start: bytes, size: int) -> None:
    """Raise BadInput when a file of `size` bytes that begins with `start` is no model."""
    if file.path.lower().endswith(".gguf"):
        gguf.check_start(start, size)


def check(path: str, name: str) -> None:
    """Raise BadInput when a file of weights is cut off or is none."""
    lower = name.lower()
    if lower.endswith(".gguf"):
        with open(path, "rb") as stream:
            gguf.read_header(stream, os.path.getsize(path))
    elif lower.endswith(".safetensors"):
        with open(path, "rb") as stream:
            try:
                safetensors_header.count_weights(stream, os.path.getsize(path))
            except BadInput as error:
                raise BadInput(f"it {error}") from None
    elif lower == "config.json" and not own_folder.read_config(os.path.dirname(path)):
        raise BadInput("it is no JSON object")
