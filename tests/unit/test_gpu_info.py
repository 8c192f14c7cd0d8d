"""The gpu_info module against a fake nvidia-smi and a fake PCI bus."""

from __future__ import annotations

import json
import time
from pathlib import Path

import gpu_info
import pytest
from ansible.module_utils.testing import patch_module_args

ROW = "0, GPU-5a1c7e0f-0000-1111-2222-333344445555, NVIDIA GeForce RTX 3090, 24576, 470.182.03"
REJECTED = 'Field "compute_cap" is not a valid field to query.'


def run(capsys: pytest.CaptureFixture[str], **args: object) -> dict:
    with patch_module_args(args), pytest.raises(SystemExit):
        gpu_info.main()
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A bus with a bridge and no GPU."""
    add_device(tmp_path, "0000:00:00.0", "0x8086", "0x1237", "0x060000")
    return tmp_path / "sys"


def add_device(tmp_path: Path, address: str, vendor: str, device: str, class_id: str, driver: str = "") -> Path:
    place = tmp_path / "sys/devices/pci0000:00" / address
    place.mkdir(parents=True)
    for name, content in (("vendor", vendor), ("device", device), ("class", class_id)):
        (place / name).write_text(f"{content}\n")
    if driver:
        held = tmp_path / "sys/bus/pci/drivers" / driver
        held.mkdir(parents=True, exist_ok=True)
        (place / "driver").symlink_to(held)
    bus = tmp_path / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / address).symlink_to(place)
    return place


def fake_smi(tmp_path: Path, query: str, capability: str = "echo '0, 8.6'") -> str:
    """An nvidia-smi that runs ``query`` for the first question and ``capability`` for the second."""
    path = tmp_path / "nvidia-smi"
    path.write_text(
        f"""#!/bin/sh
case "$*" in
"--query-gpu=index,uuid,name,memory.total,driver_version --format=csv,noheader,nounits") {query} ;;
"--query-gpu=index,compute_cap --format=csv,noheader,nounits") {capability} ;;
*) echo 'Invalid combination of input arguments.'; exit 2 ;;
esac
"""
    )
    path.chmod(0o755)
    return str(path)


def test_no_gpu(capsys, tmp_path, sysfs):
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=str(tmp_path / "none"))
    assert (result["verdict"], result["gpus"], result["changed"]) == ("none", [], False)
    assert result["reason"] == "no NVIDIA GPU on the PCI bus"


def test_a_host_without_a_pci_bus(capsys, tmp_path):
    result = run(capsys, sysfs_root=str(tmp_path / "nowhere"), nvidia_smi=str(tmp_path / "none"))
    assert result["verdict"] == "none"


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_gpu_with_its_driver(capsys, tmp_path, sysfs, check_mode):
    add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2204", "0x030000", "nvidia")
    args = {"sysfs_root": str(sysfs), "nvidia_smi": fake_smi(tmp_path, f"echo '{ROW}'")}
    result = run(capsys, _ansible_check_mode=check_mode, **args)
    assert (result["verdict"], result["driver_version"]) == ("gpu", "470.182.03")
    assert result["gpus"][0]["compute_capability"] == "8.6"
    assert result["gpus"][0]["memory_mib"] == 24576
    assert result["nvidia_smi"] == args["nvidia_smi"]


def test_an_old_driver_that_rejects_compute_cap(capsys, tmp_path, sysfs):
    path = fake_smi(tmp_path, f"echo '{ROW}'", f"echo '{REJECTED}'; exit 2")
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=path)
    assert result["verdict"] == "gpu"
    assert result["gpus"][0]["compute_capability"] is None


def test_warnings_among_the_rows(capsys, tmp_path, sysfs):
    path = fake_smi(tmp_path, f"echo 'WARNING: infoROM is corrupted at gpu 0000:01:00.0'; echo '{ROW}'; exit 14")
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=path)
    assert result["verdict"] == "gpu"
    assert result["remarks"] == ["WARNING: infoROM is corrupted at gpu 0000:01:00.0"]


def test_a_gpu_without_nvidia_smi(capsys, tmp_path, sysfs):
    add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2204", "0x030200", "nouveau")
    missing = str(tmp_path / "none")
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=missing)
    assert result["verdict"] == "no_driver"
    assert result["reason"] == (
        "an NVIDIA GPU (10de:2204 at 0000:01:00.0) is there, but its driver is not: "
        f"{missing} was not found (the nouveau driver holds it); install the driver"
    )
    assert result["gpus"][0]["driver_loaded"] is False


def test_a_version_mismatch_keeps_the_loaded_version(capsys, tmp_path, sysfs):
    add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2204", "0x030000", "nvidia")
    (sysfs / "module/nvidia").mkdir(parents=True)
    (sysfs / "module/nvidia/version").write_text("545.23.08\n")
    said = "echo 'Failed to initialize NVML: Driver/library version mismatch'; echo 'NVML library version: 550.54'"
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=fake_smi(tmp_path, f"{said}; exit 18"))
    assert (result["verdict"], result["driver_version"]) == ("no_driver", "545.23.08")
    assert "Driver/library version mismatch; reboot the host" in result["reason"]


def test_an_nvidia_smi_that_hangs(capsys, tmp_path, sysfs):
    add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2204", "0x030000", "nvidia")
    began = time.monotonic()
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=fake_smi(tmp_path, "sleep 60"), timeout=1)
    assert time.monotonic() - began < 5
    assert result["verdict"] == "no_driver"
    assert "gave no answer within 1 s" in result["reason"]


def test_virtual_functions_are_not_counted(capsys, tmp_path, sysfs):
    physical = add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2330", "0x030200", "nvidia")
    virtual = add_device(tmp_path, "0000:01:00.4", "0x10de", "0x2330", "0x030200", "nvidia")
    (virtual / "physfn").symlink_to(physical)
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=fake_smi(tmp_path, f"echo '{ROW}'"))
    assert result["remarks"] == []


def test_it_is_found_on_the_path(capsys, tmp_path, sysfs, monkeypatch):
    path = fake_smi(tmp_path, f"echo '{ROW}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert run(capsys, sysfs_root=str(sysfs))["nvidia_smi"] == path


def test_broken_input(capsys):
    result = run(capsys, timeout="soon")
    assert result["failed"]
    assert "timeout" in result["msg"]
