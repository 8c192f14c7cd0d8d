"""Helper containers: what is refused, what docker is told, and how files go forward and back."""

from __future__ import annotations

import json
import os
import stat
import typing as t

import pytest
import side_container
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.handover import RolledBackError
from ansible.module_utils.llmfleet.lifecycle import Seen
from ansible.module_utils.llmfleet.side import health as side_health
from ansible.module_utils.llmfleet.side import job as side_job
from ansible.module_utils.llmfleet.side import parts
from ansible.module_utils.llmfleet.side import spec as side_spec
from ansible.module_utils.llmfleet.side.files import FileKeeper, read
from ansible.module_utils.llmfleet.side.keeper import SideKeeper, decide_side
from ansible.module_utils.llmfleet.watch import NotReadyError
from ansible.module_utils.testing import patch_module_args

HOME = "/srv/side/proxy"
OWN = (os.getuid(), os.getgid())


def given(**fields: t.Any) -> dict[str, t.Any]:
    """What a module's parameters are once Ansible has filled in the defaults."""
    spec = side_container.ARGUMENT_SPEC
    filled = {name: row.get("default") for name, row in spec.items()}
    rows = [{"mode": "0440", **row} for row in fields.pop("files", [])]
    asked = fields.pop("health", {})
    health = {name: row.get("default") for name, row in spec["health"]["options"].items()}
    return {**filled, "name": "proxy", "image": "i:1", "files": rows, "health": {**health, **asked}, **fields}


def side(**fields: t.Any) -> parts.Side:
    return parts.parse(given(**fields), HOME)


def file(content: str = "x", mode: int = 0o440) -> parts.File:
    return parts.File(content.encode(), mode)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "Proxy"}, "no name of a container"),
        ({"name": "a.next"}, "no name of a container"),
        ({"image": ""}, "`image` is needed"),
        ({"files": [{"path": "a", "content": "x"}]}, "`files_target`"),
        ({"user": "nobody"}, "not of the form uid:gid"),
        ({"network": "host", "publish": ["127.0.0.1:1:1"]}, "listens on the host itself"),
        ({"reload_signal": "--all"}, "no name of a signal"),
        ({"publish": ["80:80"]}, "not an address and a port"),
        ({"listens": ["localhost:80"]}, "not an address and a port"),
        ({"files_target": "/f", "files": [{"path": "../a", "content": "x"}]}, "not a relative path"),
        ({"files_target": "/f", "files": [{"path": "/a", "content": "x"}]}, "not a relative path"),
        ({"files_target": "/f", "files": [{"path": "a", "content": "x", "mode": "rw"}]}, "mode 'rw' of a"),
        ({"files_target": "/f", "files": [{"path": "a", "content": "x"}] * 2}, "named twice"),
        ({"volumes": [{"source": "data", "target": "/d"}]}, "not absolute"),
        ({"volumes": [{"source": "/", "target": "/d"}]}, "not absolute"),
        ({"volumes": [{"source": "/srv/../etc", "target": "/d"}]}, "not absolute"),
        ({"volumes": [{"source": "/srv/side", "target": "/d"}]}, "would hold what this module keeps"),
        ({"volumes": [{"source": f"{HOME}/files/a", "target": "/d"}]}, "would hold what this module keeps"),
        ({"health": {"url": "unix:/x"}}, "no http or https URL"),
    ],
)
def test_what_cannot_be_is_refused_by_one_sentence(fields, words):
    with pytest.raises(BadInput) as error:
        side(**fields)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_going_needs_nothing_but_a_name():
    assert parts.parse(given(state="absent", image="", user="nobody"), HOME).name == "proxy"
    with pytest.raises(BadInput):
        parts.parse(given(state="absent", name="../etc"), HOME)


def test_docker_is_told_to_confine_it():
    asked = side(
        argv=["-c", "/f/a"],
        entrypoint="nginx",
        env={"B": 1, "A": "x y"},
        files=[{"path": "a", "content": "a secret"}],
        files_target="/f",
        volumes=[{"source": f"{HOME}/data", "target": "/d"}],
        publish=["[::1]:8080:80"],
        caps=["NET_BIND_SERVICE"],
        memory="64m",
    )
    assert asked.listens == (("::1", 8080),)
    spec = side_spec.build(asked, "sha256:1")
    assert "a secret" not in json.dumps(spec)
    argv = side_spec.create_argv(spec, "proxy.next", f"{HOME}/files")
    text = " ".join(argv)
    for words in (
        "--user 10001:10001",
        "--network bridge",
        "--cap-drop ALL --security-opt no-new-privileges",
        "--read-only",
        "--cap-add NET_BIND_SERVICE",
        "--memory 64m --memory-swap 64m",
        "--publish [::1]:8080:80",
        "--env A=x y --env B=1",
        f"--mount type=bind,src={HOME}/data,dst=/d ",
        f"--mount type=bind,src={HOME}/files,dst=/f,readonly",
        "--entrypoint nginx",
    ):
        assert words in text
    assert argv[-3:] == ["i:1", "-c", "/f/a"]
    looked = side_spec.check_argv(spec, "proxy.check", ["nginx", "-t"], "/new")
    assert looked[:6] == ["run", "--rm", "--name", "proxy.check", "--pull", "never"]
    assert f"type=bind,src={HOME}/data,dst=/d,readonly" in looked
    assert "type=bind,src=/new,dst=/f,readonly" in looked
    assert "--publish" not in looked
    assert looked[-4:] == ["--entrypoint", "nginx", "i:1", "-t"]
    assert "--read-only" not in side_spec.create_argv(side_spec.build(side(read_only=False), ""), "x", "")


