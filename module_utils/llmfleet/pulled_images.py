"""The published images that this project has pulled to a host: they carry no label of ours, so a file tells. Edge code.

A line is ``reference`` or ``reference variant contents``; the short form is of a time with one variant only.
"""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible.module_utils.llmfleet.host_edge import read_text

PULLED_RECORD = Path("sources", "llama_cpp_pulled")

Family = tuple[str, str]
"""(variant, contents) of an image."""

FIRST: Family = ("cpu", "server")


def read(work: Path) -> dict[str, Family]:
    """Return reference -> family of what was pulled."""
    rows = [line.split() for line in read_text(str(work / PULLED_RECORD)).splitlines()]
    return {row[0]: (row[1], row[2]) if len(row) == 3 else FIRST for row in rows if row}


def add(work: Path, reference: str, family: Family) -> None:
    """Note that ``reference`` was pulled."""
    if read(work).get(reference) == family:
        return
    record = work / PULLED_RECORD
    record.parent.mkdir(parents=True, exist_ok=True)
    with open(record, "a", encoding="utf-8") as lines:
        lines.write(" ".join((reference, *family)) + "\n")


def forget(work: Path, references: t.Collection[str]) -> None:
    """Take images that are gone out of the record."""
    known = read(work)
    left = {reference: family for reference, family in known.items() if reference not in references}
    if left == known:
        return
    record = work / PULLED_RECORD
    part = record.with_suffix(".part")
    part.write_text("".join(" ".join((name, *family)) + "\n" for name, family in left.items()), encoding="utf-8")
    part.replace(record)
