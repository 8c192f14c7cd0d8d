"""The specification of a helper's container, and what docker is told of it. Pure.

It is compared and stored as that of a service is (llmfleet.spec). The content of files is no part of it: files change
while the container stays.
"""

from __future__ import annotations

import json
import typing as t

from ansible.module_utils.llmfleet.constants import LABEL_SIDE, LABEL_SPEC
from ansible.module_utils.llmfleet.docker_cli import bind_mount
from ansible.module_utils.llmfleet.side.parts import Side
from ansible.module_utils.llmfleet.spec import LOG_OPTIONS, Spec


def build(side: Side, image_id: str) -> Spec:
    """Return the specification of the container that ``side`` asks for."""
    return {
        "name": side.name,
        "image": side.image,
        "image_id": image_id,
        "entrypoint": side.entrypoint,
        "argv": list(side.argv),
        "env": dict(side.env),
        "files_target": side.files_target if side.files else "",
        "volumes": dict(side.volumes),
        "user": side.user,
        "network": side.network,
        "publish": list(side.publish),
        "caps": list(side.caps),
        "tmp_mib": side.tmp_mib,
        "memory": side.memory,
        "read_only": side.read_only,
        "stop_seconds": side.stop_seconds,
        "restart_policy": "unless-stopped",
    }


def printable(spec: Spec | None, files: t.Mapping[str, str]) -> str:
    """Return ``spec`` and ``files`` (path -> digest) for a diff."""
    if spec is None:
        return ""
    shown = {**spec, "files": {path: f"digest {value[:12]}" for path, value in files.items()}}
    return json.dumps(shown, indent=2, sort_keys=True) + "\n"


def _confined(spec: Spec, files: str, *, writable: bool) -> list[str]:
    argv = [
        *("--user", spec["user"], "--network", spec["network"]),
        *("--tmpfs", f"/tmp:rw,noexec,nosuid,size={spec['tmp_mib']}m"),  # noqa: S108 - inside the container
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--no-healthcheck"),
    ]
    argv += ["--read-only"] if spec["read_only"] or not writable else []
    for cap in spec["caps"]:
        argv += ["--cap-add", cap]
    for key, value in sorted(spec["env"].items()):
        argv += ["--env", f"{key}={value}"]
    for target, source in sorted(spec["volumes"].items()):
        argv += ["--mount", bind_mount(source, target, writable=writable)]
    return argv + (["--mount", bind_mount(files, spec["files_target"])] if spec["files_target"] else [])


def create_argv(spec: Spec, container: str, files: str) -> list[str]:
    """Return the ``docker`` arguments that create ``container``; ``files`` is the folder of its files on the host."""
    argv = ["create", "--name", container]
    argv += ["--label", f"{LABEL_SIDE}={spec['name']}", "--label", f"{LABEL_SPEC}={json.dumps(spec, sort_keys=True)}"]
    argv += ["--restart", spec["restart_policy"], "--stop-timeout", str(spec["stop_seconds"])]
    argv += ["--log-driver", "json-file"]
    for key, value in LOG_OPTIONS.items():
        argv += ["--log-opt", f"{key}={value}"]
    # equal limits: no swap
    argv += ["--memory", spec["memory"], "--memory-swap", spec["memory"]] if spec["memory"] else []
    for row in spec["publish"]:
        argv += ["--publish", row]
    argv += ["--entrypoint", spec["entrypoint"]] if spec["entrypoint"] else []
    return [*argv, *_confined(spec, files, writable=True), spec["image"], *spec["argv"]]


def check_argv(spec: Spec, container: str, command: t.Sequence[str], files: str) -> list[str]:
    """Return the ``docker`` arguments that run ``command`` once in ``container``, with volumes it cannot write to."""
    confined = _confined(spec, files, writable=False)
    # the image is here or it is not: a download would be a surprise
    start = ["run", "--rm", "--name", container, "--pull", "never"]
    return [*start, *confined, "--entrypoint", command[0], spec["image"], *command[1:]]
