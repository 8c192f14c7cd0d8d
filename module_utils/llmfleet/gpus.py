"""What GPUs a host has, judged from nvidia-smi's answers and the PCI bus.

"An NVIDIA GPU is there, but its driver is not" is a different answer from "no GPU": one has a fix.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import asdict, dataclass, replace

QUERY = ("--query-gpu=index,uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits")
# asked separately: drivers older than the field refuse the whole query
CAPABILITY_QUERY = ("--query-gpu=index,compute_cap", "--format=csv,noheader,nounits")
SEARCH_DIRS = ("/usr/bin", "/usr/lib/wsl/lib")

NVIDIA = "nvidia"
VENDORS = {"10de": NVIDIA, "1002": "amd", "8086": "intel", "1ed5": "moore_threads"}
VENDOR_TITLES = {NVIDIA: "NVIDIA", "amd": "AMD", "intel": "Intel", "moore_threads": "Moore Threads"}
DISPLAY_CLASS = "03"
ACCELERATOR_CLASS = "1200"

GPU, NO_DRIVER, NONE = "gpu", "no_driver", "none"


@dataclass(frozen=True)
class PciDevice:
    """One function on the PCI bus, as sysfs tells it (numbers in hexadecimal, without 0x)."""

    address: str
    vendor_id: str
    device_id: str
    class_id: str
    driver: str = ""
    virtual_function: bool = False

    @property
    def vendor(self) -> str | None:
        """The vendor's name when the device is a GPU this project knows of, else None."""
        name = VENDORS.get(self.vendor_id)
        # a vGPU host shows each GPU again as many virtual functions
        if name is None or self.virtual_function:
            return None
        display = self.class_id.startswith(DISPLAY_CLASS)
        accelerator = self.class_id.startswith(ACCELERATOR_CLASS) and name != "intel"
        return name if display or accelerator else None

    @property
    def pci_id(self) -> str:
        return f"{self.vendor_id}:{self.device_id}"


@dataclass(frozen=True)
class Gpu:
    """A GPU; what only the driver knows is None while there is no driver."""

    vendor: str
    name: str
    usable: bool
    driver_loaded: bool
    index: int | None = None
    uuid: str | None = None
    memory_mib: int | None = None
    compute_capability: str | None = None
    pci_address: str | None = None
    pci_id: str | None = None


@dataclass(frozen=True)
class SmiAnswer:
    """What nvidia-smi said; ``rc`` is None when it gave no answer in time."""

    path: str
    rc: int | None
    out: str = ""
    err: str = ""
    capabilities_out: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    verdict: str
    reason: str
    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    nvidia_smi: str | None = None
    remarks: tuple[str, ...] = ()

    def as_result(self) -> dict[str, t.Any]:
        return {**asdict(self), "gpus": [asdict(gpu) for gpu in self.gpus], "remarks": list(self.remarks)}


def value_or_none(text: str) -> str | None:
    """Return a field of nvidia-smi, or None for its ways of saying "not known" ([N/A], [Not Supported], ...)."""
    text = text.strip()
    return None if not text or text.startswith("[") or text.upper() == "N/A" else text


def parse_query(text: str) -> tuple[list[tuple[Gpu, str | None]], list[str]]:
    """Return ((GPU, driver version) of each row, the other lines) of nvidia-smi's answer to QUERY.

    The driver writes warnings (a corrupted infoROM, a lost GPU) among the rows.
    """
    rows: list[tuple[Gpu, str | None]] = []
    remarks: list[str] = []
    for line in filter(None, (raw.strip() for raw in text.splitlines())):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) < 5 or not fields[0].isdigit() or not fields[1].startswith("GPU-"):
            remarks.append(line)
            continue
        memory = value_or_none(fields[-2])
        gpu = Gpu(
            vendor=NVIDIA,
            name=", ".join(fields[2:-2]),
            usable=True,
            driver_loaded=True,
            index=int(fields[0]),
            uuid=fields[1],
            memory_mib=int(float(memory)) if memory and re.fullmatch(r"\d+(\.\d+)?", memory) else None,
        )
        rows.append((gpu, value_or_none(fields[-1])))
    return rows, remarks


def parse_capabilities(text: str) -> dict[int, str]:
    """Return compute capability by GPU index; empty when the driver does not know the field."""
    found = re.findall(r"^\s*(\d+)\s*,\s*(\d+\.\d+)\s*$", text, flags=re.MULTILINE)
    return {int(index): capability for index, capability in found}


def _place(device: PciDevice) -> str:
    return f"{device.pci_id} at {device.address}"


