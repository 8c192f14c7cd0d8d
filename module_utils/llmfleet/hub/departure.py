"""Taking one model of a hub away from a host. Edge code."""

from __future__ import annotations

import typing as t
from contextlib import nullcontext

from ansible.module_utils.llmfleet.hub import presence, removal, repository_lock
from ansible.module_utils.llmfleet.hub.manifest import Manifest
from ansible.module_utils.llmfleet.hub.place import Place, models, spelt
from ansible.module_utils.llmfleet.hub.wanted import Done, Wanted


class Departure:
    """Removes a model, at all commits that were fetched for its words, unless it is wanted in others too."""

    def __init__(self, wanted: Wanted, place: Place, dry_run: bool, say: t.Callable[[str], None]) -> None:
        self._wanted = wanted
        self._place = place
        self._dry_run = dry_run
        self._say = say

    def done(self) -> Done:
        """Remove it, and say what that was."""
        if not self._published():
            return self._drop_partial()
        lock = repository_lock.locked(self._place, self._wanted.lock_timeout, self._say)
        with nullcontext() if self._dry_run else lock:
            return self._remove(self._published())

    def _published(self) -> list[Manifest]:
        given = self._wanted.manifest
        if given is None:
            return presence.published_as(self._place, self._wanted.asked)
        return [one for one in models(self._place) if (one.key, one.commit) == (given.key, given.commit)]

    def _remove(self, found: t.Sequence[Manifest]) -> Done:
        place, asked = self._place, self._wanted.asked
        paths: list[str] = []
        kept: list[Manifest] = []
        forgotten = False
        for manifest in found:
            if removal.other_words(place, manifest, asked):
                kept.append(manifest)
                known = removal.knows(place, manifest, asked)
                forgotten = forgotten or known
                if known and not self._dry_run:
                    removal.forget(place, manifest, asked)
            else:
                paths += removal.files_of(place, manifest)
                if not self._dry_run:
                    removal.forget(place, manifest)
        if len(kept) < len(found):
            return Done(True, "remove", "it is no longer wanted", before="".join(f"{path}\n" for path in paths))
        others = removal.other_words(place, kept[0], asked) if kept else []
        spelt_out = ", ".join(spelt(place.repo, words) for words in others)
        why = f"it is still wanted in other words ({spelt_out})" if kept else "it is not there"
        return Done(forgotten, "keep", why, kept[0] if kept else None, bool(kept))

    def _drop_partial(self) -> Done:
        """Remove what interrupted downloads left, which does not tell in which words it was asked for."""
        given = self._wanted.manifest
        rows = removal.partial(self._place)
        if given is not None:
            rows = [row for row in rows if row.path == self._place.incoming(given.key)]
        if not rows:
            return Done(False, "keep", "it is not there")
        if not self._dry_run:
            removal.remove(self._place.dest, rows)
        return Done(True, "remove", "only a part of it is there", before="".join(f"{row.path}\n" for row in rows))
