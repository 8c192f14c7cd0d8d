"""Handing a service over from unit to unit, and between container and unit: a failure leaves the old one running."""

from __future__ import annotations

import functools
import getpass
import json
from pathlib import Path

import llm_service
import pytest
from ansible.module_utils.llmfleet import lifecycle
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import vllm
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.handover import RolledBackError
from ansible.module_utils.llmfleet.rehearsal import RefusedError
from ansible.module_utils.llmfleet.rollout import Rollout
from ansible.module_utils.llmfleet.services import parse
from ansible.module_utils.llmfleet.spec import identity
from ansible.module_utils.llmfleet.timed_run import Answer
from ansible.module_utils.llmfleet.venv import environments, rollout, unit
from ansible.module_utils.llmfleet.venv.before import ContainerBefore, UnitBefore
from ansible.module_utils.llmfleet.venv.rehearsal import rehearse
from ansible.module_utils.llmfleet.venv.systemd import Systemd, UnitsAsContainers
from ansible.module_utils.llmfleet.venv.wanted import check_port
from ansible.module_utils.llmfleet.verify import Report
from ansible.module_utils.llmfleet.watch import NotReadyError
from ansible.module_utils.testing import patch_module_args

UNIT = "llmfleet-vllm-chat.service"
SERVICE = parse({"name": "chat", "engine": "vllm", "runtime": "venv", "model": "/m", "port": 8001})


class FakeSystemd(Systemd):
    """Runs what stands in unit files: the specification whose `argv` says `dies` never becomes ready."""

    def __init__(self, units: Path) -> None:
        super().__init__(lambda *_args, **_options: (0, "", ""))
        self.units, self.running, self.calls = units, None, []

    def attempt(self, *args):
        self.calls.append(args[0])
        file = self.units / UNIT
        if args[0] in ("restart", "start"):
            self.running = unit.stored(file.read_text())
        if args[0] == "stop" or "--now" in args:
            self.running = None
        return 0, "", ""

    def show(self, name):
        there = (self.units / name).exists()
        state = "active" if self.running else "inactive"
        return {"LoadState": "loaded" if there else "not-found", "ActiveState": state}


class NoContainer:
    there, spec = False, None

    def stop(self): ...
    def remove(self): ...


class Host:
    def __init__(self, tmp_path, monkeypatch, before=None):
        self.units, self.secrets = tmp_path / "system", tmp_path / "units" / "chat"
        self.units.mkdir()
        self.systemd = FakeSystemd(self.units)
        self.before = before or NoContainer()
        self.cache = tmp_path / "cache"
        monkeypatch.setattr(rollout, "wait_ready", self.wait_ready)
        monkeypatch.setattr(rollout, "rehearse", self.rehearse)

    def rehearse(self, spec, secrets, _engine):
        assert Path(secrets, "api_key").exists()
        if "refused" in spec["argv"]:
            raise RefusedError({"cause": "no such flag", "evidence": "x", "fix": "y"}, "usage")

    def wait_ready(self, _docker, spec, _endpoint, _verify):
        assert self.systemd.running == spec, "what is verified is what runs"
        if "dies" in spec["argv"]:
            raise NotReadyError({"cause": "it died", "evidence": "x", "fix": "y"}, "its log")
        return Report({"token": 0.1})

    def spec(self, *argv, key="k"):
        return {
            "name": "chat", "engine": "vllm", "served_name": "chat", "runtime": "venv", "venv": "/opt/v", "memory": "",
            "argv": list(argv), "env": {}, "writes": [str(self.cache)], "publish": "127.0.0.1:8001:8001",
            "user": getpass.getuser(), "salt": "s", "secrets": {"api_key": key},
        }  # fmt: skip

    def run(self, *argv, key="k"):
        """Bring the service to a unit with ``argv``; return (action, report)."""
        one = rollout.UnitRollout(self.systemd, SERVICE, str(self.secrets), self.before, str(self.units))
        wanted = self.spec(*argv, key=key)
        decision = lifecycle.decide("started", *one.look(), wanted)
        return decision.action, one.carry_out(decision.action, wanted, {"api_key": key})

    def end(self, state):
        one = rollout.UnitRollout(self.systemd, SERVICE, str(self.secrets), self.before, str(self.units))
        decision = lifecycle.decide(state, *one.look(), None)
        one.carry_out(decision.action, None, {})
        return decision.action

    def files(self):
        return sorted(path.name for path in self.units.iterdir())


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


