"""Who fetches what: hands out ranges, takes down what is written, decides about another attempt. Thread-safe."""

from __future__ import annotations

import threading
import time
import typing as t

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub.digest import expected, words
from ansible.module_utils.llmfleet.hub.part import BLOCK, LEASE, Lease, Part
from ansible.module_utils.llmfleet.hub.reply import UNKNOWN, Broken, Opener, TransferError

LONGEST_PAUSE = 300.0
"""Seconds that a server's Retry-After is waited for, at most."""
SLOWEST_RETRY = 30.0
RESTARTS = 1
"""How often a file begins anew because another version of it seems to come; then its digest decides."""
SLOW_GAIN = 1 << 20
"""Bytes that must have come before a connection gave next to nothing, so that it was worth while."""
SOURCES = 16
"""How many sources are tried for one file, whatever the opener says."""


class Desk:
    """The one place where threads of a transfer meet; everything under ``changed``."""

    def __init__(
        self,
        parts: t.Sequence[Part],
        opener: Opener,
        connections: int,
        attempts: int,
        pause: float,
        again: int,
        clock: t.Callable[[], float] = time.monotonic,
    ) -> None:
        self.parts = parts
        self.changed = threading.Condition()
        self.problem: BaseException | None = None
        self.most = 0
        """The most connections at the same time."""
        self.again: list[str] = []
        self.sources: dict[str, None] = {}
        self.digests: dict[str, str] = {}
        self._opener = opener
        self._connections = connections
        self._attempts = attempts
        self._pause = pause
        self._again = again
        self.clock = clock
        self._not_before = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, or nothing can be done."""
        return self.problem is not None or all(part.done for part in self.parts)

    def fail(self, problem: BaseException) -> None:
        """Give up; the first reason counts."""
        with self.changed:
            self.problem = self.problem or problem
            self.changed.notify_all()

    def next(self) -> Lease | None:
        """Return a range to fetch, waiting for one; None when the transfer is over."""
        with self.changed:
            while not self.over:
                now = self.clock()
                lease = self._find(now) if now >= self._not_before else None
                if lease:
                    lease.part.open()
                    self.most = max(self.most, sum(len(part.leases) for part in self.parts))
                    return lease
                self.changed.wait(self._wait(now))
            return None

    def _find(self, now: float) -> Lease | None:
        missing = sum(part.size - part.have.total for part in self.parts if not part.done and part.size > 0)
        share = missing // (4 * self._connections)
        size = max(BLOCK, min(LEASE, share // BLOCK * BLOCK))
        found = next((lease for part in self.parts for lease in [part.take(now, size)] if lease), None)
        return found or next((lease for part in self.parts for lease in [part.steal(now)] if lease), None)

    def _wait(self, now: float) -> float:
        """Return the seconds until something may be possible that nobody will announce."""
        times = [part.not_before for part in self.parts if part.not_before > now and not part.done]
        return max(0.001, min([1.0, *(when - now for when in [*times, self._not_before] if when > now)]))

    def note(self, lease: Lease, pieces: t.Sequence[tuple[int, int]], position: int) -> bool:
        """Take down what a lease has written and how far it has come; return whether it may go on."""
        part = lease.part
        with self.changed:
            gained = sum(part.note(start, end) for start, end in pieces)
            part.gained += gained
            lease.position = position
            lease.firm = position + BLOCK if lease.end == UNKNOWN else min(position + BLOCK, lease.end)
            if gained:
                self.changed.notify_all()
            return not (self.problem or part.restart)

    def unwritten(self, lease: Lease, start: int, end: int) -> list[tuple[int, int]]:
        """Return what of a range is missing and no other connection writes."""
        with self.changed:
            return lease.part.unwritten(lease, start, end)

    def read_whole(self, lease: Lease) -> bool:
        """Let a lease whose server began at the beginning read all of the file; False when another does already."""
        part = lease.part
        with self.changed:
            part.single = True
            other = next((other for other in part.leases if other.whole and other is not lease), None)
            if other:
                other.end = part.size
                lease.end = lease.position
                return False
            lease.start, lease.position, lease.end = 0, 0, part.size
            return True

    def release(self, lease: Lease) -> None:
        """Take a lease back, whatever became of it."""
        part = lease.part
        with self.changed:
            part.leases.remove(lease)
            if part.restart and not part.leases:
                part.clear()
            self.changed.notify_all()

    def begin_anew(self, part: Part) -> bool:
        """Let a file begin anew because another version of it comes; False when that has happened often enough."""
        with self.changed:
            if part.restart:
                return True
            if part.restarts >= RESTARTS:
                return False
            part.restarts += 1
            part.restart = True
            part.etags.clear()
            return True

    def broke(self, lease: Lease, error: Broken) -> None:
        """Decide what becomes of a file after an attempt failed."""
        part = lease.part
        with self.changed:
            now = self.clock()
            if error.retry_after > LONGEST_PAUSE:
                raise TransferError(
                    f"{part.file.path}: {error}, and wants to be asked again only after {error.retry_after:.0f} "
                    "seconds; start again then"
                )
            if error.retry_after:
                self._not_before = max(self._not_before, now + error.retry_after)
            enough = SLOW_GAIN if error.slow else 1
            if part.gained - part.gained_before >= enough:
                part.fails, part.gained_before = 0, part.gained
            elif lease.begun < part.failed_at or lease.turn != part.turns:
                return  # one of several that failed together
            else:
                part.fails += 1
            part.failed_at = now
            part.not_before = now + min(SLOWEST_RETRY, self._pause * 2**part.fails)
            if part.fails < self._attempts:
                return
        self.refused(lease, TransferError(f"{part.file.path}: {error}"))

    def refused(self, lease: Lease, error: LlmfleetError) -> None:
        """Turn to another source for a file, or give up with ``error``."""
        if not self._turn(lease.part, str(error), lease.turn):
            raise error

    def _turn(self, part: Part, said: str, turn_of: int) -> bool:
        """Turn to another source for a file; whether there is one. Nobody begins to fetch it meanwhile."""
        with self.changed:
            if part.turning or turn_of != part.turns:
                return True  # another connection has noticed before
            part.turning = True
            part.turns += 1
        found = False
        try:
            turn = getattr(self._opener, "next_source", None)
            found = bool(turn and part.turns <= SOURCES and turn(part.file, said))
        finally:
            with self.changed:
                part.turning = False
                part.fails, part.not_before, part.single = 0, 0.0, False
                self.changed.notify_all()
        return found

    def verified(self, part: Part, digest: str, mtime_ns: int) -> None:
        """Take down that a file is whole."""
        with self.changed:
            part.journal.add_verified(mtime_ns)
            part.done = True
            part.close()
            self.digests[part.file.path] = digest
            self.changed.notify_all()

    def wrong(self, part: Part, digest: str) -> None:
        """Fetch a file again whose digest is wrong, or give up."""
        times = self.again.count(part.file.path)
        with self.changed:
            part.blocked = True
            part.clear()
            part.gained_before = part.gained
            turn = part.turns
        error = TransferError(
            f"{part.file.path}: what arrived has the {words(digest)} instead of the expected "
            f"{expected(part.file).partition(':')[2]}; it was deleted: the source is damaged, or the digest belongs "
            "to another version of the file"
        )
        if not self._turn(part, str(error), turn) and times >= max(self._again, part.resumed):
            raise error
        with self.changed:
            part.blocked = False
            self.again.append(part.file.path)
            self.changed.notify_all()
