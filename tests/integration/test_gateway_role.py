"""The role llm_gateway by a real ansible-playbook: made, left alone, changed without a restart, refused, removed."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import typing as t
import urllib.request
from pathlib import Path

import pytest
import yaml
from gateway_lab import ALICE, BOB, ROOT, Backend
from helpers import docker, free_port

NAME = "test-gateway-role"


class Site:
    """An inventory with one host that has a service and the gateway, and runs of playbooks on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backend = Backend()
        self.port, self.local_port = free_port(), free_port()
        self.services = [
            {"name": "chat", "model": "tiny", "port": self.backend.port, "api_key": "engine-key-0123456789"},
            {"name": "second", "model": "tiny", "port": free_port()},
        ]

    def run(self, *options: str, playbook: str = "playbooks/gateway.yml", **said: t.Any) -> tuple[int, str, int]:
        """Return (exit status, output, changed)."""
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "llm_services": self.services,
            "llm_gateway_keys": [{"name": "alice", "key": ALICE}],
            "llm_gateway_port": self.port,
            "llm_gateway_local_port": self.local_port,
            "llm_gateway_bind": "127.0.0.1",
            "llm_gateway_container": NAME,
            "llm_gateway_directory": str(self.folder / "side"),
            "llm_gateway_image_source": "build",
            "llm_gateway_names": ["llm.example.org"],
            **said,
        }
        hosts = {"gateway-1": {**variables, "ansible_host": "192.0.2.7"}}
        inventory = {"llm_hosts": {"hosts": hosts}, "llm_gateway": {"hosts": {"gateway-1": {}}}}
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump(inventory))
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [program, playbook, "-i", str(path), *options],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said_all = done.stdout + done.stderr
        return done.returncode, said_all, sum(map(int, re.findall(r"changed=(\d+)", said_all)))

    def status(self, key: str, path: str = "/v1/chat/completions", port: int = 0) -> int:
        certificate = self.folder / "side" / f"{NAME}-certificate" / "certificate.pem"
        context = ssl.create_default_context(cafile=str(certificate))
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        url = f"https://127.0.0.1:{port or self.port}{path}"
        data = None if path == "/v1/models" else b'{"model": "chat"}'
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, data, headers), context=context, timeout=10
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Site]:
    folder = tmp_path_factory.mktemp("gateway-role")
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    made = Site(folder)
    for name in (NAME, f"{NAME}.previous", f"{NAME}.next"):
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
    yield made
    for name in (NAME, f"{NAME}.previous", f"{NAME}.next"):
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
    made.backend.close()


def container() -> tuple[str, str]:
    found = json.loads(docker("container", "inspect", NAME))[0]
    return found["Id"], found["State"]["StartedAt"]


def test_what_cannot_work_is_refused_before_anything_changes(site):
    rc, out, changed = site.run(llm_gateway_keys=[{"name": "alice", "key": "too-short"}])
    assert rc != 0
    assert changed == 0
    assert "shorter than 16 characters" in out
    assert "too-short" not in out
    assert not (site.folder / "side").exists()


def test_check_mode_says_it_and_changes_nothing(site):
    rc, out, changed = site.run("--check", "--diff")
    assert rc == 0, out
    assert changed > 0
    assert not (site.folder / "side").exists()
    assert ALICE not in out


def test_it_is_made_and_then_left_alone(site):
    rc, out, _ = site.run("--diff", "-v")
    assert rc == 0, out
    assert "PRIVATE KEY" not in out
    assert "engine-key-0123456789" not in out
    assert ALICE not in out
    assert f"https://127.0.0.1:{site.port}/v1" in out
    assert (site.status(ALICE), site.status(BOB), site.status(ALICE, "/metrics")) == (200, 401, 404)
    assert site.backend.asked[-1][2]["Authorization"] == "Bearer engine-key-0123456789"
    before = container()
    rc, out, changed = site.run("--diff")
    assert (rc, changed) == (0, 0), out
    assert container() == before
    inspected = docker("container", "inspect", NAME)
    for secret in (ALICE, "engine-key-0123456789", "PRIVATE KEY"):
        assert secret not in inspected


def test_keys_are_changed_without_a_restart(site):
    before = container()
    rc, out, changed = site.run(llm_gateway_keys=[{"name": "bob", "key": BOB, "requests_per_minute": 600}])
    assert rc == 0, out
    assert changed == 1
    assert (site.status(ALICE), site.status(BOB)) == (401, 200)
    assert container() == before


def test_what_nginx_refuses_leaves_the_old_one_answering(site):
    before = container()
    bad = site.folder / "bad.pem"
    bad.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    rc, out, _ = site.run(llm_gateway_certificate_file=str(bad), llm_gateway_private_key_file=str(bad))
    assert rc != 0
    assert "cannot load certificate" in out, out
    assert container() == before
    assert site.status(BOB) == 200


def test_it_is_removed(site):
    # the image is of other tests as well
    gone = ("--skip-tags", "llm_gateway_image")
    rc, out, _ = site.run(*gone, llm_gateway_state="absent")
    assert rc == 0, out
    assert docker("ps", "--all", "--quiet", "--filter", f"name={NAME}") == ""
    assert [path.name for path in (site.folder / "side").iterdir()] == []
    rc, out, changed = site.run(*gone, llm_gateway_state="absent")
    assert (rc, changed) == (0, 0), out
