"""The resolved specification of a service's container: built, compared, and turned into ``docker create``.

It is stored in the container's label, so it never holds a secret, only its salted digest.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import typing as t

from ansible.module_utils.llmfleet.constants import LABEL_SERVICE, LABEL_SPEC, RUN_UID
from ansible.module_utils.llmfleet.docker_cli import bind_mount
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR, Launch
from ansible.module_utils.llmfleet.gpu_access import docker_words
from ansible.module_utils.llmfleet.services import Service

Spec = dict[str, t.Any]

LOG_OPTIONS = {"max-size": "50m", "max-file": "3"}
STOP_SECONDS = 30
CACHES = "/var/lib/llmfleet/cache"


def digest(secret: str, salt: str) -> str:
    """Return the salted digest under which ``secret`` may be stored."""
    return hmac.new(salt.encode(), secret.encode(), hashlib.sha256).hexdigest()


def build(
    service: Service,
    launch: Launch,
    *,
    image: str,
    image_id: str,
    model_fingerprint: str,
    salt: str,
    gpus: str = "",
    gpu_ids: t.Sequence[str] = (),
    groups: t.Sequence[int] = (),
    caches: str = CACHES,
    files: t.Mapping[str, str] | None = None,
) -> Spec:
    """Return the specification of the container that serves ``service``.

    ``salt`` is that of the container it will be compared with, so that an unchanged secret has an unchanged digest.
    ``gpus`` is one of gpu_access.WAYS, "" for none, ``gpu_ids`` which GPUs (empty: all), ``groups`` the ids of the
    groups that own the device nodes, ``caches`` the folder on the host with what engines keep between containers,
    ``files`` path in the container -> identity of what is there beside the model. What a container does without has no
    key, so that what was stored before there was such a thing stays equal.
    """
    gpu: Spec = {"gpus": gpus, "gpu_ids": list(gpu_ids), "groups": [str(group) for group in groups]}
    rare: Spec = {
        "task": "" if service.task == Service.task else service.task,
        "models": [name for name, _ in service.models],
        "files": dict(sorted((files or {}).items())),
        "cpus": service.cpus,
    }
    host = f"[{service.bind}]" if ":" in service.bind else service.bind
    return {
        "name": service.name,
        "engine": service.engine,
        "served_name": service.served_name,
        "image": image,
        "image_id": image_id,
        "argv": list(launch.argv),
        "env": dict(launch.env),
        "mounts": {mount.target: mount.source for mount in launch.mounts},
        "model_fingerprint": model_fingerprint,
        "publish": f"{host}:{service.port}:{launch.port}",
        "memory": service.memory,
        "user": f"{RUN_UID}:{RUN_UID}",
        "restart_policy": "unless-stopped",
        "salt": salt,
        "secrets": {name: digest(value, salt) for name, value in sorted(launch.secrets.items())},
        **{key: value for key, value in (gpu | _rare(launch, caches) | rare).items() if value},
    }


def _rare(launch: Launch, caches: str) -> Spec:
    """Return what only some engines need of a container."""
    return {
        "entrypoint": launch.entrypoint,
        "caches": {mount.target: f"{caches}/{mount.source}" for mount in launch.caches},
        "shm_mib": launch.shm_mib,
        "tmp_mib": 0 if launch.tmp_mib == Launch.tmp_mib else launch.tmp_mib,
    }


def identity(spec: Spec) -> str:
    """Return the digest that names the specification; secrets of a spec live in a directory of this name."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def stored(container: t.Mapping[str, t.Any] | None) -> Spec | None:
    """Return the specification in a container's label (``docker inspect`` form); None when it has none of ours."""
    if container is None:
        return None
    label = (container["Config"].get("Labels") or {}).get(LABEL_SPEC)
    return t.cast(Spec, json.loads(label)) if label else None


