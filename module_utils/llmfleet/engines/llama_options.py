"""Which arguments of llama-server say what a service says. Pure data.

Flags and variables are those of commit 0c1e57098 (2026-10-01); tests/integration/test_llama_options.py gives them to a
real server.
"""

from __future__ import annotations

from ansible.module_utils.llmfleet.engines.options import Option, Table


def _own(*flags: str, env: tuple[str, ...] = ()) -> Option:
    return Option(also=flags, env=env, own=True)


OPTIONS: Table = {
    "model": _own(
        *("-m", "--model", "-mu", "--model-url", "-hf", "--hf-repo", "-hff", "--hf-file", "-dr", "--docker-repo"),
        env=("LLAMA_ARG_MODEL",),
    ),
    "models": _own("--models-preset", env=("LLAMA_ARG_MODELS_PRESET",)),
    "models_loaded": _own("--models-max", env=("LLAMA_ARG_MODELS_MAX",)),
    "served_name": _own("-a", "--alias", env=("LLAMA_ARG_ALIAS",)),
    "bind": _own("--host", env=("LLAMA_ARG_HOST",)),
    "port": _own("--port", env=("LLAMA_ARG_PORT",)),
    "api_key": _own("--api-key", "--api-key-file", env=("LLAMA_API_KEY", "LLAMA_ARG_API_KEY_FILE")),
    "context_length": _own("-c", "--ctx-size", env=("LLAMA_ARG_CTX_SIZE",)),
    "parallel": _own("-np", "--parallel", env=("LLAMA_ARG_N_PARALLEL",)),
    "threads": _own("-t", "--threads", env=("LLAMA_ARG_THREADS",)),
    "gpu_layers": _own("-ngl", "--gpu-layers", "--n-gpu-layers", env=("LLAMA_ARG_N_GPU_LAYERS",)),
    # pairs of different types have no GPU kernels in usual builds
    "cache_type": _own(
        *("-ctk", "--cache-type-k", "-ctv", "--cache-type-v"), env=("LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V")
    ),
    "task": Option(
        words={"embed": ("--embeddings",), "rerank": ("--reranking",)},
        also=("--embedding", "--rerank"),
        env=("LLAMA_ARG_EMBEDDINGS", "LLAMA_ARG_RERANKING"),
    ),
    "pooling": Option("--pooling", env=("LLAMA_ARG_POOLING",)),
    "split_mode": Option("--split-mode", ("-sm",), ("LLAMA_ARG_SPLIT_MODE",)),
    "tensor_split": Option("--tensor-split", ("-ts",), ("LLAMA_ARG_TENSOR_SPLIT",)),
    "main_gpu": Option("--main-gpu", ("-mg",), ("LLAMA_ARG_MAIN_GPU",)),
    "cpu_moe_layers": Option(
        "--n-cpu-moe", ("-ncmoe", "-cmoe", "--cpu-moe"), ("LLAMA_ARG_N_CPU_MOE", "LLAMA_ARG_CPU_MOE")
    ),
    "threads_batch": Option("--threads-batch", ("-tb",)),
    "batch_size": Option("--batch-size", ("-b",), ("LLAMA_ARG_BATCH",)),
    "ubatch_size": Option("--ubatch-size", ("-ub",), ("LLAMA_ARG_UBATCH",)),
    # bare in builds of 2025, which is the same as auto there
    "flash_attention": Option(
        words={True: ("--flash-attn", "on"), False: ("--flash-attn", "off")},
        also=("-fa",),
        env=("LLAMA_ARG_FLASH_ATTN",),
    ),
    "prefix_caching": Option(
        words={True: ("--cache-prompt",), False: ("--no-cache-prompt",)}, env=("LLAMA_ARG_CACHE_PROMPT",)
    ),
    "cache_ram": Option("--cache-ram", ("-cram",), ("LLAMA_ARG_CACHE_RAM",)),
    "load_mode": Option("--load-mode", ("-lm",), ("LLAMA_ARG_LOAD_MODE",)),
    "numa": Option("--numa", env=("LLAMA_ARG_NUMA",)),
    "max_tokens": Option("--predict", ("-n", "--n-predict"), ("LLAMA_ARG_N_PREDICT",)),
    "temperature": Option("--temp", ("--temperature",), ("LLAMA_ARG_TEMPERATURE",)),
    "top_p": Option("--top-p", env=("LLAMA_ARG_TOP_P",)),
    "top_k": Option("--top-k", env=("LLAMA_ARG_TOP_K",)),
    "min_p": Option("--min-p", env=("LLAMA_ARG_MIN_P",)),
    "repetition_penalty": Option("--repeat-penalty", env=("LLAMA_ARG_REPEAT_PENALTY",)),
    "seed": Option("--seed", ("-s",)),
    "jinja": Option(words={True: ("--jinja",), False: ("--no-jinja",)}, env=("LLAMA_ARG_JINJA",)),
    "chat_template": Option(
        "--chat-template-file",
        env=("LLAMA_ARG_CHAT_TEMPLATE", "LLAMA_ARG_CHAT_TEMPLATE_FILE"),
        file=True,
        text_flag="--chat-template",
    ),
    "reasoning_format": Option("--reasoning-format", env=("LLAMA_ARG_THINK",)),
    "reasoning_budget": Option("--reasoning-budget", env=("LLAMA_ARG_THINK_BUDGET",)),
    "grammar": Option("--grammar-file", file=True, text_flag="--grammar"),
    "mmproj": Option("--mmproj", ("-mm", "--mmproj-url", "-mmu"), ("LLAMA_ARG_MMPROJ", "LLAMA_ARG_MMPROJ_URL")),
    "draft_model": Option(
        "--model-draft",
        ("-md", "--spec-draft-model", "-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"),
        ("LLAMA_ARG_SPEC_DRAFT_MODEL", "LLAMA_ARG_MODEL_DRAFT", "LLAMA_ARG_SPEC_DRAFT_HF_REPO"),
        # a draft model alone is loaded and not used; `args` may name another type after it
        before=("--spec-type", "draft-simple"),
    ),
    "draft_tokens": Option("--spec-draft-n-max", env=("LLAMA_ARG_SPEC_DRAFT_N_MAX",)),
    "lora": Option("--lora", ("--lora-scaled",), file=True, listed=","),
    "log_level": _own("-lv", "--verbosity", "--log-verbosity", env=("LLAMA_ARG_LOG_VERBOSITY",)),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "cache_type": ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"),
    "pooling": ("none", "mean", "cls", "last", "rank"),
}

