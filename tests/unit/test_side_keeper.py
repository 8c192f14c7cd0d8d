"""Helper containers coming up: death and silence are told, files go back, their own ports are no strangers."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.handover import RolledBackError
from ansible.module_utils.llmfleet.side import health as side_health
from ansible.module_utils.llmfleet.side import job as side_job
from ansible.module_utils.llmfleet.side import parts
from ansible.module_utils.llmfleet.side import spec as side_spec
from ansible.module_utils.llmfleet.side.files import FileKeeper, read
from ansible.module_utils.llmfleet.side.keeper import SideKeeper
from ansible.module_utils.llmfleet.watch import NotReadyError
from asked_side import OWN, file, given, side


class Engine:
    """A docker whose container is what ``states`` says, one look after the other."""

    def __init__(self, *states: tuple[str, str]) -> None:
        self.states = list(states)

    def __call__(self, argv: t.Sequence[str], **_: t.Any) -> tuple[int, str, str]:
        if argv[1] == "logs":
            return 0, "first\nbind() failed\n", ""
        status, started = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if status == "gone":
            return 1, "", "Error: No such container: proxy"
        state = {"Status": status, "StartedAt": started, "ExitCode": 1}
        return 0, json.dumps([{"State": state, "RestartCount": 0}]), ""


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([("running", "1"), ("exited", "1")], "it ended with exit code 1 (bind() failed)"),
        ([("running", "1"), ("running", "2")], "it ended with exit code 1 (bind() failed)"),
        ([("running", "1"), ("gone", "")], "removed by somebody else"),
        ([("running", "1")], "does not answer as it should"),
    ],
)
def test_death_and_silence_are_told(states, words, monkeypatch):
    monkeypatch.setattr(side_health, "_problem", lambda _: "nobody there")
    health = parts.Health("http://127.0.0.1:9/", timeout=0)
    with pytest.raises(NotReadyError) as error:
        side_health.wait_up(Docker(Engine(*states)), "proxy", health)
    assert words in str(error.value)


def test_an_answer_right_after_a_signal_may_be_that_of_before(monkeypatch):
    monkeypatch.setattr(side_health, "RELOAD_SECONDS", 0.2)
    monkeypatch.setattr(side_health, "STAYS_SECONDS", 0.3)
    monkeypatch.setattr(side_health, "_problem", lambda _: "")
    docker = Docker(Engine(("running", "1")))
    asked = parts.Health("http://127.0.0.1:9/")
    assert side_health.wait_up(docker, "proxy", asked) < 0.2
    assert side_health.wait_up(docker, "proxy", asked, reloaded=True) >= 0.2
    told = parts.Health("http://127.0.0.1:9/", contains="digest")
    assert side_health.wait_up(docker, "proxy", told, reloaded=True) < 0.2
    assert side_health.wait_up(docker, "proxy", parts.Health()) >= 0.3


@pytest.mark.parametrize(
    ("action", "words"), [("restart", "port is already allocated"), ("reload", "it cannot be sent SIGHUP")]
)
def test_files_go_back_where_docker_does_not_even_start_it(action, words, monkeypatch, tmp_path):
    monkeypatch.setattr(side_health, "STAYS_SECONDS", 0)
    FileKeeper(tmp_path, {"a": file("1")}, OWN).forward()
    FileKeeper(tmp_path, {"a": file("1")}, OWN).accept([])
    restarts = [(0, "", "")]
    if action == "restart":
        restarts.insert(0, (1, "", "driver failed: port is already allocated"))

    def docker(argv, **_):
        if argv[1] == "restart":
            return restarts.pop(0)
        state = {"Status": "running", "StartedAt": "1", "Pid": 0}
        return (0, json.dumps([{"State": state, "RestartCount": 0}]), "") if argv[2] == "inspect" else (0, "", "")

    asked = side(reload_signal="HUP", files_target="/f", files=[{"path": "a", "content": "2"}])
    keeper = SideKeeper(Docker(docker), asked, FileKeeper(tmp_path, asked.files, OWN))
    with pytest.raises(RolledBackError, match=f"{words}.*Its previous files are back and verified"):
        keeper.carry_out(action, side_spec.build(asked, "sha256:1"))
    assert read(tmp_path / "files") == {"a": file("1")}
    assert not restarts


def test_its_own_port_on_another_address_is_no_stranger(monkeypatch, tmp_path):
    monkeypatch.setattr(side_job, "who_listens", lambda _docker, host, port: f"somebody on {host}:{port}")
    job = side_job.SideJob(given(user=":".join(map(str, OWN)), listens=["0.0.0.0:80"]), tmp_path, None, False)
    job._check_addresses(Docker(Engine()), ["127.0.0.1 80"])
    for had in ([], ["127.0.0.1 81"]):
        with pytest.raises(LlmfleetError, match=r"port 80 on 0\.0\.0\.0 is taken by somebody"):
            job._check_addresses(Docker(Engine()), had)
