"""What a change of daemon.json asks of the engine, what is wrong with a configuration, and what clashes with flags."""

from __future__ import annotations

import difflib
import re
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet import engine_info
from ansible.module_utils.llmfleet.daemon_rules import value_problems
from ansible.module_utils.llmfleet.daemon_table import (
    CDI_BY_DEFAULT,
    EVER,
    FEATURES,
    FLAG_KEYS,
    INSTEAD,
    KINDS,
    NEWEST,
    NO_KEY_FLAGS,
    SHORT_FLAGS,
    TABLE,
    UNKNOWN,
    Release,
    Row,
)

NONE, RELOAD, RESTART = "none", "reload", "restart"
ACTIONS = (NONE, RELOAD, RESTART)
"""What applies a change, the lesser first."""

CONFIG_FILE = "config-file"
"""The flag that makes dockerd read another file."""

Config = t.Mapping[str, t.Any]

_ABSENT: t.Any = object()
# up to the last @ before the path: a password may hold one, and an apostrophe, as they are
_USERINFO = re.compile(r"([A-Za-z][\w+.-]*://)[^/\s\"]+@")


@dataclass(frozen=True)
class Action:
    """What the engine needs for a change: per key, and in all. ``empty_first`` must be reloaded before the file is."""

    kind: str = NONE
    keys: t.Mapping[str, str] = field(default_factory=dict)
    empty_first: t.Mapping[str, t.Any] = field(default_factory=dict)


def greater(one: str, other: str) -> str:
    """Return the action that does for both."""
    return max(one, other, key=ACTIONS.index)


