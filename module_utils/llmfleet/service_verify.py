"""What a service may say about its verification: keys, defaults and meaning."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.service_key import Key

LEVELS = ("process", "http", "model", "token", "device")
"""Verification levels in the order they are reached; each includes those before it. `device` is for GPUs only."""

NEEDS_TOKEN = ("answer", "min_tokens_per_second", "max_first_token_seconds")
"""Keys of `verify` that can only be judged by a reply."""


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

    def put_back(self) -> Verify:
        """Return what the previous service must reach when a roll-out failed, whose bounds it was not accepted by."""
        return Verify(level=self.level, timeout=self.timeout)

    def goal(self, on_gpu: bool) -> str:
        """Return the level to reach: without a word of the user `token`, and `device` on a GPU."""
        if self.level in ("", "device"):
            return "device" if on_gpu else "token"
        return self.level


VERIFY_KEYS: t.Mapping[str, Key] = {
    "level": Key(
        str,
        "a string",
        "How far to go: `process` (runs), `http` (healthy), `model` (listed), `token` (answered a prompt), `device` "
        "(did so on the GPU); empty: `device` on a GPU, `token` on a CPU.",
        choices=LEVELS,
    ),
    "prompt": Key(str, "a string", "What to ask."),
    "max_tokens": Key(int, "an integer", "Upper bound for the length of the reply in tokens.", minimum=1),
    "answer": Key(str, "a string", "Text that the reply must contain."),
    "min_tokens_per_second": Key(
        (int, float), "a number", "Floor for the generation speed in tokens per second; 0: none.", minimum=0
    ),
    "max_first_token_seconds": Key(
        (int, float), "a number", "Ceiling for the time to the first token in seconds; 0: none.", minimum=0
    ),
    "timeout": Key(
        int,
        "an integer (seconds)",
        "Seconds after which a start that still makes progress is given up; a crash fails at once.",
        minimum=1,
    ),
}
