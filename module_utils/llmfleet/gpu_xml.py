"""Reading `nvidia-smi -q -x`. Elements come and go with drivers, and one that is missing is an unknown value."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from xml.etree import ElementTree

from ansible.module_utils.llmfleet.gpu_smi import FAULT, MIB, UUID, bare, place_of, unified, value_or_none
from ansible.module_utils.llmfleet.gpus import NO_NAME, NVIDIA, Gpu, GpuProcess, MigDevice

_POWER = (
    "gpu_power_readings/current_power_limit",
    "gpu_power_readings/power_limit",
    "power_readings/current_power_limit",
    "power_readings/power_limit",
    "power_readings/enforced_power_limit",
)
"""Drivers up to 525 have power_readings, newer ones two kinds of readings, of the GPU and of the whole module."""
_ASKED = ("product_name", "uuid", "fb_memory_usage/total", "fb_memory_usage/free", *_POWER)
_UNITS = {"KIB": 1024, "MIB": MIB, "MB": MIB, "GIB": 1024 * MIB}


@dataclass(frozen=True)
class Details:
    """The answer: versions, GPUs in their order and what some of them say in the place of values."""

    driver_version: str | None
    cuda_version: str | None
    gpus: tuple[Gpu, ...]
    faults: tuple[str, ...] = ()


def parse_details(text: str) -> Details | None:
    """Return what the XML says, or None when there is none or too little of it."""
    log = _log(text)
    if log is None:
        return None
    gpus, faults = [], []
    for index, node in enumerate(log.findall("gpu")):
        gpu = _gpu(node, index)
        if gpu is not None:
            gpus.append(gpu)
        for path in _ASKED:
            said = _text(node, path) or ""
            if FAULT.search(said):
                faults.append(f"GPU {index} says {bare(said)} in the place of its {path.rsplit('/', 1)[-1]}")
    return Details(_value(log, "driver_version"), _version(_value(log, "cuda_version")), tuple(gpus), tuple(faults))


def _log(text: str) -> ElementTree.Element | None:
    """Return the root element; other lines stand before and after it, and names of processes may break it."""
    whole = re.search(r"<nvidia_smi_log\b.*</nvidia_smi_log>", text, flags=re.DOTALL)
    if not whole:
        return None
    clean = re.sub(r"&(?!\w+;|#)", "&amp;", re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd]", "", whole[0]))
    without_processes = re.sub(r"<processes>.*?</processes>", "", clean, flags=re.DOTALL)
    for attempt in (whole[0], clean, without_processes):
        try:
            # the DOCTYPE is left out, so that there are no entities to expand
            return ElementTree.fromstring(attempt)  # noqa: S314
        except ElementTree.ParseError:
            continue
    return None


def _text(node: ElementTree.Element, path: str) -> str | None:
    found = node.find(path)
    return None if found is None else (found.text or "").strip()


def _value(node: ElementTree.Element, path: str) -> str | None:
    return value_or_none(_text(node, path))


def _version(text: str | None) -> str | None:
    return text if text and re.fullmatch(r"\d+\.\d+", text) else None


def _bytes(text: str | None) -> int | None:
    size = re.fullmatch(r"(\d+) ?([A-Za-z]+)", text or "")
    unit = _UNITS.get(size[2].upper()) if size else None
    return int(size[1]) * unit if size and unit else None


def _watts(text: str | None) -> float | None:
    # the C library writes a decimal comma in some languages
    watts = re.fullmatch(r"(\d+(?:[.,]\d+)?) ?W", text or "")
    return float(watts[1].replace(",", ".")) if watts else None


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _yes(text: str | None) -> bool | None:
    return {"yes": True, "enabled": True, "no": False, "disabled": False}.get((text or "").lower())


def _gpu(node: ElementTree.Element, index: int) -> Gpu | None:
    uuid = _value(node, "uuid")
    if not uuid or not UUID.fullmatch(uuid):
        return None
    mig = (_value(node, "mig_mode/current_mig") or "").lower()
    mode = mig if mig in ("enabled", "disabled") else None
    total = _text(node, "fb_memory_usage/total")
    memory = _bytes(total)
    attached = _yes(_value(node, "display_attached"))
    return Gpu(
        vendor=NVIDIA,
        name=_value(node, "product_name") or NO_NAME,
        usable=True,
        driver_loaded=True,
        index=index,
        uuid=uuid,
        memory_mib=None if memory is None else memory // MIB,
        pci_address=place_of(_text(node, "pci/pci_bus_id") or node.get("id")),
        memory_total_bytes=memory,
        memory_free_bytes=_bytes(_text(node, "fb_memory_usage/free")),
        unified_memory=unified(total),
        mig_mode=mode,
        mig_devices=tuple(_mig_devices(node)) if mode else None,
        power_limit_watts=next(filter(None, (_watts(_text(node, path)) for path in _POWER)), None),
        # drivers from 575 on say display_attached, and that display_mode is deprecated
        display_attached=_yes(_value(node, "display_mode")) if attached is None else attached,
        processes=_processes(node),
    )


def _mig_devices(node: ElementTree.Element) -> t.Iterator[MigDevice]:
    for device in node.findall("mig_devices/mig_device"):
        yield MigDevice(
            index=_whole(_text(device, "index")),
            uuid=None,
            profile=None,
            gpu_instance=_whole(_text(device, "gpu_instance_id")),
            compute_instance=_whole(_text(device, "compute_instance_id")),
            memory_total_bytes=_bytes(_text(device, "fb_memory_usage/total")),
            memory_free_bytes=_bytes(_text(device, "fb_memory_usage/free")),
        )


def _processes(node: ElementTree.Element) -> tuple[GpuProcess, ...] | None:
    listed = node.find("processes")
    if listed is None or (len(listed) == 0 and (listed.text or "").strip()):
        return None
    found = []
    for entry in listed.findall("process_info"):
        pid = _whole(_text(entry, "pid"))
        if pid is not None:
            memory = _bytes(_text(entry, "used_memory"))
            found.append(GpuProcess(pid, _program(_value(entry, "process_name")), _value(entry, "type"), memory))
    return tuple(found)


def _program(name: str | None) -> str | None:
    """Return the program without its arguments, among which there may be secrets."""
    first = name.split()[0] if name else ""
    return first if first and not first.startswith("-") else None
