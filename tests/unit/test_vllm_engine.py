"""vLLM as an engine: its command line, its doorkeeper, what its log says of devices and failures."""

from __future__ import annotations

import asyncio
import json
import typing as t
from pathlib import Path

import pytest
import tiny_hf
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import ENGINES, vllm, vllm_device
from ansible.module_utils.llmfleet.engines.base import DeviceError, Launch, Mount, diagnose, phase_of
from ansible.module_utils.llmfleet.engines.vllm_gate import GATE
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.memory.config_shape import from_config
from ansible.module_utils.llmfleet.services import parse
from ansible.module_utils.llmfleet.spec import build, changes, create_argv
from ansible.module_utils.llmfleet.wanted import resolve

KEY = "a-very-secret-key"
RAW = {"name": "chat", "engine": "vllm", "model": "/models/qwen3", "port": 8001}
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "dtype": "bfloat16",
}


def launch(has_gpus: bool = False, context: int | None = 512, known: bool = True, **fields: t.Any) -> Launch:
    service = parse({**RAW, **fields})
    shape = from_config(CONFIG, 1_000_000) if known else None
    return vllm.launch(service, "/models/qwen3", context, fields.get("api_key", ""), has_gpus, shape=shape)


def value(made: Launch, flag: str) -> str:
    return made.argv[made.argv.index(flag) + 1]


def test_the_model_is_always_named_and_never_fetched():
    made = launch()
    assert made.entrypoint == "vllm"
    assert made.argv[:2] == ("serve", "/models/qwen3")
    assert value(made, "--served-model-name") == "chat"
    assert made.mounts == (Mount("/models/qwen3", "/models/qwen3"),)
    assert made.env["HF_HUB_OFFLINE"] == "1"
    assert made.env["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize(
    ("fields", "context", "wanted"),
    [({}, 512, "512"), ({}, None, "32768"), ({}, 131072, "32768"), ({"context_length": 100}, 512, "100")],
)
def test_the_context_is_the_users_or_what_the_model_was_made_for(fields, context, wanted):
    assert value(launch(context=context, **fields), "--max-model-len") == wanted


def test_more_requests_at_once_than_llama_server_unless_said():
    assert value(launch(), "--max-num-seqs") == "64"
    assert value(launch(parallel=3), "--max-num-seqs") == "3"


def test_on_a_cpu_the_cache_is_measured_and_nothing_is_compiled():
    made = launch()
    assert "--enforce-eager" in made.argv
    assert value(made, "--dtype") == "float32"
    # 4 layers of 2 heads with 32 numbers each, twice, of 4 bytes; 4 blocks of 128 tokens for each of 4 requests and one
    assert int(value(made, "--kv-cache-memory-bytes")) == 4 * 2 * 64 * 4 * 128 * (4 * 4 + 1)
    assert value(launch(known=False), "--gpu-memory-utilization") == "0.4"
    assert value(launch(gpu_memory_utilization=0.5), "--gpu-memory-utilization") == "0.5"
    assert value(launch(dtype="bfloat16"), "--dtype") == "bfloat16"
    assert launch(threads=3).env["OMP_NUM_THREADS"] == "3"


def test_on_a_gpu_vllm_decides_unless_said():
    made = launch(has_gpus=True)
    assert not {"--enforce-eager", "--dtype", "--kv-cache-memory-bytes", "--gpu-memory-utilization"} & set(made.argv)
    made = launch(
        has_gpus=True, gpu_memory_utilization=0.85, tensor_parallel=2, cache_type="fp8", dtype="half", threads=4
    )
    assert value(made, "--gpu-memory-utilization") == "0.85"
    assert value(made, "--tensor-parallel-size") == "2"
    assert value(made, "--kv-cache-dtype") == "fp8"
    assert value(made, "--dtype") == "half"
    assert "OMP_NUM_THREADS" not in made.env


def spec_of(**fields: t.Any) -> dict[str, t.Any]:
    service = parse({**RAW, **fields})
    made = launch(**fields)
    return build(service, made, image="img:1", image_id="sha256:1", model_fingerprint="f", salt="salt", caches="/c")


