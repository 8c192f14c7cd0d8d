"""What a repository of a hub holds, and which of its files make one model. Pure."""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import asdict, dataclass, fields

from ansible.module_utils.llmfleet.errors import BadInput

GGUF = "gguf"
SAFETENSORS = "safetensors"


@dataclass(frozen=True)
class RepoFile:
    """A file of a repository; at least one digest is known, unless the hub told none."""

    path: str
    """Relative to the repository, with `/`."""
    size: int
    """Bytes."""
    sha256: str = ""
    """Of large files (Git LFS, Xet); ModelScope tells it for all."""
    blob_id: str = ""
    """Git's: sha1 of `blob <size>`, a NUL byte and the content."""

    @property
    def digest(self) -> str:
        """What identifies its content: `sha256:…` or, for want of one, `git:…`."""
        return f"sha256:{self.sha256}" if self.sha256 else f"git:{self.blob_id}"


@dataclass(frozen=True)
class Listing:
    """What a source says about a repository at one commit."""

    source: str
    """Name of the source that answered."""
    repo: str
    commit: str
    files: tuple[RepoFile, ...]
    asked: str = ""
    """The revision that was asked for: a branch, a tag or a commit; "" is the hub's default branch."""

    def as_data(self) -> dict[str, t.Any]:
        """Return it as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True)
class Manifest:
    """The files of a repository that make one model, at one commit."""

    repo: str
    commit: str
    format: str
    """GGUF or SAFETENSORS."""
    files: tuple[RepoFile, ...]
    entry: str = ""
    """Path of the file that engines are given (the first part of a split GGUF); "" where it is the whole folder."""
    quant: str = ""
    """Of a GGUF model, as the names of its files spell it, such as Q4_K_M."""
    source: str = ""
    """Name of the source that listed it."""
    asked: str = ""
    """The revision that was asked for."""
    why: str = ""
    """Why these files, for the plan."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def key(self) -> str:
        """What identifies the content, whatever repository or commit it came from: 16 hexadecimal digits."""
        rows = sorted(f"{file.path}\0{file.size}\0{file.digest}" for file in self.files)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]

    def as_data(self) -> dict[str, t.Any]:
        """Return it as JSON-able data."""
        return asdict(self)


def _files(rows: t.Any) -> tuple[RepoFile, ...]:
    files = tuple(RepoFile(**row) for row in rows)
    for file in files:
        _check_types(file, size=file.size)
        check_path(file.path)
    return files


def _check_types(found: t.Any, size: t.Any = 0) -> None:
    """Raise TypeError unless all plain fields are words and ``size`` a count."""
    others = ("files", "size")
    wrong = [
        one.name for one in fields(found) if one.name not in others and not isinstance(getattr(found, one.name), str)
    ]
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        wrong.append("size")
    if wrong:
        raise TypeError(f"{wrong[0]} is of the wrong kind")


def check_path(path: str) -> None:
    """Raise BadInput for a path of a repository that would lead out of a folder."""
    parts = path.split("/")
    if not path or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise BadInput(f"the repository lists a file called {path[:100]!r}, which is no safe path; nothing was fetched")


def listing_from(data: t.Mapping[str, t.Any]) -> Listing:
    """Return the Listing that ``as_data`` made; raises BadInput for anything else."""
    try:
        listing = Listing(**{**data, "files": _files(data["files"])})
        _check_types(listing)
        return listing
    except (TypeError, KeyError) as error:
        raise BadInput(f"not the listing of a repository as hub_listing returns it: {error}") from None


def manifest_from(data: t.Mapping[str, t.Any]) -> Manifest:
    """Return the Manifest that ``as_data`` made; raises BadInput for anything else."""
    try:
        manifest = Manifest(**{**data, "files": _files(data["files"])})
        _check_types(manifest)
        return manifest
    except (TypeError, KeyError) as error:
        raise BadInput(f"not the manifest of a model as hub_listing or the plan makes it: {error}") from None
