"""Where models of hubs lie on one host, and the notes about what was verified of them. Edge code, without decisions.

Below the store's directory there is the cache layout of Hugging Face's own tools, which engines read too, but without
links: a snapshot holds regular files, so that it can be mounted into a container by itself::

    hub/models--ORG--NAME/refs/<revision>             the commit
    hub/models--ORG--NAME/snapshots/<commit>/<files>  hard-linked between snapshots where the content is the same
    hub/models--ORG--NAME/.llmfleet/<commit>.json     what was verified, and which models were asked for in which words
    hub/models--ORG--NAME/.llmfleet/incoming-<key>/   files of a model that is arriving, which no engine looks at

A file is in a snapshot only when it is whole.
"""

from __future__ import annotations

import json
import os
import re
import typing as t
from contextlib import suppress
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub.manifest import Manifest, check_path, manifest_from

_REPO = re.compile(r"[A-Za-z0-9_-][\w.-]{0,95}/[A-Za-z0-9_-][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{16}")
_OWN = ".llmfleet"
_INCOMING = "incoming-"


@dataclass(frozen=True)
class Place:
    """Where the models of one repository are in the store ``dest``; makes paths, touches nothing.

    Raises BadInput for names that would lead out of the store.
    """

    dest: str
    repo: str

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo) or ".." in self.repo:
            raise BadInput(f"{self.repo[:200]!r} is not the name of a repository (org/name)")

    @property
    def root(self) -> str:
        return os.path.join(self.dest, "hub", "models--" + self.repo.replace("/", "--"))

    @property
    def own(self) -> str:
        """The folder of what only this project reads."""
        return os.path.join(self.root, _OWN)

    @property
    def lock(self) -> str:
        return os.path.join(self.own, "lock")

    def snapshot(self, commit: str) -> str:
        """Return the folder of the whole files of a commit."""
        return os.path.join(self.root, "snapshots", _commit(commit))

    def incoming(self, key: str) -> str:
        """Return the folder of the model ``key`` while it arrives."""
        if not _KEY.fullmatch(key):
            raise BadInput(f"{key[:100]!r} is not the key of a model (16 hexadecimal digits)")
        return os.path.join(self.own, _INCOMING + key)

    def note(self, commit: str) -> str:
        """Return the file that says what was verified of a commit."""
        return os.path.join(self.own, f"{_commit(commit)}.json")

    def ref(self, revision: str) -> str:
        """Return the file that holds the commit of a branch or tag."""
        check_path(revision)
        return os.path.join(self.root, "refs", revision)

    def location(self, manifest: Manifest) -> str:
        """Return what an engine is given: the entry file of a GGUF model, else the folder."""
        folder = self.snapshot(manifest.commit)
        return os.path.join(folder, manifest.entry) if manifest.entry else folder


def _commit(commit: str) -> str:
    if not _COMMIT.fullmatch(commit) or ".." in commit:
        raise BadInput(f"{commit[:100]!r} is not the name of a commit")
    return commit


@dataclass(frozen=True)
class Asked:
    """The words a model was asked for with; "" leaves it open."""

    source: str = ""
    quant: str = ""
    revision: str = ""
    file: str = ""
    """Path of the one GGUF file that was asked for."""
    format: str = ""

    @property
    def words(self) -> str:
        """Return it as one string, without the format, which the model itself has."""
        return "|".join((self.source, self.quant.upper(), self.revision, self.file))

    def same_but_source(self, words: str) -> bool:
        """Whether ``words`` ask for the same, maybe from another source."""
        return words.partition("|")[2] == self.words.partition("|")[2]


def spelt(repo: str, words: str) -> str:
    """Return ``Asked.words`` as users write them."""
    source, quant, revision, file = (*words.split("|", 3), "", "", "", "")[:4]
    before = f"{source}:" if source else ""
    behind = [f"{sign}{word}" for sign, word in (("/", file), (":", quant), ("@", revision)) if word]
    return f"{before}{repo}{''.join(behind)}"


def commits(place: Place) -> list[str]:
    """Return the commits that there are notes of."""
    with suppress(OSError):
        return sorted(name[: -len(".json")] for name in os.listdir(place.own) if name.endswith(".json"))
    return []


def models(place: Place) -> list[Manifest]:
    """Return the models that were published."""
    found = []
    for commit in commits(place):
        note = read_note(place, commit)
        found += [manifest for key in note["models"] if (manifest := noted_model(place, commit, note, key)) is not None]
    return found


def noted_model(place: Place, commit: str, note: t.Mapping[str, t.Any], key: str) -> Manifest | None:
    """Return the model ``key`` of a note, None where it makes no sense."""
    try:
        manifest = manifest_from(note["models"][key]["manifest"])
    except (BadInput, KeyError, TypeError):
        return None
    return manifest if (manifest.repo, manifest.commit, manifest.key) == (place.repo, commit, key) else None


def read_note(place: Place, commit: str) -> dict[str, t.Any]:
    """Return the note of a commit, `files` and `models`, without what of it makes no sense."""
    try:
        with open(place.note(commit), encoding="utf-8") as stream:
            note = json.load(stream)
    except (OSError, ValueError, RecursionError):
        note = {}
    parts: dict[str, t.Any] = {}
    for name in ("files", "models"):
        rows = note.get(name) if isinstance(note, dict) else None
        rows = rows if isinstance(rows, dict) else {}
        parts[name] = {key: row for key, row in rows.items() if isinstance(row, dict)}
    for row in parts["models"].values():
        if not isinstance(row.get("asked"), dict):
            row["asked"] = {}
    return parts


def make_folder(folder: str) -> None:
    """Make ``folder`` and what is missing of the way to it, all 0755, as engines, which are not root, go through."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
        if len(folder) < 2:
            break
    for path in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103 -- see above


def write_text(path: str, text: str) -> None:
    """Write a file that is whole or not there, 0644."""
    make_folder(os.path.dirname(path))
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(path + ".new", 0o644)
    os.replace(path + ".new", path)
