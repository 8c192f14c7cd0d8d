"""Which model a container serves, told by its files and by what the store noted when it verified them. Edge code.

Nothing is read but names and notes: a model of 400 GB is told as fast as a small one.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

from ansible.module_utils.llmfleet import model_file
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub.place import Place, noted_model, read_note
from ansible.module_utils.llmfleet.spec import Spec

_SNAPSHOT = re.compile(r"(?P<dest>.+)/hub/models--(?P<org>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[^/]+)(/.*)?")


def model_path(spec: Spec) -> str:
    """Return the path on the host of the model that what was made from ``spec`` was told to serve, "" for none."""
    mounts = spec.get("mounts", {})
    for word in spec["argv"]:
        for target, source in mounts.items():
            if word == target or word.startswith(f"{target}/"):
                return f"{source}{word[len(target) :]}"
    # without a container there is nothing to mount
    served = [path for word, path in zip(spec["argv"], spec["argv"][1:]) if word == "serve"]
    return next(iter([*mounts.values(), *served]), "")


def record(spec: Spec) -> dict[str, str]:
    """Return {path, source, digest} of the model of ``spec``.

    ``source`` is repository and commit where the store brought it from a hub. ``digest`` is `sha256:…` of a file,
    `files:…` of a model of several, both as verified by the store, else `fingerprint:…`, which covers size and both
    ends of the files as they were when the container was made.
    """
    path = model_path(spec)
    source, digest = _from_hub(path)
    if not digest:
        digest = _from_note(path)
    if not digest and spec.get("model_fingerprint"):
        digest = f"fingerprint:{spec['model_fingerprint']}"
    return {"path": path, "source": source, "digest": digest}


def _from_hub(path: str) -> tuple[str, str]:
    """Return (repository@commit, digest) of a model in the store's layout of hubs, "" where it is none."""
    found = _SNAPSHOT.fullmatch(path)
    if not found:
        return "", ""
    try:
        place = Place(found["dest"], f"{found['org']}/{found['name']}")
        note = read_note(place, found["commit"])
    except BadInput:
        return "", ""
    source = f"{place.repo}@{found['commit']}"
    for key in note["models"]:
        manifest = noted_model(place, found["commit"], note, key)
        if manifest is not None and place.location(manifest) == path:
            files = manifest.files
            return source, files[0].digest if len(files) == 1 else f"files:{manifest.key}"
    return source, ""


def _from_note(path: str) -> str:
    """Return the digest that the store noted beside a file which it downloaded or generated, "" where none holds."""
    note = f"{path}.verified"
    try:
        with open(note, encoding="utf-8") as stream:
            said: t.Any = json.load(stream)
        sha256 = str(said["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f"sha256:{sha256}" if os.path.exists(path) and model_file.is_noted(path, sha256, note) else ""
