"""Looking at this host's docker engine. Edge code, shared by the modules docker_engine_info and host_info."""

from __future__ import annotations

import os
import shutil
import time
import typing as t
from dataclasses import replace
from pathlib import Path

from ansible.module_utils.llmfleet import daemon_look
from ansible.module_utils.llmfleet.engine_info import (
    CLIENT_DIRS,
    DAEMON_DIRS,
    DEFAULT_ROOT,
    SYSTEMD_MARK,
    Client,
    Engine,
    choose_cli,
    client_version,
    read_client,
    summarise,
)
from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run

DESKTOP_FILES = "docker-desktop"
"""Part of the path below which Docker Desktop puts its clients into a WSL distribution (/mnt/wsl/docker-desktop)."""


def find_clients() -> list[str]:
    """Return the docker clients of this host, in the order of the PATH, each once."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), *CLIENT_DIRS]
    found: dict[str, str] = {}
    for place in filter(os.path.isabs, places):
        path = os.path.join(place, "docker")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def desktop_link() -> str:
    """Return where Docker Desktop's client would be: its link into a WSL distribution leads nowhere once it ended."""
    for place in filter(os.path.isabs, [*os.environ.get("PATH", "").split(os.pathsep), *CLIENT_DIRS]):
        path = os.path.join(place, "docker")
        if os.path.islink(path) and not os.path.exists(path) and DESKTOP_FILES in os.readlink(path):
            return path
    return ""


def ask_client(path: str, seconds: int = 20, run: TimedRunner = timed_run) -> tuple[Client, bool]:
    """Return (what the client at ``path`` says of itself and of the engine, whether it gave no answer in time)."""
    answer = run([path, "info", "--format", "{{json .}}"], seconds)
    client = read_client(path, answer.rc, answer.out, answer.err)
    if not client.buildx and not client.version:
        said = run([path, "--version"], seconds)
        client = replace(client, version=client_version(said.out))
    return replace(client, desktop=DESKTOP_FILES in os.path.realpath(path)), answer.timed_out


def ask(paths: list[str], seconds: int, run: TimedRunner = timed_run) -> tuple[list[Client], str]:
    """Return (the clients with what they say, the engine's API version), with as few processes as can be."""
    clients: list[Client] = []
    for path in paths:
        client, timed_out = ask_client(path, seconds, run)
        clients.append(client)
        if timed_out or (client.reachable and client.buildx):
            break
    link = desktop_link()
    if link:
        clients.append(Client(link, False, {}, desktop=True))
    cli = choose_cli(clients)
    if cli is None or not cli.reachable:
        return clients, ""
    return clients, run([cli.path, "version", "--format", "{{.Server.APIVersion}}"], seconds).out.strip()


def is_local(engine: Engine) -> bool:
    """Whether the engine that answers is this host's; DOCKER_HOST, a context or a virtual machine may be another."""
    return engine.reachable and engine.name == os.uname().nodename


def started_at(pid: int) -> float | None:
    """Return when a process began, in seconds since the epoch, or None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # field 22, counted behind the name, which may hold anything (proc_pid_stat(5))
    ticks = int(stat.rpartition(")")[2].split()[19])
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return round(booted + ticks / os.sysconf("SC_CLK_TCK"), 2)


def free_bytes(engine: Engine) -> int | None:
    """Return the bytes free where ``engine`` keeps its images, or where one yet to come will keep them."""
    path = engine.root_dir
    if not engine.reachable:
        path = DEFAULT_ROOT
        while not os.path.exists(path):
            path = os.path.dirname(path)
    elif not is_local(engine):
        return None
    try:
        stat = os.statvfs(path)
    except OSError:
        return None
    return stat.f_bavail * stat.f_frsize


def look(timeout: int = 20) -> dict[str, t.Any]:
    """Return what the module docker_engine_info returns; ``timeout`` in seconds for each question to a client."""
    clients, api_version = ask(find_clients(), timeout)
    places = os.pathsep.join([os.environ.get("PATH", ""), *DAEMON_DIRS])
    engine = summarise(clients, shutil.which("dockerd", path=places) or "", api_version)
    pid = daemon_look.daemon_pid() if is_local(engine) else 0
    return {
        "init": "systemd" if os.path.isdir(SYSTEMD_MARK) else "other",
        "disk_free_bytes": free_bytes(engine),
        "started_at": started_at(pid) if pid else None,
        **engine.as_result(),
    }
