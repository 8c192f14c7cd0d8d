"""Which files of a repository in Hugging Face's layout an engine that loads whole folders needs. Pure.

All safetensors at the top are taken but for known copies: which of them belong together is in an index that a listing
does not show, and an engine passes over those that the index does not name.
"""

from __future__ import annotations

import fnmatch
import re
import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub.manifest import Listing, RepoFile

_PART = re.compile(r"(.*)-(\d{1,6})-of-(\d{1,6})(\..*)", re.DOTALL)
_INDEX = "model.safetensors.index.json"
_BIN_INDEX = "pytorch_model.bin.index.json"
_CONFIG = "config.json"

_COPIES = ("consolidated*", "adapter_model.safetensors")
"""Safetensors beside the model's own: Mistral's and Meta's layout, an adapter."""
_WITH_IT = (
    "*.json",
    "*.model",
    "tokenizer.model.v*",
    "*.tiktoken",
    "vocab*.txt",
    "merges.txt",
    "*.jinja",
    # for models that make embeddings: how the outputs become one vector
    "[0-9]_*/config.json",
    "[0-9]_*/*.safetensors",
    "additional_chat_templates/*.jinja",
)
_NOT_WITH_IT = (
    "consolidated*",
    "*.index.json",
    "flax_model*",
    "tf_model*",
    "adapter_config.json",
    "params.json",
    "trainer_state.json",
    "training_args*",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "quant_log*",
)
_CODE = "*.py"


def has_weights(listing: Listing) -> bool:
    """Return whether the top of a repository holds weights that such an engine could load."""
    return bool(_safetensors(listing) or _bins(listing)) and any(file.path == _CONFIG for file in listing.files)


def choose(listing: Listing, where: str, with_code: bool = False) -> tuple[tuple[RepoFile, ...], str]:
    """Return the files that an engine needs, and why these; raises BadInput when some are missing."""
    weights, remark = _safetensors(listing), ""
    paths = {file.path for file in listing.files}
    if not weights:
        weights = _bins(listing)
        remark = "; warning: its weights are in .bin files, which may hold code, for want of safetensors"
    # one file of the usual name needs none, and an index of parts that are not taken would only mislead
    usual = [file.path for file in weights] in (["model.safetensors"], ["pytorch_model.bin"])
    index = "" if usual else _BIN_INDEX if remark else _INDEX
    _check_parts(weights, where)
    beside = [file for file in listing.files if file.path == index or _takes(file.path, with_code)]
    files = {file.path: file for file in (*weights, *beside)}
    code = sorted(path for path in paths if fnmatch.fnmatchcase(path, _CODE) and "/" not in path)
    if code and not with_code:
        remark += f"; without its code ({code[0]}{', …' if len(code) > 1 else ''}), which is not trusted"
    left = len(listing.files) - len(files)
    kind = "file" if len(weights) == 1 else "files"
    why = f"{len(weights)} {kind} of weights and {len(files) - len(weights)} beside"
    return tuple(files[path] for path in sorted(files)), f"{why}; {left} others are not needed{remark}"


def why_none(listing: Listing) -> str:
    """Return why a repository has nothing that such an engine could load."""
    paths = {file.path for file in listing.files}
    if "adapter_config.json" in paths:
        return "the repository holds an adapter (LoRA), not a model; give the model that it belongs to"
    if "params.json" in paths and _CONFIG not in paths:
        return "the repository is in Mistral's own layout, without config.json; give one in Hugging Face's layout"
    if "model_index.json" in paths:
        return "the repository holds a pipeline that makes images, which no engine here serves"
    if _safetensors(listing) or _bins(listing):
        return "the repository lacks config.json, without which its weights can not be loaded"
    if any(fnmatch.fnmatchcase(path, "consolidated*.safetensors") for path in paths):
        return "the repository is in Mistral's own layout; give one in Hugging Face's layout"
    if any(path.endswith((".safetensors", ".bin")) for path in paths):
        return "the repository holds no weights at its top, only in folders; give the repository of one model"
    return "the repository holds no weights that an engine here could load (GGUF or safetensors)"


def _takes(path: str, with_code: bool) -> bool:
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in _NOT_WITH_IT):
        return False
    patterns = (*_WITH_IT, _CODE) if with_code else _WITH_IT
    # fnmatch's star matches a slash too
    return any(fnmatch.fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns)


def _safetensors(listing: Listing) -> list[RepoFile]:
    rows = [
        file
        for file in listing.files
        if "/" not in file.path
        and file.path.endswith(".safetensors")
        and not any(fnmatch.fnmatchcase(file.path, pattern) for pattern in _COPIES)
    ]
    paths = {file.path for file in listing.files}
    rows = [file for file in rows if not (".fp16" in file.path and file.path.replace(".fp16", "", 1) in paths)]
    parts = {match.group(1) for match in (_PART.fullmatch(file.path) for file in rows) if match}
    if _INDEX in paths and "model" in parts:
        # the whole once more beside its parts
        rows = [file for file in rows if file.path != "model.safetensors"]
    return rows


def _bins(listing: Listing) -> list[RepoFile]:
    parts = [file for file in listing.files if re.fullmatch(r"pytorch_model-\d{5,6}-of-\d{5,6}\.bin", file.path)]
    return [file for file in listing.files if file.path == "pytorch_model.bin"] or parts


def _check_parts(weights: t.Sequence[RepoFile], where: str) -> None:
    sets: dict[tuple[str, str, str], dict[int, str]] = {}
    for file in weights:
        found = _PART.fullmatch(file.path)
        if found:
            row = sets.setdefault((found.group(1), found.group(3), found.group(4)), {})
            row[int(found.group(2))] = found.group(2)
    for (stem, count, tail), numbers in sorted(sets.items()):
        # some publishers count from zero, and some without zeros before the number
        start = 0 if 0 in numbers else 1
        lacking = next((number for number in range(start, int(count) + start) if number not in numbers), None)
        if lacking is not None:
            number = str(lacking).zfill(min(map(len, numbers.values())))
            raise BadInput(
                f"{where}: the repository lacks {stem}-{number}-of-{count}{tail}, without which the model can not be "
                "loaded"
            )
