"""vLLM: its command line and its environment, as read from the sources of 0.32.0 and 0.33.0."""

from __future__ import annotations

import posixpath
import typing as t
from dataclasses import replace

from ansible.module_utils.llmfleet.engines import options, vllm_device
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR, Launch, Mount
from ansible.module_utils.llmfleet.engines.options import owned_env, owned_flags, shared_flags
from ansible.module_utils.llmfleet.engines.vllm_failures import FAILURES, PHASES
from ansible.module_utils.llmfleet.engines.vllm_gate import GATE, GATE_FILE, MIDDLEWARE
from ansible.module_utils.llmfleet.engines.vllm_options import (
    CHOICES,
    OPTIONS,
    REFUSED_ENV,
    REFUSED_FIELDS,
    REFUSED_FLAGS,
    REFUSED_WORDS,
)
from ansible.module_utils.llmfleet.engines.vllm_rehearsal import rehearsal
from ansible.module_utils.llmfleet.memory import vllm_cache

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.memory.shape import Shape
    from ansible.module_utils.llmfleet.services import Service

__all__ = [
    "CHOICES",
    "FAILURES",
    "PHASES",
    "REFUSED_ENV",
    "REFUSED_FIELDS",
    "REFUSED_FLAGS",
    "REFUSED_WORDS",
    "rehearsal",
]

NAME = "vllm"
HEALTH_PATH = "/health"
CONTAINER_PORT = 8000
MODEL_FORMAT = "safetensors"
PATHS = {
    "generate": ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    "embed": ("/v1/embeddings", "/v2/embed"),
    "rerank": ("/v1/rerank", "/v2/rerank"),
    "score": ("/v1/score",),
    "classify": ("/classify",),
}
"""Task -> the paths of its API in the style of OpenAI, to which callers POST; the first one is the usual one."""
OFFLOAD = vllm_device
"""What proves that it computes on a GPU."""

DEFAULT_CONTEXT_LENGTH = 32768
"""Tokens one request may use when neither service nor plan says. The cache is shared by all requests, so that a long
limit costs nothing until a request uses it; but one request of that length has to fit."""

DEFAULT_PARALLEL = 64
"""Requests computed at once; more wait. What limits them in fact is the cache that they share."""

REFUSED_MODELS = r"tiny|.*\.gguf"
REFUSED_MODELS_WHY = (
    "engine vllm reads models of the Hugging Face format (a folder with config.json and *.safetensors), not a GGUF "
    "file; name such a model, or set `engine: llama_server`"
)

OWNED_FLAGS = owned_flags(OPTIONS)
"""Flags that a typed field sets; in free ``args`` they would contradict it."""
SHARED_FLAGS = shared_flags(OPTIONS)
ABBREVIATES = True
"""Whether `--gpu-memory-util` says `--gpu-memory-utilization`. No flag of vLLM is the beginning of one told here."""
OWNED_ENV = owned_env(OPTIONS)

DRAFT_TOKENS = 5
"""Tokens that a draft model drafts at once when the service does not say; vLLM has no figure of its own."""

_CACHE = "/cache"
_SHM_MIB = 8192
"""A limit of what processes of the engine may share, not memory that is taken."""
_TMP_MIB = 1024

ENV = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HOME": _CACHE,
    "XDG_CACHE_HOME": _CACHE,
    "XDG_CONFIG_HOME": f"{_CACHE}/config",
    "HF_HOME": f"{_CACHE}/huggingface",
    "VLLM_CACHE_ROOT": f"{_CACHE}/vllm",
    "VLLM_CONFIG_ROOT": f"{_CACHE}/config/vllm",
    "TRITON_CACHE_DIR": f"{_CACHE}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{_CACHE}/inductor",
    # the engine's user has no entry in the image's list of users, and PyTorch asks for its name
    "USER": "llmfleet",
    "LOGNAME": "llmfleet",
    # how long a start may take is llmfleet's to say (verify.timeout, and silence in a phase)
    "VLLM_ENGINE_READY_TIMEOUT_S": "7200",
}

_WITH_KEY = f'VLLM_API_KEY="$(cat {SECRETS_DIR}/api_key)" && export VLLM_API_KEY && exec "$@"'
"""An argument or `docker run --env` would show the key in `ps` or `docker inspect`."""


