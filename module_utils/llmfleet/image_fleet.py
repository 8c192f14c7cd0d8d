"""The plan of the llama.cpp images of a fleet: who keeps one, who makes one for whom, who receives it. Pure.

A host keeps an image that covers it, so that a host which joins, or a run with --limit, makes nobody else build or
restart. Hosts that lack one receive it from a host that has one. For the rest, those that one image can serve form a
group, and one machine pulls or builds it for all of them.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import cuda_plan, image_need
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_need import AUTO, BUILD, CONTROLLER, CUDA, PULL, level_rank
from ansible.module_utils.llmfleet.image_request import LABEL_ARCHITECTURES, LABEL_CPU_LEVEL, LABEL_CUDA

Data = dict[str, t.Any]

KEEP, PROVIDE, RECEIVE, NONE, REFUSE = "keep", "provide", "receive", "none", "refuse"

LOCALHOST = "localhost"
"""How Ansible names the controller when a task is delegated to it."""

ROOM = {"cpu": 4 * 1024**3}
ROOM_ELSE = 16 * 1024**3
"""Free bytes where the engine keeps images that a machine should have to be chosen to build, by variant."""

SAME_BUILD = ("pool", "recipe", "architecture", "variant", "contents", "cuda_toolkit", "ptx", "cpu_level_asked", "base")
"""Needs that are equal in these, and in who builds, can be met by one build."""

FROM_NEED = ("wanted", "source", "variant", "variant_why", "contents", "ref", "tag", "published_why")
EMPTY: Data = {
    "action": NONE,
    "wanted": image_need.NONE,
    "source": AUTO,
    "why": "",
    "image": "",
    "variant": "",
    "variant_why": "",
    "contents": "",
    "ref": "",
    "tag": "",
    "published_why": "",
    "architectures": [],
    "toolkits": [],
    "cpu_level": "",
    "gpu_access": "",
    "coverage": "",
    "builder": "",
    "has": False,
    "leader": "",
    "members": [],
    "receivers": [],
    "answer": {},
    "warnings": [],
    "problems": [],
}
"""A row. ``members`` are the hosts of its group, ``builder`` the machine that provides the image for all of them, which
``has`` it already or pulls or builds it, ``receivers`` those it is sent to, and ``leader`` the member on whose behalf
what is done once for the group is done: the builder itself, when it is a member. ``coverage`` says in words what bounds
the native code of the group, ``tag`` is that of the published image that suits, and ``published_why`` why none does.
``answer``, in the leader's row, is what the builder has said to this (image_rounds)."""


def need(facts: Data, inputs: Data, host: str, wanted: str = image_need.ANY) -> Data:
    """Return ``image_need.make`` with ``settled``: the host's row where it does not depend on other hosts, else {}.

    Where all hosts of a play have one, nothing is left to arrange: most runs find every image in its place.
    """
    made = image_need.make(facts, inputs, host, wanted)
    row = _first_row(made)
    return {**made, "settled": row if row["action"] else {}}


def arrange(needs: t.Sequence[Data]) -> dict[str, Data]:
    """Return {host: row} for the needs of all hosts of a play.

    Their order decides between equals, and who stands near the builder when an image is passed on.
    """
    rows = {need["host"]: _first_row(need) for need in needs}
    lacking = [need for need in needs if not rows[need["host"]]["action"]]
    lacking = _from_others(lacking, needs, rows)
    groups: dict[tuple[t.Any, ...], list[Data]] = {}
    for need in lacking:
        if need["ref"] or need["references"]:
            groups.setdefault(_group_key(need), []).append(need)
            continue
        reason = f"llama_cpp_image_ref is `latest`, and {need['ref_why']}"
        rows[need["host"]].update(action=REFUSE, why=reason, problems=[reason])
    for members in groups.values():
        _provide(members, needs, rows)
    return rows


