"""Hosts that lack an image nobody has: which of them one image serves, and which machine makes it for them. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import cuda_plan
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_need import AUTO, BUILD, CONTROLLER, CUDA, PULL, level_rank
from ansible.module_utils.llmfleet.image_row import LOCALHOST, PROVIDE, RECEIVE, REFUSE, called

Data = dict[str, t.Any]

ROOM = {"cpu": 4 * 1024**3}
ROOM_ELSE = 16 * 1024**3
"""Free bytes where the engine keeps images that a machine should have to be chosen to build, by variant."""

SAME_BUILD = ("pool", "recipe", "architecture", "variant", "contents", "cuda_toolkit", "ptx", "cpu_level_asked", "base")
"""Needs that are equal in these, and in who builds, can be met by one build."""


def group_key(need: Data) -> tuple[t.Any, ...]:
    """Return what is equal in needs that can be met together."""
    pinned = any("@" in reference for reference in need["references"])
    shared = need["host"] if pinned else ""
    wanted = tuple(str(need[name]) for name in SAME_BUILD)
    return (need["builder"], need["source"], tuple(need["references"]), shared, *wanted)


def provide(members: t.Sequence[Data], needs: t.Sequence[Data], rows: dict[str, Data]) -> None:
    """Fill in the rows of hosts that lack an image nobody has."""
    # what is only pulled is not compiled: somebody who names an image of his own knows what it holds
    if members[0]["variant"] != CUDA or members[0]["source"] == PULL:
        _group(members, needs, rows, {"architectures": [], "toolkits": [], "why": "", "compatible": []})
        return
    try:
        cuda = _cuda(members)
    except BadInput as problem:
        for need in members:
            rows[need["host"]].update(action=REFUSE, why=str(problem), problems=[str(problem)])
        return
    for refused in cuda["refused"]:
        reason = f"no CUDA image can be made for it: {refused['reason']}; {refused['fix']}"
        rows[refused["host"]].update(action=REFUSE, why=refused["reason"], problems=[reason])
    for group in cuda["groups"]:
        _group([need for need in members if need["host"] in group["hosts"]], needs, rows, group)


def _cuda(members: t.Sequence[Data]) -> Data:
    """Return the CUDA plan of hosts, of those toolkits only that can be had, where that is known. Raises BadInput."""
    ptx, wanted = members[0]["ptx"], members[0]["cuda_toolkit"]
    if not members[0]["pool"]:
        return cuda_plan.make(members, ptx, wanted)
    groups, left = [], list(members)
    while left:
        made = [cuda_plan.make(left, ptx, toolkit)["groups"] for toolkit in members[0]["pool"]]
        best = max(made, key=lambda found: sum(len(group["hosts"]) for group in found))
        if not best:
            break
        groups += best
        served = [host for group in best for host in group["hosts"]]
        left = [need for need in left if need["host"] not in served]
    why = f"no other toolkit than CUDA {' and '.join(members[0]['pool'])} can be had, and that does not serve it"
    fix = f"{members[0]['pool_why'].rstrip('.')}"
    return {"groups": groups, "refused": [{"host": need["host"], "reason": why, "fix": fix} for need in left]}


def _group(members: t.Sequence[Data], needs: t.Sequence[Data], rows: dict[str, Data], cover: Data) -> None:
    builder, warning = _builder(members, needs)
    hosts = [need["host"] for need in members]
    leader = builder if builder in hosts else hosts[0]
    looked_at = next((need for need in needs if need["host"] == builder), None)
    shared: Data = {"builder": builder, "leader": leader, "members": hosts, "coverage": cover["why"]}
    shared["cpu_level"] = _level(members, looked_at)
    shared["gpu_access"] = looked_at["gpu_access"] if looked_at and members[0]["variant"] == CUDA else ""
    shared.update(architectures=cover["architectures"], toolkits=cover["toolkits"])
    shared["receivers"] = [host for host in hosts if host != builder]
    for need in members:
        row = rows[need["host"]]
        row.update({**shared, "action": PROVIDE if need["host"] == builder else RECEIVE})
        row["why"] = _why(need) if need["host"] == builder else f"{called(builder)} makes it"
        if need["host"] in cover["compatible"]:
            row["warnings"].append(
                f"its driver {need['driver']} runs the image by minor-version compatibility; "
                f"a driver that carries CUDA {cover['toolkits'][0]} in full is better"
            )
        row["warnings"] += [warning] if warning and need["host"] == leader else []


def _why(need: Data) -> str:
    if need["source"] == BUILD:
        return "llama_cpp_image_source is build"
    return str(need["published_why"])


def _builder(members: t.Sequence[Data], needs: t.Sequence[Data]) -> tuple[str, str]:
    """Return (builder of a group, warning)."""
    asked = members[0]["builder"]
    if asked == CONTROLLER:
        return LOCALHOST, ""
    warning = ""
    if asked != AUTO:
        named = next((need for need in needs if need["host"] == asked), None)
        if named is None or named["architecture"] == members[0]["architecture"]:
            return asked, ""
        warning = f"{asked} ({named['architecture']}) cannot build for {members[0]['architecture']}"
    chosen = str(strongest(members, members[0])["host"])
    return chosen, f"{warning}, so {chosen} does" if warning else ""


def strongest(candidates: t.Sequence[Data], need: Data) -> Data:
    """Return the host with most processors, among those with room if there are any.

    Of equals the one that has built last, as its compiler cache is warm, then the one with most free disk.
    """
    named = [one for one in candidates if one["host"] == need["builder"]]
    room = ROOM.get(need["variant"], ROOM_ELSE)
    # None: the disk is another machine's, of which nothing is known
    roomy = [one for one in candidates if one["disk_free_bytes"] is None or one["disk_free_bytes"] >= room]
    return max(
        named or roomy or candidates,
        key=lambda one: (one["cpus"], one["built_at"] or 0, one["disk_free_bytes"] or 0),
    )


def _level(members: t.Sequence[Data], builder: Data | None) -> str:
    """Return the processor level that all members have, and the builder, which tries what it made."""
    if members[0]["cpu_level_asked"] != AUTO:
        return str(members[0]["cpu_level_asked"])
    hosts = [*members, builder] if builder else members
    return str(max((one["cpu_level"] for one in hosts), key=level_rank))
