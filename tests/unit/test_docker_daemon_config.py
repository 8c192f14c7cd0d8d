"""The module as Ansible runs it: a process of its own, with real files, a fake docker and fake daemons."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import docker_daemon_config
import pytest
from ansible.module_utils.llmfleet.daemon_keys import Action
from ansible.module_utils.testing import patch_module_args

RUNNER = Path(__file__).resolve().parents[1] / "run_module.py"
MIRROR = {"docker_engine": {"registry-mirrors": ["https://m.test"]}}
FOREIGN = '{\n  "data-root": "/data",\n  "labels": ["größe=1"]\n}\n'
# as dockerd 26.1 says it
REFUSES = """case "$*" in
*--help*) echo '      --validate      Validate daemon configuration and exit' ;;
*--version*) echo 'Docker version 26.1.5+dfsg1, build a72d7cd' ;;
*--validate*) echo "$3" >> ROOT/validated; cp "$3" ROOT/seen.json
  grep -q made-up "$3" || { echo 'configuration OK'; exit 0; }
  echo "unable to configure the Docker daemon with file $3: invalid made-up thing" >&2; exit 1 ;;
esac"""
OLD = "case \"$*\" in *--version*) echo 'Docker version 20.10.24+dfsg1, build 5d6db84' ;; esac"


class Host:
    """A directory with daemon.json, the record, a client and a daemon."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "etc/daemon.json"
        self.record_file = root / "lib/docker_daemon.json"
        self.script("docker", "echo 26.1.5")
        self.script("dockerd", REFUSES.replace("ROOT", str(root)))

    def script(self, name: str, text: str) -> None:
        path = self.root / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def holds(self, text: str) -> None:
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(text, encoding="utf-8")

    def run(self, contributions: object = None, check: bool = False, **more: object) -> dict[str, t.Any]:
        arguments = {
            "contributions": MIRROR if contributions is None else contributions,
            "path": str(self.file),
            "record_path": str(self.record_file),
            "dockerd": str(self.root / "dockerd"),
            "cli": str(self.root / "docker"),
            "flags": {},
            **more,
        }
        command = [
            sys.executable,
            str(RUNNER),
            "docker_daemon_config",
            json.dumps(arguments),
            *["--check"][: int(check)],
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, umask=0o077)
        assert done.stdout, done.stderr
        result: dict[str, t.Any] = json.loads(done.stdout)
        return result

    @property
    def config(self) -> t.Any:
        return json.loads(self.file.read_text(encoding="utf-8"))

    @property
    def record(self) -> dict[str, t.Any]:
        found: dict[str, t.Any] = json.loads(self.record_file.read_text())
        return found

    def pending(self) -> dict[str, t.Any]:
        """What is pending, but for the daemon that runs on the machine of these tests."""
        return {key: item for key, item in self.record["pending"].items() if key != "daemon"}

    def applied(self) -> None:
        """What docker_daemon_apply does in the end."""
        self.record_file.write_text(json.dumps({key: item for key, item in self.record.items() if key != "pending"}))

    def everything(self) -> dict[str, bytes]:
        """Every file but the fake daemon's notes."""
        files = (path for path in self.root.rglob("*") if path.is_file() and path.parent != self.root)
        return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_made_and_removed_again(host):
    made = host.run()
    assert (made["changed"], made["action"], made["backup_file"]) == (True, "reload", "")
    assert host.file.read_text() == '{\n    "registry-mirrors": [\n        "https://m.test"\n    ]\n}\n'
    assert (mode(host.file), mode(host.file.parent), mode(host.record_file)) == (0o644, 0o755, 0o600)
    assert made["diff"]["before"] == ""
    assert made["diff"]["after"] == host.file.read_text()
    assert host.pending() == {
        "action": "reload",
        "backup_file": "",
        "created": True,
        "empty_first": {},
        "record_before": {},
    }
    host.applied()
    gone = host.run({"docker_engine": {}})
    assert (gone["changed"], gone["action"], gone["empty_first"]) == (True, "reload", {"registry-mirrors": []})
    assert not host.file.exists()
    assert gone["diff"]["after"] == ""
    assert gone["diff"]["after_header"].endswith("(removed)")
    assert set(host.record) == {"pending"}
    assert Path(gone["backup_file"]).read_text() == made["diff"]["after"]


