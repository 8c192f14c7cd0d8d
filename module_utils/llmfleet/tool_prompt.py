"""One prompt answered by llama-completion: its arguments, what it prints, and the command for a person. Pure.

Flags and lines are those of tools/completion and tools/cli of commit 0c1e57098.
"""

from __future__ import annotations

import re
import shlex
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.engines import llama_offload
from ansible.module_utils.llmfleet.engines.base import DeviceError
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError

PROMPT = "/run/llmfleet/prompt"
SYSTEM = "/run/llmfleet/system"
MODELS = "/models"
_END = re.compile(r"\s*\[end of text\]\s*\Z")
_RATE = re.compile(r"\b(?P<what>prompt eval|eval) time =.*\(.*?(?P<rate>[\d.]+) tokens per second\)")


@dataclass(frozen=True)
class Ask:
    """What to ask a model and how. Lengths in tokens; 0 and -1 leave a value to the program."""

    prompt: str
    system: str = ""
    chat: bool = True
    """Whether the prompt is put into the model's chat template, instead of being continued as it stands."""
    max_tokens: int = 256
    context_length: int = 0
    threads: int = 0
    temperature: float = -1.0
    seed: int = -1
    gpu: bool = False


def check(ask: Ask) -> None:
    """Raise BadInput for what no model can be asked."""
    if not ask.prompt.strip():
        raise BadInput("the prompt is empty; write what to ask, for an interactive session see `command`")
    if ask.max_tokens < 1:
        raise BadInput(f"max_tokens must be at least 1, not {ask.max_tokens}")
    if ask.context_length < 0 or ask.threads < 0:
        raise BadInput("context_length and threads must not be negative; 0 leaves them to the program")
    if ask.system and not ask.chat:
        raise BadInput("a system prompt needs the model's chat template; set chat to true, or take it out")


def argv(ask: Ask, model: str) -> list[str]:
    """Return the arguments of llama-completion for the model called ``model`` in MODELS."""
    words = ["--model", f"{MODELS}/{model}", "--file", PROMPT, "--predict", str(ask.max_tokens), "--no-escape"]
    words += ["--conversation", "--single-turn"] if ask.chat else ["--no-conversation"]
    words += ["--system-prompt-file", SYSTEM] if ask.system else []
    words += ["--seed", str(ask.seed)] if ask.seed >= 0 else []
    words += ["--temp", str(ask.temperature)] if ask.temperature >= 0 else []
    # at this verbosity the log proves that the GPU is used
    words += ["--log-verbosity", str(llama_offload.PROVING)] if ask.gpu else []
    return [*words, "--no-display-prompt", "--simple-io", "--offline", *_common(ask)]


def _common(ask: Ask) -> list[str]:
    words = ["--ctx-size", str(ask.context_length)] if ask.context_length else []
    words += ["--threads", str(ask.threads)] if ask.threads else []
    # a number of layers is understood by every build
    return [*words, "--n-gpu-layers", str(llama_offload.ALL_LAYERS if ask.gpu else 0)]


def interactive(ask: Ask, model: str) -> list[str]:
    """Return the arguments of llama-cli for a person who wants to talk with the model."""
    return ["--model", f"{MODELS}/{model}", "--offline", *_common(ask)]


def command(docker: str, words: t.Sequence[str]) -> str:
    """Return a command line to copy."""
    return " ".join(shlex.quote(word) for word in (docker, *words))


def reply(out: str) -> str:
    """Return the model's words in what llama-completion printed."""
    return _END.sub("", out).strip()


def whole(out: str) -> bool:
    """Whether all of the model's words were printed, which two ends of line follow.

    The program prints in a thread of its own and does not wait for it when it ends (upstream issue 22142), so a model
    that is done within milliseconds loses its last words, or all of them.
    """
    return out.endswith("\n\n")


def ended(out: str) -> bool:
    """Whether the model ended by itself, rather than at the last token allowed."""
    return _END.search(out) is not None


def device(ask: Ask, err: str, variant: str) -> str:
    """Return what the model ran on; raises LlmfleetError when that is not the GPU which it was given.

    ``variant`` is the back-end that the image's label names, "" without one.
    """
    if not ask.gpu:
        return "CPU"
    try:
        return llama_offload.judge(err, llama_offload.ALL_LAYERS, None, fresh=True, variant=variant)
    except DeviceError as error:
        found = error.diagnosis
        raise LlmfleetError(f"{found['cause']} ({found['evidence']}); {found['fix']}") from None


def speeds(err: str) -> dict[str, float]:
    """Return tokens per second of reading the prompt and of writing, as far as the program said them."""
    found = {match["what"]: float(match["rate"]) for match in _RATE.finditer(err)}
    return {name: found[what] for what, name in (("prompt eval", "prompt"), ("eval", "generation")) if what in found}
