"""What a helper container is asked to be, checked. Pure."""

from __future__ import annotations

import posixpath
import re
import signal
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import BadInput

RESERVED = (
    *("files", "files.next", "files.previous", "files.aside", "file.part"),
    *("record.json", "record.json.part"),
)
"""What the folder of a helper holds beside its volumes, also after an interruption."""


@dataclass(frozen=True)
class File:
    """A file that the container reads, below the folder it is given."""

    content: bytes
    mode: int


@dataclass(frozen=True)
class Health:
    """What proves that it works: ``url`` answers ``status``, with ``contains`` in its body."""

    url: str = ""
    status: int = 200
    timeout: float = 60
    contains: str = ""


@dataclass(frozen=True)
class Side:
    """A helper container. ``listens`` are the addresses (host, port) that it takes on the host."""

    name: str
    image: str = ""
    argv: tuple[str, ...] = ()
    entrypoint: str = ""
    env: t.Mapping[str, str] = field(default_factory=dict)
    files: t.Mapping[str, File] = field(default_factory=dict)
    files_target: str = ""
    volumes: t.Mapping[str, str] = field(default_factory=dict)
    """Path in the container -> path on the host."""
    user: str = ""
    network: str = "bridge"
    publish: tuple[str, ...] = ()
    caps: tuple[str, ...] = ()
    tmp_mib: int = 64
    memory: str = ""
    read_only: bool = True
    stop_seconds: int = 30
    check_argv: tuple[str, ...] = ()
    reload_signal: str = ""
    health: Health = Health()
    listens: tuple[tuple[str, int], ...] = ()

    @property
    def owner(self) -> tuple[int, int]:
        """Return the user and group it runs as."""
        user, group = self.user.split(":")
        return int(user), int(group)


def parse(params: t.Mapping[str, t.Any], directory: str) -> Side:
    """Return the helper that a module's ``params`` describe; ``directory`` is its own folder on the host."""
    name = params["name"]
    if not re.fullmatch(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", name):
        raise BadInput(f"name {name!r} is no name of a container; use lower-case letters, digits, - and _.")
    if params["state"] == "absent":
        return Side(name, stop_seconds=params["stop_seconds"], volumes=_volumes(name, params["volumes"], directory))
    problem = _problem(params)
    if problem:
        raise BadInput(f"{name}: {problem}.")
    return Side(
        name=name,
        image=params["image"],
        argv=tuple(params["argv"]),
        entrypoint=params["entrypoint"],
        env={str(key): str(value) for key, value in params["env"].items()},
        files=dict(_file(name, row) for row in params["files"]),
        files_target=params["files_target"],
        volumes=_volumes(name, params["volumes"], directory),
        user=params["user"],
        network=params["network"],
        publish=tuple(params["publish"]),
        caps=tuple(sorted(params["caps"])),
        tmp_mib=params["tmp_mib"],
        memory=params["memory"],
        read_only=params["read_only"],
        stop_seconds=params["stop_seconds"],
        check_argv=tuple(params["check_argv"]),
        reload_signal=params["reload_signal"],
        health=_health(name, params["health"] or {}),
        listens=tuple(_address(name, row) for row in (*params["listens"], *_published(params["publish"]))),
    )


def _problem(params: t.Mapping[str, t.Any]) -> str:
    if not params["image"]:
        return "`image` is needed to start it"
    if params["files"] and not params["files_target"].startswith("/"):
        return "`files` need `files_target`, the absolute path of their folder in the container"
    if not re.fullmatch(r"\d+:\d+", params["user"]):
        return f"user {params['user']!r} is not of the form uid:gid in numbers"
    if params["publish"] and params["network"] == "host":
        return "`publish` is for the network `bridge`; with `host` the program listens on the host itself"
    if params["reload_signal"] and f"SIG{params['reload_signal']}" not in signal.Signals.__members__:
        return f"reload_signal {params['reload_signal']!r} is no name of a signal; write for example HUP"
    paths = [row["path"] for row in params["files"]]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    return f"the file {twice[0]} is named twice" if twice else ""


def _published(rows: t.Iterable[str]) -> list[str]:
    return [row.rpartition(":")[0] for row in rows]


def _address(name: str, row: str) -> tuple[str, int]:
    found = re.fullmatch(r"\[?([0-9a-fA-F.:]+)\]?:(\d{1,5})", row)
    if not found:
        raise BadInput(f"{name}: {row!r} is not an address and a port, such as 127.0.0.1:8080.")
    return found[1], int(found[2])


def _file(name: str, row: t.Mapping[str, t.Any]) -> tuple[str, File]:
    path, mode = row["path"], str(row["mode"])
    if path != posixpath.normpath(path) or path.startswith(("/", "..")) or path == ".":
        raise BadInput(f"{name}: {path!r} is not a relative path below the folder of the files.")
    if not re.fullmatch(r"0?[0-7]{3}", mode):
        raise BadInput(f"{name}: mode {mode!r} of {path} is not of the form '0440'.")
    return path, File(str(row["content"]).encode(), int(mode, 8))


def _volumes(name: str, rows: t.Iterable[t.Mapping[str, str]], directory: str) -> dict[str, str]:
    found = {}
    for row in rows:
        source, target = row["source"], row["target"]
        for path in (source, target):
            if not path.startswith("/") or posixpath.normpath(path) != path or path == "/":
                raise BadInput(f"{name}: the path {path!r} of a volume is not absolute and plain.")
        below = posixpath.relpath(source, directory)
        if below.split("/")[0] in (".", *RESERVED) or posixpath.commonpath([source, directory]) == source:
            raise BadInput(f"{name}: the volume {source} would hold what this module keeps; take {directory}/data.")
        found[target] = source
    return found


def _health(name: str, row: t.Mapping[str, t.Any]) -> Health:
    if not row.get("url"):
        return Health()
    parts = urllib.parse.urlsplit(row["url"])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{name}: health.url {row['url']!r} is no http or https URL.")
    return Health(row["url"], row["status"], row["timeout"], row["contains"])