def test_the_key_is_in_no_argument_nor_in_the_environment():
    spec = spec_of(api_key=KEY)
    argv = create_argv(spec, "chat.next", "/secrets")
    assert KEY not in json.dumps(spec)
    assert KEY not in " ".join(argv)
    assert sorted(spec["secrets"]) == ["api_key", "llmfleet_gate.py"]
    assert argv[argv.index("--entrypoint") + 1] == "/bin/sh"
    assert "/run/llmfleet/api_key" in spec["argv"][1]
    assert "type=bind,src=/secrets/llmfleet_gate.py,dst=/run/llmfleet/llmfleet_gate.py,readonly" in argv
    assert changes(spec, spec_of(api_key="other-key")) == ["api_key: changed"]


def test_the_container_has_room_for_what_the_processes_share_and_a_cache_on_the_disk():
    argv = create_argv(spec_of(), "chat.next", "/secrets")
    assert argv[argv.index("--shm-size") + 1] == "8192m"
    assert argv[argv.index("--tmpfs") + 1] == "/tmp:rw,noexec,nosuid,size=1024m"
    assert "type=bind,src=/c/vllm,dst=/cache" in argv
    assert argv[argv.index("--entrypoint") + 1] == "vllm"
    assert changes(spec_of(), spec_of(context_length=256))[0].startswith("argv: ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "tiny"}, ["`model` is tiny", "not a GGUF file", "engine: llama_server"]),
        ({"model": "/models/a.GGUF"}, ["not a GGUF file"]),
        ({"gpu_layers": 3}, ["`gpu_layers`", "all layers on the GPUs"]),
        ({"cache_type": "q8_0"}, ["`cache_type` must be one of auto, fp8, not 'q8_0'"]),
        ({"dtype": "fp4"}, ["`dtype` must be one of auto, half"]),
        ({"dtype": "int8"}, ["`dtype: int8` does not exist", "set `quantization`"]),
        ({"quantization": "int8"}, ["`quantization: int8` does not exist", "`quantization: fp8`"]),
        ({"quantization": "nf4"}, ["bitsandbytes"]),
        ({"args": ["--quantization", "int8"]}, ["say it with `quantization`"]),
        ({"args": ["--quantize", "nf4"]}, ["may not hold --quantize", "`quantization: bitsandbytes`"]),
        ({"args": ["--max-gpu-memory", "20GiB"]}, ["say it with `gpu_memory_utilization`"]),
        ({"args": ["--local-dir-use-symlinks=False"]}, ["huggingface-cli"]),
        ({"args": ["--swap-space", "4"]}, ["removed from vLLM", "`kv_offload`"]),
        ({"args": ["--max_model_len", "1"]}, ["holds --max-model-len: say it with `context_length`"]),
        ({"env": {"VLLM_GPU_MEM_FRACTION": "0.9"}}, ["may not hold VLLM_GPU_MEM_FRACTION", "gpu_memory_utilization"]),
        ({"env": {"VLLM_SERVER_DEV_MODE": "1"}}, ["opens paths"]),
        ({"max_tokens": 5, "args": ["--override-generation-config", "{}"]}, ["of which `max_tokens` says a part"]),
        ({"pooling": "mean"}, ["`pooling` says nothing without `task`", "`task: embed`"]),
        ({"draft_model": "/models/a.gguf"}, ["`draft_model` is /models/a.gguf", "not a GGUF"]),
        ({"log_level": "error"}, ["`log_level` must be one of info, debug"]),
        ({"flash_attention": False}, ["`flash_attention` is nothing that engine vllm knows"]),
        ({"trust_remote_code": "yes"}, ["`trust_remote_code` must be true or false, not 'yes'"]),
        ({"gpu_memory_utilization": 90}, ["`gpu_memory_utilization` must be between 0 and 1, not 90", "such as 0.9"]),
        ({"gpu_memory_utilization": "0.9"}, ["must be a number"]),
        ({"tensor_parallel": -1}, ["`tensor_parallel` may not be negative"]),
        ({"args": ["--api-key", "x"]}, ["say it with `api_key`"]),
        ({"args": ["-tp", "2"]}, ["say it with `tensor_parallel`"]),
        ({"args": ["--config", "x"]}, ["may not hold --config"]),
        ({"env": {"VLLM_API_KEY": "x"}}, ["say it with `api_key`"]),
    ],
)
def test_what_vllm_does_not_take_is_one_sentence(change, words):
    with pytest.raises(BadInput) as refusal:
        parse({**RAW, **change})
    assert all(word in str(refusal.value) for word in ["service chat:", *words]), str(refusal.value)


