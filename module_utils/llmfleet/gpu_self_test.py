"""Showing a container the GPUs: with which image, whether it saw them, and if not, why. Pure.

The sentences of the engine are those of moby (daemon/devices_nvidia_linux.go, daemon/runtime_unix.go), the others those
of libnvidia-container, the CDI library and NVML. Rows about a missing toolkit, runtime, device list and image were
provoked on engine 20.10 with clients 20.10 and 28.2; those that need a driver are recorded lines.
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.llmfleet.cuda_tables import TOOLKITS, numbers
from ansible.module_utils.llmfleet.engines.base import Failure, diagnose

TEST_TAGS = tuple((numbers(row.driver), row.base) for row in TOOLKITS if row.base)
"""(oldest driver that carries this CUDA in full, tag of nvidia/cuda): the image refuses to start on an older driver."""

_DRIVER = "make nvidia-smi work on the host first (install or reload the driver)"
_RESTART = "restart the docker engine once (docker_engine_restart_policy: allowed lets the host stage do it)"

FAILURES = (
    Failure(
        r"requirement error: unsatisfied condition: (?P<condition>[^,\s]+)",
        "the driver is too old for the test image, which asks for {condition}",
        "install a newer driver, or name an image of an older CUDA in nvidia_container_toolkit_test_image_tag",
    ),
    Failure(
        r"[Dd]river/library version mismatch",
        "the driver was upgraded while its old kernel module is still loaded",
        "reboot the host",
    ),
    Failure(
        r"driver not loaded|couldn't communicate with the NVIDIA driver|[Nn]vidia.*[Dd]river [Nn]ot [Ll]oaded",
        "the host's NVIDIA driver is not loaded",
        _DRIVER,
    ),
    Failure(
        r"libnvidia-ml\.so\.1: cannot open shared object file",
        "the host has no NVIDIA driver libraries, or the engine (a snap, Docker Desktop) does not see them",
        _DRIVER + ", and use a docker engine that is not a snap",
    ),
    Failure(
        r"NVML: Unknown Error",
        "the container has lost access to the GPU devices: systemd has loaded its units anew since",
        "start the container again; giving GPUs by CDI (nvidia_container_toolkit_cdi: true) prevents it",
    ),
    Failure(
        r"NVML: Insufficient Permissions",
        "SELinux keeps the container from the GPU devices",
        "allow container_use_devices (setsebool -P container_use_devices 1), or run the container with label=disable",
    ),
    Failure(
        r"[Uu]nknown (?:or invalid )?runtime (?:specified|name):? (?P<runtime>[\w.-]+)",
        "the engine does not know the runtime {runtime}",
        "let docker_engine write it to daemon.json (run the host stage), and see that the engine has loaded that",
    ),
    Failure(
        r"could not select device driver \"cdi\"|error gathering device information while adding custom device "
        r"\"nvidia\.com|nvidia\.com/gpu=\S+ is not an absolute path",
        "the engine does not use CDI",
        "set nvidia_container_toolkit_cdi to `auto`, or to `true` on docker 25 or newer",
    ),
    Failure(
        r"could not select device driver|failed to discover GPU vendor from CDI",
        "the engine knows no way to GPUs: the NVIDIA container toolkit is not installed, or was installed after the "
        "engine had started",
        _RESTART,
    ),
    Failure(
        r"exec: \"?(?P<program>nvidia-[\w-]+)\"?: executable file not found|(?P<path>/\S*nvidia-container-runtime\S*): "
        r"no such file",
        "the container has no nvidia-smi, or the host lacks a program of the toolkit ({program}{path})",
        "install the toolkit again, all its packages of one version, and see that the host has the driver's utilities",
    ),
    Failure(
        r"unresolvable CDI devices (?P<devices>\S+)",
        "no CDI file names the device {devices}",
        "write it anew: systemctl restart nvidia-cdi-refresh, or nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ),
    Failure(
        r"nvidia-container-cli(?:\.real)?: (?P<why>[^\n]+)",
        "the toolkit cannot set up the GPU: {why}",
        _DRIVER,
    ),
    Failure(
        r"manifest unknown|manifest for \S+ not found|pull access denied|repository does not exist|not found: manifest",
        "the registry does not have the test image",
        "name one it has in nvidia_container_toolkit_test_image_tag (and _name, _registry)",
    ),
    Failure(
        r"no such host|i/o timeout|connection refused|TLS handshake timeout|context deadline exceeded|toomanyrequests|"
        r"Client\.Timeout|certificate",
        "the registry of the test image cannot be reached",
        "set llm_registry_prefix or docker_engine_registry_mirrors to a mirror that answers, or "
        "nvidia_container_toolkit_self_test to false",
    ),
    Failure(
        r"no space left on device",
        "there is no room for the test image",
        "free some space (docker system prune)",
    ),
    Failure(
        r"Cannot connect to the Docker daemon", "the docker engine does not answer", "start it and run the host stage"
    ),
    Failure(r"No devices were found", "the driver lists no GPU", "look for NVRM messages in the kernel log (dmesg)"),
)
"""Rows stand in order of precision: the engine wraps a hook's words in its own."""

TIMED_OUT = 124
"""Exit status of timeout(1)."""


def base_tag(driver_version: str | None) -> str:
    """Return the tag of nvidia/cuda for a driver, "" when it is older than all of them; unknown counts as oldest."""
    if not driver_version:
        return TEST_TAGS[-1][1]
    return next((tag for oldest, tag in TEST_TAGS if numbers(driver_version) >= oldest), "")


def judge(rc: int, out: str, err: str, expected: int = 0) -> dict[str, t.Any]:
    """Return {passed, seen, message} of `nvidia-smi -L` in a container on a host with ``expected`` GPUs, 0: unknown."""
    seen = re.findall(r"^GPU \d+: (.*?)(?: \(UUID: .*)?$", out, flags=re.MULTILINE)
    if rc == 0 and seen and len(seen) >= expected:
        return {"passed": True, "seen": seen, "message": f"a container sees {', '.join(seen)}"}
    words = "\n".join(filter(None, [err.strip(), out.strip()]))
    found = diagnose(words, FAILURES)
    if rc == 0 and seen:
        cause = f"a container sees {len(seen)} of the host's {expected} GPUs"
        fix = "look for a default of NVIDIA_VISIBLE_DEVICES in /etc/nvidia-container-runtime/config.toml"
        said = ""
    elif found:
        cause, fix, said = found["cause"], found["fix"], found["evidence"]
    elif rc == TIMED_OUT:
        cause, fix, said = "the container did not end in time", _DRIVER, ""
    else:
        cause, fix = f"the container ended with status {rc}", _DRIVER
        said = words.splitlines()[-1][:300] if words else ""
    quoted = f" ({said})" if said else ""
    return {"passed": False, "seen": seen, "message": f"the GPU self-test failed: {cause}{quoted}; {fix}"}
