"""Who may use the gateway: its API keys.

nginx gets digests: they are of one length, a map compares them exactly (texts it compares without case), and the files
on the host hold no key of a caller.
"""

from __future__ import annotations

import hashlib
import re
import typing as t
from collections import Counter
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput

SHORTEST = 16
"""Characters of a key; what is shorter can be guessed."""
ANYBODY = "anybody"
"""Name that callers have in the log where no key is asked for."""

_FIELDS = ("name", "key", "services", "requests_per_minute", "parallel")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")
_KEY = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Access:
    """What the holder of one key may do; 0 sets no bound, no services mean all."""

    name: str
    digest: str
    services: tuple[str, ...] = ()
    requests_per_minute: int = 0
    parallel: int = 0


def parse(raw: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[Access, ...]:
    """Return the holders of keys that ``raw`` (llm_gateway_keys) describes; raises BadInput without showing a key."""
    if not isinstance(raw, list):
        raise BadInput("llm_gateway_keys must be a list of mappings with `name` and `key`")
    found = [_parse_one(row, f"llm_gateway_keys[{position}]") for position, row in enumerate(raw)]
    for what in ("name", "digest"):
        for value, times in Counter(getattr(one, what).lower() for one in found).items():
            if times > 1:
                owner = next(one.name for one in found if getattr(one, what).lower() == value)
                twice = "is there twice" if what == "name" else "has the same key as another one"
                raise BadInput(f"llm_gateway_keys: {owner} {twice}; each needs a name and a key of its own")
    return tuple(found)


def _parse_one(row: t.Mapping[str, t.Any], where: str) -> Access:
    if not isinstance(row, dict):
        raise BadInput(f"{where}: must be a mapping with `name` and `key`")
    name, key = row.get("name"), row.get("key")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == ANYBODY:
        raise BadInput(f"{where}: `name` must be up to 63 letters, digits, `_`, `.`, `@` or `-`, and not `{ANYBODY}`")
    where = f"key {name} of the gateway"
    for field in row:
        if field not in _FIELDS:
            raise BadInput(f"{where}: unknown field `{field}` (known: {', '.join(_FIELDS)})")
    if key == "":
        raise BadInput(f"{where}: `key` is empty; set the variable of the environment or the vault that it comes from")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise BadInput(f"{where}: `key` must be a string of visible ASCII characters (quote it)")
    if len(key) < SHORTEST:
        raise BadInput(f"{where}: `key` is shorter than {SHORTEST} characters; make one with openssl rand -hex 24")
    services = row.get("services") or []
    if not isinstance(services, list) or not all(isinstance(one, str) for one in services):
        raise BadInput(f"{where}: `services` must be a list of names; leave it out to allow all")
    bounds = {field: row.get(field) or 0 for field in ("requests_per_minute", "parallel")}
    for field, value in bounds.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BadInput(f"{where}: `{field}` must be a number; 0 sets no bound")
    digest = hashlib.sha256(key.encode()).hexdigest()
    return Access(name, digest, tuple(services), bounds["requests_per_minute"], bounds["parallel"])