@pytest.mark.parametrize("model", ["org/tiny", "hf:org/tiny@main", "/models/tiny", "org/tiny-hf"])
def test_names_that_only_end_like_the_tiny_gguf_are_models(model):
    assert parse({**RAW, "model": model}).model == model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tensor_parallel": 2}, "`tensor_parallel`"),
        ({"gpu_memory_utilization": 0.5}, "`gpu_memory_utilization`"),
        ({"dtype": "half"}, "`dtype`"),
        ({"cache_type": "fp8"}, "`cache_type` must be one of f32, f16"),
        ({"model": "/models/model.safetensors"}, "playbooks/quantize.yml"),
        ({"args": ["--cache-type-k", "q8_0"]}, "say it with `cache_type`"),
    ],
)
def test_llama_server_refuses_what_is_vllms(change, words):
    with pytest.raises(BadInput, match="service chat:") as refusal:
        parse({"name": "chat", "model": "/models/a.gguf", "port": 1, **change})
    assert words in str(refusal.value)


def looked_up(model_path: Path, **options: t.Any) -> tuple[dict[str, t.Any], Launch]:
    docker = Docker(lambda argv, **_: (0, json.dumps([{"Id": "sha256:1"}]), "") if argv[1] == "image" else (1, "", ""))
    service = parse({**RAW, "model": str(model_path)})
    return resolve(
        docker, service, image="img:1", model_path=str(model_path), api_key="", salt="s", foresee=False, **options
    )


def test_what_is_known_of_the_folder_goes_into_the_specification(tmp_path):
    folder = tiny_hf.write(tmp_path / "tiny-hf", head_dim=32)
    spec, made = looked_up(folder, caches="/c")
    assert spec["mounts"] == {"/models/tiny-hf": str(folder)}
    assert spec["caches"] == {"/cache": "/c/vllm"}
    assert value(made, "--max-model-len") == "4096"
    assert value(made, "--kv-cache-memory-bytes")
    assert looked_up(folder)[0]["model_fingerprint"] == spec["model_fingerprint"]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert looked_up(folder)[0]["model_fingerprint"] != spec["model_fingerprint"]


def test_a_folder_of_links_brings_what_they_point_at(tmp_path):
    whole = tiny_hf.write(tmp_path / "blobs")
    folder = tmp_path / "snapshots" / "0123"
    folder.mkdir(parents=True)
    for file in whole.iterdir():
        (folder / file.name).symlink_to(f"../../blobs/{file.name}")
    spec, _ = looked_up(folder)
    assert spec["mounts"] == {"/models/0123": str(folder), "/blobs": str(whole)}


def test_a_folder_that_is_not_whole_is_refused_with_the_name_of_the_service(tmp_path):
    folder = tiny_hf.write(tmp_path / "tiny-hf")
    (folder / "model.safetensors").unlink()
    with pytest.raises(LlmfleetError, match=r"service chat: model .*/tiny-hf: the folder has no weights"):
        looked_up(folder)


def test_a_configuration_nobody_knows_is_left_to_the_engine(tmp_path):
    folder = tiny_hf.write(tmp_path / "tiny-hf")
    (folder / "config.json").write_text('{"architectures": ["NewModel"]}')
    made = looked_up(folder)[1]
    assert value(made, "--gpu-memory-utilization") == "0.4"


