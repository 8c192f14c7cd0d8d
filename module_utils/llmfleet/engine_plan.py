"""What the docker_engine role will do on a host, and why. Pure: from host_info's facts and the role's inputs.

The same function makes the plan that is printed and the one the role acts on.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import daemon_json, engine_info, engine_restart, engine_storage, mirror_choice
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.mirror_index import version_key
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

RESTARTING = {REPLACE: "its replacement", UPGRADE: "its upgrade", DOWNGRADE: "its downgrade"}
"""Actions whose packages restart a running engine, and how that is called."""

FOREIGN_RUNTIMES = ("containerd", "runc")
"""The distribution's packages that containerd.io takes the place of; Kubernetes may run on them."""


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
    foreign = next((name for name in FOREIGN_RUNTIMES if name in packages), "")
    if foreign and source != MIRROR and not version and facts["platform"]["os_family"] in DISTRO_FAMILIES:
        why = f"the distribution's {foreign} is here, perhaps for Kubernetes, and Docker CE would replace it"
        return INSTALL, DISTRO, f"no docker engine on this host; {why}: the distribution's engine works with it"
    return INSTALL, MIRROR, "no docker engine on this host"


def _from_mirror(plan: Data, facts: Data, inputs: Data, probe: Data) -> None:
    """Fill in what comes from a mirror; falls back to the distribution where `auto` allows it. Raises BadInput."""
    chosen = mirror_choice.considered(inputs["mirrors"], inputs["mirror"], "docker_engine_mirror")
    may_fall_back = inputs["source"] != MIRROR and not inputs["version"] and plan["action"] == INSTALL
    try:
        repo = repository(facts["platform"])
        if not probe:
            places = mirror_choice.candidates(chosen, repo["path"])
            plan.update(repo=repo, probe={**repo, "package": CE, "candidates": places}, mirrors=chosen)
            return
        mirrors, best, measured = mirror_choice.usable(chosen, repo["path"], probe, "Docker CE")
    except BadInput as problem:
        if not may_fall_back or facts["platform"]["os_family"] not in DISTRO_FAMILIES:
            raise
        plan.update(
            source=DISTRO, mirrors=[], probe={}, why=f"{plan['why']}; {problem}: the distribution's is installed"
        )
        return
    installed, offered = facts["packages"]["installed"].get(CE, ""), best.get("package_version")
    # a mirror may also lag behind the one that was used before
    if inputs["version"] == LATEST and installed and offered and version_key(offered) <= version_key(installed):
        why = f"{CE} {installed} is installed, and {best['name']} offers nothing newer"
        plan.update(action=KEEP, source=EXISTING, why=why)
        return
    version = f"{CE} {inputs['version'] or 'newest'}"
    plan.update(repo=repo, mirrors=mirrors, why=f"{plan['why']}; {version} from {best['name']} ({measured})")


def make(facts: Data, inputs: Data, probe: Data | None = None) -> Data:
    """Return the plan of the docker_engine role; ``probe`` is what mirror_probe said once the plan asked for it.

    ``inputs``: state, source, version, allow_downgrade, hold, mirrors, mirror, restart_policy, contributions (options
    by owner), registry_hosts, restart (another role's reason for a restart, "" for none).
    """
    plan: Data = {"repo": {}, "probe": {}, "mirrors": [], "version": inputs["version"], "packages": {}}
    plan.update(warnings=[], problems=[], restarts=False, rehold=False, needed=False)
    plan["daemon"] = {"action": "none", "changes": [], "why": "", "path": facts["daemon"]["path"]}
    plan.update(action="", source="", why="")
    try:
        if inputs["state"] == "absent":
            raise BadInput(
                "docker_engine_state is `absent`, and nothing can be deployed without an engine; take it away with "
                "playbooks/remove.yml (make remove PURGE=engine)"
            )
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
    plan["warnings"] += _surprises(plan, facts, inputs)
    _plan_restart(plan, facts, inputs, _plan_daemon(plan, facts, inputs))
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


def _surprises(plan: Data, facts: Data, inputs: Data) -> list[str]:
    """Return what a user may not expect of the packages."""
    packages, said = facts["packages"]["installed"], []
    if inputs["version"] and plan["action"] in (KEEP, START) and CE not in packages and inputs["source"] != EXISTING:
        said.append(
            f"docker_engine_version {inputs['version']} concerns Docker CE and is not heeded: another engine is there "
            "and stays; set docker_engine_source to `mirror` to replace it"
        )
    foreign = [name for name in FOREIGN_RUNTIMES if name in packages]
    if plan["action"] == INSTALL and plan["source"] == MIRROR and foreign:
        said.append(
            f"containerd.io of Docker CE replaces {' and '.join(foreign)} of the distribution; what else runs on them, "
            "such as Kubernetes, will notice"
        )
    return said


def _holds_differ(facts: Data, hold: bool) -> bool:
    """Whether a package of Docker CE is held that should not be, or the other way; dnf is told in our own source."""
    packages = facts["packages"]
    there = [name for name in CE_PACKAGES if name in packages["installed"]]
    return facts["platform"]["package_manager"] == "apt" and any((name in packages["held"]) != hold for name in there)


def _plan_daemon(plan: Data, facts: Data, inputs: Data) -> Data:
    """Say what becomes of daemon.json; return all that is foreseen of it."""
    docker, contributions = facts["docker"], inputs["contributions"]
    if docker["desktop"]:
        if any(contributions.values()):
            plan["warnings"].append(
                "Docker Desktop keeps its own daemon settings: enter what docker_engine_* asks for under Settings > "
                "Docker Engine"
            )
        return {}
    version = str(docker["server_version"] or "")
    foreseen = daemon_json.foresee(facts["daemon"], contributions, version)
    plan["problems"] += foreseen["problems"]
    plan["daemon"].update({key: foreseen[key] for key in ("action", "changes", "why")})
    options = contributions.get("docker_engine", {})
    plan["warnings"] += engine_storage.hidden(docker, options, foreseen["keys"])
    plan["warnings"] += engine_storage.unread(docker, options, foreseen["keys"], inputs["registry_hosts"])
    return foreseen


def _plan_restart(plan: Data, facts: Data, inputs: Data, foreseen: Data) -> None:
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
    kept = engine_restart.outlive(facts["docker"], foreseen, packages=plan["action"] in RESTARTING)
    problem, warning = engine_restart.words(facts["docker"], inputs["restart_policy"], " and ".join(causes), kept)
    plan["problems"] += filter(None, [problem])
    plan["warnings"] += filter(None, [warning])


def row(plan: Data) -> tuple[str, str, str]:
    """Return (action, detail, why) of the engine's line in the printed plan."""
    daemon = plan["daemon"]
    details = [f"daemon.json: {daemon['why'] or 'changes'}"] if daemon["changes"] or daemon["action"] != "none" else []
    if plan["restarts"]:
        details.append("Docker is restarted")
    return plan["action"] or "refused", ", ".join(details), plan["why"] or "; ".join(plan["problems"])
