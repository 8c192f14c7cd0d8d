"""The models of hosts as rows: what is wanted, what is there, who asks the hubs, and how the plan prints it. Pure.

A row says of one model on one host: {engine, model, sha256, dest} and what model_fetch said of it in check mode. Of
models that are not there the hubs are asked once for all hosts; model_plan then chooses the files, and `ways` says who
gets them where.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import model_ref, model_words
from ansible.module_utils.llmfleet.hub.manifest import SAFETENSORS, manifest_from
from ansible.module_utils.llmfleet.memory.terms import gib
from ansible.module_utils.llmfleet.service_options import MODEL_KEYS

Data = dict[str, t.Any]

KEEP, MISSING, FETCH, RECEIVE, REPAIR = "keep", "missing", "download", "receive", "repair"

COME = (FETCH, RECEIVE, REPAIR)
"""What is done about a model of which files have to come."""


def wanted(services: t.Sequence[Data], absent_too: bool = False) -> list[Data]:
    """Return {engine, model, sha256, idle} of the models that ``services`` (as the inventory has them) want, each once.

    A service that is absent wants none; with ``absent_too`` its model is named all the same, to be removed. ``idle``
    is a model that only stopped services name.
    """
    found: dict[tuple[str, ...], Data] = {}
    for service, key, model in ((one, *pair) for one in services for pair in _named(one)):
        row = {
            "engine": service.get("engine") or "llama_server",
            "model": model or "",
            "sha256": (service.get("model_sha256") or "") if key == MODEL_KEYS[0] else "",
        }
        if row["model"] and (absent_too or service.get("state") != "absent"):
            earlier = found.get(tuple(row.values()), {"idle": True})
            found[tuple(row.values())] = {**row, "idle": earlier["idle"] and service.get("state") == "stopped"}
    return list(found.values())


def _named(service: Data) -> t.Iterator[tuple[str, t.Any]]:
    """Yield key and reference of what ``service`` names."""
    for key in MODEL_KEYS:
        yield key, service.get(key)
    models = service.get("models")
    for model in models.values() if isinstance(models, dict) else ():
        yield "models", model


def rows(wishes: t.Sequence[Data], results: t.Sequence[Data], dest: str) -> list[Data]:
    """Return the rows from what the loop of model_fetch over ``wishes`` registered; ``dest``: the folder of models.

    What only stopped services name stays when it is there, and is not brought when it is not.
    """
    return [
        {**{key: wish[key] for key in ("engine", "model", "sha256")}, "dest": dest, **_said(result)}
        for wish, result in zip(wishes, results)
        if result.get("action") == KEEP or not wish.get("idle")
    ]


def _said(result: Data) -> Data:
    """Return what model_fetch said, without what Ansible adds in a loop."""
    left_out = ("invocation", "diff", "ansible_loop_var", "__model_store_place", "failed", "changed")
    return {key: value for key, value in result.items() if key not in left_out}


def directly(plan: t.Sequence[Data]) -> list[Data]:
    """Return the rows of a host's plan for which it needs no hub and no other host: to generate, link, verify …"""
    return [row for row in plan if row["action"] != KEEP and not (row.get("manifest") and row["action"] in COME)]


def is_hub(row: Data) -> bool:
    """Whether the row's model is one of a hub."""
    return model_words.parse(row["model"], row["sha256"]).kind == "hub"


def folders(sources: t.Sequence[t.Any]) -> bool:
    """Whether a folder is among the sources, as users write them; only the hosts can look into one."""
    return any(
        (isinstance(one, str) and one.startswith("/")) or (isinstance(one, dict) and bool(one.get("path")))
        for one in sources
    )


def lacking(plan: t.Sequence[Data], update: bool = False) -> bool:
    """Whether hubs have to be asked about a model of a host's ``plan``, and have not been yet."""
    return any(_is_open(row, update) for row in plan)


def _is_open(row: Data, update: bool) -> bool:
    return not row.get("asked") and (row["action"] == MISSING or (update and is_hub(row)))


