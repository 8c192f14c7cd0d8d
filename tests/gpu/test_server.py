"""On a machine with an NVIDIA GPU: llama-server with all layers on it. Run with `pytest tests/gpu -s`.

Nothing is built here. LLMFLEET_GPU_SERVER names a folder with a CUDA build of llama-server and the libraries made with
it, whose CUDA libraries come from this machine (LD_LIBRARY_PATH where they are in no usual place); LLMFLEET_GPU_IMAGE
an image that this machine's docker engine has, which needs the NVIDIA container toolkit too.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))
from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.engines.base import DeviceError, diagnose
from ansible.module_utils.llmfleet.engines.llama_offload import ALL_LAYERS, LIST_DEVICES, judge, proven_by_log
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.services import Verify, parse
from ansible.module_utils.llmfleet.timed_run import Answer, timed_run
from ansible.module_utils.llmfleet.verify import NotYetError, Report, advance
from helpers import free_port, run_module

pytestmark = pytest.mark.gpu

SERVER = os.environ.get("LLMFLEET_GPU_SERVER", "")
IMAGE = os.environ.get("LLMFLEET_GPU_IMAGE", "")
LAYERS = 8
with_server = pytest.mark.skipif(not SERVER, reason="LLMFLEET_GPU_SERVER names no folder with a CUDA llama-server")
with_image = pytest.mark.skipif(not IMAGE, reason="LLMFLEET_GPU_IMAGE names no image")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some 75 million weights, big enough to tell a GPU from nothing."""
    folder = tmp_path_factory.mktemp("model")
    folder.chmod(0o755)
    path = folder / "bigger.gguf"
    with path.open("wb") as file:
        tiny_gguf.write(file, layers=LAYERS, dim=1024)
    return path


class Server:
    """A llama-server of the folder, started as a service on the GPU is; ``more`` arguments come last."""

    def __init__(self, model: Path, log: Path, *more: str, **env: str) -> None:
        service = parse({"name": "gpu", "model": str(model), "port": free_port(), "context_length": 1024})
        argv = list(llama_server.launch(service, str(model), None, "", has_gpus=True).argv)
        for flag, value in {"--model": str(model), "--host": "127.0.0.1", "--port": str(service.port)}.items():
            argv[argv.index(flag) + 1] = value
        self._log, self.port = log, service.port
        self._env = {**env, "LD_LIBRARY_PATH": f"{SERVER}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [f"{SERVER}/llama-server", *argv, *more], stdout=out, stderr=out, env={**os.environ, **self._env}
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def list_devices(self) -> Answer:
        return timed_run([f"{SERVER}/llama-server", *LIST_DEVICES], 60, self._env)

    def climb(self, check: t.Callable[[], str] | None, seconds: float = 180) -> Report:
        """Return the report once the goal is reached."""
        endpoint, report, begun = Endpoint(f"http://127.0.0.1:{self.port}", "", timeout=60), Report(), time.monotonic()
        verify = Verify(answer="proves that the whole path works")
        while True:
            assert self.process.poll() is None, self.log
            try:
                advance(endpoint, "/health", "gpu", verify, report, begun, check)
                return report
            except NotYetError:
                assert time.monotonic() - begun < seconds, self.log
                time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@contextlib.contextmanager
def started(model: Path, tmp_path: Path, *more: str, **env: str) -> t.Iterator[Server]:
    server = Server(model, tmp_path / "log", *more, **env)
    try:
        yield server
    finally:
        server.stop()


def smi(field: str) -> list[str]:
    argv = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


@with_server
def test_every_layer_is_on_the_gpu_and_it_answers(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(model, tmp_path) as server:
        report = server.climb(
            lambda: judge(server.log, ALL_LAYERS, server.list_devices(), fresh=True, variant="cuda"), seconds=300
        )
        listed, log = server.list_devices(), server.log
    assert list(report.levels) == ["http", "model", "token", "device", "answer"]
    assert report.device is not None
    assert report.device.startswith(f"{LAYERS + 1}/{LAYERS + 1} layers on CUDA0 ({smi('name')[0]}")
    # a service that has run for a while is judged by its log alone
    assert proven_by_log(log)
    assert judge(log, ALL_LAYERS, None, fresh=False, variant="") == report.device
    assert re.search(rf"CUDA0: {re.escape(smi('name')[0])} \(\d+ MiB, \d+ MiB free\)", listed.out)
    with capsys.disabled():
        print(f"\n{listed.out.strip()}")
        print("\n".join(line for line in log.splitlines() if re.search("offload|buffer size|using device", line)))
        print(f"{report.device}: {report.tokens_per_second} tokens/s, first token {report.first_token_seconds} s")


@with_server
def test_a_gpu_that_is_hidden_is_refused_for_its_real_reason(model: Path, tmp_path: Path) -> None:
    with started(model, tmp_path, CUDA_VISIBLE_DEVICES="-1") as server:
        server.climb(None)
        with pytest.raises(DeviceError) as refused:
            judge(server.log, ALL_LAYERS, server.list_devices(), fresh=True, variant="cuda")
    assert refused.value.diagnosis["cause"] == "the container was given no GPU"


@with_server
def test_layers_that_stay_in_host_memory_are_noticed(model: Path, tmp_path: Path) -> None:
    with started(model, tmp_path, "--device", "none") as server:
        server.climb(None)
        with pytest.raises(DeviceError) as refused:
            judge(server.log, ALL_LAYERS, server.list_devices(), fresh=True, variant="cuda")
    assert "the model's weights are not on the GPU" in refused.value.diagnosis["cause"]


@with_server
def test_a_model_that_does_not_fit_is_explained(model: Path, tmp_path: Path) -> None:
    # the cache of so long a context is far more than any GPU has
    with started(model, tmp_path, "--ctx-size", str(2**31 - 256)) as server:
        server.process.wait(120)
        found = diagnose(server.log, llama_server.FAILURES)
    assert server.process.returncode != 0
    assert found is not None, server.log
    assert "memory" in found["cause"], found


@with_image
def test_a_service_from_the_image_proves_its_gpu(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = {"name": "llmfleet-gpu-test", "model": str(model), "port": free_port(), "context_length": 1024}
    arguments = {"image": IMAGE, "model_path": str(model), "gpus": "nvidia", "directory": str(tmp_path / "services")}
    try:
        launched = run_module("llm_service", {"service": service, **arguments})
        assert launched["changed"], launched
        verified = launched["verification"]
        assert list(verified["levels"]) == ["process", "http", "model", "token", "device"]
        assert verified["device"].startswith(f"{LAYERS + 1}/{LAYERS + 1} layers on CUDA0 ({smi('name')[0]}")
        assert not run_module("llm_service", {"service": service, **arguments})["changed"]
        on_cpu = run_module("llm_service", {"service": {**service, "device": "cpu"}, **arguments})
        assert on_cpu["verification"]["device"] is None, on_cpu
        with capsys.disabled():
            print(f"\n{verified['device']}: {verified['tokens_per_second']} tokens/s; on the CPU of the same image")
            print(f"{on_cpu['verification']['tokens_per_second']} tokens/s")
    finally:
        run_module("llm_service", {"service": {"name": service["name"], "state": "absent"}})
