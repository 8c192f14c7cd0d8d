"""What the docker_engine role will do on a host, and why. Pure: from host_info's facts and the role's inputs.

The same function makes the plan that is printed and the one the role acts on.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import daemon_json, engine_info
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.package_source import is_older, repository, satisfies

Data = dict[str, t.Any]

KEEP, START, INSTALL, REPLACE, UPGRADE, DOWNGRADE = "keep", "start", "install", "replace", "upgrade", "downgrade"
EXISTING, MIRROR, DISTRO = "existing", "mirror", "distro"

CE = "docker-ce"
CE_PACKAGES = (CE, "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")
"""What makes up Docker CE (docs.docker.com/engine/install)."""

VERSIONED = (CE, "docker-ce-cli")
"""The packages that carry the engine's version; the others have their own."""

DISTRO_ENGINES = ("docker.io", "moby-engine", "docker-engine", "docker")
"""Packages of distributions that hold an engine."""

DISTRO_FAMILIES = ("Debian",)
"""OS families whose own engine package the role installs."""

LATEST = "latest"

HOSTS_TOML_SINCE = (28, 0)
"""The release that reads hosts.toml; 26.1 was seen not to, for pulls and builds, with the containerd store or not."""

RESTARTING = {REPLACE: "replacing the engine", UPGRADE: "upgrading the engine", DOWNGRADE: "downgrading the engine"}
"""Actions whose packages restart a running engine."""


def _action(facts: Data, inputs: Data) -> tuple[str, str, str]:
    """Return (action, source, why). Raises BadInput for what cannot be done."""
    docker, source, version = facts["docker"], inputs["source"], inputs["version"]
    packages = facts["packages"]["installed"]
    installed = packages.get(CE, "")
    reachable, problem = docker["reachable"], docker["problem"]
    answers = f"docker {docker['server_version']} answers"
    if docker["desktop"]:
        return KEEP, EXISTING, f"Docker Desktop's engine {docker['server_version']} is used; its settings stay its own"
    if not reachable and problem not in (engine_info.NOTHING_THERE, engine_info.NOT_RUNNING):
        raise BadInput(docker["error"])
    if source == EXISTING:
        if reachable:
            return KEEP, EXISTING, answers
        raise BadInput(
            f"docker_engine_source is `existing`, but no docker engine answers ({docker['error']}); "
            "install one or use `auto`"
        )
    if installed and source != DISTRO and version:
        if version == LATEST:
            return UPGRADE, MIRROR, f"docker_engine_version is `latest`: a newer one than {installed} is looked for"
        if not satisfies(installed, version):
            if not is_older(version, installed):
                return UPGRADE, MIRROR, f"docker_engine_version is {version}, {installed} is installed"
            if inputs["allow_downgrade"]:
                return DOWNGRADE, MIRROR, f"docker_engine_version is {version}, {installed} is installed"
            raise BadInput(
                f"docker_engine_version {version} is older than the installed {installed}; set "
                "docker_engine_allow_downgrade to go back, or another version"
            )
    if source == MIRROR and not installed and (reachable or problem == engine_info.NOT_RUNNING):
        owner = next((name for name in DISTRO_ENGINES if name in packages), "")
        if not owner:
            raise BadInput(
                f"an engine is there that no known package owns ({docker['dockerd'] or docker['cli']}); remove it "
                "yourself before Docker CE can be installed, or use docker_engine_source `auto` to keep it"
            )
        return REPLACE, MIRROR, f"docker_engine_source is `mirror`: Docker CE replaces {owner} {packages[owner]}"
    if reachable:
        return KEEP, EXISTING, answers
    if problem == engine_info.NOT_RUNNING:
        return START, EXISTING, "docker is installed but does not run"
    if source == DISTRO:
        return INSTALL, DISTRO, "no docker engine on this host: the distribution's is installed"
    return INSTALL, MIRROR, "no docker engine on this host"