def test_it_is_created_kept_changed_stopped_started_and_removed(host):
    assert host.run("one")[0] == "create"
    begun = list(host.systemd.calls)
    assert host.run("one")[0] == "keep"
    assert host.systemd.calls == begun, "what is kept is not touched"
    assert host.run("two")[0] == "replace"
    assert host.files() == [UNIT]
    assert host.systemd.running["argv"] == ["two"]
    assert len(list(host.secrets.iterdir())) == 1
    assert (host.end("stopped"), host.systemd.running) == ("stop", None)
    assert host.end("stopped") == "none"
    assert host.run("two")[0] == "start"
    assert host.end("absent") == "remove"
    assert (host.files(), host.secrets.exists()) == ([], False)
    assert host.end("absent") == "none"


def test_secrets_are_read_by_root_and_the_group_of_the_unit_alone(host):
    host.run("one", key="the-key")
    (folder,) = host.secrets.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o750
    assert (folder / "api_key").stat().st_mode & 0o777 == 0o440
    assert (folder / "api_key").read_text() == "the-key\n"
    assert str(folder) not in json.dumps(host.spec("one", key="the-key"))


def test_one_that_dies_leaves_the_previous_one_running(host):
    host.run("one")
    with pytest.raises(RolledBackError, match="The previous unit is back and verified") as error:
        host.run("dies", key="other")
    assert error.value.error.log == "its log"
    assert host.systemd.running["argv"] == ["one"]
    assert host.files() == [UNIT]
    assert [(folder / "api_key").read_text() for folder in host.secrets.iterdir()] == ["k\n"]
    assert host.run("one")[0] == "keep"


def test_one_whose_arguments_are_refused_does_not_touch_what_runs(host):
    with pytest.raises(NotReadyError, match="it died"):
        host.run("dies")
    host.run("one")
    begun = list(host.systemd.calls)
    with pytest.raises(RefusedError, match="What runs now serves on as before"):
        host.run("refused", key="other")
    assert host.systemd.calls == begun
    assert (len(list(host.secrets.iterdir())), host.files()) == (1, [UNIT])


def test_arguments_are_read_as_the_user_of_the_unit_in_its_environment(host):
    asked = []

    def run(argv, seconds):
        asked.append((argv, seconds))
        return Answer(2, "", "vllm: error: unrecognized arguments: --no-such-flag")

    spec = {**host.spec("/opt/v/bin/vllm", "serve", "/m", "--no-such-flag"), "env": {"PYTHONPATH": SECRETS_DIR}}
    with pytest.raises(RefusedError, match="--no-such-flag"):
        rehearse(spec, "/secrets", vllm, run)
    argv = asked[0][0]
    assert argv[:6] == ["runuser", "-u", getpass.getuser(), "--", "env", "-i"]
    assert argv[6:8] == ["PYTHONPATH=/secrets", "/opt/v/bin/python3"]
    assert argv[-3:] == ["serve", "/m", "--no-such-flag"]
    rehearse(spec, "/secrets", vllm, lambda *_args: Answer(1, "", "something nobody knows"))
    rehearse(spec, "/secrets", vllm, lambda *_args: Answer(0))


def test_a_first_one_that_dies_leaves_nothing(host):
    with pytest.raises(NotReadyError, match="it died"):
        host.run("dies")
    assert (host.files(), host.systemd.running) == ([], None)


