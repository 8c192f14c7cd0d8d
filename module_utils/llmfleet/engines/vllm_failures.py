"""What vLLM prints while it starts, and what its failures mean.

Log lines were read from the sources of 0.32.0 and 0.33.0. The failure rows that need no GPU are provoked with a real
server in tests/integration/test_vllm.py; those about GPUs are lines of its sources. An engine that failed ends in
`Engine core initialization failed. See root cause above`, and the server with exit code 0 or 1: what counts is the log.
"""

from __future__ import annotations

from ansible.module_utils.llmfleet.engines.base import Failure, Phase

PHASES = (
    # Python reads half a gigabyte of libraries before it says anything
    Phase("starting", "", 600),
    Phase("starting the engine", r"Initializing a V1 LLM engine|Initializing an LLM engine", 600),
    Phase("loading model", r"Starting to load model|Loading weights|Loading safetensors", 1800),
    Phase("compiling", r"Model loading took|Dynamo bytecode transform|torch\.compile t(ook|akes)", 3600),
    Phase("preparing the cache", r"Available KV cache memory|KV cache size|Graph capturing", 1800),
    Phase("opening the port", r"init engine .*took|Starting vLLM", 300),
    # its processes may take minutes to end after that
    Phase("giving up", r"Engine core initialization failed", 10, failed=True),
)

