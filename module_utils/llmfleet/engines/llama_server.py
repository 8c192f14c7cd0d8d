"""llama-server of llama.cpp: its command line.

Flags and endpoints were read from the sources of commit 0c1e57098 (2026-10-01).
"""

from __future__ import annotations

import posixpath
import re
import typing as t

from ansible.module_utils.llmfleet.engines import llama_offload, llama_router, options
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR, Launch, Mount
from ansible.module_utils.llmfleet.engines.llama_failures import FAILURES, PHASES
from ansible.module_utils.llmfleet.engines.llama_options import (
    CHOICES,
    OPTIONS,
    REFUSED_ENV,
    REFUSED_FIELDS,
    REFUSED_FLAGS,
    VERBOSITY,
)
from ansible.module_utils.llmfleet.engines.options import owned_env, owned_flags, shared_flags

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.services import Service

__all__ = ["CHOICES", "FAILURES", "PHASES", "REFUSED_ENV", "REFUSED_FIELDS", "REFUSED_FLAGS"]

NAME = "llama_server"
HEALTH_PATH = "/health"
MODEL_FORMAT = "gguf"
CONTAINER_PORT = 8080
PATHS = {
    "generate": ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    "embed": ("/v1/embeddings",),
    "rerank": ("/v1/rerank",),
}
"""Task -> the paths of its API in the style of OpenAI, to which callers POST; the first one is the usual one."""
OFFLOAD = llama_offload
"""How it is put on a GPU, and what proves that it is there."""

DEFAULT_CONTEXT_LENGTH = 4096
"""Tokens one request may use when the service does not say (a model trained for less gets its own figure)."""

DEFAULT_PARALLEL = 1
"""Each slot has its own part of the KV cache, so that more of them cost memory from the start."""

REFUSED_MODELS = r".*\.(safetensors|bin)"
REFUSED_MODELS_WHY = "llama-server reads GGUF files only; convert the model with playbooks/quantize.yml"

REFUSED_WORDS: dict[str, dict[str, str]] = {}

OWNED_FLAGS = owned_flags(OPTIONS)
"""Flags that a typed field sets; in free ``args`` they would contradict it."""
SHARED_FLAGS = shared_flags(OPTIONS)
ABBREVIATES = False
OWNED_ENV = owned_env(OPTIONS)


def launch(
    service: Service,
    model_path: str,
    model_context: int | None,
    api_key: str,
    has_gpus: bool = False,
    *,
    more: t.Mapping[str, str] | None = None,
    contexts: t.Mapping[str, int] | None = None,
) -> Launch:
    """Return how llama-server serves ``service`` from the GGUF at ``model_path`` on the host. Raises BadInput.

    ``model_context`` is the context the model was trained for, in tokens (None: not known); ``has_gpus``: the container
    gets the host's GPUs, which it uses unless the service is meant for the CPU; ``more``: key -> path in the container
    of the other models that the service names, ``contexts``: those of them by the same keys, where they are known.
    context_length is what one request may use; llama-server's --ctx-size is the total over its slots.
    """
    context = service.context_length or min(DEFAULT_CONTEXT_LENGTH, model_context or DEFAULT_CONTEXT_LENGTH)
    folder, name = posixpath.split(model_path)
    split = re.search(r"-\d{5}-of-\d{5}\.gguf$", name) is not None
    mount: Mount | None = Mount(folder, "/models") if split else Mount(model_path, f"/models/{name}")
    served = ["--model", f"/models/{name}", "--alias", service.served_name]
    sized = ["--ctx-size", str(context * service.parallel)]
    secrets = {"api_key": api_key} if api_key else {}
    if service.models:
        served, mount = llama_router.argv(service), None
        # each has its own where the service does not say
        sized = sized if service.context_length else []
        secrets[llama_router.PRESET] = llama_router.preset(
            service, more or {}, contexts or {}, 0 if sized else DEFAULT_CONTEXT_LENGTH
        )
    argv = [
        *served,
        *("--host", "0.0.0.0"),  # noqa: S104 - inside the container; what is published is decided by `bind`
        *("--port", str(CONTAINER_PORT)),
        *sized,
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
    if service.log_level and not (has_gpus and service.device != "cpu"):
        argv += ["--verbosity", str(VERBOSITY[service.log_level])]
    if service.task in ("embed", "rerank") and not service.ubatch_size:
        # a text is one piece for these tasks: one that is longer than this is refused
        argv += [*([] if service.batch_size else ["--batch-size", str(context)]), "--ubatch-size", str(context)]
    argv += options.argv(service, OPTIONS, more or {})
    if api_key:
        argv += ["--api-key-file", f"{SECRETS_DIR}/api_key"]
        # at the verbosity that proves the GPU the last four characters of a single key are printed, of more the count
        secrets["api_key"] = f"{api_key}\n{api_key}" if has_gpus else api_key
    return Launch(
        argv=(*argv, *service.args),
        port=CONTAINER_PORT,
        env=dict(service.env),
        mounts=(mount,) if mount else (),
        secrets=secrets,
    )


def rehearsal(spec: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what a container of ``spec`` runs instead, so that it only reads its arguments."""
    # what stands before it is read first
    return {"argv": [*spec["argv"], "--version"]}
