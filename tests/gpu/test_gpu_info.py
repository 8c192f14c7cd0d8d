"""On a machine with an NVIDIA GPU: gpu_info against nvidia-smi's own words. Run with `pytest tests/gpu`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))
from ansible.module_utils.llmfleet.gpu_look import ask_libraries
from ansible.module_utils.llmfleet.gpu_merge import parse_libraries
from ansible.module_utils.llmfleet.gpu_products import capability_of
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


MIB = 1024**2


def number(text: str) -> float | None:
    return None if text.startswith("[") else float(text)


def test_gpu_info_agrees_with_nvidia_smi():
    found = run_module("gpu_info", {})
    assert found["verdict"] == "gpu"
    usable = [gpu for gpu in found["gpus"] if gpu["uuid"]]
    assert [[gpu["uuid"], gpu["name"], gpu["compute_capability"]] for gpu in usable] == smi("uuid,name,compute_cap")
    assert [found["driver_version"]] == smi("driver_version")[0]
    assert all(gpu["capability_source"] == "nvidia-smi" for gpu in usable)
    assert set(found["architectures"]) <= {gpu["compute_capability"].replace(".", "") for gpu in usable}


def test_numbers_agree_with_nvidia_smi():
    gpus = {gpu["uuid"]: gpu for gpu in run_module("gpu_info", {})["gpus"]}
    for uuid, total, power, bus, mig in smi("uuid,memory.total,power.limit,pci.bus_id,mig.mode.current"):
        gpu = gpus[uuid]
        memory = number(total)
        assert gpu["memory_total_bytes"] == (None if memory is None else memory * MIB)
        assert gpu["unified_memory"] is (memory is None)
        # a GPU sliced by MIG may keep it to itself
        if memory is not None and gpu["mig_mode"] != "enabled":
            assert 0 < gpu["memory_free_bytes"] <= gpu["memory_total_bytes"]
        assert gpu["power_limit_watts"] == number(power)
        assert bus.lower().endswith(gpu["pci_address"])
        assert gpu["mig_mode"] == (None if mig.startswith("[") else mig.lower())


def test_the_banner_names_the_same_cuda_version():
    banner = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=True).stdout
    assert f"CUDA Version: {run_module('gpu_info', {})['cuda_version']} " in banner


def test_the_driver_s_libraries_say_the_same():
    found = run_module("gpu_info", {})
    libraries = parse_libraries(ask_libraries(60))
    assert libraries.cuda_version == found["cuda_version"]
    by_uuid = {gpu["uuid"]: gpu["compute_capability"] for gpu in found["gpus"]}
    # libcuda hides what is sliced into MIG devices behind the first of them
    assert {entry["capability"] for _, entry in libraries.gpus} <= set(by_uuid.values())
    assert [entry["uuid"] for library, entry in libraries.gpus if library == "nvml"] == [
        gpu["uuid"] for gpu in found["gpus"] if gpu["uuid"]
    ]


def test_the_table_does_not_contradict_the_driver():
    for gpu in run_module("gpu_info", {})["gpus"]:
        assert capability_of(gpu["name"]) in (None, gpu["compute_capability"])
