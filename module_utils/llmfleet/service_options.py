"""What a service may say about how its engine works, beyond what every service says: keys, defaults and meaning.

What each engine makes of them stands in its table (engines/llama_options.py, engines/vllm_options.py).
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.service_key import Key


@dataclass(frozen=True)
class Options:
    """None, 0, "" and () mean that the engine decides. ``models`` are pairs of name and reference."""

    models: tuple[tuple[str, str], ...] = ()
    models_loaded: int = 0
    pooling: str = ""
    quantization: str = ""
    load_format: str = ""
    load_mode: str = ""
    trust_remote_code: bool = False
    mmproj: str = ""
    lora: tuple[str, ...] = ()
    draft_model: str = ""
    draft_tokens: int = 0
    pipeline_parallel: int = 0
    expert_parallel: bool = False
    split_mode: str = ""
    tensor_split: str = ""
    main_gpu: int = 0
    cpu_moe_layers: int = 0
    cpu_offload: float = 0.0
    kv_offload: float = 0.0
    cache_ram: int | None = None
    prefix_caching: bool | None = None
    batch_size: int = 0
    ubatch_size: int = 0
    chunked_prefill: bool | None = None
    flash_attention: bool | None = None
    enforce_eager: bool | None = None
    threads_batch: int = 0
    numa: str = ""
    max_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    generation_config: str = ""
    seed: int | None = None
    chat_template: str = ""
    jinja: bool | None = None
    grammar: str = ""
    tool_call_parser: str = ""
    reasoning_parser: str = ""
    reasoning_format: str = ""
    reasoning_budget: int | None = None
    log_level: str = ""


NEEDS: t.Mapping[str, tuple[str, str]] = {
    "pooling": ("task", "it says how texts become vectors: set `task: embed` (or rerank, score, classify) too"),
    "models_loaded": ("models", "it is how many of them are in memory at once"),
    "draft_tokens": ("draft_model", "it is about the model that drafts: name one in `draft_model`"),
}
"""Key -> the key that has to be given with it, and why."""

MODEL_KEYS = ("model", "draft_model", "mmproj")
"""Keys that name a model, all in the same words; each comes to the host by itself."""

NOT_WITH_MODELS = ("model", "model_sha256", *MODEL_KEYS[1:], "lora", "chat_template")
"""Keys that are about one model."""

_WORD: dict[str, t.Any] = {
    "pattern": r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    "must": "must be one word, such as vLLM's list of them has it",
}
_BOOL: tuple[t.Any, str] = (bool, "true or false")
_COUNT: tuple[t.Any, str] = (int, "an integer")
_PART: tuple[t.Any, str] = ((int, float), "a number")
_GIB: tuple[t.Any, str] = ((int, float), "a number (GiB)")
_TOKENS: tuple[t.Any, str] = (int, "an integer (tokens)")

OPTION_KEYS: t.Mapping[str, Key] = {
    "models": Key(
        dict,
        "a mapping of names to models",
        "llama_server: several models in place of `model`, by the name that callers use; each is loaded when it is "
        "asked for.",
        pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
        must="has names that callers use: up to 63 letters, digits, `_`, `.` or `-`, beginning with a letter or digit",
    ),
    "models_loaded": Key(
        *_COUNT,
        "How many of `models` are in memory at once; 0: one. For another the one that was not used for longest goes.",
        minimum=0,
    ),
    "pooling": Key(
        str,
        "a string",
        "With `task: embed` and the like: how the tokens of a text become one vector, such as `mean`, `cls` or `last`; "
        "empty: as the model says.",
    ),
    "quantization": Key(
        str,
        "a string",
        "vllm: how weights are quantised, such as `fp8`, `awq` or `bitsandbytes`; empty: as they are.",
        **_WORD,
    ),
    "load_format": Key(
        str,
        "a string",
        "vllm: how weights are read, such as `safetensors` or `dummy`; empty: chosen for them.",
        **_WORD,
    ),
    "load_mode": Key(
        str,
        "a string",
        "llama_server: how the file is read: `mmap`, `none` (into memory at once), `mlock` (and never swapped), `dio` "
        "(past the system's cache).",
        choices=("auto", "none", "mmap", "mlock", "mmap+mlock", "dio"),
    ),
    "trust_remote_code": Key(
        *_BOOL, "vllm: run the program code that the model brings. Read that code first: it may do anything."
    ),
    "mmproj": Key(
        str,
        "a string",
        "llama_server: multimodal projector, in the words of `model`, such as `hf:org/name/mmproj-F16.gguf`.",
    ),
    "lora": Key(
        list,
        "a list of strings",
        "LoRA adapters on the host, each `/path` or `name=/path`: a GGUF file (llama_server), or a folder that callers "
        "name as model (vllm).",
        pattern=r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*=)?/[^,=:\s]+",
        must="must be an absolute path without commas, colons or spaces, or such a one after `name=`",
    ),
    "draft_model": Key(
        str,
        "a string",
        "A small model of the same vocabulary that drafts what the model checks, in the words of `model`.",
    ),
    "draft_tokens": Key(*_COUNT, "Tokens that are drafted at once; 0: 3 (vllm: 5).", minimum=0),
    "pipeline_parallel": Key(int, "an integer (GPUs)", "vllm: groups of GPUs that have the layers in turn.", minimum=0),
    "expert_parallel": Key(*_BOOL, "vllm: each GPU has whole experts instead of a part of each."),
    "split_mode": Key(
        str,
        "a string",
        "llama_server: how several GPUs share the model: by `layer`, `row` or `tensor`, or `none` for one GPU.",
        choices=("none", "layer", "row", "tensor"),
    ),
    "tensor_split": Key(
        str,
        "a string",
        "llama_server: how much each GPU has of the model, such as `3,1`; empty: by their free memory.",
        pattern=r"[0-9]+(?:\.[0-9]+)?(?:,[0-9]+(?:\.[0-9]+)?)*",
        must="must be numbers with commas between them, such as 3,1",
    ),
    "main_gpu": Key(*_COUNT, "llama_server: which GPU with `split_mode: none`, counted from 0.", minimum=0),
    "cpu_moe_layers": Key(
        *_COUNT,
        "llama_server: layers, from the first, whose experts stay in RAM, such as 999 for those of all layers.",
        minimum=0,
    ),
    "cpu_offload": Key(*_GIB, "vllm: GiB of the weights that each GPU leaves in RAM.", minimum=0),
    "kv_offload": Key(*_GIB, "vllm: GiB of RAM for the KV cache of requests that wait or are over.", minimum=0),
    "cache_ram": Key(
        int,
        "an integer (MiB)",
        "llama_server: RAM for what is kept of earlier prompts; left out: up to 8192 MiB; 0: nothing, -1: no bound.",
        minimum=-1,
    ),
    "prefix_caching": Key(*_BOOL, "Whether beginnings that prompts share are computed once; left out: they are."),
    "batch_size": Key(
        *_TOKENS, "Tokens of prompts that are taken up at once; 0: 2048 (llama_server), or chosen (vllm).", minimum=0
    ),
    "ubatch_size": Key(
        *_TOKENS,
        "llama_server: tokens that are computed at once; 0: 512, or for `task: embed` and `rerank` a whole text.",
        minimum=0,
    ),
    "chunked_prefill": Key(*_BOOL, "vllm: whether long prompts are computed in parts between others."),
    "flash_attention": Key(*_BOOL, "llama_server: flash attention; left out: where the device has it."),
    "enforce_eager": Key(
        *_BOOL, "vllm: compile nothing at the start; left out: on a CPU nothing is compiled, on GPUs it is."
    ),
    "threads_batch": Key(*_COUNT, "llama_server: CPU threads for prompts; 0: as `threads`.", minimum=0),
    "numa": Key(
        str,
        "a string",
        "llama_server: how threads and memory are laid out on several memory nodes.",
        choices=("distribute", "isolate", "numactl"),
    ),
    "max_tokens": Key(
        *_TOKENS,
        "Length of replies to those who do not say it, and the most that anybody gets of vllm; 0: up to the context.",
        minimum=0,
    ),
    "temperature": Key(*_PART, "Randomness of replies to those who do not say it.", minimum=0),
    "top_p": Key(*_PART, "Likeliest tokens to choose from, as part of their probability.", minimum=0, maximum=1),
    "top_k": Key(*_COUNT, "Likeliest tokens to choose from, as a number; 0: all.", minimum=0),
    "min_p": Key(*_PART, "Least probability of a token, as part of the likeliest one's.", minimum=0, maximum=1),
    "repetition_penalty": Key(*_PART, "More than 1 makes tokens that were used less likely.", minimum=0),
    "generation_config": Key(
        str,
        "a string",
        "vllm: where to take recommended settings from: `auto` (the model), `vllm` (nowhere) or a folder on the host.",
        pattern=r"auto|vllm|/.+",
        must="must be auto, vllm or the absolute path of a folder on the host",
    ),
    "seed": Key(*_COUNT, "Seed of chance, for replies that can be repeated.", minimum=0),
    "chat_template": Key(
        str,
        "a string",
        "Jinja template of conversations: the path of a file on the host, the template itself (as "
        "`lookup('file', …)` gives it) or, for llama_server, a name that it knows, such as `chatml`.",
    ),
    "jinja": Key(*_BOOL, "llama_server: whether Jinja templates (and with them tools) are used; left out: they are."),
    "grammar": Key(
        str,
        "a string",
        "llama_server: GBNF grammar of every reply: the path of a file on the host, or the grammar itself.",
    ),
    "tool_call_parser": Key(
        str, "a string", "vllm: how the model calls tools, such as `hermes`; empty: tools are off.", **_WORD
    ),
    "reasoning_parser": Key(str, "a string", "vllm: how the model marks its thoughts, such as `qwen3`.", **_WORD),
    "reasoning_format": Key(
        str,
        "a string",
        "llama_server: where thoughts go: `none` leaves them in the reply, `deepseek` gives them a field of their own.",
        choices=("auto", "none", "deepseek", "deepseek-legacy"),
    ),
    "reasoning_budget": Key(
        *_TOKENS, "llama_server: upper bound for the length of thoughts; 0: none, -1: no bound.", minimum=-1
    ),
    "log_level": Key(
        str,
        "a string",
        "How much the engine logs: `info` or more (vllm); on a GPU llama_server logs at least what proves the device.",
        choices=("error", "warning", "info", "debug"),
    ),
}
