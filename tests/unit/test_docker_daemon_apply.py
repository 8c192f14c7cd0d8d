"""Bringing daemon.json into effect on an engine made of files (tests/fake_engine.py), with and without systemd."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import docker_daemon_apply
import pytest
from ansible.module_utils.llmfleet import daemon_apply, daemon_control, running_containers
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.timed_run import Answer
from ansible.module_utils.testing import patch_module_args

TESTS = Path(__file__).resolve().parents[1]
LIVE = {"live-restore": True}


class Host:
    """An engine that runs with ``running``, the containers in it, and a daemon.json with what is pending."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        for name in ("docker", "systemctl", "journalctl", "dockerd-fake"):
            (root / "bin" / name).symlink_to(TESTS / "fake_engine.py")
        self.file, self.record, self.backup = root / "daemon.json", root / "state/record.json", root / "backup"
        self.args = {"path": str(self.file), "record_path": str(self.record), "timeout": 3}
        self.put("running.json", {})
        self.up(True)

    def up(self, runs: bool) -> None:
        (self.root / "up").touch() if runs else (self.root / "up").unlink()

    def put(self, name: str, content: object) -> None:
        (self.root / name).write_text(json.dumps(content))

    def read(self, name: str) -> dict:
        return json.loads((self.root / name).read_text())

    def containers(self, **policies: str) -> None:
        self.put("containers.json", {name: {"pid": 100, "policy": policy} for name, policy in policies.items()})

    def change(self, old: dict | None, new: dict | None, action: str, **more: object) -> None:
        """Be as docker_daemon_config leaves things, the engine running with ``old``."""
        self.put("running.json", old or {})
        if old is not None:
            self.backup.write_text(json.dumps(old))
        if new is not None:
            self.file.write_text(json.dumps(new))
        pending = {"action": action, "backup_file": str(self.backup) if old is not None else "", "created": old is None}
        self.record.parent.mkdir(exist_ok=True)
        self.record.write_text(json.dumps({"owned": ["new"], "pending": {**pending, "empty_first": {}, **more}}))

    def pending(self) -> dict:
        return json.loads(self.record.read_text()).get("pending", {})

    def events(self) -> list[str]:
        path = self.root / "events"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def warned(result: dict) -> str:
    """Return the warnings as text; Ansible keeps those of a whole process together."""
    return json.dumps(result["warnings"]).replace("\\", "")