def _from_bus(device: PciDevice) -> Gpu:
    vendor = t.cast("str", device.vendor)
    return Gpu(
        vendor=vendor,
        name=f"{VENDOR_TITLES[vendor]} GPU {device.pci_id}",
        usable=False,
        driver_loaded=bool(device.driver) and (vendor != NVIDIA or device.driver == NVIDIA),
        pci_address=device.address,
        pci_id=device.pci_id,
    )


def _smi_fix(words: str) -> str:
    """Return what to do about nvidia-smi's failure."""
    table = (
        ("version mismatch", "reboot the host, so that the kernel module matches the driver just installed"),
        (
            "couldn't communicate",
            "load the driver's kernel module (modprobe nvidia; with Secure Boot it must be signed)",
        ),
        ("driver not loaded", "load the driver's kernel module (modprobe nvidia; with Secure Boot it must be signed)"),
        ("libnvidia-ml", "reinstall the driver: its management library is missing"),
        ("insufficient permissions", "give the user access to /dev/nvidia*, or run as root"),
        ("no devices were found", "look for NVRM messages in the kernel log (dmesg)"),
        ("lost", "reboot the host"),
        ("fallen off", "reboot the host"),
    )
    for pattern, fix in table:
        if pattern in words.lower():
            return fix
    return "reinstall the NVIDIA driver or reboot the host"


def _failure(smi: SmiAnswer) -> str:
    """Return "what went wrong; what to do" for an nvidia-smi that listed no GPU."""
    if smi.rc is None:
        return f"{smi.path} gave no answer within {smi.seconds:g} s; reboot the host, its driver hangs"
    lines = [line.strip() for line in f"{smi.out}\n{smi.err}".splitlines() if line.strip()]
    # the line after the first ("NVML library version: ...") only adds figures
    words = lines[0].rstrip(".") if lines else f"exit status {smi.rc} without a word"
    return f"{smi.path} says: {words}; {_smi_fix(' '.join(lines))}"


def _without_smi(device: PciDevice, module_version: str | None, wanted: str) -> str:
    """Return why no nvidia-smi answers for ``device`` and what to do."""
    if device.driver == "vfio-pci":
        return "it is set aside for virtual machines (vfio-pci); unbind it from vfio-pci to use it here"
    if module_version:
        return f"{wanted} was not found though driver {module_version} is loaded; install the driver's utilities"
    held = f" (the {device.driver} driver holds it)" if device.driver else ""
    return f"its driver is not: {wanted} was not found{held}; install the driver"


def judge(
    devices: t.Sequence[PciDevice],
    smi: SmiAnswer | None,
    module_version: str | None = None,
    wanted: str = "nvidia-smi",
) -> Report:
    """Return the verdict on a host.

    ``smi`` is None when ``wanted`` is not installed; ``module_version`` is that of the loaded kernel module.
    """
    on_bus = [device for device in devices if device.vendor]
    nvidia = [device for device in on_bus if device.vendor == NVIDIA]
    others = tuple(_from_bus(device) for device in on_bus if device.vendor != NVIDIA)
    rows, remarks = parse_query(smi.out) if smi else ([], [])
    path = smi.path if smi else None

    if smi and rows:
        capabilities = parse_capabilities(smi.capabilities_out)
        gpus = tuple(replace(gpu, compute_capability=capabilities.get(t.cast("int", gpu.index))) for gpu, _ in rows)
        version = next((version for _, version in rows if version), module_version)
        missing = len([device for device in nvidia if device.driver != "vfio-pci"]) - len(gpus)
        if missing > 0:
            remarks.append(f"nvidia-smi lists {len(gpus)} of the {missing + len(gpus)} NVIDIA GPUs on the PCI bus")
        names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
        reason = (
            f"{len(gpus)} NVIDIA GPU{'s' * (len(gpus) > 1)} ({names}) with driver {version or 'of unknown version'}"
        )
        return Report(GPU, reason, gpus + others, version, path, tuple(remarks))

    # under WSL2 the GPU is not on the PCI bus; Windows puts nvidia-smi there only with an NVIDIA driver
    wsl = bool(smi and "/wsl/" in smi.path)
    if nvidia or wsl:
        lost = tuple(_from_bus(device) for device in nvidia)
        what = f"an NVIDIA GPU ({_place(nvidia[0])}) is there, but " if nvidia else "Windows offers an NVIDIA GPU, but "
        why = _failure(smi) if smi else _without_smi(nvidia[0], module_version, wanted)
        if wsl and not nvidia:
            why = why.rsplit(";", 1)[0] + "; update the NVIDIA driver in Windows, then run wsl --shutdown"
        return Report(NO_DRIVER, what + why, lost + others, module_version, path, ())

    reason = "no NVIDIA GPU on the PCI bus"
    if others:
        reason += f" (what is there is not used: {', '.join(dict.fromkeys(gpu.name for gpu in others))})"
    return Report(NONE, reason, others, module_version, path, ())