def _from_mirror(plan: Data, facts: Data, inputs: Data, probe: Data) -> None:
    """Fill in what comes from a mirror; falls back to the distribution where `auto` allows it. Raises BadInput."""
    chosen = inputs["mirrors"]
    if inputs["mirror"]:
        chosen = [mirror for mirror in chosen if inputs["mirror"] in (mirror["name"], mirror["url"])]
        if not chosen and "://" not in inputs["mirror"]:
            names = ", ".join(mirror["name"] for mirror in inputs["mirrors"])
            raise BadInput(f"docker_engine_mirror `{inputs['mirror']}` is none of {names}; use one, or give a URL")
        chosen = chosen or [{"name": inputs["mirror"], "url": inputs["mirror"]}]
    may_fall_back = inputs["source"] != MIRROR and plan["action"] == INSTALL
    try:
        repo = repository(facts["platform"])
        if not probe:
            roots = [{**mirror, "url": f"{mirror['url'].rstrip('/')}/{repo['path']}"} for mirror in chosen]
            plan.update(repo=repo, probe={**repo, "package": CE, "candidates": roots}, mirrors=chosen)
            return
        roots_by_name = {mirror["name"]: mirror["url"].rstrip("/") for mirror in chosen}
        usable = [
            {"name": found["name"], "url": roots_by_name[found["name"]]}
            for found in probe["ranked"]
            if found["name"] in roots_by_name
        ]
        if not usable:
            said = "; ".join(f"{bad['name']}: {bad['why']}" for bad in probe["rejected"]) or "none is given"
            raise BadInput(f"no mirror of Docker CE can be used ({said})")
    except BadInput as problem:
        if not may_fall_back or facts["platform"]["os_family"] not in DISTRO_FAMILIES:
            raise
        plan.update(
            source=DISTRO, mirrors=[], probe={}, why=f"{plan['why']}; {problem}: the distribution's is installed"
        )
        return
    best = probe["ranked"][0]
    installed = facts["packages"]["installed"].get(CE, "")
    if inputs["version"] == LATEST and installed and best.get("package_version") == installed:
        plan.update(action=KEEP, source=EXISTING, why=f"{CE} {installed} is the newest that {best['name']} offers")
        return
    speed = f"{best['bytes_per_second'] / 1e6:.1f} MB/s, " if best.get("bytes_per_second") else ""
    why = (
        f"{plan['why']}; {CE} {inputs['version'] or 'newest'} from {usable[0]['name']} "
        f"({speed}best of {len(usable)} usable of {len(chosen)} mirrors)"
    )
    plan.update(repo=repo, mirrors=usable, why=why)


def _restart_words(facts: Data, inputs: Data, cause: str) -> tuple[str, str]:
    """Return (problem, warning) of restarting the engine that runs now, at most one of them not empty."""
    docker, policy = facts["docker"], inputs["restart_policy"]
    running = docker["containers_running"] or 0
    if policy == "refuse":
        return (
            f"{cause} needs a restart of the docker engine, and docker_engine_restart_policy is `refuse`; "
            "set it to `allowed` when a restart suits you",
            "",
        )
    if not running or docker["live_restore"]:
        return "", ""
    what = f"{cause} restarts the docker engine and stops its {running} running container{'s' * (running != 1)}"
    if policy == "allowed":
        return "", f"{what}; those with a restart policy come back by themselves, the others are started again"
    return (
        f"{what}; set docker_engine_restart_policy to `allowed` to accept that, or live-restore first "
        "(docker_engine_daemon_options: {live-restore: true}), which takes effect without a restart",
        "",
    )