def _first_row(need: Data) -> Data:
    """Return the row of a host that does not depend on others, with an empty action where it lacks the image."""
    row: Data = {**EMPTY, **{name: need[name] for name in FROM_NEED}}
    row.update(warnings=list(need["warnings"]), problems=list(need["problems"]))
    if need["wanted"] == image_need.NONE:
        return {**row, "action": NONE, "why": "no service needs one", "problems": [], "warnings": []}
    if need["problems"]:
        return {**row, "action": REFUSE, "why": need["problems"][0]}
    # with a known ref all that suit are equal: the one that was there first stays (they come newest first), so that
    # what was made for others since then restarts nobody
    for image in reversed(need["images"]) if need["ref"] else need["images"]:
        reference = image_need.suitable(need, image)
        if reference:
            row.update(action=KEEP, image=reference, why=_keep_why(need, reference))
            row["warnings"] += _latest_warning(need)
            return row
    return {**row, "action": ""}


def _keep_why(need: Data, reference: str) -> str:
    if reference in need["references"]:
        return "it is on this host, as published"
    if not need["ref"]:
        return "it is on this host"
    covers = ", with native code for its GPUs" if need["variant"] == CUDA else ""
    return f"it is on this host, made from the same inputs{covers}"


def _latest_warning(need: Data) -> list[str]:
    if need["ref"]:
        return []
    return [f"it is not known what llama_cpp_image_ref `latest` is today: {need['ref_why']}; the image there is kept"]


def _from_others(lacking: t.Sequence[Data], needs: t.Sequence[Data], rows: dict[str, Data]) -> list[Data]:
    """Let hosts receive an image that another one has; return those for whom nobody has any."""
    left = list(lacking)
    while left:
        offers: dict[str, list[tuple[Data, str]]] = {}
        for need in left:
            for identity, reference in _offers(need, needs).items():
                offers.setdefault(identity, []).append((need, reference))
        if not offers:
            break
        # the image that helps most hosts first; of equals the one that all runs would take
        identity = max(sorted(offers), key=lambda one: len(offers[one]))
        takers = [need for need, _ in offers[identity]]
        reference = offers[identity][0][1]
        owners = [
            need
            for need in needs
            if any(image["id"] == identity and reference in image["references"] for image in need["images"])
        ]
        owner = _strongest(owners, takers[0])["host"]
        members = [need["host"] for need in takers]
        shared = {"image": reference, "has": True, "builder": owner, "leader": members[0], "members": members}
        shared.update(_made_for(next(image for need in owners for image in need["images"] if image["id"] == identity)))
        for need in takers:
            row = rows[need["host"]]
            row.update({**shared, "action": RECEIVE, "receivers": members, "why": f"{owner} has it"})
            row["warnings"] += _latest_warning(need)
        left = [need for need in left if need["host"] not in members]
    return left


def _made_for(image: Data) -> Data:
    """Return what an image covers, from its labels; nothing for one that was pulled."""
    labels = image["labels"]
    code, toolkit = labels.get(LABEL_ARCHITECTURES, ""), labels.get(LABEL_CUDA, "")
    return {
        "architectures": [entry for entry in code.split(";") if entry],
        "toolkits": [toolkit] if toolkit else [],
        "cpu_level": labels.get(LABEL_CPU_LEVEL, ""),
    }


def _offers(need: Data, needs: t.Sequence[Data]) -> dict[str, str]:
    """Return id -> reference of the images of other hosts that would do for ``need``."""
    found: dict[str, str] = {}
    for other in needs:
        if other["host"] == need["host"] or other["architecture"] != need["architecture"]:
            continue
        for image in other["images"]:
            reference = image_need.suitable(need, image)
            # saved and loaded, an image loses the digest of the registry it came from
            if reference and "@" not in reference:
                found.setdefault(image["id"], reference)
    return found


def _group_key(need: Data) -> tuple[t.Any, ...]:
    pinned = any("@" in reference for reference in need["references"])
    shared = need["host"] if pinned else ""
    wanted = tuple(str(need[name]) for name in SAME_BUILD)
    return (need["builder"], need["source"], tuple(need["references"]), shared, *wanted)


def _provide(members: t.Sequence[Data], needs: t.Sequence[Data], rows: dict[str, Data]) -> None:
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


def called(builder: str) -> str:
    """Return a builder in words."""
    return "the controller" if builder == LOCALHOST else builder


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
    chosen = str(_strongest(members, members[0])["host"])
    return chosen, f"{warning}, so {chosen} does" if warning else ""


def _strongest(candidates: t.Sequence[Data], need: Data) -> Data:
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
