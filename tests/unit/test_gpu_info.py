"""The gpu_info module against a fake nvidia-smi and a fake PCI bus."""

from __future__ import annotations

import json
import time
from pathlib import Path

import gpu_info
import pytest
from ansible.module_utils.llmfleet import gpu_look
from ansible.module_utils.testing import patch_module_args
from gpu_answers import INFOROM, LISTING, REFUSED, UUIDS, gpu_xml, log_xml, mig_xml, row

ANSWERS = {"full": row(), "old": row(driver="470.182.03", capability=None), "xml": log_xml(gpu_xml()), "list": LISTING}
REJECTED = f"echo '{REFUSED}'; exit 2"
H200 = "NVIDIA H200"
MIG = log_xml(gpu_xml(0, H200, mig="Enabled", mig_devices=mig_xml(0, 2)))


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


def fake_smi(tmp_path: Path, **replaced: str) -> str:
    """An nvidia-smi with the answers above, ``replaced`` by other shell code; it notes what it is asked."""
    for name, text in ANSWERS.items():
        (tmp_path / name).write_text(text)
    code = {name: f"cat '{tmp_path / name}'" for name in ANSWERS} | replaced
    path = tmp_path / "nvidia-smi"
    path.write_text(
        f"""#!/bin/sh
echo "$*" >>'{tmp_path / "asked"}'
case "$*" in
"--query-gpu=index,uuid,name,memory.total,driver_version,compute_cap --format=csv,noheader,nounits") {code["full"]} ;;
"--query-gpu=index,uuid,name,memory.total,driver_version --format=csv,noheader,nounits") {code["old"]} ;;
"-q -x") {code["xml"]} ;;
"-L") {code["list"]} ;;
*) echo 'Invalid combination of input arguments.'; exit 1 ;;
esac
"""
    )
    path.chmod(0o755)
    return str(path)


