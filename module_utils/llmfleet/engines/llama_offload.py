"""Whether llama-server computes on the GPU: its flags for that, the devices it lists and what its log says. Pure.

Strings are those of commit 0c1e57098 (2026-10-01): common/arg.cpp, common/log.cpp, src/llama.cpp, src/llama-model.cpp,
ggml-cuda.cu. The lines about devices and layers are messages of libllama at its level INFO, which llama-server prints
from verbosity 4 on (common_log_get_verbosity); those of older builds (llm_load_tensors, 2024) read the same.
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.llmfleet.engines.base import DeviceError, Failure, diagnose
from ansible.module_utils.llmfleet.engines.llama_options import VERBOSITY
from ansible.module_utils.llmfleet.errors import BadInput

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.services import Service
    from ansible.module_utils.llmfleet.timed_run import Answer

LIST_DEVICES = ("--list-devices",)
ALL_LAYERS = 999
"""More than any model has. The word `all` is known to builds of 2026 only, a number to every one."""

PROVING = 4
"""The verbosity at which the log proves the device."""
_LAYERS_FLAG = "--n-gpu-layers"
_DRAFT_LAYERS_FLAG = "--gpu-layers-draft"
_ROUTER_FLAG = "--models-preset"
_VERBOSE_FLAGS = ("-v", "--verbose", "--log-verbose")

FALLBACK = "no usable GPU found, --gpu-layers option will be ignored"
"""A warning, printed within a second of the start; the server then computes on the CPU and answers all the same."""

_STARTED = "loading model"
_OFFLOADED = re.compile(r".*?offloaded (\d+)/(\d+) layers to GPU")
_BUFFER = re.compile(r"load_tensors:\s+(\S+) (?:model )?buffer size =")
_USING = re.compile(r"using device (\S+) \((.+?)\)(?: \([^()]*\))? - \d+ MiB free")
_LISTED = re.compile(r"^\s+(\S+): (.+?)(?: \(\d+ MiB, \d+ MiB free\))?$", re.MULTILINE)
_NO_GPUS = ("BLAS", "CPU")
"""Devices and buffers that begin so are no GPU's."""

GPU_FAILURES = (
    Failure(
        r"no kernel image is available for execution|the provided PTX was compiled with an unsupported toolchain",
        "the image holds no code that this GPU and driver can run",
        "build the image for this GPU's compute capability, or install a newer driver",
    ),
    Failure(
        r"failed to initialize CUDA: CUDA driver version is insufficient",
        "the NVIDIA driver is too old for the CUDA of the image",
        "install a newer driver, or build the image here (llama_cpp_image_source: build): the plan then chooses a CUDA "
        "toolkit that this driver carries",
    ),
    Failure(
        r"failed to initialize CUDA: no CUDA-capable device is detected",
        "the container was given no GPU",
        "run playbooks/host.yml, which sets up the NVIDIA container toolkit and proves that containers reach the GPU; "
        "a container that lost its GPU must be started again",
    ),
    Failure(
        r"system has unsupported display driver|forward compatibility was attempted on non supported HW",
        "the driver's libraries and its kernel module do not match",
        "reboot the host: the driver was updated while it was in use",
    ),
    Failure(
        r"failed to initialize (?P<what>CUDA|ROCm|MUSA): (?P<why>.*)",
        "{what} did not start: {why}",
        "check the driver on the host (nvidia-smi, rocminfo) and that the container was given the GPU",
    ),
)
"""What the GPU back-end says when it cannot start; a server linked without it says nothing of this kind."""


def gpu_argv(service: Service) -> list[str]:
    """Return the arguments that put ``service`` on the GPU and make the log prove it.

    Raises BadInput for free arguments that would hide the proof.
    """
    layers = [_LAYERS_FLAG, str(service.gpu_layers or ALL_LAYERS)]
    # a draft that is slower than what it drafts for helps nobody
    layers += [_DRAFT_LAYERS_FLAG, str(ALL_LAYERS)] if service.draft_model else []
    if "--log-disable" in service.args:
        raise BadInput(
            f"service {service.name}: `args` holds --log-disable, which hides the log lines that prove the GPU is "
            "used; leave it out"
        )
    if set(_VERBOSE_FLAGS) & set(service.args):
        return layers
    return [*layers, "--verbosity", str(max(PROVING, VERBOSITY.get(service.log_level, 0)))]


def planned_layers(argv: t.Sequence[str]) -> int | None:
    """Return how many layers are to be on the GPU by the arguments ``argv``, None when it was not planned at all."""
    if _ROUTER_FLAG in argv:
        # each model is a process of its own, whose lines would have to be told from those of the others
        return None
    return int(argv[argv.index(_LAYERS_FLAG) + 1]) if _LAYERS_FLAG in argv else None


def fell_back(log: str) -> bool:
    """Whether the log already tells that the server computes on the CPU against the plan."""
    return FALLBACK in log


def proven_by_log(log: str) -> bool:
    """Whether the log holds what `judge` needs, so that no second process has to ask the GPU."""
    return bool(_OFFLOADED.search(log) and _USING.search(log))


