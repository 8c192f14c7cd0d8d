"""What a service has: its fields, their types and defaults. What they may hold is checked in services."""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import dataclass, field

LEVELS = ("process", "http", "model", "token", "device")
"""Verification levels in the order they are reached; each includes those before it. `device` is for GPUs only."""

DEVICES = ("auto", "cpu", "gpu")
STATES = ("started", "stopped", "absent")


@dataclass(frozen=True)
class Verify:
    """How a service proves that it is ready. Times in seconds, speed in tokens per second; 0 sets no bound."""

    level: str = ""
    prompt: str = "Say hello in one short sentence."
    max_tokens: int = 64
    answer: str = ""
    min_tokens_per_second: float = 0.0
    max_first_token_seconds: float = 0.0
    timeout: int = 3600

    def goal(self, on_gpu: bool) -> str:
        """Return the level to reach: without a word of the user `token`, and `device` on a GPU."""
        if self.level in ("", "device"):
            return "device" if on_gpu else "token"
        return self.level


@dataclass(frozen=True)
class Service:
    """A served model as the inventory describes it; only ``name`` and, to run, ``model`` and ``port`` must be given.

    0 and "" mean that the plan or the engine chooses. ``parallel`` is the engine's DEFAULT_PARALLEL unless given.
    """

    name: str
    engine: str = "llama_server"
    state: str = "started"
    model: str = ""
    model_sha256: str = ""
    port: int = 0
    bind: str = "127.0.0.1"
    served_name: str = ""
    context_length: int = 0
    parallel: int = 1
    threads: int = 0
    device: str = "auto"
    gpu_layers: int = 0
    cache_type: str = ""
    gpu_memory_utilization: float = 0.0
    tensor_parallel: int = 0
    dtype: str = ""
    memory: str = ""
    image: str = ""
    args: tuple[str, ...] = ()
    env: t.Mapping[str, str] = field(default_factory=dict)
    verify: Verify = Verify()
    has_api_key: bool = False

    @property
    def public(self) -> bool:
        """Whether other machines can reach the port."""
        return not ipaddress.ip_address(self.bind).is_loopback


TYPES: t.Mapping[str, tuple[t.Any, str]] = {
    "name": (str, "a string"),
    "engine": (str, "a string"),
    "state": (str, "a string"),
    "model": (str, "a string"),
    "model_sha256": (str, "a string"),
    "port": (int, "an integer"),
    "bind": (str, "an IP address as a string"),
    "api_key": (str, "a string"),
    "served_name": (str, "a string"),
    "context_length": (int, "an integer (tokens)"),
    "parallel": (int, "an integer"),
    "threads": (int, "an integer"),
    "device": (str, "a string"),
    "gpu_layers": (int, "an integer"),
    "cache_type": (str, "a string"),
    "gpu_memory_utilization": ((int, float), "a number"),
    "tensor_parallel": (int, "an integer (GPUs)"),
    "dtype": (str, "a string"),
    "memory": (str, "a string such as 8g"),
    "image": (str, "a string"),
    "args": (list, "a list of strings"),
    "env": (dict, "a mapping of strings"),
    "verify": (dict, "a mapping"),
}
VERIFY_TYPES: t.Mapping[str, tuple[t.Any, str]] = {
    "level": (str, "a string"),
    "prompt": (str, "a string"),
    "max_tokens": (int, "an integer"),
    "answer": (str, "a string"),
    "min_tokens_per_second": ((int, float), "a number"),
    "max_first_token_seconds": ((int, float), "a number"),
    "timeout": (int, "an integer (seconds)"),
}
