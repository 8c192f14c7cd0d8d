"""On a machine with an NVIDIA GPU: gpu_info against nvidia-smi's own words. Run with `pytest tests/gpu`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))
from helpers import run_module

pytestmark = pytest.mark.gpu


def smi(fields: str) -> list[list[str]]:
    out = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [[cell.strip() for cell in line.split(",")] for line in out.splitlines()]


def test_gpu_info_agrees_with_nvidia_smi():
    found = run_module("gpu_info", {})
    assert found["verdict"] == "gpu"
    usable = [gpu for gpu in found["gpus"] if gpu["usable"]]
    assert [[gpu["uuid"], gpu["name"], gpu["compute_capability"]] for gpu in usable] == smi("uuid,name,compute_cap")
    assert [found["driver_version"]] == smi("driver_version")[0]
