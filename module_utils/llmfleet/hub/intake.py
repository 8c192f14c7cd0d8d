"""A connection of a transfer: asks for a range, looks whether the answer is what was asked for, writes what comes."""

from __future__ import annotations

import http.client
import os
import socket
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub.desk import Desk
from ansible.module_utils.llmfleet.hub.digest import expected
from ansible.module_utils.llmfleet.hub.disk import disk_error, room
from ansible.module_utils.llmfleet.hub.manifest import RepoFile
from ansible.module_utils.llmfleet.hub.part import LEASE, Lease
from ansible.module_utils.llmfleet.hub.reply import READ, UNKNOWN, Broken, Opener, Reply, TransferError, read_some
from ansible.module_utils.llmfleet.hub.web import explain

WRITE = 256 << 10
"""Bytes that are gathered before they are written, unless they come slowly."""
GATHER = 0.5
"""Seconds that bytes are gathered, at most."""
HEAD = 64
"""Bytes that tell what a file is."""
SLOWEST = 1 << 10
"""Bytes per second below which a connection counts as stalled."""
PAGES = (".html", ".htm", ".xhtml")


class Intake:
    """What one thread does; ``check_start`` and ``timeout`` as Transfer has them."""

    def __init__(
        self,
        desk: Desk,
        opener: Opener,
        folder: str,
        timeout: float,
        check_start: t.Callable[[RepoFile, bytes, int], None] | None,
    ) -> None:
        self._desk = desk
        self._opener = opener
        self._timeout = timeout
        self._check_start = check_start
        self._buffer = memoryview(bytearray(READ))
        self._folder = folder
        self.fetched = 0
        """Bytes that came over this connection."""
        self._since = 0.0
        self._count = 0
        self._pieces: list[tuple[int, int]] = []
        self._problem: Broken | None = None

    def run(self) -> None:
        """Fetch ranges until the transfer is over."""
        try:
            while True:
                lease = self._desk.next()
                if lease is None:
                    return
                self._one(lease)
        except OSError as error:
            self._desk.fail(disk_error(error, self._folder))
        except BaseException as problem:  # noqa: BLE001 - handed to the thread that waits
            self._desk.fail(problem)

    def _one(self, lease: Lease) -> None:
        try:
            self._bring(lease)
        except Broken as error:
            self._desk.broke(lease, error)
        except _RefusedError as error:
            self._desk.refused(lease, error.problem)
        finally:
            self._desk.release(lease)

    def _bring(self, lease: Lease) -> None:
        file = lease.part.file
        try:
            reply = self._opener(file, lease.position, lease.end)
        except LlmfleetError as error:
            raise _RefusedError(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"the source cannot be reached: {explain(error, self._timeout)}") from None
        if reply.source:
            self._desk.sources[reply.source] = None
        try:
            if self._is_of_this_file(lease, reply):
                self._pump(lease, reply)
        finally:
            with suppress(OSError):
                reply.stream.close()

    def _is_of_this_file(self, lease: Lease, reply: Reply) -> bool:
        """Look at what the answer says of itself; False when this connection has nothing to do after all."""
        part, desk = lease.part, self._desk
        if reply.status == 416:
            raise self._another("the source says that the file ends before the bytes that were asked for", lease)
        if UNKNOWN not in (part.size, reply.total) and reply.total != part.size:
            self._refuse_page(lease, reply, b"")
            raise self._another(f"the source has {reply.total} bytes of it and it must have {part.size}", lease)
        if reply.etag and part.etags.setdefault(reply.source, reply.etag) != reply.etag:
            # validators may differ between the machines of one CDN: after a restart the digest decides
            if desk.begin_anew(part):
                raise Broken("the file was replaced at the source while it was being fetched")
            if not expected(part.file):
                raise _RefusedError(TransferError(f"{part.file.path}: the file changes at the source all the time"))
        if reply.status == 206 and reply.start != lease.position:
            with desk.changed:
                part.single = True
            raise Broken("the server continued at another place than asked")
        lease.whole = reply.status == 200 or (part.single and (lease.position, lease.end) == (0, part.size))
        if part.size == UNKNOWN:
            self._learn(lease, reply)
        elif lease.whole and (lease.position or lease.end != part.size):
            return desk.read_whole(lease)
        return True

    def _learn(self, lease: Lease, reply: Reply) -> None:
        """Take the size of a file from the first answer about it."""
        part = lease.part
        if reply.total != UNKNOWN:
            room(os.path.dirname(part.path), reply.total)
        with self._desk.changed:
            if reply.total == UNKNOWN:
                part.single = True
                return
            part.learn(reply.total)
            ranged = reply.status == 206 or "bytes" in (reply.headers.get("Accept-Ranges", "") or "")
            lease.end = min(part.size, LEASE) if ranged else part.size

    def _another(self, said: str, lease: Lease) -> Broken:
        """Return what to raise when the source has another file; one whose size it told itself has changed."""
        if lease.part.file.size == UNKNOWN:
            self._desk.begin_anew(lease.part)
        return Broken(said)

    def _refuse_page(self, lease: Lease, reply: Reply, head: bytes) -> None:
        """Raise when a web page comes in place of a file that is none."""
        kind = (reply.headers.get("Content-Type", "") or "").lower()
        looks = head.lstrip()[:14].lower()
        if lease.part.file.path.lower().endswith(PAGES):
            return
        if (kind.startswith("text/html") and not head) or looks.startswith((b"<!doctype html", b"<html")):
            raise _RefusedError(
                TransferError(
                    f"{lease.part.file.path}: a web page came instead of the file; look whether a proxy or the "
                    "source wants a login, or whether the address is that of a page about the file"
                )
            )

    def _pump(self, lease: Lease, reply: Reply) -> None:
        """Write what comes, at most up to the end of the lease; what was written is noted whatever happens."""
        desk, part = self._desk, lease.part
        self._since, self._count, self._problem = desk.clock(), 0, None
        self._pieces = []
        handle = part.open()
        position = lease.position
        try:
            going = desk.note(lease, [], position)
            while going and not (part.restart or part.done) and (lease.end == UNKNOWN or position < lease.end):
                limit = min(READ, lease.firm - position)
                count = self._fill(reply, HEAD if position == 0 else min(WRITE, limit), limit)
                if desk.problem:
                    return
                if position == 0:
                    self._check_head(lease, reply, count)
                if not count:
                    self._end(lease, position)
                    return
                position = self._write(lease, handle, position, count)
                if position == lease.firm:
                    going = self._note(lease, position)
        finally:
            self._note(lease, position)

    def _note(self, lease: Lease, position: int) -> bool:
        pieces, self._pieces = self._pieces, []
        return self._desk.note(lease, pieces, position)

    def _fill(self, reply: Reply, at_least: int, limit: int) -> int:
        """Gather bytes in the buffer: as many as are asked for, fewer where they come slowly, 0 at the end.

        What came before a connection broke is returned; the next call tells.
        """
        if self._problem:
            raise self._problem
        count, begun = 0, self._desk.clock()
        try:
            while count < at_least:
                got = read_some(reply.stream, self._buffer[count:limit])
                if not got:
                    break
                count += got
                if self._desk.clock() > begun + GATHER and count >= HEAD:
                    break
        except (OSError, http.client.HTTPException) as error:
            said = f"the transfer broke: {explain(error, self._timeout)}"
            self._problem = Broken(said, slow=isinstance(error, (socket.timeout, TimeoutError)))
            if not count:
                raise self._problem from None
        self.fetched += count
        self._notice_trickle(count)
        return count

    def _notice_trickle(self, count: int) -> None:
        self._count += count
        passed = self._desk.clock() - self._since
        if passed > self._timeout:
            if self._count < SLOWEST * passed:
                self._problem = Broken(f"it gives only {self._count / passed:.0f} bytes/s", slow=True)
            self._since, self._count = self._desk.clock(), 0

    def _check_head(self, lease: Lease, reply: Reply, count: int) -> None:
        """Look at the first bytes of a file before they are written."""
        part, head = lease.part, bytes(self._buffer[:count])
        if count < min(HEAD, part.size):
            raise self._problem or Broken("the connection was closed too early")
        if self._check_start:
            try:
                self._check_start(part.file, head, count if part.size == UNKNOWN else part.size)
            except LlmfleetError as error:
                raise _RefusedError(error) from None
        if UNKNOWN in (reply.total, part.file.size):
            self._refuse_page(lease, reply, head)

    def _write(self, lease: Lease, handle: int, position: int, count: int) -> int:
        """Write what is in the buffer, without touching what others have written or may write; return where it ends."""
        end = position + count
        pieces = [(position, end)]
        if lease.whole and lease.part.single:
            pieces = self._desk.unwritten(lease, position, end)
        for first, last in pieces:
            at = first
            while at < last:
                at += os.pwrite(handle, self._buffer[at - position : last - position], at)
            if self._pieces and self._pieces[-1][1] == first:
                first = self._pieces.pop()[0]
            self._pieces.append((first, last))
        return end

    def _end(self, lease: Lease, position: int) -> None:
        """Say what it means that no more bytes come."""
        part = lease.part
        if part.size != UNKNOWN:
            raise Broken("the connection was closed too early")
        self._note(lease, position)
        with self._desk.changed:
            part.learn(position)


class _RefusedError(Exception):
    """Another attempt at the same source is of no use."""

    def __init__(self, problem: LlmfleetError) -> None:
        super().__init__(str(problem))
        self.problem = problem
