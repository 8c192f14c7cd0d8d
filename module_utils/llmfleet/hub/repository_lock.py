"""One process at a time brings or removes files of a repository. Edge code."""

from __future__ import annotations

import fcntl
import os
import time
import typing as t
from contextlib import contextmanager, suppress

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub.place import Place, make_folder


@contextmanager
def locked(place: Place, timeout: float, say: t.Callable[[str], None] = lambda _: None) -> t.Iterator[None]:
    """Hold the repository's lock; another process that has it is waited for, up to ``timeout`` seconds.

    Raises LlmfleetError that names the process.
    """
    until = time.monotonic() + timeout
    told = False
    while True:
        file = _open_lock(place)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                # who removes the repository removes the lock's file too
                if os.path.samestat(os.fstat(file), os.stat(place.lock)):
                    break
        except BlockingIOError:
            other = os.pread(file, 20, 0).decode(errors="replace").strip() or "unknown"
            if time.monotonic() >= until:
                os.close(file)
                raise LlmfleetError(
                    f"process {other} is bringing files of {place.repo} to {place.root}; wait for it and start again"
                ) from None
            if not told:
                say(f"waiting for process {other}, which is bringing files of {place.repo}")
                told = True
            time.sleep(0.2)
        os.close(file)
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def _open_lock(place: Place) -> int:
    tries = 100
    while True:
        try:
            make_folder(place.own)
            return os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            # the folder was made and somebody removed it, unless it can not be made
            tries -= 1
            if not tries:
                raise
