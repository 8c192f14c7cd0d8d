"""The questions put to nvidia-smi and its answers in CSV and in lists; its XML is read by gpu_xml.

nvidia-smi's output is not guaranteed to stay as it is, so that every answer may lack anything.
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.llmfleet.gpus import NVIDIA, SMI, Gpu

_FORMAT = "--format=csv,noheader,nounits"
_FIELDS = "index,uuid,name,memory.total,driver_version"
QUERY = (f"--query-gpu={_FIELDS},compute_cap", _FORMAT)
# drivers before 510 do not know compute_cap, and refuse a whole query for one unknown field
OLD_QUERY = (f"--query-gpu={_FIELDS}", _FORMAT)
DETAILS_QUERY = ("-q", "-x")
LIST_QUERY = ("-L",)

MIB = 1024**2
UUID = re.compile(r"(?:GPU-)?[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
"""A GPU's UUID; those built into a chip (Orin, Thor) come without the prefix."""
NOT_APPLICABLE = ("n/a", "not supported")
_UNKNOWN = (
    *NOT_APPLICABLE,
    "",
    "none",
    "unknown error",
    "err!",
    "gpu is lost",
    "gpu requires reset",
    "insufficient permissions",
    "not found",
    "not available",
    "requested functionality has been deprecated",
)
FAULT = re.compile(
    r"ERR!|Unknown Error|GPU is lost|requires reset|fallen off the bus|Insufficient Permissions", re.IGNORECASE
)
"""How nvidia-smi says in the place of a value that a GPU does not answer any more."""


def bare(text: str) -> str:
    """Return a field without blanks and the brackets around words that stand in a value's place."""
    return text.strip().strip("[]").strip()


def value_or_none(text: str | None) -> str | None:
    """Return a field of nvidia-smi, or None for its ways of saying "not known" ([N/A], ERR!, ...)."""
    # whatever stands in brackets is no value, in whatever language
    if text is None or text.strip().startswith("[") or bare(text).lower() in _UNKNOWN:
        return None
    return text.strip()


def unified(text: str | None) -> bool | None:
    """Whether a GPU that says ``text`` for its memory shares the host's (GB10, Thor), None when it cannot be told."""
    if bare(text or "").lower() in NOT_APPLICABLE:
        return True
    return False if re.match(r"\s*\d", text or "") else None


def parse_query(text: str, with_capability: bool = True) -> tuple[list[tuple[Gpu, str | None]], list[str]]:
    """Return ((GPU, driver version) of each row, remarks) of nvidia-smi's answer to QUERY or OLD_QUERY.

    The driver writes warnings (a corrupted infoROM, a lost GPU) among the rows; a row with a fault is a remark too.
    """
    rows: list[tuple[Gpu, str | None]] = []
    remarks: list[str] = []
    for line in filter(None, (raw.strip() for raw in text.splitlines())):
        fields = [field.strip() for field in line.split(",")]
        # the name may hold commas, so that what follows it is counted from the end
        after = 3 if with_capability else 2
        row = len(fields) >= 3 + after and fields[0].isdigit() and UUID.fullmatch(fields[1])
        if not row or FAULT.search(line):
            remarks.append(line)
        if not row:
            continue
        memory = value_or_none(fields[-after])
        mib = int(memory) if memory and memory.isdigit() else None
        capability = fields[-1] if with_capability and re.fullmatch(r"\d+\.\d+", fields[-1]) else None
        gpu = Gpu(
            vendor=NVIDIA,
            name=", ".join(fields[2:-after]),
            usable=True,
            driver_loaded=True,
            index=int(fields[0]),
            uuid=fields[1],
            memory_mib=mib,
            memory_total_bytes=None if mib is None else mib * MIB,
            unified_memory=unified(fields[-after]),
            compute_capability=capability,
            capability_source=SMI if capability else None,
        )
        rows.append((gpu, value_or_none(fields[1 - after])))
    return rows, remarks


def parse_list(text: str) -> dict[str, dict[int, tuple[str, str]]]:
    """Return {UUID of a GPU: {index of a MIG device: (profile, UUID)}} of nvidia-smi's answer to LIST_QUERY."""
    found: dict[str, dict[int, tuple[str, str]]] = {}
    devices: dict[int, tuple[str, str]] = {}
    for line in text.splitlines():
        gpu = re.match(rf"GPU \d+:.*\(UUID: ({UUID.pattern})\)", line)
        if gpu:
            devices = found.setdefault(gpu[1], {})
        mig = re.match(r"\s+MIG (\S+)\s+Device\s+(\d+):.*\(UUID: (MIG-[^)]+)\)", line)
        if mig:
            devices[int(mig[2])] = (mig[1], mig[3])
    return found


def place_of(bus_id: str | None) -> str | None:
    """Return the address as Linux writes it (0000:01:00.0) for nvidia-smi's (00000000:01:00.0)."""
    parts = re.fullmatch(r"([0-9a-f]+):([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", (bus_id or "").strip().lower())
    return f"{int(parts[1], 16):04x}:{parts[2]}" if parts else None


def refused(out: str, err: str) -> bool:
    """Whether an answer to QUERY refuses the field compute_cap."""
    return "compute_cap" in f"{out}{err}" and not parse_query(out)[0]


def words(*texts: str) -> t.Iterator[str]:
    """Yield the lines that say something."""
    for text in texts:
        yield from filter(None, (line.strip() for line in text.splitlines()))