@pytest.fixture
def host(tmp_path, monkeypatch):
    made = Host(tmp_path)
    monkeypatch.setenv("FAKE_ENGINE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(daemon_control, "SYSTEMD_MARK", "/")
    # a busy machine starts the stand-ins slowly
    monkeypatch.setattr(daemon_apply, "SETTLE_S", 30.0)
    monkeypatch.setattr(daemon_apply, "SILENT_S", 0.3)
    setup = functools.partial(
        daemon_control.Setup,
        init_script=str(tmp_path / "none"),
        defaults_file=str(tmp_path / "none"),
        log_file=str(tmp_path / "log"),
        run_dir=str(tmp_path),
    )
    monkeypatch.setattr(docker_daemon_apply, "Setup", setup)
    return made


@pytest.fixture
def run(capsys, host):
    def go(**args: object) -> dict:
        with patch_module_args({**host.args, **args}), pytest.raises(SystemExit):
            docker_daemon_apply.main()
        return json.loads(capsys.readouterr().out)

    return go


def test_nothing_pending(host, run):
    assert run()["changed"] is False
    host.change({}, {"debug": True}, "reload")
    host.record.write_text("{}")
    assert (run()["action"], host.events()) == ("none", [])


def test_a_reload_keeps_containers_running(host, run):
    host.containers(chat="no")
    new = {"registry-mirrors": ["https://mirror.test"], "labels": ["a=b"]}
    host.change({}, new, "reload")
    result = run()
    assert (result["changed"], result["action"], result["containers_kept"]) == (True, "reload", ["chat"])
    assert host.read("running.json") == new
    assert json.loads(host.record.read_text()) == {"owned": ["new"]}
    assert oct(host.record.stat().st_mode & 0o777) == "0o600"
    assert (run()["changed"], host.events()) == (False, ["reload"])


def test_what_went_is_emptied_before_the_file_is_read(host, run):
    old = {"registry-mirrors": ["https://mirror.test"], "labels": ["a=b"]}
    host.change(old, {"labels": ["a=b"]}, "reload", empty_first={"registry-mirrors": []})
    text = host.file.read_text()
    assert run()["action"] == "reload"
    assert host.read("running.json")["registry-mirrors"] == []
    assert host.file.read_text() == text
    # also where the record does not say so: it is what the two files differ in
    host.change(old, {"labels": ["a=b"]}, "reload")
    run()
    assert host.read("running.json")["registry-mirrors"] == []


def test_a_file_that_went_altogether(host, run):
    host.change({"labels": ["a=b"]}, None, "reload", empty_first={"labels": []})
    assert run()["changed"] is True
    assert host.read("running.json") == {"labels": []}
    assert not host.file.exists()


def test_a_daemon_that_logs_errors_only_confirms_by_what_it_runs_with(host, run):
    quiet = {"log-level": "error"}
    host.change(quiet, {**quiet, "debug": True}, "reload")
    assert "failed" not in run()
    assert host.read("running.json")["debug"] is True


def test_a_refused_reload_is_taken_back(host, run):
    host.containers(chat="no")
    old = {"hosts": ["fd://"]}
    host.change(old, {**old, "debug": True}, "reload", record_before={"owned": ["old"]})
    result = run()
    assert result["failed"]
    assert 'unable to configure the Docker daemon with file: hosts: "fd://" twice' in result["msg"]
    assert "the old file was put back and the docker engine runs as before" in result["msg"]
    assert (result["restored"], result["containers_kept"]) == (True, ["chat"])
    assert json.loads(host.file.read_text()) == old
    assert json.loads(host.record.read_text()) == {"owned": ["old"]}
    assert "restart" not in host.events()


def test_a_reload_without_effect_is_taken_back_from_the_daemon_too(host, run, monkeypatch):
    monkeypatch.setattr(daemon_apply, "SETTLE_S", 1.0)
    host.put("deaf", {"labels": True})
    host.change(None, {"labels": ["a=b"], "registry-mirrors": ["https://mirror.test"]}, "reload")
    result = run()
    assert 'labels is [] instead of ["a=b"]' in result["msg"]
    assert "the old file was removed, as there was none before" in result["msg"]
    assert not host.file.exists()
    assert host.read("running.json")["registry-mirrors"] == []


def test_a_restart_with_nothing_running(host, run):
    host.change({}, {"log-driver": "local"}, "restart")
    result = run()
    assert (result["action"], result["containers_stopped"]) == ("restart", [])
    assert host.read("running.json") == {"log-driver": "local"}
    assert host.pending() == {}


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("live-restore-only", "which would stop 1 running container (chat)"),
        ("refuse", "restart_policy is refuse"),
    ],
)
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_restart_that_is_not_allowed(host, run, policy, words, check_mode):
    host.containers(chat="no")
    host.change({}, {"log-driver": "local"}, "restart")
    result = run(restart_policy=policy, _ansible_check_mode=check_mode)
    assert result["failed"]
    assert "restarted for log-driver" in result["msg"]
    assert words in result["msg"]
    assert host.events() == []
    assert host.pending()["action"] == "restart"


def test_a_restart_that_somebody_made_by_hand_counts(host, run, monkeypatch):
    marks = {"now": "first"}
    monkeypatch.setattr(daemon_apply.daemon_look, "daemon_mark", lambda: marks["now"])
    host.containers(chat="no")
    host.change({}, {"log-driver": "local"}, "restart", daemon="first")
    assert run()["failed"]
    marks["now"] = "second"
    assert (run()["action"], host.events()) == ("none", [])
    # an interrupted run has more to do than the restart
    host.change({}, {"log-driver": "local"}, "restart", daemon="first", containers=[{"id": "x", "name": "x", "pid": 1}])
    assert run(restart_policy="allowed")["action"] == "restart"


