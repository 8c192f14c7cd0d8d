"""daemon.json as text and as data: read it, lay our keys into it, take them out again, and foresee what that asks for.

The file has many authors: its user, packages, and roles of this project. A role contributes *leaves*: the value at a
path such as runtimes > nvidia > path. What stood there before is remembered in the record, so that taking a leaf back
restores the file; everything else in the file is left as it is, in its order.
"""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.daemon_keys import (
    NONE,
    RELOAD,
    check,
    conflicts,
    greater,
    masked,
    needed_action,
)
from ansible.module_utils.llmfleet.daemon_leaves import ABSENT, Config, Document, Path, leaves, named, same, shown
from ansible.module_utils.llmfleet.errors import BadInput

Contributions = t.Mapping[str, t.Mapping[str, t.Any]]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


@dataclass(frozen=True)
class Merged:
    """The configuration with our leaves in it, the record of them, and what changed, a line each."""

    config: Config
    record: dict[str, t.Any]
    changes: tuple[str, ...]


def _refuse(path: str, text: str, position: int, problem: str) -> t.NoReturn:
    line, column = text.count("\n", 0, position) + 1, position - (text.rfind("\n", 0, position) + 1) + 1
    raise BadInput(f"{path}, line {line}, column {column}: {problem}; correct it by hand, it was not touched")


def _find_repeated_key(text: str, path: str) -> None:
    """Refuse a key that stands twice in one mapping: dockerd takes the last one, its author may mean the first."""
    open_keys: list[set[str]] = []
    last: re.Match[str] | None = None
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark in "{[":
            open_keys.append(set())
        elif mark in "}]":
            open_keys.pop()
        elif mark == ":" and last:
            key = json.loads(last.group())
            if key in open_keys[-1]:
                _refuse(path, text, last.start(), f"the key {key} is there twice")
            open_keys[-1].add(key)
        last = token


