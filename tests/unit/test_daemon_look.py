"""Which file of a host gives dockerd which flag, and what stands in its daemon.json."""

from __future__ import annotations

import json
import os
import subprocess
import time
import typing as t
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import daemon_look
from ansible.module_utils.llmfleet.daemon_look import CommandLine
from ansible.module_utils.llmfleet.timed_run import Answer

# as `systemctl show docker.service` of systemd 252 prints them
SHOWN = """\
ExecStart={{ path=/usr/sbin/dockerd ; argv[]={argv} ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 }}
Environment=HTTP_PROXY=http://proxy.example:3128 "MORE=--debug --mtu 1400"
EnvironmentFiles={defaults} (ignore_errors=yes)
FragmentPath={fragment}
DropInPaths={first} {second}
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without systemd, where no engine runs."""
    monkeypatch.setattr(daemon_look, "SYSTEMD_MARK", str(tmp_path / "systemd"))
    monkeypatch.setattr(daemon_look, "DEFAULTS_FILE", str(tmp_path / "default_docker"))
    monkeypatch.setattr(daemon_look, "DAEMON_JSON", str(tmp_path / "daemon.json"))
    monkeypatch.setattr(daemon_look, "RECORD", str(tmp_path / "record.json"))
    monkeypatch.setattr(daemon_look, "RUN_DIR", str(tmp_path / "run"))
    return tmp_path


def test_a_host_with_nothing(host):
    assert daemon_look.look() == {
        "path": str(host / "daemon.json"),
        "text": None,
        "error": "",
        "record": {},
        "flags": {},
    }


def test_the_options_of_the_defaults_file(host):
    (host / "default_docker").write_text(
        '# DOCKER_OPTS=\'--debug\'\nBASE="--dns 8.8.8.8"\nexport DOCKER_OPTS="$BASE --data-root=/data"\n'
    )
    file = host / "default_docker"
    assert daemon_look.daemon_flags() == {"dns": f"--dns 8.8.8.8 ({file})", "data-root": f"--data-root=/data ({file})"}


@pytest.fixture
def systemd(host: Path) -> dict[str, Path]:
    """The host with systemd and a unit with two drop-ins and a file of variables."""
    (host / "systemd").mkdir()
    paths = {name: host / name for name in ("defaults", "fragment", "first", "second")}
    paths["defaults"].write_text('DOCKER_OPTS="--log-driver journald"\n')
    paths["fragment"].write_text("[Service]\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n")
    paths["first"].write_text("[Service]\n# ExecStart=/usr/sbin/dockerd --live-restore\n")
    paths["second"].write_text("[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// --live-restore $MORE\n")
    return paths


def answer(paths: dict[str, Path], argv: str):
    return lambda _argv, _seconds: Answer(0, SHOWN.format(argv=argv, **paths))


def test_the_command_line_of_a_unit(systemd):
    argv = "/usr/sbin/dockerd -H fd:// --live-restore $DOCKER_OPTS ${MORE} $UNSET"
    told = daemon_look.command_line(5, answer(systemd, argv))
    assert told.argv[1:] == ("-H", "fd://", "--live-restore", "--log-driver", "journald", "--debug", "--mtu", "1400")
    assert told.flags() == {
        "hosts": f"-H fd:// ({systemd['second']})",
        "live-restore": f"--live-restore ({systemd['second']})",
        "log-driver": f"--log-driver journald ({systemd['defaults']})",
        "debug": f"--debug ({systemd['fragment']})",
        "mtu": f"--mtu 1400 ({systemd['fragment']})",
    }


def test_a_unit_that_is_not_there(host):
    (host / "systemd").mkdir()
    told = daemon_look.command_line(5, lambda *_: Answer(0, "ExecStart=\nFragmentPath=\nDropInPaths=\n"))
    assert told == CommandLine()
    assert told.flags() == {}


@contextmanager
def running(*argv: str) -> t.Iterator[int]:
    """Run a program that waits; return its process id once the kernel shows its command line."""
    with subprocess.Popen(argv) as process:
        try:
            for _ in range(500):
                if Path(f"/proc/{process.pid}/cmdline").read_text():
                    break
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


def test_what_runs_counts_more_than_what_would(systemd, monkeypatch):
    with running("/bin/sleep", "60") as pid:
        monkeypatch.setattr(daemon_look, "daemon_pid", lambda: pid)
        told = daemon_look.command_line(5, answer(systemd, "/usr/sbin/dockerd --live-restore"))
    assert (told.argv, told.origin) == (("/bin/sleep", "60"), f"process {pid}")


