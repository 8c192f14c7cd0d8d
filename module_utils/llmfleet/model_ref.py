"""What a service's ``model`` refers to, told from the words alone."""

from __future__ import annotations

import hashlib
import posixpath
import re
import typing as t
import urllib.parse
from dataclasses import dataclass

from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.errors import BadInput

TINY = "tiny"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HUB_PREFIX = re.compile(r"(?i)(hf|huggingface|ms|modelscope|hf-mirror)(://|:)")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
_FILE_NAME = re.compile(r"[^/\x00-\x1f]{1,200}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class ModelRef:
    """Where a model comes from and, unless it is the user's own file, how its file is called in the store."""

    kind: t.Literal["tiny", "path", "url"]
    model: str
    sha256: str
    file_name: str
    """Name in the store; for a user's file the name under which the store notes its verified digest."""

    @property
    def shown(self) -> str:
        """The model as messages and plans may show it."""
        return _shown(self.model)

    def location(self, store: str) -> str:
        """Return the path of the model's file on a host whose store is the directory ``store``."""
        return self.model if self.kind == "path" else posixpath.join(store, self.file_name)


def parse(model: str, sha256: str = "", name: str = "") -> ModelRef:
    """Return what ``model`` (tiny, an absolute path or an http(s) URL) refers to; ``name`` overrides the file's name.

    Raises BadInput with one sentence that names the model.
    """
    model, sha256 = model.strip(), sha256.strip().lower()
    if not model:
        raise BadInput("`model` is empty: give tiny, the absolute path of a GGUF file, or a URL with its sha256")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise BadInput(f"model {_shown(model)}: its sha256 must be 64 hexadecimal digits, not {sha256!r}")
    if name and (not _FILE_NAME.fullmatch(name) or name.startswith(".")):
        raise BadInput(f"model {_shown(model)}: `name` must be a plain file name, not {name!r}")
    if model == TINY:
        if sha256 not in ("", tiny_gguf.SHA256):
            raise BadInput("model tiny is generated on the host and has a digest of its own: leave its sha256 out")
        return ModelRef("tiny", model, tiny_gguf.SHA256, name or "tiny.gguf")
    if re.match(r"(?i)https?:", model):
        return _parse_url(model, sha256, name)
    if model.startswith("/"):
        if "\0" in model:
            raise BadInput(f"model {model!r}: a path may not hold a NUL byte")
        place = hashlib.sha256(model.encode(errors="surrogateescape")).hexdigest()[:12]
        return ModelRef("path", model, sha256, name or f"{place}-{_safe(model)}")
    raise BadInput(f"model {_shown(model)}: {_why_not(model)}")


def _parse_url(model: str, sha256: str, name: str) -> ModelRef:
    try:
        parts = urllib.parse.urlsplit(model)
        host, user, _ = parts.hostname, parts.username, parts.port
    except ValueError as error:
        raise BadInput(f"model {_shown(model)}: not a valid URL ({error})") from None
    if user is not None:
        raise BadInput("model URL: it may not hold a user name or password, which logs would show")
    if not host or re.search(r"[\x00-\x20\x7f]", model) or not model.isascii():
        raise BadInput(
            f"model {_shown(model)}: not a valid URL: write it as http(s)://host/path with special characters as %XX"
        )
    if not sha256:
        raise BadInput(
            f"model {_shown(model)}: a URL needs the sha256 of its file, so that what arrives can be trusted"
        )
    return ModelRef("url", model, sha256, name or f"{sha256[:12]}-{_safe(urllib.parse.unquote(parts.path))}")


def _safe(path: str) -> str:
    return _UNSAFE.sub("_", posixpath.basename(path.rstrip("/")))[-120:].strip("._") or "model.gguf"


def _why_not(model: str) -> str:
    if _HUB_PREFIX.match(model) or (_HUB_ID.fullmatch(model) and not model.endswith(".gguf") and model[0] != "."):
        return "hub models are not supported yet: give a local GGUF path or a URL with sha256"
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", model)
    if scheme:
        return f"{scheme.group(1)}:// is not supported: give a local GGUF path or an http(s) URL with sha256"
    if "/" in model or model.endswith(".gguf"):
        return "the path must be absolute, as it is on the host that serves it"
    return "not a model: give tiny, the absolute path of a GGUF file, or a URL with its sha256"


def _shown(model: str) -> str:
    # a URL may carry secrets before its host and, when it is signed, in its query
    shown = re.sub(r"//[^/@]*@", "//", model.split("?", 1)[0])
    return shown if shown.isprintable() and " " not in shown else repr(shown)
