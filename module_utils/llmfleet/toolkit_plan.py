"""What the nvidia_container_toolkit role will do on a host, and why. Pure: from host_info's facts and its inputs.

Repository, packages and runtime modes: docs.nvidia.com/datacenter/cloud-native/container-toolkit; how the engine finds
the hooks: moby daemon/devices_nvidia_linux.go.
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.llmfleet import engine_info, gpus
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gpu_self_test import base_tag
from ansible.module_utils.llmfleet.registries import join_reference
from ansible.module_utils.llmfleet.toolkit_source import MAIN, PACKAGES, choose_source

Data = dict[str, t.Any]

OWNER = "nvidia_container_toolkit"
"""Under this name the role's keys of daemon.json are known to their one owner, docker_engine."""

NONE, INSTALL, UPGRADE, DOWNGRADE = "none", "install", "upgrade", "downgrade"
REMOVE, SKIP, REFUSE = "remove", "skip", "refuse"
CHANGES = (INSTALL, UPGRADE, DOWNGRADE)

DEFAULT_VERSION = "1.20.0-1"
RUNTIME = "nvidia"
RUNTIME_OPTIONS: Data = {"args": [], "path": "nvidia-container-runtime"}
"""What `nvidia-ctk runtime configure` writes (nvidia-container-toolkit, pkg/config/engine/docker)."""

CDI_SINCE, CDI_BY_DEFAULT_SINCE = (25, 0), (28, 3)
"""Engine versions that know CDI, and that have it on without being told (moby)."""

OWN_SOURCE = "/etc/apt/sources.list.d/nvidia-container-toolkit.sources"

REFRESHED_SPEC = "/var/run/cdi/nvidia.yaml"
"""Written by nvidia-cdi-refresh, which comes with the toolkit from 1.18 on."""


def _age(version: str) -> tuple[int, ...]:
    """Return what two package versions are compared by; a release candidate (~rc.1) comes before its release."""
    upstream, _, revision = version.partition("-")
    release, candidate, _ = upstream.partition("~")
    parts = [[int(part) for part in re.findall(r"\d+", text)] for text in (release, revision)]
    return (*parts[0], 0 if candidate else 1, *parts[1])


def _skipped(facts: Data) -> tuple[str, str]:
    """Return (why the host is left alone, the same as a warning where somebody should act); empty to go on."""
    gpu, docker = facts["gpu"], facts["docker"]
    if gpu["verdict"] == gpus.NONE:
        return gpu["reason"], ""
    if docker["desktop"] or docker["problem"] == engine_info.DESKTOP_OFF:
        return "Docker Desktop brings what containers need for GPUs", ""
    if docker["problem"] == engine_info.ELSEWHERE:
        return "the docker engine is on another machine", ""
    if gpu["verdict"] == gpus.NO_DRIVER:
        return gpu["reason"], f"containers get no GPU: {gpu['reason']}"
    return "", ""


def _action(facts: Data, inputs: Data) -> tuple[str, str, str]:
    """Return (action, version, why) for the packages. Raises BadInput."""
    installed = {name: facts["packages"]["installed"].get(name, "") for name in PACKAGES}
    wanted, current, hook = inputs["version"], installed[MAIN], facts["toolkit"]["hook"]
    if not current and hook and not wanted:
        return NONE, "", f"the toolkit that is there ({hook}, of no known package) is used as it is"
    if current and not wanted:
        return NONE, current, f"version {current} is installed"
    if wanted and not re.fullmatch(r"\d+\.\d+\.\d+(-\d+)?", wanted):
        raise BadInput(f"nvidia_container_toolkit_version `{wanted}` is not a version such as 1.20.0")
    target = wanted or DEFAULT_VERSION
    target += "" if "-" in target else "-1"
    if not current and hook:
        raise BadInput(
            f"nvidia_container_toolkit_version is {wanted}, but the toolkit that is there ({hook}) belongs to no known "
            "package; remove it, or leave the version empty to use it as it is"
        )
    others = {name: version for name, version in installed.items() if version and version != target}
    if not others and all(installed.values()):
        return NONE, target, f"version {target} is installed"
    held = [name for name in others if name in facts["packages"]["held"]]
    if held:
        raise BadInput(
            f"{held[0]} {others[held[0]]} is held and version {target} is wanted; release it (apt-mark unhold), or "
            "leave nvidia_container_toolkit_version empty"
        )
    newer = [f"{name} {version}" for name, version in others.items() if _age(version) > _age(target)]
    if newer and not inputs["allow_downgrade"]:
        raise BadInput(
            f"{newer[0]} is installed and the older {target} is wanted; set nvidia_container_toolkit_allow_downgrade "
            "to go back, or another nvidia_container_toolkit_version"
        )
    if newer:
        return DOWNGRADE, target, f"nvidia_container_toolkit_version is {target}, {newer[0]} is installed"
    if current:
        return UPGRADE, target, f"nvidia_container_toolkit_version is {target}, {current} is installed"
    return INSTALL, target, f"{facts['gpu']['reason']}, no container toolkit"