def make(facts: Data, inputs: Data, probe: Data | None = None) -> Data:
    """Return the plan of the docker_engine role; ``probe`` is what mirror_probe said once the plan asked for it.

    ``inputs``: source, version, allow_downgrade, hold, mirrors, mirror, restart_policy, contributions (options by
    owner), registry_hosts, restart (another role's reason for a restart, "" for none).
    """
    plan: Data = {"repo": {}, "probe": {}, "mirrors": [], "version": inputs["version"], "packages": {}}
    plan.update(warnings=[], problems=[], restarts=False, rehold=False, needed=False)
    plan["daemon"] = {"action": "none", "changes": [], "why": "", "path": facts["daemon"]["path"]}
    plan.update(action="", source="", why="")
    try:
        plan["action"], plan["source"], plan["why"] = _action(facts, inputs)
        if plan["source"] == MIRROR:
            _from_mirror(plan, facts, inputs, probe or {})
        if plan["source"] == DISTRO and facts["platform"]["os_family"] not in DISTRO_FAMILIES:
            raise BadInput(
                "the distribution's own docker is installed on Debian and Ubuntu only, and this is "
                f"{facts['platform']['distribution']}; use docker_engine_source `mirror`"
            )
    except BadInput as problem:
        plan["problems"].append(str(problem))
        return plan
    if plan["source"] == MIRROR:
        wanted = "" if inputs["version"] == LATEST else inputs["version"]
        plan["packages"] = {name: wanted if name in VERSIONED else "" for name in CE_PACKAGES}
    _plan_daemon(plan, facts, inputs)
    _plan_restart(plan, facts, inputs)
    plan["rehold"] = plan["action"] == KEEP and inputs["source"] == MIRROR and _holds_differ(facts, inputs["hold"])
    daemon = plan["daemon"]
    plan["needed"] = bool(
        plan["action"] != KEEP
        or daemon["changes"]
        or daemon["action"] != "none"
        or plan["restarts"]
        or plan["rehold"]
        or (inputs["registry_hosts"] != facts["registry_hosts"] and not facts["docker"]["desktop"])
    )
    return plan


def _holds_differ(facts: Data, hold: bool) -> bool:
    """Whether a package of Docker CE is held that should not be, or the other way; dnf is told in our own source."""
    packages = facts["packages"]
    there = [name for name in CE_PACKAGES if name in packages["installed"]]
    return facts["platform"]["package_manager"] == "apt" and any((name in packages["held"]) != hold for name in there)


def _plan_daemon(plan: Data, facts: Data, inputs: Data) -> None:
    """Say what becomes of daemon.json."""
    docker, contributions = facts["docker"], inputs["contributions"]
    if docker["desktop"]:
        if any(contributions.values()):
            plan["warnings"].append(
                "Docker Desktop keeps its own daemon settings: enter what docker_engine_* asks for under Settings > "
                "Docker Engine"
            )
        return
    version = str(docker["server_version"] or "")
    foreseen = daemon_json.foresee(facts["daemon"], contributions, version)
    plan["problems"] += foreseen["problems"]
    plan["daemon"].update({key: foreseen[key] for key in ("action", "changes", "why")})
    before = docker["root_dir"]
    after = contributions.get("docker_engine", {}).get("data-root", "")
    if before and after and before.rstrip("/") != after.rstrip("/"):
        plan["warnings"].append(
            f"images and containers in {before} are not seen any more once data-root is {after}; they stay on the disk"
        )
    reads = (engine_info.release(version) or HOSTS_TOML_SINCE) >= HOSTS_TOML_SINCE
    if inputs["registry_hosts"] and docker["reachable"] and not (reads and docker["containerd_store"]):
        when = "only with the containerd image store; builds use them" if reads else "from release 28 on only"
        plan["warnings"].append(
            f"docker {version} reads mirrors of other registries (hosts.toml) {when}; for pulls give the mirror's name "
            "in the image"
        )


def _plan_restart(plan: Data, facts: Data, inputs: Data) -> None:
    """Say whether the engine that runs now is restarted, and hold that against the restart policy."""
    if not facts["docker"]["reachable"] or facts["docker"]["desktop"]:
        return
    causes = []
    if plan["action"] in RESTARTING:
        causes.append(RESTARTING[plan["action"]])
    if plan["daemon"]["action"] == "restart":
        causes.append(f"daemon.json ({plan['daemon']['why']})")
    if inputs["restart"]:
        causes.append(inputs["restart"])
    if not causes:
        return
    plan["restarts"] = True
    problem, warning = _restart_words(facts, inputs, " and ".join(causes))
    plan["problems"] += filter(None, [problem])
    plan["warnings"] += filter(None, [warning])


def row(plan: Data) -> tuple[str, str, str]:
    """Return (action, detail, why) of the engine's line in the printed plan."""
    daemon = plan["daemon"]
    detail = f"daemon.json: {daemon['why'] or 'changes'}" if daemon["changes"] or daemon["action"] != "none" else ""
    return plan["action"] or "refused", detail, plan["why"] or "; ".join(plan["problems"])
