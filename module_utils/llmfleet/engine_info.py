"""What the docker engine of a host is and whether it answers, from the words of its clients.

``docker info`` is asked as JSON: its exit status depends on the client's age, its content does not.
"""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import asdict, dataclass

CLIENT_DIRS = ("/usr/bin", "/usr/local/bin")
DAEMON_DIRS = ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin")
SYSTEMD_MARK = "/run/systemd/system"
DEFAULT_ROOT = "/var/lib/docker"
DEFAULT_ENDPOINTS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")

DESKTOP = "Docker Desktop"
DESKTOP_STUB = re.compile(r"could not be found in this WSL \d+ distro")
"""What Docker Desktop's program for distributions that it does not serve says instead of running a client."""

CONTAINERD_STORE = ["driver-type", "io.containerd.snapshotter.v1"]
"""The line of `docker info`'s DriverStatus that tells the containerd image store (docs.docker.com/engine/storage)."""

BUILDX, EMBEDDED, NO_BUILDKIT = "buildx", "embedded", "none"

# why an engine cannot be used; the role acts on NOTHING_THERE (install) and NOT_RUNNING (start) only
NOTHING_THERE = "nothing_there"
NO_CLIENT = "no_client"
NOT_RUNNING = "not_running"
ELSEWHERE = "elsewhere"
NO_PERMISSION = "no_permission"
NO_ANSWER = "no_answer"
NOT_DOCKER = "not_docker"
DESKTOP_OFF = "desktop_off"
OTHER = "other"


@dataclass(frozen=True)
class Client:
    """A docker client and what it says of the engine; ``desktop``: it is Docker Desktop's, put here from Windows."""

    path: str
    reachable: bool
    info: t.Mapping[str, t.Any]
    error: str = ""
    version: str = ""
    desktop: bool = False

    @property
    def stub(self) -> bool:
        """Whether this is no client but Docker Desktop's word that it does not serve this distribution."""
        return bool(DESKTOP_STUB.search(self.error))

    @property
    def buildx(self) -> bool:
        """Whether the client carries a buildx that works (``docker info`` runs each plugin once)."""
        plugins = (self.info.get("ClientInfo") or {}).get("Plugins") or []
        return any(plugin.get("Name") == "buildx" and not plugin.get("Err") for plugin in plugins)

    @property
    def buildkit(self) -> str:
        """The BuildKit this client offers: 18.09 to 22 carry one, from 23 on only through buildx."""
        if self.buildx:
            return BUILDX
        version = release(self.version)
        return EMBEDDED if version is not None and (18, 9) <= version < (23, 0) else NO_BUILDKIT


@dataclass(frozen=True)
class Engine:
    """The facts about an engine; those only it can tell are empty or None while it does not answer."""

    reachable: bool = False
    problem: str = ""
    error: str = ""
    cli: str = ""
    build_cli: str = ""
    buildkit: str = NO_BUILDKIT
    dockerd: str = ""
    name: str = ""
    server_version: str = ""
    api_version: str = ""
    root_dir: str = ""
    storage_driver: str = ""
    architecture: str = ""
    memory_limit: bool | None = None
    cgroup_version: str = ""
    containers_running: int | None = None
    registry_mirrors: tuple[str, ...] = ()
    desktop: bool = False
    containerd_store: bool = False
    live_restore: bool = False
    runtimes: tuple[str, ...] = ()
    default_runtime: str = ""
    cdi_devices: tuple[str, ...] = ()

    def as_result(self) -> dict[str, t.Any]:
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def release(version: str) -> tuple[int, int] | None:
    """Return (major, minor) of an engine's or a package's version (20.10.24+dfsg1, 5:26.1.5-1), None for no version."""
    found = re.match(r"(?:\d+:)?(\d+)\.(\d+)", version)
    return (int(found.group(1)), int(found.group(2))) if found else None


def client_version(text: str) -> str:
    """Return the version in the words of ``docker --version``."""
    found = re.search(r"version (\d[^\s,]*)", text)
    return found.group(1) if found else ""


def read_client(path: str, rc: int | None, out: str, err: str) -> Client:
    """Return what the client at ``path`` says in its answer to ``docker info --format '{{json .}}'``."""
    if rc is None:
        return Client(path, False, {}, error="no answer")
    try:
        info = json.loads(out)
    except ValueError:
        info = {}
    if not isinstance(info, dict):
        info = {}
    errors = info.get("ServerErrors") or []
    words = " ".join(" ".join([*errors, "" if errors else err]).split())
    reachable = bool(info.get("ServerVersion"))
    version = str((info.get("ClientInfo") or {}).get("Version") or "")
    if not reachable and not words:
        words = " ".join(out.split())[:300] or f"exit status {rc} without a word"
    return Client(path, reachable, info, error="" if reachable else words, version=version)


