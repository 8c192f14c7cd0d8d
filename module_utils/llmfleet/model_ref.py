"""What a service's ``model`` refers to, told from the words alone.

The grammar, which is the same wherever a model is named::

    tiny                                    the test model that the host makes itself
    /srv/models/x.gguf   /srv/models/x      a file or a folder on the host that serves it
    https://host/x.gguf                     a file of the web, together with its sha256
    [SOURCE:]ORG/NAME[:QUANT][@REVISION]    a repository of a hub
    SOURCE:ORG/NAME/FILE.gguf[@REVISION]    one file of it (of a split one all parts)

SOURCE is ``hf`` (``huggingface``), ``hf-mirror`` or ``ms`` (``modelscope``); without it the first source that has the
repository answers. QUANT is a type of weights as the names of its GGUF files spell it, in any case, such as ``Q4_K_M``.
REVISION is a branch, a tag or a commit. ``hf://ORG/NAME`` is taken too, and so is the web address of a repository or of
one of its GGUF files as a browser shows it.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import posixpath
import re
import typing as t
import urllib.parse
from dataclasses import dataclass

from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import quants

TINY = "tiny"

SOURCES = {
    "hf": "hf",
    "huggingface": "hf",
    "hf-mirror": "hf-mirror",
    "ms": "ms",
    "modelscope": "ms",
}
"""Words before the colon of a reference, and the source each means."""

_WEB = {
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

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILE_NAME = re.compile(r"[^/\x00-\x1f]{1,200}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9_+-]*):(//)?")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_HERE = ("", ".", "..", "~")
_FILE = re.compile(r"(?:[^/\\\x00-\x1f\x7f]+/)*[^/\\\x00-\x1f\x7f]+\.gguf", re.IGNORECASE)


@dataclass(frozen=True)
class ModelRef:
    """Where a model comes from and, unless it is the user's own file, how its file is called in the store."""

    kind: t.Literal["tiny", "path", "url", "hub"]
    model: str
    sha256: str
    file_name: str
    """Name in the store; for a user's file the name under which the store notes its verified digest; "" of a hub's."""
    source: str = ""
    """Of a hub's model: `hf`, `hf-mirror` or `ms`; "" is the first source that answers."""
    repo: str = ""
    """Of a hub's model: ORG/NAME."""
    quant: str = ""
    """Of a hub's model: the type of weights that was asked for, "" when none was."""
    revision: str = ""
    """Of a hub's model: the branch, tag or commit that was asked for, "" when none was."""
    file: str = ""
    """Of a hub's model: the path in the repository of the one GGUF file that was asked for, "" when none was."""

    @property
    def shown(self) -> str:
        """The model as messages and plans may show it."""
        return masked(self.model)

    @property
    def pinned(self) -> bool:
        """Whether it always means the same content: not a branch or tag of a hub, nor a user's file without digest."""
        if self.kind == "hub":
            return _COMMIT.fullmatch(self.revision) is not None
        return bool(self.sha256)

    @property
    def canonical(self) -> str:
        """The one spelling of a hub's model, whatever words it was given in; of others what was given."""
        if self.kind != "hub":
            return self.model
        source = f"{self.source}:" if self.source else ""
        wanted = f"/{self.file}" if self.file else f":{quants.canonical(self.quant)}" if self.quant else ""
        return f"{source}{self.repo}{wanted}{'@' + self.revision if self.revision else ''}"

    def location(self, store: str) -> str:
        """Return the path of the model's file on a host whose store is the directory ``store``.

        A hub's model has its path only when it is known which of its files are wanted: this is its repository's folder.
        """
        if self.kind == "hub":
            return posixpath.join(store, "hub", "models--" + self.repo.replace("/", "--"))
        return self.model if self.kind == "path" else posixpath.join(store, self.file_name)


