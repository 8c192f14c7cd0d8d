"""How fields of a service become arguments of an engine: a row for each, in one table an engine. Pure.

The same rows say which arguments and variables users may not give beside the fields.
"""

from __future__ import annotations

import json
import posixpath
import typing as t
from dataclasses import dataclass, field

Words = t.Mapping[t.Any, tuple[str, ...]]


@dataclass(frozen=True)
class Option:
    """What a field is for an engine. A field that is left at its default is not said."""

    flag: str = ""
    """What the value stands after; of a field that is true, all there is to say."""
    also: tuple[str, ...] = ()
    """Other flags with which users could say the same."""
    env: tuple[str, ...] = ()
    """Variables with which users could say the same."""
    words: Words = field(default_factory=dict)
    """Value -> arguments, where they are not just ``flag`` and the value; {False: ()}: nothing needs to be said."""
    before: tuple[str, ...] = ()
    """Arguments that ``flag`` has no effect without."""
    member: str = ""
    """Of the JSON object that ``flag`` takes: the member which has the value."""
    file: bool = False
    """Whether a value that begins with `/` is a path on the host, which the container sees elsewhere."""
    text_flag: str = ""
    """Flag for a value that is no path, where that is another one."""
    listed: str = ""
    """Of a list: what stands between its items in one argument; "" makes each an argument of its own."""
    variable: str = ""
    """Variable that says it in place of an argument."""
    own: bool = False
    """Whether launch() says it by itself."""


Table = t.Mapping[str, Option]


def target_of(name: str, path: str) -> str:
    """Return where a container sees the file or folder ``path`` of the host that the field ``name`` gives.

    It is so deep that links out of a folder, as hubs' stores have them, lead to places of its own.
    """
    return f"/files/{name}/own/{posixpath.basename(path.rstrip('/'))}"


def path_of(item: str) -> tuple[str, str]:
    """Return name ("" where it has none) and path of an item of a list such as `name=/path`."""
    name, given, path = item.rpartition("=")
    return (name, path) if given else ("", item)


def argv(service: t.Any, table: Table, more: t.Mapping[str, str]) -> list[str]:
    """Return the arguments that say what ``service`` has in fields of ``table``; ``more``: field -> path in a container
    of the model that it names."""
    said: list[str] = []
    members: dict[str, dict[str, t.Any]] = {}
    for name, option in table.items():
        if option.own or option.variable or getattr(service, name) == getattr(type(service), name):
            continue
        value = more.get(name, getattr(service, name))
        if option.member:
            members.setdefault(option.flag, {})[option.member] = option.words.get(value, (value,))[0]
        else:
            said += _said(name, option, value, inside=name in more)
    for flag, content in members.items():
        said += [flag, json.dumps(content, sort_keys=True)]
    return said


def _said(name: str, option: Option, value: t.Any, inside: bool) -> list[str]:
    if value in option.words:
        return list(option.words[value])
    if not option.flag:
        return []
    if value is True:
        return [*option.before, option.flag]
    if isinstance(value, tuple):
        items = [_item(name, item, bool(option.listed)) for item in value]
        return [*option.before, option.flag, *([option.listed.join(items)] if option.listed else items)]
    flag, text = option.flag, f"{value:g}" if isinstance(value, float) else str(value)
    if option.file and not inside:
        if text.startswith("/"):
            text = target_of(name, text)
        else:
            flag = option.text_flag or flag
    return [*option.before, flag, text]


def _item(name: str, item: str, bare: bool) -> str:
    called, path = path_of(item)
    inside = target_of(f"{name}/{called}" if called else name, path)
    return inside if bare else f"{called or posixpath.basename(path)}={inside}"


def variables(service: t.Any, table: Table) -> dict[str, str]:
    """Return the variables that say what has no flag."""
    return {
        option.variable: option.words[getattr(service, name)][0]
        for name, option in table.items()
        if option.variable and getattr(service, name) != getattr(type(service), name)
    }


def files(service: t.Any, table: Table) -> dict[str, str]:
    """Return path in the container -> path on the host of the files that fields of ``service`` give."""
    found = {}
    for name, option in table.items():
        if not option.file or option.own:
            continue
        value = getattr(service, name)
        for item in value if isinstance(value, tuple) else (value,):
            called, path = path_of(item) if isinstance(value, tuple) else ("", item)
            if path.startswith("/"):
                found[target_of(f"{name}/{called}" if called else name, path)] = path
    return found


def owned_flags(table: Table) -> dict[str, str]:
    """Return flag -> the field that says it. Flags that take an object are not among them: see shared_flags."""
    flags: dict[str, str] = {}
    for name, option in table.items():
        if option.member:
            continue
        for flag in (option.flag, option.text_flag, *option.also, *_flags_of(option.words.values())):
            if flag:
                flags.setdefault(flag, name)
    return flags


def shared_flags(table: Table) -> dict[str, tuple[str, ...]]:
    """Return flag -> the fields that are members of the object it takes; it may be given while none of them is."""
    flags: dict[str, tuple[str, ...]] = {}
    for name, option in table.items():
        for flag in (option.flag, *option.also) if option.member else ():
            flags[flag] = (*flags.get(flag, ()), name)
    return flags


def _flags_of(words: t.Iterable[tuple[str, ...]]) -> list[str]:
    return [said[0] for said in words if said and said[0].startswith("-")]


def owned_env(table: Table) -> dict[str, str]:
    """Return variable -> the field that says it."""
    return {variable: name for name, option in table.items() for variable in (option.variable, *option.env) if variable}


def flag_of(arg: str) -> str:
    """Return the flag that an argument begins with: both engines read `_` as `-`, and vLLM `--object.member` too."""
    flag = arg.split("=", 1)[0]
    return flag.split(".", 1)[0].replace("_", "-") if flag.startswith("--") else flag


def in_full(flag: str, known: t.Collection[str]) -> str:
    """Return the flag of ``known`` that ``flag`` abbreviates, as Python's parsers let users do, or else itself."""
    if len(flag) < len("--abc") or flag in known:
        return flag
    return next((one for one in known if one.startswith(flag)), flag)
