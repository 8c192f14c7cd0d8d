"""One file that is under way: what is there, what is missing, and who fetches what of it. No network, no threads."""

from __future__ import annotations

import os
import stat
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet.hub.digest import expected
from ansible.module_utils.llmfleet.hub.journal import Journal, Ranges
from ansible.module_utils.llmfleet.hub.manifest import RepoFile
from ansible.module_utils.llmfleet.hub.reply import UNKNOWN

BLOCK = 4 << 20
"""Bytes after which a connection notes what it has written: what a killed process may have to fetch again."""
LEASE = 64 << 20
"""Bytes that a connection asks for at once, at most: few requests, and the digest follows pages that are cached yet."""

STEAL_BYTES = 16 << 20
"""A connection that has nothing to do takes half of what another has left when that is so much ..."""
STEAL_SECONDS = 4.0
"""... or would take so long."""
STEAL_LEAST = 128 << 10


class Lease:
    """A range of a file that one connection fetches: from ``position`` to before ``end`` (UNKNOWN: to the end)."""

    def __init__(self, part: Part, start: int, end: int, now: float) -> None:
        self.part = part
        self.start = start
        self.position = start
        """Up to here all is written and noted."""
        self.end = end
        self.firm = start
        """Up to here only this connection may write; what lies beyond may be taken from it."""
        self.begun = now
        self.turn = part.turns
        """Which of the sources it is fetched from."""
        self.whole = False
        """Its stream goes through all of the file."""

    def seconds_left(self, now: float) -> float:
        """Return how long the rest takes if it goes on like so far."""
        passed = now - self.begun
        done = self.position - self.start
        if done:
            return (self.end - self.position) * passed / done
        return STEAL_SECONDS * 2 if passed > STEAL_SECONDS else 0.0


class Part:
    """A file under way, below ``folder``. Every change is made under the lock of the Desk."""

    def __init__(self, file: RepoFile, folder: str) -> None:
        self.file = file
        self.path = os.path.join(folder, file.path)
        self.size = file.size
        self.journal = Journal(os.path.join(folder, JOURNALS), file.path, expected(file))
        self.leases: list[Lease] = []
        self.single = False
        """Its server cannot continue in the middle: one connection reads it from the beginning."""
        self.restart = False
        """What is there is thrown away as soon as nobody writes any more."""
        self.turning = False
        """Another source is being looked for."""
        self.turns = 0
        self.blocked = False
        """It is wrong, and what becomes of it is being decided."""
        self.resumed = False
        """Some of it is of an earlier run."""
        self.done = False
        self.generation = 0
        """Grows whenever the file begins anew."""
        self.etags: dict[str, str] = {}
        self.restarts = 0
        self.fails = 0
        """Attempts in a row without a byte gained."""
        self.failed_at = 0.0
        self.gained = 0
        """Bytes that this run brought, which ``fails`` compares."""
        self.gained_before = 0
        self.not_before = 0.0
        self.handle = -1

    @property
    def have(self) -> Ranges:
        """What is written and noted."""
        return self.journal.have

    @property
    def complete(self) -> bool:
        """Whether all bytes are there, verified or not."""
        return self.size != UNKNOWN and self.have.total == self.size

    def load(self) -> int:
        """See what an interrupted run has left; return how many bytes of it are used.

        What has no digest to prove it in the end is not trusted across runs.
        """
        self.journal.read()
        with suppress(OSError):
            found = os.lstat(self.path)
            same_size = stat.S_ISREG(found.st_mode) and found.st_size == self.journal.size != UNKNOWN
            if expected(self.file) and same_size and self.file.size in (UNKNOWN, found.st_size):
                self.size = found.st_size
                self.done = self.journal.verified == found.st_mtime_ns and self.complete
                self.resumed = self.have.total > 0
                return self.have.total
        self.journal.have = Ranges()
        self.journal.verified = 0
        return 0

    def open(self) -> int:
        """Return the descriptor of the file, opened on first use; a new file gets its full, sparse length."""
        if self.handle < 0:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            if not self.have.items:
                self.clear()
        return self.handle

    def clear(self) -> None:
        """Begin anew."""
        self.size = self.file.size
        self.generation += 1
        self.restart = False
        os.ftruncate(self.handle, 0)
        os.ftruncate(self.handle, max(self.size, 0))
        self.journal.begin(self.size)

    def learn(self, size: int) -> None:
        """Take down a size that was unknown."""
        have = self.have.items
        self.size = size
        os.ftruncate(self.handle, size)
        self.journal.begin(size)
        for start, end in have:
            self.note(start, end)

    def note(self, start: int, end: int) -> int:
        """Take down bytes that are written; return how many of them are new."""
        self.journal.add(start, end)
        return self.have.add(start, end)

    def close(self) -> None:
        """Let go of the file and its journal."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1
        self.journal.close()

    def forget(self) -> None:
        """Remove the file and what is noted about it."""
        with suppress(OSError):
            os.unlink(self.path)
        self.journal.remove()

    def _waits(self, now: float) -> bool:
        return self.done or self.restart or self.turning or self.blocked or now < self.not_before

    def take(self, now: float, lease_size: int) -> Lease | None:
        """Return a range that nobody has and nobody fetches."""
        if self._waits(now) or self.complete:
            return None
        if self.size == UNKNOWN or self.single:
            return None if self.leases else self._lease(0, self.size, now)
        spoken_for = Ranges([*self.have.items, *((lease.position, lease.end) for lease in self.leases)])
        gap = next(iter(spoken_for.gaps(self.size)), None)
        return self._lease(gap[0], min(gap[1], gap[0] + lease_size), now) if gap else None

    def steal(self, now: float) -> Lease | None:
        """Return the second half of what the slowest connection has left, which loses it."""
        if self._waits(now) or self.single or self.size == UNKNOWN:
            return None
        best: Lease | None = None
        for lease in self.leases:
            left = lease.end - max(lease.firm, lease.position)
            worth = left >= STEAL_BYTES or (left >= STEAL_LEAST and lease.seconds_left(now) > STEAL_SECONDS)
            if worth and (best is None or lease.seconds_left(now) > best.seconds_left(now)):
                best = lease
        if best is None:
            return None
        middle = (max(best.firm, best.position) + best.end) // 2
        end, best.end = best.end, middle
        return self._lease(middle, end, now)

    def _lease(self, start: int, end: int, now: float) -> Lease:
        lease = Lease(self, start, end, now)
        self.leases.append(lease)
        return lease

    def unwritten(self, lease: Lease, start: int, end: int) -> list[tuple[int, int]]:
        """Return what of a range is missing and no other connection writes: all that ``lease`` may write of it."""
        others = [(other.position, other.end) for other in self.leases if other is not lease]
        spoken_for = Ranges([*self.have.items, *others])
        return [(max(first, start), last) for first, last in spoken_for.gaps(end) if last > start]


JOURNALS: t.Final = ".journal"
"""Folder of the notes about partial files, in the folder that they lie in."""
