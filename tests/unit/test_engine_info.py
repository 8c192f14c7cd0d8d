"""What clients say of an engine, and what is made of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible.module_utils.llmfleet.engine_info import (
    Client,
    choose_builder,
    choose_cli,
    client_version,
    read_client,
    release,
    summarise,
)

SOCKET = "unix:///var/run/docker.sock"
INFO = {
    "ContainersRunning": 3,
    "Driver": "overlay2",
    "MemoryLimit": True,
    "CgroupVersion": "2",
    "Architecture": "x86_64",
    "RegistryConfig": {"Mirrors": ["https://mirror.example/"]},
    "DockerRootDir": "/var/lib/docker",
    "Name": "host1",
    "ServerVersion": "28.2.2",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "LiveRestoreEnabled": True,
    "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}},
    "DefaultRuntime": "runc",
    "DriverStatus": [["Backing Filesystem", "extfs"]],
    "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}, {"Source": "cdi", "ID": "nvidia.com/gpu=all"}],
}
BUILDX_PLUGIN = {"SchemaVersion": "0.1.0", "Vendor": "Docker Inc.", "Version": "v0.24.0", "Name": "buildx"}


def client(path="/usr/bin/docker", version="28.2.2", plugins=(), up=True, error=f"Cannot connect to {SOCKET}", rc=0):
    about = {"Plugins": list(plugins), **({"Version": version} if version else {})}
    said = {**INFO, "ClientInfo": about} if up else {"ServerErrors": [error], "ClientInfo": about}
    return read_client(path, rc, json.dumps(said), "")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128", "20.10.24+dfsg1"),
        ("Docker version 28.2.2, build e6534b4\n", "28.2.2"),
        ("podman version 5.4.2", "5.4.2"),
        ("command not found", ""),
    ],
)
def test_client_version(text, version):
    assert client_version(text) == version


@pytest.mark.parametrize(
    ("text", "parts"),
    [("20.10.24+dfsg1", (20, 10)), ("18.09.1", (18, 9)), ("3:29.7.2-1.el9", (29, 7)), ("latest", None), ("", None)],
)
def test_release(text, parts):
    assert release(text) == parts


@pytest.mark.parametrize(
    ("version", "plugins", "kind"),
    [
        ("28.2.2", (), "none"),
        ("28.2.2", (BUILDX_PLUGIN,), "buildx"),
        ("28.2.2", ({**BUILDX_PLUGIN, "Err": "failed to fetch metadata: exit status 1"},), "none"),
        ("28.2.2", ({**BUILDX_PLUGIN, "Name": "compose"},), "none"),
        ("23.0.0", (), "none"),
        ("22.06.0-beta", (), "embedded"),
        ("20.10.24+dfsg1", (), "embedded"),
        ("20.10.24+dfsg1", (BUILDX_PLUGIN,), "buildx"),
        ("18.09.9", (), "embedded"),
        ("18.06.3-ce", (), "none"),
        ("", (), "none"),
    ],
)
def test_which_buildkit_a_client_offers(version, plugins, kind):
    assert client(version=version, plugins=plugins).buildkit == kind


OLD = client("/usr/bin/docker", "20.10.24+dfsg1")
NEW = client("/usr/local/bin/docker", "28.2.2")
WITH_BUILDX = client("/opt/bin/docker", "28.2.2", (BUILDX_PLUGIN,))
DEAF = client("/opt/bin/docker", "29.0.0", (BUILDX_PLUGIN,), up=False, error="client version 1.52 is too new.")


@pytest.mark.parametrize(
    ("clients", "cli", "build_cli", "kind"),
    [
        ([NEW, OLD], NEW, OLD.path, "embedded"),
        ([OLD, WITH_BUILDX], OLD, WITH_BUILDX.path, "buildx"),
        ([NEW], NEW, NEW.path, "none"),
        ([DEAF, OLD], OLD, OLD.path, "embedded"),
        ([], None, "", "none"),
    ],
)
def test_the_clients_chosen(clients, cli, build_cli, kind):
    assert choose_cli(clients) is cli
    assert choose_builder(clients, cli) == (build_cli, kind)


def test_an_engine_that_answers():
    engine = summarise([NEW, OLD], "/usr/sbin/dockerd", "1.50").as_result()
    assert engine == {
        "reachable": True,
        "problem": "",
        "error": "",
        "cli": "/usr/local/bin/docker",
        "build_cli": "/usr/bin/docker",
        "buildkit": "embedded",
        "dockerd": "/usr/sbin/dockerd",
        "name": "host1",
        "server_version": "28.2.2",
        "api_version": "1.50",
        "root_dir": "/var/lib/docker",
        "storage_driver": "overlay2",
        "architecture": "x86_64",
        "memory_limit": True,
        "cgroup_version": "2",
        "containers_running": 3,
        "registry_mirrors": ["https://mirror.example/"],
        "desktop": False,
        "containerd_store": False,
        "live_restore": True,
        "runtimes": ["nvidia", "runc"],
        "default_runtime": "runc",
        "cdi_devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=all"],
    }


def test_the_containerd_store_is_told_by_the_drivers_type():
    said = {**INFO, "Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    assert summarise([read_client("/usr/bin/docker", 0, json.dumps(said), "")], "").containerd_store


def test_docker_desktops_engine_is_known_by_its_system():
    said = {**INFO, "OperatingSystem": "Docker Desktop", "Name": "docker-desktop"}
    engine = summarise([replace(read_client("/usr/bin/docker", 0, json.dumps(said), ""), desktop=True)], "")
    assert (engine.reachable, engine.desktop, engine.problem) == (True, True, "")


STUB = """
The command 'docker' could not be found in this WSL 2 distro.
We recommend to activate the WSL integration in Docker Desktop settings.
"""


@pytest.mark.parametrize(("out", "err"), [(STUB, ""), ("", STUB)], ids=["stdout", "stderr"])
def test_docker_desktops_stub_is_no_client(out, err):
    path = "/mnt/c/Program Files/Docker/Docker/resources/bin/docker"
    stub = read_client(path, 1, out, err)
    engine = summarise([stub], "")
    assert (engine.reachable, engine.problem) == (False, "desktop_off")
    assert path in engine.error
    assert "Settings > Resources > WSL integration" in engine.error


def test_docker_desktop_that_does_not_run():
    """Its client's link then leads nowhere, or the client finds no engine."""
    link = Client("/usr/bin/docker", False, {}, desktop=True)
    silent = replace(read_client("/usr/bin/docker", 1, "", DOWN), desktop=True)
    for client_found in (link, silent):
        engine = summarise([client_found], "")
        assert engine.problem == "desktop_off"
        assert "start Docker Desktop" in engine.error