def test_a_users_file_keeps_its_look_mode_and_content(host):
    host.holds(FOREIGN)
    host.file.chmod(0o640)
    result = host.run()
    assert host.file.read_text(encoding="utf-8") == (
        '{\n  "data-root": "/data",\n  "labels": [\n    "größe=1"\n  ],\n'
        '  "registry-mirrors": [\n    "https://m.test"\n  ]\n}\n'
    )
    assert mode(host.file) == 0o640
    assert result["changes"] == ['registry-mirrors: ["https://m.test"] (docker_engine)']
    backup = Path(result["backup_file"])
    assert (backup.parent, backup.read_text(encoding="utf-8")) == (host.file.parent, FOREIGN)
    host.applied()
    host.run({"docker_engine": {}})
    assert host.config == json.loads(FOREIGN), "the user's file is not removed"


def test_the_second_run_changes_nothing_and_still_says_what_is_pending(host):
    host.run()
    before = host.everything()
    again = host.run()
    assert (again["changed"], again["action"], "diff" in again) == (False, "reload", False)
    assert host.everything() == before
    host.applied()
    assert host.run()["action"] == "none"


def test_an_earlier_change_joins_the_next_one(host):
    host.holds(FOREIGN)
    first = host.run({"one": {"debug": True}, "two": {"live-restore": True}})
    second = host.run({"one": {"log-driver": "local"}})
    assert (first["action"], second["action"]) == ("reload", "restart")
    assert second["empty_first"] == {}, "a restart starts from the file alone"
    pending = host.record["pending"]
    assert pending["backup_file"] == first["backup_file"] != second["backup_file"]
    host.applied()
    reload = host.run({"two": {}})
    assert reload["empty_first"] == {"live-restore": False}
    both = host.run({"two": {"shutdown-timeout": 20}})
    assert (both["action"], both["empty_first"]) == ("reload", {"live-restore": False})
    back = host.run({"two": {"live-restore": True}})
    assert back["empty_first"] == {"shutdown-timeout": 15}, "a key that is there needs no emptying"


@pytest.mark.parametrize("text", ["{", '{"debug": true, "debug": false}', "[]"])
def test_a_broken_file_is_never_written(host, text):
    host.holds(text)
    before = host.everything()
    result = host.run()
    assert result["failed"]
    assert result["msg"].startswith(f"{host.file}, line 1, column ")
    assert result["msg"].endswith("correct it by hand, it was not touched")
    assert host.everything() == before


def test_a_file_that_is_not_text(host):
    host.holds("")
    host.file.write_bytes('{"a": 1}'.encode("utf-16"))
    assert "is not UTF-8 text" in host.run()["msg"]


def test_dockerd_judges_the_new_file_in_its_folder(host):
    host.holds(FOREIGN)
    assert host.run()["changed"] is True
    assert json.loads((host.root / "seen.json").read_text()) == host.config
    tried = Path((host.root / "validated").read_text().strip())
    assert tried.parent == host.file.parent
    assert not tried.exists()
    before = host.everything()
    refused = host.run({"docker_engine": {"storage-driver": "made-up"}})
    assert refused["failed"]
    assert refused["msg"] == (
        f"{host.file} would stop the docker engine from starting: dockerd says: unable to configure the Docker daemon "
        f"with file {host.file}: invalid made-up thing; nothing was written"
    )
    assert host.everything() == before


def test_dockerd_may_know_a_key_that_the_table_does_not(host):
    assert host.run({"docker_engine": {"brand-new": True}})["action"] == "restart"


def test_an_old_dockerd_is_replaced_by_the_table(host):
    host.script("dockerd", OLD)
    host.script("docker", "echo 20.10.24+dfsg1")
    result = host.run({"docker_engine": {"registry-mirror": ["https://m.test"], "proxies": {"no-proxy": "x"}}})
    assert result["msg"] == (
        f"{host.file} would stop the docker engine from starting: `registry-mirror` is not a key that docker 20.10 "
        "reads; write `registry-mirrors`; `proxies` needs docker 23.0, the engine is 20.10; remove it or upgrade the "
        "engine; nothing was written"
    )
    assert not host.file.exists()
    assert host.run()["action"] == "reload"


def test_an_engine_that_is_yet_to_come(host):
    (host.root / "dockerd").unlink()
    (host.root / "docker").unlink()
    host.file = host.root / "new/etc/docker/daemon.json"
    bad = host.run({"docker_engine": {"graph": "/data"}}, engine_version="5:26.1.5-1~debian.12~bookworm")
    assert "docker 26.1 no longer reads `graph`; write `data-root`" in bad["msg"]
    assert host.run(engine_version="5:26.1.5-1~debian.12~bookworm")["changed"] is True
    assert mode(host.file.parent) == 0o755


