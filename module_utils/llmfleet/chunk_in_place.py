"""Chunks of files that lie, or are still arriving, where they are used: which of them are here, and where.

Part of the program that chunk_server.py is: standard library only, nothing of Ansible; only what Python 3.8 has too.

Files arrive in one folder and are moved to another one when all of them are whole. Whoever receives appends to a
journal beside them: a first line that names the record of the chunks, then ``<n>`` for each chunk that is here and
has been checked, ``-<n>`` for one that will not come. A line without its end is none.
"""

from __future__ import annotations

import os
import threading
import typing as t
from contextlib import suppress

CHUNKS = ".chunks"
JOURNAL = os.path.join(CHUNKS, "journal")
"""Where the journal lies in the folder in which files arrive."""

MARK = b"chunks of "
BLOCK = 512
"""Bytes that st_blocks counts in, stat(2)."""


def places(record: t.Mapping[str, t.Any]) -> list[tuple[str, int, int]]:
    """Return (path, offset, size) of each chunk of a record as hub.model_chunks writes it."""
    step, found = int(record["chunk_bytes"]), []
    for file in record["files"]:
        size = int(file["size"])
        found += [(str(file["path"]), start, min(step, size - start)) for start in range(0, size, step)]
    return found


class Journal:
    """Follows a journal; ``here`` and ``never`` are the chunks that it names, none while it is of another record."""

    def __init__(self, folder: str, name: str) -> None:
        self._path = os.path.join(folder, JOURNAL)
        self._first = MARK + name.encode() + b"\n"
        self._forget(0)

    def _forget(self, inode: int) -> None:
        self._inode, self._read = inode, 0
        self.here: set[int] = set()
        self.never: set[int] = set()

    def refresh(self) -> int:
        """Read what was added; return up to which byte it is sound, 0 when there is no journal of this record."""
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._read:
                    self._forget(status.st_ino)
                if not self._read and file.readline() != self._first:
                    return 0
                self._read = self._read or len(self._first)
                file.seek(self._read)
                whole = file.read().rpartition(b"\n")
        except OSError:
            return 0  # gone with the folder when the files were moved; what it said stays true
        for line in whole[0].split(b"\n"):
            number = line.lstrip(b"-")
            if number.isdigit():
                (self.never if line.startswith(b"-") else self.here).add(int(number))
        self._read += len(whole[0]) + len(whole[1])
        return self._read


class InPlace:
    """Chunks of the files of a model: from the folder in which it arrives, and from that in which it is published."""

    def __init__(self, record: t.Mapping[str, t.Any], incoming: str, snapshot: str) -> None:
        self._places = places(record)
        self._sizes = {str(file["path"]): int(file["size"]) for file in record["files"]}
        self._incoming = incoming
        self._snapshot = snapshot
        self._journal = Journal(incoming, str(record["name"]))
        self._lock = threading.Lock()

    def find(self, number: int) -> tuple[str, int, int] | None:
        """Return (path, offset, size) of a chunk, None while it is still to come; raise LookupError if it never is."""
        path, offset, size = self._places[number]
        with self._lock:
            self._journal.refresh()
            here, never = number in self._journal.here, number in self._journal.never
        arriving = os.path.join(self._incoming, path)
        if os.path.exists(arriving):
            if here:
                return arriving, offset, size
        else:  # looked for afterwards, as a file is moved from there to here
            published = os.path.join(self._snapshot, path)
            with suppress(OSError):
                if os.stat(published).st_size == self._sizes[path]:
                    return published, offset, size
        if never:
            raise LookupError(number)
        return None

    def progress(self) -> int:
        """Return how many bytes are here, as the file system counts them, so that parts of chunks count too."""
        total = 0
        for path in self._sizes:
            try:
                total += os.stat(os.path.join(self._incoming, path)).st_blocks * BLOCK
            except OSError:
                continue
        return total
