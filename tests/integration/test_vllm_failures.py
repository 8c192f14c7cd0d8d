"""Provoke vLLM's failures for real, on a CPU: what it prints must be what the failure table recognises.

Rows about GPUs cannot be provoked without one; tests/unit/failure_lines.py holds their recorded lines. Each start takes
ten to thirty seconds of computing.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny_hf
from ansible.module_utils.llmfleet.engines import vllm
from ansible.module_utils.llmfleet.engines.base import diagnose
from helpers import docker, run_module, running

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))
from hub_server import Hub

pytestmark = pytest.mark.full

QUICK = ("--enforce-eager", "--dtype", "float32", "--max-model-len", "256", "--kv-cache-memory-bytes", str(16 << 20))


@dataclass(frozen=True)
class Case:
    """How a failure comes about, and the cause that the table finds."""

    cause: str
    argv: tuple[str, ...] = ()
    """Arguments after those of QUICK, which they may contradict."""
    config: t.Mapping[str, t.Any] = field(default_factory=dict)
    """Changes of the model's configuration."""
    spoil: t.Callable[[Path], object] | None = None
    """Does something to the model's folder."""
    model: str = ""
    """Another thing to serve than the model's folder."""
    env: t.Mapping[str, str] = field(default_factory=dict)
    docker: tuple[str, ...] = ()


def _truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


CASES: dict[str, Case] = {
    "flag": Case("does not know the arguments --no-such-flag", ("--no-such-flag",)),
    "value": Case("vLLM refuses its arguments: argument --max-num-seqs", ("--max-num-seqs", "many")),
    "length": Case("made for less than 100000 tokens", ("--max-model-len", "100000")),
    "cache": Case("does not hold one request", ("--max-model-len", "4096", "--kv-cache-memory-bytes", "524288")),
    "no-cache": Case("leave no memory for the cache", ("--kv-cache-memory-bytes", "1")),
    "host-memory": Case("too little free memory", ("--kv-cache-memory-bytes", str(1 << 40))),
    "numa": Case("memory node of its own", ("--tensor-parallel-size", "2")),
    "heads": Case(
        "cannot be split over that many GPUs",
        ("--tensor-parallel-size", "3"),
        env={"VLLM_CPU_OMP_THREADS_BIND": "nobind"},
    ),
    "architecture": Case("does not know the model architecture 'ZzzzForCausalLM'", config={
        "architectures": ["ZzzzForCausalLM"], "model_type": "llama"}),
    "model-type": Case("does not know the model architecture `zzzz`", config={
        "architectures": ["ZzzzForCausalLM"], "model_type": "zzzz"}),
    "truncated": Case("truncated or corrupt", spoil=_truncate),
    "no-weights": Case("holds no weights", spoil=lambda folder: (folder / "model.safetensors").unlink()),
    "code": Case("brings its own program code", config={
        "model_type": "zzzz", "auto_map": {"AutoConfig": "configuration_zzzz.ZzzzConfig"}}),
    "empty": Case("not there inside the container", spoil=_empty),
    "missing": Case("not there inside the container", model="/models/nowhere"),
    "offline": Case("wants a file of the hub", model="org/tiny"),
    "unreadable": Case("may not use", spoil=lambda folder: (folder / "config.json").chmod(0)),
    "shared": Case("is full", docker=("--shm-size", "64m")),
}  # fmt: skip

MORE = {"gated": Case("gated", model="org/gated"), "port": Case("port is taken")}
"""What needs something else beside the container."""


def serve(image: str, folder: Path, case: Case, *, hub: str = "", port: int = 0) -> tuple[int, str]:
    """Run vLLM until it ends and return (exit code, everything it printed)."""
    env = {**vllm.ENV, **case.env}
    if hub:
        env.update(HF_ENDPOINT=hub, HF_HUB_OFFLINE="0", TRANSFORMERS_OFFLINE="0")
    name = f"test-vllm-fails-{os.getpid()}"
    command = [
        "docker",
        "run",
        "--rm",
        "--name",
        name,
        "--user",
        "10001:10001",
        "--network",
        "host" if hub or port else "none",
    ]
    command += ["--volume", f"{folder}:/models/tiny-hf:ro", "--tmpfs", "/cache:mode=1777"]
    command += ["--shm-size", "1g", "--entrypoint", "vllm", *case.docker]
    command += [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
    command += [image, "serve", case.model or "/models/tiny-hf", "--port", str(port or 8000), *QUICK, *case.argv]
    try:
        # a busy machine takes minutes to end its processes
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=600
        )
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
    return done.returncode, done.stdout


