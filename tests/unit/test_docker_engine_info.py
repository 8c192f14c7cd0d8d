"""The docker_engine_info module against fake clients."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import docker_engine_info
import pytest
from ansible.module_utils.llmfleet import engine_look
from ansible.module_utils.testing import patch_module_args

SERVER = {"ServerVersion": "20.10.24", "DockerRootDir": "/", "Name": os.uname().nodename, "ContainersRunning": 0}
DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
BUILDX = {"Name": "buildx", "Version": "v0.24.0"}


def run(capsys: pytest.CaptureFixture[str], **args: object) -> dict:
    with patch_module_args(args), pytest.raises(SystemExit):
        docker_engine_info.main()
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with nothing of docker; executables are added to first/ and second/."""
    monkeypatch.setattr(engine_look, "CLIENT_DIRS", ())
    monkeypatch.setattr(engine_look, "DAEMON_DIRS", ())
    monkeypatch.setenv("PATH", f"{tmp_path}/first:{tmp_path}/second")
    return tmp_path


def fake(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)
    return path


def fake_docker(path: Path, version: str, info: dict, rc: int = 0, err: str = "") -> Path:
    """A client that writes each call down beside itself."""
    return fake(
        path,
        f"""echo "$*" >> {path}.calls
case "$1" in
info) cat <<'X'
{json.dumps(info)}
X
echo '{err}' >&2; exit {rc} ;;
--version) echo 'Docker version {version}, build 297e128' ;;
version) echo 1.41 ;;
*) exit 64 ;;
esac""",
    )


@pytest.mark.parametrize("check_mode", [False, True])
def test_two_clients_of_which_the_old_one_builds(capsys, host, check_mode):
    new = fake_docker(host / "first/docker", "28.2.2", {**SERVER, "ClientInfo": {"Version": "28.2.2", "Plugins": []}})
    old = fake_docker(host / "second/docker", "20.10.24", {**SERVER, "ClientInfo": {"Plugins": []}})
    result = run(capsys, _ansible_check_mode=check_mode)
    assert (result["reachable"], result["changed"]) == (True, False)
    assert (result["cli"], result["build_cli"], result["buildkit"]) == (str(new), str(old), "embedded")
    assert (result["server_version"], result["api_version"]) == ("20.10.24", "1.41")
    assert result["disk_free_bytes"] > 0
    assert result["error"] == ""
    assert result["init"] in ("systemd", "other")


def test_a_client_with_buildx_is_asked_twice_and_no_other(capsys, host):
    first = fake_docker(host / "first/docker", "28.2.2", {**SERVER, "ClientInfo": {"Plugins": [BUILDX]}})
    second = fake_docker(host / "second/docker", "28.2.2", {**SERVER, "ClientInfo": {}})
    assert run(capsys)["buildkit"] == "buildx"
    assert len(Path(f"{first}.calls").read_text().splitlines()) == 2
    assert not Path(f"{second}.calls").exists()


def test_one_client_under_two_names_is_one(host):
    first = fake(host / "first/docker", "")
    (host / "second").mkdir()
    (host / "second/docker").symlink_to(first)
    assert engine_look.find_clients() == [str(first)]


def test_the_disk_of_another_machine_is_not_ours(capsys, host):
    fake_docker(host / "first/docker", "28.2.2", {**SERVER, "Name": "elsewhere"})
    assert run(capsys)["disk_free_bytes"] is None


def test_the_link_of_a_docker_desktop_that_ended(capsys, host):
    (host / "first").mkdir()
    (host / "first/docker").symlink_to("/mnt/wsl/docker-desktop/cli-tools/usr/bin/docker")
    result = run(capsys)
    assert (result["reachable"], result["problem"]) == (False, "desktop_off")
    assert str(host / "first/docker") in result["error"]


def test_since_when_the_engine_runs(capsys, host, monkeypatch):
    monkeypatch.setattr(engine_look.daemon_look, "daemon_pid", os.getpid)
    fake_docker(host / "first/docker", "28.2.2", {**SERVER, "ClientInfo": {"Plugins": [BUILDX]}})
    began = time.time()
    with subprocess.Popen(["/bin/sleep", "9"]) as child:
        assert began - 0.5 < engine_look.started_at(child.pid) < time.time() + 0.5
        child.kill()
    assert run(capsys)["started_at"] == pytest.approx(engine_look.started_at(os.getpid()), abs=0.1)
    assert engine_look.started_at(2**22 + 1) is None


def test_the_process_of_another_machines_engine_is_not_looked_for(capsys, host, monkeypatch):
    monkeypatch.setattr(engine_look.daemon_look, "daemon_pid", os.getpid)
    fake_docker(host / "first/docker", "28.2.2", {**SERVER, "Name": "elsewhere", "ClientInfo": {}})
    assert run(capsys)["started_at"] is None


def test_nothing_there(capsys, host):  # noqa: ARG001
    result = run(capsys)
    assert (result["reachable"], result["problem"], result["cli"]) == (False, "nothing_there", "")
    assert result["disk_free_bytes"] > 0


@pytest.mark.parametrize(
    ("rc", "info", "err"), [(0, {"ServerErrors": [DOWN]}, ""), (1, {"ServerVersion": ""}, DOWN)], ids=["20.10", "28"]
)
def test_an_engine_that_is_not_running(capsys, host, rc, info, err):
    fake_docker(host / "first/docker", "20.10.24", info, rc, err)
    dockerd = fake(host / "second/dockerd", "")
    result = run(capsys)
    assert (result["reachable"], result["problem"], result["dockerd"]) == (False, "not_running", str(dockerd))
    assert result["error"] == f"the docker engine ({dockerd}) is installed but not running; start its service"
    assert result["buildkit"] == "embedded"


def test_an_engine_that_hangs(capsys, host):
    fake(host / "first/docker", "[ $1 = info ] && sleep 60")
    began = time.monotonic()
    result = run(capsys, timeout=1)
    assert time.monotonic() - began < 5
    assert result["problem"] == "no_answer"


def test_a_client_that_cannot_run(capsys, host):
    (host / "first").mkdir()
    (host / "first/docker").write_text("no program\n")
    (host / "first/docker").chmod(0o755)
    result = run(capsys)
    assert (result["reachable"], result["problem"]) == (False, "other")
    assert "cannot use the docker engine" in result["error"]


def test_it_asks_no_more_than_it_needs(capsys, host):
    clients = [
        fake_docker(host / place / "docker", "28.2.2", {**SERVER, "ClientInfo": {}}) for place in ("first", "second")
    ]
    run(capsys)
    assert sum(len(Path(f"{client}.calls").read_text().splitlines()) for client in clients) == 5


def test_broken_input(capsys):
    result = run(capsys, timeout="soon")
    assert result["failed"]
    assert "timeout" in result["msg"]
