"""A model in Hugging Face format on a host: what it is, whether it is whole, and where its files really are.

Like model_file this reads the file system, and of large files their headers only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import typing as t
from collections import Counter
from dataclasses import dataclass

from ansible.module_utils.llmfleet import safetensors_header
from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.errors import BadInput

_MIB = 1 << 20
_MAX_JSON = 1 << 26
_MAX_HOPS = 8
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHTS = re.compile(r"[-.\w]+\.(?:safetensors|bin)")
_NO_WEIGHTS = re.compile(r"training_args\.bin|optimizer\.bin|scheduler\.bin|adapter_model\.\w+")
# what no converter reads and what we may have written there ourselves
_PASSED_OVER = re.compile(r"\..*|.*\.(?:gguf|md|png|jpe?g|gif|pdf|made\.json|log)", re.IGNORECASE)
_FETCH_AGAIN = "download it again"


@dataclass(frozen=True)
class HfFolder:
    """A model that a converter can read."""

    path: str
    architecture: str
    """What config.json calls it, such as Qwen3ForCausalLM."""
    size: int
    """Bytes of all its weight files."""
    weight_count: int
    """Weights in them; an estimate for files of the old `.bin` format."""
    native: str
    """The type that most weights have: F32, F16 or BF16 (which stands for all shorter ones too)."""
    fingerprint: str
    folders: tuple[tuple[str, str], ...]
    """(folder on the host, path under which links of this model look for it) to show a converter, the model's first."""

    def facts(self) -> dict[str, t.Any]:
        """Return what a user wants to know about the model."""
        return {"architecture": self.architecture, "weight_count": self.weight_count, "type": self.native}


def read(path: str, target: str, *, reader_uid: int = RUN_UID) -> HfFolder:
    """Return what the model in the folder ``path`` is; raises BadInput with a sentence about "the folder".

    ``target`` is where the folder will be seen by the converter, which runs as ``reader_uid``.
    """
    _check_place(path)
    real = os.path.realpath(path)
    files = _files(real, reader_uid)
    config = _config(real, files)
    weights = _weight_files(real, files)
    counts: Counter[str] = Counter()
    for name in weights:
        counts.update(_count_weights(os.path.join(real, name), name))
    common = counts.most_common(1)[0][0] if counts else ""
    marks = "".join(f"{name}\0{_mark(os.path.join(real, name))}\n" for name in sorted(files))
    return HfFolder(
        path=path,
        architecture=_architecture(config),
        size=sum(os.path.getsize(os.path.join(real, name)) for name in weights),
        weight_count=sum(counts.values()),
        native=common if common in ("F32", "F16") else "BF16",
        fingerprint=hashlib.sha256(marks.encode()).hexdigest(),
        folders=((real, target), *_link_folders(real, target, files)),
    )


def _check_place(path: str) -> None:
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        raise BadInput("there is no such folder; check the path on that host") from None
    except NotADirectoryError:
        raise BadInput(
            "it is neither a GGUF file nor a folder; name a .gguf file or a folder with config.json"
        ) from None
    except PermissionError:
        raise BadInput("the folder may not be read; correct its permissions, or run with become") from None
    if "config.json" in names:
        return
    models = sorted(name for name in names if name.endswith(".gguf"))
    if models:
        raise BadInput(f"the folder holds GGUF files; name the file itself, such as {os.path.join(path, models[0])}")
    if "adapter_config.json" in names:
        raise BadInput("the folder holds a LoRA adapter and no model; merge it into its base model first")
    if "params.json" in names:
        raise BadInput("the folder holds Mistral's or Meta's own format; download the Hugging Face form of the model")
    inside = sorted(name for name in names if os.path.isfile(os.path.join(path, name, "config.json")))
    if "snapshots" in names:
        hint = f"it is a hub cache, name the folder below {os.path.join(path, 'snapshots')}"
    elif inside:
        hint = f"did you mean {os.path.join(path, inside[0])}?"
    else:
        hint = "name the folder of a whole model in Hugging Face format"
    raise BadInput(f"the folder has no config.json; {hint}")


def _files(real: str, reader_uid: int) -> list[str]:
    """Return the names of the model's files below ``real``, each of which is there and may be read."""
    found = []
    for folder, folders, names in os.walk(real):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = os.path.relpath(folder, real)
        for name in names:
            if _PASSED_OVER.fullmatch(name):
                continue
            shown = name if inner == "." else os.path.join(inner, name)
            _check_file(os.path.join(folder, name), shown, reader_uid)
            found.append(shown)
    if not _readable(os.stat(real), reader_uid, stat.S_IXUSR | stat.S_IRUSR):
        raise BadInput(f"the folder may not be read by the user {reader_uid}; `chmod o+rx` it")
    return found