def test_a_file_that_cannot_be_put_back_is_one_sentence(host, run, monkeypatch):
    def immutable(*_: object) -> None:
        raise Exception("Could not replace") from OSError(1, "Operation not permitted")

    monkeypatch.setattr(docker_daemon_apply.AnsibleModule, "atomic_move", immutable)
    host.change({"debug": True}, {}, "reload", empty_first={"debug": False})
    result = run()
    assert f"{host.file} cannot be replaced: Operation not permitted; see whether" in result["msg"]
    assert not list(host.root.glob(".llmfleet-*"))


@pytest.mark.parametrize(
    ("listed", "looked", "why"),
    [
        (Answer(1, "", "denied"), Answer(0, "[]"), "denied"),
        (Answer(None), Answer(0, "[]"), "no answer in time"),
        (Answer(0, "1\n2\n"), Answer(None), "no answer in time"),
        (Answer(0, "1\n"), Answer(None, '[{"Id"'), "no answer in time"),
        (Answer(0, "1\n"), Answer(1, "", "the engine is gone"), "the engine is gone"),
    ],
)
def test_containers_that_cannot_be_seen_are_not_none(listed, looked, why, monkeypatch):
    monkeypatch.setattr(running_containers, "timed_run", lambda argv, _: listed if argv[1] == "ps" else looked)
    with pytest.raises(LlmfleetError, match=f"could not be listed: {why}; see"):
        running_containers.Containers().running()


def test_containers_that_ended_meanwhile_are_left_out(monkeypatch):
    answers = {"ps": Answer(0, "1\n2\n"), "container": Answer(1, "[]\n", "Error: No such container: 1")}
    monkeypatch.setattr(running_containers, "timed_run", lambda argv, _: answers[argv[1]])
    assert running_containers.Containers().running() == {}
    answers["ps"] = Answer(0, "")
    assert running_containers.Containers().running() == {}


def test_live_restore_carries_containers_over_a_restart(host, run):
    host.containers(chat="no")
    host.change(LIVE, {**LIVE, "log-driver": "local"}, "restart")
    result = run()
    assert (result["action"], result["containers_kept"]) == ("restart", ["chat"])
    assert host.events() == ["restart"]


def test_live_restore_is_turned_on_before_the_restart_that_needs_it(host, run):
    host.containers(chat="no")
    host.change({}, {**LIVE, "log-driver": "local"}, "restart")
    assert run()["containers_kept"] == ["chat"]
    assert host.events() == ["reload", "restart"]


def test_live_restore_is_turned_off_after_the_restart_that_needs_it(host, run):
    host.containers(chat="no")
    host.change({**LIVE, "log-driver": "local"}, {}, "restart")
    assert run()["containers_kept"] == ["chat"]
    assert host.events() == ["restart", "reload"]
    assert (host.file.read_text(), host.read("running.json"), host.pending()) == ("{}", {"live-restore": False}, {})


def test_live_restore_does_not_help_against_another_data_root(host, run):
    host.containers(chat="no")
    host.change(LIVE, {**LIVE, "data-root": "/data/docker"}, "restart")
    refused = run()["msg"]
    assert "restarted for data-root, which would stop" in refused
    assert "turn on live-restore" not in refused


def test_containers_that_another_exec_root_would_lose_are_ended_with_the_old_daemon(host, run):
    host.containers(chat="no")
    new = {**LIVE, "exec-root": "/run/other"}
    host.change(LIVE, new, "restart")
    result = run(restart_policy="allowed")
    assert host.events() == ["reload", "restart"]
    assert (result["containers_kept"], result["containers_stopped"]) == ([], ["chat"])
    assert (json.loads(host.file.read_text()), host.read("running.json"), host.pending()) == (new, new, {})