FAILURES = (
    Failure(
        r"unrecognized arguments: (?P<flags>.*)",
        "vLLM does not know the arguments {flags}",
        "correct or remove them in `args` (they differ between versions)",
    ),
    Failure(
        r"vllm(?: serve)?: error: (?P<what>.*)|api_server\.py: error: (?P<old>.*)",
        "vLLM refuses its arguments: {what}{old}",
        "correct it in `args`",
    ),
    Failure(
        r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len "
        r"\((?P<known>[^)]*)\)",
        "the model was made for less than {asked} tokens ({known})",
        "lower context_length",
    ),
    Failure(
        r"estimated maximum model length is (?P<most>\d+)",
        "the memory left for the cache does not hold one request of that length",
        "set context_length to {most} or less, raise gpu_memory_utilization, or set cache_type: fp8",
    ),
    Failure(
        r"default chat template is no longer allowed",
        "the model brings no chat template",
        "set `chat_template`, or name a model made for conversations",
    ),
    Failure(
        r"No available memory for the cache blocks",
        "the weights leave no memory for the cache",
        "raise gpu_memory_utilization, use more GPUs (tensor_parallel) or a smaller model",
    ),
    Failure(
        r"Free memory on device (?P<device>\S+) \((?P<free>[^)]*)\) on startup is less than desired GPU memory",
        "another program holds memory of {device} ({free} free)",
        "stop it (nvidia-smi shows it), or lower gpu_memory_utilization",
    ),
    Failure(
        r"on startup is less than desired CPU memory utilization|is less than requested memory for kv",
        "the host has too little free memory for the cache",
        "lower context_length or parallel, or stop what else takes memory",
    ),
    Failure(
        r"CUDA out of memory|torch\.OutOfMemoryError",
        "the GPU has too little memory for the model and its computations",
        "use a smaller or quantised model, more GPUs (tensor_parallel), or lower gpu_memory_utilization and parallel",
    ),
    Failure(
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. Your (?P<gpu>.*?) GPU has",
        "{gpu} does not compute in bfloat16",
        "set `dtype: half`",
    ),
    Failure(
        r"The quantization method (?P<method>\S+) is not supported for the current GPU",
        "this GPU cannot compute with {method} weights",
        "choose another quantisation of the model",
    ),
    Failure(
        r"no kernel image is available for execution",
        "the image holds no code for this GPU",
        "name another image in `image`: the plan chooses one by itself when vllm_image_tag is empty",
    ),
    Failure(
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient|compiled with an unsupported tool"
        r"chain|Error 80[34]",
        "the NVIDIA driver is too old for the CUDA of the image",
        "install a newer driver, or leave vllm_image_tag empty so that a fitting image is chosen",
        (
            "NVIDIA driver on your system is too old",
            "CUDA driver version is insufficient",
            "compiled with an unsupported toolchain",
            "Error 803",
            "Error 804",
        ),
    ),
    Failure(
        r"Failed to infer device type|No CUDA GPUs are available|libcuda\.so\.1: cannot open shared object file",
        "the container has no GPU, and the image is one for GPUs",
        "run playbooks/host.yml, which sets up the NVIDIA container toolkit, or use the image for CPUs",
    ),
    Failure(
        r"World size \((?P<asked>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)",
        "{asked} GPUs were asked for, and the container has {there}",
        "lower tensor_parallel",
    ),
    Failure(
        r"Not enough allowed NUMA nodes",
        "on a CPU each part of tensor_parallel needs a memory node of its own",
        "leave tensor_parallel out",
    ),
    Failure(
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size",
        "the model's {heads} attention heads cannot be split over that many GPUs",
        "set tensor_parallel to a divisor of the number of attention heads",
    ),
    Failure(
        r"Model architectures \[(?P<names>[^\]]*)\] (are not supported|failed to be inspected)"
        r"|model type (?P<type>\S+) but Transformers does not recognize",
        "this vLLM does not know the model architecture {names}{type}",
        "use a newer image (vllm_image_tag), or another model",
    ),
    Failure(
        r"incomplete metadata, file not fully covered|HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer",
        "a weight file of the model is truncated or corrupt",
        "fetch the model again (model_store_verify: full finds the file)",
    ),
    Failure(
        r"Cannot find any model weights",
        "the model folder holds no weights",
        "fetch the model again; vLLM needs its *.safetensors files",
    ),
    Failure(
        # every start prints `trust_remote_code=False` among its settings
        r"contains custom code which must be executed|consider setting `trust_remote_code=True`",
        "the model brings its own program code, which vLLM does not run unasked",
        "read that code, then set `trust_remote_code: true`; or choose another model",
    ),
    Failure(
        r"Invalid repository ID or local directory specified|does not appear to have a file named config\.json"
        r"|HFValidationError: ",
        "the model folder is not there inside the container, or has no config.json",
        "check `model` and that the folder still exists on the host",
    ),
    Failure(
        r"Cannot access gated repo for url (?P<url>\S+)|You are trying to access a gated repo"
        r"|401 Client Error|Repository Not Found for url",
        "the hub does not give this model to everybody (it is gated or private), and vLLM asks it for a file",
        "accept the licence on the model's page, give model_store_hf_token, and say the model with `model`: it is "
        "fetched before the service starts",
    ),
    Failure(
        r"LocalEntryNotFoundError: |We couldn't connect to|OfflineModeIsEnabled: ",
        "vLLM wants a file of the hub that the model folder does not hold",
        "fetch the whole model; services never download while they start",
    ),
    Failure(
        r"Permission denied: '(?P<path>[^']+)'",
        "the engine's user (uid 10001) may not use {path}",
        "make the model readable for others on the host (chmod -R o+rX)",
    ),
    Failure(
        r"\[Errno 98\] Address already in use|error while attempting to bind on address",
        "the port is taken inside the container's network",
        "choose another port",
    ),
    Failure(
        r"Bus error|No space left on device|Insufficient space in /dev/shm",
        "the shared memory of the container or the disk of its caches is full",
        "free space on the host (df), and lower parallel",
    ),
    Failure(
        r"Unsupported CPU attention configuration: head_dim=(?P<length>\d+)",
        "vLLM does not compute attention heads of {length} numbers on a CPU",
        "serve this model with llama_server, or on a GPU",
    ),
    Failure(r"NCCL error: (?P<what>.*)", "the GPUs cannot talk to each other: {what}", "try `tensor_parallel: 1`"),
    Failure(
        r"Timed out waiting for engine core processes to start",
        "the engine did not start within its own time limit",
        "set VLLM_ENGINE_READY_TIMEOUT_S in `env` higher",
    ),
    Failure(
        # the root cause is the first one; the engine's process puts its name before each line
        r"(?:^|\] )(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception): "
        r"(?P<what>(?!Engine core initialization failed|EngineCore encountered an issue).+)",
        "vLLM stopped: {what}",
        "read the log lines around this one",
        ("<Name>Error: <what>",),
    ),
    Failure(
        r"EngineCore encountered an issue|engine core exited unexpectedly",
        "the process that computes died while vLLM served",
        "look above this line, and with dmesg whether the host ran out of memory",
    ),
    Failure(
        r"Engine core initialization failed",
        "vLLM's engine could not start",
        "read the log lines above this one; where none says why, the process was killed: see with dmesg whether the "
        "host ran out of memory",
    ),
)
