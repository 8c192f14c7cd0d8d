"""Bringing models to hosts in rounds: one host fetches from outside, the others get it from there. Pure.

Every host has its rows of models that are to come: {key, manifest, dest, has, outside, lan, reasons}. ``key`` is that
of the manifest; ``outside`` and ``lan`` say that it could not be had from outside, or from other hosts.
A round has two steps: those of `to_fetch` fetch from outside, then all others receive from who has it. A host whose
download fails is followed by the next one, and a host that could not receive tries outside itself.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.hub.manifest import manifest_from
from ansible.module_utils.llmfleet.image_peers import spread
from ansible.module_utils.llmfleet.model_rows import COME, KEEP, MISSING

Data = dict[str, t.Any]
Fleet = t.Mapping[str, t.Sequence[Data]]

FOUND = ("path", "files", "fingerprint", "total_size", "gguf", "shape")
"""What model_fetch says of a model that has come, of what only its files tell exactly."""

HOLDERS = 2
"""Hosts that share a model which they have: a second one for where the first cannot be reached."""


def begin(plan: t.Sequence[Data], fan_out: bool = True) -> list[Data]:
    """Return the rows of a host for the first round, from its plan; models without a hub are not among them.

    What needed no hub (`model_rows.directly`) has been done. Without ``fan_out`` every host fetches by itself.
    """
    rows = []
    for row in plan:
        manifest = row.get("manifest")
        if manifest and row["action"] != MISSING:
            known = {name: row[name] for name in ("engine", "model", "sha256", "manifest", "dest")}
            state = {"has": row["action"] not in COME, "outside": False, "lan": not fan_out, "reasons": []}
            rows.append({**known, "key": manifest_from(manifest).key, **state})
    return rows


def fleet(rows: Fleet, plans: Fleet) -> dict[str, list[Data]]:
    """Return the rows of all hosts; one that needs nothing has none and still gives what its plan says it has."""
    return {host: list(own) or begin(_kept(plans.get(host, ()))) for host, own in rows.items()}


def _kept(plan: t.Sequence[Data]) -> list[Data]:
    return [row for row in plan if row["action"] == KEEP]


def to_fetch(fleet: Fleet, batch: t.Sequence[str], host: str, last: bool = False) -> list[Data]:
    """Return the rows that ``host`` fetches from outside now; ``batch``: the hosts that take part in the round.

    In the ``last`` round all that still wait try it.
    """
    chosen = []
    for key, waiting in _waiting(fleet, batch).items():
        able = {name: row["lan"] or last for name, row in waiting if not row["outside"]}
        if able and not _holders(fleet, key):
            able[next(iter(able))] = True
        if able.get(host):
            chosen += _rows(fleet, host, key)
    return chosen


def to_share(fleet: Fleet, batch: t.Sequence[str], host: str) -> list[Data]:
    """Return {key, manifest, holder, dest, place} that ``host`` sees to: the first that is to receive has it shared.

    ``place`` counts the models that one holder shares, each of which needs a port.
    """
    shares: list[Data] = []
    places: dict[str, int] = {}
    for key, receivers in _receivers(fleet, batch).items():
        for holder in _holders(fleet, key)[:HOLDERS]:
            places[holder] = places.get(holder, -1) + 1
            if receivers[0] == host:
                row = next(row for row in fleet[holder] if row["key"] == key and row["has"])
                about = {name: row[name] for name in ("key", "manifest", "dest")}
                shares.append({**about, "holder": holder, "place": places[holder]})
    return shares


def to_receive(
    fleet: Fleet,
    batch: t.Sequence[str],
    host: str,
    shared: t.Sequence[Data],
    relays: t.Mapping[str, t.Sequence[Data]] | None = None,
) -> list[Data]:
    """Return {key, manifest, engine, model, archive, peers} of what ``host`` receives now.

    ``shared``: what model_share said on the holders, each with the ``item`` of `to_share`; ``relays``: the same by
    receiving host, with the ``item`` that this function returned. A host asks its parent in the tree of receivers
    first, and a holder last.
    """
    found: list[Data] = []
    for key, receivers in _receivers(fleet, batch).items():
        offers = [one for one in shared if one["item"]["key"] == key and one.get("archive")]
        if host not in receivers or not offers:
            continue
        urls = {str(one["item"]["holder"]): one.get("urls") or [] for one in offers}
        asked = [*spread(next(iter(urls)), receivers)[host], *urls]
        for name, passed in (relays or {}).items():
            for one in passed:
                if one["item"]["key"] == key:
                    urls[name] = one.get("urls") or []
        peers = [urls[name] for name in dict.fromkeys(asked) if urls.get(name) and name != host]
        for row in _rows(fleet, host, key):
            about = {name: row[name] for name in ("key", "manifest", "engine", "model", "sha256")}
            found.append({**about, "archive": offers[0]["archive"], "peers": peers, "place": len(found)})
    return found


def fetched(rows: t.Sequence[Data], results: t.Sequence[Data]) -> list[Data]:
    """Return a host's rows after ``results`` of model_fetch, each with the ``item`` of `to_fetch`."""
    return [_noted(row, results, "outside") for row in rows]