def test_networks_wait_for_the_last_container(host, run):
    host.containers(chat="no")
    host.change(LIVE, {**LIVE, "bip": "10.9.0.1/24"}, "restart")
    assert "the change of bip takes effect at the first start" in warned(run())


def test_what_a_restart_stopped_is_started_again(host, run):
    host.containers(chat="no", web="always", job="gone")
    host.change({}, {"log-driver": "local"}, "restart")
    result = run(restart_policy="allowed")
    assert (result["containers_kept"], result["containers_stopped"]) == ([], ["chat", "job"])
    assert result["containers_started"] == ["chat"]
    assert "container job did not start again: no such container" in warned(result)
    pids = {name: one["pid"] for name, one in host.read("containers.json").items()}
    assert pids == {"chat": 5000, "web": 1100, "job": 0}


def test_what_a_restart_stopped_may_stay_so(host, run):
    host.containers(chat="no")
    host.change({}, {"log-driver": "local"}, "restart")
    result = run(restart_policy="allowed", start_stopped=False)
    assert (result["containers_stopped"], result["containers_started"]) == (["chat"], [])


def test_a_failed_restart_restores_file_daemon_and_containers(host, run):
    host.containers(chat="no")
    host.change({"debug": True}, {"debug": True, "log-opts": {"x": "1"}}, "restart")
    result = run(restart_policy="allowed")
    assert result["failed"]
    words = (
        "by a restart: the docker engine did not start: failed to start daemon: unknown log opt; the old file was put"
    )
    assert words in result["msg"]
    assert (result["restored"], result["containers_started"]) == (True, ["chat"])
    assert json.loads(host.file.read_text()) == {"debug": True}
    assert host.read("running.json") == {"debug": True}
    assert host.pending() == {}


def test_a_daemon_that_does_not_come_back_is_tried_again_by_the_next_run(host, run):
    host.containers(chat="no")
    host.change({}, {"log-driver": "local"}, "restart", record_before={"owned": ["old"]})
    (host.root / "broken").touch()
    result = run(restart_policy="allowed")
    assert "the old file was put back, but the docker engine does not answer (going back: " in result["msg"]
    assert result["restored"] is False
    assert json.loads(host.record.read_text())["owned"] == ["old"], "the record is that of the file that was put back"
    (host.root / "broken").unlink()
    result = run()
    assert (result["action"], result["containers_started"], host.pending()) == ("start", ["chat"], {})


def test_a_restart_without_any_change_of_the_file(host, run):
    assert run(restart=True)["action"] == "restart"
    assert not host.record.exists()
    host.containers(chat="no")
    assert "restarted for what changed since it started" in run(restart=True)["msg"]


def test_somebody_elses_setting_is_told_but_not_fought(host, run):
    host.put("deaf", {"labels": True})
    old = {"labels": ["by=hand"]}
    host.change(old, {**old, "log-driver": "local"}, "restart")
    result = run()
    assert "failed" not in result
    assert 'labels is [] instead of ["by=hand"] after a restart' in warned(result)


def test_an_engine_that_does_not_run_is_started(host, run):
    host.up(False)
    host.change({}, {"debug": True}, "reload")
    assert run(restart_policy="refuse")["action"] == "start"
    assert host.read("running.json") == {"debug": True}