def parse(text: str, path: str) -> Config:
    """Return the configuration in ``text``, the content of ``path``; raise BadInput for what dockerd cannot read."""
    text = text.lstrip("\ufeff")
    if not text.strip():
        return {}

    def not_json(constant: str) -> t.NoReturn:
        raise BadInput(f"{path}: {constant} is no JSON value; correct it by hand, it was not touched")

    try:
        config = json.loads(text, parse_constant=not_json)
    except json.JSONDecodeError as error:
        _refuse(path, text, error.pos, f"broken JSON, {error.msg[:1].lower()}{error.msg[1:]}")
    except BadInput:
        raise
    except (RecursionError, ValueError):
        _refuse(path, text, 0, "too deeply nested, or a number of too many digits")
    if not isinstance(config, dict):
        _refuse(path, text, len(text) - len(text.lstrip()), "the file must hold a mapping, { … }")
    _find_repeated_key(text, path)
    try:
        json.dumps(config, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # 1e999, and half of a pair of UTF-16, which JSON can spell
        _refuse(path, text, 0, "it holds a number or a character that cannot be written again")
    return config


def settled(text: str, record: t.Mapping[str, t.Any]) -> str:
    """Return ``text``, or what was to follow it when it is the interim file of a reload that was interrupted."""
    swap = (record.get("pending") or {}).get("swap") or {}
    return swap["final"] or "" if swap and swap["interim"] == text else text


def render(config: Config, old_text: str = "") -> str:
    """Return ``config`` as text, indented the way ``old_text`` is."""
    found = re.search(r'^([ \t]+)"', old_text, re.MULTILINE)
    return json.dumps(config, indent=found.group(1) if found else 4, ensure_ascii=False) + "\n"


def _wanted(contributions: Contributions, owned: t.Mapping[Path, t.Any]) -> dict[Path, tuple[t.Any, list[str]]]:
    """Return path -> (value, owners) for all contributors, those of the record included; refuse contradictions."""
    wanted: dict[Path, tuple[t.Any, list[str]]] = {}

    def add(path: Path, value: t.Any, owner: str) -> None:
        there, owners = wanted.setdefault(path, (value, []))
        if not same(there, value):
            raise BadInput(
                f"daemon.json: {owners[0]} wants `{'.'.join(path)}` to be {json.dumps(masked(there))}, "
                f"{owner} wants {json.dumps(masked(value))}; give it in one place"
            )
        if owner not in owners:
            owners.append(owner)

    for owner, options in contributions.items():
        for path, value in leaves(options):
            add(path, value, owner)
    for path, entry in owned.items():
        for owner in entry["owners"]:
            if owner not in contributions:
                add(path, entry["value"], owner)
    for path, (_, owners) in wanted.items():
        for depth in range(1, len(path)):
            if path[:depth] in wanted:
                outer, inner = ".".join(path[:depth]), ".".join(path)
                other = wanted[path[:depth]][1][0]
                raise BadInput(f"daemon.json: {other} sets `{outer}`, {owners[0]} sets `{inner}`; give it in one place")
    return wanted


def _take_back(document: Document, entry: t.Mapping[str, t.Any]) -> str:
    """Put back what stood at an entry's path before it; return what changed, "" for nothing."""
    path = tuple(entry["path"])
    if not same(document.get(path), entry["value"]):
        return ""  # changed by hand: it is theirs now
    if "before" not in entry:
        document.drop(path)
        return f"{named(path)}: {shown(path, entry['value'])} removed"
    if same(entry["before"], entry["value"]):
        return ""
    document.put(path, entry["before"])
    return f"{named(path)}: {shown(path, entry['before'])} again, as it was before"


def merge(current: Config, contributions: Contributions, record: t.Mapping[str, t.Any]) -> Merged:
    """Return ``current`` with each contributor's leaves in it.

    A contributor that is mentioned has exactly the leaves given here: its others are taken back. One that is not
    mentioned keeps what it has. A leaf of ours that somebody changed by hand gets our value again, and is left to
    them when it is taken back.
    """
    owned = {tuple(entry["path"]): entry for entry in record.get("owned", ())}
    wanted = _wanted(contributions, owned)
    document = Document(current)
    changes = [_take_back(document, entry) for path, entry in owned.items() if path not in wanted]
    containers = [tuple(path) for path in record.get("containers", ())]
    # inner ones first; what others put into a container of ours keeps it
    for path in sorted(containers, key=len, reverse=True):
        if not any(leaf[: len(path)] == path for leaf in wanted) and document.get(path) in ({}, []):
            document.drop(path)
    entries = []
    for path, (value, owners) in wanted.items():
        there = document.get(path)
        known = owned.get(path, {} if there is ABSENT else {"before": there})
        before = {"before": known["before"]} if "before" in known else {}
        entries.append({"path": list(path), "owners": owners, "value": value, **before})
        mentioned = any(owner in contributions for owner in owners)
        if not mentioned or same(there, value):
            continue
        containers += document.put(path, value)
        by_hand = " set by hand" if path in owned and there not in (ABSENT, owned[path]["value"]) else ""
        instead = "" if there is ABSENT else f" instead of {shown(path, there)}{by_hand}"
        changes.append(f"{named(path)}: {shown(path, value)}{instead} ({', '.join(owners)})")
    kept = [list(path) for path in dict.fromkeys(containers) if any(leaf[: len(path)] == path for leaf in wanted)]
    mine = {"owned": entries, "containers": kept}
    rest = {key: value for key, value in record.items() if key not in mine}
    full = {**rest, **{key: value for key, value in mine.items() if value}}
    return Merged(document.config, full, tuple(filter(None, changes)))


def foresee(daemon: t.Mapping[str, t.Any], contributions: Contributions, engine_version: str) -> dict[str, t.Any]:
    """Return what the module docker_daemon_config will do on a host whose facts (``host_info``) are ``daemon``.

    ``engine_version`` is that of the running engine; "" says that none runs, and that the next start reads the file.
    ``keys``: those that change; ``live_restore``: whether the file has it on afterwards.
    """
    path = daemon.get("path") or "/etc/docker/daemon.json"
    nothing: dict[str, t.Any] = {"changed": False, "action": NONE, "changes": [], "why": "", "problems": []}
    nothing.update(keys=[], live_restore=False)
    if daemon.get("error"):
        return {**nothing, "problems": [str(daemon["error"])]}
    # the facts may come with their secrets masked; both sides masked are alike
    record, ours = masked(dict(daemon.get("record") or {})), masked(dict(contributions))
    try:
        before = parse(settled(masked(daemon.get("text") or ""), record), path)
        merged = merge(before, ours, record)
    except BadInput as error:
        return {**nothing, "problems": [str(error)]}
    changed = not same(merged.config, before)
    flags = daemon.get("flags") or {}
    problems = [*check(merged.config, engine_version, flags=flags), *conflicts(merged.config, flags, path)]
    kind, why = NONE, "the engine reads the file when it starts" if changed else ""
    action = needed_action(before, merged.config, engine_version)
    if engine_version:
        kind = greater(action.kind, (record.get("pending") or {}).get("action", NONE))
        keys = ", ".join(sorted(key for key, needed in action.keys.items() if needed == kind))
        why = f"a reload applies {keys}" if kind == RELOAD else f"only a restart applies {keys}"
        if not keys:
            why = f"an earlier change of {path} still waits for a {kind}"
    return {
        "changed": changed,
        "action": kind,
        "changes": list(merged.changes),
        "why": "" if kind == NONE and engine_version else why,
        "problems": problems if changed else [],
        "keys": list(action.keys),
        "live_restore": bool(merged.config.get("live-restore")),
    }
