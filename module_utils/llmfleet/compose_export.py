"""Services as a Compose file: what ``spec.create_argv`` tells docker, said in the words of the Compose Specification.

What differs from host to host are variables with the deployed value as default, so that the file works without an
`.env`. Secrets are files that the template names; their values are not known here.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.constants import LABEL_BUILD_KEY, RUN_UID
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR, Launch
from ansible.module_utils.llmfleet.engines.vllm_gate import GATE, GATE_FILE
from ansible.module_utils.llmfleet.plain_yaml import lines
from ansible.module_utils.llmfleet.spec import GPU_ACCESS, LOG_OPTIONS, STOP_SECONDS, Spec
from ansible.module_utils.llmfleet.vllm_recipe import LABEL_KEY

COMPOSE, EXAMPLE = "compose.yml", ".env.example"
PROGRAMS: t.Mapping[str, str] = {GATE_FILE: GATE}
"""Files that containers get beside their secrets and that are none."""

MARK = "# llmfleet-export: "
_SECRET = re.compile(r"(?i)(^|[-_])(hft|api[-_]?key|token|secret|password)$")
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_UNFIT = re.compile(r"[${}\x00-\x1f\x7f]")
"""What a default value in `${...}` or a line of an env file cannot hold."""

# -I and -S: neither what lies in PYTHONPATH nor what is installed is read, which makes it quick
_PYTHON = (
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', {port}, timeout=5); "
    "c.request('GET', '{path}'); raise SystemExit(c.getresponse().status != 200)"
)

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
class Deployed:
    """A service as found on a host."""

    spec: Spec
    image: t.Mapping[str, t.Any] = field(default_factory=dict)
    """`Config` of its image, {} when the image is gone."""
    secret_files: t.Mapping[str, str] = field(default_factory=dict)
    """Secret -> the file on the host that the container gets it from."""


@dataclass(frozen=True)
class Export:
    """``data`` is the Compose file as data, ``files`` what to write, by name; ``secrets`` {service, name, file} of the
    files that a user has to make, ``unprobed`` the services without a healthcheck."""

    data: dict[str, t.Any]
    files: dict[str, str]
    secrets: list[dict[str, str]]
    unprobed: list[str]


class _Variables:
    """The variables of one service, in the order they were asked for."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.rows: list[str] = []

    def __call__(self, name: str, value: str, *why: str) -> str:
        """Return what stands for ``value`` in the Compose file; ``why`` are comments about it."""
        if _UNFIT.search(value):
            return literal(value)
        self.rows += [*(f"# {line}" for line in why), f"{self._prefix}_{name}={_env_value(value)}"]
        return f"${{{self._prefix}_{name}:-{value}}}"

    def hidden(self, name: str) -> str:
        """Return what stands for a value that must not be written down."""
        variable = f"{self._prefix}_{re.sub(r'[^A-Z0-9]+', '_', name.upper()).strip('_')}"
        row = f"{variable}="
        if row not in self.rows:
            self.rows += ["# Looks like a secret: the value of the deployed service was left out", row]
        return f"${{{variable}:?set it in .env}}"


def literal(text: str) -> str:
    """Return ``text`` so that Compose takes it as it is."""
    return text.replace("$", "$$")


def _env_value(value: str) -> str:
    if re.fullmatch(r"[\w./:@%+,=\[\]-]*", value):
        return value
    if "'" not in value:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def prefixes(names: t.Iterable[str]) -> dict[str, str]:
    """Return name of service -> beginning of its variables, all of them different."""
    found: dict[str, str] = {}
    for name in names:
        base = prefix = re.sub(r"^(?=\d)", "_", re.sub(r"[^A-Z0-9]", "_", name.upper()))
        count = 1
        while prefix in found.values():
            count += 1
            prefix = f"{base}_{count}"
        found[name] = prefix
    return found


def healthcheck(deployed: Deployed) -> tuple[dict[str, t.Any] | None, str]:
    """Return (the healthcheck, why there is none): a program that the image has asks the engine whether it is ready.

    /health needs no key and answers 503 while the model loads. The start period is what the engine's phases may take.
    """
    engine = ENGINES[deployed.spec["engine"]]
    port = int(deployed.spec["publish"].rpartition(":")[2])
    # llama.cpp's own images ask by curl, which this project's leave out together with all else
    own = (deployed.image.get("Healthcheck") or {}).get("Test") or []
    if engine.NAME == "vllm":
        test = ["CMD", "python3", "-I", "-S", "-c", _PYTHON.format(port=port, path=engine.HEALTH_PATH)]
    elif re.search(r"\bcurl\b", " ".join(own[:2])):
        test = ["CMD", "curl", "-fsS", "--noproxy", "*", f"http://127.0.0.1:{port}{engine.HEALTH_PATH}"]
    else:
        address, outside, _ = _published(deployed.spec)
        seen = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(address, address)  # noqa: S104
        why = (
            f"from outside: curl -fsS http://{seen}:{outside}{engine.HEALTH_PATH} (200 when ready, 503 while it loads)"
        )
        return ({"disable": True} if own else None), f"No healthcheck: the image holds no program that could ask; {why}"
    start = sum(int(phase.stall_seconds) for phase in engine.PHASES)
    return {
        "test": [literal(word) for word in test],
        "start_period": f"{start}s",
        "interval": "30s",
        "timeout": "10s",
        "retries": 3,
    }, ""