@pytest.mark.parametrize(
    ("wanted", "action", "runs"), [("two", "finish", "two"), ("one", "restore", "one"), ("three", "replace", "three")]
)
def test_an_interrupted_run_is_finished_or_undone(host, wanted, action, runs):
    host.run("one")
    # as after a power cut between the two files
    (host.units / UNIT).rename(host.units / f"{UNIT}.previous")
    folder = host.secrets / identity(host.spec("two"))
    folder.mkdir()
    (folder / "api_key").write_text("k\n")
    (host.units / UNIT).write_text(unit.render(host.spec("two"), str(folder)))
    host.systemd.running = None
    assert host.run(wanted)[0] == action
    assert host.systemd.running["argv"] == [runs]
    assert host.files() == [UNIT]


def test_one_that_does_not_answer_is_started_again(host, monkeypatch):
    host.run("one")
    answers = iter([NotReadyError({"cause": "hangs", "evidence": "", "fix": ""}), Report()])

    def wait_ready(*_args):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(rollout, "wait_ready", wait_ready)
    host.systemd.calls.clear()
    assert host.run("one")[0] == "keep"
    assert "restart" in host.systemd.calls


class FakeContainer(NoContainer):
    there, spec, state = True, {"publish": "127.0.0.1:8001:8000"}, "running"

    def stop(self):
        self.state = "stopped"

    def remove(self):
        self.state = "removed"

    def restore(self):
        self.state = "running"
        return "The container is back and verified", Report()


def test_the_container_that_served_before_goes_only_when_the_unit_answers(tmp_path, monkeypatch):
    before = FakeContainer()
    host = Host(tmp_path, monkeypatch, before)
    with pytest.raises(RolledBackError, match="The container is back"):
        host.run("dies")
    assert (before.state, host.files()) == ("running", [])
    host.run("one")
    assert before.state == "removed"


def test_a_hand_over_from_a_container_that_was_interrupted_is_gone_on_with(tmp_path, monkeypatch):
    before = FakeContainer()
    host = Host(tmp_path, monkeypatch, before)
    host.run("one")
    # as after a power cut when the file of the unit was there and the container still ran
    before.state, host.systemd.running = "running", None
    assert host.run("one")[0] == "start"
    assert (before.state, host.systemd.running["argv"]) == ("removed", ["one"])


def test_the_container_comes_back_when_systemd_fails(tmp_path, monkeypatch):
    before = FakeContainer()
    host = Host(tmp_path, monkeypatch, before)
    attempt = host.systemd.attempt
    monkeypatch.setattr(
        host.systemd, "attempt", lambda *args: (1, "", "Access denied") if args[0] == "enable" else attempt(*args)
    )
    with pytest.raises(RolledBackError, match=r"systemctl enable: Access denied.*The container is back"):
        host.run("one")
    assert (before.state, host.files()) == ("running", [])


def test_a_host_without_docker_has_no_container_before(tmp_path):
    before = ContainerBefore(None, SERVICE, str(tmp_path))
    before.stop()
    before.remove()
    assert not before.there


def test_the_unit_that_served_before_makes_room_for_a_container(host):
    host.run("one")
    before = UnitBefore(host.systemd, "chat", str(host.secrets.parent), str(host.units))
    before.stop()
    assert host.systemd.running is None
    assert before.restore() == f"the unit {UNIT} runs"
    assert host.systemd.running["argv"] == ["one"]
    before.remove()
    assert (host.files(), host.systemd.running, host.secrets.exists()) == ([], None, False)
    begun = list(host.systemd.calls)
    none = UnitBefore(host.systemd, "chat", str(host.secrets.parent), str(host.units))
    none.stop()
    none.remove()
    assert (none.restore(), host.systemd.calls) == ("", begun), "nothing is asked of systemd without a unit"


