"""Every module's documentation says what its argument specification does."""

from __future__ import annotations

import importlib
import types
import typing as t
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "library").glob("*.py"))
COMPARED: dict[str, t.Any] = {
    "type": "str",
    "elements": None,
    "required": False,
    "default": None,
    "choices": None,
    "aliases": [],
}


@pytest.fixture(params=NAMES)
def module(request: pytest.FixtureRequest) -> types.ModuleType:
    return importlib.import_module(request.param)


def facts(options: t.Mapping[str, t.Any], nested: str) -> dict[str, t.Any]:
    """Return what documentation and specification have in common, absent values filled in."""
    return {
        name: {
            **{key: option.get(key, absent) for key, absent in COMPARED.items()},
            "options": facts(option.get(nested) or {}, nested),
        }
        for name, option in options.items()
    }


def test_there_are_modules() -> None:
    assert NAMES


def test_options_are_documented_as_they_are(module: types.ModuleType) -> None:
    documentation = yaml.safe_load(module.DOCUMENTATION)
    documented = facts(documentation.get("options") or {}, "suboptions")
    assert documented == facts(module.ARGUMENT_SPEC, "options")


def test_documentation_is_complete(module: types.ModuleType) -> None:
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documentation["module"] == module.__name__
    assert documentation["short_description"]
    assert documentation["description"]
    assert documentation["author"]
    assert {"check_mode", "diff_mode"} <= documentation["attributes"].keys()
    for name, option in (documentation.get("options") or {}).items():
        assert option.get("description"), name


def test_secrets_are_kept_out_of_logs(module: types.ModuleType) -> None:
    for name, option in module.ARGUMENT_SPEC.items():
        secret = name.endswith(("key", "token", "password", "secret"))
        assert not secret or option.get("no_log") is not None, f"{name} needs no_log"


def test_examples_are_tasks_of_this_module(module: types.ModuleType) -> None:
    tasks = yaml.safe_load(module.EXAMPLES)
    assert tasks
    for task in tasks:
        assert task.get("name")
    used = [task[module.__name__] for task in tasks if module.__name__ in task]
    assert used
    for arguments in used:
        assert set(arguments or {}) <= set(module.ARGUMENT_SPEC)


def test_results_are_described(module: types.ModuleType) -> None:
    for name, value in yaml.safe_load(module.RETURN).items():
        assert {"description", "returned", "type"} <= value.keys(), name
