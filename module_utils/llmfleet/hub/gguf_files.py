"""Which models a repository of GGUF files holds, each in one file or in parts. Pure.

A repository holds one model several times, in types of weights, beside GGUF files that are no models.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.hub import quants
from ansible.module_utils.llmfleet.hub.manifest import Listing, RepoFile

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})", re.DOTALL)
# projectors of images and sound, statistics, draft heads and vocabularies are GGUF files but no models
_NO_MODEL = re.compile(r"(?i)(?:^|[-._/])(?:mmproj|imatrix)|(?:^|/)mtp[-._/]|(?:^|[-._/])vocab[-._]")
PROJECTOR = re.compile(r"(?i)(?:^|[-._/])mmproj[^/]*\.gguf(?:@[^/]*)?$")
"""The name of a projector, which belongs to a model and is fetched when it is asked for by its file."""


@dataclass(frozen=True)
class Candidate:
    """A GGUF model of a repository that could be chosen."""

    quant: str
    """The type of its weights as the names of its files spell it; "" when they name none."""
    name: str
    """Path of its file in the repository without `.gguf` and without the number of the part."""
    files: tuple[RepoFile, ...]
    """All parts in order."""
    missing: str = ""
    """The part that the repository lacks; such a model can not be used."""

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(file.size for file in self.files)

    @property
    def word(self) -> str:
        """What stands for it after the colon of a reference: its type or, for want of one, its name."""
        return self.quant or self.name.rpartition("/")[2]

    def as_data(self) -> dict[str, t.Any]:
        """Return it as JSON-able data for plans."""
        return {"quant": self.word, "files": [file.path for file in self.files], "size": self.size}


def candidates(listing: Listing) -> list[Candidate]:
    """Return the types in which a repository holds its GGUF model whole, the best first."""
    return _main(listing, whole_models(listing))


def whole_models(listing: Listing) -> list[Candidate]:
    """Return all GGUF models that are whole in a repository, the best first."""
    whole: dict[str, Candidate] = {}
    for row in sorted(all_models(listing), key=lambda row: len(row.files)):
        # some publishers give one model in one file and in parts
        if not row.missing:
            whole.setdefault(row.name, row)
    return sorted(whole.values(), key=lambda row: (-quants.worth(row.quant), -row.size, row.name))


def _main(listing: Listing, rows: t.Sequence[Candidate]) -> list[Candidate]:
    """Return the rows of the repository's one model: should it hold several, of that it is called after, or of most."""
    groups: dict[str, list[Candidate]] = {}
    for row in rows:
        groups.setdefault(_stem(row), []).append(row)
    name = listing.repo.rpartition("/")[2].lower()
    best = max(groups, key=lambda stem: (stem in name, len(groups[stem]), len(stem)), default="")
    return groups.get(best, [])


def _stem(row: Candidate) -> str:
    """Return the name of the model in a file's name, without the type of its weights."""
    name = row.name.rpartition("/")[2].lower()
    at = name.rfind(row.quant.lower()) if row.quant else -1
    return (name if at < 0 else name[:at] + name[at + len(row.quant) :]).strip("-._")


def matching(word: str, rows: t.Sequence[Candidate]) -> list[Candidate]:
    """Return the rows that ``word`` means: those of the type, else of that name."""
    found = [row for row in rows if row.quant and quants.same(row.quant, word)]
    exact = [row for row in found if row.quant.lower() == word.lower()]
    # a spelling that is there as such is meant; `Q4_K` is Q4_K_M only where no file is called Q4_K
    found = exact or found
    if len(found) > 1:
        # the same files once more in a folder of their own
        contents = {tuple(file.digest for file in row.files) for row in found}
        found = found[:1] if len(contents) == 1 else found
    return found or [row for row in rows if row.name.rpartition("/")[2].lower() == word.lower()]


def all_models(listing: Listing) -> list[Candidate]:
    """Return the GGUF models of a repository, whole or not, in the order of their names."""
    sets: dict[tuple[str, int], dict[int, RepoFile]] = {}
    for file in listing.files:
        hidden = any(part.startswith(".") for part in file.path.split("/"))
        if hidden or not file.path.lower().endswith(".gguf") or _NO_MODEL.search(file.path):
            continue
        stem = file.path[: -len(".gguf")]
        split = _PART.fullmatch(stem)
        if split and int(split.group(3)) > 0:
            sets.setdefault((split.group(1), int(split.group(3))), {})[int(split.group(2))] = file
        else:
            sets[(stem, 0)] = {1: file}
    return [_candidate(name, count, parts) for (name, count), parts in sorted(sets.items())]


def _candidate(name: str, count: int, parts: t.Mapping[int, RepoFile]) -> Candidate:
    files = tuple(parts[number] for number in sorted(parts) if not count or 1 <= number <= count)
    lacking = next((number for number in range(1, count + 1) if number not in parts), 0)
    missing = f"{name.rpartition('/')[2]}-{lacking:05d}-of-{count:05d}.gguf" if lacking else ""
    return Candidate(quants.named_in(name + ".gguf"), name, files, missing)
