"""Where models come from: hubs, their mirrors and folders, as users name them, and to which of them a token may go."""

from __future__ import annotations

import difflib
import ipaddress
import os
import posixpath
import re
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import BadInput

HF = "hf"
MS = "ms"
FOLDER = "folder"

DEFAULT = ("hf", "hf-mirror", "ms")
"""The sources of a host whose inventory names none."""

_URLS = {"hf": "https://huggingface.co", "hf-mirror": "https://hf-mirror.com", "ms": "https://modelscope.cn"}
_WORDS = {"hf": "hf", "huggingface": "hf", "hf-mirror": "hf-mirror", "ms": "ms", "modelscope": "ms"}
_KINDS = {"hf": HF, "hf-mirror": HF, "ms": MS}
_KEYS = ("name", "kind", "url", "path", "token", "token_file")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class Source:
    """A place that models come from."""

    name: str
    """What plans and messages call it."""
    kind: str
    """HF (Hugging Face's interface), MS (ModelScope's) or FOLDER."""
    place: str
    """URL without a slash at its end, or the absolute path of a folder."""
    token: str = field(default="", repr=False)
    token_file: str = ""
    """File on the host that holds the token; read when it is needed."""

    @property
    def has_token(self) -> bool:
        """Whether there is a token for it."""
        return bool(self.token or self.token_file)


def parse_sources(
    raw: t.Any, environ: t.Mapping[str, str], is_file: t.Callable[[str], bool] = os.path.isfile
) -> list[Source]:
    """Return the sources that ``raw`` names, in its order and without repetition; None is the default list.

    ``environ`` is that of the host: `HF_ENDPOINT` takes the place of `hf`, and tokens come from `HF_TOKEN`,
    `HF_TOKEN_PATH`, `HF_HOME` or the place where Hugging Face's tools keep theirs (a file that ``is_file`` finds), and
    `MODELSCOPE_API_TOKEN`. Raises BadInput with one sentence that names the source, and no token.
    """
    if raw is None:
        raw = list(DEFAULT)
    elif isinstance(raw, (str, dict)):
        raw = [raw]
    if not isinstance(raw, (list, tuple)):
        raise BadInput(f"sources must be a list such as [{', '.join(DEFAULT)}], not {type(raw).__name__}")
    found: list[Source] = []
    for position, item in enumerate(raw):
        source = _with_token(_parse(item, position, environ), environ, is_file)
        twin = next((other for other in found if other.name == source.name), None)
        if twin and (twin.kind, twin.place) != (source.kind, source.place):
            raise BadInput(f"source {source.name}: the name is used for two places; give one of them another `name`")
        # HF_ENDPOINT often is what another word of the list means
        if not twin and not any((other.kind, other.place) == (source.kind, source.place) for other in found):
            found.append(source)
    return found


def for_model(sources: t.Sequence[Source], wanted: str, model: str) -> list[Source]:
    """Return those of ``sources`` that may answer for ``model`` (named in messages), which is to come from ``wanted``.

    "" is all of them, `hf` all that speak Hugging Face's language, `ms` all that speak ModelScope's; another word is
    the source of that name. Folders always may. Raises BadInput when none is left.
    """
    fitting = [
        source
        for source in sources
        if source.kind == FOLDER
        or wanted in ("", source.name)
        or (wanted in (HF, MS) and source.kind == wanted)
        # HF_ENDPOINT often is the mirror, which then is in the list under another name
        or source.place == _URLS.get(wanted)
    ]
    if not sources:
        raise BadInput(f"model {model}: there is no source to get it from: name some, such as [{', '.join(DEFAULT)}]")
    if not fitting:
        there = ", ".join(source.name for source in sources)
        raise BadInput(f"model {model}: it is to come from {wanted}, and the sources are {there}: add {wanted} to them")
    return fitting


