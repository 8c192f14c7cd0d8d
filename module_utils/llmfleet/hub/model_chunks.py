"""The chunks of a model's files, as a record that goes to receiving hosts; made once, on a host that has the model."""

from __future__ import annotations

import hashlib
import json
import os
import re
import typing as t
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from ansible.module_utils.llmfleet import chunk_in_place
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub.digest import digest_of, expected, words
from ansible.module_utils.llmfleet.hub.manifest import Manifest, RepoFile, check_path
from ansible.module_utils.llmfleet.hub.place import Place, make_folder

SMALLEST = 16 << 20
"""Bytes of a chunk: what is fetched again when a connection breaks, and passed on only when all of it is here."""

MOST = 8192
"""Chunks of a model, about; those of huge ones are larger, as the record travels with every task."""

READ = 1 << 20
STATE = ".state"
THREADS = 4
_HEX = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[0-9a-f]{16}")


class Piece(t.NamedTuple):
    """A chunk: where it belongs, and its digest."""

    path: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class FileChunks:
    """A file, and the sha256 of each of its chunks; an empty file has none."""

    path: str
    size: int
    chunks: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """The chunks of the model ``key``, each of ``chunk_bytes`` but the last of a file."""

    key: str
    chunk_bytes: int
    files: tuple[FileChunks, ...]

    def as_data(self) -> dict[str, t.Any]:
        """Return it as JSON-able data; ``name`` tells records apart."""
        rows = [{"path": file.path, "size": file.size, "chunks": list(file.chunks)} for file in self.files]
        return {"name": self.name, "key": self.key, "chunk_bytes": self.chunk_bytes, "files": rows}

    @property
    def name(self) -> str:
        """What identifies it: 16 hexadecimal digits."""
        rows = [[file.path, file.size, *file.chunks] for file in self.files]
        return hashlib.sha256(json.dumps([self.key, self.chunk_bytes, rows]).encode()).hexdigest()[:16]

    def pieces(self) -> list[Piece]:
        """Return its chunks; their places in the list are the numbers that hosts ask each other for."""
        digests = (digest for file in self.files for digest in file.chunks)
        places = chunk_in_place.places(self.as_data())
        return [Piece(path, offset, size, next(digests)) for path, offset, size in places]


def record_from(data: t.Mapping[str, t.Any], manifest: Manifest) -> Record:
    """Return the record that ``as_data`` made; raises BadInput unless it is one, and of this model."""
    try:
        files = tuple(FileChunks(str(r["path"]), int(r["size"]), tuple(map(str, r["chunks"]))) for r in data["files"])
        record = Record(str(data["key"]), int(data["chunk_bytes"]), files)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise BadInput("`archive` is not what model_share returned on a host that has the model; give that") from None
    for file in files:
        check_path(file.path)
    step = record.chunk_bytes
    counts = step > 0 and all(file.size >= 0 and len(file.chunks) == -(-file.size // step) for file in files)
    if not counts or not all(_HEX.fullmatch(digest) for file in files for digest in file.chunks):
        raise BadInput("`archive` has chunks without a sound size or digest; give what model_share returned")
    if record.key != manifest.key or _sizes(files) != _sizes(manifest.files):
        raise BadInput(
            f"`archive` is the record of another model than this one of {manifest.repo}; give what model_share returned"
        )
    return record


def _sizes(files: t.Iterable[t.Any]) -> dict[str, int]:
    return {file.path: file.size for file in files}


def folder_for(place: Place) -> str:
    """Return the folder of records and of the notes about servers, in that of a repository."""
    return os.path.join(place.own, "share")


def record_path(place: Place, key: str) -> str:
    """Return where the record of a model lies."""
    return os.path.join(folder_for(place), f"{key}.json")


def state_path(place: Place, key: str) -> str:
    """Return where the notes about the process that serves a model lie; it ends when they are gone."""
    return os.path.join(folder_for(place), key + STATE)


def forget(place: Place, key: str) -> None:
    """Drop what is kept for sharing a model that is removed, which ends its server."""
    for path in (state_path(place, key), record_path(place, key)):
        with suppress(FileNotFoundError):
            os.unlink(path)


def load(place: Place, manifest: Manifest) -> Record | None:
    """Return the record that an earlier run made or was given, None when there is none."""
    try:
        with open(record_path(place, manifest.key), encoding="utf-8") as file:
            return record_from(json.load(file), manifest)
    except (OSError, ValueError):
        return None


def save(place: Place, record: Record) -> str:
    """Keep a record and return its path."""
    path = record_path(place, record.key)
    partial = f"{path}.{os.getpid()}.new"
    make_folder(os.path.dirname(path))
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(record.as_data(), file, separators=(",", ":"))
    os.chmod(partial, 0o644)
    os.replace(partial, path)
    return path


def chunk_size(total: int) -> int:
    """Return the bytes of a chunk for a model of ``total`` bytes: a power of two."""
    size = SMALLEST
    while size * MOST < total:
        size *= 2
    return size


def make(manifest: Manifest, folder: str, step: int = 0) -> Record:
    """Return the record of the model in ``folder``, reading it once.

    Raises LlmfleetError when a file has not the digest that the manifest tells: damage must not travel.
    """
    step = step or chunk_size(manifest.size)
    check_sizes(manifest, folder)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        whole = {file.path: pool.submit(_whole, folder, file) for file in manifest.files if file.size > step}
        parts = [
            [
                pool.submit(sha256_at, os.path.join(folder, file.path), start, min(step, file.size - start))
                for start in range(0, file.size, step)
            ]
            for file in manifest.files
        ]
        for file in manifest.files:
            if not (whole[file.path].result() if file.path in whole else _whole(folder, file)):
                raise LlmfleetError(
                    f"{os.path.join(folder, file.path)} is damaged: it has not the {words(expected(file))}, so it is "
                    "not shared; run model_fetch with `verify: full` on this host, which fetches it again"
                )
        files = tuple(
            FileChunks(file.path, file.size, tuple(part.result() for part in row))
            for file, row in zip(manifest.files, parts)
        )
    return Record(manifest.key, step, files)


def check_sizes(manifest: Manifest, folder: str) -> None:
    """Raise LlmfleetError unless every file is in ``folder`` and has its size."""
    for file in manifest.files:
        _check_size(folder, file)


def _check_size(folder: str, file: RepoFile) -> None:
    path = os.path.join(folder, file.path)
    try:
        size = os.stat(path).st_size
    except OSError as error:
        raise LlmfleetError(
            f"{path} cannot be shared: {error.strerror}; share a model on a host that has it, after model_fetch"
        ) from None
    if size != file.size:
        raise LlmfleetError(
            f"{path} is damaged: it has {size} bytes instead of {file.size}; run model_fetch on this host, which "
            "fetches it again"
        )


def _whole(folder: str, file: RepoFile) -> bool:
    if not expected(file):
        return True
    with open(os.path.join(folder, file.path), "rb") as stream:
        return digest_of(stream, file, file.size) == expected(file)


def sha256_at(path: str, start: int, size: int) -> str:
    """Return the sha256 of ``size`` bytes of a file from ``start`` on, or of what is there of them."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(start)
        while size > 0:
            block = file.read(min(READ, size))
            if not block:
                break
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()