def launch(
    service: Service,
    model_path: str,
    model_context: int | None,
    api_key: str,
    has_gpus: bool = False,
    *,
    shape: Shape | None = None,
    mounts: t.Sequence[Mount] = (),
    more: t.Mapping[str, str] | None = None,
) -> Launch:
    """Return how vLLM serves ``service`` from the folder ``model_path`` on the host.

    ``model_context`` is the context the model was trained for, in tokens (None: not known); ``has_gpus``: the container
    gets the host's GPUs; ``shape``: what is known of the model, by which the cache on a CPU is measured; ``mounts``:
    where the model's files are, when that is not below its folder; ``more``: key -> path in the container of the other
    models that the service names.
    """
    if service.draft_model:
        service = replace(service, draft_tokens=service.draft_tokens or DRAFT_TOKENS)
    context = service.context_length or min(DEFAULT_CONTEXT_LENGTH, model_context or DEFAULT_CONTEXT_LENGTH)
    on_gpu = has_gpus and service.device != "cpu"
    target = target_of(model_path)
    argv = [
        *("serve", target),
        *("--served-model-name", service.served_name),
        *("--host", "0.0.0.0"),  # noqa: S104 - inside the container; what is published is decided by `bind`
        *("--port", str(CONTAINER_PORT)),
        *("--max-model-len", str(context)),
        *("--max-num-seqs", str(service.parallel)),
        # the verification and every monitor ask /health again and again
        "--disable-uvicorn-access-log",
    ]
    argv += _gpu(service) if on_gpu else _cpu(service, context, shape)
    if service.cache_type and service.cache_type != "auto":
        argv += ["--kv-cache-dtype", service.cache_type]
    if service.tensor_parallel:
        argv += ["--tensor-parallel-size", str(service.tensor_parallel)]
    argv += options.argv(service, OPTIONS, more or {})
    env, secrets = {**ENV, **options.variables(service, OPTIONS)}, {}
    if service.threads and not on_gpu:
        env.update(OMP_NUM_THREADS=str(service.threads), VLLM_CPU_OMP_THREADS_BIND="nobind")
    if api_key:
        # vLLM itself asks for the key below /v1 only
        argv += ["--middleware", MIDDLEWARE]
        env["PYTHONPATH"] = SECRETS_DIR
        secrets = {"api_key": api_key, GATE_FILE: GATE}
    command = ["vllm", *argv, *service.args]
    return Launch(
        entrypoint="/bin/sh" if api_key else command[0],
        argv=("-c", _WITH_KEY, "sh", *command) if api_key else tuple(command[1:]),
        port=CONTAINER_PORT,
        env={**env, **service.env},
        mounts=tuple(mounts) or (Mount(model_path, target),),
        caches=(Mount(NAME, _CACHE),),
        secrets=secrets,
        shm_mib=_SHM_MIB,
        tmp_mib=_TMP_MIB,
    )


def target_of(model_path: str) -> str:
    """Return where the container sees the model's folder."""
    return f"/models/{posixpath.basename(model_path.rstrip('/'))}"


def _gpu(service: Service) -> list[str]:
    said = ["--gpu-memory-utilization", f"{service.gpu_memory_utilization:g}"] if service.gpu_memory_utilization else []
    said += ["--enforce-eager"] if service.enforce_eager else []
    return [*said, *(["--dtype", service.dtype] if service.dtype else [])]


def _cpu(service: Service, context: int, shape: Shape | None) -> list[str]:
    """Return the arguments for a CPU: vLLM would take nearly all memory of the host for its cache."""
    argv = [] if service.enforce_eager is False else ["--enforce-eager"]
    # the first short prompt in bfloat16 can end in an illegal instruction; what is quantised has its own types
    dtype = service.dtype or ("" if shape and shape.quant not in vllm_cache.PLAIN else "float32")
    argv += ["--dtype", dtype] if dtype else []
    if service.gpu_memory_utilization:
        return [*argv, "--gpu-memory-utilization", f"{service.gpu_memory_utilization:g}"]
    cache = vllm_cache.cpu_cache_bytes(shape, context, service.parallel, dtype) if shape else 0
    return [*argv, *(["--kv-cache-memory-bytes", str(cache)] if cache else ["--gpu-memory-utilization", "0.4"])]
