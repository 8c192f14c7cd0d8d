"""What a service has: its keys, their types, defaults and bounds, and what they mean.

Checked by services; service_schema makes of it the schema for editors. Keys about the work of engines are in
service_options, those of `verify` in service_verify; what a key may hold depending on the engine stands in engines/.
"""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import dataclass, field, replace

from ansible.module_utils.llmfleet.service_key import Key
from ansible.module_utils.llmfleet.service_options import MODEL_KEYS, OPTION_KEYS, Options
from ansible.module_utils.llmfleet.service_verify import Verify

DEVICES = ("auto", "cpu", "gpu")
STATES = ("started", "stopped", "absent")
RUNTIMES = ("container", "venv")

TASKS = ("generate", "embed", "rerank", "score", "classify")
"""What a service is asked for; the first one unless said. Each engine's PATHS say which it can do."""

RESERVED = (".previous", ".next")
"""Ends of names that containers have during a change."""

SECRET_ENV = r"(^|_)(api_?key|token|secret|password)$"  # noqa: S105 - names, no secret
"""Names of variables, in any case, whose values do not belong where `docker inspect` shows them."""

GPU_ENV = (
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    *("ZE_AFFINITY_MASK", "MTHREADS_VISIBLE_DEVICES", "MUSA_VISIBLE_DEVICES"),
)
"""Variables that choose among GPUs unseen by the plan; `gpus` is the word for it."""


@dataclass(frozen=True)
class Service(Options):
    """A served model as the inventory describes it; only ``name`` and, to run, ``model`` and ``port`` must be given.

    In place of ``model`` one server may have several ``models``: pairs of the name that callers use and a reference.

    0 and "" mean that the plan or the engine chooses. ``parallel`` is the engine's DEFAULT_PARALLEL unless given.
    """

    name: str = ""
    engine: str = "llama_server"
    runtime: str = RUNTIMES[0]
    state: str = "started"
    model: str = ""
    model_sha256: str = ""
    task: str = TASKS[0]
    port: int = 0
    bind: str = "127.0.0.1"
    served_name: str = ""
    context_length: int = 0
    parallel: int = 1
    threads: int = 0
    device: str = "auto"
    gpus: tuple[str, ...] = ()
    gpu_layers: int = 0
    cache_type: str = ""
    gpu_memory_utilization: float = 0.0
    tensor_parallel: int = 0
    dtype: str = ""
    memory: str = ""
    cpus: float = 0.0
    image: str = ""
    args: tuple[str, ...] = ()
    env: t.Mapping[str, str] = field(default_factory=dict)
    verify: Verify = field(default_factory=Verify)
    has_api_key: bool = False

    @property
    def more_models(self) -> dict[str, str]:
        """Return key -> reference of the models beside ``model`` that it needs."""
        named = {key: getattr(self, key) for key in MODEL_KEYS[1:] if getattr(self, key)}
        return {**named, **{f"models/{name}": model for name, model in self.models}}

    def alone(self) -> Service:
        """Return the service as it would be without those."""
        nothing: dict[str, t.Any] = dict.fromkeys(MODEL_KEYS[1:], "")
        return replace(self, **nothing, models=(), models_loaded=0)

    @property
    def served_names(self) -> tuple[str, ...]:
        """Return the names that callers use."""
        return tuple(name for name, _ in self.models) or (self.served_name,)

    @property
    def loaded(self) -> int:
        """Return how many models it has in memory at once."""
        return min(max(1, self.models_loaded), len(self.models)) if self.models else 1

    @property
    def public(self) -> bool:
        """Whether other machines can reach the port."""
        return not ipaddress.ip_address(self.bind).is_loopback


_ELSEWHERE: t.Mapping[str, t.Any] = {
    "name": None,
    "api_key": "",
    "models": {},
    "gpus": [],
    "lora": [],
    "args": [],
    "env": {},
    "verify": {},
}
"""Defaults of the keys that a Service holds in another form."""


def default_of(name: str, holder: type[Service] | type[Verify]) -> t.Any:
    """Return what a key is when it is left out, as YAML would say it; None where there is no word for it."""
    default = _ELSEWHERE[name] if name in _ELSEWHERE else getattr(holder, name, None)
    return int(default) if isinstance(default, float) and default.is_integer() else default


