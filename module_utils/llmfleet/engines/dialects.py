"""What engines answer beside the API in the style of OpenAI: their metrics, their tokens, and what must stay closed."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

Data = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Dialect:
    """The paths of one engine that no other program would look for."""

    metrics: str
    """How each name in its metrics begins."""
    to_tokens: t.Callable[[str, str], Data]
    """(served name, text) -> what to POST to /tokenize."""
    to_text: t.Callable[[str, t.Sequence[int]], Data]
    """(served name, tokens) -> what to POST to /detokenize."""
    text: str
    """The key of the text that /detokenize answers."""
    guarded: tuple[str, ...]
    """More paths that must not answer without the API key, where a service has one."""


DIALECTS: t.Mapping[str, Dialect] = {
    "llama_server": Dialect(
        metrics="llamacpp:",
        to_tokens=lambda name, text: {"model": name, "content": text, "add_special": False},
        to_text=lambda name, tokens: {"model": name, "tokens": list(tokens)},
        text="content",
        guarded=("/props", "/slots", "/completion", "/infill", "/apply-template", "/lora-adapters", "/rerank"),
    ),
    "vllm": Dialect(
        metrics="vllm:",
        to_tokens=lambda name, text: {"model": name, "prompt": text, "add_special_tokens": False},
        to_text=lambda name, tokens: {"model": name, "tokens": list(tokens)},
        text="prompt",
        # "Unprotected Endpoints" in its docs/usage/security.md
        guarded=(
            *("/invocations", "/generative_scoring", "/pooling", "/classify", "/score", "/rerank"),
            *("/pause", "/resume", "/abort_requests", "/scale_elastic_ep", "/update_weights", "/get_world_size"),
            *("/version", "/load", "/sleep", "/wake_up", "/collective_rpc", "/server_info", "/docs", "/openapi.json"),
        ),
    ),
}
"""Engine name -> what it has. An engine without an entry is asked for its API only."""
