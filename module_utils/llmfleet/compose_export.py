"""Services as a Compose file: what ``spec.create_argv`` tells docker, said in the words of the Compose Specification.

What differs from host to host are variables with the deployed value as default, so that the file works without an
`.env`. Secrets are files that the template names; their values are not known here.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.compose_health import Deployed, healthcheck, published
from ansible.module_utils.llmfleet.compose_variables import Variables, command, environment, literal, prefixes
from ansible.module_utils.llmfleet.constants import LABEL_BUILD_KEY, RUN_UID
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR, Launch
from ansible.module_utils.llmfleet.engines.llama_router import PRESET
from ansible.module_utils.llmfleet.engines.vllm_gate import GATE, GATE_FILE
from ansible.module_utils.llmfleet.gpu_access import compose_keys
from ansible.module_utils.llmfleet.plain_yaml import lines
from ansible.module_utils.llmfleet.spec import LOG_OPTIONS, STOP_SECONDS, Spec
from ansible.module_utils.llmfleet.vllm_recipe import LABEL_KEY

COMPOSE, EXAMPLE = "compose.yml", ".env.example"
PROGRAMS: t.Mapping[str, str] = {GATE_FILE: GATE}
"""Files that containers get beside their secrets and that are none."""

MARK = "# llmfleet-export: "
_HEAD = f"""\
# What llmfleet serves on this host, for Docker Compose 2: docker compose up --detach
# Values in ${{...}} can be set in .env, see {EXAMPLE}. Another export replaces this file; one changed by hand is kept
# as a copy.
"""
_EXAMPLE_HEAD = f"""\
# Copy this file to .env and change what is different where the services shall run.
# Where there is no .env, {COMPOSE} takes the values below.
"""


@dataclass(frozen=True)
class Export:
    """``data`` is the Compose file as data, ``files`` what to write, by name; ``secrets`` {service, name, file} of the
    files that a user has to make, ``unprobed`` the services without a healthcheck."""

    data: dict[str, t.Any]
    files: dict[str, str]
    secrets: list[dict[str, str]]
    unprobed: list[str]


def _bind(source: str, target: str, read_only: bool) -> dict[str, t.Any]:
    # a folder made by the engine in place of a model that is missing would hide why the service fails
    options = {"bind": {"create_host_path": False}}
    return {"type": "bind", "source": source, "target": literal(target), "read_only": read_only, **options}


def _volumes(spec: Spec, variables: Variables) -> list[dict[str, t.Any]]:
    found = []
    # templates, adapters and further models come after the model itself
    mounts = sorted(spec["mounts"].items(), key=lambda mount: (mount[0].startswith("/files/"), mount[0]))
    for number, (target, source) in enumerate(mounts, 1):
        why = f"The model, readable for user {RUN_UID}" if number == 1 else "More of the model's files"
        name = "MODEL" if number == 1 else f"MODEL_{number}"
        found.append(_bind(variables(name, source, why), target, True))
    for number, (target, source) in enumerate(sorted(spec.get("caches", {}).items()), 1):
        make = f"sudo install -d -m 0700 -o {RUN_UID} -g {RUN_UID}"
        why = f"A folder for what the engine compiles, to be made before: {make} FOLDER"
        found.append(_bind(variables("CACHE" if number == 1 else f"CACHE_{number}", source, why), target, False))
    return found


def _made_here(deployed: Deployed) -> bool:
    """Whether no registry has the image: built by this project and named after none."""
    labels = deployed.image.get("Labels") or {}
    host, slash, _ = deployed.spec["image"].partition("/")
    named = slash and (host == "localhost" or re.search(r"[.:]", host))
    return not named and any(labels.get(label) for label in (LABEL_BUILD_KEY, LABEL_KEY))


def _secret_why(deployed: Deployed, name: str, file: str) -> list[str]:
    install = f"sudo install -D -m 0400 -o {RUN_UID} -g {RUN_UID}"
    twice = deployed.spec["engine"] == "llama_server" and "gpus" in deployed.spec
    new = "openssl rand -hex 24" + (" | sed p" if twice else "")
    said = (
        [f"File that lists the models, by their paths in the container, which only user {RUN_UID} may read."]
        if name == PRESET
        else [
            f"File with {name}, which only user {RUN_UID} may read. A new one:",
            f"  {new} | {install} /dev/stdin {file}",
        ]
    )
    if twice and name != PRESET:
        said.append("The key stands in it twice, since llama-server prints the end of a single one into its log.")
    source = deployed.secret_files.get(name, "")
    if source.isprintable() and source:
        said += ["That of the deployed service, on its host:", f"  {install} {shlex.quote(source)} {file}"]
    return said


def _service(deployed: Deployed, variables: Variables, check: dict[str, t.Any] | None) -> dict[str, t.Any]:
    spec = deployed.spec
    name = spec["name"]
    address, outside, inside = published(spec)
    access = compose_keys(spec["gpus"], spec.get("gpu_ids", ())) if "gpus" in spec else {}
    tmp = f"/tmp:rw,noexec,nosuid,size={spec.get('tmp_mib', Launch.tmp_mib)}m"  # noqa: S108
    made_here = _made_here(deployed)
    why = "It is in no registry: bring it by docker save and docker load, or playbooks/image-bundle.yml"
    image = variables("IMAGE", spec["image"], *([why] if made_here else []))
    ports = f"{variables('BIND', address)}:{variables('PORT', outside)}:{inside}"
    volumes = _volumes(spec, variables)
    secrets, configs = [], []
    for secret in sorted(spec["secrets"]):
        row = {"source": f"{name}_{secret}", "target": f"{SECRETS_DIR}/{secret}"}
        if secret in PROGRAMS:
            configs.append({**row, "source": _config_name(secret)})
        else:
            secrets.append(row)
    body = {
        "image": image,
        # the name could be somebody else's in a public registry
        "pull_policy": "never" if made_here else "",
        "entrypoint": [literal(spec["entrypoint"])] if "entrypoint" in spec else [],
        "command": command(spec["argv"], variables),
        "environment": {**environment(spec["env"], variables), **access.get("environment", {})},
        "ports": [ports],
        "volumes": volumes,
        "secrets": secrets,
        "configs": configs,
        "runtime": access.get("runtime"),
        "deploy": access.get("deploy"),
        "devices": access.get("devices"),
        "group_add": list(spec.get("groups", ())),
        # equal limits: no swap, so a model that does not fit fails at once instead of crawling
        "mem_limit": spec["memory"],
        "memswap_limit": spec["memory"],
        "cpus": spec.get("cpus"),
        "shm_size": f"{spec['shm_mib']}m" if "shm_mib" in spec else "",
        "user": spec["user"],
        "read_only": True,
        "tmpfs": [tmp],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "restart": spec["restart_policy"],
        "stop_grace_period": f"{STOP_SECONDS}s",
        "logging": {"driver": "json-file", "options": dict(LOG_OPTIONS)},
        "healthcheck": check,
    }
    return {key: value for key, value in body.items() if value or value is False}


def _config_name(program: str) -> str:
    return program.partition(".")[0]


def seal(text: str) -> str:
    """Return ``text`` under a line by which ``untouched`` knows it."""
    return f"{MARK}{hashlib.sha256(text.encode()).hexdigest()[:16]}\n{text}"


def untouched(text: str) -> bool:
    """Whether ``text`` is as it was written by an export, this one or an earlier one."""
    return seal(text.partition("\n")[2]) == text


def export(services: t.Sequence[Deployed]) -> Export:
    """Return the Compose file of ``services`` and what belongs to it."""
    ordered = sorted(services, key=lambda deployed: str(deployed.spec["name"]))
    prefix = prefixes(deployed.spec["name"] for deployed in ordered)
    data: dict[str, t.Any] = {"services": {}, "secrets": {}, "configs": {}}
    comments: dict[str, str] = {}
    example, needed, programs = [_EXAMPLE_HEAD], [], {}
    for deployed in ordered:
        name = deployed.spec["name"]
        variables = Variables(prefix[name])
        check, why = healthcheck(deployed)
        comments.update({name: why} if why else {})
        data["services"][name] = _service(deployed, variables, check)
        for secret in sorted(deployed.spec["secrets"]):
            if secret in PROGRAMS:
                data["configs"][_config_name(secret)] = {"file": f"./{secret}"}
                programs[secret] = seal(PROGRAMS[secret])
                continue
            file = f"./secrets/{name}/{secret}"
            needed.append({"service": name, "name": secret, "file": file})
            value = variables(f"{secret.upper()}_FILE", file, *_secret_why(deployed, secret, file))
            data["secrets"][f"{name}_{secret}"] = {"file": value}
        example.append("\n".join([f"# {name}", *variables.rows, ""]))
    data = {key: value for key, value in data.items() if value or key == "services"}
    files = {**programs, EXAMPLE: seal("\n".join(example)), COMPOSE: seal(_HEAD + _compose_text(data, comments))}
    return Export(data, files, needed, sorted(comments))


def _compose_text(data: t.Mapping[str, t.Any], comments: t.Mapping[str, str]) -> str:
    """Return ``data`` as YAML, a service's comment before it."""
    text = ["services:" if data["services"] else "services: {}"]
    for name, service in data["services"].items():
        text += [f"  # {comments[name]}"] if name in comments else []
        text += lines({name: service}, 2)
    text += lines({key: value for key, value in data.items() if key != "services"})
    return "\n".join(text) + "\n"
