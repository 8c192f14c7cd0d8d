"""The module llm_gateway_certificate, with a docker that prints a certificate."""

from __future__ import annotations

import json

import llm_gateway_certificate
import pytest
from ansible.module_utils.testing import patch_module_args
from test_gateway_certificate import PEM


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/asked\ncat <<'E'\n{PEM}E\n")
    docker.chmod(0o755)
    monkeypatch.setattr(llm_gateway_certificate, "lan_address", lambda *_: "10.0.0.9")
    monkeypatch.setattr(llm_gateway_certificate.socket, "gethostname", lambda: "node-1")

    def call(*, check=False, **arguments):
        given = {"directory": str(tmp_path / "made"), "image": "gateway:1", "docker_cli": str(docker), **arguments}
        with patch_module_args({**given, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            llm_gateway_certificate.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


def test_it_is_made_once(run, tmp_path):
    foreseen = run(check=True)
    assert (foreseen["changed"], foreseen["action"], foreseen["certificate"]) == (True, "make", "")
    assert not (tmp_path / "made").exists()
    made = run(names=["llm.example.org"], also=["no name"])
    assert (made["changed"], made["address"]) == (True, "10.0.0.9")
    assert made["names"] == ["llm.example.org", "node-1", "localhost", "127.0.0.1", "::1", "10.0.0.9"]
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "made").iterdir()} == {
        "private_key.pem": 0o600,
        "certificate.pem": 0o644,
        "certificate.json": 0o644,
    }
    again = run(names=["llm.example.org"])
    assert (again["changed"], again["action"]) == (False, "keep")
    assert again["private_key"] == made["private_key"]
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    # the private key is printed
    assert "--log-driver none" in asked
    assert run(names=["other.example.org"])["why"] == "it is not for other.example.org"


def test_one_that_is_given(run, tmp_path):
    (tmp_path / "c.pem").write_text(PEM)
    files = {"certificate_file": str(tmp_path / "c.pem"), "private_key_file": str(tmp_path / "c.pem")}
    found = run(**files)
    assert (found["changed"], found["action"], found["certificate"]) == (False, "given", PEM)
    assert run(certificate_file=files["certificate_file"])["msg"].startswith("a certificate needs its private key")
    assert run(**{**files, "private_key_file": "/nonexistent"})["msg"] == (
        "/nonexistent on this host is no readable PEM file; give the path of one"
    )


def test_what_is_refused(run):
    assert "neither a host name" in run(names=["bad name"])["msg"]
    assert run(image="")["msg"] == "`image` is needed to make a certificate"
