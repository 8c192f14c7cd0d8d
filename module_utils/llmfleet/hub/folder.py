"""A folder as a source of models: a disk that was carried there, a network file system, or the cache of another tool.

Below the folder a repository is ORG/NAME, or models--ORG--NAME of a Hugging Face cache (in `hub/` too), or the folder
itself when it bears the repository's name. Edge code.
"""

from __future__ import annotations

import hashlib
import os
import re
import typing as t
from contextlib import suppress
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import place as places
from ansible.module_utils.llmfleet.hub.listing import MAX_FILES
from ansible.module_utils.llmfleet.hub.manifest import Listing, Manifest, RepoFile, check_path
from ansible.module_utils.llmfleet.hub.reply import Reply, TransferError, file_reply
from ansible.module_utils.llmfleet.hub.sources import Source

_BRANCHES = ("", "main", "master")
_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _Found:
    path: str
    commit: str = ""
    """Of a cache; "" where none is known."""
    root: str = ""
    """Of a cache: the folder of the repository."""


def list_repo(source: Source, repo: str, revision: str) -> Listing | None:
    """Return what the folder holds of a repository, None when it holds nothing; raises OSError."""
    found = _find(source.place, repo, revision)
    if found is None:
        return None
    digests = _noted(found)
    files, marks = [], []
    for folder, folders, names in os.walk(found.path, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            here = os.path.join(folder, name)
            path = os.path.relpath(here, found.path).replace(os.sep, "/")
            if name.startswith(".") or not os.path.isfile(here):
                continue
            check_path(path)
            _check_link(source, found, here)
            status = os.stat(here)
            digest = digests.get((path, status.st_size, status.st_mtime_ns), "") or _of_blob(found, here)
            kind, _, value = digest.partition(":")
            is_git = kind == "git"
            files.append(RepoFile(path, status.st_size, "" if is_git else value, value if is_git else ""))
            marks.append(f"{path}\0{status.st_size}\0{digest or status.st_mtime_ns}")
            if len(files) > MAX_FILES:
                raise BadInput(f"{found.path} holds more than {MAX_FILES} files; that is no model's folder")
    if not files:
        return None
    mark = hashlib.sha256("\n".join(marks).encode("utf-8", "surrogateescape")).hexdigest()
    return Listing(source.name, repo, found.commit or f"folder-{mark[:32]}", tuple(files), revision)


def _check_link(source: Source, found: _Found, path: str) -> None:
    """Raise BadInput for a link that leads out of what was given as a source: what it shows was not meant."""
    if os.path.islink(path):
        real = os.path.realpath(path)
        if not any(real.startswith(os.path.realpath(top).rstrip("/") + "/") for top in (source.place, found.path)):
            raise BadInput(f"{path} is a link that leads out of {source.place}; copy the folder with `cp -L`")


def nothing_there(source: Source, repo: str, revision: str) -> str:
    """Return the sentence that goes with None of ``list_repo``."""
    if not os.path.isdir(source.place):
        return f"there is no folder {source.place}; mount or create it, or take it out of the sources"
    if revision not in _BRANCHES and _find(source.place, repo, "") is not None:
        return f"it holds {repo}, and no revision {revision} of it"
    where = os.path.join(source.place, repo)
    return f"it holds nothing of {repo} (neither {where} nor {_cache_name(repo)} of a Hugging Face cache)"


def open_range(source: Source, what: Manifest | Listing, file: RepoFile, start: int) -> Reply:
    """Open a file of the folder at ``start``; raises TransferError."""
    found = _find(source.place, what.repo, what.asked) or _find(source.place, what.repo, what.commit)
    if found is None:
        raise TransferError(f"{source.name}: {nothing_there(source, what.repo, what.asked)}")
    path = os.path.join(found.path, file.path)
    try:
        stream = open(path, "rb", buffering=0)  # noqa: SIM115 -- whoever reads it closes it
        status = os.fstat(stream.fileno())
        stream.seek(start)
    except OSError as error:
        raise TransferError(f"{path} cannot be read: {error.strerror or error}") from None
    return file_reply(t.cast("t.Any", stream), status.st_size, start, source.name)


def _cache_name(repo: str) -> str:
    return "models--" + repo.replace("/", "--")


def _find(top: str, repo: str, revision: str) -> _Found | None:
    for cache in (top, os.path.join(top, "hub")):
        root = os.path.join(cache, _cache_name(repo))
        if os.path.isdir(os.path.join(root, "snapshots")):
            commit = _cached_commit(root, revision)
            path = os.path.join(root, "snapshots", commit)
            if commit and os.path.isdir(path):
                return _Found(path, commit, root)
    if revision not in _BRANCHES and not revision.startswith("folder-"):
        return None
    plain = os.path.join(top, *repo.split("/"))
    if os.path.isdir(plain):
        return _Found(plain)
    if os.path.basename(top.rstrip("/")).lower() in (repo.split("/")[1].lower(), repo.replace("/", "--").lower()):
        return _Found(top) if os.path.isdir(top) else None
    return None


def _cached_commit(root: str, revision: str) -> str:
    """Return the commit of a revision in a cache, "" when it does not know it."""
    names = [revision] if revision not in _BRANCHES else ["main", "master"]
    for name in names:
        with suppress(OSError, ValueError, BadInput):
            check_path(name)
            with open(os.path.join(root, "refs", name), encoding="ascii") as stream:
                commit = stream.read(100).strip()
            if _SHA1.fullmatch(commit):
                return commit
    if _SHA1.fullmatch(revision):
        return revision
    there = os.listdir(os.path.join(root, "snapshots"))
    # a cache without refs, copied by hand
    return there[0] if revision in _BRANCHES and len(there) == 1 and _SHA1.fullmatch(there[0]) else ""


def _noted(found: _Found) -> dict[tuple[str, int, int], str]:
    """Return (path, size, time) → digest of the files that a store of ours verified, as long as they are the same."""
    if not found.root:
        return {}
    dest, name = os.path.split(os.path.dirname(found.root))
    repo = os.path.basename(found.root)[len("models--") :].replace("--", "/", 1)
    if name != "hub":
        return {}
    rows = {}
    with suppress(BadInput):
        note = places.read_note(places.Place(dest, repo), found.commit)
        for path, row in note["files"].items():
            with suppress(KeyError, TypeError, AttributeError):
                rows[(path, row["size"], row["mtime_ns"])] = str(row["digest"])
    return rows


def _of_blob(found: _Found, path: str) -> str:
    """Return the digest by which Hugging Face's tools call the file that a link of theirs points at."""
    if not os.path.islink(path) or not found.root:
        return ""
    name = os.path.basename(os.path.realpath(path))
    if _SHA256.fullmatch(name):
        return f"sha256:{name}"
    return f"git:{name}" if _SHA1.fullmatch(name) else ""