@pytest.mark.parametrize("check", [True, False])
def test_an_absent_service_takes_its_unit_along_where_there_is_no_docker(host, monkeypatch, capsys, check):
    host.run("one")
    monkeypatch.setattr(llm_service, "Systemd", lambda _run: host.systemd)
    monkeypatch.setattr(llm_service, "UnitBefore", functools.partial(UnitBefore, units=str(host.units)))
    arguments = {
        "service": {"name": "chat", "state": "absent"},
        "docker_cli": "no-such-docker",
        "unit_directory": str(host.secrets.parent),
    }
    for changed in (True, check):
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            llm_service.main()
        result = json.loads(capsys.readouterr().out)
        assert (result["changed"], result["action"]) == (changed, "remove" if changed else "none")
    assert host.files() == ([UNIT] if check else [])
    assert (host.systemd.running is None) == (not check)


CONTAINER = {
    "name": "chat", "engine": "vllm", "image": "i", "argv": ["serve", "/m"], "env": {}, "mounts": {}, "memory": "",
    "user": "1", "publish": "127.0.0.1:8001:8000", "restart_policy": "no", "salt": "s", "secrets": {},
}  # fmt: skip


def to_container(host):
    """Return what hands the service over from the unit to a container, on a full disk."""

    def docker(argv, **_options):
        if argv[2] == "inspect":
            return 1, "", "No such container"
        return (0, "", "") if argv[1] in ("rename", "logs") else (1, "", "no space left on device")

    before = UnitBefore(host.systemd, "chat", str(host.secrets.parent), str(host.units))
    return Rollout(Docker(docker), SERVICE, str(host.cache), before)


@pytest.mark.parametrize("disk", ["full", "fine"])
def test_a_unit_serves_on_while_no_container_can_be_made(host, disk):
    host.run("one")
    made = to_container(host)
    if disk == "fine":
        made._create = lambda _spec: None
    with pytest.raises(NotReadyError):
        made.carry_out("create", CONTAINER, {})
    assert (host.systemd.running is None) == (disk == "fine"), "it makes room right before the new one starts"


def test_a_unit_serves_on_when_the_container_refuses_its_arguments(host, monkeypatch):
    host.run("one")
    made, called = to_container(host), len(host.systemd.calls)

    def refused(*_args):
        raise RefusedError({"cause": "no such flag", "evidence": "x", "fix": "y"}, "usage")

    monkeypatch.setattr("ansible.module_utils.llmfleet.rollout.rehearse", refused)
    with pytest.raises(RefusedError, match="What runs now serves on as before"):
        made.carry_out("create", CONTAINER, {})
    assert (len(host.systemd.calls), made.instead) == (called, {"changed": False})


def test_a_port_that_others_hold_is_refused_and_that_of_the_one_before_is_not(host, monkeypatch):
    monkeypatch.setattr("ansible.module_utils.llmfleet.venv.wanted.who_listens", lambda *_args: "another program")
    view = UnitsAsContainers(host.systemd)
    check_port(SERVICE, host.spec("one"), (None, {"publish": "127.0.0.1:8001:8000"}), view)
    with pytest.raises(LlmfleetError, match=r"port 8001 on 127\.0\.0\.1 is taken by another program"):
        check_port(SERVICE, host.spec("one"), (None, {"publish": "127.0.0.1:9000:8000"}), view)


def test_environments_that_no_unit_runs_from_go(tmp_path, host):
    root = tmp_path / "opt"
    whole = [root / f"vllm-cpu-{digit * 12}" for digit in "abc"]
    for path in (*whole, root / "somebody-else"):
        path.mkdir(parents=True)
        environments.finish(path, {"version": "1"})
    made = {**host.spec("one"), "venv": str(whole[0])}
    (host.units / UNIT).write_text(unit.render(made, "/secrets"))
    (host.units / f"{UNIT}.previous").write_text(unit.render({**made, "venv": str(whole[1])}, "/secrets"))
    assert environments.used_by(host.units) == {str(whole[0]): ["chat"], str(whole[1]): ["chat"]}
    assert environments.unused(root, host.units) == [whole[2]]
    assert environments.unused(root, host.units, str(whole[2])) == []
    environments.discard(whole[2])
    assert not whole[2].exists()
    assert environments.is_whole(whole[0])
