"""The note beside a model that was made here: what of, and which files are ours to replace. Edge: reads and writes it.

A file counts as ours only while it has the size and time that the note gives; anything else is the user's.
"""

from __future__ import annotations

import json
import os
import typing as t
from dataclasses import dataclass, field

Files = dict[str, "list[int]"]
"""Name in the note's folder -> [size in bytes, time of change in nanoseconds]."""


@dataclass
class Note:
    """``recipe`` is what the files were made of; ``outgoing`` are files of the one before, not yet all replaced."""

    recipe: dict[str, t.Any] = field(default_factory=dict)
    files: Files = field(default_factory=dict)
    outgoing: Files = field(default_factory=dict)
    image: str = ""

    def complete(self, folder: str) -> bool:
        """Whether all files are there as they were made."""
        return bool(self.files) and all(mark(os.path.join(folder, name)) == it for name, it in self.files.items())

    def owns(self, folder: str, name: str) -> bool:
        """Whether the file ``name`` in ``folder`` is one that was made here."""
        found = mark(os.path.join(folder, name))
        return found is not None and found in (self.files.get(name), self.outgoing.get(name))


def mark(path: str) -> list[int] | None:
    """Return what the note says of the file at ``path``, None when there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def read(path: str) -> Note:
    """Return the note at ``path``, an empty one when there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
        return Note(dict(found["recipe"]), dict(found["files"]), dict(found["outgoing"]), str(found["image"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Note()


def write(path: str, note: Note) -> None:
    """Write ``note``, all of it or not at all."""
    partial = f"{path}.new"
    with open(partial, "w", encoding="utf-8") as stream:
        json.dump(vars(note), stream, indent=2, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(partial, 0o644)
    os.replace(partial, path)
