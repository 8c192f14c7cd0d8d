"""Models of hubs on one host: where their files lie, what was verified of them, and how a model becomes visible.

Below the store's directory there is the cache layout of Hugging Face's own tools, which engines read too, but without
links: a snapshot holds regular files, so that it can be mounted into a container by itself::

    hub/models--ORG--NAME/refs/<revision>             the commit
    hub/models--ORG--NAME/snapshots/<commit>/<files>  hard-linked between snapshots where the content is the same
    hub/models--ORG--NAME/.llmfleet/<commit>.json     what was verified, and which models were asked for in which words
    hub/models--ORG--NAME/.llmfleet/incoming-<key>/   files of a model that is arriving, which no engine looks at

A file is in a snapshot only when it is whole. What was verified is not read again while size and time stay the same.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import time
import typing as t
from contextlib import suppress
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import digest
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Manifest, RepoFile, check_path
from ansible.module_utils.llmfleet.hub.place import (
    Asked,
    Place,
    commits,
    make_folder,
    noted_model,
    read_note,
    write_text,
)

__all__ = [
    "FULL",
    "QUICK",
    "Asked",
    "Place",
    "State",
    "adopt",
    "clear_way",
    "publish",
    "published_as",
    "reuse",
    "state_of",
    "take_note",
]

QUICK = "quick"
FULL = "full"

DEFAULT_BRANCH = "main"
"""What tools that read the layout look for when no revision is named, whatever the hub calls its default branch."""


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


def digest_of(path: str, file: RepoFile) -> str:
    """Return the content's digest in the form that is known of ``file``; sha256 where none is known. Reads it all."""
    with open(path, "rb") as stream:
        return digest.digest_of(stream, file, os.path.getsize(path))


# --- what is there ----------------------------------------------------------------------------------------------------


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
        elif verify == QUICK and _is_noted(row, status, file):
            continue
        else:
            expected = digest.expected(file) or row.get("digest", "")
            found = digest_of(path, file)
            if expected and found != expected:
                why[file.path] = f"its digest is {found} instead of {expected}"
            elif not _is_noted(row, status, file):
                unnoted.append(file)
        if file.path in why:
            damaged.append(file)
    return State(manifest, tuple(missing), tuple(damaged), why, tuple(unnoted), tuple(crooked))


def _is_noted(row: t.Mapping[str, t.Any], status: os.stat_result, file: RepoFile) -> bool:
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


# --- bringing a model -------------------------------------------------------------------------------------------------


def reuse(place: Place, manifest: Manifest, wanted: t.Iterable[RepoFile]) -> list[RepoFile]:
    """Link those of the files ``wanted`` whose content is in another snapshot into the incoming folder; return them.

    Only what is missing may be wanted, not what is damaged: that could be the very file that is found.
    """
    known: dict[str, str] = {}
    for commit in commits(place):
        for path, row in read_note(place, commit)["files"].items():
            here = os.path.join(place.snapshot(commit), path)
            with suppress(OSError, BadInput, TypeError):
                check_path(path)
                status = os.stat(here)
                if row.get("size") == status.st_size and row.get("mtime_ns") == status.st_mtime_ns:
                    known.setdefault(str(row.get("digest")), here)
    linked = []
    for file in wanted:
        there = known.get(file.digest) if digest.expected(file) else None
        if there and os.path.getsize(there) == file.size:
            path = os.path.join(place.incoming(manifest.key), file.path)
            make_folder(os.path.dirname(path))
            with suppress(FileNotFoundError):
                os.unlink(path)
            if _link(there, path):
                linked.append(file)
    return linked


def _link(there: str, path: str) -> bool:
    """Give a file a second name; False on a file system without hard links, or when it has too many of them."""
    try:
        os.link(there, path)
    except OSError:
        return False
    return True