def parse(model: str, sha256: str = "", name: str = "") -> ModelRef:
    """Return what ``model`` refers to; ``name`` overrides the file's name in the store.

    Raises BadInput with one sentence that names the model.
    """
    model, sha256 = model.strip(), sha256.strip().lower()
    if not model:
        raise BadInput(
            "`model` is empty: give a hub's model such as hf:ORG/NAME, the absolute path of a model on the host, "
            "a URL with its sha256, or tiny"
        )
    if sha256 and not _SHA256.fullmatch(sha256):
        raise BadInput(f"model {masked(model)}: its sha256 must be 64 hexadecimal digits, not {sha256!r}")
    if name and (not _FILE_NAME.fullmatch(name) or name.startswith(".")):
        raise BadInput(f"model {masked(model)}: `name` must be a plain file name, not {name!r}")
    if model == TINY:
        if sha256 not in ("", tiny_gguf.SHA256):
            raise BadInput("model tiny is generated on the host and has a digest of its own: leave its sha256 out")
        return ModelRef("tiny", model, tiny_gguf.SHA256, name or "tiny.gguf")
    if re.match(r"(?i)https?:", model):
        return _parse_url(model, sha256, name)
    if model.startswith("/"):
        return _parse_path(model, sha256, name)
    return _parse_hub(model, sha256, name)


def _parse_path(model: str, sha256: str, name: str) -> ModelRef:
    if "\0" in model:
        raise BadInput(f"model {model!r}: a path may not hold a NUL byte")
    tail = model.rpartition(":")[2]
    if tail != model and quants.named_in(tail) == tail:
        raise BadInput(
            f"model {masked(model)}: `:{tail}` chooses among the files of a hub's repository; of a path give the GGUF "
            "file itself"
        )
    place = hashlib.sha256(model.encode(errors="surrogateescape")).hexdigest()[:12]
    return ModelRef("path", model, sha256, name or f"{place}-{_safe(model)}")


def _parse_url(model: str, sha256: str, name: str) -> ModelRef:
    try:
        parts = urllib.parse.urlsplit(model)
        host, user, _ = parts.hostname, parts.username, parts.port
    except ValueError as error:
        raise BadInput(f"model {masked(model)}: not a valid URL ({error})") from None
    if user is not None:
        raise BadInput("model URL: it may not hold a user name or password, which logs would show")
    if not host or re.search(r"[\x00-\x20\x7f]", model) or not model.isascii():
        raise BadInput(
            f"model {masked(model)}: not a valid URL: write it as http(s)://host/path with special characters as %XX"
        )
    if host in _WEB:
        found = _parse_page(model, parts, sha256, name)
        if found:
            return found
        # the page that shows a file is not the file
        model = re.sub(r"^([^?#]*?/[^/?#]+/[^/?#]+)/blob/", r"\1/resolve/", model, count=1)
    if not sha256:
        raise BadInput(
            f"model {masked(model)}: a URL needs the sha256 of its file, so that what arrives can be trusted"
        )
    return ModelRef("url", model, sha256, name or f"{sha256[:12]}-{_safe(urllib.parse.unquote(parts.path))}")


def _parse_page(model: str, parts: urllib.parse.SplitResult, sha256: str, name: str) -> ModelRef | None:
    """Return what the web address of a hub refers to; None for the address of a file whose sha256 is given."""
    source = _WEB[t.cast("str", parts.hostname)]
    path = [urllib.parse.unquote(part) for part in parts.path.strip("/").split("/")]
    if source == "ms" and path[0] == "models":
        path = path[1:]
    elif source == "ms":
        return None
    if path[0] in _NO_MODELS or len(path) < 2:
        raise BadInput(f"model {masked(model)}: not the page of a model; write {source}:ORG/NAME")
    if len(path) == 2 and re.search("[:@]", path[1]):
        # the words of a reference after a host
        found = _parse_hub(f"{source}:{path[0]}/{path[1]}", sha256, name)
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


def _parse_hub(model: str, sha256: str, name: str) -> ModelRef:
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


def _safe(path: str) -> str:
    return _UNSAFE.sub("_", posixpath.basename(path.rstrip("/")))[-120:].strip("._") or "model.gguf"


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


def masked(model: str) -> str:
    """Return the model as messages and plans may show it."""
    # a URL may carry secrets before its host and, when it is signed, in its query
    text = re.sub(r"//[^/@]*@", "//", model.split("?", 1)[0])
    return text if text.isprintable() and " " not in text else repr(text)