def model(folder: Path, case: Case) -> Path:
    """Write the tiny model, changed and spoilt as the case says."""
    folder.parent.chmod(0o755)
    tiny_hf.write(folder, head_dim=32)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **case.config}))
    if case.spoil:
        case.spoil(folder)
    return folder


@pytest.fixture(scope="module")
def image() -> str:
    """The vLLM image of this project, made if it is not there yet."""
    result = run_module("vllm_image", {})
    assert not result.get("failed"), result
    return str(result["image"])


def explained(code: int, log: str, words: str) -> None:
    found = diagnose(log, vllm.FAILURES)
    assert found is not None, log
    assert words in found["cause"], (code, found, log)
    assert found["fix"]


@pytest.mark.parametrize("name", CASES)
def test_the_real_engine_prints_what_the_table_recognises(image, tmp_path, name):
    case = CASES[name]
    explained(*serve(image, model(tmp_path / "tiny-hf", case), case), case.cause)


def test_a_gated_model_that_is_asked_for_at_the_start(image, tmp_path):
    case = MORE["gated"]
    folder = model(tmp_path / "tiny-hf", case)
    tiny_hf.write(tmp_path / "hub" / "org" / "gated", head_dim=32)
    with Hub(tmp_path / "hub") as hub:
        hub.repo("org/gated", gated=True)
        explained(*serve(image, folder, case, hub=hub.url), case.cause)


def test_a_port_that_is_taken(image, tmp_path):
    case = MORE["port"]
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        explained(*serve(image, model(tmp_path / "tiny-hf", case), case, port=other.getsockname()[1]), case.cause)


class Running:
    """A container with vLLM in which the process that computes is killed."""

    def __init__(self, image: str, folder: Path) -> None:
        self.name = f"test-vllm-killed-{os.getpid()}"
        command = ["docker", "run", "--detach", "--name", self.name, "--network", "none", "--shm-size", "1g"]
        command += ["--volume", f"{folder}:/models/tiny-hf:ro", "--tmpfs", "/cache:mode=1777", "--entrypoint", "vllm"]
        command += [word for key, value in vllm.ENV.items() for word in ("--env", f"{key}={value}")]
        subprocess.run([*command, image, "serve", "/models/tiny-hf", *QUICK], check=True, capture_output=True)

    def log(self) -> str:
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def until(self, reached: t.Callable[[], t.Any]) -> t.Any:
        deadline = time.monotonic() + 600
        while not (found := reached()):
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)
        return found

    def engine(self) -> int:
        rows = docker("top", self.name, "-eo", "pid,args").splitlines()
        return next((int(row.split()[0]) for row in rows if "VLLM::EngineCore" in row), 0)

    def ended(self) -> int:
        self.until(lambda: not running(self.name))
        return int(docker("container", "inspect", "--format", "{{.State.ExitCode}}", self.name))


@pytest.mark.parametrize(
    ("name", "moment", "words"),
    [
        ("killed-start", "", "engine could not start"),
        ("killed-core", "Application startup complete", "died while vLLM served"),
    ],
)
def test_an_engine_that_is_killed(image, tmp_path, name, moment, words):
    container = Running(image, model(tmp_path / "tiny-hf", Case(words)))
    try:
        container.until(lambda: moment in container.log())
        os.kill(container.until(container.engine), signal.SIGKILL)
        code = container.ended()
        explained(code, container.log(), words)
        # a server that lost its engine ends as if all was well, which no restart policy `on-failure` notices
        assert (code == 0) is (name == "killed-core")
    finally:
        subprocess.run(["docker", "rm", "--force", container.name], check=False, capture_output=True)