def _published(spec: Spec) -> tuple[str, str, str]:
    """Return (address, port on the host, port inside)."""
    rest, _, inside = spec["publish"].rpartition(":")
    address, _, port = rest.rpartition(":")
    return address, port, inside


def gpu_access(gpus: str) -> dict[str, t.Any]:
    """Return the keys by which a service gets GPUs in the way ``gpus`` of GPU_ACCESS, {} for ""."""
    said = GPU_ACCESS[gpus] if gpus else ()
    requests: list[dict[str, t.Any]] = []
    nodes: list[str] = []
    environment: dict[str, str] = {}
    for flag, value in zip(said[::2], said[1::2]):
        if flag == "--gpus":
            requests.append({"driver": "nvidia", "count": value, "capabilities": ["gpu"]})
        elif flag == "--env":
            name, _, content = value.partition("=")
            environment[name] = content
        elif value.startswith("/"):
            nodes.append(f"{value}:{value}")
        else:
            # under `devices` Compose 2.26 would take it for the path of a node
            requests.append({"driver": "cdi", "device_ids": [value], "capabilities": ["gpu"]})
    deploy = {"resources": {"reservations": {"devices": requests}}} if requests else {}
    found = {"deploy": deploy, "devices": nodes, "environment": environment}
    return {key: value for key, value in found.items() if value}


def _command(argv: t.Sequence[str], variables: _Variables) -> list[str]:
    """Return ``argv`` for Compose, without values that look like secrets."""
    words: list[str] = []
    before = ""
    for word in argv:
        flag, equals, value = word.partition("=")
        if word.startswith("-") and equals and (_SECRET.search(flag) or _LOGIN.search(value)):
            words.append(f"{flag}={variables.hidden(flag)}")
        elif before.startswith("-") and not word.startswith("-") and (_SECRET.search(before) or _LOGIN.search(word)):
            words.append(variables.hidden(before))
        else:
            words.append(literal(word))
        before = word
    return words


def _environment(env: t.Mapping[str, str], variables: _Variables) -> dict[str, str]:
    return {
        key: variables.hidden(key) if _SECRET.search(key) or _LOGIN.search(value) else literal(value)
        for key, value in sorted(env.items())
    }


def _bind(source: str, target: str, read_only: bool) -> dict[str, t.Any]:
    # a folder made by the engine in place of a model that is missing would hide why the service fails
    options = {"bind": {"create_host_path": False}}
    return {"type": "bind", "source": source, "target": literal(target), "read_only": read_only, **options}


def _volumes(spec: Spec, variables: _Variables) -> list[dict[str, t.Any]]:
    found = []
    for number, (target, source) in enumerate(sorted(spec["mounts"].items()), 1):
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
    said = [
        f"File with {name}, which only user {RUN_UID} may read. A new one:",
        f"  {new} | {install} /dev/stdin {file}",
    ]
    if twice:
        said.append("The key stands in it twice, since llama-server prints the end of a single one into its log.")
    source = deployed.secret_files.get(name, "")
    if source.isprintable() and source:
        said += ["That of the deployed service, on its host:", f"  {install} {shlex.quote(source)} {file}"]
    return said


def _service(deployed: Deployed, variables: _Variables, check: dict[str, t.Any] | None) -> dict[str, t.Any]:
    spec = deployed.spec
    name = spec["name"]
    address, outside, inside = _published(spec)
    access = gpu_access(spec.get("gpus", ""))
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
        "command": _command(spec["argv"], variables),
        "environment": {**_environment(spec["env"], variables), **access.get("environment", {})},
        "ports": [ports],
        "volumes": volumes,
        "secrets": secrets,
        "configs": configs,
        "deploy": access.get("deploy"),
        "devices": access.get("devices"),
        "group_add": list(spec.get("groups", ())),
        # equal limits: no swap, so a model that does not fit fails at once instead of crawling
        "mem_limit": spec["memory"],
        "memswap_limit": spec["memory"],
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
        variables = _Variables(prefix[name])
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
