"""What is exported runs: Docker Compose makes of it a container like the deployed one, and it answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
import tiny_hf
from ansible.module_utils.llmfleet import spec
from ansible.module_utils.llmfleet.engines import llama_server, vllm
from ansible.module_utils.llmfleet.gpu_access import PLANNED
from ansible.module_utils.llmfleet.services import parse
from compose_program import compose
from helpers import docker, free_port, run_module

KEY = "first-key-0123456789"
CONFIG = ("User", "Image", "Entrypoint", "Cmd", "StopTimeout")
HOST_CONFIG = (
    *("ReadonlyRootfs", "CapDrop", "CapAdd", "SecurityOpt", "RestartPolicy", "LogConfig", "Memory", "MemorySwap"),
    *("ShmSize", "Tmpfs", "GroupAdd", "Devices", "Privileged", "PidMode", "IpcMode"),
)


class Exported:
    """A deployed service, its export, and the project that Compose makes of it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.dest = folder / "export"
        self.ports = {"deployed": free_port(), "project": free_port()}
        self.prefix = name.upper().replace("-", "_")

    def deploy(self, image: str, model: Path, key: str, **fields: t.Any) -> None:
        given = {"name": self.name, "model": str(model), "port": self.ports["deployed"], **fields}
        arguments = {
            "service": given,
            "api_key": key,
            "image": image,
            "model_path": str(model),
            "directory": str(self.folder / "services"),
            "cache_directory": str(self.folder / "cache"),
        }
        result = run_module("llm_service", arguments)
        assert not result.get("failed"), result

    def export(self) -> dict[str, t.Any]:
        result = run_module("compose_export", {"dest": str(self.dest), "services": [self.name]})
        assert not result.get("failed"), result
        return result

    def compose(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [*compose(), "--project-directory", str(self.dest), "--project-name", self.name, *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def up(self) -> dict[str, t.Any]:
        """Start it on a port of its own; return its container as docker knows it."""
        (self.dest / ".env").write_text(f"{self.prefix}_PORT={self.ports['project']}\n")
        done = self.compose("up", "--detach")
        assert done.returncode == 0, done.stderr
        (found,) = json.loads(docker("container", "inspect", self.compose("ps", "--quiet", "--all").stdout.strip()))
        return t.cast("dict[str, t.Any]", found)

    def make_secrets(self) -> str:
        """Do what the template says about copying the key; return the command."""
        (command,) = re.findall(r"^#   sudo (install .*/services/.*)$", self.template, re.MULTILINE)
        subprocess.run(["sh", "-ec", command], cwd=self.dest, check=True)
        return str(command)

    @property
    def template(self) -> str:
        return (self.dest / ".env.example").read_text()

    def answers(self, key: str) -> dict[str, t.Any]:
        url = f"http://127.0.0.1:{self.ports['project']}"
        for _ in range(120):
            result = run_module("llm_health", {"url": url, "served_name": self.name, "api_key": key})
            if not result.get("failed"):
                break
            time.sleep(1)
        return result


@pytest.fixture
def made(request, tmp_path):
    tmp_path.chmod(0o755)
    made = Exported(tmp_path, f"test-compose-{abs(hash(request.node.nodeid)) % 10**8}")
    yield made
    if made.dest.exists():
        made.compose("down", "--timeout", "5")
    subprocess.run(["docker", "rm", "-f", made.name], capture_output=True, check=False)


def requests(container: dict[str, t.Any]) -> list[tuple[t.Any, ...]]:
    """Return what of GPUs a container asks for, as the engine takes it."""
    found = []
    for request in container["HostConfig"]["DeviceRequests"] or []:
        # without a name the capability chooses the driver; that of device lists does not look at capabilities
        driver = request["Driver"] or "nvidia"
        capabilities = None if driver == "cdi" else request["Capabilities"]
        found.append((driver, request["Count"], request["DeviceIDs"], capabilities))
    return found


def compare(deployed: dict[str, t.Any], other: dict[str, t.Any]) -> None:
    """Assert that both containers were created alike, but for their names, networks and ports."""
    assert requests(deployed) == requests(other)
    for part, keys in (("Config", CONFIG), ("HostConfig", HOST_CONFIG)):
        for key in keys:
            # an empty list and none are the same to the engine
            assert (deployed[part].get(key) or None) == (other[part].get(key) or None), key
    assert sorted(deployed["Config"]["Env"]) == sorted(other["Config"]["Env"])
    ports = [one["HostConfig"]["PortBindings"] for one in (deployed, other)]
    assert [list(port) for port in ports] == [list(ports[0])] * 2
    assert {bound["HostIp"] for port in ports for bounds in port.values() for bound in bounds} == {"127.0.0.1"}
    mounts = [{m["Destination"]: (m["Type"], m["RW"], m["Source"]) for m in one["Mounts"]} for one in (deployed, other)]
    assert mounts[0].keys() == mounts[1].keys()
    for target, mount in mounts[0].items():
        if not target.startswith("/run/llmfleet/"):
            assert mount == mounts[1][target]
        assert mount[:2] == mounts[1][target][:2]


def no_secret(made: Exported) -> None:
    written = [path.read_text() for path in made.dest.iterdir() if path.is_file()]
    assert written
    assert not any(KEY in text for text in written)


def test_compose_runs_what_was_exported(made, image, tiny):
    made.deploy(image, tiny, KEY, memory="1g", context_length=512, args=["--no-warmup"], env={"LANG": "C", "X": "a$b"})
    first = made.export()
    assert first["changed"]
    assert first["secrets"] == [{"service": made.name, "name": "api_key", "file": f"./secrets/{made.name}/api_key"}]
    no_secret(made)
    assert not made.export()["changed"]
    checked = made.compose("config", "--quiet")
    assert (checked.returncode, checked.stderr) == (0, "")

    # without its key it does not start at all, rather than start open to everybody
    refused = made.compose("up", "--detach")
    assert refused.returncode != 0
    assert "api_key" in refused.stderr
    assert not made.compose("ps", "--quiet").stdout
    made.make_secrets()
    project = made.up()
    (deployed,) = json.loads(docker("container", "inspect", made.name))
    compare(deployed, project)
    answer = made.answers(KEY)
    assert not answer.get("failed"), answer
    assert answer["verification"]["completion_tokens"] > 0
    assert KEY not in json.dumps(project)
    # llmfleet leaves alone what Compose runs, and the other way round
    assert run_module("compose_export", {"dest": str(made.dest), "services": [made.name]})["changed"] is False
    made.compose("down")
    assert docker("container", "inspect", "-f", "{{.State.Status}}", made.name).strip() == "running"


def test_the_commands_of_the_template_make_a_key_that_works(made, image, tiny):
    made.deploy(image, tiny, KEY, context_length=512)
    made.export()
    (command,) = re.findall(r"^#   (openssl .*)$", made.template, re.MULTILINE)
    # the tests run as root, where sudo need not be
    subprocess.run(["sh", "-ec", command.replace("sudo ", "")], cwd=made.dest, check=True)
    file = made.dest / "secrets" / made.name / "api_key"
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (10001, 0o400)
    made.up()
    assert not made.answers(file.read_text().strip()).get("failed")
    url = f"http://127.0.0.1:{made.ports['project']}"
    refused = run_module("llm_health", {"url": url, "served_name": made.name, "api_key": KEY})
    assert refused["failed"]


@pytest.mark.parametrize(
    ("engine", "gpus"), [(llama_server, gpus) for gpus in PLANNED if gpus != "nvidia"] + [(vllm, "nvidia")]
)
def test_every_shape_of_a_container_is_created_alike(made, image, engine, gpus):
    """Created only: that needs neither GPUs nor a model that the engine can read."""
    file = made.folder / "models" / "m.gguf"
    file.parent.mkdir()
    file.write_text("")
    (made.folder / "cache" / "vllm").mkdir(parents=True)
    name, path = engine.NAME, str(file if engine is llama_server else file.parent)
    service = parse({"name": made.name, "engine": name, "model": path, "port": made.ports["deployed"], "api_key": KEY})
    launch = engine.launch(service, path, 2048, KEY, True)
    wanted = spec.build(
        service,
        launch,
        image=image,
        image_id="sha256:0",
        model_fingerprint="",
        salt="salt",
        gpus=gpus,
        groups=[44, 993] if gpus in ("amd", "intel") else [],
        caches=str(made.folder / "cache"),
    )
    secrets = made.folder / "services" / "0"
    secrets.mkdir(parents=True)
    for secret, value in launch.secrets.items():
        (secrets / secret).write_text(value)
    docker(*spec.create_argv(wanted, made.name, str(secrets)))
    made.export()
    no_secret(made)
    made.make_secrets()
    assert made.compose("create").returncode == 0
    (deployed,) = json.loads(docker("container", "inspect", made.name))
    (project,) = json.loads(docker("container", "inspect", made.compose("ps", "--quiet", "--all").stdout.strip()))
    compare(deployed, project)


def test_nothing_in_the_image_of_llama_server_could_ask_for_its_health(made, image, tiny):
    made.deploy(image, tiny, "")
    assert made.export()["without_healthcheck"] == [made.name]
    for program in ("curl", "wget", "/bin/sh", "/bin/busybox", "python3", "perl"):
        asked = subprocess.run(["docker", "exec", made.name, program, "--version"], capture_output=True, check=False)
        assert asked.returncode in (126, 127), program
    listed = subprocess.run(["docker", "export", made.name], stdout=subprocess.PIPE, check=True)
    names = subprocess.run(["tar", "-t"], input=listed.stdout, capture_output=True, check=True).stdout.decode().split()
    programs = [name for name in names if re.match(r"(app|bin|sbin|usr)/", name) and not name.endswith("/")]
    assert [name for name in programs if ".so" not in name] == ["app/LICENSE", "app/llama-server"]


def test_odd_paths_arrive(made, image, tiny):
    folder = made.folder / "ann's $odd {models}, 1"
    folder.mkdir()
    os.link(tiny, folder / "tiny.gguf")
    made.deploy(image, folder / "tiny.gguf", "")
    made.export()
    compare(json.loads(docker("container", "inspect", made.name))[0], made.up())
    quoted = made.folder / "ann's models, 2"
    quoted.mkdir()
    os.link(tiny, quoted / "tiny.gguf")
    made.deploy(image, quoted / "tiny.gguf", "")
    made.export()
    # the template taken as it is gives what it gives without
    (made.dest / ".env").write_text(made.template)
    (deployed,) = json.loads(docker("container", "inspect", made.name))
    with_env = json.loads(made.compose("config", "--format", "json").stdout)
    (made.dest / ".env").unlink()
    assert json.loads(made.compose("config", "--format", "json").stdout) == with_env
    (volume,) = with_env["services"][made.name]["volumes"]
    assert volume["source"] == deployed["Mounts"][0]["Source"] == str(quoted / "tiny.gguf")


@pytest.mark.full
def test_the_healthcheck_of_vllm_turns_healthy_when_it_answers(made):
    image = run_module("vllm_image", {})["image"]
    model = made.folder / "model"
    tiny_hf.write(model, head_dim=32)
    made.deploy(image, model, KEY, engine="vllm", context_length=512)
    made.export()
    no_secret(made)
    made.make_secrets()
    project = made.up()
    (deployed,) = json.loads(docker("container", "inspect", made.name))
    compare(deployed, project)
    probe = project["Config"]["Healthcheck"]["Test"][1:]
    # it has just begun, and its Python reads libraries for seconds
    assert subprocess.run(["docker", "exec", project["Id"], *probe], capture_output=True, check=False).returncode == 1
    assert docker("container", "inspect", "-f", "{{.State.Health.Status}}", project["Id"]).strip() == "starting"
    assert not made.answers(KEY).get("failed")
    docker("exec", project["Id"], *probe)
    for _ in range(60):
        health = docker("container", "inspect", "-f", "{{.State.Health.Status}}", project["Id"]).strip()
        if health != "starting":
            break
        time.sleep(1)
    assert health == "healthy"
