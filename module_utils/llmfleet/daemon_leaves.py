"""The leaves of daemon.json: a configuration addressed by paths such as ("runtimes", "nvidia", "path")."""

from __future__ import annotations

import json
import typing as t

from ansible.module_utils.llmfleet.daemon_keys import masked
from ansible.module_utils.llmfleet.errors import BadInput

Config = dict[str, t.Any]
Path = tuple[str, ...]

SETS = ("insecure-registries", "labels")
"""Lists whose entries stand for themselves: ours are added to the others'. An entry is the last part of a path."""

ABSENT: t.Any = object()


def same(one: t.Any, other: t.Any) -> bool:
    """Whether two values are the same JSON; for Python, true equals 1."""
    return one is other or (one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def leaves(options: t.Mapping[str, t.Any], above: Path = ()) -> t.Iterator[tuple[Path, t.Any]]:
    """Return (path, value) of everything in ``options``; a mapping is its entries, an entry of a set is True.

    A null is a leaf that is not wanted, so that a role can leave a key out without building its mapping in steps.
    """
    for key, value in options.items():
        path = (*above, key)
        if value is None:
            continue
        if path[0] in SETS and isinstance(value, dict):
            raise BadInput(f"daemon.json: `{key}` must be a list, not {json.dumps(masked(value))}; write - before each")
        if isinstance(value, dict):
            yield from leaves(value, path)
        elif path[0] in SETS and isinstance(value, list):
            yield from (((key, str(item)), True) for item in value)
        else:
            yield path, value


class Document:
    """A configuration addressed by paths, in which an entry of a set reads as True."""

    def __init__(self, config: Config) -> None:
        self.config: Config = json.loads(json.dumps(config))  # a copy, in which a set's list may be changed

    def get(self, path: Path) -> t.Any:
        node: t.Any = self.config
        for part in path[:-1]:
            node = node.get(part, ABSENT) if isinstance(node, dict) else ABSENT
        if isinstance(node, list):
            return True if path[-1] in node else ABSENT
        return node.get(path[-1], ABSENT) if isinstance(node, dict) else ABSENT

    def put(self, path: Path, value: t.Any) -> list[Path]:
        """Set the value at ``path``; return the containers that had to be made."""
        node: t.Any = self.config
        made: list[Path] = []
        for depth, part in enumerate(path[:-1], 1):
            if node.get(part) is None:  # dockerd reads null as nothing
                node[part] = [] if path[0] in SETS else {}
                made.append(path[:depth])
            node = node[part]
            if not isinstance(node, list if path[0] in SETS else dict):
                wanted = "list" if path[0] in SETS else "mapping"
                raise BadInput(f"daemon.json: `{'.'.join(path[:depth])}` must be a {wanted}; correct it by hand")
        if isinstance(node, list):
            node.append(path[-1])
        else:
            node[path[-1]] = value
        return made

    def drop(self, path: Path) -> None:
        node: t.Any = self.config
        for part in path[:-1]:
            node = node[part]
        if isinstance(node, list):
            node.remove(path[-1])
        else:
            del node[path[-1]]


def shown(path: Path, value: t.Any) -> str:
    """Return the value at ``path`` for people: JSON, short and without secrets."""
    text = json.dumps(masked(path[-1] if path[0] in SETS and len(path) == 2 else value), ensure_ascii=False)
    return text if len(text) <= 120 else text[:119] + "…"


def named(path: Path) -> str:
    """Return the key for people."""
    return path[0] if path[0] in SETS else ".".join(path)
