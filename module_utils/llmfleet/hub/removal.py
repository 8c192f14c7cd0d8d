"""What may go from a store: one model, or all that nobody names. Only what this project brought is ever removed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import typing as t
from contextlib import suppress
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import model_chunks
from ansible.module_utils.llmfleet.hub.manifest import Manifest
from ansible.module_utils.llmfleet.hub.part import JOURNALS
from ansible.module_utils.llmfleet.hub.place import Asked, Place, commits, models, noted_model, read_note, write_text
from ansible.module_utils.llmfleet.hub.repository_lock import locked

_FOLDER = re.compile(r"models--(.+?)--(.+)")
_INCOMING = re.compile(r"incoming-([0-9a-f]{16})")

PATIENCE = 60.0
"""Seconds that removal waits for a process that is bringing files of the same repository."""


@dataclass(frozen=True)
class Unused:
    """Something of ours that nobody needs."""

    path: str
    """What engines were given, or the folder of a model that never arrived whole."""
    size: int
    """Bytes that its removal makes free."""
    files: tuple[str, ...]
    key: str = ""
    """Of a hub's model."""


def knows(place: Place, manifest: Manifest, asked: Asked) -> bool:
    """Whether the model was published for these words."""
    row = read_note(place, manifest.commit)["models"].get(manifest.key)
    return row is not None and asked.words in row["asked"]


def other_words(place: Place, manifest: Manifest, asked: Asked) -> list[str]:
    """Return the other words that the model was asked for with."""
    row = read_note(place, manifest.commit)["models"].get(manifest.key, {"asked": {}})
    return sorted(words for words in row["asked"] if words != asked.words)


def files_of(place: Place, manifest: Manifest) -> list[str]:
    """Return the paths of the model's files that no other model of the commit has."""
    note = read_note(place, manifest.commit)
    others = {
        file.path
        for key in note["models"]
        if key != manifest.key and (other := noted_model(place, manifest.commit, note, key)) is not None
        for file in other.files
    }
    folder = place.snapshot(manifest.commit)
    paths = [os.path.join(folder, file.path) for file in manifest.files if file.path not in others]
    return [path for path in paths if os.path.lexists(path)]


def forget(place: Place, manifest: Manifest, asked: Asked | None = None) -> None:
    """Remove a model; with ``asked`` only that it was asked for in these words. The caller holds the lock."""
    note = read_note(place, manifest.commit)
    if asked is not None:
        note["models"].get(manifest.key, {"asked": {}})["asked"].pop(asked.words, None)
        write_text(place.note(manifest.commit), _text(note))
        return
    gone = files_of(place, manifest)
    note["models"].pop(manifest.key, None)
    folder = place.snapshot(manifest.commit)
    # what engines open first goes first, so that no half model is ever there to be opened
    first = os.path.join(folder, manifest.entry or "config.json")
    for path in sorted(gone, key=lambda path: path != first):
        with suppress(FileNotFoundError):
            os.unlink(path)
        note["files"].pop(os.path.relpath(path, folder), None)
    if note["models"]:
        write_text(place.note(manifest.commit), _text(note))
    else:
        with suppress(FileNotFoundError):
            os.unlink(place.note(manifest.commit))
        _drop_refs(place, manifest.commit)
    shutil.rmtree(place.incoming(manifest.key), ignore_errors=True)
    model_chunks.forget(place, manifest.key)
    _drop_empty(place)


def _text(note: t.Mapping[str, t.Any]) -> str:
    return json.dumps(note, indent=1, sort_keys=True) + "\n"


def _drop_refs(place: Place, commit: str) -> None:
    for folder, _, names in os.walk(os.path.join(place.root, "refs")):
        for name in names:
            path = os.path.join(folder, name)
            with suppress(OSError, ValueError), open(path, encoding="ascii") as stream:
                if stream.read(100).strip() == commit:
                    os.unlink(path)


def _drop_empty(place: Place) -> None:
    """Remove the folders that nothing is in any more, up to the store itself."""
    for name in ("snapshots", "refs"):
        for folder, _, _ in os.walk(os.path.join(place.root, name), topdown=False):
            with suppress(OSError):
                os.rmdir(folder)
    if not commits(place) and not os.path.isdir(os.path.join(place.root, "snapshots")):
        with suppress(OSError):
            rest = [name for name in os.listdir(place.own) if _INCOMING.fullmatch(name)]
            if not rest and set(os.listdir(place.root)) <= {".llmfleet", "refs"}:
                shutil.rmtree(place.root)
        for folder in (os.path.dirname(place.root), place.dest):
            with suppress(OSError):
                os.rmdir(folder)


# --- all that nobody names --------------------------------------------------------------------------------------------


def unused(dest: str, keep: t.Collection[str]) -> list[Unused]:
    """Return what of the store ``dest`` nobody needs; ``keep`` holds paths that engines are given, and keys of models.

    These are models of hubs, partial ones that nobody is bringing now, and single files that model_fetch downloaded or
    made. What it did not bring is not in the answer.
    """
    kept = {name for path in keep if path.startswith("/") for name in _names(path)}
    rows = _unused_files(dest, kept)
    for place in places(dest):
        for manifest in models(place):
            if manifest.key not in keep and not _is_kept(place, manifest, kept):
                files = files_of(place, manifest)
                rows.append(Unused(place.location(manifest), _freed(files), tuple(files), manifest.key))
        # of a model that never came whole, engines are to be given something in the folder of its repository
        if not _is_within(place.root, kept):
            rows += [row for row in partial(place) if row.key not in keep]
    return rows


