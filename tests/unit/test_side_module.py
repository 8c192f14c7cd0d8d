"""The module side_container where no docker is needed: a bare host, and what is left of a helper."""

from __future__ import annotations

import json

import pytest
import side_container
from ansible.module_utils.testing import patch_module_args


def run(capsys, tmp_path, check=False, **fields):
    asked = {"name": "proxy", "directory": str(tmp_path / "side"), "docker_cli": "/no/docker", **fields}
    with patch_module_args({**asked, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        side_container.main()
    return json.loads(capsys.readouterr().out)


def test_what_an_interruption_left_goes_with_the_rest(capsys, tmp_path):
    home = tmp_path / "side" / "proxy"
    (home / "files.aside").mkdir(parents=True)
    (home / "file.part").write_text("a secret")
    assert run(capsys, tmp_path, state="absent")["changed"] is True
    assert not home.exists()


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