def test_nothing_waits_for_an_engine_that_does_not_run(host, capsys, monkeypatch):
    host.script("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    monkeypatch.setattr(docker_daemon_config.daemon_look, "daemon_pid", lambda: 0)
    arguments = {
        "contributions": {"docker_engine": {"data-root": "/data"}},
        "path": str(host.file),
        "record_path": str(host.record_file),
        "dockerd": str(host.root / "dockerd"),
        "cli": str(host.root / "docker"),
        "flags": {},
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        docker_daemon_config.main()
    assert json.loads(capsys.readouterr().out)["action"] == "none"
    assert "pending" not in host.record
    monkeypatch.setattr(docker_daemon_config.daemon_look, "daemon_pid", lambda: 1)
    with patch_module_args({**arguments, "contributions": {"docker_engine": {}}}), pytest.raises(SystemExit):
        docker_daemon_config.main()
    assert json.loads(capsys.readouterr().out)["action"] == "restart", "it runs, though it does not answer"


def test_flags_of_the_daemon_are_looked_at(host):
    clash = host.run(flags={"registry-mirrors": "--registry-mirror=https://x (/etc/systemd/system/docker.service)"})
    assert "`registry-mirrors` is set in" in clash["msg"]
    assert "(/etc/systemd/system/docker.service)" in clash["msg"]
    assert not host.file.exists()
    assert host.run(flags=None)["changed"] is True


def test_check_mode_writes_nothing(host):
    host.holds(FOREIGN)
    before = host.everything()
    result = host.run(check=True)
    assert host.everything() == before
    assert (result["changed"], result["action"], result["backup_file"]) == (True, "reload", "")
    assert "https://m.test" in result["diff"]["after"]
    (host.root / "dockerd").unlink()
    absent = host.root / "none/daemon.json"
    assert host.run(check=True, path=str(absent))["changed"] is True
    assert not absent.parent.exists()
    assert "registry-mirror" in host.run({"x": {"registry-mirror": []}}, check=True)["msg"]


@pytest.mark.parametrize("password", ["hidden", "p@hidden", "p'hidden"])
def test_passwords_of_proxies_are_not_shown(host, password):
    proxies = {"docker_engine": {"proxies": {"http-proxy": f"http://me:{password}@proxy.test:3128"}}}
    made = host.run(proxies)
    assert "hidden" not in json.dumps(made)
    assert "http://********@proxy.test:3128" in made["diff"]["after"]
    assert host.config["proxies"]["http-proxy"] == f"http://me:{password}@proxy.test:3128"
    changed = host.run({"docker_engine": {"proxies": {"http-proxy": "http://proxy.test"}}})
    assert "hidden" not in json.dumps(changed)
    bad = host.run({"docker_engine": {"http-proxy": f"http://me:{password}@made-up"}})
    assert bad["failed"]
    assert "hidden" not in json.dumps(bad)


def test_a_link_is_followed(host):
    real = host.root / "real.json"
    real.write_text(FOREIGN, encoding="utf-8")
    host.file.parent.mkdir()
    host.file.symlink_to(real)
    assert host.run()["changed"] is True
    assert host.file.is_symlink()
    assert json.loads(real.read_text())["registry-mirrors"] == ["https://m.test"]
    host.file.unlink()
    host.record_file.unlink()
    host.file.symlink_to(host.root / "not/yet.json")
    assert host.run()["changed"] is True
    assert (host.root / "not/yet.json").is_file()


def test_a_folder_that_cannot_be_written(host):
    (host.root / "etc").write_text("a file where the folder should be")
    result = host.run()
    assert result["msg"].startswith(f"{host.file} cannot be read: Not a directory")
    result = host.run(path="/proc/daemon.json")
    assert result["failed"]
    assert result["msg"].startswith("/proc/daemon.json was not changed: /proc/.llmfleet-")
    assert not host.record_file.exists()


def immutable(*_: object) -> t.NoReturn:
    """Fail as atomic_move does on a file that is immutable or a mount of its own."""
    raise Exception("Unable to make 'a' into to 'b'") from OSError(1, "Operation not permitted")


def full(*_: object) -> t.NoReturn:
    raise OSError(28, os.strerror(28), "/etc/docker")


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (full, "No space left on device"),
        (immutable, "daemon.json cannot be replaced: Operation not permitted; see whether"),
    ],
)
def test_a_write_that_fails_takes_the_record_back(host, monkeypatch, capsys, fails, said):
    host.holds(FOREIGN)
    host.run({"docker_engine": {"debug": True}})
    before = host.everything()

    monkeypatch.setattr(docker_daemon_config.AnsibleModule, "atomic_move", fails)
    arguments = {"contributions": MIRROR, "path": str(host.file), "record_path": str(host.record_file), "flags": {}}
    fakes = {"dockerd": str(host.root / "dockerd"), "cli": str(host.root / "docker")}
    with patch_module_args({**arguments, **fakes}), pytest.raises(SystemExit):
        docker_daemon_config.main()
    assert said in json.loads(capsys.readouterr().out)["msg"]
    assert host.file.read_bytes() == before[str(host.file)]
    assert host.record_file.read_bytes() == before[str(host.record_file)]
    assert not list(host.file.parent.glob(".llmfleet-*"))


