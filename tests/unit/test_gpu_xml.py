"""What is read from `nvidia-smi -q -x`."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.gpu_xml import parse_details
from ansible.module_utils.llmfleet.gpus import GpuProcess
from gpu_answers import INFOROM, NO_CONTACT, UUIDS, gpu_xml, log_xml, mig_xml, process_xml

MIB = 1024**2


def only(**parts):
    """Return the one GPU of an answer."""
    (gpu,) = parse_details(log_xml(gpu_xml(**parts))).gpus
    return gpu


def test_versions_and_gpus():
    details = parse_details(log_xml(gpu_xml(), gpu_xml(1)))
    assert (details.driver_version, details.cuda_version, details.faults) == ("570.86.10", "12.8", ())
    assert [(gpu.index, gpu.uuid, gpu.pci_address) for gpu in details.gpus] == [
        (0, UUIDS[0], "0000:01:00.0"),
        (1, UUIDS[1], "0000:02:00.0"),
    ]
    gpu = details.gpus[0]
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes, gpu.memory_mib) == (24576 * MIB, 24000 * MIB, 24576)
    assert (gpu.unified_memory, gpu.mig_mode, gpu.mig_devices) == (False, None, None)
    assert (gpu.power_limit_watts, gpu.display_attached, gpu.processes) == (350.0, False, ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        NO_CONTACT,
        "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n",
        log_xml(gpu_xml())[:900],
        log_xml("<gpu><uuid>"),
    ],
)
def test_no_xml(text):
    assert parse_details(text) is None


def test_lines_around_the_xml():
    details = parse_details(f"{INFOROM}\n{log_xml(gpu_xml())}{INFOROM}\n")
    assert len(details.gpus) == 1


def test_a_line_within_the_xml():
    assert len(parse_details(log_xml(gpu_xml(), f"\n{INFOROM}\n", gpu_xml(1))).gpus) == 2


@pytest.mark.parametrize("name", ["a & b", "\x1b[1mbold", "\ufffd\x01", "ok &amp; fine"])
def test_odd_names_of_processes_do_not_break_it(name):
    gpu = only(processes=process_xml(("7", "C", name, "5 MiB")))
    assert [(process.pid, process.memory_bytes) for process in gpu.processes] == [(7, 5 * MIB)]


def test_names_that_break_it_cost_the_processes_only():
    gpu = only(processes=process_xml(("7", "C", "a <b", "5 MiB")))
    assert (gpu.processes, gpu.memory_total_bytes) == (None, 24576 * MIB)


def test_processes():
    gpu = only(
        processes=process_xml(
            ("7", "C", "/usr/bin/python3 serve.py --api-key secret", "20434 MiB"),
            ("8", "G", "[Not Found]", "N/A"),
            ("9", "C+G", "--type=gpu-process", "[Insufficient Permissions]"),
            ("N/A", "C", "nobody", "1 MiB"),
        )
    )
    assert gpu.processes == (
        GpuProcess(7, "/usr/bin/python3", "C", 20434 * MIB),
        GpuProcess(8, None, "G", None),
        GpuProcess(9, None, "C+G", None),
    )


@pytest.mark.parametrize("processes", ["", "<processes>N/A</processes>"])
def test_unknown_processes_are_not_none_at_all(processes):
    assert only(processes=processes).processes is None


@pytest.mark.parametrize(
    ("power", "watts"),
    [
        ("<power_readings><power_limit>250.00 W</power_limit></power_readings>", 250.0),
        ("<power_readings><power_limit>N/A</power_limit></power_readings>", None),
        ("<power_readings><power_limit>250,50 W</power_limit></power_readings>", 250.5),
        (
            "<gpu_power_readings><current_power_limit>N/A</current_power_limit></gpu_power_readings>"
            "<module_power_readings><current_power_limit>900 W</current_power_limit></module_power_readings>",
            None,
        ),
        ("<power_readings><power_limit>ERR!</power_limit></power_readings>", None),
        ("", None),
    ],
)
def test_power(power, watts):
    assert only(power=power).power_limit_watts == watts


DEPRECATED = "<display_mode>Requested functionality has been deprecated</display_mode>"


@pytest.mark.parametrize(
    ("display", "attached"),
    [
        ("<display_mode>Enabled</display_mode>", True),
        ("<display_mode>Disabled</display_mode><display_active>Enabled</display_active>", False),
        (f"{DEPRECATED}<display_attached>Yes</display_attached>", True),
        (f"{DEPRECATED}<display_attached>No</display_attached>", False),
        (DEPRECATED, None),
        ("<display_mode>N/A</display_mode>", None),
    ],
)
def test_display(display, attached):
    assert only(display=display).display_attached is attached


def test_unified_memory():
    gpu = only(name="NVIDIA GB10", total="N/A", free="N/A")
    assert (gpu.memory_mib, gpu.memory_total_bytes, gpu.memory_free_bytes) == (None, None, None)
    assert gpu.unified_memory is True


@pytest.mark.parametrize(
    ("total", "size"),
    [("4096 MB", 4096 * MIB), ("2 GiB", 2048 * MIB), ("24.576 MiB", None), ("lots", None), ("5 bits", None)],
)
def test_units(total, size):
    assert only(total=total).memory_total_bytes == size


def test_mig_devices():
    gpu = only(name="NVIDIA H100 80GB HBM3", mig="Enabled", mig_devices=mig_xml(0, 2, "40448 MiB") + mig_xml(1, 9))
    assert gpu.mig_mode == "enabled"
    assert [(device.index, device.gpu_instance, device.memory_total_bytes) for device in gpu.mig_devices] == [
        (0, 2, 40448 * MIB),
        (1, 9, 9856 * MIB),
    ]
    off = only(mig="Disabled")
    assert (off.mig_mode, off.mig_devices) == ("disabled", ())


def test_a_lost_gpu_keeps_the_places_of_the_others():
    details = parse_details(log_xml(gpu_xml(uuid="GPU is lost"), gpu_xml(1)))
    assert [gpu.index for gpu in details.gpus] == [1]
    assert details.faults == ("GPU 0 says GPU is lost in the place of its uuid",)


@pytest.mark.parametrize("word", ["ERR!", "Unknown Error", "[GPU requires reset]"])
def test_faults(word):
    details = parse_details(log_xml(gpu_xml(free=word)))
    assert details.faults == (f"GPU 0 says {word.strip('[]')} in the place of its free",)
    assert details.gpus[0].memory_free_bytes is None


def test_old_drivers_know_no_cuda_version():
    assert parse_details(log_xml(gpu_xml(), cuda=None)).cuda_version is None
    assert parse_details(log_xml(gpu_xml(), cuda="N/A")).cuda_version is None
