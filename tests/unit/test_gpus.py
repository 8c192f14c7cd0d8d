"""The verdict on a host's GPUs from nvidia-smi's words and the PCI bus."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.gpus import (
    PciDevice,
    SmiAnswer,
    judge,
    parse_capabilities,
    parse_query,
    value_or_none,
)

RTX = "0, GPU-5a1c7e0f-0000-1111-2222-333344445555, NVIDIA GeForce RTX 3090, 24576, 570.86.10\n"
SECOND = "1, GPU-6b2d8f10-0000-1111-2222-333344445555, NVIDIA GeForce RTX 3090, 24576, 570.86.10\n"
GB10 = "0, GPU-7c3e9021-0000-1111-2222-333344445555, NVIDIA GB10, [N/A], 580.95.05\n"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54\n"
NO_CONTACT = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n"
)


def card(address: str = "0000:01:00.0", **fields: str | bool) -> PciDevice:
    given = {"vendor_id": "10de", "device_id": "2204", "class_id": "030000", "driver": "nvidia", **fields}
    return PciDevice(address=address, **given)


def smi(out: str = "", rc: int | None = 0, err: str = "", capabilities: str = "", path: str = "/usr/bin/nvidia-smi"):
    return SmiAnswer(path, rc, out, err, capabilities, 20.0)


@pytest.mark.parametrize("text", ["[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", "[GPU is lost]", " "])
def test_unknown_values_are_none(text):
    assert value_or_none(text) is None


@pytest.mark.parametrize(
    ("device", "vendor"),
    [
        (card(), "nvidia"),
        (card(class_id="030200"), "nvidia"),
        (card(class_id="120000"), "nvidia"),
        (card(class_id="040300"), None),  # the card's sound function
        (card(class_id="068000"), None),  # an NVSwitch
        (card(virtual_function=True), None),
        (card(vendor_id="1002", class_id="038000"), "amd"),
        (card(vendor_id="1002", class_id="120000"), "amd"),
        (card(vendor_id="8086", class_id="030000"), "intel"),
        (card(vendor_id="8086", class_id="120000"), None),  # its NPUs and accelerators are no GPUs
        (card(vendor_id="8086", class_id="060000"), None),  # a bridge
        (card(vendor_id="1ed5"), "moore_threads"),
        (card(vendor_id="1234", class_id="030000"), None),  # a virtual machine's screen
    ],
)
def test_which_devices_are_gpus(device, vendor):
    assert device.vendor == vendor


def test_rows_are_read_and_other_lines_kept_apart():
    warning = "WARNING: infoROM is corrupted at gpu 0000:01:00.0"
    rows, remarks = parse_query(f"{RTX}\n{warning}\n{SECOND}")
    assert [(gpu.index, gpu.name, gpu.memory_mib, version) for gpu, version in rows] == [
        (0, "NVIDIA GeForce RTX 3090", 24576, "570.86.10"),
        (1, "NVIDIA GeForce RTX 3090", 24576, "570.86.10"),
    ]
    assert remarks == [warning]


def test_a_comma_in_the_name_moves_no_field():
    ((gpu, version),), _ = parse_query("0, GPU-1, Odd, Card, 1024, 470.1\n")
    assert (gpu.name, gpu.memory_mib, version) == ("Odd, Card", 1024, "470.1")


def test_a_lost_gpu_is_no_row():
    rows, remarks = parse_query("0, [GPU is lost], [GPU is lost], [GPU is lost], 570.86.10\n")
    assert rows == []
    assert len(remarks) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0, 8.6\n1, 12.0\n", {0: "8.6", 1: "12.0"}),
        ("WARNING: infoROM is corrupted at gpu 0000:01:00.0\n0, 8.6\n", {0: "8.6"}),
        ('Field "compute_cap" is not a valid field to query.\n', {}),
        ("0, [N/A]\n", {}),
        ("", {}),
    ],
)
def test_capabilities(text, found):
    assert parse_capabilities(text) == found


def test_gpus_with_their_driver():
    report = judge([card(), card("0000:02:00.0")], smi(RTX + SECOND, capabilities="0, 8.6\n1, 8.6\n"))
    assert report.verdict == "gpu"
    assert report.reason == "2 NVIDIA GPUs (NVIDIA GeForce RTX 3090) with driver 570.86.10"
    assert report.driver_version == "570.86.10"
    assert [gpu.compute_capability for gpu in report.gpus] == ["8.6", "8.6"]
    assert all(gpu.usable and gpu.driver_loaded and gpu.uuid for gpu in report.gpus)
    assert report.remarks == ()


def test_unified_memory_and_an_old_driver_leave_null():
    report = judge([], smi(GB10, capabilities='Field "compute_cap" is not a valid field to query.\n'))
    assert report.verdict == "gpu"
    assert report.gpus[0].memory_mib is None
    assert report.gpus[0].compute_capability is None


def test_a_warning_with_its_own_exit_status_is_a_remark():
    report = judge([card()], smi(f"{RTX}WARNING: infoROM is corrupted at gpu 0000:01:00.0\n", rc=14))
    assert report.verdict == "gpu"
    assert report.remarks == ("WARNING: infoROM is corrupted at gpu 0000:01:00.0",)


def test_a_gpu_that_only_the_bus_knows_is_remarked():
    report = judge([card(), card("0000:02:00.0")], smi(RTX))
    assert report.remarks == ("nvidia-smi lists 1 of the 2 NVIDIA GPUs on the PCI bus",)
    passed_on = card("0000:02:00.0", driver="vfio-pci")
    assert judge([card(), passed_on], smi(RTX)).remarks == ()


def test_other_vendors_are_listed_and_not_used():
    amd = card("0000:00:02.0", vendor_id="1002", device_id="73bf", driver="amdgpu")
    both = judge([card(), amd], smi(RTX))
    assert [(gpu.vendor, gpu.usable) for gpu in both.gpus] == [("nvidia", True), ("amd", False)]
    alone = judge([amd], None)
    assert alone.verdict == "none"
    assert alone.reason == "no NVIDIA GPU on the PCI bus (what is there is not used: AMD GPU 1002:73bf)"
    assert alone.gpus[0].driver_loaded


@pytest.mark.parametrize("answer", [None, smi("No devices were found\n", rc=6), smi(NO_CONTACT, rc=9)])
def test_no_gpu(answer):
    report = judge([card(vendor_id="1af4", class_id="020000")], answer)
    assert (report.verdict, report.reason, report.gpus) == ("none", "no NVIDIA GPU on the PCI bus", ())


HEAD = "an NVIDIA GPU (10de:2204 at 0000:01:00.0) is there, but "


@pytest.mark.parametrize(
    ("device", "answer", "module_version", "reason"),
    [
        (card(driver=""), None, None, "its driver is not: nvidia-smi was not found; install the driver"),
        (
            card(driver="nouveau"),
            None,
            None,
            "its driver is not: nvidia-smi was not found (the nouveau driver holds it); install the driver",
        ),
        (
            card(),
            None,
            "570.86.10",
            "nvidia-smi was not found though driver 570.86.10 is loaded; install the driver's utilities",
        ),
        (
            card(driver="vfio-pci"),
            None,
            None,
            "it is set aside for virtual machines (vfio-pci); unbind it from vfio-pci to use it here",
        ),
        (
            card(),
            smi(MISMATCH, rc=18),
            "545.23",
            "/usr/bin/nvidia-smi says: Failed to initialize NVML: Driver/library version mismatch; "
            "reboot the host, so that the kernel module matches the driver just installed",
        ),
        (
            card(driver=""),
            smi(NO_CONTACT, rc=9),
            None,
            f"/usr/bin/nvidia-smi says: {NO_CONTACT.strip().rstrip('.')}; "
            "load the driver's kernel module (modprobe nvidia; with Secure Boot it must be signed)",
        ),
        (
            card(),
            smi(rc=None),
            "570.86.10",
            "/usr/bin/nvidia-smi gave no answer within 20 s; reboot the host, its driver hangs",
        ),
        (
            card(),
            smi(rc=139),
            None,
            "/usr/bin/nvidia-smi says: exit status 139 without a word; reinstall the NVIDIA driver or reboot the host",
        ),
    ],
)
def test_a_gpu_without_a_working_driver(device, answer, module_version, reason):
    report = judge([device], answer, module_version)
    assert report.verdict == "no_driver"
    assert report.reason == HEAD + reason
    assert report.driver_version == module_version
    (gpu,) = report.gpus
    assert not gpu.usable
    assert gpu.driver_loaded is (device.driver == "nvidia")
    assert (gpu.index, gpu.uuid, gpu.pci_id) == (None, None, "10de:2204")


def test_wsl_has_no_bus_to_look_at():
    path = "/usr/lib/wsl/lib/nvidia-smi"
    report = judge([], smi("Failed to initialize NVML: GPU access blocked by the operating system\n", rc=17, path=path))
    assert report.verdict == "no_driver"
    assert report.reason == (
        f"Windows offers an NVIDIA GPU, but {path} says: Failed to initialize NVML: GPU access blocked by the "
        "operating system; update the NVIDIA driver in Windows, then run wsl --shutdown"
    )
    assert judge([], smi(RTX, path=path)).verdict == "gpu"


def test_the_result_is_plain_data():
    result = judge([card()], smi(RTX, capabilities="0, 8.6\n")).as_result()
    assert result["gpus"] == [
        {
            "vendor": "nvidia",
            "name": "NVIDIA GeForce RTX 3090",
            "usable": True,
            "driver_loaded": True,
            "index": 0,
            "uuid": "GPU-5a1c7e0f-0000-1111-2222-333344445555",
            "memory_mib": 24576,
            "compute_capability": "8.6",
            "pci_address": None,
            "pci_id": None,
        }
    ]