def clear_way(place: Place, manifest: Manifest, wanted: t.Collection[RepoFile]) -> None:
    """Take away what earlier runs left in the incoming folder and may not be there when files are brought or published.

    That are links, where files are to be written, and parts of files that are not ``wanted`` because they have come
    into the snapshot in another way meanwhile: ``publish`` would put them in the place of the whole ones.
    """
    for file in manifest.files:
        path = os.path.join(place.incoming(manifest.key), file.path)
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(path)
            if file not in wanted or status.st_nlink > 1 or not stat.S_ISREG(status.st_mode):
                os.unlink(path)


def adopt(place: Place, manifest: Manifest, files: t.Iterable[RepoFile]) -> None:
    """Make verified files of a snapshot that others put there ours: no links out of it, and readable by engines."""
    folder = place.snapshot(manifest.commit)
    inside = os.path.realpath(place.root) + "/"
    for file in files:
        path = os.path.join(folder, file.path)
        if os.path.islink(path):
            real, fresh = os.path.realpath(path), f"{path}.new"
            with suppress(FileNotFoundError):
                os.unlink(fresh)
            # what lies elsewhere is somebody's own, and keeps its mode
            if not (real.startswith(inside) and _link(real, fresh)):
                shutil.copyfile(real, fresh)
            os.replace(fresh, path)
        _set_mode(path)


def _set_mode(path: str) -> None:
    if stat.S_IMODE(os.stat(path).st_mode) != 0o644:
        os.chmod(path, 0o644)


def publish(place: Place, manifest: Manifest, asked: Asked | None = None) -> None:
    """Make a model visible whose files are verified, in the incoming folder or in the snapshot already.

    Whatever of its files lies in the incoming folder is taken for whole; see ``clear_way``. The file that engines open
    first comes last, so that no half model can be opened; then the reference and the note. Raises LlmfleetError, with
    nothing moved, when a file is missing or has another size than it should.
    """
    incoming, folder = place.incoming(manifest.key), place.snapshot(manifest.commit)
    arrived = [file for file in manifest.files if os.path.lexists(os.path.join(incoming, file.path))]
    for file in manifest.files:
        path = os.path.join(incoming if file in arrived else folder, file.path)
        size = os.path.getsize(path) if os.path.isfile(path) else -1
        if size != file.size:
            has = "is missing" if size < 0 else f"has {size} bytes instead of {file.size}"
            raise LlmfleetError(f"{file.path} {has}, so the model is not used; start again to fetch what is missing")
    last = manifest.entry or "config.json"
    for file in sorted(arrived, key=lambda one: one.path == last):
        path, target = os.path.join(incoming, file.path), os.path.join(folder, file.path)
        _set_mode(path)
        _flush(path)
        make_folder(os.path.dirname(target))
        os.replace(path, target)
    _flush(folder)
    adopt(place, manifest, manifest.files)
    write_ref(place, manifest)
    take_note(place, manifest, asked)
    shutil.rmtree(incoming, ignore_errors=True)


def _flush(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # file systems that cannot do this for folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def take_note(place: Place, manifest: Manifest, asked: Asked | None) -> None:
    """Remember that the files in the snapshot are those of ``manifest``, and in which words it was asked for."""
    note = read_note(place, manifest.commit)
    folder = place.snapshot(manifest.commit)
    for file in manifest.files:
        status = os.stat(os.path.join(folder, file.path))
        row = note["files"].get(file.path, {})
        if digest.expected(file):
            found = file.digest
        elif _is_noted(row, status, file):
            found = row["digest"]
        else:
            found = digest_of(os.path.join(folder, file.path), file)
        note["files"][file.path] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "digest": found}
    model = note["models"].setdefault(manifest.key, {"asked": {}})
    model["manifest"] = manifest.as_data()
    if asked is not None:
        model["asked"][asked.words] = time.time()
    write_text(place.note(manifest.commit), json.dumps(note, indent=1, sort_keys=True) + "\n")


def write_ref(place: Place, manifest: Manifest) -> None:
    """Let the revision that was asked for name the commit, as tools that read the layout expect it."""
    revision = manifest.asked or DEFAULT_BRANCH
    if revision != manifest.commit:
        # a branch may bear the name of the folder of others; the store does without its references
        with suppress(NotADirectoryError, IsADirectoryError):
            write_text(place.ref(revision), manifest.commit)
