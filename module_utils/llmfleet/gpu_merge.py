"""One list of GPUs from what the sources say: nvidia-smi's CSV, XML and list, the driver's libraries, the PCI bus.

A source that comes later only fills in what those before it left open. The product table is the last of them.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass, replace

from ansible.module_utils.llmfleet.gpu_products import capability_of
from ansible.module_utils.llmfleet.gpu_smi import parse_list
from ansible.module_utils.llmfleet.gpus import LIBCUDA, NO_NAME, NVML, TABLE, Gpu, PciDevice

Entry = dict[str, t.Any]

UUID_LENGTH = 36
"""Characters of a UUID without its prefix."""


@dataclass(frozen=True)
class Libraries:
    """What the driver's libraries say: the highest CUDA, and GPUs with the library that knows them."""

    cuda_version: str | None = None
    gpus: tuple[tuple[str, Entry], ...] = ()

    def about(self, gpu: Gpu) -> t.Iterator[tuple[str, Entry]]:
        """Yield (library, its entry) for ``gpu``: by UUID, or by address where that of a library is another."""
        for library, entry in self.gpus:
            # nvidia-smi writes some without the prefix that libcuda's have from us
            same_uuid = bool(entry.get("uuid")) and entry["uuid"][-UUID_LENGTH:] == (gpu.uuid or "")[-UUID_LENGTH:]
            same_place = bool(entry.get("pci")) and entry["pci"].lower() == gpu.pci_address
            if same_uuid or same_place:
                yield library, entry


def parse_libraries(text: str) -> Libraries:
    """Return what the program gpu_libs printed; libcuda's word counts before NVML's."""
    answers: dict[str, Entry] = {}
    for line in text.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            # a driver's warning, or a line that a crash cut off
            continue
        if isinstance(answer, dict) and "library" in answer:
            answers[answer["library"]] = answer
    ordered = [(name, answers[name]) for name in (LIBCUDA, NVML) if name in answers]
    version = next((answer["cuda"] for _, answer in ordered if answer["cuda"]), None)
    return Libraries(version, tuple((name, gpu) for name, answer in ordered for gpu in answer["gpus"]))


def with_details(rows: t.Sequence[Gpu], detailed: t.Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs of the CSV with what the XML adds; those of the XML when there is no CSV."""
    if not rows:
        return list(detailed)
    by_uuid = {gpu.uuid: gpu for gpu in detailed}
    merged = []
    for row in rows:
        more = by_uuid.get(row.uuid)
        if more is not None:
            # the XML says a value with its unit, and no comma in it can be taken for the end of a field
            row = replace(
                more if more.memory_mib is not None else replace(more, **_memory(row)),
                index=row.index,
                name=row.name if more.name == NO_NAME else more.name,
                compute_capability=row.compute_capability,
                capability_source=row.capability_source,
            )
        merged.append(row)
    return merged


def _memory(gpu: Gpu) -> Entry:
    names = ("memory_mib", "memory_total_bytes", "unified_memory")
    return {name: getattr(gpu, name) for name in names}


def with_listing(gpu: Gpu, listing: str) -> Gpu:
    """Return ``gpu`` with profiles and UUIDs of its MIG devices; one that has none can be given to nobody."""
    if gpu.mig_mode != "enabled":
        return gpu
    named = parse_list(listing).get(gpu.uuid or "", {})
    devices = []
    for device in gpu.mig_devices or ():
        profile, uuid = named.get(-1 if device.index is None else device.index, (None, None))
        devices.append(replace(device, profile=profile, uuid=uuid))
    # the memory of a sliced GPU may be said to be not applicable: that does not make it the host's
    unified = None if gpu.unified_memory else gpu.unified_memory
    return replace(gpu, mig_devices=tuple(devices), unified_memory=unified, usable=bool(devices))


def with_libraries(gpu: Gpu, libraries: Libraries) -> Gpu:
    """Return ``gpu`` with what the driver's libraries add, then the table."""
    for library, entry in libraries.about(gpu):
        if gpu.compute_capability is None and entry.get("capability"):
            gpu = replace(gpu, compute_capability=entry["capability"], capability_source=library)
        if gpu.unified_memory is None and entry.get("integrated") is not None:
            gpu = replace(gpu, unified_memory=entry["integrated"])
    known = None if gpu.compute_capability else capability_of(gpu.name)
    return replace(gpu, compute_capability=known, capability_source=TABLE) if known else gpu


def with_bus(gpu: Gpu, devices: t.Sequence[PciDevice]) -> Gpu:
    """Return ``gpu`` with what the PCI bus knows of it (under WSL2 it knows nothing)."""
    device = next((device for device in devices if device.address == gpu.pci_address), None)
    return replace(gpu, pci_id=device.pci_id, numa_node=device.numa_node) if device else gpu


def unlisted(gpus: t.Sequence[Gpu], devices: t.Sequence[PciDevice]) -> list[PciDevice]:
    """Return the GPUs of the bus that are not among ``gpus``; none when the addresses do not tell."""
    places = {gpu.pci_address for gpu in gpus}
    found = [device for device in devices if device.address not in places]
    return found if len(found) == len(devices) - len(gpus) else []