def test_only_files_that_differ_make_no_new_container():
    spec = side_spec.build(side(), "sha256:1")
    alive, dead = Seen(spec, "running"), Seen(spec, "exited")

    def action(current, files, wanted=spec, previous=None, state="started", had=(), **fields):
        found = decide_side(side(**fields), state, current, previous, wanted, files, had)
        return found.action

    assert action(alive, "") == "keep"
    assert action(alive, "files: a", reload_signal="HUP") == "reload"
    assert action(alive, "files: a") == "restart"
    assert action(alive, "files: a", reload_signal="HUP", listens=["127.0.0.1:80"], had=["127.0.0.1 80"]) == "reload"
    assert action(alive, "files: a", reload_signal="HUP", listens=["127.0.0.1:81"], had=["127.0.0.1 80"]) == "reload"
    # it would be in its own way
    assert action(alive, "files: a", reload_signal="HUP", listens=["0.0.0.0:80"], had=["127.0.0.1 80"]) == "restart"
    assert action(dead, "files: a", reload_signal="HUP") == "start"
    assert action(None, "files: a") == "create"
    other = side_spec.build(side(memory="1g"), "sha256:1")
    assert action(alive, "files: a", wanted=other, reload_signal="HUP") == "replace"
    assert action(None, "", previous=alive) == "restore"
    assert action(alive, "files: a", state="absent", wanted=None) == "remove"


def test_files_go_forward_are_accepted_and_go_back(tmp_path):
    home = tmp_path / "proxy"
    first = {"a.conf": file("one"), "sub/b": file("two", 0o400)}
    keeper = FileKeeper(home, first, OWN)
    assert keeper.why() == "files: a.conf, sub/b"
    keeper.forward()
    assert not (home / "files.previous").exists()
    keeper.accept(["127.0.0.1 1"])
    assert read(home / "files") == first
    assert stat.S_IMODE((home / "record.json").stat().st_mode) == 0o600
    assert "one" not in (home / "record.json").read_text()

    same = FileKeeper(home, first, OWN)
    assert same.proven
    assert same.why() == ""
    assert same.known["listens"] == ["127.0.0.1 1"]

    folder = (home / "files").stat().st_ino
    second = {"a.conf": file("three"), "c": file("")}
    keeper = FileKeeper(home, second, OWN)
    assert keeper.why() == "files: a.conf, c, sub/b"
    keeper.forward()
    # a running container has this very folder
    assert (home / "files").stat().st_ino == folder
    assert read(home / "files") == second
    assert keeper.back() is True
    assert read(home / "files") == first
    assert keeper.back() is False
    keeper.accept([])
    assert FileKeeper(home, first, OWN).proven


def test_a_change_that_nobody_accepted_is_told_and_does_not_become_the_way_back(tmp_path):
    first, second, third = ({"a": file(text)} for text in ("1", "2", "3"))
    keeper = FileKeeper(tmp_path, first, OWN)
    keeper.forward()
    keeper.accept([])
    FileKeeper(tmp_path, second, OWN).forward()
    assert FileKeeper(tmp_path, second, OWN).why() == "files: a former change was not verified"
    keeper = FileKeeper(tmp_path, third, OWN)
    keeper.forward()
    keeper.back()
    assert read(tmp_path / "files") == first


def test_a_file_that_somebody_edited_or_whose_mode_changed_differs(tmp_path):
    keeper = FileKeeper(tmp_path, {"a": file("1")}, OWN)
    keeper.forward()
    keeper.accept([])
    assert FileKeeper(tmp_path, {"a": file("1", 0o400)}, OWN).differs == ["a"]
    (tmp_path / "files" / "a").chmod(0o600)
    (tmp_path / "files" / "a").write_text("edited")
    keeper = FileKeeper(tmp_path, {"a": file("1")}, OWN)
    assert keeper.differs == ["a"]
    keeper.forward()
    assert read(tmp_path / "files") == {"a": file("1")}
    (tmp_path / "record.json").write_text("[]")
    assert FileKeeper(tmp_path, {"a": file("1")}, OWN).why() == "files: a former change was not verified"


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


def test_what_an_interruption_left_goes_with_the_rest(capsys, tmp_path):
    home = tmp_path / "side" / "proxy"
    (home / "files.aside").mkdir(parents=True)
    (home / "file.part").write_text("a secret")
    assert run(capsys, tmp_path, state="absent")["changed"] is True
    assert not home.exists()


def run(capsys, tmp_path, check=False, **fields):
    asked = {"name": "proxy", "directory": str(tmp_path / "side"), "docker_cli": "/no/docker", **fields}
    with patch_module_args({**asked, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        side_container.main()
    return json.loads(capsys.readouterr().out)


def test_a_host_without_docker(capsys, tmp_path):
    assert "no docker client" in run(capsys, tmp_path, image="i:1")["msg"]
    assert run(capsys, tmp_path, image="i:1", check=True)["action"] == "create"
    assert run(capsys, tmp_path, state="absent")["changed"] is False
    (tmp_path / "side" / "proxy" / "data").mkdir(parents=True)
    (tmp_path / "side" / "proxy" / "record.json").write_text("{}")
    assert run(capsys, tmp_path, state="absent", check=True)["changed"] is True
    assert run(capsys, tmp_path, state="absent")["changed"] is True
    assert (tmp_path / "side" / "proxy" / "data").exists()
    assert run(capsys, tmp_path, state="absent", purge=True)["changed"] is True
    assert not (tmp_path / "side" / "proxy").exists()