def test_a_run_that_ended_between_record_and_file(host):
    host.holds(FOREIGN)
    host.run()
    host.file.write_text(FOREIGN, encoding="utf-8")  # the record is there, the file is not
    again = host.run()
    assert (again["changed"], again["action"]) == (True, "reload")
    host.applied()
    host.run({"docker_engine": {}})
    assert host.config == json.loads(FOREIGN)


def test_a_record_that_was_lost(host):
    host.run()
    host.record_file.unlink()
    assert host.run()["changed"] is False
    gone = host.run({"docker_engine": {}})
    assert gone["changed"] is False, "what cannot be told from the user's own is kept"
    assert host.config == MIRROR["docker_engine"]


def test_a_broken_record_is_named(host):
    host.run()
    host.record_file.write_text("{")
    assert host.run()["msg"].startswith(f"{host.record_file}, line 1, column 2: broken JSON")
    host.record_file.write_bytes(b"\xff")
    assert host.run()["msg"].startswith(f"{host.record_file}, line 1, column 1: broken JSON")


def test_a_reload_that_was_interrupted_is_not_taken_for_the_users_file(host):
    host.holds('{\n    "debug": true\n}\n')
    final, interim = host.file.read_text(), '{\n    "debug": true,\n    "labels": []\n}\n'
    host.record_file.parent.mkdir()
    swap = {"interim": interim, "final": final}
    pending = {"action": "reload", "backup_file": "/b", "created": False, "empty_first": {"labels": []}, "swap": swap}
    host.record_file.write_text(json.dumps({"pending": pending}))
    host.file.write_text(interim)
    assert host.run({"docker_engine": {}})["changed"] is False
    assert host.run()["changed"] is True
    assert list(host.config) == ["debug", "registry-mirrors"]
    left = {key: item for key, item in pending.items() if key != "swap"}
    assert host.pending() == left


def test_contributions_must_be_mappings(host):
    assert host.run({"docker_engine": ["debug"]})["msg"] == (
        "`contributions.docker_engine` must be a mapping of daemon.json's keys, not ['debug']"
    )


@pytest.mark.parametrize("kind", ["none", "reload"])
def test_what_a_run_that_ended_noted_is_kept(kind):
    earlier = {"action": "restart", "backup_file": "/b", "created": False, "empty_first": {}, "containers": [{"id": 1}]}
    found = docker_daemon_config.pending({"pending": earlier}, Action(kind), {}, "/later")
    assert found == earlier


def test_the_record_before_the_first_change_is_kept_for_the_way_back(host):
    host.run()
    host.applied()
    before = host.record
    host.run({"docker_engine": {}})
    assert host.record["pending"]["record_before"] == before
    host.run({"docker_engine": {"debug": True}})
    assert host.record["pending"]["record_before"] == before, "a second change goes back to the same start"


def test_what_waits_names_the_daemon_that_has_not_read_the_file(host, monkeypatch, capsys):
    marks = {"now": "first"}
    monkeypatch.setattr(docker_daemon_config.daemon_look, "daemon_mark", lambda: marks["now"])
    fixed = {"path": str(host.file), "record_path": str(host.record_file), "flags": {}}
    fakes = {"dockerd": str(host.root / "dockerd"), "cli": str(host.root / "docker")}

    def run(options: dict[str, t.Any]) -> t.Any:
        with patch_module_args({**fixed, **fakes, "contributions": {"x": options}}), pytest.raises(SystemExit):
            docker_daemon_config.main()
        return json.loads(capsys.readouterr().out)

    assert run({"log-driver": "local"})["action"] == "restart"
    assert host.record["pending"]["daemon"] == "first"
    assert run({"log-driver": "local"})["action"] == "restart", "the same daemon still runs"
    marks["now"] = "second"
    assert run({"log-driver": "local"})["action"] == "none", "somebody restarted it"
    later = run({"log-driver": "local", "debug": True})
    assert (later["action"], host.record["pending"]["backup_file"]) == ("reload", later["backup_file"])