def diagnose(client: Client, dockerd: str) -> tuple[str, str]:
    """Return (problem, sentence with cause and fix) for a client that reaches no engine."""
    said = client.error
    lower = said.lower()
    endpoint = re.search(r"((?:unix|tcp|ssh|http|https|npipe|fd)://[^\s\"']+)", said)
    where = endpoint.group(1).rstrip(".:,;") if endpoint else ""
    where = re.sub(r"(\.sock).*", r"\1", where)
    if ("host" in client.info and "store" in client.info) or "podman" in lower:
        return NOT_DOCKER, f"{client.path} is Podman under Docker's name; remove podman-docker to use a Docker engine"
    if said == "no answer":
        return NO_ANSWER, f"{client.path} got no answer from the docker engine in time; restart the engine"
    if "permission denied" in lower:
        return (
            NO_PERMISSION,
            f"permission denied on the docker engine's socket {where or ''}".rstrip()
            + "; become root, or add the user to the group docker",
        )
    if client.stub:
        return (
            DESKTOP_OFF,
            f"Docker Desktop does not serve this WSL distribution ({client.path} only says so); turn it on in Docker "
            "Desktop under Settings > Resources > WSL integration, or take that program off the PATH to have an engine "
            "installed here",
        )
    refused = "cannot connect" in lower or "is the docker daemon running" in lower or "failed to connect" in lower
    if client.desktop and (refused or not said):
        return (
            DESKTOP_OFF,
            f"Docker Desktop serves this WSL distribution ({client.path} is its client) but does not run; start Docker "
            "Desktop, or turn off its WSL integration to have an engine installed here",
        )
    if refused and where and where not in DEFAULT_ENDPOINTS:
        return (
            ELSEWHERE,
            f"no docker engine answers at {where}, where DOCKER_HOST or the docker context points; "
            "start that engine, or unset it to use the one of this host",
        )
    if refused and dockerd:
        return NOT_RUNNING, f"the docker engine ({dockerd}) is installed but not running; start its service"
    if refused:
        return NOTHING_THERE, f"there is a docker client ({client.path}) but no engine on this host; install docker.io"
    return OTHER, f"{client.path} cannot use the docker engine: {said}"


def without_client(dockerd: str) -> tuple[str, str]:
    """Return (problem, sentence) for a host without any docker client."""
    if dockerd:
        return NO_CLIENT, f"a docker engine ({dockerd}) is installed but no docker client; install docker-cli"
    return NOTHING_THERE, "there is no docker client and no docker engine on this host; install docker.io"


def choose_cli(clients: t.Sequence[Client]) -> Client | None:
    """Return the client for everyday commands: the first that reaches the engine, else the first."""
    return next((client for client in clients if client.reachable), clients[0] if clients else None)


def choose_builder(clients: t.Sequence[Client], cli: Client | None) -> tuple[str, str]:
    """Return (path, kind of BuildKit) of the client to build with: buildx, then embedded, then the everyday one."""
    able = [client for client in clients if client.reachable or cli is None or not cli.reachable]
    for kind in (BUILDX, EMBEDDED):
        for client in able:
            if client.buildkit == kind:
                return client.path, kind
    return (cli.path if cli else "", NO_BUILDKIT)


def summarise(clients: t.Sequence[Client], dockerd: str, api_version: str = "") -> Engine:
    """Return the facts about the engine from what its clients say."""
    # Docker Desktop's own programs say nothing of an engine that is installed beside it
    own = [client for client in clients if client.reachable or not (client.stub or client.desktop)]
    clients = own if own or dockerd else clients
    cli = choose_cli(clients)
    build_cli, buildkit = choose_builder(clients, cli)
    if cli is None or not cli.reachable:
        problem, error = diagnose(cli, dockerd) if cli else without_client(dockerd)
        path = cli.path if cli else ""
        return Engine(problem=problem, error=error, cli=path, build_cli=build_cli, buildkit=buildkit, dockerd=dockerd)
    info = cli.info
    running = info.get("ContainersRunning")
    return Engine(
        reachable=True,
        cli=cli.path,
        build_cli=build_cli,
        buildkit=buildkit,
        dockerd=dockerd,
        name=str(info.get("Name") or ""),
        server_version=str(info["ServerVersion"]),
        api_version=api_version,
        root_dir=str(info.get("DockerRootDir") or ""),
        storage_driver=str(info.get("Driver") or ""),
        architecture=str(info.get("Architecture") or ""),
        memory_limit=bool(info.get("MemoryLimit")),
        # engines before 20.10 know version 1 only and do not name it
        cgroup_version=str(info.get("CgroupVersion") or "1"),
        containers_running=running if isinstance(running, int) else None,
        registry_mirrors=tuple((info.get("RegistryConfig") or {}).get("Mirrors") or ()),
        desktop=info.get("OperatingSystem") == DESKTOP,
        containerd_store=CONTAINERD_STORE in (info.get("DriverStatus") or ()),
        live_restore=bool(info.get("LiveRestoreEnabled")),
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        default_runtime=str(info.get("DefaultRuntime") or ""),
        # older engines do not list them
        cdi_devices=tuple(str(device["ID"]) for device in info.get("DiscoveredDevices") or () if device.get("ID")),
    )
