"""The nvidia-smi of the test hosts answers what the product asks, in the form that it reads."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.gpus import CAPABILITY_QUERY, QUERY, parse_capabilities, parse_query

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "fake_gpu" / "nvidia-smi"


@pytest.fixture
def smi(tmp_path):
    def ask(*args: str, driver: str = "570.86.10", gpus: int = 1) -> subprocess.CompletedProcess[str]:
        text = FILE.read_text().replace("driver=570.86.10\ngpus=1\n", f"driver={driver}\ngpus={gpus}\n")
        assert f"driver={driver}\ngpus={gpus}\n" in text
        (tmp_path / "nvidia-smi").write_text(text)
        argv = ["sh", str(tmp_path / "nvidia-smi"), *args]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    return ask


def test_every_gpu_is_a_row_with_the_driver_version(smi):
    rows, remarks = parse_query(smi(*QUERY, driver="550.54", gpus=2).stdout)
    assert [(gpu.index, gpu.name, gpu.memory_mib, version) for gpu, version in rows] == [
        (0, "NVIDIA L4", 23034, "550.54"),
        (1, "NVIDIA L4", 23034, "550.54"),
    ]
    assert len({gpu.uuid for gpu, _ in rows}) == 2
    assert remarks == []


def test_list_names_the_same_gpus(smi):
    rows, _ = parse_query(smi(*QUERY, gpus=2).stdout)
    listed = [line.split("UUID: ")[1].rstrip(")") for line in smi("-L", gpus=2).stdout.splitlines()]
    assert listed == [gpu.uuid for gpu, _ in rows]


def test_capabilities(smi):
    assert parse_capabilities(smi(*CAPABILITY_QUERY).stdout) == {0: "8.9"}


def test_old_drivers_refuse_the_capability(smi):
    answer = smi(*CAPABILITY_QUERY, driver="470.57")
    assert (answer.returncode, parse_capabilities(answer.stdout)) == (2, {})
    assert "compute_cap" in answer.stdout


@pytest.mark.parametrize(("driver", "cuda"), [("440.33", "10.2"), ("450.80", "11.0"), ("570.86.10", "12.8")])
def test_banner_names_the_newest_cuda(smi, driver, cuda):
    assert f"CUDA Version: {cuda} " in smi(driver=driver).stdout
