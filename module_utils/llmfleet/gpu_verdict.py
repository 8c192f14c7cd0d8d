"""The verdict on a host's GPUs, from nvidia-smi's answers, the driver's libraries and the PCI bus."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import gpu_merge, gpu_troubles
from ansible.module_utils.llmfleet.gpu_smi import parse_query
from ansible.module_utils.llmfleet.gpu_xml import parse_details
from ansible.module_utils.llmfleet.gpus import (
    GPU,
    NO_DRIVER,
    NONE,
    NVIDIA,
    TABLE,
    VENDOR_TITLES,
    Gpu,
    PciDevice,
    Problem,
    Report,
    SmiAnswer,
)

NO_LIBRARIES = gpu_merge.Libraries()


def judge(
    devices: t.Sequence[PciDevice],
    smi: SmiAnswer | None,
    module_version: str | None = None,
    wanted: str = "nvidia-smi",
    libraries: gpu_merge.Libraries = NO_LIBRARIES,
) -> Report:
    """Return the verdict on a host.

    ``smi`` is None when ``wanted`` is not installed; ``module_version`` is that of the loaded kernel module.
    """
    on_bus = [device for device in devices if device.vendor]
    nvidia = [device for device in on_bus if device.vendor == NVIDIA]
    others = tuple(_from_bus(device) for device in on_bus if device.vendor != NVIDIA)
    if smi:
        found = _answered(smi, nvidia, others, module_version, libraries)
        if found:
            return found
    path = smi.path if smi else None

    # under WSL2 the GPU is not on the PCI bus; Windows puts nvidia-smi there only with an NVIDIA driver
    wsl = bool(smi and "/wsl/" in smi.path)
    if nvidia or wsl:
        lost = tuple(_from_bus(device) for device in nvidia)
        what = f"an NVIDIA GPU ({nvidia[0].place}) is there, but " if nvidia else "Windows offers an NVIDIA GPU, but "
        if smi:
            problem = gpu_troubles.failure(smi, module_version)
        else:
            problem = gpu_troubles.without_smi(nvidia[0], module_version, wanted)
        if wsl:
            problem = Problem(problem.cause, gpu_troubles.WSL_FIX)
        problem = Problem(what + problem.cause, problem.fix)
        reason = f"{problem.cause}; {problem.fix}"
        return Report(NO_DRIVER, reason, lost + others, module_version, path, problems=(problem,))

    reason = "no NVIDIA GPU on the PCI bus"
    if others:
        reason += f" (what is there is not used: {', '.join(dict.fromkeys(gpu.name for gpu in others))})"
    # an integrated GPU is not on the bus: one that hangs would go unnoticed
    problems = (gpu_troubles.failure(smi),) if smi and smi.rc is None else ()
    return Report(NONE, reason, others, module_version, path, problems=problems)


def leaves_open(report: Report) -> bool:
    """Whether nvidia-smi left something open that the driver's libraries may know."""
    mine = [gpu for gpu in report.gpus if gpu.vendor == NVIDIA and gpu.uuid]
    return report.verdict == GPU and (
        report.cuda_version is None or any(gpu.capability_source in (None, TABLE) for gpu in mine)
    )


def _answered(
    smi: SmiAnswer,
    nvidia: t.Sequence[PciDevice],
    others: tuple[Gpu, ...],
    module_version: str | None,
    libraries: gpu_merge.Libraries,
) -> Report | None:
    """Return the report on a host whose nvidia-smi lists GPUs, None when it lists none."""
    rows, remarks = parse_query(smi.out, smi.with_capability)
    details = parse_details(smi.xml)
    merged = gpu_merge.with_details([gpu for gpu, _ in rows], details.gpus if details else ())
    if not merged:
        return None
    gpus = [
        gpu_merge.with_bus(gpu_merge.with_libraries(gpu_merge.with_listing(gpu, smi.listing), libraries), nvidia)
        for gpu in merged
    ]
    names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
    version = next((version for _, version in rows if version), None)
    version = version or (details.driver_version if details else None) or module_version
    reason = f"{len(gpus)} NVIDIA GPU{'s' * (len(gpus) > 1)} ({names}) with driver {version or 'of unknown version'}"

    # faults of single values stand in both answers
    complaints = remarks or list(details.faults if details else ())
    problems = [*gpu_troubles.of_lines(complaints), *_open_ends(smi, gpus)]
    missing = len([device for device in nvidia if device.driver != "vfio-pci"]) - len(gpus)
    more = gpu_merge.unlisted(gpus, nvidia)
    if missing > 0:
        remark = f"nvidia-smi lists {len(gpus)} of the {missing + len(gpus)} NVIDIA GPUs on the PCI bus"
        remarks.append(remark)
        lost = ", ".join(device.place for device in more if device.driver != "vfio-pci")
        cause = f"{remark}; missing: {lost}" if lost else remark
        problems.append(Problem(cause, "look for NVRM and Xid messages in the kernel log (dmesg), and reboot the host"))
    return Report(
        GPU,
        reason,
        (*gpus, *(_from_bus(device) for device in more), *others),
        version,
        smi.path,
        tuple(remarks),
        (details.cuda_version if details else None) or libraries.cuda_version,
        tuple(problems),
    )


def _open_ends(smi: SmiAnswer, gpus: t.Sequence[Gpu]) -> t.Iterator[Problem]:
    """Yield what is wrong though GPUs are listed."""
    if smi.hung:
        yield gpu_troubles.hanging(smi.hung, smi.seconds)
    for gpu in gpus:
        if gpu.compute_capability is None:
            yield Problem(
                f"the compute capability of GPU {gpu.index} ({gpu.name}) is unknown to driver and libraries",
                "install a driver that knows this GPU" if smi.with_capability else "install NVIDIA driver 510 or newer",
            )
        if gpu.mig_mode == "enabled" and not gpu.mig_devices:
            yield Problem(
                f"MIG is on for GPU {gpu.index} ({gpu.name}), but it has no MIG devices, so that nothing can use it",
                f"make some (nvidia-smi mig -i {gpu.index} -cgi PROFILE -C) or turn MIG off (nvidia-smi -i {gpu.index} "
                "-mig 0)",
            )


def _from_bus(device: PciDevice) -> Gpu:
    vendor = t.cast("str", device.vendor)
    return Gpu(
        vendor=vendor,
        name=f"{VENDOR_TITLES[vendor]} GPU {device.pci_id}",
        usable=False,
        driver_loaded=bool(device.driver) and (vendor != NVIDIA or device.driver == NVIDIA),
        pci_address=device.address,
        pci_id=device.pci_id,
        numa_node=device.numa_node,
    )
