"""Which arguments of vLLM say what a service says, as its sources of 0.32.0 and 0.33.0 have them. Pure data.

tests/integration/test_vllm_options.py gives them to vLLM's own parser.
"""

from __future__ import annotations

from ansible.module_utils.llmfleet.engines.options import Option, Table

_SAMPLING = "--override-generation-config"
_SPECULATION = "--speculative-config"


def _own(*flags: str, env: tuple[str, ...] = ()) -> Option:
    return Option(also=flags, env=env, own=True)


OPTIONS: Table = {
    "model": _own("--model", "--tokenizer", "--revision", "--download-dir"),
    "served_name": _own("--served-model-name"),
    "bind": _own("--host"),
    "port": _own("--port", "--uds"),
    "api_key": _own("--api-key", env=("VLLM_API_KEY",)),
    "context_length": _own("--max-model-len"),
    "parallel": _own("--max-num-seqs"),
    "threads": _own(env=("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND")),
    "dtype": _own("--dtype"),
    "cache_type": _own("--kv-cache-dtype"),
    "gpu_memory_utilization": _own("--gpu-memory-utilization", "--device-memory-utilization"),
    "tensor_parallel": _own("--tensor-parallel-size", "-tp"),
    # on a CPU it is so unless said otherwise
    "enforce_eager": _own("--enforce-eager", "--no-enforce-eager"),
    "task": Option(
        words=dict.fromkeys(("embed", "rerank", "score", "classify"), ("--runner", "pooling")), also=("--task",)
    ),
    "pooling": Option(
        "--pooler-config", member="pooling_type", words={word: (word.upper(),) for word in ("mean", "cls", "last")}
    ),
    "pipeline_parallel": Option("--pipeline-parallel-size", ("-pp",)),
    "expert_parallel": Option("--enable-expert-parallel", ("-ep", "--no-enable-expert-parallel"), words={False: ()}),
    "quantization": Option("--quantization", ("-q",)),
    "load_format": Option("--load-format"),
    "trust_remote_code": Option("--trust-remote-code", ("--no-trust-remote-code",), words={False: ()}),
    "batch_size": Option("--max-num-batched-tokens"),
    "chunked_prefill": Option(words={True: ("--enable-chunked-prefill",), False: ("--no-enable-chunked-prefill",)}),
    "prefix_caching": Option(words={True: ("--enable-prefix-caching",), False: ("--no-enable-prefix-caching",)}),
    "cpu_offload": Option("--cpu-offload-gb"),
    "kv_offload": Option("--kv-offloading-size"),
    "generation_config": Option("--generation-config", file=True),
    "max_tokens": Option(_SAMPLING, member="max_new_tokens"),
    "temperature": Option(_SAMPLING, member="temperature"),
    "top_p": Option(_SAMPLING, member="top_p"),
    "top_k": Option(_SAMPLING, member="top_k"),
    "min_p": Option(_SAMPLING, member="min_p"),
    "repetition_penalty": Option(_SAMPLING, member="repetition_penalty"),
    "seed": Option("--seed"),
    "chat_template": Option("--chat-template", file=True),
    "tool_call_parser": Option(
        "--tool-call-parser", ("--enable-auto-tool-choice",), before=("--enable-auto-tool-choice",)
    ),
    "reasoning_parser": Option("--reasoning-parser"),
    "draft_model": Option(_SPECULATION, ("-sc", "--spec-model"), member="model"),
    "draft_tokens": Option(_SPECULATION, ("-sc", "--spec-tokens"), member="num_speculative_tokens"),
    "lora": Option("--lora-modules", ("--enable-lora",), before=("--enable-lora",), file=True),
    "log_level": Option(variable="VLLM_LOGGING_LEVEL", words={word: (word.upper(),) for word in ("info", "debug")}),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "cache_type": ("auto", "fp8"),
    "dtype": ("auto", "half", "float16", "bfloat16", "float", "float32"),
    "pooling": ("mean", "cls", "last"),
    # what stands at level info tells how far a start is, and proves the device
    "log_level": ("info", "debug"),
}