class Door:
    """The doorkeeper in front of an application that answers everything with 200."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_API_KEY", KEY)
        space: dict[str, t.Any] = {}
        exec(compile(GATE, "llmfleet_gate.py", "exec"), space)  # noqa: S102 - it is what the container runs
        self.gate = space["Gate"](self.app)

    async def app(self, scope, receive, send):
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def ask(self, path: str, *, key: str | None = None, kind: str = "http", method: str = "POST") -> t.Any:
        said: list[dict[str, t.Any]] = []

        async def send(message):
            said.append(message)

        headers = [(b"authorization", f"Bearer {key}".encode())] if key is not None else []
        scope = {"type": kind, "path": path, "headers": headers, "method": method}
        asyncio.run(self.gate(scope, None, send))
        return said[0].get("status") or said[0]["type"]


@pytest.mark.parametrize(
    "path", ["/v1/models", "/invocations", "/tokenize", "/pooling", "/metrics", "/health/../x", "/"]
)
def test_without_the_key_nothing_but_health_is_reached(monkeypatch, path):
    door = Door(monkeypatch)
    assert door.ask(path) == 401
    assert door.ask(path, key="wrong") == 401
    assert door.ask(path, key=KEY[:-1]) == 401
    assert door.ask(path, key="schlüssel") == 401
    assert door.ask(path, key=KEY) == 200
    assert door.ask("/health") == 200
    # a browser asks first whether it may ask
    assert door.ask(path, method="OPTIONS") == 200


def test_a_websocket_without_the_key_is_closed(monkeypatch):
    door = Door(monkeypatch)
    assert door.ask("/v1/realtime", kind="websocket") == "websocket.close"
    assert door.ask("/v1/realtime", kind="websocket", key=KEY) == 200


STARTED = "(EngineCore pid=19) INFO core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='m', %s, x=1"


def test_the_device_is_what_the_engine_says():
    on_gpu = STARTED % "device_config=cuda" + "\nModel loading took 15.27 GiB memory and 3.1 seconds"
    assert vllm_device.judge(on_gpu, 0, None, fresh=True, variant="cuda") == "cuda, 15.27 GiB of weights"
    assert vllm_device.proven_by_log(on_gpu)
    assert not vllm_device.fell_back(on_gpu)
    on_cpu = STARTED % "device_config=cpu"
    assert vllm_device.fell_back(on_cpu)
    with pytest.raises(DeviceError, match="computes on the CPU"):
        vllm_device.judge(on_cpu, 0, None, fresh=True, variant="")
    with pytest.raises(DeviceError, match="does not say which device"):
        vllm_device.judge("nothing", 0, None, fresh=True, variant="")
    assert "its start is gone" in vllm_device.judge("nothing", 0, None, fresh=False, variant="")


@pytest.mark.parametrize(
    ("line", "cause", "fix"),
    [
        (
            "ValueError: To serve at least one request with the model's max seq len (4096), (2.0 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the "
            "estimated maximum model length is 2048.",
            "does not hold one request",
            "context_length to 2048 or less",
        ),
        (
            "ValueError: Free memory on device cuda:0 (10.1/80.0 GiB) on startup is less than desired GPU memory "
            "utilization (0.92, 73.6 GiB).",
            "another program holds memory of cuda:0 (10.1/80.0 GiB free)",
            "lower gpu_memory_utilization",
        ),
        (
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU "
            "has compute capability 7.5.",
            "Tesla T4 does not compute in bfloat16",
            "`dtype: half`",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "too little memory", "tensor_parallel"),
        ("ValueError: World size (4) is larger than the number of available GPUs (2) in this node", "has 2", "lower"),
        ("RuntimeError: Failed to infer device type", "has no GPU", "playbooks/host.yml"),
        ("ValueError: The quantization method fp8 is not supported for the current GPU.", "fp8 weights", "another"),
        ("ValueError: something new", "vLLM stopped: something new", "lines around"),
    ],
)
def test_failures_that_need_a_gpu_are_explained(line, cause, fix):
    # the cause stands far above the general line
    log = "(APIServer pid=1) WARNING [system_utils.py:255] This can cause errors like `OSError: [Errno 24] Too many`\n"
    log += f"(EngineCore pid=3) ERROR 11-21 18:24:19 [core.py:1510] {line}\n"
    found = diagnose(log + "RuntimeError: Engine core initialization failed. See root cause above.", vllm.FAILURES)
    assert found is not None
    assert cause in found["cause"]
    assert fix in found["fix"]


def test_phases_follow_the_log():
    log = "(APIServer) starting"
    assert phase_of(log, vllm.PHASES).name == "starting"
    log += "\n" + STARTED % ""
    assert phase_of(log, vllm.PHASES).name == "starting the engine"
    log += "\nStarting to load model /models/m...\nModel loading took 1 GiB\nCPU KV cache size: 16,512 tokens"
    assert phase_of(log, vllm.PHASES).name == "preparing the cache"
    log += "\nStarting vLLM server on http://0.0.0.0:8000"
    assert phase_of(log, vllm.PHASES).name == "opening the port"


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_what_the_interface_asks_for(name):
    engine = ENGINES[name]
    words = (
        "MODEL_FORMAT PATHS DEFAULT_PARALLEL OPTIONS CHOICES REFUSED_FIELDS REFUSED_WORDS REFUSED_MODELS OWNED_FLAGS"
    )
    words += " REFUSED_MODELS_WHY SHARED_FLAGS REFUSED_FLAGS OWNED_ENV REFUSED_ENV"
    words += " launch HEALTH_PATH PHASES FAILURES OFFLOAD"
    assert [word for word in words.split() if not hasattr(engine, word)] == []
    offload = "LIST_DEVICES gpu_argv planned_layers fell_back proven_by_log judge"
    assert [word for word in offload.split() if not hasattr(engine.OFFLOAD, word)] == []
