"""Where pip looks for packages on a host, read from its configuration without pip: indexes and find-links.

What pip's environment variables say wins over its files, as with pip itself (https://pip.pypa.io, "Configuration").
"""

from __future__ import annotations

import configparser
import typing as t
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

_SECTIONS = ("global", "install", "download")  # weakest first


@dataclass(frozen=True)
class PipPlaces:
    """``indexes`` are simple indexes (http, https or file URLs), the main one first; ``links`` folders or pages."""

    indexes: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


def pip_places(texts: t.Iterable[str], environment: t.Mapping[str, str], index: str) -> PipPlaces:
    """Return the places: ``texts`` are pip's configuration files, the strongest last, ``index`` is the main index."""
    kept = list(texts)
    extra = environment.get("PIP_EXTRA_INDEX_URL") or _option(kept, "extra-index-url")
    links = environment.get("PIP_FIND_LINKS") or _option(kept, "find-links")
    # local places first: nothing travels, and what they lack the others are asked for
    indexes = sorted(dict.fromkeys(url.rstrip("/") for url in (index, *extra.split()) if url), key=_is_remote)
    return PipPlaces(tuple(indexes), tuple(dict.fromkeys(links.split())))


def _option(texts: t.Iterable[str], name: str) -> str:
    value = ""
    for text in texts:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(text)
        except configparser.Error:
            continue  # pip itself will complain about it
        for section in _SECTIONS:
            for option in (name, name.replace("-", "_")):
                value = parser.get(section, option, fallback=value)
    return value


def _is_remote(url: str) -> bool:
    return local_path(url) is None


def local_path(place: str) -> Path | None:
    """Return the path of a ``file:`` URL or of a plain path, None for everything on the network."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in place else Path(place).expanduser()
