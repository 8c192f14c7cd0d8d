"""A model of a hub as users name it: SOURCE:ORG/NAME and what may follow, or the address of its web page. Pure.

The grammar stands in model_words.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing as t
import urllib.parse

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.model_ref import ModelRef, masked

SOURCES = {
    "hf": "hf",
    "huggingface": "hf",
    "hf-mirror": "hf-mirror",
    "ms": "ms",
    "modelscope": "ms",
}
"""Words before the colon of a reference, and the source each means."""

HOSTS = {
    "huggingface.co": "hf",
    "www.huggingface.co": "hf",
    "hf.co": "hf",
    "hf-mirror.com": "hf-mirror",
    "www.hf-mirror.com": "hf-mirror",
    "modelscope.cn": "ms",
    "www.modelscope.cn": "ms",
}
"""Hosts of hubs' web pages."""

_NO_MODELS = ("datasets", "spaces", "collections", "papers", "blog", "docs", "api", "studios", "organization")
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9_+-]*):(//)?")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_HERE = ("", ".", "..", "~")
_FILE = re.compile(r"(?:[^/\\\x00-\x1f\x7f]+/)*[^/\\\x00-\x1f\x7f]+\.gguf", re.IGNORECASE)


def parse(model: str, sha256: str, name: str) -> ModelRef:
    """Return the model of a hub that the words ``model`` name, with or without the source before them.

    Raises BadInput with one sentence that names the model.
    """
    rest, source = model, ""
    # one letter is the drive of a Windows path
    prefix = None if model[1:2] == ":" else _PREFIX.match(model)
    if prefix and "/" in model[prefix.end() :]:
        source = SOURCES.get(prefix.group(1).lower(), "")
        if not source:
            raise BadInput(f"model {masked(model)}: {_why_no_source(prefix)}")
        rest = model[prefix.end() :]
    elif prefix and (prefix.group(1).lower() in SOURCES or prefix.group(2)):
        if prefix.group(1).lower() not in SOURCES:
            raise BadInput(f"model {masked(model)}: {_why_no_source(prefix)}")
        raise BadInput(
            f"model {masked(model)}: a hub's model has an owner and a name: write {model[: prefix.end()]}ORG/NAME"
        )
    rest, at, revision = rest.partition("@")
    if at and not revision:
        raise BadInput(f"model {masked(model)}: the revision after the @ is missing: a branch, a tag or a commit")
    path, colon, quant = rest.partition(":")
    if colon and not quant:
        raise BadInput(f"model {masked(model)}: the type of weights after the colon is missing, such as :Q4_K_M")
    path = path.rstrip("/") if not path.endswith("//") else path
    parts = path.split("/")
    if not source and (len(parts) != 2 or parts[0] in _HERE or path.lower().endswith(".gguf") or "\\" in model):
        raise BadInput(f"model {masked(model)}: {_why_not(model, path)}")
    return _hub(model, source, "/".join(parts[:2]), quant, revision, "/".join(parts[2:]), sha256, name)


def parse_page(model: str, parts: urllib.parse.SplitResult, sha256: str, name: str) -> ModelRef | None:
    """Return what the web address of a hub refers to; None for the address of a file whose sha256 is given.

    ``parts`` is ``model`` split, its host one of HOSTS. Raises BadInput with one sentence that names the model.
    """
    source = HOSTS[t.cast("str", parts.hostname)]
    path = [urllib.parse.unquote(part) for part in parts.path.strip("/").split("/")]
    if source == "ms" and path[0] == "models":
        path = path[1:]
    elif source == "ms":
        return None
    if len(path) < 2 or path[0] in _NO_MODELS:
        raise BadInput(f"model {masked(model)}: not the page of a model; write {source}:ORG/NAME")
    if len(path) == 2 and re.search("[:@]", path[1]):
        # the words of a reference after a host
        found = parse(f"{source}:{path[0]}/{path[1]}", sha256, name)
        return dataclasses.replace(found, model=model)
    repo, rest = "/".join(path[:2]), path[2:]
    if rest[:2] == ["file", "view"]:
        rest = ["blob", *rest[2:]]
    if rest[:1] in (["summary"], ["files"], ["discussions"], ["feedback"]) or rest in (["tree"], []):
        return _hub(model, source, repo, sha256=sha256, name=name)
    if rest[0] == "tree" and len(rest) == 2:
        return _hub(model, source, repo, revision=rest[1], sha256=sha256, name=name)
    if rest[0] in ("resolve", "blob", "raw") and len(rest) > 2:
        if sha256:
            return None
        return _hub(model, source, repo, revision=rest[1], file="/".join(rest[2:]), name=name)
    raise BadInput(
        f"model {masked(model)}: write {source}:{repo}, with :QUANT and @REVISION after it where a certain one is meant"
    )


def file_url(url: str) -> str:
    """Return the URL of the file that the page ``url`` of a hub shows; any other URL as it is."""
    return re.sub(r"^([^?#]*?/[^/?#]+/[^/?#]+)/blob/", r"\1/resolve/", url, count=1)


def _hub(
    model: str,
    source: str,
    repo: str,
    quant: str = "",
    revision: str = "",
    file: str = "",
    sha256: str = "",
    name: str = "",
) -> ModelRef:
    """Return the reference to a hub's model after checking all its parts."""
    shown = masked(model)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise BadInput(f"model {shown}: a hub's model has an owner and a name: write ORG/NAME")
    for part in repo.split("/"):
        if not _PART.fullmatch(part) or ".." in part or "--" in part:
            raise BadInput(
                f"model {shown}: {part!r} is no name of a hub: up to 96 letters, digits, `_`, `-` and `.`, beginning "
                "and ending with none of the last two, and neither `--` nor `..` in it"
            )
    if revision and ("@" in revision or not _REVISION.fullmatch(revision) or ".." in revision or len(revision) > 200):
        hint = "name one revision only" if "@" in revision else "give a branch, a tag or a commit, such as @main"
        if ":" in revision:
            hint = "the type of weights comes before the revision: ORG/NAME:QUANT@REVISION"
        raise BadInput(f"model {shown}: {revision!r} is no revision: {hint}")
    if quant and not _QUANT.fullmatch(quant):
        raise BadInput(f"model {shown}: {quant!r} is no type of weights, such as Q4_K_M")
    if file and quant:
        raise BadInput(f"model {shown}: `:{quant}` chooses among the files, and one is named already: leave either out")
    if file and (not _FILE.fullmatch(file) or any(part in (".", "..") for part in file.split("/")) or len(file) > 500):
        raise BadInput(
            f"model {shown}: {file!r} is no GGUF file of a repository; write ORG/NAME alone, or with :QUANT after it"
        )
    if name:
        raise BadInput(f"model {shown}: `name` is not for models of a hub, whose files keep their names")
    return ModelRef("hub", model, sha256, "", source, repo, quant, revision, file)


def _why_no_source(prefix: re.Match[str]) -> str:
    word = prefix.group(1)
    close = difflib.get_close_matches(word.lower(), SOURCES, n=1, cutoff=0.5)
    if prefix.group(2):
        hint = f"; did you mean {close[0]}:?" if close else ""
        return (
            f"{word}:// is not supported: give a local path, an http(s) URL with sha256, or a hub's model as "
            f"hf:ORG/NAME{hint}"
        )
    hint = f"did you mean {close[0]}:?" if close else f"known are {', '.join(SOURCES)}"
    return f"`{word}:` is no source of models; {hint}"


def _why_not(model: str, path: str) -> str:
    if re.match(r"[A-Za-z]:", model) or "\\" in model:
        return "the path must be absolute, as it is on the Linux host that serves it, with /"
    if path.count("/") > 1 and path.split("/")[0] not in _HERE:
        return (
            "neither an absolute path, as it is on the host that serves it, nor a model of a hub, which is ORG/NAME; a "
            "file of a repository is named with its source before it, as hf:ORG/NAME/FILE.gguf"
        )
    if "/" in model or model.lower().endswith(".gguf"):
        return "the path must be absolute, as it is on the host that serves it"
    return (
        "not a model: give a name of the catalogue, a hub's model such as hf:ORG/NAME, the absolute path of a model on "
        "the host, a URL with its sha256, or tiny"
    )