def received(
    fleet: Fleet, batch: t.Sequence[str], host: str, shared: t.Sequence[Data], results: t.Sequence[Data]
) -> list[Data]:
    """Return the rows of ``host`` after ``results`` of model_fetch, each with the ``item`` of `to_receive`.

    Where it was to receive and nobody offered anything, it has to go outside; ``shared`` says why.
    """
    tried = {result["item"]["key"] for result in results if "item" in result}
    rows = []
    for row in fleet[host]:
        if host in _receivers(fleet, batch).get(row["key"], ()) and row["key"] not in tried:
            why = [str(one["msg"]) for one in shared if one["item"]["key"] == row["key"] and one.get("msg")]
            row = {**row, "lan": True, "reasons": [*row["reasons"], *why]}
        rows.append(_noted(row, results, "lan"))
    return rows


def _noted(row: Data, results: t.Sequence[Data], way: str) -> Data:
    name = (row["key"], row["model"])
    result = next(
        (one for one in results if "item" in one and (one["item"]["key"], one["item"]["model"]) == name), None
    )
    if result is None or result.get("skipped"):
        return dict(row)
    if result.get("path"):
        return {**row, "has": True, "found": {name: result[name] for name in FOUND if name in result}}
    return {**row, way: True, "reasons": [*row["reasons"], str(result.get("msg") or "it broke off")]}


def open_rows(fleet: Fleet, batch: t.Sequence[str]) -> bool:
    """Whether a further round can bring something: a host waits that has a way left."""
    return any(not (row["outside"] and row["lan"]) for waiting in _waiting(fleet, batch).values() for _, row in waiting)


def failures(rows: t.Sequence[Data]) -> list[str]:
    """Return a sentence for each model that did not come."""
    return [
        f"model {row['model']}: {'; '.join(dict.fromkeys(row['reasons'])) or 'who was to fetch it has failed'}"
        for row in rows
        if not row["has"]
    ]


def _waiting(fleet: Fleet, batch: t.Sequence[str]) -> dict[str, list[tuple[str, Data]]]:
    found: dict[str, list[tuple[str, Data]]] = {}
    for host in batch:
        for row in fleet.get(host, ()):
            if not row["has"]:
                found.setdefault(row["key"], []).append((host, row))
    return found


def _receivers(fleet: Fleet, batch: t.Sequence[str]) -> dict[str, list[str]]:
    """Return for each model that somebody has the hosts which have not tried to receive it."""
    found = {}
    for key, waiting in _waiting(fleet, batch).items():
        names = list(dict.fromkeys(name for name, row in waiting if not row["lan"]))
        if names and _holders(fleet, key):
            found[key] = names
    return found


def _holders(fleet: Fleet, key: str) -> list[str]:
    return [host for host, rows in fleet.items() if any(row["key"] == key and row["has"] for row in rows)]


def _rows(fleet: Fleet, host: str, key: str) -> list[Data]:
    """Return the rows of ``host`` that wait for the files: one for each of the words that they are asked for in.

    The files come once; with the other words they are only noted, so that a later run finds them in those too.
    """
    waiting = [row for row in fleet[host] if row["key"] == key and not row["has"]]
    return list({row["model"]: row for row in reversed(waiting)}.values())[::-1]
