"""llama-server of llama.cpp: its command line, its start and its failures.

Flags, endpoints and log lines were read from the sources of commit 0c1e57098 (2026-10-01). The failure rows that need
no GPU are provoked with a real server in tests/integration/test_failures.py; those about GPUs are recorded lines.
"""

from __future__ import annotations

import posixpath
import re
import typing as t

from ansible.module_utils.llmfleet.engines import llama_offload
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR, Failure, Launch, Mount, Phase

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.services import Service

NAME = "llama_server"
HEALTH_PATH = "/health"
MODEL_FORMAT = "gguf"
CONTAINER_PORT = 8080
OFFLOAD = llama_offload
"""How it is put on a GPU, and what proves that it is there."""

DEFAULT_CONTEXT_LENGTH = 4096
"""Tokens one request may use when the service does not say (a model trained for less gets its own figure)."""

DEFAULT_PARALLEL = 1
"""Each slot has its own part of the KV cache, so that more of them cost memory from the start."""

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
DTYPES: tuple[str, ...] = ()

REFUSED_FIELDS = {
    "gpu_memory_utilization": "llama-server takes what the model and its context need; set `gpu_layers` for less",
    "tensor_parallel": "llama-server spreads a model over the GPUs it has by itself",
    "dtype": "a GGUF says the types of its weights; choose a quantisation in `model`",
}
REFUSED_MODELS = r".*\.(safetensors|bin)"
REFUSED_MODELS_WHY = "llama-server reads GGUF files only; convert the model with playbooks/quantize.yml"

OWNED_FLAGS = {
    "-m": "model", "--model": "model", "-mu": "model", "--model-url": "model", "-hf": "model", "--hf-repo": "model",
    "-hff": "model", "--hf-file": "model", "-dr": "model", "--docker-repo": "model",
    "-a": "served_name", "--alias": "served_name",
    "--host": "bind", "--port": "port",
    "--api-key": "api_key", "--api-key-file": "api_key",
    "-c": "context_length", "--ctx-size": "context_length",
    "-np": "parallel", "--parallel": "parallel",
    "-t": "threads", "--threads": "threads",
    "-ngl": "gpu_layers", "--gpu-layers": "gpu_layers", "--n-gpu-layers": "gpu_layers",
    # pairs of different types have no GPU kernels in usual builds
    "-ctk": "cache_type", "--cache-type-k": "cache_type", "-ctv": "cache_type", "--cache-type-v": "cache_type",
}  # fmt: skip
"""Flags that a typed field sets; in free ``args`` they would contradict it."""

REFUSED_FLAGS = {
    **dict.fromkeys(
        ("--models-dir", "--models-preset", "--models-max", "--models-autoload"),
        "it turns llama-server into a router that answers ready without a model",
    ),
    **dict.fromkeys(
        ("--tools", "--agent", "--ui-mcp-proxy", "--webui-mcp-proxy"),
        "it lets callers run commands or read files on the server",
    ),
}
"""Flags that are never safe on a server, with the reason."""

OWNED_ENV = {
    "LLAMA_API_KEY": "api_key", "LLAMA_ARG_API_KEY_FILE": "api_key", "LLAMA_ARG_MODEL": "model",
    "LLAMA_ARG_PORT": "port", "LLAMA_ARG_HOST": "bind", "LLAMA_ARG_ALIAS": "served_name",
    "LLAMA_ARG_CTX_SIZE": "context_length", "LLAMA_ARG_N_PARALLEL": "parallel", "LLAMA_ARG_THREADS": "threads",
    "LLAMA_ARG_N_GPU_LAYERS": "gpu_layers", "LLAMA_ARG_CACHE_TYPE_K": "cache_type",
    "LLAMA_ARG_CACHE_TYPE_V": "cache_type",
}  # fmt: skip

PHASES = (
    Phase("starting", "", 60),
    Phase("loading model", r"load_model: loading model|loading model", 600),
    Phase("warming up", r"warming up|model loaded", 300),
)

