"""Bring files whole and verified into a folder: many ranges at a time, resumed whatever interrupted it."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
import typing as t
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub.desk import Desk
from ansible.module_utils.llmfleet.hub.digest import expected
from ansible.module_utils.llmfleet.hub.disk import disk_error, room
from ansible.module_utils.llmfleet.hub.follow import Follower
from ansible.module_utils.llmfleet.hub.intake import Intake
from ansible.module_utils.llmfleet.hub.manifest import RepoFile, check_path
from ansible.module_utils.llmfleet.hub.part import JOURNALS, Part
from ansible.module_utils.llmfleet.hub.progress import Log, Meter, State
from ansible.module_utils.llmfleet.hub.reply import Opener, TransferError

CONNECTIONS = 8
NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP)
"""How file systems say that they do not lock folders."""
PATIENCE = 2.0
"""Seconds that threads get to end after a transfer has failed."""


@dataclass(frozen=True)
class Stats:
    """What a transfer did."""

    bytes_fetched: int
    """Bytes that came from outside, also those that were fetched twice."""
    seconds: float
    connections: int
    """The most that were open at the same time."""
    resumed_from: int
    """Bytes that an interrupted run had left and that were used."""
    sources: tuple[str, ...] = ()
    """Names of the sources that gave bytes."""
    digests: t.Mapping[str, str] = field(default_factory=dict)
    """Per path the digest that was found, as RepoFile.digest spells it; sha256 where none was known before."""
    again: tuple[str, ...] = ()
    """Paths of files that had arrived with a wrong digest and were fetched again."""


class Transfer:
    """Brings every file of ``files`` to ``folder/<path>``, verified; what an interrupted run left is continued.

    files: RepoFile each; a size of UNKNOWN (-1) is learnt from the answer. Sizes must be right otherwise.
    folder: made when it is missing; what was done is noted in its ``.journal`` folder, which belongs to this class
        (``publish`` leaves it behind, or removes it with the folder). Partial files have their final size and
        names from the beginning, so nobody may take what lies there for whole before ``run`` has returned.
    opener: see reply.Opener; called from several threads.
    connections: how many ranges are open at the same time, at most.
    timeout: seconds; a connection that gave less than 1 KiB/s for so long is dropped and its rest asked for again. The
        opener sets the same limit on its sockets.
    progress: called in the thread of ``run`` every ``interval`` seconds with a progress.State, and once at the end.
    log: path of a file that gets a line every ``interval`` seconds, "" for none.
    check_start: called with a file, its first bytes (64 at least, unless it is smaller) and its size before anything of
        that answer is stored; raises LlmfleetError when they cannot be the wanted file.
    attempts: in a row without a byte gained, after which a file is given up (at the next source, if there is one).
    pause: seconds before the second attempt; doubles up to 30.
    again: how often a file with a wrong digest that came in one run is fetched again; one that was put together from
        several runs is fetched again in any case.
    sync: whether files are on the disk (fsync) when ``run`` returns.

    ``run`` raises LlmfleetError with one sentence: what went wrong, how much is kept. OSError never leaves it.
    """

    def __init__(
        self,
        files: t.Sequence[RepoFile],
        folder: str,
        opener: Opener,
        *,
        connections: int = CONNECTIONS,
        timeout: float = 30.0,
        progress: t.Callable[[State], None] | None = None,
        log: str = "",
        interval: float = 5.0,
        check_start: t.Callable[[RepoFile, bytes, int], None] | None = None,
        attempts: int = 6,
        pause: float = 0.5,
        again: int = 1,
        sync: bool = True,
    ) -> None:
        self._files = tuple(files)
        self._folder = folder
        self._opener = opener
        self._connections = max(1, connections)
        self._timeout = timeout
        self._progress = progress
        self._log = Log(log)
        self._interval = interval
        self._check_start = check_start
        self._sync = sync
        self._parts = [Part(file, folder) for file in self._files]
        self._desk = Desk(self._parts, opener, self._connections, attempts, pause, again)
        self._intakes = [Intake(self._desk, opener, folder, timeout, check_start) for _ in range(self._connections)]
        self._meter = Meter()

    def run(self, finish: t.Callable[[], None] | None = None) -> Stats:
        """Bring what is missing; return when every file is whole and verified.

        ``finish`` is called then, while the folder is still locked; it may move the files away, and the folder too.
        """
        try:
            for file in self._files:
                check_path(file.path)
            with self._locked():
                stats = self._run()
                if finish:
                    finish()
                return stats
        except OSError as error:
            raise disk_error(error, self._folder) from None

    @contextmanager
    def _locked(self) -> t.Iterator[None]:
        """Keep other runs out of the folder, which is made when it is missing."""
        handle = self._lock()
        try:
            yield
        finally:
            os.close(handle)

    def _lock(self) -> int:
        while True:
            os.makedirs(os.path.join(self._folder, JOURNALS), exist_ok=True)
            handle = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                raise TransferError(
                    f"another run is downloading it to {self._folder}; wait for it and start again"
                ) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    os.close(handle)
                    raise
            with suppress(FileNotFoundError):
                # who had it locked may have moved it away
                if os.path.samestat(os.fstat(handle), os.stat(self._folder)):
                    return handle
            os.close(handle)

    def _run(self) -> Stats:
        begun = time.monotonic()
        resumed = sum(part.load() for part in self._parts)
        for part in self._parts:
            if part.done:
                self._desk.digests[part.file.path] = expected(part.file)
        left = [part for part in self._parts if not part.done]
        try:
            room(self._folder, sum(max(part.size, 0) - part.have.total for part in left))
            self._work(left)
        except BaseException:
            self._tidy()
            raise
        self._report()
        return Stats(
            bytes_fetched=sum(intake.fetched for intake in self._intakes),
            seconds=time.monotonic() - begun,
            connections=self._desk.most,
            resumed_from=resumed,
            sources=tuple(self._desk.sources),
            digests=dict(self._desk.digests),
            again=tuple(self._desk.again),
        )

    def _work(self, left: t.Sequence[Part]) -> None:
        queue = iter(left)
        crew: list[Intake | Follower] = [*self._intakes] if left else []
        crew += [
            Follower(self._desk, queue, self._folder, self._sync)
            for _ in range(min(self._connections, os.cpu_count() or 1, len(left)))
        ]
        threads = [threading.Thread(target=one.run, daemon=True) for one in crew]
        for thread in threads:
            thread.start()
        try:
            self._watch()
        finally:
            # who waits for a network that gives nothing is left behind: it writes nothing any more
            self._desk.fail(TransferError("the transfer was stopped"))
            until = time.monotonic() + PATIENCE
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))

    def _watch(self) -> None:
        """Wait until all is done, reporting now and then; raise what went wrong."""
        desk = self._desk
        report_at = time.monotonic() + self._interval
        while True:
            with desk.changed:
                over = desk.over or desk.changed.wait_for(lambda: desk.over, report_at - time.monotonic())
            if over:
                break
            self._report()
            report_at = time.monotonic() + self._interval
        problem = desk.problem
        if isinstance(problem, LlmfleetError):
            self._log.line(str(problem))
            raise TransferError(f"{problem}{self._kept()}") from None
        if problem:
            raise problem

    def _report(self) -> None:
        parts = self._parts
        with self._desk.changed:
            busy = [part.file.path for part in parts if part.leases]
            done = sum(part.have.total for part in parts)
            size = sum(max(part.size, part.have.total) for part in parts)
            whole = sum(part.done for part in parts)
        speed = self._meter.speed(sum(intake.fetched for intake in self._intakes), time.monotonic())
        state = State(len(parts), whole, size, done, speed, busy[0] if busy else "")
        self._log.line(str(state))
        if self._progress:
            self._progress(state)

    def _kept(self) -> str:
        kept, size = sum(part.have.total for part in self._parts), sum(max(part.size, 0) for part in self._parts)
        return f"; {kept} of {size} bytes are kept, and the next run continues from there" if kept else ""

    def _tidy(self) -> None:
        """Leave nothing behind that the next run could not use."""
        with self._desk.changed:
            for part in self._parts:
                if not part.leases:
                    part.close()
                if not part.have.total:
                    part.forget()
        with suppress(OSError):
            os.rmdir(os.path.join(self._folder, JOURNALS))
            os.rmdir(self._folder)


def kept(files: t.Sequence[RepoFile], folder: str) -> int:
    """Return how many bytes an interrupted transfer has left that the next one would use."""
    return sum(Part(file, folder).load() for file in files)
