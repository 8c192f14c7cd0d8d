"""What of a model is on one host, and whether it is whole. Edge code that changes nothing.

What was verified is not read again while size and time stay the same.
"""

from __future__ import annotations

import os
import stat
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.hub import digest
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.place import Asked, Place, commits, noted_model, read_note

QUICK = "quick"
FULL = "full"


@dataclass(frozen=True)
class State:
    """What is there of a model."""

    manifest: Manifest | None = None
    """The model, where it is known which files it has."""
    missing: tuple[RepoFile, ...] = ()
    damaged: tuple[RepoFile, ...] = ()
    """Files whose size or content is not what it should be."""
    why: t.Mapping[str, str] = field(default_factory=dict)
    """Path → what is wrong with a damaged file."""
    unnoted: tuple[RepoFile, ...] = ()
    """Files that are whole, which was found out by reading them."""
    crooked: tuple[RepoFile, ...] = ()
    """Whole files that are links, or that engines may not be able to read."""

    @property
    def present(self) -> bool:
        """Whether every file is there and whole."""
        return self.manifest is not None and not self.missing and not self.damaged

    @property
    def wanted(self) -> tuple[RepoFile, ...]:
        """The files to bring."""
        return (*self.missing, *self.damaged)


def state_of(place: Place, wanted: Asked | Manifest, verify: str = QUICK) -> State:
    """Return what is there of a model, asked for in words or known by its files; changes nothing.

    With QUICK a file that was verified before is read again only when its time has changed, with FULL every file is.
    A model asked for in words is found only where it was published with the same words, or is named by its commit
    or quantisation in them; the answer's manifest is None otherwise.
    """
    if isinstance(wanted, Manifest):
        return _look(place, wanted, verify)
    published = published_as(place, wanted)
    return _look(place, published[0], verify) if published else State()


def _look(place: Place, manifest: Manifest, verify: str) -> State:
    note = read_note(place, manifest.commit)
    folder = place.snapshot(manifest.commit)
    missing, damaged, unnoted, crooked, why = [], [], [], [], {}
    for file in manifest.files:
        path = os.path.join(folder, file.path)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(file)
            continue
        if os.path.islink(path) or stat.S_IMODE(status.st_mode) != 0o644:
            crooked.append(file)
        row = note["files"].get(file.path, {})
        if status.st_size != file.size:
            why[file.path] = f"it has {status.st_size} bytes instead of {file.size}"
        elif verify == QUICK and is_noted(row, status, file):
            continue
        else:
            expected = digest.expected(file) or row.get("digest", "")
            found = digest.digest_of_file(path, file)
            if expected and found != expected:
                why[file.path] = f"its digest is {found} instead of {expected}"
            elif not is_noted(row, status, file):
                unnoted.append(file)
        if file.path in why:
            damaged.append(file)
    return State(manifest, tuple(missing), tuple(damaged), why, tuple(unnoted), tuple(crooked))


def is_noted(row: t.Mapping[str, t.Any], status: os.stat_result, file: RepoFile) -> bool:
    """Whether the note says that the file, as it stands, has the right content."""
    same = row.get("size") == status.st_size and row.get("mtime_ns") == status.st_mtime_ns
    return same and (not digest.expected(file) or row.get("digest") == file.digest)


def published_as(place: Place, asked: Asked) -> list[Manifest]:
    """Return the models that were published for these words, the latest first."""
    found: list[tuple[float, Manifest]] = []
    for commit in commits(place):
        note = read_note(place, commit)
        for key, row in note["models"].items():
            manifest = noted_model(place, commit, note, key)
            if manifest is not None and (not asked.format or asked.format == manifest.format):
                when = _match(asked, row, manifest)
                if when is not None:
                    found.append((when, manifest))
    return [manifest for _, manifest in sorted(found, key=lambda item: -item[0])]


def _match(asked: Asked, row: t.Mapping[str, t.Any], manifest: Manifest) -> float | None:
    """Return when the model was published for these words, or None where they do not mean it."""
    words = row["asked"]
    # who names no source takes the first that has it: what came from one of them will do
    fitting = [words[one] for one in words if one == asked.words or (not asked.source and asked.same_but_source(one))]
    times = [float(when) for when in fitting if isinstance(when, (int, float))]
    if times:
        return max(times)
    pinned = bool(asked.revision) and asked.revision == manifest.commit
    named = bool(asked.quant) and asked.quant.upper() == manifest.quant.upper()
    named = named or (bool(asked.file) and asked.file == manifest.entry)
    from_there = asked.source in ("", manifest.source)
    # a commit never moves; who names it and the file means this model, whatever it was first asked for as
    if pinned and from_there and (named or manifest.format != GGUF):
        return 0.0
    return None