def _cdi(facts: Data, choice: str) -> bool:
    """Whether containers get their GPUs by CDI. Raises BadInput where that was asked for and cannot be."""
    docker = facts["docker"]
    version = engine_info.release(docker["server_version"] or "")
    if choice == "true" and version and version < CDI_SINCE:
        raise BadInput(
            f"nvidia_container_toolkit_cdi is `true`, but docker {docker['server_version']} knows no CDI; take docker "
            f"{CDI_SINCE[0]} or newer, or `auto`"
        )
    if choice == "auto":
        # an engine that is installed later says by itself whether it knows CDI; the device list does no harm
        return version is None or version >= CDI_BY_DEFAULT_SINCE
    return choice == "true"


def _restart_why(facts: Data, action: str) -> str:
    """Return why the engine that runs now must be restarted to see the toolkit, "" when it need not.

    It looks for the hooks once, when it starts. One that knows the runtime was set up with the toolkit before: a
    later change of the hook's file (an upgrade) is of no concern, as only its place is remembered.
    """
    docker, toolkit = facts["docker"], facts["toolkit"]
    if not docker["reachable"] or docker["started_at"] is None:
        return ""
    new = action in CHANGES and not toolkit["hook"]
    changed_at = toolkit["hook_changed_at"]
    since = bool(toolkit["hook"]) and changed_at is not None and changed_at > docker["started_at"]
    unseen = since and RUNTIME not in docker["runtimes"]
    return "the NVIDIA hooks, which it looks for only when it starts" if new or unseen else ""


def _options(inputs: Data) -> Data:
    """Return the role's keys of daemon.json: the same as `nvidia-ctk runtime configure` gives."""
    options: Data = {"runtimes": {RUNTIME: dict(RUNTIME_OPTIONS)}}
    if inputs["default_runtime"]:
        options["default-runtime"] = RUNTIME
    # said to engines that have it on as well: the file, and so the engine, stays as it is over an upgrade
    if inputs["cdi"] == "true":
        options["features"] = {"cdi": True}
    return options


def _set_up_by_others(made: Data, facts: Data) -> bool:
    """Whether the engine knows the runtime from somebody else, whose settings (paths, arguments) stay as they are."""
    owned = facts["daemon"]["record"].get("owned") or []
    ours = any(OWNER in one.get("owners", ()) for one in owned)
    return made["action"] == NONE and RUNTIME in facts["docker"]["runtimes"] and not ours


def _absent(plan: Data, facts: Data) -> Data:
    there = [name for name in PACKAGES if name in facts["packages"]["installed"]]
    specs = facts["toolkit"]["cdi_specs"]
    why = "nvidia_container_toolkit_state is `absent`"
    plan.update(action=REMOVE if there or specs else NONE, why=why, contributions={OWNER: {}})
    return {**plan, "needed": plan["action"] == REMOVE}


