"""How CUDA code runs on one host: by its driver and the capabilities of its GPUs. Pure.

A host is {host, architecture (amd64, arm64), driver ("570.86.10" or None), cuda_version (nvidia-smi's highest CUDA,
"12.8" or None), capabilities (of its usable NVIDIA GPUs: "8.6", None when unknown), gpu_names (of the same GPUs; may be
left out)}.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.cuda_tables import CAPABILITIES, FAMILIES, TOOLKITS, Toolkit, numbers

Data = dict[str, t.Any]
Host = t.Mapping[str, t.Any]

FULL, COMPATIBLE, NOT = "full", "compatible", ""

_BRANDS = ("NVIDIA ", "GeForce ", "Tesla ")


@dataclass(frozen=True)
class Served:
    """A host and what serves it best: toolkits that are neighbours in the table, newest first, and in which way."""

    host: Host
    toolkits: tuple[Toolkit, ...]
    way: str

    @property
    def name(self) -> str:
        return str(self.host["host"])


def row_of(host: str, architecture: str, gpu: Host) -> Data:
    """Return the row of a host; ``architecture`` is amd64 or arm64, ``gpu`` what gpu_info says."""
    usable = [card for card in gpu["gpus"] if card["vendor"] == "nvidia" and card["usable"]]
    return {
        "host": host,
        "architecture": architecture,
        "driver": gpu["driver_version"],
        "cuda_version": gpu["cuda_version"],
        "capabilities": [card["compute_capability"] for card in usable],
        "gpu_names": [card["name"] for card in usable],
    }


def carried(host: Host) -> tuple[int, ...]:
    """Return the highest (major, minor) of CUDA that the driver carries in full, () when that is unknown."""
    said = numbers(host.get("cuda_version"))
    if len(said) == 2:
        return said
    driver = numbers(host.get("driver"))
    return next((row.minor for row in TOOLKITS if driver >= numbers(row.driver)), ())


def compiles(minor: tuple[int, ...], host: Host) -> bool:
    """Whether a toolkit, by (major, minor), makes native code for all GPUs of a host."""
    known = [CAPABILITIES.get(capability or "") for capability in host["capabilities"]]
    return bool(known) and all(
        one is not None
        and not one.jetson
        and numbers(one.first) <= minor
        and (not one.last or minor <= numbers(one.last))
        for one in known
    )


def how(minor: tuple[int, ...], host: Host) -> str:
    """Return how code of a toolkit runs on a host: FULL, COMPATIBLE (native code only) or NOT."""
    if not compiles(minor, host):
        return NOT
    if carried(host) >= minor:
        return FULL
    family = FAMILIES.get(minor[0])
    return COMPATIBLE if family and numbers(host.get("driver")) >= numbers(family) else NOT


def serves(version: str, host: Host) -> str:
    """Return how code of a toolkit ("12.8.1", "12.8") runs on a host: `full`, `compatible` or "" for not at all.

    The version need not be one of the table: an image may have been built with another one.
    """
    return how(numbers(version)[:2], host)


def covers(architectures: t.Iterable[str], capabilities: t.Iterable[str | None]) -> bool:
    """Whether code for ``architectures`` ("86-real", "86-virtual") is native on each GPU of ``capabilities``."""
    native = {entry[: -len("-real")].rstrip("af") for entry in architectures if entry.endswith("-real")}
    return all(capability is not None and capability.replace(".", "") in native for capability in capabilities)


def title_of(host: Host, capability: str | None) -> str:
    """Return the GPU of a host that has ``capability`` in words: "RTX 3090 (8.6)"."""
    names, capabilities = list(host.get("gpu_names") or ()), list(host["capabilities"])
    name = names[capabilities.index(capability)] if len(names) == len(capabilities) else "a GPU"
    for brand in _BRANDS:
        name = name.replace(brand, "")
    return f"{name} ({capability})" if capability else name


def dotted(version: tuple[int, ...]) -> str:
    """Return "12.8" for (12, 8)."""
    return ".".join(str(part) for part in version)