FAILURES = (
    Failure(
        r"failed to open GGUF file '(?P<file>[^']+)' \(Permission denied\)",
        "the engine's user (uid 10001) may not read the model file {file}",
        "make the file readable for others on the host (chmod o+r)",
    ),
    Failure(
        r"failed to open GGUF file '(?P<file>[^']+)'",
        "the model file {file} is not there inside the container",
        "check `model` and that the file still exists on the host",
    ),
    Failure(
        r"invalid magic characters: '(?P<magic>.*)', expected 'GGUF'",
        "the model file is not a GGUF (it begins with '{magic}')",
        "fetch it again: a web page, an LFS pointer or another format was saved under this name",
    ),
    Failure(
        r"failed to read magic|failed to read key-value pairs|data is not within the file bounds",
        "the model file is truncated or corrupt",
        "fetch it again and give its model_sha256 so that a short file is noticed",
    ),
    Failure(
        r"unknown model architecture: '(?P<arch>[^']+)'",
        "this build of llama.cpp does not know the model architecture {arch}",
        "build a newer llama.cpp (llama_cpp_image_ref) or choose another model",
    ),
    Failure(
        r"this GGUF file is version (?P<found>\d+) but this software only supports up to version (?P<known>\d+)",
        "the model file has GGUF version {found}; this llama.cpp reads up to {known}",
        "build a newer llama.cpp (llama_cpp_image_ref) or convert the model again",
    ),
    Failure(
        r"illegal split file idx: (?P<part>\d+)",
        "the model is a part of a split GGUF (index {part}), not its first part",
        "give the file that ends in -00001-of-….gguf as `model`",
    ),
    Failure(
        r"failed to load GGUF split from (?P<file>\S+)|invalid split file name: (?P<name>\S+)",
        "a part of the split GGUF is missing or renamed ({file}{name})",
        "put all parts under their original names into one folder",
    ),
    Failure(
        r"invalid argument: (?P<flag>\S+)",
        "llama-server does not know the argument {flag}",
        "correct or remove it in `args` (flags differ between builds: see llama-server --help of this image)",
    ),
    Failure(
        r"the argument has been removed", "an argument was removed from llama-server", "see the line for its successor"
    ),
    Failure(r"invalid device: (?P<device>\S+)", "the image has no device {device}", "correct `--device` in `args`"),
    Failure(
        r"error while handling argument \"(?P<flag>[^\"]+)\": (?P<why>.*)",
        "llama-server refuses the value of {flag} ({why})",
        "correct it in `args`",
    ),
    Failure(
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)",
        "port {port} is taken inside the container's network",
        "choose another port",
    ),
    Failure(
        r"cudaMalloc failed: out of memory|unable to allocate CUDA",
        "the GPU has too little free memory for the model",
        "use a smaller quantisation, a shorter context_length, or offload fewer layers",
    ),
    Failure(
        r"failed to allocate buffer for kv cache|failed to initialize the context|failed to create_context",
        "the context does not fit into memory",
        "lower context_length or parallel",
    ),
    Failure(
        r"unable to allocate (?P<backend>\w+) buffer|std::bad_alloc",
        "the model does not fit into memory",
        "use a smaller quantisation, raise `memory`, or choose a bigger host",
    ),
    *llama_offload.GPU_FAILURES,
    Failure(
        r"error while loading shared libraries: (?P<lib>\S+?):",
        "the image lacks {lib} on this host",
        "a CUDA image needs the NVIDIA container toolkit and a GPU; otherwise use the CPU image",
    ),
    Failure(
        r"Illegal instruction|exec format error",
        "the image was built for another processor than this host's",
        "build it for this host (llama_cpp_image_cpu_level: auto)",
    ),
    Failure(r"^error: (?P<what>.*)", "llama-server refuses to start: {what}", "read the log lines around this one"),
    Failure(
        r"exiting due to model loading error",
        "llama-server could not load the model",
        "read the log lines before this one",
    ),
)


def launch(
    service: Service, model_path: str, model_context: int | None, api_key: str, has_gpus: bool = False
) -> Launch:
    """Return how llama-server serves ``service`` from the GGUF at ``model_path`` on the host. Raises BadInput.

    ``model_context`` is the context the model was trained for, in tokens (None: not known); ``has_gpus``: the container
    gets the host's GPUs, which it uses unless the service is meant for the CPU.
    context_length is what one request may use; llama-server's --ctx-size is the total over its slots.
    """
    context = service.context_length or min(DEFAULT_CONTEXT_LENGTH, model_context or DEFAULT_CONTEXT_LENGTH)
    folder, name = posixpath.split(model_path)
    split = re.search(r"-\d{5}-of-\d{5}\.gguf$", name) is not None
    mount = Mount(folder, "/models") if split else Mount(model_path, f"/models/{name}")
    argv = [
        *("--model", f"/models/{name}"),
        *("--alias", service.served_name),
        *("--host", "0.0.0.0"),  # noqa: S104 - inside the container; what is published is decided by `bind`
        *("--port", str(CONTAINER_PORT)),
        *("--ctx-size", str(context * service.parallel)),
        *("--parallel", str(service.parallel)),
        # without this llama-server quietly shrinks the context instead of failing when memory is short
        *("--fit", "off"),
        "--metrics",
        # GET /slots shows other users' prompts
        "--no-slots",
        "--offline",
    ]
    if service.cache_type:
        argv += ["--cache-type-k", service.cache_type, "--cache-type-v", service.cache_type]
    if service.threads:
        argv += ["--threads", str(service.threads)]
    if has_gpus:
        # an image for GPUs does not start without the driver's libraries, so it gets GPUs even to leave them alone
        argv += ["--device", "none"] if service.device == "cpu" else llama_offload.gpu_argv(service)
    if api_key:
        argv += ["--api-key-file", f"{SECRETS_DIR}/api_key"]
        # at the verbosity that proves the GPU the last four characters of a single key are printed, of more the count
        api_key = f"{api_key}\n{api_key}" if has_gpus else api_key
    return Launch(
        argv=(*argv, *service.args),
        port=CONTAINER_PORT,
        env=dict(service.env),
        mounts=(mount,),
        secrets={"api_key": api_key} if api_key else {},
    )
