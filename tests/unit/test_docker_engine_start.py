"""Starting and stopping an engine without systemd, with a fake daemon and a fake client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import docker_engine_start
import pytest
from ansible.module_utils.llmfleet.engine_start import PidFile, last_error, live_name
from ansible.module_utils.testing import patch_module_args

IN_USE = (
    'time="2026-11-21T05:58:10Z" level=info msg="Starting up"\n'
    "failed to start daemon: pid file found, ensure docker is not running or delete /var/run/docker.pid\n"
)
NOT_JSON = "unable to configure the Docker daemon with file /etc/docker/daemon.json: invalid character"


class Host:
    """A directory with a client, a daemon and their files; the engine answers while ``up`` exists."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run_dir = root / "run"
        (self.run_dir / "docker/containerd").mkdir(parents=True)
        self.args = {
            "cli": str(self.script("docker", f"[ -e {root}/up ] && echo 20.10.24 && exit 0\necho refused >&2; exit 1")),
            "dockerd": str(self.script("dockerd", self.daemon())),
            "init_script": str(root / "init"),
            "defaults_file": str(root / "defaults"),
            "log_file": str(root / "docker.log"),
            "run_dir": str(self.run_dir),
            "timeout": 10,
        }

    def script(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def daemon(self, before: str = "", after: str = "sleep 0.3") -> str:
        return f"""{before}
echo $$ > {self.run_dir}/docker.pid
echo "$$ args=$* proxy=$PROXY" >> {self.root}/started
trap 'rm -f {self.root}/up; exit 0' TERM
{after}
touch {self.root}/up
while :; do sleep 0.1; done"""

    def started(self) -> list[str]:
        path = self.root / "started"
        return path.read_text().splitlines() if path.exists() else []

    def pid_file(self, name: str, content: object) -> Path:
        path = self.run_dir / name
        path.write_text(f"{content}\n")
        return path

    def end(self) -> None:
        for line in self.started():
            try:
                os.kill(int(line.split()[0]), signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    made.end()


def run(capsys: pytest.CaptureFixture[str], **args: object) -> dict:
    with patch_module_args(args), pytest.raises(SystemExit):
        docker_engine_start.main()
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize("check_mode", [False, True])
def test_an_engine_that_answers_is_left_alone(capsys, host, check_mode):
    (host.root / "up").touch()
    stale = host.pid_file("docker-ssd.pid", "garbage")
    result = run(capsys, _ansible_check_mode=check_mode, **host.args)
    assert (result["changed"], result["started_with"], host.started()) == (False, "", [])
    assert stale.exists()


def test_the_daemon_is_started_where_there_is_no_init_script(capsys, host):
    result = run(capsys, **host.args)
    assert (result["changed"], result["started_with"], result["remark"]) == (True, host.args["dockerd"], "")
    assert len(host.started()) == 1
    assert result["waited_s"] < 3
    assert run(capsys, **host.args)["changed"] is False


def test_the_init_script_is_preferred(capsys, host):
    init = host.script("init", f"[ $1 = start ] || exit 64\nsetsid {host.args['dockerd']} >/dev/null 2>&1 &")
    result = run(capsys, **host.args)
    assert (result["changed"], result["started_with"]) == (True, str(init))
    assert len(host.started()) == 1


def test_an_init_script_that_may_not_raise_limits(capsys, host):
    said = "ulimit: error setting limit (Operation not permitted)"
    init = host.script("init", f"echo '{said}' >&2; exit 2")
    (host.root / "defaults").write_text('DOCKER_OPTS="--debug --mtu 1400"\nexport PROXY=lan\n')
    result = run(capsys, **host.args)
    assert result["started_with"] == host.args["dockerd"]
    assert result["remark"] == f"{init} could not start the docker engine: {said}"
    assert host.started()[0].endswith(" args=--debug --mtu 1400 proxy=lan")


def test_check_mode_starts_and_removes_nothing(capsys, host, dead_pid):
    stale = host.pid_file("docker.pid", dead_pid)
    result = run(capsys, _ansible_check_mode=True, **host.args)
    assert (result["changed"], result["cleared"], host.started()) == (True, [str(stale)], [])
    assert stale.exists()


def test_stale_pid_files_are_cleared(capsys, host, dead_pid):
    host.script("dockerd", host.daemon(before=f"[ -e {host.run_dir}/docker.pid ] && exit 1"))
    stale = [
        host.pid_file("docker.pid", dead_pid),
        host.pid_file("docker-ssd.pid", os.getpid()),  # the number went to another process
        host.pid_file("docker/containerd/containerd.pid", "garbage"),
    ]
    result = run(capsys, **host.args)
    assert result["cleared"] == [str(path) for path in stale]
    assert result["changed"] is True


def test_a_daemon_on_its_way_up_is_waited_for(capsys, host):
    host.script("dockerd", host.daemon(after="sleep 1"))
    with subprocess.Popen([host.args["dockerd"]]) as daemon:
        while not (host.run_dir / "docker.pid").exists() or not host.started():
            time.sleep(0.02)
        result = run(capsys, **host.args)
        assert (result["started_with"], result["cleared"]) == ("", [])
        assert len(host.started()) == 1
        daemon.terminate()


def test_a_daemon_that_ends_is_reported_at_once_with_its_words(capsys, host):
    Path(host.args["log_file"]).write_text("failed to start daemon: an old story\n")
    host.script("dockerd", f"cat <<'X'\n{IN_USE}X\nexit 1")
    began = time.monotonic()
    result = run(capsys, **host.args)
    assert time.monotonic() - began < 2
    assert result["failed"]
    assert result["msg"] == (
        "the docker engine ended while starting: failed to start daemon: pid file found, ensure docker is not running "
        f"or delete /var/run/docker.pid (log: {host.args['log_file']}); correct that, run again"
    )


def test_a_daemon_that_never_answers(capsys, host):
    host.script("dockerd", host.daemon(after="while :; do sleep 0.1; done"))
    result = run(capsys, **{**host.args, "timeout": 1})
    assert result["failed"]
    assert "did not answer within 1 s: it wrote no log" in result["msg"]


def test_no_engine_to_start(capsys, host):
    (host.root / "dockerd").unlink()
    result = run(capsys, **host.args)
    assert result["failed"]
    assert result["msg"] == (
        f"there is neither {host.args['init_script']} nor {host.args['dockerd']}; install a docker engine"
    )


def test_stopping(capsys, host):
    run(capsys, **host.args)
    stop = {**host.args, "state": "stopped"}
    assert run(capsys, _ansible_check_mode=True, **stop)["changed"] is True
    assert (host.root / "up").exists()
    assert run(capsys, **stop)["changed"] is True
    assert not (host.root / "up").exists()
    assert run(capsys, **stop)["changed"] is False


def test_stopping_spares_another_process(capsys, host):
    host.pid_file("docker.pid", os.getpid())
    assert run(capsys, **{**host.args, "state": "stopped"})["changed"] is False


def test_broken_input(capsys):
    result = run(capsys, state="restarted")
    assert result["failed"]
    assert "state" in result["msg"]


@pytest.mark.parametrize(
    ("text", "process", "stale"),
    [
        ("123\n", "", True),
        ("123", "dockerd", False),
        ("123", "containerd", False),
        ("123", "sshd", True),
        ("garbage", "", True),
    ],
)
def test_which_pid_files_are_stale(text, process, stale):
    assert PidFile("/run/docker.pid", text, process).stale is stale


@pytest.mark.parametrize(
    ("stat", "name"),
    [
        ("446 (dockerd) S 1 446", "dockerd"),
        ("446 (dockerd) Z 1 446", ""),
        ("446 (odd) name)) R 1 446", "odd) name)"),
    ],
)
def test_live_name(stat, name):
    assert live_name(stat) == name


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (IN_USE, IN_USE.splitlines()[1]),
        (
            'time="x" level=error msg="no \\"overlay2\\" here" error=y\ntime="x" level=info msg=bye\n',
            'no "overlay2" here',
        ),
        (f"{NOT_JSON}\n\n", NOT_JSON),
        ("", ""),
    ],
)
def test_last_error(log, line):
    assert last_error(log) == line