def _check_file(path: str, shown: str, reader_uid: int) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise BadInput(
            f"{shown} is a link to {os.path.realpath(path)}, which is not there; copy the folder with what its links "
            f"point at (cp -L), or {_FETCH_AGAIN}"
        ) from None
    except PermissionError:
        raise BadInput(f"{shown} may not be read; correct its permissions, or run with become") from None
    if stat.S_ISREG(status.st_mode) and not _readable(status, reader_uid, stat.S_IRUSR):
        raise BadInput(
            f"{shown} has mode {stat.S_IMODE(status.st_mode):04o}, so the user {reader_uid} may not read "
            f"it; `chmod -R o+rX` the folder"
        )


def _readable(status: os.stat_result, uid: int, owner_bits: int) -> bool:
    if status.st_uid == uid:
        return status.st_mode & owner_bits == owner_bits
    if status.st_gid == uid:
        return status.st_mode & (owner_bits >> 3) == owner_bits >> 3
    return status.st_mode & (owner_bits >> 6) == owner_bits >> 6


def _config(real: str, files: t.Sequence[str]) -> dict[str, t.Any]:
    if "config.json" not in files:
        raise BadInput(f"config.json is not a file; {_FETCH_AGAIN}")
    return _json(os.path.join(real, "config.json"), "config.json")


def _json(path: str, name: str) -> dict[str, t.Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(_MAX_JSON)
        found = json.loads(text)
    except (ValueError, RecursionError):
        if _is_pointer(path):
            raise _pointer(name) from None
        raise BadInput(f"{name} is no valid JSON; {_FETCH_AGAIN}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{name} is no JSON object; {_FETCH_AGAIN}")
    return found


def _is_pointer(path: str) -> bool:
    """Whether the file at ``path`` is a git LFS pointer instead of what it stands for."""
    with open(path, "rb") as stream:
        return stream.read(24).startswith(b"version https://git-lfs")


def _pointer(name: str) -> BadInput:
    return BadInput(f"{name} is a git LFS pointer, not the file it stands for; run `git lfs pull` where it came from")


def _architecture(config: t.Mapping[str, t.Any]) -> str:
    named = config.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise BadInput("config.json names no `architectures`, so it cannot be converted; get the whole model")
    return named[0]


def _weight_files(real: str, files: t.Sequence[str]) -> list[str]:
    """Return the files with the weights: those an index lists, else safetensors, else the old format."""
    for index in _INDEXES:
        if index in files:
            listed = _json(os.path.join(real, index), index).get("weight_map")
            if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
                raise BadInput(f"{index} has no usable `weight_map`; {_FETCH_AGAIN}")
            wanted = sorted(set(listed.values()))
            missing = [name for name in wanted if name not in files]
            if missing:
                raise BadInput(
                    f"{missing[0]} is missing ({len(missing)} of {len(wanted)} weight files); finish the download"
                )
            return wanted
    there = [name for name in files if "/" not in name and _WEIGHTS.fullmatch(name) and not _NO_WEIGHTS.fullmatch(name)]
    safe = sorted(name for name in there if name.endswith(".safetensors"))
    found = safe or sorted(there)
    if not found:
        raise BadInput("the folder has no weights (*.safetensors or pytorch_model*.bin); finish the download")
    return found


def _count_weights(path: str, name: str) -> dict[str, int]:
    """Return how many weights of which type the file has, and raise BadInput when it is cut off."""
    size = os.path.getsize(path)
    if _is_pointer(path):
        raise _pointer(name)
    if not name.endswith(".safetensors"):
        return {"F16": size // 2}
    with open(path, "rb") as stream:
        try:
            return safetensors_header.count_weights(stream, size)
        except BadInput as error:
            raise BadInput(f"{name} {error}") from None


def _mark(path: str) -> str:
    """Return what tells this content from another, read from size, beginning and end."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(f"{size}\n".encode())
    with open(path, "rb") as stream:
        for start in (0, max(0, size - _MIB)):
            stream.seek(start)
            digest.update(stream.read(_MIB))
    return digest.hexdigest()


def _link_folders(real: str, target: str, files: t.Sequence[str]) -> list[tuple[str, str]]:
    """Return (folder on the host, where the model's links look for it), as a hub cache keeps its files elsewhere."""
    found: dict[str, str] = {}
    for name in files:
        here, seen = os.path.join(real, name), os.path.join(target, name)
        for _ in range(_MAX_HOPS):
            if not os.path.islink(here):
                break
            points_at = os.readlink(here)
            here = os.path.normpath(os.path.join(os.path.dirname(here), points_at))
            seen = os.path.normpath(os.path.join(os.path.dirname(seen), points_at))
            inside = seen == target or seen.startswith(target.rstrip("/") + "/")
            if not inside:
                found[os.path.dirname(seen)] = os.path.realpath(os.path.dirname(here))
    return [(host, shown) for shown, host in sorted(found.items())]
