"""Writing YAML without a YAML library, which managed hosts need not have."""

from __future__ import annotations

import json
import re
import typing as t

_PLAIN = re.compile(r"(?:--)?[A-Za-z/][A-Za-z0-9_/.-]*")
# what readers of YAML 1.1 or 1.2 take for a boolean or for nothing; no number begins with a letter or a slash
_WORDS = frozenset(("y", "yes", "n", "no", "true", "false", "on", "off", "null"))
_BEYOND = re.compile(r"[^\x20-\x7e]")


def scalar(value: str | int | bool) -> str:
    """Return ``value`` so that every reader gets the same back; strings are quoted unless they are plain words."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    # JSON's escapes are YAML's, but for characters beyond 16 bits
    quoted = json.dumps(value, ensure_ascii=False)
    return _BEYOND.sub(lambda match: f"\\U{ord(match.group()):08x}", quoted)


def lines(data: t.Any, indent: int = 0) -> t.Iterator[str]:
    """Yield ``data`` (mappings, sequences, strings, whole numbers, booleans) as lines of block style."""
    pad = " " * indent
    if isinstance(data, t.Mapping):
        for key, value in data.items():
            yield from _entry(f"{pad}{scalar(key)}:", value, indent + 2)
    else:
        for value in data:
            if not _nested(value):
                yield from _entry(f"{pad}-", value, indent + 2)
                continue
            first, *rest = lines(value, indent + 2)
            yield f"{pad}- {first.lstrip()}"
            yield from rest


def _entry(head: str, value: t.Any, indent: int) -> t.Iterator[str]:
    if _nested(value):
        yield head
        yield from lines(value, indent)
    else:
        empty = {"dict": "{}", "list": "[]", "tuple": "[]"}
        yield f"{head} {empty.get(type(value).__name__) or scalar(value)}"


def _nested(value: t.Any) -> bool:
    return isinstance(value, (dict, list, tuple)) and bool(value)
