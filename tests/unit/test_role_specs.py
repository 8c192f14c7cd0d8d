"""Every role says the same about its inputs in defaults/main.yml and meta/argument_specs.yml."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
TYPES: dict[str, t.Any] = {
    "str": str,
    "path": str,
    "raw": object,
    "bool": bool,
    "int": int,
    "float": (int, float),
    "list": list,
    "dict": dict,
}


def load(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text())


def options_of(role: Path) -> dict[str, dict[str, t.Any]]:
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options") or {}


def defaults_of(role: Path) -> dict[str, t.Any]:
    path = role / "defaults" / "main.yml"
    return (load(path) or {}) if path.is_file() else {}


def test_there_are_roles() -> None:
    assert ROLES


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_inputs_are_the_same_in_both_files(role: Path) -> None:
    optional = {name for name, option in options_of(role).items() if not option.get("required")}
    assert set(defaults_of(role)) == optional


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_the_same_in_both_files(role: Path) -> None:
    documented = {name: option["default"] for name, option in options_of(role).items() if "default" in option}
    # repr tells 1 from true and "1"
    assert {name: repr(value) for name, value in documented.items()} == {
        name: repr(value) for name, value in defaults_of(role).items()
    }


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_inputs_are_named_after_their_role_and_described(role: Path) -> None:
    for name, option in options_of(role).items():
        assert name.startswith(f"{role.name}_"), name
        assert option.get("description"), f"{name} has no description"
        assert option.get("type") in TYPES, f"{name} has no type"
        default = option.get("default")
        if default is not None and not (isinstance(default, str) and "{{" in default):
            assert isinstance(default, TYPES[option["type"]]), f"{name}: {default!r} is no {option['type']}"
        assert default is None or not option.get("choices") or default in option["choices"], name
