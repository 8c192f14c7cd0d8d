"""What was seen on hosts, put beside what the inventory says: one row a service, each with a verdict. Pure."""

from __future__ import annotations

import typing as t

Data = dict[str, t.Any]

READY, NOT_READY, RUNNING, STOPPED, ENDED, MISSING = "ready", "not ready", "running", "stopped", "ended", "missing"
WRONG = (NOT_READY, ENDED, MISSING)
"""Verdicts on a service that should answer and does not."""
_PREFIX = "Task failed: "


def of_host(
    look: t.Any,
    host: str,
    services: t.Any,
    results: t.Sequence[Data] = (),
    only: t.Sequence[str] = (),
    helpers: t.Sequence[str] = (),
) -> Data:
    """Return {host, problem, wsl, services, helpers} of a host.

    ``look`` is the result of llm_service_info, maybe a failed one; ``services``: `llm_services` of the host, unchecked;
    ``results``: those of llm_service where it ran before, which has verified what it started; ``only``: names of the
    services and helpers that it is about, all where there are none; ``helpers``: containers such as the gateway that
    are to run.
    """
    data: Data = {"host": host, "problem": "", "wsl": bool(look.get("wsl")), "services": [], "helpers": []}
    if look.get("unreachable") or look.get("failed") or "services" not in look:
        kind = "unreachable" if look.get("unreachable") else "failed"
        said = " ".join(str(look.get("msg") or "nothing was seen of it").split())
        # how Ansible begins what it says
        said = said[len(_PREFIX) :] if said.startswith(_PREFIX) else said
        return {**data, "problem": f"{kind}: {said[:300]}"}
    wanted = {str(one["name"]): one for one in services or () if isinstance(one, dict) and one.get("name")}
    proven = {str(result["service"]["name"]): result for result in results if result.get("verification")}
    seen = {row["name"]: row for row in look["services"]}
    names = [*wanted, *(name for name in [*seen, *proven] if name not in wanted)]
    for name in dict.fromkeys(names):
        if name not in (only or (name,)):
            continue
        row = _proven(seen.get(name) or _nothing(name), proven.get(name))
        state = str(wanted[name].get("state") or "started") if name in wanted else ""
        verdict = _verdict(row, state)
        # what is not there and need not be there is no news
        if verdict:
            data["services"].append({**row, "in_inventory": name in wanted, "verdict": verdict})
    rows = _helpers(look.get("helpers") or [], helpers)
    return {**data, "helpers": [row for row in rows if row["name"] in (only or (row["name"],))]}


def _helpers(seen: t.Sequence[Data], wanted: t.Sequence[str]) -> list[Data]:
    """Return the helpers that were ``seen``, and those that are ``wanted`` and were not."""
    rows = [
        {**row, "problem": "it is stopped; run site.yml"}
        if row["name"] in wanted and row["state"] != "running" and not row["problem"]
        else row
        for row in seen
    ]
    names = {row["name"] for row in seen}
    lost = {"state": MISSING, "addresses": [], "problem": "it is missing; deploy it with site.yml"}
    return rows + [{"name": name, **lost} for name in wanted if name not in names]


def unseen(hosts: t.Sequence[Data], names: t.Sequence[str]) -> list[Data]:
    """Return ``hosts`` in the order of ``names``, with those of which there is no data for they failed before."""
    known = {host["host"]: host for host in hosts}
    nothing: Data = {"wsl": False, "services": [], "helpers": []}
    lost = "failed: it was left out after an error earlier in this run"
    return [known.get(name) or {"host": name, "problem": lost, **nothing} for name in names]


def _nothing(name: str) -> Data:
    return {"name": name, "state": "absent", "answering": None, "problem": "", "fix": "deploy it with site.yml"}


def _proven(row: Data, result: Data | None) -> Data:
    """Return ``row`` with what a run has just verified, unless somebody has asked the service anew."""
    if result is None or row["answering"] is not None:
        return row
    more = {"answering": True, "verification": result["verification"], "urls": result.get("urls") or row.get("urls")}
    # one that runs without a container was seen by nobody but the run that started it
    return {**row, **more, "state": "running"}


def _verdict(row: Data, state: str) -> str:
    """Return the verdict on a service that the inventory wants to be in ``state`` ("": it is not in there)."""
    if row["answering"]:
        return READY
    if row["state"] in ("exited", "created", "dead"):
        return ENDED if state == "started" or row["problem"] else STOPPED
    if row["state"] == "absent":
        return MISSING if state == "started" else ""
    return RUNNING if row["answering"] is None and not row["problem"] else NOT_READY


def wrong(host: Data) -> list[str]:
    """Return what is wrong on a host, one sentence each; empty where every service that should answer does."""
    said = [host["problem"]] if host["problem"] else []
    for row in host["services"]:
        if row["verdict"] in WRONG:
            why = f": {row['problem']}" if row["problem"] else ""
            fix = f"; {row['fix']}" if row["fix"] else ""
            said.append(f"service {row['name']} is {row['verdict']}{why}{fix}")
    return said + [f"{row['name']}: {row['problem']}" for row in host["helpers"] if row.get("problem")]
