"""All candidates against each other: what one call of mirror_probe does."""

from __future__ import annotations

import os
import ssl
import time
import typing as t
import urllib.request
from dataclasses import asdict, dataclass

from ansible.module_utils.llmfleet import mirror_check, mirror_edge, mirror_rank, registry_check
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.mirror_check import Want
from ansible.module_utils.llmfleet.mirror_edge import OverdueError, Visit
from ansible.module_utils.llmfleet.mirror_index import Wrong
from ansible.module_utils.llmfleet.mirror_rank import Data, Measured, Sample

GRACE = 0.5
"""Seconds that a candidate gets to say by itself how far it came in its time."""


@dataclass(frozen=True)
class Race:
    """The candidates as (name, url), and by what they are judged."""

    candidates: tuple[tuple[str, str], ...]
    want: Want
    timeout: float
    floor: float
    max_age: float
    ca_bundle: str
    context: ssl.SSLContext

    def key(self) -> str:
        """Return the name under which the choice is kept: the same for the same question on the same way there."""
        return mirror_rank.cache_key(
            {
                "candidates": self.candidates,
                "want": asdict(self.want),
                "limits": [self.timeout, self.floor],
                "way": [self.ca_bundle, urllib.request.getproxies()],
            }
        )

    def remembered(self, text: str) -> Data | None:
        """Return the choice kept in the cache file's ``text`` if it is fresh."""
        return mirror_rank.cached(text, self.key(), time.time(), self.max_age)

    def remember(self, text: str, choice: Data) -> str:
        """Return the cache file with ``choice`` in it."""
        return mirror_rank.with_choice(text, self.key(), choice)

    def run(self) -> Data:
        """Ask all candidates; return {ranked, rejected, measured_at}."""
        visits = [Visit(self.context, self.timeout) for _ in self.candidates]
        jobs = [self._job(visit, url) for visit, (_, url) in zip(visits, self.candidates)]
        results = mirror_edge.all_at_once(jobs, self.timeout + GRACE)
        measured, rejected = [], []
        for (name, url), visit, found in zip(self.candidates, visits, results):
            try:
                measured.append(self._judge(name, url, visit, found))
            except Wrong as why:
                rejected.append({"name": name, "url": url, "why": str(why)})
        now = time.time()
        return {"ranked": mirror_rank.rank(measured, now), "rejected": rejected, "measured_at": round(now, 3)}

    def _job(self, visit: Visit, url: str) -> t.Callable[[], tuple[Sample | Wrong | None, float]]:
        checks = {
            mirror_check.REGISTRY: registry_check.registry,
            mirror_check.HUB: registry_check.registry,
            mirror_check.URL: mirror_check.file,
        }
        check = checks.get(self.want.kind, mirror_check.packages)

        def job() -> tuple[Sample | Wrong | None, float]:
            outcome: Sample | Wrong | None
            try:
                outcome = check(visit, url, self.want)
            except Wrong as why:
                outcome = why
            except OverdueError:
                outcome = None
            return outcome, visit.elapsed()

        return job

    def _judge(self, name: str, url: str, visit: Visit, found: tuple[Sample | Wrong | None, float] | None) -> Measured:
        outcome, seconds = found or (None, visit.elapsed())
        if isinstance(outcome, Wrong):
            raise outcome
        sample = outcome or mirror_check.overdue(visit, self.floor)
        slow = outcome is None or sample.is_slow(self.floor)
        return Measured(name, url, sample, seconds, visit.released, slow, visit.version)


def prepare(params: t.Mapping[str, t.Any]) -> Race:
    """Return the race that mirror_probe's parameters describe. Raises BadInput."""
    kind = params["kind"]
    candidates = []
    for row in params["candidates"]:
        host = mirror_check.host_of(row["url"])
        # the URL of a file is taken to the letter
        candidates.append((row["name"] or host, row["url"] if kind == mirror_check.URL else row["url"].rstrip("/")))
    if not candidates:
        raise BadInput("`candidates` is empty; name at least one mirror")
    for name in ("timeout", "sample_bytes"):
        if params[name] <= 0:
            raise BadInput(f"`{name}` must be more than 0, not {params[name]}")
    want = Want(
        kind,
        params["suite"],
        params["component"],
        params["architecture"],
        params["package"],
        params["image"],
        params["sha256"].lower(),
        params["sample_bytes"],
    )
    mirror_check.check_want(want)
    bundle = params["ca_bundle"]
    if bundle and not os.path.isfile(bundle):
        raise BadInput(f"`ca_bundle` {bundle} is not a file on this host")
    try:
        context = mirror_edge.tls_context(bundle)
    except OSError as error:
        raise BadInput(f"`ca_bundle` {bundle} holds no certificates in PEM form ({error.strerror or error})") from None
    return Race(
        tuple(candidates), want, params["timeout"], params["min_bytes_per_second"], params["max_age"], bundle, context
    )