VERBOSITY = {"error": 1, "warning": 2, "info": 3, "debug": 5}
"""log_level -> what the server calls it."""

_GIVEN = "a GGUF says the types of its weights; choose a quantisation in `model`"
_ALWAYS = "llama-server does so by itself"

REFUSED_FIELDS = {
    "gpu_memory_utilization": "llama-server takes what the model and its context need; set `gpu_layers` for less",
    "tensor_parallel": "llama-server spreads a model over the GPUs it has by itself",
    "pipeline_parallel": "llama-server spreads a model over the GPUs it has by itself",
    "expert_parallel": "llama-server spreads a model over the GPUs it has by itself",
    "dtype": _GIVEN,
    "quantization": _GIVEN,
    "load_format": "it reads GGUF files only",
    "trust_remote_code": "a GGUF brings no program code",
    "enforce_eager": "it compiles nothing",
    "chunked_prefill": f"{_ALWAYS}; `batch_size` says how much at once",
    "cpu_offload": "set `gpu_layers` or `cpu_moe_layers`",
    "kv_offload": "set `cache_ram`",
    "generation_config": "a GGUF holds what it recommends; set `temperature` and the like",
    "tool_call_parser": f"{_ALWAYS}, by the chat template of the model",
    "reasoning_parser": "set `reasoning_format`",
}

_REMOVED_LOADING = "it was removed from llama-server; say it with `load_mode` (mmap, none, mlock)"
_REMOVED_DRAFT = "it was removed from llama-server; say it with `draft_tokens`"
_REMOVED_NGRAM = "it was removed from llama-server; each type of speculation has its own: --spec-ngram-mod-n-match"
_ROUTER = "it makes llama-server a router, which answers ready without a model: say it with `models`"
_TOOLS = "it lets callers run commands or read files on the server"

REFUSED_FLAGS = {
    **dict.fromkeys(("--models-dir", "--models-autoload", "--no-models-autoload"), _ROUTER),
    **dict.fromkeys(
        (
            *("--tools", "--agent", "--ui-mcp-proxy", "--webui-mcp-proxy", "-ag", "--tools-runtime"),
            *("--mcp-servers-config", "--mcp-servers-json", "--media-path"),
        ),
        _TOOLS,
    ),
    **dict.fromkeys(("--mmap", "--no-mmap", "--mlock"), _REMOVED_LOADING),
    **dict.fromkeys(("--draft", "--draft-n", "--draft-max", "--draft-min", "--draft-n-min"), _REMOVED_DRAFT),
    **dict.fromkeys(("--spec-ngram-size-n", "--spec-ngram-size-m", "--spec-ngram-min-hits"), _REMOVED_NGRAM),
    "--quantize": f"llama-server has no such flag: {_GIVEN}, or make one with playbooks/quantize.yml",
    "--quantization": f"llama-server has no such flag: {_GIVEN}, or make one with playbooks/quantize.yml",
    "--dtype": f"llama-server has no such flag: {_GIVEN}",
    "--max-gpu-memory": "no engine has such a flag; say it with `gpu_layers`, which the memory plan fills in",
    "--local-dir-use-symlinks": "it was a flag of huggingface-cli and is gone; llmfleet fetches models by itself",
}
"""Flags that are never right here, with the reason or the replacement."""

REFUSED_ENV = {
    "VLLM_GPU_MEM_FRACTION": "no engine has such a variable; llama-server takes what it needs (`gpu_layers`)",
    **dict.fromkeys(("LLAMA_ARG_MODELS_DIR", "LLAMA_ARG_MODELS_AUTOLOAD"), _ROUTER),
    **dict.fromkeys(
        ("LLAMA_ARG_TOOLS", "LLAMA_ARG_AGENT", "LLAMA_ARG_MCP_SERVERS_CONFIG", "LLAMA_ARG_MCP_SERVERS_JSON"), _TOOLS
    ),
    **dict.fromkeys(("LLAMA_ARG_DRAFT_MAX", "LLAMA_ARG_DRAFT_MIN"), _REMOVED_DRAFT),
    **dict.fromkeys(("LLAMA_ARG_MMAP", "LLAMA_ARG_NO_MMAP", "LLAMA_ARG_MLOCK"), _REMOVED_LOADING),
}
"""Variables that are never right here, with the reason or the replacement."""
