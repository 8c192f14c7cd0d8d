"""The digest of a file, taken in order right behind the connections that write it, while its pages are cached."""

from __future__ import annotations

import os
import typing as t

from ansible.module_utils.llmfleet.hub.desk import Desk
from ansible.module_utils.llmfleet.hub.digest import Digest, expected
from ansible.module_utils.llmfleet.hub.disk import disk_error
from ansible.module_utils.llmfleet.hub.part import Part
from ansible.module_utils.llmfleet.hub.reply import READ, UNKNOWN


class Follower:
    """What one thread does: follows one file of the queue after the other to its end."""

    def __init__(self, desk: Desk, queue: t.Iterator[Part], folder: str, sync: bool) -> None:
        self._desk = desk
        self._queue = queue
        self._folder = folder
        self._sync = sync
        self._buffer = memoryview(bytearray(READ))

    def run(self) -> None:
        """Follow files until none is left or the transfer is over."""
        try:
            while True:
                with self._desk.changed:
                    part = next(self._queue, None)
                if part is None:
                    return
                while not (part.done or self._desk.problem):
                    self._follow(part)
        except OSError as error:
            self._desk.fail(disk_error(error, self._folder))
        except BaseException as problem:  # noqa: BLE001 - handed to the thread that waits
            self._desk.fail(problem)

    def _follow(self, part: Part) -> None:
        """Read a file from its beginning until it is whole, or begins anew; then judge."""
        with self._desk.changed:
            handle, generation = part.open(), part.generation
        digest, position = None, 0
        while True:
            reach = self._wait(part, generation, position)
            if reach is None:
                return
            digest = digest or Digest(part.file, part.size)
            while position < reach:
                count = os.preadv(handle, [self._buffer[: reach - position]], position)
                if not count:
                    if part.generation != generation:
                        return
                    raise OSError(0, "it became shorter while it was being written", part.path)
                digest.update(self._buffer[:count])
                position += count
            if position == part.size:
                self._judge(part, digest.found)
                return

    def _wait(self, part: Part, generation: int, position: int) -> int | None:
        """Return how far the file can be read, beyond ``position``; None when it begins anew or nothing matters."""
        with self._desk.changed:
            while not (self._desk.problem or part.generation != generation):
                # a git id begins with the size
                if part.size != UNKNOWN:
                    reach = part.have.reach(position)
                    if reach > position or position == part.size:
                        return reach
                self._desk.changed.wait()
            return None

    def _judge(self, part: Part, found: str) -> None:
        if expected(part.file) not in ("", found):
            self._desk.wrong(part, found)
            return
        os.fchmod(part.handle, 0o644)
        if self._sync:
            os.fsync(part.handle)
        self._desk.verified(part, found, os.fstat(part.handle).st_mtime_ns)
