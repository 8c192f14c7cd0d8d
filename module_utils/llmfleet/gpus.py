"""GPUs as data: what is known of each one, of the PCI bus and of the host as a whole.

"An NVIDIA GPU is there, but its driver is not" is a different answer from "no GPU": one has a fix. Unknown is None.
"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass

NVIDIA = "nvidia"
VENDORS = {"10de": NVIDIA, "1002": "amd", "8086": "intel", "1ed5": "moore_threads"}
VENDOR_TITLES = {NVIDIA: "NVIDIA", "amd": "AMD", "intel": "Intel", "moore_threads": "Moore Threads"}
DISPLAY_CLASS = "03"
ACCELERATOR_CLASS = "1200"

GPU, NO_DRIVER, NONE = "gpu", "no_driver", "none"
NO_NAME = "NVIDIA GPU of unknown name"
SMI, LIBCUDA, NVML, TABLE = "nvidia-smi", "libcuda", "nvml", "table"


@dataclass(frozen=True)
class PciDevice:
    """One function on the PCI bus, as sysfs tells it (numbers in hexadecimal, without 0x)."""

    address: str
    vendor_id: str
    device_id: str
    class_id: str
    driver: str = ""
    virtual_function: bool = False
    numa_node: int | None = None

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

    @property
    def place(self) -> str:
        return f"{self.pci_id} at {self.address}"


@dataclass(frozen=True)
class MigDevice:
    """A slice of a GPU that is handed out by its own UUID."""

    index: int | None
    uuid: str | None
    profile: str | None
    gpu_instance: int | None
    compute_instance: int | None
    memory_total_bytes: int | None
    memory_free_bytes: int | None


@dataclass(frozen=True)
class GpuProcess:
    pid: int
    name: str | None
    type: str | None
    memory_bytes: int | None


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
    capability_source: str | None = None
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    unified_memory: bool | None = None
    mig_mode: str | None = None
    mig_devices: tuple[MigDevice, ...] | None = None
    numa_node: int | None = None
    power_limit_watts: float | None = None
    display_attached: bool | None = None
    processes: tuple[GpuProcess, ...] | None = None


@dataclass(frozen=True)
class Problem:
    """Something wrong with a GPU or its driver, and what to do."""

    cause: str
    fix: str


@dataclass(frozen=True)
class SmiAnswer:
    """What nvidia-smi said; ``rc`` is None when it gave no answer in time.

    ``xml`` and ``listing`` are its answers to the later questions, ``hung`` the one that got none in time.
    """

    path: str
    rc: int | None
    out: str = ""
    err: str = ""
    xml: str = ""
    listing: str = ""
    with_capability: bool = True
    hung: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    verdict: str
    reason: str
    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    nvidia_smi: str | None = None
    remarks: tuple[str, ...] = ()
    cuda_version: str | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def architectures(self) -> list[str]:
        """The compute capabilities of the usable GPUs, as compilers write them ("86"), lowest first."""
        found = {gpu.compute_capability for gpu in self.gpus if gpu.usable and gpu.compute_capability}
        return sorted((capability.replace(".", "") for capability in found), key=int)

    def as_result(self) -> dict[str, t.Any]:
        return {**t.cast("dict[str, t.Any]", _plain(asdict(self))), "architectures": self.architectures}


def _plain(value: t.Any) -> t.Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
