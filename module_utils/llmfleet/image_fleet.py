"""The plan of the llama.cpp images of a fleet: who keeps one, who makes one for whom, who receives it. Pure.

A host keeps an image that covers it, so that a host which joins, or a run with --limit, makes nobody else build or
restart. Hosts that lack one receive it from a host that has one. For the rest, those that one image can serve form a
group, and one machine pulls or builds it for all of them.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import image_need
from ansible.module_utils.llmfleet.image_group import group_key, provide, strongest
from ansible.module_utils.llmfleet.image_request import LABEL_ARCHITECTURES, LABEL_CPU_LEVEL, LABEL_CUDA
from ansible.module_utils.llmfleet.image_row import RECEIVE, REFUSE, first_row, latest_warning

Data = dict[str, t.Any]


def need(facts: Data, inputs: Data, host: str, wanted: str = image_need.ANY) -> Data:
    """Return ``image_need.make`` with ``settled``: the host's row where it does not depend on other hosts, else {}.

    Where all hosts of a play have one, nothing is left to arrange: most runs find every image in its place.
    """
    made = image_need.make(facts, inputs, host, wanted)
    row = first_row(made)
    return {**made, "settled": row if row["action"] else {}}


def arrange(needs: t.Sequence[Data]) -> dict[str, Data]:
    """Return {host: row} for the needs of all hosts of a play.

    Their order decides between equals, and who stands near the builder when an image is passed on.
    """
    rows = {need["host"]: first_row(need) for need in needs}
    lacking = [need for need in needs if not rows[need["host"]]["action"]]
    lacking = _from_others(lacking, needs, rows)
    groups: dict[tuple[t.Any, ...], list[Data]] = {}
    for need in lacking:
        if need["ref"] or need["references"]:
            groups.setdefault(group_key(need), []).append(need)
            continue
        reason = f"llama_cpp_image_ref is `latest`, and {need['ref_why']}"
        rows[need["host"]].update(action=REFUSE, why=reason, problems=[reason])
    for members in groups.values():
        provide(members, needs, rows)
    return rows


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
        owner = strongest(owners, takers[0])["host"]
        members = [need["host"] for need in takers]
        shared = {"image": reference, "has": True, "builder": owner, "leader": members[0], "members": members}
        shared.update(_made_for(next(image for need in owners for image in need["images"] if image["id"] == identity)))
        for need in takers:
            row = rows[need["host"]]
            row.update({**shared, "action": RECEIVE, "receivers": members, "why": f"{owner} has it"})
            row["warnings"] += latest_warning(need)
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