@pytest.mark.parametrize("runs", [True, False])
def test_check_mode_touches_nothing(host, run, runs):
    host.up(runs)
    host.change({}, {"debug": True}, "reload", swap={"interim": '{"debug": true}', "final": "{}"})
    before = {path: path.read_bytes() for path in host.root.iterdir() if path.is_file()}
    result = run(_ansible_check_mode=True)
    assert (result["changed"], result["action"]) == (True, "reload" if runs else "start")
    assert before == {path: path.read_bytes() for path in host.root.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", ["daemon.json", "state/record.json"])
def test_broken_files(host, run, name):
    host.change({}, {}, "reload")
    (host.root / name).write_text('{"debug": tru}')
    result = run()
    assert result["failed"]
    assert f"{host.root / name}, line 1, column 11" in result["msg"]


def interrupted(host: Host, at: str) -> None:
    """Run the module in a process of its own that is killed while it reloads or restarts."""
    code = f"""
    import sys
    sys.path.insert(0, {str(TESTS)!r})
    import conftest
    from ansible.module_utils.llmfleet import daemon_control
    from ansible.module_utils.testing import patch_module_args
    daemon_control.SYSTEMD_MARK = "/"
    import docker_daemon_apply
    with patch_module_args({{**{host.args!r}, "restart_policy": "allowed"}}):
        docker_daemon_apply.main()
    """
    environment = {**os.environ, "FAKE_KILL": at}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL


def test_interrupted_between_the_interim_and_the_final_file(host, run):
    host.change({"debug": True}, {}, "reload", empty_first={"debug": False})
    interrupted(host, "reload")
    assert json.loads(host.file.read_text()) == {"debug": False}
    assert run()["action"] == "reload"
    assert (host.file.read_text(), host.read("running.json"), host.pending()) == ("{}", {"debug": False}, {})


def test_interrupted_after_a_restart_that_stopped_containers(host, run):
    host.containers(chat="no")
    host.change({}, {"log-driver": "local"}, "restart")
    interrupted(host, "restart")
    assert host.read("containers.json")["chat"]["pid"] == 0
    result = run()
    assert (result["containers_stopped"], result["containers_started"]) == (["chat"], ["chat"])


@pytest.fixture
def plain(host, monkeypatch):
    """Make it a host without systemd: a real process that takes signals, started and stopped by its pid file."""
    monkeypatch.setattr(daemon_control, "SYSTEMD_MARK", "/nonexistent")
    (host.root / "bin/systemctl").unlink()
    fake = host.root / "bin/dockerd-real"
    fake.mkdir()
    (fake / "dockerd").symlink_to(TESTS / "fake_engine.py")
    dockerd = host.root / "bin/dockerd"
    dockerd.write_text(f"""#!/bin/sh
# signals are heard, and whose they are is known, before it answers
trap '{fake}/dockerd reload' HUP
trap 'rm {host.root}/up; exit 0' TERM
echo $$ > {host.root}/docker.pid
{fake}/dockerd start || {{ rm {host.root}/docker.pid; exit 1; }}
while :; do sleep 0.05; done
""")
    dockerd.chmod(0o755)
    # a shell cannot trap what was ignored when it began, as all is that nohup starts
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield host
    signal.signal(signal.SIGHUP, before)
    pid = host.root / "docker.pid"
    if pid.exists():
        subprocess.run(["kill", "-9", pid.read_text().strip()], check=False, capture_output=True)


def test_without_systemd(plain, run):
    plain.up(False)
    plain.change({}, {"debug": True}, "reload")
    assert run(dockerd=str(plain.root / "bin/dockerd"))["action"] == "start"
    plain.change({"debug": True}, {"debug": True, "labels": ["a=b"]}, "reload")
    assert run()["action"] == "reload"
    assert plain.read("running.json")["labels"] == ["a=b"]
    plain.change({}, {"log-driver": "local"}, "restart")
    assert run(dockerd=str(plain.root / "bin/dockerd"))["action"] == "restart"
    assert plain.read("running.json") == {"log-driver": "local"}
    plain.change({"log-driver": "local"}, {"log-opts": {"x": "1"}}, "restart")
    result = run(dockerd=str(plain.root / "bin/dockerd"))
    assert "the docker engine ended while starting: failed to start daemon: unknown log opt" in result["msg"]
    assert result["restored"] is True
    assert plain.read("running.json") == {"log-driver": "local"}


def test_broken_input(run):
    result = run(restart_policy="perhaps")
    assert "restart_policy" in result["msg"]
