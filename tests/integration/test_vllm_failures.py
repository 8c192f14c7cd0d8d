"""Provoke vLLM's failures for real, on a CPU: what it prints must be what the failure table recognises.

Rows about GPUs cannot be provoked without one; tests/failure_lines.py holds their recorded lines. Each start takes ten to
thirty seconds of computing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny_hf
from ansible.module_utils.llmfleet.engines import vllm
from ansible.module_utils.llmfleet.engines.base import diagnose
from ansible.module_utils.llmfleet.services import parse
from helpers import free_port, run_module

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
    "gated": Case("gated", model="org/gated"),
    "unreadable": Case("may not use", spoil=lambda folder: (folder / "config.json").chmod(0)),
    "shared": Case("is full", docker=("--shm-size", "64m")),
    "slow": Case("did not start within its own time limit", env={"VLLM_ENGINE_READY_TIMEOUT_S": "1"}),
}  # fmt: skip


def serve(image: str, folder: Path, case: Case, *, hub: str = "", port: int = 0) -> tuple[int, str]:
    """Run vLLM until it ends and return (exit code, everything it printed)."""
    env = {**vllm.ENV, **case.env}
    if hub:
        env.update(HF_ENDPOINT=hub, HF_HUB_OFFLINE="0", TRANSFORMERS_OFFLINE="0")
    command = ["docker", "run", "--rm", "--user", "10001:10001", "--network", "host" if hub or port else "none"]
    command += ["--volume", f"{folder}:/models/tiny-hf:ro", "--tmpfs", "/cache:mode=1777"]
    command += ["--shm-size", "1g", "--entrypoint", "vllm", *case.docker]
    command += [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
    command += [image, "serve", case.model or "/models/tiny-hf", "--port", str(port or 8000), *QUICK, *case.argv]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=240)
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
