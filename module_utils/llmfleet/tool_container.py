"""A program of llama.cpp run once in a container that can do no harm: `docker run` arguments and failure rows. Pure.

A model's folder may carry Python code that its converter runs, so the container has no network, sees nothing but the
model, can write nothing but its output folder, and runs as a user without rights.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.docker_cli import Docker, bind_mount
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.engines.base import Failure, Mount, diagnose
from ansible.module_utils.llmfleet.errors import LlmfleetError

PROGRAMS = "/app"
"""Where images of this project and the published ones keep the programs."""

_ENTRYPOINTS = {"convert": ("python3", f"{PROGRAMS}/convert_hf_to_gguf.py")}

FAILURES = (
    Failure(
        r"exec: \"python3\"|can't open file '/app/convert_hf_to_gguf\.py'",
        "the image has no converter",
        "use an image with the contents `full` (llama_cpp_image_contents)",
    ),
    Failure(
        r"exec: \"/app/(?P<program>[\w-]+)\"",
        "the image has no {program}",
        "use an image with the contents `full`, or `light` for running a model (llama_cpp_image_contents)",
    ),
    Failure(
        r"No space left on device|failed to write",
        "the disk is full",
        "make room where the result goes, or choose another folder",
    ),
    Failure(
        r"Model (?P<arch>\w+) is not supported|Architecture '(?P<name>\w+)' not supported",
        "the converter of this image does not know the architecture {arch}{name}",
        "build a newer llama.cpp (llama_cpp_image_ref: latest), or look for a GGUF of the model",
    ),
    Failure(
        r"^NotImplementedError: BPE pre-tokenizer was not recognized",
        "the converter of this image does not know the model's tokenizer",
        "build a newer llama.cpp (llama_cpp_image_ref: latest), or look for a GGUF of the model",
    ),
    Failure(
        r"^NotImplementedError: Quant method is not yet supported: '(?P<method>[^']+)'"
        r"|^NotImplementedError: Quant format '(?P<form>[^']+)'",
        "the model is quantised with {method}{form}, which the converter cannot read",
        "download the model that it was made from",
    ),
    Failure(
        r"^FileNotFoundError: File not found: \S*tokenizer|^ValueError: Either model_file or model_proto must be"
        r"|^OSError: Can't load tokenizer for|^ValueError: Couldn't instantiate the backend tokeniz",
        "the model's tokenizer is missing or incomplete",
        "download tokenizer.json, or tokenizer.model, and tokenizer_config.json of the model too",
    ),
    Failure(
        r"^ValueError: Missing or incomplete model files|^ValueError: Mismatch between weight map and model parts",
        "the model's weight files do not belong together",
        "download the whole model again",
    ),
    Failure(
        r"^ValueError: Can not map tensor '(?P<tensor>[^']+)'",
        "the converter does not know the tensor {tensor} of this model",
        "build a newer llama.cpp (llama_cpp_image_ref: latest); a fine-tune with parts of its own cannot be converted",
    ),
    Failure(
        r"^ModuleNotFoundError: No module named '(?P<module>[^']+)'"
        r"|^ImportError: .*requires the following packages .*: (?P<more>.*?)\. ",
        "the model's own code needs the Python package {module}{more}, which the image does not have",
        "look for a GGUF of the model; code of models runs without a network and cannot install anything",
    ),
    Failure(
        r"^OSError: .*couldn't connect|LocalEntryNotFoundError: |^OSError: We couldn't connect to",
        "a file of the model is missing here and was looked for on the network, which the converter does not have",
        "download the whole model folder, every file of it",
    ),
    Failure(
        r"requires an imatrix|requires an importance matrix",
        "a tensor would get a type that needs an importance matrix",
        "give one in imatrix, or take another type",
    ),
    Failure(
        r"requantizing from type (?P<type>\w+) is disabled",
        "the model is quantised already ({type})",
        "start from an F16 or BF16 file, or set allow_requantize",
    ),
    Failure(
        r"failed to load imatrix|missing imatrix metadata|invalid imatrix",
        "the importance matrix cannot be read",
        "give a file that llama-imatrix wrote for this very model",
    ),
    Failure(
        r"^MemoryError|DefaultCPUAllocator: can't allocate memory|std::bad_alloc",
        "memory ran out",
        "use a host with more memory, or stop what runs there",
    ),
    Failure(
        r"invalid parameter|unknown argument|^usage: /app/llama-quantize",
        "an option is wrong",
        "correct it in `options`",
    ),
)
"""What the tools print when they fail, in order of precision."""


@dataclass(frozen=True)
class Sandbox:
    """How a container is run: ``mounts`` are read-only, ``output`` is the folder on the host that it writes to."""

    name: str
    image: str
    user: str
    """uid:gid inside."""
    mounts: tuple[Mount, ...] = ()
    output: Mount | None = None
    device_args: tuple[str, ...] = ()
    """Arguments of `docker run` that give it GPUs."""
    memory: str = ""


def run_argv(sandbox: Sandbox, program: str, argv: t.Sequence[str], *, terminal: bool = False) -> list[str]:
    """Return the arguments of ``docker`` that run ``program`` once in ``sandbox``; ``terminal`` for a person to use."""
    entrypoint, *first = _ENTRYPOINTS.get(program, (f"{PROGRAMS}/{program}",))
    words = ["run", "--rm", *(["-it"] if terminal else []), *(["--name", sandbox.name] if sandbox.name else [])]
    # the image is here or it is not: a download would be a surprise
    words += ["--pull", "never", "--network", "none", "--read-only"]
    words += ["--tmpfs", "/tmp:rw,nosuid,size=1g"]  # noqa: S108 - inside the container
    words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", sandbox.user]
    words += ["--no-healthcheck", *sandbox.device_args]
    # libraries of the converter write caches into the home folder
    words += ["--env", "HOME=/tmp", "--env", "HF_HUB_OFFLINE=1"] if program == "convert" else []
    words += ["--memory", sandbox.memory, "--memory-swap", sandbox.memory] if sandbox.memory else []
    for mount in sandbox.mounts:
        words += ["--mount", bind_mount(mount.source, mount.target)]
    if sandbox.output:
        words += ["--mount", bind_mount(sandbox.output.source, sandbox.output.target, writable=True)]
    return [*words, "--entrypoint", entrypoint, sandbox.image, *first, *argv]


def find_image(docker: Docker, image: str) -> dict[str, t.Any]:
    """Return ``docker image inspect`` of ``image``; raises LlmfleetError when it is not on the host."""
    if not docker.executable:
        raise LlmfleetError("there is no docker client on this host; run playbooks/host.yml first")
    found = docker.inspect("image", image)
    if not found:
        raise LlmfleetError(f"the image {image} is not on this host; provide it first (role llama_cpp_image)")
    return found


def explain(rc: int, log: str) -> str:
    """Return cause and fix of a program that ended with ``rc`` and said ``log``."""
    found = diagnose(log, FAILURES) or diagnose(log, llama_server.FAILURES)
    if rc == 137 and not found:
        return "it was killed, most likely because memory ran out; use a host with more memory"
    if rc == 124:
        return "it took longer than `timeout`; raise that"
    if rc == 132:
        return "the image uses instructions that this processor lacks; build it for this host"
    if found:
        return f"{found['cause']} ({found['evidence']}); {found['fix']}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"it ended with status {rc} and said: {lines[-1][:300] if lines else 'nothing'}"
