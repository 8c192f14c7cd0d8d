"""The compose_export module on an engine that only answers: what is written, kept, refused."""

from __future__ import annotations

import json
import stat
import typing as t
from pathlib import Path

import compose_export
import pytest
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.services import parse
from ansible.module_utils.llmfleet.spec import build
from ansible.module_utils.testing import patch_module_args

DOCKER = """\
#!/bin/sh
case "$1 $2" in
    "ps --all") cat "{folder}/names" ;;
    *inspect) cat "{folder}/$1-$3" 2>/dev/null || {{ echo "Error: No such $1: $3" >&2; exit 1; }} ;;
    *) echo "unknown: $*" >&2; exit 1 ;;
esac
"""


class Host:
    """A host with containers, and the module run on it."""

    def __init__(self, folder: Path, capsys: t.Any) -> None:
        self.folder, self.capsys, self.dest = folder, capsys, folder / "export" / "compose"
        self.docker = folder / "docker"
        self.docker.write_text(DOCKER.format(folder=folder))
        self.docker.chmod(0o755)
        (folder / "names").write_text("")

    def deploy(self, name: str, key: str = "", port: int = 8080, **changes: t.Any) -> None:
        service = parse({"name": name, "model": "/m.gguf", "port": port, "api_key": key})
        launch = llama_server.launch(service, "/m.gguf", 2048, key)
        spec = build(service, launch, image="img:1", image_id="sha256:1", model_fingerprint="f", salt="s")
        labels = {"io.llmfleet.service": name, "io.llmfleet.spec": json.dumps(spec)}
        mounts = [{"Destination": "/run/llmfleet/api_key", "Source": "/secrets/0/api_key"}] if key else []
        found = {"Name": f"/{name}", "Image": "sha256:1", "Config": {"Labels": labels}, "Mounts": mounts, **changes}
        (self.folder / f"container-{name}").write_text(json.dumps([found]))
        names = self.folder / "names"
        names.write_text(f"{names.read_text()}{name}\n")

    def run(self, check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
        given = {"dest": str(self.dest), "docker_cli": str(self.docker), **arguments}
        with (
            patch_module_args({**given, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            compose_export.main()
        result: dict[str, t.Any] = json.loads(self.capsys.readouterr().out)
        return result


@pytest.fixture
def host(tmp_path: Path, capsys: t.Any) -> Host:
    return Host(tmp_path, capsys)


def test_check_write_repeat_change(host):
    host.deploy("chat", "a-very-secret-key")
    would = host.run(check=True)
    assert would["changed"]
    assert not host.dest.parent.exists()
    done = host.run()
    assert {key: done[key] for key in would if key != "invocation"} == {
        key: would[key] for key in would if key != "invocation"
    }
    assert done["services"] == ["chat"]
    assert done["secrets"] == [{"service": "chat", "name": "api_key", "file": "./secrets/chat/api_key"}]
    assert done["without_healthcheck"] == ["chat"]
    assert sorted(path.name for path in host.dest.iterdir()) == [".env.example", "compose.yml"]
    for path in host.dest.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert "/secrets/0/api_key ./secrets/chat/api_key" in (host.dest / ".env.example").read_text()
    again = host.run()
    assert (again["changed"], again["written"], again["diff"]) == (False, [], [])
    host.deploy("more", port=8081)
    more = host.run()
    assert (more["changed"], more["backups"], more["services"]) == (True, [], ["chat", "more"])
    assert {row["after_header"] for row in more["diff"]} == set(more["files"])


def test_what_was_changed_by_hand_is_kept_as_a_copy(host):
    host.deploy("chat")
    host.run()
    path = host.dest / "compose.yml"
    changed = path.read_text() + "# mine\n"
    path.write_text(changed)
    assert host.run(check=True)["backups"] == []
    (backup,) = host.run()["backups"]
    assert Path(backup).read_text() == changed
    assert "# mine" not in path.read_text()
    assert not host.run()["changed"]
    (host.dest / ".env").write_text("CHAT_PORT=9090\n")
    assert not host.run()["changed"]
    assert (host.dest / ".env").read_text() == "CHAT_PORT=9090\n"


def test_a_choice_of_services(host):
    host.deploy("chat")
    host.deploy("more", port=8081)
    assert host.run(services=["more"])["services"] == ["more"]
    assert "chat" not in (host.dest / "compose.yml").read_text()
    failed = host.run(services=["none"])
    assert failed["failed"]
    assert "service none is not deployed on this host (there are chat, more)" in failed["msg"]


def test_a_host_without_services(host):
    result = host.run()
    assert (result["changed"], result["services"]) == (False, [])
    assert not host.dest.exists()
    assert "there is none" in host.run(services=["chat"])["msg"]


def test_a_service_between_two_containers_is_passed_over(host):
    (host.folder / "names").write_text("chat\n")
    assert host.run()["services"] == []


@pytest.mark.parametrize("label", ["", "{"])
def test_a_container_without_a_readable_label(host, label):
    host.deploy("chat", Config={"Labels": {"io.llmfleet.service": "chat", "io.llmfleet.spec": label}})
    assert "container chat has no readable specification; deploy the service again" in host.run()["msg"]


def test_places_that_cannot_be_written(host):
    host.deploy("chat")
    assert "absolute path" in host.run(dest="compose")["msg"]
    (host.folder / "file").write_text("")
    assert "Not a directory" in host.run(dest=str(host.folder / "file" / "x"))["msg"]
    host.dest.mkdir(parents=True)
    (host.dest / "compose.yml").symlink_to("/nonexistent")
    assert "is not a regular file" in host.run()["msg"]
    assert sorted(path.name for path in host.dest.iterdir()) == ["compose.yml"]


def test_no_docker(host):
    assert "there is no docker client" in host.run(docker_cli="/nonexistent/docker")["msg"]
    host.docker.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n")
    assert "Cannot connect to the Docker daemon" in host.run()["msg"]
