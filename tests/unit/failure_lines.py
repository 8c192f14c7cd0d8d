"""What engines printed when they failed: one line for each row of the failure tables, and where it is from.

What needs no GPU is provoked with the real engine, llama-server in tests/integration/test_failures.py and
test_llm_service.py, vLLM in test_vllm_failures.py and test_vllm.py. Whole logs of vLLM's failures are in
tests/fixtures/engine_logs; the other lines stand in the sources named.
"""

from __future__ import annotations

import typing as t
from pathlib import Path

LOGS = Path(__file__).resolve().parents[1] / "fixtures" / "engine_logs"
PROVOKED = "provoked"


class Line(t.NamedTuple):
    """A line, words of the cause that the table finds for it, and where the line is from."""

    line: str
    words: str
    source: str = PROVOKED


LLAMA_SERVER = (
    Line("E gguf_init_from_file: failed to open GGUF file '/models/m.gguf' (Permission denied)", "may not read"),
    Line("E gguf_init_from_file: failed to open GGUF file '/m.gguf' (No such file or directory)", "is not there"),
    Line("gguf_init_from_reader: invalid magic characters: '<!do', expected 'GGUF'", "begins with '<!do'"),
    Line("gguf_init_from_reader: failed to read magic", "truncated or corrupt"),
    Line("llama_model_load: error loading model: unknown model architecture: 'zzzzz'", "architecture zzzzz"),
    Line("this GGUF file is version 99 but this software only supports up to version 3", "has GGUF version 99"),
    Line("error loading model: illegal split file idx: 1 (file: m)", "(index 1), not its first part"),
    Line(
        "failed to load GGUF split from /models/lone-00002-of-00002.gguf",
        "missing or renamed (/models/lone-00002-of-00002.gguf",
    ),
    Line("E cmn  common_init_: failed to load lora adapter '/models/tiny.gguf'", "LoRA adapter /models/tiny.gguf"),
    Line("E srv    load_model: failed to load multimodal model, '/models/tiny.gguf'", "projector /models/tiny.gguf"),
    Line("E srv    load_model: failed to load draft model, '/models/tensor.gguf'", "draft model"),
    Line("E common_chat_templates_init: failed to initialize chat template", "chat template has an error"),
    Line(
        "E llama_init_from_model: K cache type q8_0 with block size 32 does not divide n_embd_head_k=16",
        "heads (16 numbers) cannot be kept in a cache of type q8_0",
    ),
    Line(
        "http://127.0.0.1:1/v1/embeddings says HTTP 400: Pooling type 'none' is not OAI compatible. Please use",
        "how its tokens become one vector",
        "tools/server/server-context.cpp",
    ),
    Line("E llama_init_from_model: quantized V cache requires flash_attn to be enabled", "needs flash attention"),
    Line("  what():  failed to parse grammar", "grammar has an error"),
    Line("E srv  init_listene: the server is built without SSL support", "does no TLS"),
    Line("error: invalid argument: --no-such-flag", "does not know the argument --no-such-flag"),
    Line("the argument has been removed. use --spec-draft-n-max", "was removed"),
    Line('error while handling argument "--device": invalid device: CUDA0', "has no device CUDA0"),
    Line('error while handling argument "-c": stoi', "refuses the value of -c"),
    Line("couldn't bind HTTP server socket, hostname: 0.0.0.0, port: 8080", "port 8080 is taken"),
    Line(
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 1 MiB on device 0: cudaMalloc failed: out of memory",
        "GPU has too little",
        "ggml/src/ggml-cuda/ggml-cuda.cu",
    ),
    Line("E failed to allocate buffer for kv cache", "the context does not fit"),
    Line("alloc_tensor_range: unable to allocate CPU buffer of size 1", "the model does not fit into memory"),
    Line(
        "CUDA error: no kernel image is available for execution on the device",
        "holds no code",
        "ggml/src/ggml-cuda/ggml-cuda.cu",
    ),
    Line(
        "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version",
        "driver is too old",
        "the CUDA runtime's error 35",
    ),
    Line(
        "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
        "was given no GPU",
        "the CUDA runtime's error 100",
    ),
    Line(
        "ggml_cuda_init: failed to initialize CUDA: system has unsupported display driver / cuda driver combination",
        "do not match",
        "the CUDA runtime's error 803",
    ),
    Line(
        "ggml_cuda_init: failed to initialize ROCm: out of memory",
        "ROCm did not start: out of memory",
        "ggml/src/ggml-cuda/ggml-cuda.cu",
    ),
    Line(
        "llama-server: error while loading shared libraries: libcuda.so.1: cannot open shared object file",
        "lacks libcuda.so.1",
        "the loader's words, printed by an image for GPUs on a host without one",
    ),
    Line("Illegal instruction (core dumped)", "another processor", "the shell's words for SIGILL"),
    Line("error: something else", "something else", "common/arg.cpp"),
    Line("E srv main: exiting due to model loading error", "could not load"),
)