@pytest.mark.parametrize(
    "dead", [read_client("/mnt/c/docker", 1, STUB, ""), Client("/usr/bin/docker", False, {}, "", "", True)]
)
def test_docker_desktop_has_no_say_over_an_engine_installed_beside_it(dead):
    assert summarise([dead], "/usr/bin/dockerd").problem == "no_client"
    refused = read_client("/opt/bin/docker", 1, "", DOWN)
    assert summarise([dead, refused], "/usr/bin/dockerd").problem == "not_running"
    assert summarise([dead, OLD], "/usr/bin/dockerd").cli == OLD.path


def test_fields_an_old_engine_does_not_have():
    said = {"ServerVersion": "19.03.15", "RegistryConfig": None, "ClientInfo": {"Plugins": None}}
    engine = summarise([read_client("/usr/bin/docker", 0, json.dumps(said), "")], "")
    assert (engine.cgroup_version, engine.registry_mirrors, engine.containers_running) == ("1", (), None)
    assert (engine.containerd_store, engine.runtimes, engine.cdi_devices) == (False, (), ())


DOWN = f"Cannot connect to the Docker daemon at {SOCKET}. Is the docker daemon running?"
DENIED_20 = (
    f'Got permission denied while trying to connect to the Docker daemon socket at {SOCKET}: Get "http://%2Fvar%2Frun'
    '%2Fdocker.sock/v1.24/info": dial unix /var/run/docker.sock: connect: permission denied'
)
DOWN_29 = (
    f"failed to connect to the docker API at {SOCKET}; check if the path is correct and if the daemon is running: "
    "dial unix /var/run/docker.sock: connect: no such file or directory"
)
REMOTE = "Cannot connect to the Docker daemon at tcp://10.0.0.5:2375. Is the docker daemon running?"
INSTALLED = "the docker engine (/usr/sbin/dockerd) is installed but not running; start its service"