def changes(before: Spec | None, after: Spec | None) -> list[str]:
    """Return one sentence per key that differs, `key: before -> after`; lists and mappings item by item."""
    if before is None or after is None:
        return []
    said: list[str] = []
    for key in sorted({*before, *after} - {"salt"}):
        old: t.Any = before.get(key)
        new: t.Any = after.get(key)
        if old == new:
            continue
        if key == "secrets":
            said += [f"{name}: changed" for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        elif key == "argv":
            before_flags, after_flags = _flags(old), _flags(new)
            gone = [flag for flag in before_flags if flag not in after_flags]
            come = [flag for flag in after_flags if flag not in before_flags]
            said.append(f"argv: {' '.join(gone) or '(nothing)'} -> {' '.join(come) or '(nothing)'}")
        else:
            said.append(f"{key}: {old or '(none)'} -> {new or '(none)'}")
    return said


def _flags(argv: list[str]) -> list[str]:
    """Return ``argv`` with each flag joined to its values, so that a difference reads as `--ctx-size 4096`."""
    joined: list[str] = []
    for word in argv:
        if word.startswith("-") or not joined:
            joined.append(word)
        else:
            joined[-1] += f" {word}"
    return joined


def printable(spec: Spec | None) -> str:
    """Return ``spec`` for a diff: sorted JSON, digests shortened, no salt."""
    if spec is None:
        return ""
    shown = {key: value for key, value in spec.items() if key != "salt"}
    shown["secrets"] = {name: f"digest {value[:12]}" for name, value in spec["secrets"].items()}
    return json.dumps(shown, indent=2, sort_keys=True) + "\n"


def create_argv(spec: Spec, container: str, secrets_dir: str) -> list[str]:
    """Return the ``docker`` arguments that create ``container`` from ``spec`` without starting it."""
    argv = [
        *("create", "--name", container),
        *("--label", f"{LABEL_SERVICE}={spec['name']}"),
        *("--label", f"{LABEL_SPEC}={json.dumps(spec, sort_keys=True)}"),
        *("--user", spec["user"]),
        *("--read-only", "--tmpfs", f"/tmp:rw,noexec,nosuid,size={spec.get('tmp_mib', Launch.tmp_mib)}m"),  # noqa: S108
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--restart", spec["restart_policy"], "--stop-timeout", str(STOP_SECONDS)),
        *("--log-driver", "json-file"),
        # verification probes from outside; a probe baked into an image asks a fixed port and would report unhealthy
        "--no-healthcheck",
        # a rehearsal (see rehearsal.py) serves nobody
        *(("--publish", spec["publish"]) if spec["publish"] else ("--network", "none")),
    ]
    for key, value in LOG_OPTIONS.items():
        argv += ["--log-opt", f"{key}={value}"]
    if spec["memory"]:
        # equal limits: no swap, so a model that does not fit fails at once instead of crawling
        argv += ["--memory", spec["memory"], "--memory-swap", spec["memory"]]
    argv += ["--cpus", f"{spec['cpus']:g}"] if "cpus" in spec else []
    argv += docker_words(spec["gpus"], spec.get("gpu_ids", ())) if "gpus" in spec else []
    for group in spec.get("groups", ()):
        argv += ["--group-add", group]
    argv += ["--shm-size", f"{spec['shm_mib']}m"] if "shm_mib" in spec else []
    argv += ["--entrypoint", spec["entrypoint"]] if "entrypoint" in spec else []
    for target, source in sorted(spec.get("caches", {}).items()):
        argv += ["--mount", bind_mount(source, target, writable=True)]
    for key, value in sorted(spec["env"].items()):
        argv += ["--env", f"{key}={value}"]
    for target, source in sorted(spec["mounts"].items()):
        argv += ["--mount", bind_mount(source, target)]
    for name in sorted(spec["secrets"]):
        argv += ["--mount", bind_mount(f"{secrets_dir}/{name}", f"{SECRETS_DIR}/{name}")]
    return [*argv, spec["image"], *spec["argv"]]
