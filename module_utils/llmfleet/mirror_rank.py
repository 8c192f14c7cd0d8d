"""Which of several candidates is used, and for how long a choice is kept. Pure."""

from __future__ import annotations

import hashlib
import json
import typing as t
from dataclasses import dataclass

Data = dict[str, t.Any]

STALE_AFTER = 14 * 86400
"""Seconds behind the newest candidate after which an index counts as stale: that mirror has stopped copying."""

ALIKE = 0.75
"""Candidates that reach this part of the best one's speed keep the order in which they were given."""

NOISE = 0.1
"""Seconds below which the time of a transfer says nothing about a mirror."""

JUDGED_AFTER = 1.0
"""Seconds that a transfer must have taken to be called slow: a tiny object is all latency."""

KEPT = 30 * 86400
"""Seconds after which a choice is dropped from the cache."""

CLOCK_TOLERANCE = 86400
"""Seconds by which an index may lie in the future; later ones say nothing about the age of the others."""

CACHE_VERSION = 1


@dataclass(frozen=True)
class Sample:
    """A transfer that tells a candidate's speed: 0 bytes where there is no object to measure on."""

    size: int = 0
    seconds: float = 0.0

    def rate(self) -> float:
        """Return bytes per second."""
        return self.size / max(self.seconds, 0.001)

    def is_slow(self, floor: float) -> bool:
        """Whether the transfer ran below ``floor`` bytes per second for long enough to say so."""
        return bool(self.size) and self.seconds >= JUDGED_AFTER and self.rate() < floor


@dataclass(frozen=True)
class Measured:
    """A candidate that serves the right thing; ``version`` is the newest one of the wanted package there."""

    name: str
    url: str
    sample: Sample
    seconds: float
    released: float | None = None
    slow: bool = False
    version: str = ""

    def score(self) -> float:
        """Return what is compared: speed, or quickness of the answer where there is no speed."""
        if self.sample.size:
            return self.sample.size / max(self.sample.seconds, NOISE)
        return 1 / max(self.seconds, NOISE)


def rank(measured: t.Sequence[Measured], now: float) -> list[Data]:
    """Return the candidates (in the order given) best first: fresh ones, stale ones, slow ones, each by speed."""
    dates = [each.released for each in measured if each.released and each.released <= now + CLOCK_TOLERANCE]
    newest = max(dates, default=0.0)
    stale = {id(each) for each in measured if each.released and each.released < newest - STALE_AFTER}
    ranked: list[Measured] = []
    for tier in ((False, False), (False, True), (True, False), (True, True)):
        left = [each for each in measured if (each.slow, id(each) in stale) == tier]
        while left:
            enough = max(each.score() for each in left) * ALIKE
            ranked += [each for each in left if each.score() >= enough]
            left = [each for each in left if each.score() < enough]
    return [
        {
            "name": each.name,
            "url": each.url,
            "bytes_per_second": round(each.sample.rate()) if each.sample.size else 0,
            "seconds": round(each.seconds, 3),
            "released": None if each.released is None else int(each.released),
            "stale": id(each) in stale,
            "slow": each.slow,
            "package_version": each.version,
        }
        for each in ranked
    ]


def cache_key(inputs: t.Mapping[str, t.Any]) -> str:
    """Return the name under which the choice made from ``inputs`` is kept."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _entries(text: str) -> dict[str, Data]:
    """Return the choices in a cache file; what cannot be read is no cache."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("version") != CACHE_VERSION:
        return {}
    entries = content.get("entries")
    return {key: entry for key, entry in entries.items() if _is_entry(entry)} if isinstance(entries, dict) else {}


def _is_entry(entry: t.Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("measured_at"), (int, float))
        and all(_is_rows(entry.get(name), key) for name, key in (("ranked", "url"), ("rejected", "why")))
        and bool(entry["ranked"])
    )


def _is_rows(rows: t.Any, key: str) -> bool:
    return isinstance(rows, list) and all(isinstance(row, dict) and {"name", "url", key} <= row.keys() for row in rows)


def cached(text: str, key: str, now: float, max_age: float) -> Data | None:
    """Return the choice kept in the cache file's ``text``, None when there is none or it is too old.

    One from the future was made with a wrong clock: it would stay fresh for too long.
    """
    entry = _entries(text).get(key)
    return entry if entry and 0 <= now - entry["measured_at"] < max_age else None


def with_choice(text: str, key: str, choice: Data) -> str:
    """Return the cache file with ``choice`` added, and without those that nobody asked for in a long time."""
    now = choice["measured_at"]
    entries = {name: entry for name, entry in _entries(text).items() if 0 <= now - entry["measured_at"] < KEPT}
    return json.dumps({"version": CACHE_VERSION, "entries": {**entries, key: choice}}, indent=1) + "\n"
