"""The filters: each leads to a function of the core, and works on what Ansible hands over."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> types.ModuleType:
    """Return the plugin, imported anew as Ansible does it."""
    spec = importlib.util.spec_from_file_location("llmfleet_filters", ROOT / "filter_plugins/llmfleet.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLUGIN = load()


@pytest.mark.parametrize("name", sorted(PLUGIN.FILTERS))
def test_every_filter_leads_somewhere(name):
    module, _, function = PLUGIN.FILTERS[name].rpartition(".")
    assert callable(getattr(importlib.import_module(f"ansible.module_utils.llmfleet.{module}"), function))


class Tagged(str):
    """A string of another type, as trusted templates are."""

    __slots__ = ()


def test_arguments_are_plain_copies():
    services = [{Tagged("name"): Tagged("chat"), "api_key": "secret", "port": 8080}]
    (found,) = PLUGIN.FilterModule().filters()["llmfleet_without_secrets"](services)
    assert found == {"name": "chat", "port": 8080}
    assert type(found["name"]) is str
    assert services[0]["api_key"] == "secret"


def test_results_are_data():
    host = {
        "host": "a",
        "architecture": "amd64",
        "driver": "580.95.05",
        "cuda_version": "13.0",
        "capabilities": ["8.6"],
    }
    verdict = PLUGIN.FilterModule().filters()["llmfleet_vllm_image"](host)
    assert sorted(verdict) == ["fix", "tag", "why"]


def test_the_callback_imports_what_the_filters_stand_on():
    code = (
        "import sys; from ansible.plugins.loader import callback_loader; "
        "callback_loader.get('llmfleet_preload'); "
        "assert 'ansible.module_utils.llmfleet.plan' in sys.modules"
    )
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
