"""How a model of a hub becomes visible on one host, once it is verified. Edge code; see place for the layout."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import time
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import digest
from ansible.module_utils.llmfleet.hub.manifest import Manifest, RepoFile, check_path
from ansible.module_utils.llmfleet.hub.place import Asked, Place, commits, make_folder, read_note, write_text
from ansible.module_utils.llmfleet.hub.presence import is_noted

DEFAULT_BRANCH = "main"
"""What tools that read the layout look for when no revision is named, whatever the hub calls its default branch."""


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
        elif is_noted(row, status, file):
            found = row["digest"]
        else:
            found = digest.digest_of_file(os.path.join(folder, file.path), file)
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
