"""Why a container does not start or did not stay up, where its engine says nothing: docker's words, exit codes."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.engines.base import Failure, diagnose

DOCKER_FAILURES = (
    Failure(
        r"port is already allocated|address already in use",
        "the port is taken by another program on this host",
        "choose another `port`, or stop what listens there (ss -ltnp)",
    ),
    Failure(
        r"unresolvable CDI devices (?P<device>[^\s:]+)",
        "the engine does not find {device} in its device lists (CDI)",
        "write the list anew with playbooks/host.yml (nvidia-ctk cdi generate) after the driver is loaded",
    ),
    Failure(
        r"could not select device driver|[Uu]nknown runtime specified",
        "the engine cannot give GPUs to containers",
        "install the NVIDIA container toolkit and restart docker (playbooks/host.yml does both)",
    ),
    Failure(
        r"unsatisfied condition: cuda>=(?P<cuda>[\d.]+)",
        "the NVIDIA driver is too old for the image, which asks for CUDA {cuda}",
        "install a newer driver, or build the image here (llama_cpp_image_source: build): the plan then chooses a CUDA "
        "toolkit that this driver carries",
    ),
    Failure(
        r"nvidia-container-cli: (?P<why>.+)",
        "the NVIDIA container toolkit could not give the GPU to the container: {why}",
        "check the driver with nvidia-smi on the host, then run playbooks/host.yml",
    ),
    Failure(
        r"gathering device information while adding custom device \"(?P<device>[^\"]+)\"",
        "{device} does not exist on this host",
        "check that the GPU's driver is loaded (dmesg), or set `device: cpu`",
    ),
    Failure(
        r"bind source path does not exist: (?P<path>\S+)",
        "{path} does not exist on the host",
        "check `model`",
    ),
    Failure(r"exec format error", "the image was built for another processor", "use an image built for this host"),
    Failure(
        r"no space left on device",
        "the disk that holds docker's data is full",
        "free space (docker system df shows what takes it)",
    ),
    Failure(
        r"[Nn]o such image",
        "the image is not on this host",
        "run the whole site.yml so that it is built or pulled",
    ),
    Failure(r"Minimum memory limit", "`memory` is smaller than docker allows", "raise `memory`"),
)
"""What docker itself says when a container cannot be created or started."""

EXIT_CODES: t.Mapping[int, tuple[str, str]] = {
    0: (
        "the engine ended by itself, as if nothing was wrong",
        "a server never should: vLLM does so when the process that computes died (out of memory, or killed); look for "
        "it in the log and with dmesg",
    ),
    127: ("the image does not have the engine's program, or a library that it needs", "use an image of this engine"),
    132: (
        "the processor lacks an instruction that the engine uses",
        "use an image built for this host (llama_cpp_image_cpu_level: auto); vllm on a CPU: `dtype: float32`",
    ),
    134: ("the engine gave up (abort)", "read the last lines of its log"),
    135: ("the shared memory, or the disk of a file that is mapped, is full", "free space on the host (df)"),
    137: (
        "the engine was killed from outside (SIGKILL)",
        "somebody killed it, or the host ran out of memory (dmesg | grep -i 'out of memory'): set `memory`, use a "
        "smaller quantisation, or stop what else takes memory",
    ),
    139: (
        "the engine crashed (segmentation fault)",
        "use another build of its image; on a GPU check the driver with nvidia-smi",
    ),
    143: ("the engine was told to stop (SIGTERM)", "look who stopped it (journalctl -u docker), and run again"),
}
"""Exit code -> cause and fix, for a death about which the log is silent."""


def explain_refusal(said: str) -> dict[str, str]:
    """Return {cause, evidence, fix} for docker's own refusal ``said`` to create or start a container."""
    return diagnose(said, DOCKER_FAILURES) or {
        "cause": "docker refuses to start the container",
        "evidence": said.strip()[:300],
        "fix": "see docker's message",
    }


def explain_death(state: t.Mapping[str, t.Any], log: str, engine: t.Any, memory: str) -> dict[str, str]:
    """Return {cause, evidence, fix} for a container that ended; ``state`` is inspect's State."""
    code: int | None = state.get("ExitCode")
    if state.get("OOMKilled"):
        return {
            "cause": f"the engine was killed because it used more than its memory limit ({memory or 'of the host'})",
            "evidence": f"OOMKilled, exit code {code}",
            "fix": "raise `memory`, use a smaller quantisation, or lower context_length or parallel",
        }
    found = diagnose(log, engine.FAILURES)
    if found:
        return found
    lines = [line for line in log.splitlines() if line.strip()]
    last = lines[-1].strip()[:300] if lines else (state.get("Error") or "it printed nothing")
    if code is not None and code in EXIT_CODES:
        cause, fix = EXIT_CODES[code]
        return {"cause": cause, "evidence": f"exit code {code}; {last}", "fix": fix}
    how = "was started again by its restart policy" if code is None else f"ended with exit code {code}"
    return {"cause": f"the engine {how}", "evidence": last, "fix": "see log_tail in the result"}
