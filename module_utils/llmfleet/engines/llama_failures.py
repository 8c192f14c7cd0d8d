"""What llama-server prints while it starts, and what its failures mean.

Log lines were read from the sources of commit 0c1e57098 (2026-10-01). The failure rows that need no GPU are provoked
with a real server in tests/integration/test_failures.py; those about GPUs are recorded lines.
"""

from __future__ import annotations

from ansible.module_utils.llmfleet.engines.base import Failure, Phase
from ansible.module_utils.llmfleet.engines.llama_offload import GPU_FAILURES

PHASES = (
    Phase("starting", "", 60),
    Phase("loading model", r"load_model: loading model|loading model", 600),
    Phase("warming up", r"warming up|model loaded", 300),
)

FAILURES = (
    Failure(
        r"failed to open GGUF file '(?P<file>[^']+)' \(Permission denied\)",
        "the engine's user (uid 10001) may not read the model file {file}",
        "make the file readable for others on the host (chmod o+r)",
    ),
    Failure(
        r"failed to load GGUF split from (?P<file>\S+)|invalid split file name: (?P<name>\S+)",
        "a part of the split GGUF is missing or renamed ({file}{name})",
        "put all parts under their original names into one folder",
    ),
    Failure(
        r"failed to open GGUF file '(?P<file>[^']+)'",
        "the model file {file} is not there inside the container",
        "check `model` and that the file still exists on the host",
    ),
    Failure(
        r"invalid magic characters: '(?P<magic>.*)', expected 'GGUF'",
        "the model file is not a GGUF (it begins with '{magic}')",
        "fetch it again: a web page, an LFS pointer or another format was saved under this name",
    ),
    Failure(
        r"failed to read magic|failed to read key-value pairs|data is not within the file bounds",
        "the model file is truncated or corrupt",
        "fetch it again and give its model_sha256 so that a short file is noticed",
    ),
    Failure(
        r"unknown model architecture: '(?P<arch>[^']+)'",
        "this build of llama.cpp does not know the model architecture {arch}",
        "build a newer llama.cpp (llama_cpp_image_ref) or choose another model",
    ),
    Failure(
        r"this GGUF file is version (?P<found>\d+) but this software only supports up to version (?P<known>\d+)",
        "the model file has GGUF version {found}; this llama.cpp reads up to {known}",
        "build a newer llama.cpp (llama_cpp_image_ref) or convert the model again",
    ),
    Failure(
        r"illegal split file idx: (?P<part>\d+)",
        "the model is a part of a split GGUF (index {part}), not its first part",
        "give the file that ends in -00001-of-….gguf as `model`",
    ),
    # before the general lines about the context that follow them
    Failure(
        r"failed to load lora adapter '(?P<file>[^']+)'",
        "the LoRA adapter {file} cannot be loaded",
        "`lora` has to name a GGUF that was made of an adapter of this very model (convert_lora_to_gguf.py)",
    ),
    Failure(
        r"failed to load multimodal model, '(?P<file>[^']+)'",
        "the projector {file} cannot be loaded",
        "`mmproj` has to name the file that was published with this very model",
    ),
    Failure(
        r"failed to load draft model, '(?P<file>[^']+)'",
        "the draft model {file} cannot be loaded",
        "`draft_model` has to name a small GGUF with the same tokenizer as the model",
    ),
    Failure(
        r"failed to initialize chat template|the supplied chat template is not supported",
        "the chat template has an error",
        "correct `chat_template` (the log shows the place), or leave it out: the model brings its own",
    ),
    Failure(
        r"[KV] cache type (?P<type>\S+) with block size (?P<block>\d+) does not divide \w+=(?P<size>\d+)",
        "this model's heads ({size} numbers) cannot be kept in a cache of type {type}, which takes {block} at once",
        "leave `cache_type` out, or set it to bf16",
    ),
    Failure(
        r"Pooling type 'none' is not OAI compatible",
        "the model does not say how its tokens become one vector",
        "set `pooling` to what it was made for (mean, cls or last), or name a model made for embeddings",
    ),
    Failure(
        r"quantized V cache requires flash_attn",
        "a quantised cache (cache_type) needs flash attention",
        "set `flash_attention: true`, or leave `cache_type` out",
    ),
    Failure(r"failed to parse grammar", "the grammar has an error", "correct `grammar`: the log shows what was read"),
    Failure(
        r"built without SSL support",
        "the image's llama-server does no TLS",
        "take --ssl-key-file and --ssl-cert-file out of `args`; the gateway does TLS (docs/gateway.md)",
    ),
    Failure(
        r"invalid argument: (?P<flag>\S+)",
        "llama-server does not know the argument {flag}",
        "correct or remove it in `args` (flags differ between builds: see llama-server --help of this image)",
    ),
    Failure(
        r"the argument has been removed", "an argument was removed from llama-server", "see the line for its successor"
    ),
    Failure(r"invalid device: (?P<device>\S+)", "the image has no device {device}", "correct `--device` in `args`"),
    Failure(
        r"error while handling argument \"(?P<flag>[^\"]+)\": (?P<why>.*)",
        "llama-server refuses the value of {flag} ({why})",
        "correct it in `args`",
    ),
    Failure(
        r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)",
        "port {port} is taken inside the container's network",
        "choose another port",
    ),
    Failure(
        r"cudaMalloc failed: out of memory|unable to allocate CUDA",
        "the GPU has too little free memory for the model",
        "use a smaller quantisation, a shorter context_length, or offload fewer layers",
    ),
    Failure(
        r"failed to allocate buffer for kv cache|failed to initialize the context|failed to create_context",
        "the context does not fit into memory",
        "lower context_length or parallel",
    ),
    Failure(
        r"unable to allocate (?P<backend>\w+) buffer|std::bad_alloc",
        "the model does not fit into memory",
        "use a smaller quantisation, raise `memory`, or choose a bigger host",
    ),
    *GPU_FAILURES,
    Failure(
        r"error while loading shared libraries: (?P<lib>\S+?):",
        "the image lacks {lib} on this host",
        "a CUDA image needs the NVIDIA container toolkit and a GPU; otherwise use the CPU image",
    ),
    Failure(
        r"Illegal instruction|exec format error",
        "the image was built for another processor than this host's",
        "build it for this host (llama_cpp_image_cpu_level: auto)",
    ),
    Failure(r"^error: (?P<what>.*)", "llama-server refuses to start: {what}", "read the log lines around this one"),
    Failure(
        r"exiting due to model loading error",
        "llama-server could not load the model",
        "read the log lines before this one",
    ),
)