def judge(log: str, planned: int, listing: Answer | None, *, fresh: bool, variant: str) -> str:
    """Return what proves that ``planned`` layers are on a GPU, such as `33/33 layers on CUDA0 (NVIDIA H200)`.

    ``log``: what the server printed when it started; ``listing``: what it said to LIST_DEVICES, None when it was not
    asked; ``fresh``: it started so lately that the log cannot have been rotated away; ``variant``: the back-end that
    the image's label names, "" when it has none. Raises DeviceError with cause, evidence and fix.
    """
    devices = dict(_USING.findall(log))
    if listing is not None:
        devices = _listed(listing, log, variant) or devices
    if listing is not None and not devices and not fresh and _STARTED not in log:
        return "a GPU that is full; the log of its start is gone, so its layers were not counted"
    if fell_back(log) or not devices:
        raise _no_gpu(log, variant)
    names = ", ".join(f"{name} ({title})" for name, title in devices.items())
    found = _OFFLOADED.search(log)
    if found is None:
        if not fresh and _STARTED not in log:
            return f"{names}; the log of its start is gone, so its layers were not counted"
        raise DeviceError(
            "llama-server's log does not say how many layers are on the GPU",
            f"no line `offloaded N/N layers to GPU`; devices: {names}",
            "take options about logging out of `args`, or set `verify.level: token` to do without this proof",
        )
    done, of = int(found[1]), int(found[2])
    # lines of a second model (a draft) come after those of the first
    following = _OFFLOADED.search(log, found.end())
    buffers = _BUFFER.findall(log[found.end() : following.start() if following else len(log)])
    kinds = (*(re.sub(r"\d+$", "", name) for name in devices), "Meta")
    # pinned memory of the host is called CUDA_Host
    used = [name for name in buffers if name.startswith(kinds) and not name.endswith("_Host")]
    if buffers and not used:
        raise DeviceError(
            "the model's weights are not on the GPU, whatever the count of layers says",
            f"{found[0].strip()}; buffers: {', '.join(buffers)}",
            "take --device, --override-tensor and the like out of `args`, or set `device: cpu`",
        )
    wanted = min(planned, of)
    if done < wanted:
        raise DeviceError(
            f"only {done} of the model's {of} layers are on the GPU, {wanted} were planned",
            found[0].strip(),
            "set `gpu_layers` to what fits, or use a smaller quantisation or a shorter context_length",
        )
    titles = ", ".join(f"{name} ({title})" for name, title in devices.items() if name in used) or ", ".join(used)
    return f"{done}/{of} layers on {titles or names}"


def _listed(listing: Answer, log: str, variant: str) -> dict[str, str]:
    """Return name -> title of the GPUs in ``listing``, {} when there are some but it could not say which."""
    said = f"{listing.out}\n{listing.err}"
    _, header, rows = listing.out.partition("Available devices:")
    if header:
        devices = {name: title for name, title in _LISTED.findall(rows) if not name.startswith(_NO_GPUS)}
        if not devices:
            raise _no_gpu(f"{said}\n{log}", variant)
        return devices
    if re.search(r"CUDA error: out of memory", said):
        # the server has filled the GPU, so that a second process cannot even ask for its size
        return {}
    command = f"llama-server {LIST_DEVICES[0]}"
    if listing.timed_out:
        raise DeviceError(
            f"{command} gave no answer in time",
            said.strip()[:300] or "it printed nothing",
            "a GPU or its driver hangs: try nvidia-smi on the host, and reboot it if that hangs too",
        )
    if f"invalid argument: {LIST_DEVICES[0]}" in said:
        raise DeviceError(
            "the image's llama-server cannot list its devices, so that nothing proves the GPU is used",
            f"error: invalid argument: {LIST_DEVICES[0]}",
            "use a build of 2025 or later, or set `verify.level: token` to do without this proof",
        )
    found = diagnose(said, GPU_FAILURES)
    if found:
        raise DeviceError(**found)
    raise DeviceError(
        f"{command} could not be run in the container (exit code {listing.rc})",
        listing.said[:300] or "it printed nothing",
        "see log_tail; `docker exec` must be able to run a second llama-server in the container",
    )


def _no_gpu(said: str, variant: str) -> DeviceError:
    """Return why the server uses no GPU, judged by the words ``said`` by it."""
    found = diagnose(said, GPU_FAILURES)
    if found:
        return DeviceError(**found)
    warning = next((line.strip() for line in said.splitlines() if FALLBACK in line), "")
    evidence = warning or "Available devices: (none)"
    if variant == "cpu":
        return DeviceError(
            "the image was built for the CPU, and a GPU was planned",
            evidence,
            "name an image for this GPU (`image`, or llama_cpp_image_variant), or set `device: cpu`",
        )
    return DeviceError(
        "llama-server finds no GPU and computes on the CPU",
        evidence,
        "either the image was built for the CPU, or its GPU back-end found no driver in the container (official images "
        "then fall back without a word): check llama_cpp_image_variant or `image`, and playbooks/host.yml",
    )
