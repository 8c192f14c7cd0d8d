"""The CUDA plan: which toolkit and which native code serve which hosts, or why nothing does. Pure.

Hosts are rows as cuda_host describes them; the figures are those of cuda_tables.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import cuda_host, cuda_words
from ansible.module_utils.llmfleet.cuda_host import Data, Host, Served, how
from ansible.module_utils.llmfleet.cuda_tables import BROKEN, BUILDERS, CAPABILITIES, PTX_CODE, Toolkit
from ansible.module_utils.llmfleet.errors import BadInput

FULL, COMPATIBLE = cuda_host.FULL, cuda_host.COMPATIBLE
row_of = cuda_host.row_of
serves = cuda_host.serves
covers = cuda_host.covers
table = cuda_words.table


def make(hosts: t.Iterable[Host], ptx: bool = False, wanted_toolkit: str = "") -> Data:
    """Return {groups, refused}: the fewest groups of hosts that one toolkit serves each, and who cannot be served.

    A group is {architecture, toolkits (acceptable for all of its hosts, newest first), architectures
    (CMAKE_CUDA_ARCHITECTURES), hosts, compatible (those of them that rely on minor-version compatibility), why, hint
    ("", or the driver that would make this group part of the one before)}; a refusal is {host, reason, fix}. ``ptx``
    adds code for GPUs to come, for which drivers must carry the toolkit in full. ``wanted_toolkit`` ("12.8", "12.8.1")
    is the only one taken. Raises BadInput when that is not known.
    """
    allowed = _allowed(wanted_toolkit)
    served, refused = [], []
    for host in sorted(hosts, key=lambda one: str(one["host"])):
        found = _served(host, allowed, ptx)
        if found:
            served.append(found)
        else:
            refused.append({"host": host["host"], **cuda_words.refusal(host, allowed, ptx, wanted_toolkit)})
    groups: list[Data] = []
    for architecture in sorted({one.host["architecture"] for one in served}):
        split = _split([one for one in served if one.host["architecture"] == architecture])
        for place, members in enumerate(split):
            hint = cuda_words.hint(members, split[place - 1]) if place else ""
            groups.append({"architecture": architecture, **_group(members, ptx), "hint": hint})
    return {"groups": groups, "refused": refused}


def _allowed(wanted: str) -> tuple[Toolkit, ...]:
    found = tuple(row for row in BUILDERS if wanted in ("", row.version, row.name))
    if found:
        return found
    broken = next((f" ({why})" for name, why in BROKEN.items() if f"{wanted}.".startswith(f"{name}.")), "")
    raise BadInput(
        f"llama_cpp_image_cuda_toolkit: CUDA {wanted!r} is not built with here{broken}; leave it empty, or take one of "
        f"{', '.join(row.version for row in BUILDERS)}."
    )


def _served(host: Host, allowed: t.Sequence[Toolkit], ptx: bool) -> Served | None:
    # compatibility is for hosts that nothing serves in full: it leaves out PTX, and libraries may want more than it
    for way in (FULL,) if ptx else (FULL, COMPATIBLE):
        toolkits = tuple(row for row in allowed if how(row.minor, host) == way)
        if toolkits:
            return Served(host, toolkits, way)
    return None


def _split(served: t.Sequence[Served]) -> list[list[Served]]:
    """Return the fewest groups with a toolkit in common each, the one with the newest first.

    What serves a host is a run of neighbours in the table. So the host whose run begins last shares a group with all
    that its oldest toolkit serves as well, and so on with the rest; no other way makes fewer groups. Beginning with
    the newest keeps hosts with old drivers from holding back others that need not share with them.
    """
    left, groups = list(served), []
    while left:
        point = max((one.toolkits[-1] for one in left), key=lambda row: row.minor)
        groups.append([one for one in left if point in one.toolkits])
        left = [one for one in left if point not in one.toolkits]
    return groups


def _group(members: t.Sequence[Served], ptx: bool) -> Data:
    found = {CAPABILITIES[capability] for one in members for capability in one.host["capabilities"]}
    codes = sorted((row.code for row in found), key=int)
    later = max((row.code for row in found if row.portable), key=int, default=PTX_CODE)
    return {
        "toolkits": [row.version for row in members[0].toolkits if all(row in one.toolkits for one in members)],
        "architectures": [f"{code}-real" for code in codes] + ([f"{later}-virtual"] if ptx else []),
        "hosts": [one.name for one in members],
        "compatible": [one.name for one in members if one.way == COMPATIBLE],
        "why": cuda_words.why(members),
    }