def to_ask(plans: t.Mapping[str, t.Sequence[Data]], host: str, update: bool = False) -> list[str]:
    """Return the models that ``host`` asks the hubs about: those it is the first to lack, of ``plans`` by host.

    With ``update`` also those that are there, whose branch may have moved.
    """
    asker: dict[str, str] = {}
    for name, plan in plans.items():
        for row in plan:
            if _is_open(row, update):
                asker.setdefault(row["model"], name)
    return [model for model, name in asker.items() if name == host]


def answered(results: t.Sequence[Data]) -> list[str]:
    """Return the models that a source has answered about, of what the loop of hub_listing registered."""
    return [result["item"] for result in results if result.get("listing")]


def heard(results: t.Sequence[Data]) -> dict[str, Data]:
    """Return model -> what hub_listing said or, where it failed, {msg} with all reasons."""
    said: dict[str, Data] = {}
    for result in results:
        model = result.get("item")
        if model is None or result.get("skipped"):
            continue
        if result.get("listing"):
            names = ("listing", "source", "shape", "config", "candidates", "tried")
            said[model] = {name: result[name] for name in names if name in result}
        elif "listing" not in said.get(model, {}):
            before = said.get(model, {}).get("msg", "")
            why = str(result.get("msg") or "the hub could not be asked")
            said[model] = {"msg": why if before in ("", why) else f"{before}; from the host: {why}"}
    return said


def done(plan: t.Sequence[Data], results: t.Sequence[Data], brought: t.Sequence[Data] = ()) -> list[Data]:
    """Return a host's rows after the models came: by the loop over `directly`, or in rounds (``brought``)."""
    fresh = {(row["engine"], row["model"]): _said(result) for row, result in zip(directly(plan), results)}
    there = {(row["engine"], row["model"]): row.get("found") or {} for row in brought if row["has"]}
    after = []
    for row in plan:
        name = (row["engine"], row["model"])
        if name in fresh or (name in there and row["action"] != KEEP):
            row = {
                **row,
                **fresh.get(name, {}),
                "dest": row["dest"],
                **there.get(name, {}),
                "action": KEEP,
                "why": "it has just come",
            }
        after.append(row)
    return after


def lines(host: str, plan: t.Sequence[Data]) -> list[tuple[str, str, str, str, str]]:
    """Return the table's rows about the models of a host."""
    return [
        (
            host,
            f"model {model_ref.masked(row['model'])}",
            row["action"],
            _detail(row),
            row.get("problem") or row.get("why", ""),
        )
        for row in plan
    ]


def _detail(row: Data) -> str:
    manifest = row.get("manifest") or {}
    size = int(row.get("total_size") or 0)
    come = row["action"] in (FETCH, RECEIVE)
    origin = f"from {row.get('from') or row.get('source')}" if come and (row.get("from") or row.get("source")) else ""
    # one repository may give each engine its own files
    kind = manifest.get("quant") or (SAFETENSORS if manifest.get("format") == SAFETENSORS else "")
    return ", ".join(filter(None, [kind, gib(size) if size else "", origin]))


def ways(plans: t.Mapping[str, t.Sequence[Data]], fan_out: bool = True) -> dict[str, list[Data]]:
    """Return the rows of all hosts with who fetches from outside and who receives, as ``from``.

    One host that has a model, or else the first that lacks it, is where the others get it.
    """
    holder: dict[str, str] = {}
    for settled in (True, False):
        for host, plan in plans.items():
            for row in plan:
                there = row["action"] not in (FETCH, RECEIVE, MISSING)
                if row.get("manifest") and there == settled and not row.get("problem"):
                    holder.setdefault(manifest_from(row["manifest"]).key, host)
    done: dict[str, list[Data]] = {}
    for host, plan in plans.items():
        done[host] = []
        for row in plan:
            source = holder.get(manifest_from(row["manifest"]).key, host) if row.get("manifest") else host
            if fan_out and row["action"] == FETCH and source != host and not row.get("problem"):
                row = {**row, "action": RECEIVE, "from": source}
            done[host].append(row)
    return done
