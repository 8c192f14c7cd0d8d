"""What nvidia-smi answers, for tests of what is made of it. Shapes of drivers 470 to 580, values made up."""

from __future__ import annotations

import typing as t

UUIDS = [f"GPU-5a1c7e0f-0000-1111-2222-{index:012d}" for index in range(16)]
REFUSED = 'Field "compute_cap" is not a valid field to query.\n\n'
NO_CONTACT = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n"
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54\n"
LOST = (
    "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.  Reboot the system to recover this GPU\n"
)
INFOROM = "WARNING: infoROM is corrupted at gpu 0000:01:00.0"


def row(
    index: int = 0,
    name: str = "NVIDIA GeForce RTX 3090",
    memory: str = "24576",
    driver: str = "570.86.10",
    capability: str | None = "8.6",
) -> str:
    """A line of the answer to QUERY, without ``capability`` one to OLD_QUERY."""
    fields = [str(index), UUIDS[index], name, memory, driver, *([capability] if capability else [])]
    return ", ".join(fields) + "\n"


def gpu_xml(index: int = 0, name: str = "NVIDIA GeForce RTX 3090", **parts: str) -> str:
    """A GPU in the answer to DETAILS_QUERY, on bus 1 + index; ``parts`` replace pieces of it."""
    bus = f"00000000:{index + 1:02X}:00.0"
    pieces = {
        "uuid": UUIDS[index],
        "total": "24576 MiB",
        "free": "24000 MiB",
        "display": "<display_mode>Disabled</display_mode><display_active>Disabled</display_active>",
        "mig": "N/A",
        "mig_devices": "\n\t\t\tNone\n\t\t",
        "power": "<gpu_power_readings><power_draw>20.1 W</power_draw><current_power_limit>350.00 W"
        "</current_power_limit></gpu_power_readings>",
        "processes": "<processes>\n\t\t</processes>",
        **parts,
    }
    return f"""
	<gpu id="{bus}">
		<product_name>{name}</product_name>
		{pieces["display"]}
		<mig_mode>
			<current_mig>{pieces["mig"]}</current_mig>
			<pending_mig>{pieces["mig"]}</pending_mig>
		</mig_mode>
		<mig_devices>{pieces["mig_devices"]}</mig_devices>
		<uuid>{pieces["uuid"]}</uuid>
		<minor_number>{15 - index}</minor_number>
		<pci><pci_bus>{index + 1:02X}</pci_bus><pci_bus_id>{bus}</pci_bus_id></pci>
		<fb_memory_usage>
			<total>{pieces["total"]}</total>
			<reserved>300 MiB</reserved>
			<used>276 MiB</used>
			<free>{pieces["free"]}</free>
		</fb_memory_usage>
		{pieces["power"]}
		{pieces["processes"]}
	</gpu>"""


def log_xml(*gpus: str, driver: str = "570.86.10", cuda: str | None = "12.8") -> str:
    """The whole answer to DETAILS_QUERY."""
    version = f"<cuda_version>{cuda}</cuda_version>" if cuda else ""
    return f"""<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
	<timestamp>Sat Nov 21 10:00:00 2026</timestamp>
	<driver_version>{driver}</driver_version>
	{version}
	<attached_gpus>{len(gpus)}</attached_gpus>{"".join(gpus)}
</nvidia_smi_log>
"""


def mig_xml(index: int, instance: int, total: str = "9856 MiB", free: str = "9844 MiB") -> str:
    """A MIG device in the XML."""
    return (
        f"<mig_device><index>{index}</index><gpu_instance_id>{instance}</gpu_instance_id><compute_instance_id>0"
        "</compute_instance_id><device_attributes><shared><multiprocessor_count>16</multiprocessor_count></shared>"
        f"</device_attributes><fb_memory_usage><total>{total}</total><reserved>0 MiB</reserved><used>12 MiB</used>"
        f"<free>{free}</free></fb_memory_usage></mig_device>"
    )


def process_xml(*processes: t.Sequence[str]) -> str:
    """The processes of a GPU: (pid, type, name, memory) each."""
    entries = "".join(
        f"<process_info><gpu_instance_id>N/A</gpu_instance_id><pid>{pid}</pid><type>{kind}</type>"
        f"<process_name>{name}</process_name><used_memory>{memory}</used_memory></process_info>"
        for pid, kind, name, memory in processes
    )
    return f"<processes>{entries}</processes>"


LISTING = f"""GPU 0: NVIDIA H100 80GB HBM3 (UUID: {UUIDS[0]})
  MIG 3g.40gb     Device  0: (UUID: MIG-11111111-2222-5333-8444-555555555555)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-66666666-7777-5888-8999-aaaaaaaaaaaa)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: {UUIDS[1]})
"""
