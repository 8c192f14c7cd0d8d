"""Chunks of an archive, in its file or in the folder that they arrive in: which of them are here, and where.

Part of the program that chunk_server.py is: standard library only, nothing of Ansible; only what Python 3.8 has too.
"""

from __future__ import annotations

import json
import os
import typing as t

from ansible.module_utils.llmfleet.chunk_folder import SKIPPED, is_chunk


class InFile:
    """Chunks in one file. It is kept open: replaced or removed, it stays readable under the same chunks."""

    def __init__(self, path: str, sizes: list[int]) -> None:
        self._file = open(path, "rb")  # noqa: SIM115
        self._sizes = sizes
        self._offsets = _offsets(sizes)
        if os.fstat(self._file.fileno()).st_size != sum(sizes):
            raise ValueError(f"{path} is not the archive that was written there; write it again")

    def find(self, number: int) -> tuple[str, int, int] | None:
        """Return (path, offset, size) of a chunk, None while it is still to come; raise LookupError if it never is."""
        return f"/proc/self/fd/{self._file.fileno()}", self._offsets[number], self._sizes[number]

    def progress(self) -> int:
        """Return how many bytes are here."""
        return sum(self._sizes)


class InFolder:
    """Chunks in a folder that is still being filled."""

    def __init__(self, folder: str, names: list[str], sizes: list[int]) -> None:
        self._folder = folder
        self._names = names
        self._sizes = sizes

    def find(self, number: int) -> tuple[str, int, int] | None:
        """Return (path, offset, size) of a chunk, None while it is still to come; raise LookupError if it never is."""
        path = os.path.join(self._folder, self._names[number])
        if os.path.exists(path):
            return path, 0, self._sizes[number]
        if number in self._skipped():
            raise LookupError(number)
        return None

    def _skipped(self) -> t.Collection[int]:
        try:
            with open(os.path.join(self._folder, SKIPPED), encoding="utf-8") as file:
                return t.cast("list[int]", json.load(file))
        except (OSError, ValueError):
            return ()

    def progress(self) -> int:
        """Return how many bytes are here."""
        total = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if is_chunk(entry.name):
                    try:
                        total += entry.stat().st_size
                    except OSError:
                        continue
        return total


def _offsets(sizes: list[int]) -> list[int]:
    offsets, total = [], 0
    for size in sizes:
        offsets.append(total)
        total += size
    return offsets