KEYS: t.Mapping[str, Key] = {
    "name": Key(
        str,
        "a string",
        "Name of the service and its container on the host.",
        pattern=r"[a-z0-9][a-z0-9_.-]{0,62}",
        must="names the container too: use up to 63 lower-case letters, digits, `_`, `.` or `-`, beginning with a "
        "letter or digit",
    ),
    "engine": Key(str, "a string", "What serves the model."),
    "runtime": Key(
        str,
        "a string",
        "What it runs in: a `container`, or for vllm on hosts without containers a `venv`: docs/venv.md.",
        choices=RUNTIMES,
    ),
    "state": Key(
        str,
        "a string",
        "`started` runs and verifies it, `stopped` keeps the container, `absent` takes it away.",
        choices=STATES,
    ),
    "model": Key(
        str,
        "a string",
        "A name of the catalogue, a model of a hub such as `org/name:Q4_K_M`, a path on the host, a URL together with "
        "`model_sha256`, or `tiny`: docs/models.md.",
    ),
    "model_sha256": Key(
        str,
        "a string",
        "sha256 of the model file; a file that differs is refused.",
        pattern=r"[0-9a-f]{64}",
        must="must be 64 lower-case hexadecimal digits",
    ),
    "task": Key(
        str,
        "a string",
        "What the model is asked for: `generate` text, `embed` texts as vectors, `rerank` documents, `score` pairs of "
        "texts or `classify` them (the last two: vllm only).",
        choices=TASKS,
    ),
    "port": Key(int, "an integer", "TCP port on the host.", minimum=1, maximum=65535),
    "bind": Key(
        str, "an IP address as a string", "Address to listen on; one that other machines reach needs `api_key`."
    ),
    "api_key": Key(
        str,
        "a string",
        "Key that callers send as bearer token.",
        # it stands in a header of HTTP, and among others in a file
        pattern=r"(?!#)[!-+\--~]*",
        must="may not contain white space, commas or other characters than ASCII's, nor begin with #",
        secret=True,
    ),
    "served_name": Key(str, "a string", "Model name that callers use; empty: the name of the service."),
    "context_length": Key(
        int,
        "an integer (tokens)",
        "Tokens that one request may use; 0: 4096 (vllm: 32768), or less where the model was trained for less or no "
        "more fits.",
        minimum=0,
    ),
    "parallel": Key(
        int,
        "an integer",
        "Requests served at the same time, each with its own `context_length`; vllm: 64 unless given.",
        minimum=1,
    ),
    "threads": Key(int, "an integer", "CPU threads of the engine; 0: the engine decides.", minimum=0),
    "device": Key(
        str, "a string", "Where to compute; `auto`: on the GPU when the image is one for GPUs.", choices=DEVICES
    ),
    "gpus": Key(
        list,
        "a list of GPUs",
        "GPUs of the host to use, by number, UUID or PCI address, such as `[0, 1]`; empty: all that can be used.",
    ),
    "gpu_layers": Key(
        int,
        "an integer",
        "Layers of the model on the GPU; 0: all of them, or as many as fit.",
        minimum=0,
        hint="0: all; `device: cpu` for none",
    ),
    "cache_type": Key(
        str, "a string", "Type of the KV cache, such as `q8_0` (llama_server) or `fp8` (vllm); empty: 16 bits."
    ),
    "gpu_memory_utilization": Key(
        (int, float),
        "a number",
        "vllm: part of the GPU's memory to take, such as `0.9`; 0: chosen for it.",
        minimum=0,
        maximum=1,
        hint="it is a part of the GPU's memory, such as 0.9",
    ),
    "tensor_parallel": Key(int, "an integer (GPUs)", "vllm: GPUs that share each layer; 0: chosen for it.", minimum=0),
    "dtype": Key(str, "a string", "vllm: type to compute in, such as `bfloat16`; empty: that of the model."),
    **OPTION_KEYS,
    "memory": Key(
        str,
        "a string such as 8g",
        "Memory limit of the container, such as `8g`; empty: none.",
        pattern=r"[1-9][0-9]*[bkmg]",
        must="must be a whole number followed by b, k, m or g, such as 8g",
    ),
    "cpus": Key((int, float), "a number", "Processors' worth of time that the container may use; 0: all.", minimum=0),
    "image": Key(str, "a string", "Image to run instead of the one of this project."),
    "args": Key(
        list, "a list of strings", "More arguments for the engine; those that another key sets are refused here."
    ),
    "env": Key(
        dict,
        "a mapping of strings",
        "Environment of the container; no secrets, as `docker inspect` shows it.",
        pattern=r"[A-Za-z_][A-Za-z0-9_]*",
        must="has names of letters, digits and `_`, which do not begin with a digit, such as NCCL_DEBUG",
    ),
    "verify": Key(dict, "a mapping", "How the service proves that it is ready."),
}
