"""What the ref `latest` means now: the commit at the head of a git source, else the newest release on the index.

The decision is here, and what it asks is passed in. Its answer is exact, so the image made from it has an identity
like any other: the same answer tomorrow is the same image, and nothing is built.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, replace

from ansible.module_utils.llmfleet.image_request import is_commit
from ansible.module_utils.llmfleet.image_source import Source, SourceError, for_ref, normalized, pick_sdist
from ansible.module_utils.llmfleet.source_fetch import Fetcher

LATEST = "latest"


class Asks(t.Protocol):
    """The two questions; both raise SourceError when there is no answer."""

    def head(self, source: Source) -> str:
        """Return the commit that a git source names as its head."""

    def newest(self, source: Source) -> tuple[str, str]:
        """Return (version, sha256) of the newest release of an sdist on the package index."""


@dataclass(frozen=True)
class Latest:
    """An exact ref and the candidates that deliver it; ``ref`` is "" when nothing answered."""

    ref: str
    sources: tuple[Source, ...]
    origin: str  # label of the candidate that answered, "" when none did
    why: str


def resolve(
    candidates: t.Sequence[Source], asks: Asks, current: str = "", note: t.Callable[[str, str], None] = lambda *_: None
) -> Latest:
    """Return what `latest` means; ``note`` hears of each candidate and what became of it.

    ``current`` is the ref in use. Where it is a commit that came from git and git is silent today, it stays: the
    newest release on the index is often older, and a bad day of the network must not roll the fleet back.
    """
    for source in candidates:
        if source.kind != "git":
            continue
        if source.ref:
            note(source.label(), f"carries {source.ref[:12]} only, so it cannot tell what is newest")
            continue
        try:
            commit = asks.head(source)
        except SourceError as problem:
            note(source.label(), str(problem))
            continue
        note(source.label(), f"is at {commit[:12]}")
        return Latest(commit, _delivering(candidates, commit), source.label(), f"the head of {source.label()}")
    sdists = [source for source in candidates if source.kind == "sdist"]
    if is_commit(current) and current not in {source.ref for source in sdists}:
        rows = _delivering(candidates, current)
        if rows:
            why = f"no git source answers, so the commit in use, {current[:12]}, stays"
            return Latest(current, rows, "", why)
    return _newest_release(candidates, sdists, asks, note)


def _newest_release(
    candidates: t.Sequence[Source], sdists: t.Sequence[Source], asks: Asks, note: t.Callable[[str, str], None]
) -> Latest:
    asked: set[str] = set()
    for source in sdists:
        if normalized(source.where) in asked:
            continue
        asked.add(normalized(source.where))
        label = f"sdist {source.where}"
        try:
            version, sha256 = asks.newest(source)
        except SourceError as problem:
            note(label, str(problem))
            continue
        note(label, f"is at {version}")
        why = f"the newest release of {source.where} on the package index"
        for row in sdists:  # a release whose commit the inventory knows is that commit, wherever it is taken from
            if row.ref and row.version == version and normalized(row.where) == normalized(source.where):
                if row.sha256 and row.sha256 != sha256:
                    note(label, f"{version} has sha256 {sha256} on the index, but {row.sha256} in the inventory")
                    break
                return Latest(row.ref, _delivering(candidates, row.ref), label, why)
        else:
            exact = replace(source, version=version, sha256=sha256, ref="")
            return Latest(f"{source.where}-{version}", (exact,), label, why)
    return Latest("", (), "", "no git source and no package index tells what is newest")


def _delivering(candidates: t.Sequence[Source], ref: str) -> tuple[Source, ...]:
    """Return the candidates known to carry ``ref``; an archive without a ref may hold anything."""
    usable, _passed = for_ref(candidates, ref)
    return tuple(source for source in usable if source.kind == "git" or source.ref)


class Questions:
    """The questions put to a host's git and package index. Edge code."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def head(self, source: Source) -> str:
        """Return the commit at the head of ``source``."""
        self._fetcher.probe(source)
        said = self._fetcher.git_says("ls-remote", "--quiet", source.where, "HEAD")
        found = re.search(r"^([0-9a-f]{40})\tHEAD$", said, re.MULTILINE)
        if not found:
            raise SourceError("it has no HEAD; name a repository with a default branch")
        return found[1]

    def newest(self, source: Source) -> tuple[str, str]:
        """Return the newest release on the package index."""
        version, file = pick_sdist(self._fetcher.listed(source.where), source.where, "", "")
        return version, file.sha256
