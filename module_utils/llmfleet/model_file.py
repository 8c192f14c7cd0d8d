"""A model's file on a host: what it is, whether it is whole, and how its content is told apart cheaply."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import stat
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet import gguf
from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.errors import BadInput

_MIB = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A model that an engine can load."""

    files: tuple[str, ...]
    """All its files; more than one when it is split."""
    size: int
    fingerprint: str
    header: gguf.GgufHeader


def describe(stream: t.BinaryIO, size: int, path: str) -> ModelFile:
    """Return what the one file ``stream`` of ``size`` bytes is; raises BadInput with a sentence about "the file"."""
    return ModelFile((path,), size, _fingerprint(stream, size), gguf.read_header(stream, size))


def read(path: str, *, any_mode: bool = False) -> ModelFile:
    """Return what the model at ``path`` is; raises BadInput with a sentence about "the file".

    With ``any_mode`` it does not matter whether engines may read the file.
    """
    first = _read_one(path, any_mode)
    count = first.header.split_count
    if count == 1:
        return first
    if first.header.split_number:
        raise BadInput(
            f"the file is part {first.header.split_number + 1} of a model in {count} files; "
            f"name the first part (...-00001-of-{count:05d}.gguf)"
        )
    parts = [first, *(_read_one(part, any_mode) for part in _other_parts(path, count))]
    return ModelFile(
        files=tuple(part.files[0] for part in parts),
        size=sum(part.size for part in parts),
        fingerprint=hashlib.sha256("".join(part.fingerprint for part in parts).encode()).hexdigest(),
        header=first.header,
    )


def _read_one(path: str, any_mode: bool) -> ModelFile:
    try:
        _check_place(path)
        with open(path, "rb") as stream:
            status = os.fstat(stream.fileno())
            found = describe(stream, status.st_size, path)
    except PermissionError:
        raise BadInput("the file may not be read; correct its permissions, or run with become") from None
    if not any_mode and not _engine_may_read(status):
        raise BadInput(
            f"the file has mode {stat.S_IMODE(status.st_mode):04o}, so the user {RUN_UID} that engines run as may not "
            "read it; `chmod o+r` it"
        )
    return found


def _engine_may_read(status: os.stat_result) -> bool:
    if status.st_uid == RUN_UID:
        return bool(status.st_mode & stat.S_IRUSR)
    if status.st_gid == RUN_UID:
        return bool(status.st_mode & stat.S_IRGRP)
    return bool(status.st_mode & stat.S_IROTH)


def _check_place(path: str) -> None:
    """Raise BadInput unless there is a regular file at ``path``; say what else was found or nearly was."""
    folder, name = os.path.split(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        close = difflib.get_close_matches(name, _models_in(folder), n=1)
        hint = f"did you mean {os.path.join(folder, close[0])}?" if close else "check the path on that host"
        raise BadInput(f"there is no such file; {hint}") from None
    if stat.S_ISDIR(mode):
        inside = _models_in(path)
        hint = f"such as {os.path.join(path, inside[0])}" if inside else "it holds none"
        raise BadInput(f"it is a directory; name the GGUF file itself ({hint})")
    if not stat.S_ISREG(mode):
        raise BadInput("it is not a regular file; name a GGUF file")


def _models_in(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".gguf"))
    except OSError:
        return []


def _other_parts(path: str, count: int) -> list[str]:
    files = gguf.part_names(path, count)[1:]
    for file in files:
        if not os.path.exists(file):
            raise BadInput(f"the model has {count} files and {os.path.basename(file)} is missing beside the first part")
    return files


def fingerprint_of(path: str) -> str:
    """Return the identity of the content of any file, read from its size, beginning and end."""
    with open(path, "rb") as stream:
        return _fingerprint(stream, os.fstat(stream.fileno()).st_size)


def _fingerprint(stream: t.BinaryIO, size: int) -> str:
    digest = hashlib.sha256(f"{size}\n".encode())
    for start in (0, max(0, size - _MIB)):
        stream.seek(start)
        digest.update(stream.read(_MIB))
    return digest.hexdigest()


def digest_of(path: str) -> str:
    """Return the sha256 of the whole file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while True:
            block = stream.read(_MIB)
            if not block:
                return digest.hexdigest()
            digest.update(block)


def is_noted(path: str, sha256: str, note: str) -> bool:
    """Return whether the file ``note`` says that ``path``, as it stands, was found to have this sha256."""
    try:
        with open(note, encoding="utf-8") as stream:
            return bool(json.load(stream) == _note(path, sha256))
    except (OSError, ValueError):
        return False


def write_note(path: str, sha256: str, note: str) -> None:
    """Remember in the file ``note`` that ``path`` has this sha256, so that the next run need not read it all."""
    partial = note + ".new"
    with open(partial, "w", encoding="utf-8") as stream:
        json.dump(_note(path, sha256), stream)
    os.chmod(partial, 0o644)
    os.replace(partial, note)


def _note(path: str, sha256: str) -> dict[str, t.Any]:
    status = os.stat(path)
    return {"sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