def masked(value: t.Any) -> t.Any:
    """Return ``value`` with the user and password of any URL in it, such as a proxy's, out of sight."""
    if isinstance(value, str):
        return _USERINFO.sub(r"\1********@", value)
    if isinstance(value, dict):
        return {key: masked(item) for key, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


def _flat(config: Config) -> dict[str, t.Any]:
    """Return the keys with their values, each feature on its own: some of them need a restart, others do not."""
    found = {key: value for key, value in config.items() if value is not None}
    if isinstance(found.get("features"), dict):
        found.update({f"features.{name}": value for name, value in found.pop("features").items()})
    return found


def _row(key: str, release: Release | None) -> Row:
    if not key.startswith("features."):
        return TABLE.get(key, Row("any"))
    if key == "features.cdi" and release:
        return Row("bool", default=release >= CDI_BY_DEFAULT)
    return FEATURES.get(key[len("features.") :], Row("bool"))


def needed_action(before: Config, after: Config, engine_version: str) -> Action:
    """Return what an engine of ``engine_version`` that runs with ``before`` needs to run with ``after``."""
    release = engine_info.release(engine_version)
    old, new = _flat(before), _flat(after)
    keys: dict[str, str] = {}
    empty_first: dict[str, t.Any] = {}
    for key in (*old, *(key for key in new if key not in old)):
        row = _row(key, release)
        absent = _ABSENT if row.default is UNKNOWN else row.default
        if old.get(key, absent) == new.get(key, absent):
            continue
        # a release that is not known gets the benefit of neither doubt: only what every engine reloads is reloaded
        keys[key] = RELOAD if row.reload_until >= (release or NEWEST) else RESTART
        if key not in new and keys[key] == RELOAD and not row.resets:
            # a reload looks only at keys that are there: gone means "as it was"
            if row.default is UNKNOWN:
                keys[key] = RESTART
            else:
                empty_first[key] = row.default
    kind = max(keys.values(), key=ACTIONS.index, default=NONE)
    return Action(kind, keys, empty_first if kind == RELOAD else {})


def _nearest(key: str) -> str:
    instead = INSTEAD.get(key)
    if not instead:
        close = difflib.get_close_matches(key, TABLE, n=1, cutoff=0.6)
        instead = close[0] if close else ""
    return f"write `{instead}`" if instead else "remove it"


def _name_problem(key: str, release: Release | None) -> str:
    row = TABLE.get(key)
    if release and release > NEWEST:
        return ""
    if row is None:
        engine = f"docker {release[0]}.{release[1]}" if release else "docker"
        return f"`{key}` is not a key that {engine} reads; {_nearest(key)}"
    if release and release < row.since:
        since = ".".join(map(str, row.since))
        return f"`{key}` needs docker {since}, the engine is {release[0]}.{release[1]}; remove it or upgrade the engine"
    if release and release > row.until:
        instead = _nearest(key) if key in INSTEAD else "remove it"
        return f"docker {release[0]}.{release[1]} no longer reads `{key}`; {instead}"
    return ""


def _type_problem(key: str, value: t.Any) -> str:
    row = TABLE.get(key)
    # for dockerd null is the same as no value, but for these
    if row is None or (value is None and row.kind != "size" and key != "proxies"):
        return ""
    types, words = KINDS[row.kind]
    right = isinstance(value, types) and (not isinstance(value, bool) or row.kind == "bool")
    if right and row.kind == "list":
        right = all(isinstance(item, str) for item in value)
    if right and row.kind == "pools":
        right = all(isinstance(item, dict) for item in value)
    if right and row.kind == "map":
        for name, item in value.items():
            if not isinstance(item, str):
                return f"`{key}.{name}` must be a text in quotes, not {item!r}"
    return "" if right else f"`{key}` must be {words}, not {masked(value)!r}"


def check(
    config: Config, engine_version: str, names: bool = True, flags: t.Mapping[str, str] | None = None
) -> list[str]:
    """Return what is wrong with ``config``, a sentence each; ``names`` False leaves unknown keys to dockerd itself."""
    release = engine_info.release(engine_version)
    problems = []
    for key, value in config.items():
        problem = (_name_problem(key, release) if names else "") or _type_problem(key, value)
        if problem:
            problems.append(problem)
    if "runtimes" in (flags or {}):  # which of them are defined there is not known here
        config = {key: value for key, value in config.items() if key != "default-runtime"}
    # values are looked at only where their types are right
    return problems or value_problems(config, release or NEWEST)


def conflicts(config: Config, flags: t.Mapping[str, str], path: str = "/etc/docker/daemon.json") -> list[str]:
    """Return a sentence for each key of ``config`` that is given as a flag too, with which dockerd does not start."""
    problems = []
    for key, flag in flags.items():
        if key == CONFIG_FILE:
            if path not in re.split(r"[\s=]", flag):
                problems.append(f"dockerd is started with {flag} and never reads {path}; remove that flag")
            continue
        outer, _, inner = key.partition(".")
        value = config.get(outer)
        clash = inner in value if inner and isinstance(value, dict) else not inner and outer in config
        # host-gateway-ip has one flag for its old and its new key
        clash = clash or (key == "host-gateway-ip" and "host-gateway-ips" in config)
        # dockerd adds the runtimes of both
        if clash and key != "runtimes":
            problems.append(
                f"`{key}` is set in {path} and by the flag {flag}, and dockerd does not start with both; "
                "remove the key, or the flag with a drop-in of the docker unit"
            )
    return problems


def flags_of(argv: t.Sequence[str]) -> dict[str, str]:
    """Return daemon.json key -> the flags as given, for the arguments of a dockerd."""
    found: dict[str, str] = {}
    rest = list(argv)
    while rest:
        flag = rest.pop(0)
        if flag == "--":
            break
        if not flag.startswith("-") or len(flag) < 2:
            continue
        if flag.startswith("--"):
            name, has_value, _ = flag[2:].partition("=")
        else:
            name, has_value = SHORT_FLAGS.get(flag[1], flag[1]), flag[2:]
        key = FLAG_KEYS.get(name, name)
        switch = name in NO_KEY_FLAGS or TABLE.get(key, Row("any", since=EVER)).kind == "bool"
        if not has_value and not switch and rest and (rest[0] == "-" or not rest[0].startswith("-")):
            flag = f"{flag} {rest.pop(0)}"
        if name not in NO_KEY_FLAGS:
            found[key] = " ".join(filter(None, (found.get(key), masked(flag))))
    return found