def _names(path: str) -> set[str]:
    """Return how a path is called without links, but for one that it is itself, and quite without them."""
    folder, name = os.path.split(os.path.normpath(path))
    return {os.path.join(os.path.realpath(folder), name), os.path.realpath(path)}


def _is_within(folder: str, kept: t.Collection[str]) -> bool:
    return any(f"{os.path.realpath(folder)}/".startswith(one.rstrip("/") + "/") for one in kept)


def _is_kept(place: Place, manifest: Manifest, kept: t.Collection[str]) -> bool:
    """Whether an engine is given the model, one of its files or a folder that it is in."""
    folder = place.snapshot(manifest.commit)
    real = os.path.realpath(folder)
    return _is_within(folder, kept) or any(os.path.join(real, file.path) in kept for file in manifest.files)


def remove(dest: str, rows: t.Iterable[Unused]) -> None:
    """Remove what ``unused`` returned; raises LlmfleetError while another process brings files of a repository."""
    rows = list(rows)
    for place in places(dest):
        there = [row for row in rows if row.path.startswith(place.root + "/")]
        if there:
            with locked(place, PATIENCE):
                _remove_from(place, there)
    for row in rows:
        if row.path == os.path.join(dest, os.path.basename(row.path)):
            _remove_file(row)


def _remove_from(place: Place, rows: t.Sequence[Unused]) -> None:
    gone = {(row.path, row.key) for row in rows}
    for manifest in models(place):
        if (place.location(manifest), manifest.key) in gone:
            forget(place, manifest)
    for row in rows:
        if row.path == place.incoming(row.key):
            shutil.rmtree(row.path, ignore_errors=True)
    _drop_empty(place)


def _remove_file(row: Unused) -> None:
    """Remove a single file with its note, or the folder in which it was to arrive."""
    if os.path.isdir(row.path):
        shutil.rmtree(row.path, ignore_errors=True)
        return
    for file in row.files:
        with suppress(FileNotFoundError):
            os.unlink(file)


def places(dest: str) -> list[Place]:
    """Return the places of all repositories that a store has something of."""
    found = []
    hub = os.path.join(dest, "hub")
    for name in sorted(os.listdir(hub)) if os.path.isdir(hub) else []:
        match = _FOLDER.fullmatch(name)
        if match and os.path.isdir(os.path.join(hub, name, ".llmfleet")):
            with suppress(BadInput):
                found.append(Place(dest, "/".join(match.groups())))
    return found


def _unused_files(dest: str, kept: t.Collection[str]) -> list[Unused]:
    """Return single files of ours: those with a note beside them that they were verified, and partial ones."""
    rows = []
    real = os.path.realpath(dest)
    for name in sorted(os.listdir(dest)) if os.path.isdir(dest) else []:
        path = os.path.join(dest, name)
        whole, files = name, [path, path + ".verified"]
        if name.startswith(".") and name.endswith(".partial"):
            whole, files = name[1 : -len(".partial")], _files_below(path)
            ours = _is_partial(path) and not _is_locked(path)
        else:
            ours = all(os.path.isfile(file) for file in files)
        if ours and os.path.join(real, whole) not in kept:
            rows.append(Unused(path, _freed(files), tuple(files)))
    return rows


def _is_partial(path: str) -> bool:
    """Whether a file or folder called like the partial ones of model_store is one: others may call theirs so too."""
    if os.path.isdir(path):
        return os.path.isdir(os.path.join(path, JOURNALS))
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as stream:
        return stream.read(4) in (b"", b"GGUF")


def partial(place: Place) -> list[Unused]:
    """Return the models that nobody goes on bringing."""
    if not os.path.isdir(place.own) or _is_locked(place.lock):
        return []
    rows = []
    for name in sorted(os.listdir(place.own)):
        match = _INCOMING.fullmatch(name)
        if match:
            path = os.path.join(place.own, name)
            files = _files_below(path)
            rows.append(Unused(path, _freed(files), tuple(files), match.group(1)))
    return rows


def _files_below(path: str) -> list[str]:
    """Return the files in a folder, or the file that ``path`` is."""
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(folder, file) for folder, _, inside in os.walk(path) for file in inside]


def _is_locked(path: str) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # shared, so that others who look do not take this for a lock
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _freed(files: t.Sequence[str]) -> int:
    """Return the bytes that the disk has more without ``files``: content that has other names too stays."""
    seen: dict[tuple[int, int], list[int]] = {}
    for file in files:
        with suppress(OSError):
            status = os.lstat(file)
            row = seen.setdefault((status.st_dev, status.st_ino), [0, status.st_nlink, status.st_blocks * 512])
            row[0] += 1
    return sum(size for count, links, size in seen.values() if count >= links)