_LAYERS = "vLLM has all layers on the GPUs; for a part of them use engine llama_server"
_SPREAD = "vLLM spreads a model evenly; set `tensor_parallel` or `pipeline_parallel`"

REFUSED_FIELDS = {
    "models": "vLLM serves one model; make a service of each",
    "models_loaded": "vLLM serves one model; make a service of each",
    "gpu_layers": _LAYERS,
    "cpu_moe_layers": "vLLM has all layers on the GPUs; set `cpu_offload` for a part of the weights in RAM",
    "split_mode": _SPREAD,
    "tensor_split": _SPREAD,
    "main_gpu": _SPREAD,
    "threads_batch": "set `threads`",
    "ubatch_size": "vLLM computes `batch_size` tokens at once",
    "flash_attention": "vLLM chooses its attention by itself; `args: [--attention-backend, …]` names another",
    "cache_ram": "set `kv_offload`",
    "load_mode": "set `load_format`",
    "numa": "it is about llama-server; `args: [--numa-bind]` is vLLM's own",
    "jinja": "vLLM's chat templates are always Jinja",
    "reasoning_format": "set `reasoning_parser`",
    "reasoning_budget": "callers say it with each request",
    "grammar": "callers say it with each request (structured outputs)",
    "mmproj": "a model of Hugging Face's format brings its own",
}

_EIGHT_BITS = "vLLM does not quantise so; name a model that is quantised, or set `quantization: fp8` or bitsandbytes"

REFUSED_WORDS: dict[str, dict[str, str]] = {
    "quantization": dict.fromkeys(("int8", "int4", "nf4", "8bit", "4bit"), _EIGHT_BITS),
    "dtype": dict.fromkeys(("int8", "int4", "fp8"), "it is the type to compute in; set `quantization` instead"),
}
"""Field -> word that guides use and vLLM does not know -> what to do instead."""

REFUSED_FLAGS = {
    "--config": "it could set anything that is checked here, unseen",
    "--middleware": "llmfleet's own, which asks for the API key, would not be the only one",
    "--hf-token": "a token does not belong on a command line; models are fetched before the service starts",
    "--headless": "it serves nobody",
    "--quantize": "vLLM has no such flag; say it with `quantization` (for nf4: `quantization: bitsandbytes`)",
    "--max-gpu-memory": "no engine has such a flag; say it with `gpu_memory_utilization`, a part such as 0.9",
    "--local-dir-use-symlinks": "it was a flag of huggingface-cli and is gone; llmfleet fetches models by itself",
    "--swap-space": "it was removed from vLLM; say it with `kv_offload`",
    "--speculative-model": "it was removed from vLLM; say it with `draft_model`",
    "--num-speculative-tokens": "it was removed from vLLM; say it with `draft_tokens`",
    "--enable-reasoning": "it was removed from vLLM; `reasoning_parser` suffices",
    "--disable-log-requests": "it was removed from vLLM, which logs no requests unless asked; leave it out",
    "--use-v2-block-manager": "it was removed from vLLM; leave it out",
    "--num-scheduler-steps": "it was removed from vLLM; leave it out",
    "--max-seq-len-to-capture": "it was removed from vLLM; --max-cudagraph-capture-size is near to it",
    "--guided-decoding-backend": "it was removed from vLLM; --structured-outputs-config takes its place",
    "--worker-use-ray": "it was removed from vLLM; --distributed-executor-backend takes its place",
    "--rope-scaling": "it was removed from vLLM; --hf-overrides takes its place",
    "--device": "it was removed from vLLM; say it with `device` and the image",
}
"""Flags that are never right here, with the reason or the replacement."""

REFUSED_ENV = {
    "VLLM_GPU_MEM_FRACTION": "vLLM has no such variable; say it with `gpu_memory_utilization`",
    "PYTHONPATH": "llmfleet's own, which asks for the API key, stands there",
    "VLLM_SERVER_DEV_MODE": "it opens paths that let callers run code on the server",
}
"""Variables that are never right here, with the reason or the replacement."""