@pytest.mark.parametrize(
    ("said", "dockerd", "problem", "error"),
    [
        (DOWN, "/usr/sbin/dockerd", "not_running", INSTALLED),
        (DOWN_29, "/usr/sbin/dockerd", "not_running", INSTALLED),
        (
            DOWN,
            "",
            "nothing_there",
            "there is a docker client (/usr/bin/docker) but no engine on this host; install docker.io",
        ),
        (
            DENIED_20,
            "/usr/sbin/dockerd",
            "no_permission",
            f"permission denied on the docker engine's socket {SOCKET}; "
            "become root, or add the user to the group docker",
        ),
        (
            REMOTE,
            "/usr/sbin/dockerd",
            "elsewhere",
            "no docker engine answers at tcp://10.0.0.5:2375, where DOCKER_HOST or the docker context points; "
            "start that engine, or unset it to use the one of this host",
        ),
        (
            'context "lab" does not exist',
            "/usr/sbin/dockerd",
            "other",
            '/usr/bin/docker cannot use the docker engine: context "lab" does not exist',
        ),
    ],
)
@pytest.mark.parametrize("style", ["json", "stderr"])
def test_an_engine_that_does_not_answer(said, dockerd, problem, error, style):
    """Clients up to 27 put the error into the JSON with status 0, later ones on stderr with status 1."""
    if style == "json":
        silent = read_client("/usr/bin/docker", 0, json.dumps({"ServerErrors": [said], "ClientInfo": {}}), "")
    else:
        silent = read_client("/usr/bin/docker", 1, json.dumps({"ServerVersion": "", "ClientInfo": {}}), f"{said}\n")
    engine = summarise([silent], dockerd)
    assert (engine.reachable, engine.problem, engine.error) == (False, problem, error)
    assert engine.cli == "/usr/bin/docker"


def test_a_hanging_engine():
    engine = summarise([read_client("/usr/bin/docker", None, "", "")], "/usr/sbin/dockerd")
    assert engine.problem == "no_answer"
    assert engine.error == "/usr/bin/docker got no answer from the docker engine in time; restart the engine"


@pytest.mark.parametrize(
    ("dockerd", "problem", "fix"),
    [("", "nothing_there", "install docker.io"), ("/usr/sbin/dockerd", "no_client", "install docker-cli")],
)
def test_no_client(dockerd, problem, fix):
    engine = summarise([], dockerd)
    assert engine.problem == problem
    assert engine.error.endswith(fix)


def test_podman_under_dockers_name():
    said = json.dumps({"host": {"arch": "amd64"}, "store": {}, "version": {"Version": "5.4.2"}})
    engine = summarise([read_client("/usr/bin/docker", 0, said, "")], "")
    assert (engine.reachable, engine.problem) == (False, "not_docker")
    assert "podman-docker" in engine.error


@pytest.mark.parametrize("out", ["", "not json", "[]"])
def test_words_that_are_no_json(out):
    broken = read_client("/usr/bin/docker", 127, out, "exec format error")
    assert (broken.reachable, broken.error) == (False, "exec format error")
