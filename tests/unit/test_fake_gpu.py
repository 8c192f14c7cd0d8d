"""The nvidia-smi of the test hosts answers what the product asks, in the form that it reads."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.gpu_look import ask
from ansible.module_utils.llmfleet.gpu_smi import DETAILS_QUERY, LIST_QUERY, OLD_QUERY, QUERY, parse_query, refused
from ansible.module_utils.llmfleet.gpu_verdict import judge
from ansible.module_utils.llmfleet.gpu_xml import parse_details

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "fake_gpu" / "nvidia-smi"


@pytest.fixture
def install(tmp_path):
    def write(driver: str = "570.86.10", gpus: int = 1, mig: int = 0) -> Path:
        text = FILE.read_text().replace("driver=570.86.10\ngpus=1\n", f"driver={driver}\ngpus={gpus}\n")
        text = text.replace("\nmig=0\n", f"\nmig={mig}\n")
        assert f"driver={driver}\ngpus={gpus}\n" in text
        assert f"\nmig={mig}\n" in text
        path = tmp_path / "nvidia-smi"
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def smi(install):
    def ask_it(*args: str, **values: str | int) -> subprocess.CompletedProcess[str]:
        argv = ["sh", str(install(**values)), *args]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    return ask_it


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


def test_old_drivers_refuse_the_capability(smi):
    answer = smi(*QUERY, driver="470.57")
    assert answer.returncode == 2
    assert refused(answer.stdout, answer.stderr)
    rows, _ = parse_query(smi(*OLD_QUERY, driver="470.57").stdout, with_capability=False)
    assert [version for _, version in rows] == ["470.57"]


def test_the_xml_names_the_same_gpus(smi):
    rows, _ = parse_query(smi(*QUERY, gpus=2).stdout)
    details = parse_details(smi(*DETAILS_QUERY, gpus=2).stdout)
    assert [gpu.uuid for gpu in details.gpus] == [gpu.uuid for gpu, _ in rows]
    assert (details.driver_version, details.cuda_version) == ("570.86.10", "12.8")


def test_mig_devices_are_in_the_list(smi):
    lines = smi(*LIST_QUERY, gpus=2, mig=3).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["GPU", "MIG", "MIG", "MIG"] * 2


@pytest.mark.parametrize(
    ("values", "source", "devices"),
    [
        ({}, "nvidia-smi", 0),
        ({"gpus": 16}, "nvidia-smi", 0),
        ({"mig": 7}, "nvidia-smi", 7),
        ({"driver": "450.80"}, "table", 0),
    ],
)
def test_the_product_understands_it(install, values, source, devices):
    report = judge([], ask(str(install(**values)), 20))
    assert (report.verdict, report.architectures, report.problems) == ("gpu", ["89"], ())
    assert len(report.gpus) == values.get("gpus", 1)
    for gpu in report.gpus:
        assert gpu.capability_source == source
        assert len([device for device in gpu.mig_devices if device.uuid and device.profile]) == devices


@pytest.mark.parametrize(("driver", "cuda"), [("440.33", "10.2"), ("450.80", "11.0"), ("570.86.10", "12.8")])
def test_banner_names_the_newest_cuda(smi, driver, cuda):
    assert f"CUDA Version: {cuda} " in smi(driver=driver).stdout