def why_no_token(source: Source, url: str) -> str:
    """Return why the token of ``source`` may not be sent with a request for ``url``; "" when it may.

    It goes to the source's own place alone, not to the hosts that a hub redirects to, and unencrypted only within a
    private network.
    """
    try:
        own, asked = urllib.parse.urlsplit(source.place), urllib.parse.urlsplit(url)
        same = (own.scheme.lower(), _host(own), _port(own)) == (asked.scheme.lower(), _host(asked), _port(asked))
    except ValueError:
        return f"{_plain(url)} is not a valid URL"
    if source.kind == FOLDER or not same:
        return f"{_host(asked) or _plain(url)} is not {_host(own) or source.place}"
    if asked.scheme.lower() != "https" and not _is_near(_host(asked)):
        return f"{source.place} is not encrypted"
    return ""


def _parse(item: t.Any, position: int, environ: t.Mapping[str, str]) -> Source:
    if isinstance(item, str):
        return _of_word(item.strip(), environ)
    where = f"sources[{position}]"
    if not isinstance(item, dict):
        raise BadInput(
            f"{where} must be a word such as hf, a URL, an absolute path or a mapping, not {type(item).__name__}"
        )
    for key in item:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.5)
            raise BadInput(
                f"{where}: unknown key `{key}` ({f'did you mean `{close[0]}`?' if close else ', '.join(_KEYS)})"
            )
    given = {key: value for key, value in item.items() if value not in (None, "")}
    for key, value in given.items():
        if not isinstance(value, str):
            raise BadInput(f"{where}: `{key}` must be a string, not {type(value).__name__}")
    return _of_mapping(given, f"source {_plain(given['name'])}" if given.get("name") else where, environ)


