"""The specification of a service that runs in a venv: the engine's launch, with the container's places made the host's.

It is compared and printed like that of a container (see spec), so that the same change reads the same. Pure.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.engines.base import Launch
from ansible.module_utils.llmfleet.services import Service
from ansible.module_utils.llmfleet.spec import Spec, digest

UNITS = "/etc/systemd/system"
UNIT_PREFIX = "llmfleet-vllm-"
HOMES = ("/home", "/root", "/run/user")
"""What a unit does not see of the host (ProtectHome=) unless it is shown."""


@dataclass(frozen=True)
class Place:
    """Where a service lives on its host."""

    venv: str
    user: str
    caches: str
    """The folder with what engines keep between starts."""
    preload: tuple[str, ...] = ()
    """Libraries to load before all others."""
    gpus: str = ""
    """How the service gets GPUs, "" for none; a process of the host needs no way of its own, only to be let."""
    visible: tuple[str, ...] = ()
    """UUIDs of the GPUs that it sees; none named: all."""


def unit_of(name: str) -> str:
    """Return the name of the systemd unit of a service."""
    return f"{UNIT_PREFIX}{name}.service"


def build(
    service: Service,
    launch: Launch,
    place: Place,
    *,
    model_fingerprint: str,
    salt: str,
    files: t.Mapping[str, str] | None = None,
) -> Spec:
    """Return the specification; ``salt`` is that of the one it will be compared with, ``files``: path in a container ->
    identity of what the service needs beside its model.

    Secrets keep the container's place in it: where they are is made of the specification.
    """
    caches = {mount.target: f"{place.caches}/{mount.source}-venv" for mount in launch.caches}
    there = {**{mount.target: mount.source for mount in launch.mounts}, **caches}

    def placed(word: str) -> str:
        for target, source in sorted(there.items(), key=lambda pair: -len(pair[0])):
            if word == target or word.startswith(f"{target}/"):
                return source + word[len(target) :]
        return word

    program = launch.entrypoint if launch.entrypoint.startswith("/") else f"{place.venv}/bin/{launch.entrypoint}"
    argv = [program, *map(placed, _listening(launch.argv, service, launch.port))]
    env = {
        **_env(place),
        **{name: placed(value) for name, value in launch.env.items()},
    }
    host = f"[{service.bind}]" if ":" in service.bind else service.bind
    rare: Spec = {
        "task": "" if service.task == Service.task else service.task,
        "gpus": place.gpus,
        "shm_mib": launch.shm_mib,
        "files": dict(files or {}),
        "reads": sorted({mount.source for mount in launch.mounts if mount.source.startswith(HOMES)}),
    }
    return {
        "name": service.name,
        "engine": service.engine,
        "served_name": service.served_name,
        "runtime": "venv",
        "venv": place.venv,
        "argv": argv,
        "env": env,
        "writes": sorted(caches.values()),
        "model_fingerprint": model_fingerprint,
        "publish": f"{host}:{service.port}:{service.port}",
        "memory": service.memory,
        "user": place.user,
        "salt": salt,
        "secrets": {name: digest(value, salt) for name, value in sorted(launch.secrets.items())},
        **{key: value for key, value in rare.items() if value},
    }


def _listening(argv: t.Sequence[str], service: Service, port: int) -> list[str]:
    """Return ``argv`` listening where the service is to be reached: nothing stands between it and the network."""
    words = list(argv)
    for flag, inside, outside in (("--host", "0.0.0.0", service.bind), ("--port", str(port), str(service.port))):  # noqa: S104
        at = next((n for n, word in enumerate(words[:-1]) if (word, words[n + 1]) == (flag, inside)), None)
        if at is None:
            raise ValueError(f"the engine's command line has no {flag} {inside}")
        words[at + 1] = outside
    return words


def _env(place: Place) -> dict[str, str]:
    env = {
        "PATH": f"{place.venv}/bin:/usr/local/bin:/usr/bin:/bin",
        # its processes would talk to each other, and listen without any key, on the host's network (measured)
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }
    if place.preload:
        env["LD_PRELOAD"] = ":".join(place.preload)
    if place.visible:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(place.visible)
    return env


def endpoint_of(spec: Spec) -> tuple[str, int]:
    """Return (address on the host that reaches the service, port)."""
    host, port = re.fullmatch(r"(.+):(\d+):\d+", spec["publish"]).groups()  # type: ignore[union-attr]
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host), int(port)  # noqa: S104
