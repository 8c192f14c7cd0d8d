"""Digests of files of a hub, taken piece by piece: sha256, or Git's id of a blob where the hub tells only that."""

from __future__ import annotations

import hashlib
import os
import typing as t

from ansible.module_utils.llmfleet.hub.manifest import RepoFile


class Digest:
    """The digest of a file that is ``size`` bytes long, of the kind that is known of ``file`` (sha256 when none is)."""

    def __init__(self, file: RepoFile, size: int) -> None:
        self._git = not file.sha256 and bool(file.blob_id)
        # a git id is no safeguard against forgers, and the only one that hubs tell of small files
        self._hash = hashlib.new("sha1", usedforsecurity=False) if self._git else hashlib.sha256()
        if self._git:
            self._hash.update(b"blob %d\0" % size)

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    @property
    def found(self) -> str:
        """The digest as RepoFile.digest spells it."""
        return f"{'git' if self._git else 'sha256'}:{self._hash.hexdigest()}"


def expected(file: RepoFile) -> str:
    """Return the digest that a file must have, "" when none is known."""
    return file.digest.lower() if file.sha256 or file.blob_id else ""


def words(digest: str) -> str:
    """Return a digest for a message, such as "sha256 9f86…"."""
    kind, _, value = digest.partition(":")
    return f"{'git blob id' if kind == 'git' else kind} {value}"


def digest_of(stream: t.BinaryIO, file: RepoFile, size: int) -> str:
    """Return the digest of all that ``stream`` still gives, which must be ``size`` bytes."""
    digest = Digest(file, size)
    buffer = memoryview(bytearray(1 << 20))
    while True:
        count = stream.readinto(buffer)  # type: ignore[attr-defined]
        if not count:
            return digest.found
        digest.update(buffer[:count])


def digest_of_file(path: str, file: RepoFile) -> str:
    """Return the content's digest in the form that is known of ``file``; sha256 where none is known. Reads it all."""
    with open(path, "rb") as stream:
        return digest_of(stream, file, os.path.getsize(path))
