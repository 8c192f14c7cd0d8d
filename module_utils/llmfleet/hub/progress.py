"""How far a transfer has come, in numbers and in a line for a log."""

from __future__ import annotations

import collections
import time
from contextlib import suppress
from dataclasses import dataclass

WINDOW = 30.0
"""Seconds that the speed is measured over."""


@dataclass(frozen=True)
class State:
    """How far a transfer has come."""

    files: int
    files_done: int
    """Whole and verified."""
    size: int
    """Bytes of all files, as far as known."""
    done: int
    """Bytes that are on the disk."""
    speed: float
    """Bytes per second, lately."""
    working_on: str = ""
    """Path of a file that is under way."""

    @property
    def eta(self) -> float | None:
        """Seconds that the rest takes at this speed, None when nothing moves."""
        return (self.size - self.done) / self.speed if self.speed > 0 else None

    def __str__(self) -> str:
        percent = 100 * self.done // self.size if self.size else 100
        eta = self.eta
        left = "" if eta is None or self.done >= self.size else f", {_clock(eta)} left"
        of = f"file {min(self.files_done + 1, self.files)} of {self.files}"
        name = f" ({self.working_on})" if self.working_on else ""
        return f"{of}{name}: {_bytes(self.done)} of {_bytes(self.size)}, {percent} %, {_bytes(self.speed)}/s{left}"


class Meter:
    """Measures speed over the last seconds."""

    def __init__(self) -> None:
        self._seen: collections.deque[tuple[float, int]] = collections.deque()

    def speed(self, fetched: int, now: float) -> float:
        """Return bytes per second, ``fetched`` bytes having come by ``now`` (seconds)."""
        self._seen.append((now, fetched))
        while len(self._seen) > 2 and self._seen[0][0] < now - WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        return (fetched - before) / (now - since) if now > since else 0.0


class Log:
    """A log file with a line per state; one that cannot be written is done without."""

    def __init__(self, path: str) -> None:
        self._path = path

    def line(self, text: str) -> None:
        """Append a line with the time."""
        if self._path:
            with suppress(OSError), open(self._path, "a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")


def _bytes(count: float) -> str:
    if count < 1000:
        return f"{count:.0f} bytes"
    unit = next((number for number in (1, 2) if count < 1000 ** (number + 1)), 3)
    count /= 1000**unit
    return f"{count:.{0 if count >= 100 else 1}f} {('kB', 'MB', 'GB')[unit - 1]}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
