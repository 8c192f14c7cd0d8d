"""The image of Open WebUI: lean, pinned, and known to the role."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.llmfleet.packaged import open_webui
from ansible.module_utils.llmfleet.packaged.base import PackagedRequest
from ansible.module_utils.llmfleet.packaged.open_webui_pins import PINS, VERSION, requirements

ROLE = Path(__file__).resolve().parents[2] / "roles" / "open_webui"


def test_every_package_has_one_version_and_none_of_them_runs_models():
    lines = requirements().splitlines()
    assert f"open-webui=={VERSION}" in lines
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines), lines
    assert len(lines) == len(PINS)
    heavy = {"torch", "transformers", "sentence-transformers", "onnxruntime", "faster-whisper", "triton", "scipy"}
    assert not heavy & set(PINS)
    assert not [name for name in PINS if name.startswith(("nvidia-", "cuda-"))]


def test_the_script_is_one_that_sh_reads(tmp_path):
    (tmp_path / "install.sh").write_text(open_webui.RECIPE.script)
    subprocess.run(["sh", "-n", str(tmp_path / "install.sh")], check=True)
    assert "--no-deps" in open_webui.RECIPE.script


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("debian:bookworm", "debian:bookworm"),
        ("ubuntu:noble", "ubuntu:noble"),
        # Python 3.13, which it does not run on, and 3.10
        ("debian:trixie", "debian:bookworm"),
        ("ubuntu:resolute", "debian:bookworm"),
        ("ubuntu:jammy", "debian:bookworm"),
    ],
)
def test_it_is_built_on_a_distribution_with_a_python_that_it_runs_on(host, base):
    assert PackagedRequest(open_webui.RECIPE).base_of(host) == base


def test_the_role_knows_the_image_as_the_recipe_does():
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    assert variables["__open_webui_official"] == open_webui.RECIPE.layouts["official"]
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    named = [
        row.replace("{{ llm_registry_prefix | default('') }}", "") for row in defaults["open_webui_image_repositories"]
    ]
    assert tuple(named) == open_webui.RECIPE.repositories
