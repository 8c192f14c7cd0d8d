"""The verdict on a host's GPUs from nvidia-smi's words, the driver's libraries and the PCI bus."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.llmfleet.gpu_merge import parse_libraries
from ansible.module_utils.llmfleet.gpu_verdict import judge, leaves_open
from ansible.module_utils.llmfleet.gpus import PciDevice, Problem, SmiAnswer
from gpu_answers import INFOROM, LISTING, LOST, MISMATCH, NO_CONTACT, UUIDS, gpu_xml, log_xml, mig_xml, row

H100 = "NVIDIA H100 80GB HBM3"
HANGING = (
    "reboot the host, a GPU or its driver hangs; where GPUs are only slow to wake, let them stay awake (systemctl "
    "enable --now nvidia-persistenced)"
)
OTHER_FIX = "look for NVRM and Xid messages in the kernel log (dmesg), and reboot the host"


def card(address: str = "0000:01:00.0", **fields: str | bool | int) -> PciDevice:
    given = {"vendor_id": "10de", "device_id": "2204", "class_id": "030000", "driver": "nvidia", **fields}
    return PciDevice(address=address, **given)


def smi(out: str = "", rc: int | None = 0, path: str = "/usr/bin/nvidia-smi", **more: str | bool) -> SmiAnswer:
    return SmiAnswer(path, rc, out, seconds=20.0, **more)


def old(*gpus: str, **more: str) -> SmiAnswer:
    """The answers of a driver that refuses compute_cap."""
    return smi(xml=log_xml(*gpus, driver="470.182.03", cuda="11.4"), with_capability=False, **more)


def causes(report) -> list[str]:
    return [problem.cause for problem in report.problems]


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


def test_gpus_with_their_driver():
    bus = [card(numa_node=0), card("0000:02:00.0", numa_node=1)]
    report = judge(bus, smi(row() + row(1), xml=log_xml(gpu_xml(), gpu_xml(1))))
    assert report.verdict == "gpu"
    assert report.reason == "2 NVIDIA GPUs (NVIDIA GeForce RTX 3090) with driver 570.86.10"
    assert (report.driver_version, report.cuda_version, report.architectures) == ("570.86.10", "12.8", ["86"])
    assert [(gpu.index, gpu.uuid, gpu.compute_capability, gpu.capability_source) for gpu in report.gpus] == [
        (0, UUIDS[0], "8.6", "nvidia-smi"),
        (1, UUIDS[1], "8.6", "nvidia-smi"),
    ]
    assert [(gpu.pci_address, gpu.pci_id, gpu.numa_node) for gpu in report.gpus] == [
        ("0000:01:00.0", "10de:2204", 0),
        ("0000:02:00.0", "10de:2204", 1),
    ]
    assert all(gpu.usable and gpu.driver_loaded for gpu in report.gpus)
    assert (report.remarks, report.problems) == ((), ())
    assert not leaves_open(report)


def test_without_xml_its_values_are_unknown():
    report = judge([card()], smi(row()))
    (gpu,) = report.gpus
    assert (report.verdict, report.cuda_version, report.problems) == ("gpu", None, ())
    assert (gpu.memory_mib, gpu.memory_total_bytes, gpu.unified_memory) == (24576, 24576 * 1024**2, False)
    assert (gpu.memory_free_bytes, gpu.mig_mode, gpu.mig_devices, gpu.processes) == (None, None, None, None)
    assert leaves_open(report)


def test_an_index_is_not_a_place_in_the_xml():
    report = judge([], smi(row(1) + row(0), xml=log_xml(gpu_xml(), gpu_xml(1))))
    assert [(gpu.index, gpu.uuid, gpu.pci_address) for gpu in report.gpus] == [
        (1, UUIDS[1], "0000:02:00.0"),
        (0, UUIDS[0], "0000:01:00.0"),
    ]


def test_a_name_that_the_xml_does_not_know():
    (gpu,) = judge([], smi(row(), xml=log_xml(gpu_xml(name="Unknown Error")))).gpus
    assert gpu.name == "NVIDIA GeForce RTX 3090"


def test_numbers_with_commas_are_taken_from_the_xml():
    (gpu,) = judge([], smi(row(memory="24,576"), xml=log_xml(gpu_xml()))).gpus
    assert (gpu.name, gpu.memory_mib) == ("NVIDIA GeForce RTX 3090", 24576)


@pytest.mark.parametrize(("name", "capability"), [("NVIDIA GB10", "12.1"), ("NVIDIA Thor", "11.0")])
def test_unified_memory(name, capability):
    bus = [card("000f:01:00.0")]
    report = judge(bus, smi(row(0, name, "[N/A]", "580.95.05", capability), xml=log_xml(gpu_xml(0, name, total="N/A"))))
    (gpu, *_) = report.gpus
    assert (report.verdict, report.problems) == ("gpu", ())
    assert (gpu.memory_mib, gpu.memory_total_bytes, gpu.unified_memory) == (None, None, True)
    assert report.architectures == [capability.replace(".", "")]


CHIP = "54d0709b-558d-5a59-9c65-0c5fc14a21a4"


def test_thor_with_its_uuid_without_prefix():
    xml = log_xml(gpu_xml(0, "NVIDIA Thor", total="N/A", uuid=CHIP), driver="580.00", cuda="13.0")
    report = judge([], smi(f"0, {CHIP}, NVIDIA Thor, [N/A], 580.00, 11.0\n", xml=xml))
    assert (report.verdict, report.driver_version, report.cuda_version) == ("gpu", "580.00", "13.0")
    assert [(gpu.uuid, gpu.unified_memory) for gpu in report.gpus] == [(CHIP, True)]
    assert (report.architectures, report.remarks, report.problems) == (["110"], (), ())


def test_orin_does_not_tell_its_cuda_version():
    """Neither address nor CUDA version: what libcuda says is found by the UUID, to which it gives a prefix."""
    xml = log_xml(gpu_xml(0, "Orin (nvgpu)", total="Not Supported", uuid=CHIP), driver="540.4.0", cuda="N/A")
    smi_says = smi(f"0, {CHIP}, Orin (nvgpu), [N/A], 540.4.0, [N/A]\n", xml=xml.replace("00000000:01:00.0", "N/A"))
    assert leaves_open(judge([], smi_says))
    libraries = parse_libraries(library("libcuda", entry("8.7", uuid=f"GPU-{CHIP}", integrated=True), cuda="12.6"))
    report = judge([], smi_says, libraries=libraries)
    assert (report.cuda_version, report.architectures, report.problems) == ("12.6", ["87"], ())
    assert [(gpu.capability_source, gpu.pci_address) for gpu in report.gpus] == [("libcuda", None)]


def test_an_old_driver_is_answered_from_the_table():
    report = judge([card()], old(gpu_xml()))
    (gpu,) = report.gpus
    assert (report.verdict, report.driver_version, report.cuda_version) == ("gpu", "470.182.03", "11.4")
    assert (gpu.index, gpu.memory_mib, gpu.pci_id) == (0, 24576, "10de:2204")
    assert (gpu.compute_capability, gpu.capability_source) == ("8.6", "table")
    assert leaves_open(report)


def test_an_old_driver_without_xml():
    report = judge([card()], smi(row(driver="470.57", capability=None), with_capability=False))
    assert (report.driver_version, report.cuda_version, report.architectures) == ("470.57", None, ["86"])


def test_an_unknown_capability_is_null_and_a_problem():
    report = judge([], old(gpu_xml(name="NVIDIA Odd Card")))
    assert (report.gpus[0].compute_capability, report.gpus[0].capability_source) == (None, None)
    assert report.architectures == []
    assert report.problems == (
        Problem(
            "the compute capability of GPU 0 (NVIDIA Odd Card) is unknown to driver and libraries",
            "install NVIDIA driver 510 or newer",
        ),
    )


def test_a_new_driver_that_does_not_know_its_gpu():
    report = judge([], smi(row(name="NVIDIA Graphics Device", capability="[N/A]")))
    assert [problem.fix for problem in report.problems] == ["install a driver that knows this GPU"]


def library(name: str, *gpus: dict, cuda: str | None = "11.4") -> str:
    return json.dumps({"library": name, "cuda": cuda, "gpus": list(gpus)}) + "\n"


def entry(capability: str | None, uuid: str | None = UUIDS[0], **more: object) -> dict:
    return {"uuid": uuid, "capability": capability, **more}


@pytest.mark.parametrize(
    ("said", "capability", "source"),
    [
        (library("libcuda", entry("8.7")), "8.7", "libcuda"),
        (library("nvml", entry("8.7")), "8.7", "nvml"),
        (library("nvml", entry("8.5")) + library("libcuda", entry("8.7")), "8.7", "libcuda"),
        (library("nvml", entry("8.5")) + library("libcuda", entry(None)), "8.5", "nvml"),
        (library("libcuda", entry("8.7", uuid=None, pci="0000:01:00.0")), "8.7", "libcuda"),
        (library("libcuda", entry("8.7", uuid=None, pci="0000:09:00.0")), "8.6", "table"),
        (library("libcuda", entry("8.7", uuid=UUIDS[5])), "8.6", "table"),
        (library("libcuda", entry("8.7", uuid=UUIDS[5], pci="0000:01:00.0")), "8.7", "libcuda"),
        (library("libcuda"), "8.6", "table"),
        ("NVRM: odd words\n" + library("nvml", entry("8.7")) + '{"library": "libcu', "8.7", "nvml"),
        ("[]\n17\n", "8.6", "table"),
        ("", "8.6", "table"),
    ],
)
def test_libraries_come_before_the_table(said, capability, source):
    report = judge([], old(gpu_xml()), libraries=parse_libraries(said))
    assert [(gpu.compute_capability, gpu.capability_source) for gpu in report.gpus] == [(capability, source)]


def test_nvidia_smi_comes_before_libraries():
    report = judge([], smi(row()), libraries=parse_libraries(library("libcuda", entry("8.7"), cuda="12.4")))
    assert [(gpu.compute_capability, gpu.capability_source) for gpu in report.gpus] == [("8.6", "nvidia-smi")]
    assert report.cuda_version == "12.4"


def test_libraries_tell_unified_memory():
    libraries = parse_libraries(library("libcuda", entry("12.1", integrated=True)))
    report = judge([], smi(row(0, "NVIDIA GB10", "[Unknown Error]")), libraries=libraries)
    assert report.gpus[0].unified_memory is True


def test_sixteen_gpus_of_two_kinds():
    names = ["NVIDIA H200"] * 8 + ["NVIDIA GeForce RTX 5090"] * 8
    rows = "".join(row(index, name, capability="9.0" if index < 8 else "12.0") for index, name in enumerate(names))
    xml = log_xml(*(gpu_xml(index, name) for index, name in enumerate(names)))
    bus = [card(f"0000:{index + 1:02x}:00.0", numa_node=index // 8) for index in range(16)]
    report = judge(bus, smi(rows, xml=xml))
    assert report.reason == "16 NVIDIA GPUs (NVIDIA H200, NVIDIA GeForce RTX 5090) with driver 570.86.10"
    assert report.architectures == ["90", "120"]
    assert [gpu.numa_node for gpu in report.gpus] == [0] * 8 + [1] * 8
    assert (len(report.gpus), report.problems) == (16, ())


def test_mig_devices():
    first = gpu_xml(0, H100, mig="Enabled", mig_devices=mig_xml(0, 2) + mig_xml(1, 9), free="N/A")
    xml = log_xml(first, gpu_xml(1, H100, mig="Disabled"))
    report = judge([], smi(row(0, H100, capability="9.0") + row(1, H100, capability="9.0"), xml=xml, listing=LISTING))
    sliced, whole = report.gpus
    assert [(device.uuid[:12], device.profile, device.gpu_instance) for device in sliced.mig_devices] == [
        ("MIG-11111111", "3g.40gb", 2),
        ("MIG-66666666", "1g.10gb+me", 9),
    ]
    assert (sliced.usable, sliced.memory_free_bytes, whole.usable) == (True, None, True)
    assert (whole.mig_mode, whole.mig_devices) == ("disabled", ())
    assert (report.architectures, report.problems) == (["90"], ())


def test_mig_devices_without_a_list_have_no_names():
    xml = log_xml(gpu_xml(0, H100, mig="Enabled", mig_devices=mig_xml(0, 2)))
    (gpu,) = judge([], smi(row(0, H100), xml=xml)).gpus
    assert [(device.index, device.uuid, device.profile) for device in gpu.mig_devices] == [(0, None, None)]


def test_a_gpu_that_is_to_be_sliced_and_is_not():
    xml = log_xml(gpu_xml(0, "NVIDIA H200", mig="Enabled", total="N/A"))
    report = judge([], smi(row(0, "NVIDIA H200", "[N/A]", capability="9.0"), xml=xml))
    assert (report.verdict, report.gpus[0].usable, report.gpus[0].unified_memory) == ("gpu", False, None)
    assert report.architectures == []
    assert "it has no MIG devices" in causes(report)[0]
    assert "-i 0 -mig 0" in report.problems[0].fix


def test_a_warning_with_its_own_exit_status_is_a_remark():
    report = judge([card()], smi(f"{row()}{INFOROM}\n", rc=14, xml=log_xml(gpu_xml())))
    assert report.verdict == "gpu"
    assert report.remarks == (INFOROM,)
    assert causes(report) == [f"nvidia-smi says: {INFOROM}"]


def test_a_remark_that_means_nothing_known_is_no_problem():
    report = judge([card()], smi(f"{row()}Hinweis: alles in Ordnung.\n", xml=log_xml(gpu_xml())))
    assert report.remarks == ("Hinweis: alles in Ordnung.",)
    assert report.problems == ()


def test_a_gpu_that_only_the_bus_knows_is_remarked():
    remark = "nvidia-smi lists 1 of the 2 NVIDIA GPUs on the PCI bus"
    report = judge([card(), card("0000:02:00.0")], smi(row()))
    assert report.remarks == (remark,)
    assert report.problems == (Problem(remark, OTHER_FIX),)
    assert len(report.gpus) == 1
    passed_on = card("0000:02:00.0", driver="vfio-pci")
    assert judge([card(), passed_on], smi(row())).remarks == ()


def test_a_gpu_that_fell_off_is_named_by_its_place():
    out = row() + "1, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]\n"
    report = judge([card(), card("0000:02:00.0")], smi(out, rc=15, xml=log_xml(gpu_xml())))
    remark = "nvidia-smi lists 1 of the 2 NVIDIA GPUs on the PCI bus"
    assert report.problems[1] == Problem(f"{remark}; missing: 10de:2204 at 0000:02:00.0", OTHER_FIX)
    assert "reboot the host" in report.problems[0].fix
    assert [(gpu.usable, gpu.pci_address) for gpu in report.gpus] == [(True, "0000:01:00.0"), (False, "0000:02:00.0")]
    assert report.architectures == ["86"]


def test_a_gpu_set_aside_for_virtual_machines_is_listed_and_no_problem():
    bus = [card(), card("0000:02:00.0", driver="vfio-pci")]
    report = judge(bus, smi(row(), xml=log_xml(gpu_xml())))
    assert [(gpu.usable, gpu.driver_loaded) for gpu in report.gpus] == [(True, True), (False, False)]
    assert (report.remarks, report.problems) == ((), ())


def test_err_in_the_place_of_values():
    report = judge([card()], smi(row(memory="ERR!"), xml=log_xml(gpu_xml(total="ERR!"))))
    assert (report.gpus[0].memory_mib, report.gpus[0].unified_memory) == (None, None)
    assert len(report.problems) == 1
    assert "ERR!" in causes(report)[0]
    power = gpu_xml(power="<power_readings><power_limit>[Unknown Error]</power_limit></power_readings>")
    report = judge([card()], smi(row(), xml=log_xml(power)))
    assert causes(report) == ["nvidia-smi says: GPU 0 says Unknown Error in the place of its power_limit"]


def test_details_that_hang():
    report = judge([card()], smi(row(), hung="/usr/bin/nvidia-smi -q -x"))
    assert report.verdict == "gpu"
    assert report.problems == (Problem("/usr/bin/nvidia-smi -q -x gave no answer within 20 s", HANGING),)


def test_other_vendors_are_listed_and_not_used():
    amd = card("0000:00:02.0", vendor_id="1002", device_id="73bf", driver="amdgpu", numa_node=1)
    intel = card("0000:00:03.0", vendor_id="8086", device_id="56a0", driver="i915")
    musa = card("0000:00:04.0", vendor_id="1ed5", device_id="0323", driver="mtgpu")
    both = judge([card(), amd, intel, musa], smi(row()))
    assert [(gpu.vendor, gpu.usable) for gpu in both.gpus] == [
        ("nvidia", True),
        ("amd", False),
        ("intel", False),
        ("moore_threads", False),
    ]
    assert both.architectures == ["86"]
    alone = judge([amd], None)
    assert alone.verdict == "none"
    assert alone.reason == "no NVIDIA GPU on the PCI bus (what is there is not used: AMD GPU 1002:73bf)"
    assert alone.gpus[0].driver_loaded
    assert alone.gpus[0].numa_node == 1


@pytest.mark.parametrize("answer", [None, smi("No devices were found\n", rc=6), smi(NO_CONTACT, rc=9)])
def test_no_gpu(answer):
    report = judge([card(vendor_id="1af4", class_id="020000")], answer)
    assert (report.verdict, report.reason, report.gpus) == ("none", "no NVIDIA GPU on the PCI bus", ())
    assert report.problems == ()
    assert not leaves_open(report)


def test_a_hang_without_a_gpu_on_the_bus_is_told():
    report = judge([], smi(rc=None))
    assert report.verdict == "none"
    assert causes(report) == ["/usr/bin/nvidia-smi gave no answer within 20 s"]


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
            "/usr/bin/nvidia-smi says: Failed to initialize NVML: Driver/library version mismatch (the kernel module "
            "is 545.23, the library 550.54); reboot the host, so that the kernel module matches the driver just "
            "installed; unattended upgrades do this unless the driver's packages are held",
        ),
        (
            card(),
            smi(LOST, rc=15),
            None,
            f"/usr/bin/nvidia-smi says: {LOST.strip()}; reboot the host; if it comes back, look for Xid 79 in the "
            "kernel log (dmesg) and check the GPU's power and cooling",
        ),
        (
            card(),
            smi("No devices were found\n", rc=6),
            None,
            "/usr/bin/nvidia-smi says: No devices were found; look for NVRM messages in the kernel log (dmesg)",
        ),
        (
            card(),
            smi("Failed to initialize NVML: Insufficient Permissions\n", rc=4),
            None,
            "/usr/bin/nvidia-smi says: Failed to initialize NVML: Insufficient Permissions; give the user access to "
            "/dev/nvidia*, or run as root",
        ),
        (
            card(),
            smi(err="/usr/bin/nvidia-smi: Permission denied\n", rc=127),
            None,
            "/usr/bin/nvidia-smi says: /usr/bin/nvidia-smi: Permission denied; give the user access to nvidia-smi and "
            "/dev/nvidia*, or run as root",
        ),
        (
            card(),
            smi("NVIDIA-SMI ist gescheitert.\n", rc=9),
            None,
            "/usr/bin/nvidia-smi says: NVIDIA-SMI ist gescheitert; reinstall the NVIDIA driver or reboot the host",
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
            f"/usr/bin/nvidia-smi gave no answer within 20 s; {HANGING}",
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
    (problem,) = report.problems
    assert f"{problem.cause}; {problem.fix}" == report.reason
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
    assert report.problems[0].fix == "update the NVIDIA driver in Windows, then run wsl --shutdown"


def test_wsl_with_its_driver():
    answer = smi(row(), path="/usr/lib/wsl/lib/nvidia-smi", xml=log_xml(gpu_xml()))
    report = judge([], answer)
    (gpu,) = report.gpus
    assert (report.verdict, report.cuda_version, report.problems) == ("gpu", "12.8", ())
    assert (gpu.pci_address, gpu.pci_id, gpu.numa_node) == ("0000:01:00.0", None, None)


def test_the_result_is_plain_data():
    xml = log_xml(gpu_xml(mig="Enabled", mig_devices=mig_xml(0, 2)))
    result = judge([card()], smi(row(), xml=xml, listing=LISTING)).as_result()
    assert json.loads(json.dumps(result)) == result
    assert result["architectures"] == ["86"]
    assert result["gpus"] == [
        {
            "vendor": "nvidia",
            "name": "NVIDIA GeForce RTX 3090",
            "usable": True,
            "driver_loaded": True,
            "index": 0,
            "uuid": UUIDS[0],
            "memory_mib": 24576,
            "compute_capability": "8.6",
            "pci_address": "0000:01:00.0",
            "pci_id": "10de:2204",
            "capability_source": "nvidia-smi",
            "memory_total_bytes": 24576 * 1024**2,
            "memory_free_bytes": 24000 * 1024**2,
            "unified_memory": False,
            "mig_mode": "enabled",
            "mig_devices": [
                {
                    "index": 0,
                    "uuid": "MIG-11111111-2222-5333-8444-555555555555",
                    "profile": "3g.40gb",
                    "gpu_instance": 2,
                    "compute_instance": 0,
                    "memory_total_bytes": 9856 * 1024**2,
                    "memory_free_bytes": 9844 * 1024**2,
                }
            ],
            "numa_node": None,
            "power_limit_watts": 350.0,
            "display_attached": False,
            "processes": [],
        }
    ]
