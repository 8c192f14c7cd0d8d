"""What a restart of the docker engine means for the containers that run, and whether the policy lets it be. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.daemon_running import ALLOWED, REFUSE, carried

Data = t.Mapping[str, t.Any]


def outlive(docker: Data, foreseen: Data, packages: bool) -> bool:
    """Whether running containers outlive the restart into what daemon_json has ``foreseen``.

    docker_daemon_apply can turn live-restore on before its restart and off after it; the restart that ``packages``
    make comes before that.
    """
    live = docker["live_restore"]
    kept = carried(live, {"live-restore": foreseen["live_restore"]}, foreseen["keys"])
    return bool(kept) and (live or not packages)


def words(docker: Data, policy: str, cause: str, kept: bool) -> tuple[str, str]:
    """Return (problem, warning) of restarting the engine that runs now, at most one of them not empty."""
    if policy == REFUSE:
        return (
            f"the docker engine must be restarted for {cause}, and docker_engine_restart_policy is `{REFUSE}`; "
            f"set it to `{ALLOWED}` when a restart suits you",
            "",
        )
    running = docker["containers_running"] or 0
    if not running or kept:
        return "", ""
    what = (
        f"the docker engine must be restarted for {cause}, which stops its {running} running "
        f"container{'s' * (running != 1)}"
    )
    if policy == ALLOWED:
        return "", f"{what}; those with a restart policy come back by themselves, the others are started again"
    accept = f"{what}; set docker_engine_restart_policy to `{ALLOWED}` to accept that"
    if docker["live_restore"]:
        return f"{accept}, or stop them first: live-restore does not help here", ""
    first = (
        "live-restore first (docker_engine_daemon_options: {live-restore: true}), which takes effect without a restart"
    )
    return f"{accept}, or {first}", ""
