"""The environments on a host: which are whole, which are in use, and taking the others away. Edge code."""

from __future__ import annotations

import json
import shutil
import typing as t
from pathlib import Path

from ansible.module_utils.llmfleet.venv import unit
from ansible.module_utils.llmfleet.venv.recipe import NOTE, is_environment
from ansible.module_utils.llmfleet.venv.service_spec import UNIT_PREFIX, UNITS


def is_whole(path: Path) -> bool:
    """Whether the environment was made to its end."""
    return (path / NOTE).is_file()


def finish(path: Path, facts: t.Mapping[str, t.Any]) -> None:
    """Note that the environment is whole, and what it is."""
    (path / NOTE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def used_by(units: Path) -> dict[str, list[str]]:
    """Return environment -> services whose units run from it, those kept for a roll-back too."""
    found: dict[str, list[str]] = {}
    for file in sorted(units.glob(f"{UNIT_PREFIX}*.service*")):
        spec = unit.stored(file.read_text(encoding="utf-8", errors="replace"))
        if spec and spec["name"] not in found.setdefault(spec["venv"], []):
            found[spec["venv"]].append(spec["name"])
    return found


def discard(path: Path) -> None:
    """Remove an environment; one that is half removed is not taken for whole."""
    (path / NOTE).unlink(missing_ok=True)
    shutil.rmtree(path)


def unused(root: Path, units: Path, kept: str = "") -> list[Path]:
    """Return the environments below ``root`` that no unit runs from, but for ``kept``."""
    used = used_by(units)
    here = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in here if is_environment(path.name) and str(path) not in used and str(path) != kept]


def prune(kept: str) -> list[str]:
    """Remove the environments beside ``kept`` that no unit runs from any more; return what went."""
    gone = unused(Path(kept).parent, Path(UNITS), kept)
    for path in gone:
        discard(path)
    return [str(path) for path in gone]