def asked(tmp_path: Path) -> list[str]:
    """The first words of the questions."""
    return [line.split()[0].split("=")[0] for line in (tmp_path / "asked").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _no_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the libraries of a machine that has GPUs out of it, and note whether they are asked."""

    def ask(_seconds: int) -> str:
        with (tmp_path / "asked").open("a") as file:
            file.write("libraries\n")
        return ""

    monkeypatch.setattr(gpu_look, "ask_libraries", ask)


def test_no_gpu(capsys, tmp_path, sysfs):
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=str(tmp_path / "none"))
    assert (result["verdict"], result["gpus"], result["changed"]) == ("none", [], False)
    assert result["reason"] == "no NVIDIA GPU on the PCI bus"


def test_a_host_without_gpus_costs_one_look_per_function(capsys, tmp_path, sysfs, monkeypatch):
    for function in range(1, 8):
        add_device(tmp_path, f"0000:00:1f.{function}", "0x8086", "0x1237", "0x068000")
    read = []
    monkeypatch.setattr(gpu_look, "read_line", lambda path: read.append(path) or Path(path).read_text())
    monkeypatch.setattr(gpu_look, "timed_run", lambda *_: pytest.fail("a process was started"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_look, "SEARCH_DIRS", ())
    (sysfs / "module/nvidia").mkdir(parents=True)
    (sysfs / "module/nvidia/version").write_text("")
    assert run(capsys, sysfs_root=str(sysfs))["verdict"] == "none"
    assert [Path(path).name for path in read] == ["version", *["class"] * 8]


def test_a_host_without_a_pci_bus(capsys, tmp_path):
    result = run(capsys, sysfs_root=str(tmp_path / "nowhere"), nvidia_smi=str(tmp_path / "none"))
    assert result["verdict"] == "none"


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_gpu_with_its_driver(capsys, tmp_path, sysfs, check_mode):
    device = add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2204", "0x030000", "nvidia")
    (device / "numa_node").write_text("1\n")
    args = {"sysfs_root": str(sysfs), "nvidia_smi": fake_smi(tmp_path)}
    result = run(capsys, _ansible_check_mode=check_mode, **args)
    assert (result["verdict"], result["driver_version"], result["cuda_version"]) == ("gpu", "570.86.10", "12.8")
    assert (result["architectures"], result["problems"]) == (["86"], [])
    (gpu,) = result["gpus"]
    assert (gpu["compute_capability"], gpu["capability_source"]) == ("8.6", "nvidia-smi")
    assert (gpu["memory_mib"], gpu["memory_free_bytes"]) == (24576, 24000 * 1024**2)
    assert (gpu["pci_address"], gpu["pci_id"], gpu["numa_node"]) == ("0000:01:00.0", "10de:2204", 1)
    assert result["nvidia_smi"] == args["nvidia_smi"]
    assert asked(tmp_path) == ["--query-gpu", "-q"]


def test_one_numa_node_is_none(capsys, tmp_path, sysfs):
    device = add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2204", "0x030000", "nvidia")
    (device / "numa_node").write_text("-1\n")
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=fake_smi(tmp_path))
    assert result["gpus"][0]["numa_node"] is None


def test_mig_devices_cost_a_third_question(capsys, tmp_path, sysfs):
    (tmp_path / "mig").write_text(MIG)
    path = fake_smi(tmp_path, full=f"echo '{row(0, H200, '143771', capability='9.0')}'", xml=f"cat '{tmp_path}/mig'")
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=path)
    (device,) = result["gpus"][0]["mig_devices"]
    assert (device["uuid"], device["profile"]) == ("MIG-11111111-2222-5333-8444-555555555555", "3g.40gb")
    assert asked(tmp_path) == ["--query-gpu", "-q", "-L"]


def test_an_old_driver_that_refuses_compute_cap(capsys, tmp_path, sysfs):
    path = fake_smi(tmp_path, full=REJECTED)
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=path)
    assert (result["verdict"], result["remarks"]) == ("gpu", [])
    (gpu,) = result["gpus"]
    assert (gpu["index"], gpu["uuid"]) == (0, UUIDS[0])
    assert (gpu["compute_capability"], gpu["capability_source"]) == ("8.6", "table")
    assert asked(tmp_path) == ["--query-gpu", "-q", "libraries"]


def test_an_old_driver_with_mig_devices(capsys, tmp_path, sysfs):
    (tmp_path / "mig").write_text(MIG)
    path = fake_smi(tmp_path, full=REJECTED, xml=f"cat '{tmp_path}/mig'")
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=path)
    assert result["gpus"][0]["mig_devices"][0]["profile"] == "3g.40gb"
    assert asked(tmp_path) == ["--query-gpu", "-q", "-L", "libraries"]


@pytest.mark.parametrize("xml", ["echo Unable; exit 15", "echo '<nvidia_smi_log></nvidia_smi_log>'", "true"])
def test_an_old_driver_without_xml(capsys, tmp_path, sysfs, xml):
    path = fake_smi(tmp_path, full=REJECTED, xml=xml)
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=path)
    assert (result["verdict"], result["driver_version"]) == ("gpu", "470.182.03")
    assert result["gpus"][0]["capability_source"] == "table"
    assert asked(tmp_path) == ["--query-gpu", "-q", "--query-gpu", "libraries"]


def test_libraries_say_what_nvidia_smi_does_not(capsys, tmp_path, sysfs, monkeypatch):
    said = {"library": "libcuda", "cuda": "11.4", "gpus": [{"uuid": UUIDS[0], "capability": "8.7"}]}
    monkeypatch.setattr(gpu_look, "ask_libraries", lambda _seconds: json.dumps(said))
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=fake_smi(tmp_path, full=REJECTED, xml="true"))
    assert (result["cuda_version"], result["architectures"]) == ("11.4", ["87"])
    assert result["gpus"][0]["capability_source"] == "libcuda"


def test_warnings_among_the_rows(capsys, tmp_path, sysfs):
    path = fake_smi(tmp_path, full=f"echo '{INFOROM}'; echo '{row()}'; exit 14")
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=path)
    assert result["verdict"] == "gpu"
    assert result["remarks"] == [INFOROM]
    assert [problem["cause"] for problem in result["problems"]] == [f"nvidia-smi says: {INFOROM}"]


def test_it_is_asked_in_the_c_locale(capsys, tmp_path, sysfs, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    path = fake_smi(tmp_path, full=f"[ \"$LC_ALL\" = C ] && echo '{row()}'")
    assert run(capsys, sysfs_root=str(sysfs), nvidia_smi=path)["verdict"] == "gpu"


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
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=fake_smi(tmp_path, full=f"{said}; exit 18"))
    assert (result["verdict"], result["driver_version"]) == ("no_driver", "545.23.08")
    (problem,) = result["problems"]
    assert problem["cause"].endswith("mismatch (the kernel module is 545.23.08, the library 550.54)")
    assert problem["fix"].startswith("reboot the host")
    assert result["reason"] == f"{problem['cause']}; {problem['fix']}"
    assert asked(tmp_path) == ["--query-gpu"]


def test_an_nvidia_smi_that_hangs(capsys, tmp_path, sysfs):
    add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2204", "0x030000", "nvidia")
    began = time.monotonic()
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=fake_smi(tmp_path, full="sleep 60"), timeout=1)
    assert time.monotonic() - began < 5
    assert result["verdict"] == "no_driver"
    assert "gave no answer within 1 s" in result["reason"]
    assert asked(tmp_path) == ["--query-gpu"]


@pytest.mark.parametrize(("count", "seconds"), [(1, 20), (4, 20), (8, 28), (16, 44)])
def test_many_gpus_are_given_the_time_to_wake(capsys, tmp_path, sysfs, monkeypatch, count, seconds):
    for index in range(count):
        add_device(tmp_path, f"0000:{index + 1:02x}:00.0", "0x10de", "0x2335", "0x030200", "nvidia")
    add_device(tmp_path, "0000:80:00.0", "0x1002", "0x73bf", "0x030000", "amdgpu")
    waited = []
    asked_for_real = gpu_look.timed_run
    monkeypatch.setattr(gpu_look, "timed_run", lambda argv, limit: waited.append(limit) or asked_for_real(argv, limit))
    (tmp_path / "many").write_text("".join(row(index, H200, "143771", capability="9.0") for index in range(count)))
    path = fake_smi(tmp_path, full=f"cat '{tmp_path}/many'")
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=path)
    assert (len(result["gpus"]), result["architectures"]) == (count + 1, ["90"])
    assert set(waited) == {seconds}


@pytest.mark.parametrize(("full", "questions"), [("", 2), (REJECTED, 3)])
def test_details_that_hang_cost_the_details_only(capsys, tmp_path, sysfs, full, questions):
    path = fake_smi(tmp_path, xml="sleep 60", **({"full": full} if full else {}))
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=path, timeout=1)
    assert (result["verdict"], result["cuda_version"], result["architectures"]) == ("gpu", None, ["86"])
    assert [problem["cause"] for problem in result["problems"]] == [f"{path} -q -x gave no answer within 1 s"]
    assert len(asked(tmp_path)) == questions


def test_virtual_functions_are_not_counted(capsys, tmp_path, sysfs):
    physical = add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2330", "0x030200", "nvidia")
    virtual = add_device(tmp_path, "0000:01:00.4", "0x10de", "0x2330", "0x030200", "nvidia")
    (virtual / "physfn").symlink_to(physical)
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=fake_smi(tmp_path))
    assert result["remarks"] == []
    assert [gpu["pci_address"] for gpu in result["gpus"]] == ["0000:01:00.0"]


def test_it_is_found_on_the_path(capsys, tmp_path, sysfs, monkeypatch):
    path = fake_smi(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(gpu_look, "WSL_SMI", str(tmp_path / "none"))
    assert run(capsys, sysfs_root=str(sysfs))["nvidia_smi"] == path


def test_that_of_wsl_comes_first(capsys, tmp_path, sysfs, monkeypatch):
    useless, good = tmp_path / "bin", tmp_path / "wsl/lib"
    useless.mkdir()
    good.mkdir(parents=True)
    fake_smi(useless, full="echo NVIDIA-SMI has failed; exit 9")
    path = fake_smi(good)
    monkeypatch.setenv("PATH", f"{useless}:/usr/bin:/bin")
    monkeypatch.setattr(gpu_look, "WSL_SMI", path)
    result = run(capsys, sysfs_root=str(sysfs))
    assert (result["nvidia_smi"], result["verdict"], result["cuda_version"]) == (path, "gpu", "12.8")


def test_one_that_may_not_be_run(capsys, tmp_path, sysfs):
    add_device(tmp_path, "0000:01:00.0", "0x10de", "0x2204", "0x030000", "nvidia")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh")
    result = run(capsys, sysfs_root=str(sysfs), nvidia_smi=str(tmp_path / "nvidia-smi"))
    assert result["verdict"] == "no_driver"
    assert "was not found" in result["problems"][0]["cause"]


def test_broken_input(capsys):
    result = run(capsys, timeout="soon")
    assert result["failed"]
    assert "timeout" in result["msg"]
