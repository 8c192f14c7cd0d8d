"""The plan of a fleet's images, made anew with what the machines that are to make them say. Pure.

The first plan groups hosts as if every registry and toolkit could be had. Where that is not so, those that would pull
build together with the others, and hosts that no toolkit to be had serves together are parted.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.cuda_tables import BUILDERS
from ansible.module_utils.llmfleet.image_fleet import arrange
from ansible.module_utils.llmfleet.image_need import AUTO, BUILD, CUDA
from ansible.module_utils.llmfleet.image_row import PROVIDE, RECEIVE

Data = dict[str, t.Any]


def plan(needs: t.Sequence[Data], rounds: t.Sequence[t.Sequence[Data]] = ()) -> dict[str, Data]:
    """Return {host: row} for the needs of all hosts of a play.

    ``rounds``: for each plan made so far, what the module llama_cpp_image said to it in check mode, each with the
    ``leader`` it was asked for. Rows of groups that have been answered hold the ``answer`` in the row of their leader.
    """
    rows = arrange(needs)
    known: dict[tuple[t.Any, ...], Data] = {}
    for answers in rounds:
        said = {answer["leader"]: answer for answer in answers}
        for leader, row in rows.items():
            if row["leader"] == leader and leader in said and not row["has"]:
                # whose group was answered before was not asked again
                known.setdefault(_group_of(row), said[leader])
        by_host = {need["host"]: need for need in needs}
        needs = [_revised(need, rows[need["host"]], by_host, known) for need in needs]
        rows = arrange(needs)
    for leader, row in rows.items():
        if row["leader"] == leader:
            row["answer"] = known.get(_group_of(row), {})
    return rows


def _group_of(row: Data) -> tuple[t.Any, ...]:
    lists = (tuple(row[name]) for name in ("members", "architectures", "toolkits"))
    return (row["builder"], row["cpu_level"], *lists)


def _revised(need: Data, row: Data, by_host: t.Mapping[str, Data], known: t.Mapping[t.Any, Data]) -> Data:
    """Return the need of a host as it is after its group was answered."""
    answer = known.get(_group_of(row), {})
    if row["action"] not in (PROVIDE, RECEIVE) or row["has"] or not answer or answer.get("unreachable"):
        return need
    pulls = bool(row["tag"]) and row["source"] == AUTO
    if "image" in answer:
        return _unpublished(need, answer["why"]) if pulls and answer["action"] == BUILD else need
    if row["variant"] != CUDA or len(row["members"]) == 1 or need["pool"] or need["cuda_toolkit"]:
        return need
    if pulls:
        need = _unpublished(need, "the published image cannot be pulled now")
    elif row["tag"]:
        return need
    builder = by_host.get(row["builder"], need)
    return {**need, "pool": without_registry(builder["distribution"]), "pool_why": str(answer.get("msg") or "")}


def _unpublished(need: Data, why: str) -> Data:
    return {**need, "tag": "", "references": [], "published_why": why}


def without_registry(distribution: str) -> list[str]:
    """Return the toolkits that a machine of ``distribution`` (debian:bookworm) can have when no registry answers."""
    return [row.version for row in BUILDERS if row.wheel or distribution in row.packages]
