"""An order for a GGUF file as it meets a host: what there is, where the result goes, and whether it has to be made.

Edge code that only looks; model_maker does the work.
"""

from __future__ import annotations

import os
import shutil
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet import gguf, hf_folder, made_note, model_file, model_steps, weight_types
from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.engines.base import Mount
from ansible.module_utils.llmfleet.errors import BadInput

Data = dict[str, t.Any]
_GIB = 1 << 30


@dataclass(frozen=True)
class Order:
    """What the user asked for; see the options of the module model_tool_make."""

    source: str
    dest: str
    type: weight_types.WeightType | None
    split_size: str
    imatrix: str
    allow_requantize: bool
    options: tuple[str, ...]
    threads: int
    memory: str
    image: str
    force: bool


@dataclass
class Job:
    """An order as it meets the host: what there is, where the result goes, and how it is made."""

    order: Order
    source: model_steps.Source
    mounts: tuple[Mount, ...]
    plan: model_steps.Plan
    folder: str
    name: str
    recipe: Data
    note: made_note.Note
    files: tuple[str, ...] = field(default=())

    @property
    def note_path(self) -> str:
        """The note lies beside the result."""
        return os.path.join(self.folder, f"{self.name}.made.json")

    @property
    def shown(self) -> str:
        """The result, as a user would name it."""
        return os.path.join(self.folder, f"{self.name}.gguf")


def prepare(order: Order, uid: int) -> Job:
    """Return what ``order`` comes to on this host; raises BadInput when it cannot be done. Changes nothing."""
    source, mounts = _look(order.source, uid)
    imatrix = ""
    if order.imatrix:
        imatrix = _imatrix(order.imatrix, uid)
        mounts = (*mounts, Mount(order.imatrix, model_steps.IMATRIX))
    wish = model_steps.Wish(
        type=order.type,
        split_bytes=model_steps.parse_split_size(order.split_size),
        imatrix=imatrix,
        allow_requantize=order.allow_requantize,
        options=order.options,
    )
    folder, name = _place(order, source)
    plan = model_steps.plan(source, wish, name)
    recipe: Data = {
        "source": source.fingerprint,
        "type": order.type.name if order.type else weight_types.KEEP,
        "split_bytes": wish.split_bytes,
        "imatrix": imatrix,
        "options": list(order.options),
    }
    job = Job(order, source, mounts, plan, folder, name, recipe, made_note.Note())
    job.note = made_note.read(job.note_path)
    job.files = tuple(sorted(job.note.files)) if job.note.complete(folder) else ()
    return job


def why_make(job: Job) -> str:
    """Return why the result has to be made, "" when it is there already."""
    if not job.files:
        return "it is not there" if not job.note.files else "its files are not there as they were made"
    if job.note.recipe != job.recipe:
        keys = [key for key in job.recipe if job.note.recipe.get(key) != job.recipe[key]]
        return f"it was made with another {', '.join(keys)}"
    return "force is set" if job.order.force else ""


def check_room(job: Job) -> None:
    """Raise BadInput when files of a user are in the way or the disk is too small."""
    for name in in_the_way(job):
        raise BadInput(
            f"{os.path.join(job.folder, name)} is there and was not made by this module; move it away, or name another "
            "dest"
        )
    place = job.folder
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    needed = job.plan.needed_bytes
    if free < needed:
        raise BadInput(
            f"{job.folder} has {free / _GIB:.1f} GiB free and making {job.name} takes about {needed / _GIB:.1f} GiB; "
            "make room, or name another dest"
        )


def in_the_way(job: Job) -> list[str]:
    """Return files with names that the result may get, which are neither ours nor the source."""
    try:
        names = sorted(os.listdir(job.folder))
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise BadInput(f"{job.folder} is not a folder; name another dest") from None
    source = {mount.source for mount in job.mounts}
    return [
        name
        for name in names
        if is_result(name, job.name)
        and not job.note.owns(job.folder, name)
        and os.path.realpath(os.path.join(job.folder, name)) not in source
    ]


def is_result(file: str, name: str) -> bool:
    """Whether ``file`` is called like the model ``name`` or one of its parts."""
    stem, suffix = os.path.splitext(file)
    return suffix == ".gguf" and name in (stem, model_steps.PART.sub("", stem))


def _look(path: str, uid: int) -> tuple[model_steps.Source, tuple[Mount, ...]]:
    """Return the model at ``path`` and what a container needs of the host to see it."""
    if os.path.isdir(path):
        inside = model_steps.SOURCE + os.path.realpath(path)
        folder = hf_folder.read(path, inside, reader_uid=uid)
        source = model_steps.Source(
            path=path,
            kind="hf",
            size=folder.size,
            fingerprint=folder.fingerprint,
            weight_count=folder.weight_count,
            type=weight_types.TYPES[folder.native],
            inside=inside,
        )
        return source, tuple(Mount(host, seen) for host, seen in folder.folders)
    # of a container that runs as this very user, the file's mode is its own affair
    found = model_file.read(path, any_mode=uid != RUN_UID)
    source = model_steps.Source(
        path=path,
        kind="gguf",
        size=found.size,
        fingerprint=found.fingerprint,
        weight_count=_weight_count(found),
        type=weight_types.of_number(found.header.file_type),
        inside=f"{model_steps.SOURCE}/{os.path.basename(path)}",
        parts=len(found.files),
    )
    # a link is resolved here; parts find each other by name
    names = {file: f"{model_steps.SOURCE}/{os.path.basename(file)}" for file in found.files}
    return source, tuple(Mount(os.path.realpath(file), inside) for file, inside in names.items())


def _weight_count(found: model_file.ModelFile) -> int:
    """Return the weights of all parts; the header of the first one counts only its own."""
    total = found.header.weight_count
    for path in found.files[1:]:
        with open(path, "rb") as stream:
            total += gguf.read_header(stream, os.path.getsize(path)).weight_count
    return total


def _imatrix(path: str, uid: int) -> str:
    """Return the digest of the importance matrix at ``path``."""
    if not os.path.isfile(path):
        raise BadInput(f"imatrix {path} is not a file on this host; give the path of what llama-imatrix wrote")
    if uid == RUN_UID and not os.stat(path).st_mode & 0o004:
        raise BadInput(f"imatrix {path} may not be read by the user {uid} that quantises; `chmod o+r` it")
    try:
        return model_file.digest_of(path)
    except PermissionError:
        raise BadInput(f"imatrix {path} may not be read; correct its permissions, or run with become") from None


def _place(order: Order, source: model_steps.Source) -> tuple[str, str]:
    """Return folder and name (without `.gguf`) of the result."""
    if order.dest.endswith(".gguf"):
        folder, name = os.path.split(order.dest[: -len(".gguf")])
    else:
        folder, name = order.dest.rstrip("/") or "/", model_steps.default_name(source, order.type)
    if not name or model_steps.PART.search(name):
        raise BadInput(f"dest {order.dest} is no name for a model; leave `-00001-of-…` out, it is added to parts")
    here, file = os.path.split(os.path.realpath(order.source))
    if source.kind == "gguf" and here == os.path.realpath(folder) and is_result(file, name):
        # the parts of a model may lie beside the model itself, as their names differ
        becomes_parts = bool(order.split_size) and source.parts == 1
        becomes_one = not order.split_size and source.parts > 1
        if order.type or not (becomes_parts or becomes_one):
            raise BadInput(f"the result would take the place of its source {order.source}; name another dest")
    return folder, name