def _of_word(word: str, environ: t.Mapping[str, str]) -> Source:
    if not word:
        raise BadInput(f"sources: an empty word; name one such as {', '.join(_URLS)}, a URL or an absolute path")
    name = _WORDS.get(word.lower(), "")
    if name:
        return Source(name, _KINDS[name], _known_url(name, environ))
    if word.startswith("/"):
        path = _checked_path(word, f"source {_plain(word)}")
        return Source(path, FOLDER, path)
    if re.match(r"(?i)https?:", word):
        url = _checked_url(word, "sources")
        return Source(urllib.parse.urlsplit(url).netloc.lower(), HF, url)
    close = [] if "/" in word else difflib.get_close_matches(word.lower(), _WORDS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"give one of {', '.join(_URLS)}, a URL or an absolute path"
    raise BadInput(f"source {_plain(word)}: not known; {hint}")


def _of_mapping(given: t.Mapping[str, str], where: str, environ: t.Mapping[str, str]) -> Source:
    name, kind = given.get("name", ""), given.get("kind", "").lower()
    known = _WORDS.get(name.lower(), "")
    kind = _WORDS.get(kind, kind) if kind != FOLDER else kind
    if not kind:
        kind = FOLDER if "path" in given else _KINDS.get(known, HF)
    if kind not in (HF, MS, FOLDER):
        raise BadInput(f"{where}: `kind` must be hf, ms or folder, not {_plain(kind)}")
    if name and not _NAME.fullmatch(name):
        raise BadInput(f"sources: `name` must be up to 63 letters, digits, `_`, `.` or `-`, not {_plain(name)}")
    if kind == FOLDER:
        if "path" not in given or "url" in given or "token" in given or "token_file" in given:
            raise BadInput(f"{where}: a folder has a `path`, and neither a URL nor a token")
        path = _checked_path(given["path"], where)
        return Source(name or path, FOLDER, path)
    if "path" in given:
        raise BadInput(f"{where}: `path` is for folders; a hub has a `url`")
    if "token" in given and "token_file" in given:
        raise BadInput(f"{where}: `token` and `token_file` exclude each other")
    if "url" in given:
        url = _checked_url(given["url"], where)
    elif known and _KINDS[known] == kind:
        name, url = known, _known_url(known, environ)
    elif not name:
        name, url = kind, _known_url(kind, environ)
    else:
        raise BadInput(f"{where}: `url` is missing")
    token_file = given.get("token_file", "")
    if token_file:
        token_file = _checked_path(token_file, f"{where}: `token_file`")
    token = _checked_token(given.get("token", ""), where)
    return Source(name or urllib.parse.urlsplit(url).netloc.lower(), kind, url, token, token_file)


def _known_url(name: str, environ: t.Mapping[str, str]) -> str:
    endpoint = environ.get("HF_ENDPOINT", "").strip() if name == HF else ""
    return _checked_url(endpoint, "HF_ENDPOINT in the environment") if endpoint else _URLS[name]


def _with_token(source: Source, environ: t.Mapping[str, str], is_file: t.Callable[[str], bool]) -> Source:
    """Return the source with the host's own token for it, unless it has one."""
    if source.has_token or source.kind == FOLDER:
        return source
    if source.kind == MS:
        if _host(urllib.parse.urlsplit(source.place)) not in ("modelscope.cn", "www.modelscope.cn"):
            return source
        token = _checked_token(environ.get("MODELSCOPE_API_TOKEN", ""), "MODELSCOPE_API_TOKEN in the environment")
        return Source(source.name, source.kind, source.place, token)
    own = {_known_url("hf", environ), _URLS["hf"], _URLS["hf-mirror"]}
    if source.place not in own:
        return source
    token = _checked_token(environ.get("HF_TOKEN", ""), "HF_TOKEN in the environment")
    if token:
        return Source(source.name, source.kind, source.place, token)
    home = environ.get("HF_HOME", "")
    cache = environ.get("XDG_CACHE_HOME", "") or posixpath.join(environ.get("HOME", ""), ".cache")
    path = environ.get("HF_TOKEN_PATH", "") or posixpath.join(home or posixpath.join(cache, "huggingface"), "token")
    return Source(source.name, source.kind, source.place, "", path if path.startswith("/") and is_file(path) else "")


def _checked_token(token: str, where: str) -> str:
    token = token.strip()
    # it becomes the line of a header
    if token and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise BadInput(f"{where}: the token holds white space or characters that no token has; copy it again")
    return token


def _checked_path(path: str, where: str) -> str:
    if not path.startswith("/") or not path.isprintable():
        raise BadInput(f"{where}: the path must be absolute, not {_plain(path)}")
    return "/" + posixpath.normpath(path).lstrip("/")


def _checked_url(url: str, where: str) -> str:
    """Return ``url`` without slashes at its end; raises BadInput without showing what may be a secret."""
    url = url.strip()
    try:
        parts = urllib.parse.urlsplit(url)
        host, user, _ = parts.hostname, parts.username, parts.port
    except ValueError as error:
        raise BadInput(f"{where}: not a valid URL ({error})") from None
    if user is not None:
        raise BadInput(f"{where}: a URL may not hold a user name or password, which logs would show; use `token_file`")
    if (
        parts.scheme.lower() not in ("http", "https")
        or not host
        or re.search(r"[\x00-\x20\x7f]", url)
        or not url.isascii()
    ):
        raise BadInput(f"{where}: {_plain(url.split('?')[0])} is not a URL such as https://hub.example.org")
    if parts.query or parts.fragment or "?" in url:
        raise BadInput(f"{where}: a hub's URL ends with its path: leave out what begins with ? or #")
    return url.rstrip("/")


def _plain(word: str) -> str:
    word = re.sub(r"//[^/@]*@", "//", word)[:100]
    return word if word.isprintable() and " " not in word else repr(word)


def _host(parts: urllib.parse.SplitResult) -> str:
    return (parts.hostname or "").lower().rstrip(".")


def _port(parts: urllib.parse.SplitResult) -> int:
    return parts.port or (443 if parts.scheme.lower() == "https" else 80)


def _is_near(host: str) -> bool:
    """Return whether ``host`` is this machine or, by its address, one of a private network."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_link_local
