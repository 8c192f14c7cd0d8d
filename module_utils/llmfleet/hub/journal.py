"""What of a partial file is on the disk, remembered so that a killed process loses at most a block per connection."""

from __future__ import annotations

import hashlib
import json
import os
import typing as t
from contextlib import suppress

Range = t.Tuple[int, int]  # noqa: UP006 - Python 3.9 evaluates it


class Ranges:
    """Disjoint ranges of bytes, each from its first to behind its last, in order."""

    def __init__(self, ranges: t.Iterable[Range] = ()) -> None:
        self.items: list[Range] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> int:
        """Add a range that may overlap others; return by how many bytes the whole has grown."""
        if start >= end:
            return 0
        before = self.total
        touching = [item for item in self.items if item[0] <= end and start <= item[1]]
        for item in touching:
            self.items.remove(item)
            start, end = min(start, item[0]), max(end, item[1])
        self.items.append((start, end))
        self.items.sort()
        return self.total - before

    @property
    def total(self) -> int:
        """Bytes of all ranges."""
        return sum(end - start for start, end in self.items)

    def reach(self, start: int) -> int:
        """Return how far the bytes from ``start`` on are there without a gap; ``start`` when that one is missing."""
        return next((last for first, last in self.items if first <= start < last), start)

    def gaps(self, end: int) -> list[Range]:
        """Return what is missing before ``end``."""
        found, position = [], 0
        for first, last in self.items:
            if position < min(first, end):
                found.append((position, min(first, end)))
            position = max(position, last)
        if position < end:
            found.append((position, end))
        return found


class Journal:
    """The notes about one partial file, below ``folder``: a line of what file it is, then a line per range written.

    A line is added after its bytes were written; a torn last line, or one that makes no sense, is not believed. After
    a power failure a line may be there and its bytes not: the digest of the file notices.
    """

    def __init__(self, folder: str, path: str, digest: str) -> None:
        self._path = os.path.join(folder, hashlib.sha256(path.encode()).hexdigest()[:32])
        self._about = {"path": path, "digest": digest}
        self._handle = -1
        self.size = -1
        """Of the file, as an earlier run learnt it."""
        self.have = Ranges()
        self.verified = 0
        """mtime in nanoseconds that the file had when its digest was found right; 0: it was not."""

    def read(self) -> None:
        """Read what an earlier run noted about this very file."""
        with suppress(FileNotFoundError, NotADirectoryError), open(self._path, "rb") as file:
            lines = file.read().split(b"\n")[:-1]  # what stands behind the last end of line is torn
            if not lines:
                return
            with suppress(ValueError):
                about = json.loads(lines[0])
                if not isinstance(about, dict) or {**about, "size": 0} != {**self._about, "size": 0}:
                    return
                self.size = int(about["size"])
                self._read_lines(lines[1:])

    def _read_lines(self, lines: t.Iterable[bytes]) -> None:
        for line in lines:
            words = line.split()
            if len(words) != 2 or not all(word.isdigit() for word in words[1:]):
                continue
            if words[0] == b"verified":
                self.verified = int(words[1])
            elif words[0].isdigit() and int(words[0]) < int(words[1]) <= max(self.size, 0):
                self.have.add(int(words[0]), int(words[1]))

    def begin(self, size: int) -> None:
        """Throw away what was noted and start again for a file of ``size`` bytes (-1: not known yet)."""
        self.close()
        self.size, self.have, self.verified = size, Ranges(), 0
        self._write(json.dumps({**self._about, "size": size}).encode() + b"\n", os.O_TRUNC)

    def add(self, start: int, end: int) -> None:
        """Note that the bytes of a range were written."""
        self._write(b"%d %d\n" % (start, end), 0)

    def add_verified(self, mtime_ns: int) -> None:
        """Note that the digest was found right."""
        self.verified = mtime_ns
        self._write(b"verified %d\n" % mtime_ns, 0)

    def _write(self, line: bytes, flag: int) -> None:
        if self._handle < 0:
            # behind a line that was torn; an empty line says nothing
            line = line if flag == os.O_TRUNC else b"\n" + line
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | flag, 0o644)
        os.write(self._handle, line)

    def close(self) -> None:
        """Let go of the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def remove(self) -> None:
        """Forget what was noted."""
        self.close()
        self.have, self.verified = Ranges(), 0
        with suppress(OSError):
            os.unlink(self._path)
