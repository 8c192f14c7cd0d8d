"""Which of a host's GPUs a service names by `gpus`. Pure, from the facts of gpu_info."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gpus import NVIDIA

Data = dict[str, t.Any]

PREFIX = 8
"""Characters of a UUID (without GPU- or MIG-) that name it where only one begins so."""


def number(gpus: t.Sequence[Data]) -> list[Data]:
    """Return ``gpus`` each with an `index`: the driver's, or its place among those of its vendor where it has none."""
    found, places = [], dict.fromkeys((gpu["vendor"] for gpu in gpus), 0)
    for gpu in gpus:
        index = gpu.get("index")
        found.append({**gpu, "index": places[gpu["vendor"]] if index is None else index})
        places[gpu["vendor"]] += 1
    return found


def choose(where: str, asked: t.Sequence[str], gpus: t.Sequence[Data]) -> list[Data]:
    """Return those of ``gpus`` that ``asked`` names, in the order of the host; all where it is empty.

    A GPU that is cut into slices (MIG) cannot be used as a whole, and a process uses one of them (NVIDIA's MIG guide),
    so that each counts as a GPU of its own. Raises BadInput, one sentence that begins with ``where``.
    """
    units = [unit for gpu in number(gpus) for unit in _slices(gpu) or [gpu]]
    if not asked and any(map(_is_slice, units)):
        raise BadInput(
            f"{where}: a GPU of this host is cut into slices (MIG), of which an engine uses one: name in `gpus` which, "
            f"or GPUs that are whole; there are: {'; '.join(map(_listed, units))}"
        )
    if not asked:
        return list(gpus)
    found: dict[int, str] = {}
    for word in asked:
        place = _place(where, word, units)
        if place in found:
            raise BadInput(f"{where}: `gpus` names one GPU twice: {found[place]} and {word}")
        found[place] = word
    chosen = [units[place] for place in sorted(found)]
    if len(chosen) > 1 and any(map(_is_slice, chosen)):
        raise BadInput(
            f"{where}: `gpus` names a slice of a GPU (MIG) and more, and an engine uses one slice and no other"
        )
    if len({unit["vendor"] for unit in chosen}) > 1:
        raise BadInput(f"{where}: `gpus` names GPUs of different vendors, and an engine computes on those of one")
    return chosen


def _place(where: str, word: str, units: t.Sequence[Data]) -> int:
    found = [place for place, unit in enumerate(units) if word.lower() in _names(unit)]
    found = found or [place for place, unit in enumerate(units) if _begins(word, unit)]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(_listed(unit) for unit in units) or "none"
    if found:
        raise BadInput(f"{where}: `gpus` names {word}, which is more than one GPU of this host ({listed})")
    raise BadInput(f"{where}: `gpus` names {word}, and the GPUs that this service can use here are: {listed}")


def _slices(gpu: Data) -> list[Data]:
    return [
        {
            **gpu,
            "index": f"{gpu['index']}:{device['index']}",
            "uuid": device["uuid"],
            "pci_address": None,
            "name": f"{gpu['name']} MIG {device['profile']}",
            "profile": device["profile"],
            "memory_total_bytes": device["memory_total_bytes"],
            "memory_mib": None,
        }
        for device in gpu.get("mig_devices") or ()
        if device.get("uuid")
    ]


def _is_slice(unit: Data) -> bool:
    return "profile" in unit


def _names(gpu: Data) -> set[str]:
    uuid, address = str(gpu.get("uuid") or "").lower(), str(gpu.get("pci_address") or "").lower()
    words = {str(gpu["index"]), uuid, _bare(uuid), address}
    # PCI addresses are mostly said without their domain when that is 0, and by nvidia-smi with a longer one
    words |= {address[len("0000:") :], f"0000{address}"} if address.startswith("0000:") else set()
    return words - {""}


def _bare(uuid: str) -> str:
    return uuid.partition("-")[2] if uuid.startswith(("gpu-", "mig-")) else uuid


def _begins(word: str, gpu: Data) -> bool:
    bare = _bare(word.lower())
    return len(bare) >= PREFIX and _bare(str(gpu.get("uuid") or "").lower()).startswith(bare)


def _listed(gpu: Data) -> str:
    more = ", ".join(str(gpu[key]) for key in ("uuid", "pci_address") if gpu.get(key))
    return f"{gpu['index']} ({gpu['name']}{', ' if more else ''}{more})"


def ids_of(chosen: t.Sequence[Data]) -> tuple[str, ...]:
    """Return by what containers are given the GPUs ``chosen``: what stays the same when others come and go."""
    vendor = chosen[0]["vendor"]
    if vendor == NVIDIA:
        return tuple(str(gpu.get("uuid") or gpu["index"]) for gpu in chosen)
    return tuple(str(gpu["pci_address"] if vendor in ("amd", "intel") else gpu["index"]) for gpu in chosen)
