"""vLLM for real, on a CPU: its image, a service on it, what it says when it cannot start, and how large its cache is.

The image takes some minutes to make and 2.4 GB, and each start half a minute of computing.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import openai_calls
import pytest
import tiny_hf
from ansible.module_utils.llmfleet.engines import vllm
from ansible.module_utils.llmfleet.engines.base import phase_of
from ansible.module_utils.llmfleet.memory.config_shape import from_config
from ansible.module_utils.llmfleet.memory.vllm_cache import pool
from helpers import docker, free_port, run_module, running

pytestmark = pytest.mark.full

KEY = "first-key-0123456789"
CHINESE = {"structured_outputs": {"choice": ["你好,世界!🙂"]}}
CACHE = 48 << 20
CONTEXT = 4096


@pytest.fixture(scope="module")
def image() -> str:
    """The vLLM image of this project, made if it is not there yet."""
    result = run_module("vllm_image", {})
    assert not result.get("failed"), result
    return str(result["image"])


def model(folder: Path, **changes: t.Any) -> Path:
    """Write a tiny model that vLLM computes on a CPU, with ``changes`` in its configuration."""
    folder.parent.chmod(0o755)
    tiny_hf.write(folder, head_dim=32)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


class Run:
    """Runs llm_service for one service of a test."""

    def __init__(self, image: str, folder: Path, name: str) -> None:
        self.image, self.folder, self.name, self.port = image, folder, name, free_port()

    def __call__(self, path: Path, *, key: str = "", **fields: t.Any) -> dict[str, t.Any]:
        given = {"name": self.name, "engine": "vllm", "model": str(path), "port": self.port, **fields}
        arguments = {
            "service": given,
            "api_key": key,
            "image": self.image,
            "model_path": str(path),
            "directory": str(self.folder / "services"),
            "cache_directory": str(self.folder / "cache"),
        }
        return run_module("llm_service", arguments)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tested(self, path: Path, **fields: t.Any) -> dict[str, t.Any]:
        """Return what the self-test of its API says."""
        given = {"name": self.name, "engine": "vllm", "model": str(path), "port": self.port, **fields}
        return run_module("llm_api_test", {"service": given, "api_key": KEY})

    def status(self, path: str, key: str = "") -> int:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture
def service(request, tmp_path, image):
    made = Run(image, tmp_path, f"test-vllm-{abs(hash(request.node.nodeid)) % 10**8}")
    yield made
    for suffix in ("", ".previous", ".next"):
        subprocess.run(["docker", "rm", "-f", made.name + suffix], capture_output=True, check=False)


def test_a_model_is_served_kept_guarded_and_stopped(service, tmp_path):
    path = model(tmp_path / "tiny-hf")
    launched = service(path, key=KEY)
    assert launched.get("action") == "create", launched
    assert list(launched["verification"]["levels"]) == ["process", "http", "model", "token"]
    # the same sentence as of the GGUF with these weights
    assert launched["verification"]["reply"].startswith("Hello from llmfleet")

    lines = docker("logs", service.name).splitlines()
    phases = [phase_of("\n".join(lines[:number]), vllm.PHASES).name for number in range(len(lines))]
    # nothing is compiled on a CPU
    wanted = ["starting", "starting the engine", "loading model", "preparing the cache", "opening the port"]
    assert list(dict.fromkeys(phases)) == wanted

    bounds = {"min_tokens_per_second": 0.1, "max_first_token_seconds": 100, "answer": "llmfleet"}
    same = service(path, key=KEY, verify=bounds)
    assert (same["changed"], same["action"]) == (False, "keep")
    assert list(same["verification"]["levels"])[-3:] == ["token", "speed", "answer"]
    assert same["verification"]["levels"]["token"] < 60

    for place in ("/v1/models", "/invocations", "/tokenize", "/metrics", "/version"):
        assert service.status(place) == 401, place
        assert service.status(place, "wrong") == 401, place
        assert service.status(place, KEY) != 401, place
    assert service.status("/health") == 200

    tested = service.tested(path)
    assert not tested.get("failed"), tested
    assert {check["name"] for check in tested["checks"] if check["ok"]} == {
        *("health", "models", "key", "chat", "chat_stream", "chinese", "completions", "responses", "messages"),
        *("metrics", "tokenize"),
    }
    openai_calls.generates(service.url, KEY, service.name, "Hello from llmfleet", CHINESE)
    openai_calls.is_closed(service.url, service.name)

    found = json.loads(docker("container", "inspect", service.name))[0]
    assert KEY not in json.dumps(found)
    assert KEY not in docker("logs", service.name)
    assert KEY not in docker("top", service.name, "-eo", "pid,args")
    assert found["Config"]["User"] == "10001:10001"
    assert found["HostConfig"]["ReadonlyRootfs"]
    writable = [mount["Destination"] for mount in found["Mounts"] if mount["RW"]]
    assert writable == ["/cache"]

    assert service(path, key=KEY, state="stopped")["changed"]
    assert not running(service.name)
    assert service(path, state="absent")["changed"]
    assert not (tmp_path / "services" / service.name).exists()


def test_vectors_are_served(service, tmp_path):
    path = model(tmp_path / "tiny-hf")
    launched = service(path, key=KEY, task="embed")
    assert not launched.get("failed"), launched
    assert launched["verification"]["proof"] == "vectors of 64 numbers"
    tested = service.tested(path, task="embed")
    assert not tested.get("failed"), tested
    assert "embeddings" in {check["name"] for check in tested["checks"]}
    openai_calls.embeds(service.url, KEY, service.name)


def test_an_engine_that_dies_ends_with_code_0_and_comes_back(service, tmp_path):
    path = model(tmp_path / "tiny-hf")
    assert not service(path).get("failed")
    rows = docker("top", service.name, "-eo", "pid,args").splitlines()
    os.kill(next(int(row.split()[0]) for row in rows if "VLLM::EngineCore" in row), signal.SIGKILL)
    deadline = time.monotonic() + 300
    while docker("container", "inspect", "--format", "{{.RestartCount}}", service.name).strip() == "0":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "EngineDeadError" in docker("logs", service.name)
    again = service(path)
    assert not again.get("failed"), again
    assert list(again["verification"]["levels"])[-1] == "token"


def broken(folder: Path, kind: str) -> Path:
    """Return a model that is broken in one way."""
    if kind == "architecture":
        return model(folder, architectures=["ZzzzForCausalLM"], model_type="llama")
    if kind == "head":
        return model(folder, head_dim=16, num_attention_heads=4, num_key_value_heads=2)
    return model(folder)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("flag", {"args": ["--no-such-flag"]}, "does not know the arguments --no-such-flag"),
        ("length", {"context_length": 100_000}, "made for less than 100000 tokens"),
        ("cache", {"gpu_memory_utilization": 1.0}, "too little free memory"),
        ("heads", {"tensor_parallel": 2}, "memory node of its own"),
        ("architecture", {}, "does not know the model architecture 'ZzzzForCausalLM'"),
        ("limit", {"memory": "300m"}, "used more than its memory limit"),
        # it serves such a model until it is asked for the first word
        ("head", {}, "attention heads of 16 numbers"),
    ],
)
def test_the_real_engine_says_what_the_table_recognises(service, tmp_path, kind, fields, words):
    result = service(broken(tmp_path / "tiny-hf", kind), **fields)
    assert result.get("failed"), result
    assert words in result["diagnosis"]["cause"], result
    assert not running(service.name)


def test_the_longest_request_is_the_one_that_was_planned(service, tmp_path):
    path = model(tmp_path / "tiny-hf")
    shape = from_config(json.loads((path / "config.json").read_text()), 1 << 20)
    # exactly what one request takes, without the block that vLLM keeps for itself
    cache = pool(shape, 4).request(CONTEXT)
    planned = pool(shape, 4).longest(cache, CONTEXT)
    argv = ["--kv-cache-memory-bytes", str(cache)]
    result = service(path, context_length=CONTEXT, gpu_memory_utilization=0.5, args=argv)
    assert result.get("failed"), result
    assert result["diagnosis"]["fix"].startswith(f"set context_length to {planned} or less"), result["diagnosis"]


def test_a_truncated_model_is_refused_before_anything_starts(service, tmp_path):
    path = model(tmp_path / "tiny-hf")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])
    result = service(path)
    assert result.get("failed")
    assert "model.safetensors" in result["msg"]


SHAPES: dict[str, dict[str, t.Any]] = {
    "llama": {},
    "llama, a window in half of the layers": {
        "num_hidden_layers": 8,
        "sliding_window": 512,
        "layer_types": ["sliding_attention", "full_attention"] * 4,
    },
    "mistral, a window in all layers": {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "sliding_window": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "gemma3, a window in 5 of 6 layers": {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "sliding_window": 256,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2,
        "num_hidden_layers": 12,
        "head_dim": 64,
        "query_pre_attn_scalar": 64,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "qwen2, 8 heads": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_hidden_layers": 3,
        "hidden_size": 512,
    },
    "qwen3, heads of 64": {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "head_dim": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "deepseek2, a latent": {
        "model_type": "deepseek_v2",
        "architectures": ["DeepseekV2ForCausalLM"],
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "kv_lora_rank": 512,
        "q_lora_rank": None,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "head_dim": 64,
        "first_k_dense_replace": 3,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "moe_intermediate_size": 128,
        "moe_layer_freq": 1,
        "n_group": 1,
        "topk_group": 1,
    },
}
"""Changes to the configuration; the weights are made up by vLLM (`load_format: dummy`)."""


@pytest.mark.parametrize("name", SHAPES)
def test_the_cache_is_as_large_as_planned(service, tmp_path, name):
    path = model(tmp_path / "tiny-hf", **SHAPES[name])
    shape = from_config(json.loads((path / "config.json").read_text()), 1 << 20)
    planned = pool(shape, 4).tokens(CACHE, CONTEXT)
    given = {"load_format": "dummy", "args": ["--kv-cache-memory-bytes", str(CACHE)]}
    result = service(path, context_length=CONTEXT, verify={"level": "http"}, gpu_memory_utilization=0.5, **given)
    assert not result.get("failed"), result
    log = docker("logs", service.name)
    said = re.search(r"KV cache size: ([\d,]+) tokens", log)
    assert said, log[-3000:]
    tokens = int(said[1].replace(",", ""))
    print(f"{name}: planned {planned}, vLLM says {tokens}")
    assert abs(planned - tokens) <= 0.05 * tokens
