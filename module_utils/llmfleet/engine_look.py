"""Looking at this host's docker engine. Edge code, shared by the modules docker_engine_info and host_info."""

from __future__ import annotations

import os
import shutil
import typing as t

from ansible.module_utils.llmfleet.engine_info import (
    CLIENT_DIRS,
    DAEMON_DIRS,
    DEFAULT_ROOT,
    Client,
    Engine,
    choose_cli,
    client_version,
    read_client,
    summarise,
)
from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run

SYSTEMD_MARK = "/run/systemd/system"


def find_clients() -> list[str]:
    """Return the docker clients of this host, in the order of the PATH, each once."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), *CLIENT_DIRS]
    found: dict[str, str] = {}
    for place in filter(os.path.isabs, places):
        path = os.path.join(place, "docker")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def ask_client(path: str, seconds: int = 20, run: TimedRunner = timed_run) -> tuple[Client, bool]:
    """Return (what the client at ``path`` says of itself and of the engine, whether it gave no answer in time)."""
    answer = run([path, "info", "--format", "{{json .}}"], seconds)
    client = read_client(path, answer.rc, answer.out, answer.err)
    if not client.buildx and not client.version:
        said = run([path, "--version"], seconds)
        client = Client(path, client.reachable, client.info, client.error, client_version(said.out))
    return client, answer.timed_out


def ask(paths: list[str], seconds: int, run: TimedRunner = timed_run) -> tuple[list[Client], str]:
    """Return (the clients with what they say, the engine's API version), with as few processes as can be."""
    clients: list[Client] = []
    for path in paths:
        client, timed_out = ask_client(path, seconds, run)
        clients.append(client)
        if timed_out or (client.reachable and client.buildx):
            break
    cli = choose_cli(clients)
    if cli is None or not cli.reachable:
        return clients, ""
    return clients, run([cli.path, "version", "--format", "{{.Server.APIVersion}}"], seconds).out.strip()


def free_bytes(engine: Engine) -> int | None:
    """Return the bytes free where ``engine`` keeps its images, or where one yet to come will keep them."""
    path = engine.root_dir
    if not engine.reachable:
        path = DEFAULT_ROOT
        while not os.path.exists(path):
            path = os.path.dirname(path)
    elif engine.name != os.uname().nodename:
        return None  # DOCKER_HOST, a context or a virtual machine: its disk is not ours
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
    return {
        "init": "systemd" if os.path.isdir(SYSTEMD_MARK) else "other",
        "disk_free_bytes": free_bytes(engine),
        **engine.as_result(),
    }