VLLM = (
    Line(
        "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory "
        "utilization (0.92, 72.8 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        "another program holds memory of cuda:0 (3.1/79.1 GiB free)",
        "vllm/v1/worker/utils.py",
    ),
    Line(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "the GPU has too little memory",
        "c10/cuda/CUDACachingAllocator.cpp of PyTorch",
    ),
    Line(
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has "
        "compute capability 7.5. You can use float16 instead by explicitly setting the `dtype` flag in CLI",
        "Tesla T4 does not compute in bfloat16",
        "vllm/platforms/cuda.py",
    ),
    Line(
        "ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 80. Current "
        "capability: 75.",
        "cannot compute with fp8 weights",
        "vllm/config/vllm.py",
    ),
    Line(
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
        "holds no code",
        "the CUDA runtime's error 209",
    ),
    Line(
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update",
        "driver is too old",
        "torch/csrc/cuda/Module.cpp",
    ),
    Line(
        "HTTP 400: As of transformers v4.44, default chat template is no longer allowed, so you must provide",
        "brings no chat template",
        "vllm/renderers/hf.py",
    ),
    Line("RuntimeError: Failed to infer device type", "has no GPU", "vllm/config/device.py"),
    Line(
        "ValueError: World size (4) is larger than the number of available GPUs (2) in this node.",
        "4 GPUs were asked for, and the container has 2",
        "vllm/config/parallel.py",
    ),
    Line(
        "ValueError: Unsupported CPU attention configuration: head_dim=16",
        "attention heads of 16 numbers",
    ),
    Line(
        "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "cannot talk to each other: unhandled system error",
        "vllm/distributed/device_communicators/pynccl_wrapper.py",
    ),
    Line(
        "TimeoutError: Timed out waiting for engine core processes to start. This is often caused by",
        "did not start within its own time limit",
        "vllm/v1/engine/core_client.py",
    ),
    Line("ValueError: something new", "vLLM stopped: something new", "the form of Python's exceptions"),
)
"""Of the rows that no log in tests/fixtures/engine_logs shows."""

VLLM_LOGS = {
    "architecture": "does not know the model architecture 'ZzzzForCausalLM'",
    "cache": "does not hold one request",
    "code": "brings its own program code",
    "empty": "not there inside the container",
    "flag": "does not know the arguments --no-such-flag",
    "gated": "gated",
    "heads": "cannot be split over that many GPUs",
    "host-memory": "too little free memory",
    "killed-core": "died while vLLM served",
    "killed-start": "engine could not start",
    "length": "made for less than 100000 tokens",
    "missing": "not there inside the container",
    "model-type": "does not know the model architecture `zzzz`",
    "no-cache": "leave no memory for the cache",
    "no-weights": "holds no weights",
    "numa": "memory node of its own",
    "offline": "wants a file of the hub",
    "port": "port is taken",
    "shared": "shared memory",
    "truncated": "truncated or corrupt",
    "unreadable": "may not use /models/tiny-hf/config.json",
    "value": "vLLM refuses its arguments: argument --max-num-seqs",
}
"""Log in tests/fixtures/engine_logs/vllm -> words of the cause."""
