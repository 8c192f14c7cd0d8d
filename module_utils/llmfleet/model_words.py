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

import hashlib
import posixpath
import re
import urllib.parse

from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import quants, reference
from ansible.module_utils.llmfleet.model_ref import ModelRef, masked

TINY = "tiny"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[^/\x00-\x1f]{1,200}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


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
    return reference.parse(model, sha256, name)


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
    if host in reference.HOSTS:
        found = reference.parse_page(model, parts, sha256, name)
        if found:
            return found
        # the page that shows a file is not the file
        model = reference.file_url(model)
    if not sha256:
        raise BadInput(
            f"model {masked(model)}: a URL needs the sha256 of its file, so that what arrives can be trusted"
        )
    return ModelRef("url", model, sha256, name or f"{sha256[:12]}-{_safe(urllib.parse.unquote(parts.path))}")


def _safe(path: str) -> str:
    return _UNSAFE.sub("_", posixpath.basename(path.rstrip("/")))[-120:].strip("._") or "model.gguf"