def plan(facts: Data, inputs: Data, probe: Data | None = None) -> Data:
    """Return the plan of the role; ``probe`` is what mirror_probe said once the plan asked for it.

    ``inputs``: state, version, allow_downgrade, mirrors, mirror, default_runtime, cdi (auto, true or false), self_test,
    test_image ({registry, name, tag, digest}). ``contributions`` is what docker_engine is to be given: an owner that is
    not in it keeps the keys it has, as where a driver is lost for a while. ``adds``: the packages that were not there;
    ``conflicts``: files that name the repository as well, which apt refuses when they name another key.
    """
    made: Data = {
        "state": inputs["state"],
        "action": "",
        "version": "",
        "why": "",
        "packages": {},
        "repo": {},
        "probe": {},
        "mirrors": [],
    }
    made.update(adds=[], conflicts=[], daemon_options={}, contributions={}, restart=False, restart_why="", cdi=False)
    made.update(self_test=False, test_image="", gpus=0, warnings=[], problems=[], needed=False)
    if inputs["state"] == "absent":
        return _absent(made, facts)
    why, warning = _skipped(facts)
    if why:
        return {**made, "action": SKIP, "why": why, "warnings": [warning] if warning else []}
    try:
        made["action"], made["version"], made["why"] = _action(facts, inputs)
        made["cdi"] = _cdi(facts, inputs["cdi"])
        if made["action"] in CHANGES:
            choose_source(made, facts, inputs, probe or {})
            made["adds"] = [name for name in PACKAGES if name not in facts["packages"]["installed"]]
            made["conflicts"] = [path for path in facts["apt_sources"]["nvidia"] if path != OWN_SOURCE]
    except BadInput as problem:
        return {**made, "action": REFUSE, "why": str(problem), "mirrors": [], "problems": [str(problem)]}
    made["daemon_options"] = options = _options(inputs)
    made["contributions"] = {} if _set_up_by_others(made, facts) else {OWNER: options}
    made["restart_why"] = _restart_why(facts, made["action"])
    made["restart"] = bool(made["restart_why"])
    made["needed"] = made["action"] in CHANGES or (made["cdi"] and REFRESHED_SPEC not in facts["toolkit"]["cdi_specs"])
    made["warnings"] = _warnings(made, facts)
    _plan_test(made, facts, inputs)
    return made


def _warnings(made: Data, facts: Data) -> list[str]:
    running = facts["docker"]["containers_running"] or 0
    found = {name: facts["packages"]["installed"].get(name) for name in PACKAGES} if made["action"] == NONE else {}
    odd = [f"{name} {version}" for name, version in found.items() if version and version != found[MAIN]]
    warnings = []
    if odd:
        warnings.append(
            f"{odd[0]} does not match {MAIN} {found[MAIN]}, and both must be of one version; set "
            "nvidia_container_toolkit_version to correct that"
        )
    warnings += [
        f"{path} names NVIDIA's repository as well: that entry is put out of force, a copy of the file is kept"
        for path in made["conflicts"]
    ]
    if made["action"] in (UPGRADE, DOWNGRADE) and running:
        # NVIDIA/nvidia-container-toolkit#48
        warnings.append(
            "the packages may make systemd load its units anew, and containers that have their GPU from the runtime "
            "hook then lose it (NVML: Unknown Error); start such containers again afterwards"
        )
    return warnings


def _plan_test(made: Data, facts: Data, inputs: Data) -> None:
    """Say whether and with which image containers are proven to reach the GPU."""
    image, driver = inputs["test_image"], facts["gpu"]["driver_version"]
    tag = image["tag"] or base_tag(driver)
    if not inputs["self_test"]:
        return
    if not tag and not image["digest"]:
        made["warnings"].append(
            f"the self-test is left out: driver {driver} is older than all CUDA images known; name one that suits it "
            "in nvidia_container_toolkit_test_image_tag"
        )
        return
    made["gpus"] = sum(1 for gpu in facts["gpu"]["gpus"] if gpu["vendor"] == gpus.NVIDIA and gpu["usable"])
    made["test_image"] = join_reference(image["registry"], image["name"], tag, image["digest"])
    made["self_test"] = True


def row(made: Data) -> tuple[str, str, str]:
    """Return (action, detail, why) of the toolkit's line in the printed plan."""
    return made["action"], made["version"], made["why"]