@pytest.mark.parametrize(
    ("flag", "where"),
    [
        ("--dns 8.8.8.8", "b"),
        ("--dns 9.9.9.9", "b"),
        ("--data-root /data", "a"),
        ("--http-proxy=http://***@proxy", "b"),
        ("--mtu 1400", "process 7"),
    ],
)
def test_the_source_of_a_flag(flag, where):
    files = (("a", "X='--data-root  /data'\n;--mtu 1400\n"), ("b", "--dns 8.8.8.8 --http-proxy=http://u:p@proxy\n"))
    assert CommandLine(("dockerd",), files, "process 7").source(flag) == where


@pytest.mark.parametrize(
    ("argv", "path"),
    [
        (("dockerd", "--config-file", "/x.json"), "/x.json"),
        (("dockerd", "--config-file=/x.json", "--debug"), "/x.json"),
        (("dockerd", "--debug"), ""),
    ],
)
def test_another_daemon_json(argv, path):
    assert CommandLine(argv).config_file == path


def test_the_daemon_json_that_the_flag_names_is_read(host):
    other = host / "other.json"
    other.write_text('{"debug": true}')
    (host / "default_docker").write_text(f"DOCKER_OPTS=--config-file={other}\n")
    found = daemon_look.look()
    assert (found["path"], found["text"]) == (str(other), '{"debug": true}')


def test_a_daemon_json_and_our_record_of_it(host):
    (host / "daemon.json").write_text('\ufeff{"debug": true}\n', encoding="utf-8")
    (host / "record.json").write_text(json.dumps({"owned": {}}))
    found = daemon_look.look()
    assert (found["text"], found["error"], found["record"]) == ('\ufeff{"debug": true}\n', "", {"owned": {}})


def test_a_daemon_json_that_cannot_be_read(host):
    (host / "daemon.json").write_bytes(b'{"a": "\xff"}')
    assert "not UTF-8" in daemon_look.look()["error"]
    (host / "daemon.json").unlink()
    (host / "daemon.json").mkdir()
    assert "cannot be read: Is a directory" in daemon_look.look()["error"]


@pytest.mark.parametrize("text", ["", "{broken", "[1]"])
def test_a_broken_record_is_none(host, text):
    (host / "record.json").write_text(text)
    assert daemon_look.look()["record"] == {}


def test_a_daemon_with_a_pid_file_elsewhere_is_found(host):
    """A process that calls itself dockerd and a socket in the usual place."""
    (host / "run").mkdir()
    program = host / "dockerd"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with running(str(program), "60") as pid:
        assert daemon_look.daemon_pid() == 0
        (host / "run/docker.sock").touch()
        found = daemon_look.daemon_pid()
        # the engine of the machine that runs the tests may be found first
        assert Path(f"/proc/{found}/comm").read_text() == "dockerd\n"
        assert os.readlink(f"/proc/{found}/ns/pid") == os.readlink("/proc/self/ns/pid")
        (host / "run/docker.pid").write_text(str(pid))
        assert daemon_look.daemon_pid() == pid


def test_the_password_of_a_proxy_does_not_leave_the_host(tmp_path, monkeypatch):
    daemon_json = tmp_path / "daemon.json"
    daemon_json.write_text('{"proxies": {"http-proxy": "http://user:secret@proxy.invalid:3128"}}')
    monkeypatch.setattr(daemon_look, "DAEMON_JSON", str(daemon_json))
    found = daemon_look.look()
    assert "proxy.invalid" in found["text"]
    assert "secret" not in str(found)


def test_the_mark_of_a_daemon(monkeypatch):
    monkeypatch.setattr(daemon_look, "daemon_pid", os.getpid)
    mark = daemon_look.daemon_mark()
    assert mark.split()[1] == str(os.getpid())
    assert mark == daemon_look.daemon_mark() != ""
    with subprocess.Popen(["sleep", "60"]) as other:
        monkeypatch.setattr(daemon_look, "daemon_pid", lambda: other.pid)
        assert daemon_look.daemon_mark().split()[0] != mark.split()[0]
        other.kill()
    monkeypatch.setattr(daemon_look, "daemon_pid", lambda: 0)
    assert daemon_look.daemon_mark() == ""


@pytest.mark.parametrize(
    ("noted", "runs", "stays"),
    [
        ({"daemon": "1"}, "1", True),
        ({"daemon": "1"}, "2", False),
        ({"daemon": "1"}, "", True),
        ({}, "2", True),
        ({"daemon": "1", "containers": [{"id": "a"}]}, "2", True),
        ({"daemon": "1", "swap": {"interim": "", "final": ""}}, "2", True),
    ],
)
def test_what_another_daemon_has_read_is_not_pending(noted, runs, stays, monkeypatch):
    monkeypatch.setattr(daemon_look, "daemon_mark", lambda: runs)
    found = daemon_look.still_pending({"owned": [], "pending": {"action": "restart", **noted}})
    assert ("pending" in found, "owned" in found) == (stays, True)
