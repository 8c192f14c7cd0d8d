"""The CUDA plan in words: what bounds a group, what would join two, why a host is refused. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.cuda_host import (
    FULL,
    Data,
    Host,
    Served,
    carried,
    compiles,
    dotted,
    title_of,
)
from ansible.module_utils.llmfleet.cuda_tables import BROKEN, BUILDERS, CAPABILITIES, FAMILIES, Toolkit, numbers

Bounds = list[tuple[tuple[int, ...], str]]

ON_CPU = "set llama_cpp_image_variant to cpu for it"


def why(members: t.Sequence[Served]) -> str:
    """Return what bounds the toolkits of a group from below, where anything does, and from above."""
    lows: Bounds = []
    highs: Bounds = []
    for one in members:
        for capability in sorted(set(one.host["capabilities"]), key=numbers):
            row, title = CAPABILITIES[capability], f"{title_of(one.host, capability)} of {one.name}"
            if numbers(row.first) > BUILDERS[-1].minor:
                lows.append((numbers(row.first), f"{title} begins at CUDA {row.first}"))
            if row.last:
                highs.append((numbers(row.last), f"{title} ends at CUDA {row.last}"))
        highs.append(_driver_bound(one))
    lowest = [max(lows, key=lambda bound: bound[0])[1]] if lows else []
    return ", and ".join([*lowest, min(highs, key=lambda bound: bound[0])[1]])


def _driver_bound(one: Served) -> tuple[tuple[int, ...], str]:
    level = carried(one.host)
    driver = f"driver {one.host.get('driver') or 'of unknown version'} of {one.name}"
    if one.way == FULL:
        skipped = BROKEN.get(dotted(level))
        return level, f"{driver} carries CUDA up to {dotted(level)}" + (
            f", left out since {skipped}" if skipped else ""
        )
    newest = one.toolkits[0].minor
    known = f"carries CUDA {dotted(level)} only but " if level else ""
    return newest, f"{driver} {known}runs native code of all {newest[0]}.x (minor-version compatibility)"


def hint(older: t.Sequence[Served], newer: t.Sequence[Served]) -> str:
    """Return the driver that would let one toolkit serve both groups, "" when none would."""
    common = [row for row in newer[0].toolkits if all(row in one.toolkits for one in newer)]
    joining = [row for row in common if all(compiles(row.minor, one.host) for one in older)]
    if not joining:
        return ""
    row = joining[-1]
    late = ", ".join(one.name for one in older if carried(one.host) < row.minor)
    return (
        f"with driver {row.driver} or newer on {late} one image (CUDA {row.version}) would do for this group and the "
        "one before"
    )


def refusal(host: Host, allowed: t.Sequence[Toolkit], ptx: bool, wanted: str) -> dict[str, str]:
    """Return {reason, fix} for a host that none of the ``allowed`` toolkits serves."""
    if not host["capabilities"]:
        return {"reason": "it has no NVIDIA GPU that can be used", "fix": ON_CPU}
    for capability in host["capabilities"]:
        found = _of_gpu(host, capability)
        if found:
            return found
    fitting = [row for row in allowed if compiles(row.minor, host)]
    if not fitting:
        return _of_code(host, allowed, wanted)
    return _of_driver(host, fitting, ptx, wanted)


def _of_gpu(host: Host, capability: str | None) -> dict[str, str] | None:
    title, row = title_of(host, capability), CAPABILITIES.get(capability or "")
    if capability is None:
        old = numbers(host.get("driver")) < (510,)
        fix = f"install driver 510 or newer, which tells it, or {ON_CPU}" if old else ON_CPU
        return {"reason": f"the compute capability of {title} is unknown", "fix": fix}
    if row is None:
        return {"reason": f"{title} is none of the GPUs that llama.cpp is built for here", "fix": ON_CPU}
    if row.jetson:
        reason = f"{title} is a Jetson module, whose CUDA is JetPack's own; llama.cpp is not built for that here"
        return {"reason": reason, "fix": f"give its services an image made for JetPack, or {ON_CPU}"}
    return None


def _of_code(host: Host, allowed: t.Sequence[Toolkit], wanted: str) -> dict[str, str]:
    rows = [CAPABILITIES[capability] for capability in host["capabilities"]]
    late = max(rows, key=lambda row: numbers(row.first))
    early = min(rows, key=lambda row: numbers(row.last or "99"))
    begins = f"{title_of(host, late.capability)} begins at CUDA {late.first}"
    ends = f"{title_of(host, early.capability)} ends at CUDA {early.last}"
    if not wanted:
        return {
            "reason": f"no toolkit has code for all of its GPUs: {begins}, and {ends}",
            "fix": f"put them into different hosts, or {ON_CPU}",
        }
    bounds = [begins] if numbers(late.first) > allowed[0].minor else []
    bounds += [ends] if early.last and numbers(early.last) < allowed[0].minor else []
    what = f"CUDA {wanted} (llama_cpp_image_cuda_toolkit)"
    return {
        "reason": f"{what} has no code for all of its GPUs: {', and '.join(bounds)}",
        "fix": f"leave llama_cpp_image_cuda_toolkit empty, or {ON_CPU}",
    }


def _of_driver(host: Host, fitting: t.Sequence[Toolkit], ptx: bool, wanted: str) -> dict[str, str]:
    needed = min((row.driver if ptx else FAMILIES[row.minor[0]] for row in fitting), key=numbers)
    driver = host.get("driver")
    if not driver:
        fix = f"make nvidia-smi tell it ({needed} or newer is needed), or {ON_CPU}"
        return {"reason": "the version of its driver is unknown", "fix": fix}
    what = f"CUDA {wanted} (llama_cpp_image_cuda_toolkit)" if wanted else f"CUDA {fitting[-1].name}"
    if not wanted:
        what += ", the oldest that llama.cpp can be built with for its GPUs"
    lacks = "cannot compile PTX (llama_cpp_image_ptx) of" if ptx else "is too old for"
    branches = {CAPABILITIES[capability].last_branch: capability for capability in host["capabilities"]}
    branches.pop("", None)
    upto = "".join(f" (branch {last} is the last for {title_of(host, one)})" for last, one in sorted(branches.items()))
    return {
        "reason": f"its driver {driver} {lacks} {what}",
        "fix": f"install driver {needed} or newer{upto}, or {ON_CPU}",
    }


def table(plan: Data) -> list[str]:
    """Return the plan in sentences: one per group, then one per refusal."""
    lines = []
    for group in plan["groups"]:
        kits = group["toolkits"]
        others = f" (down to {kits[-1]} would do)" if len(kits) > 1 else ""
        line = (
            f"CUDA {kits[0]}{others} for {', '.join(group['hosts'])} ({group['architecture']}), native code "
            f"{';'.join(group['architectures'])}: {group['why']}"
        )
        lines.append("; ".join(filter(None, [line, group["hint"]])))
    return lines + [f"no CUDA for {row['host']}: {row['reason']}; {row['fix']}" for row in plan["refused"]]
