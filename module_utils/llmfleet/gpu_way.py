"""By which way a container gets its GPUs, from what the running engine says. Edge code of the module llm_service.

The plan may have been made before the engine was installed or changed, so the way is settled here.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engine_info import DESKTOP, release
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.gpu_access import ACCESS, CDI, CDI_KIND, HOOK, NVIDIA_WAYS, RUNTIME, cdi_names
from ansible.module_utils.llmfleet.spec import Spec, changes

HOOKS = ("nvidia-container-runtime-hook", "nvidia-cdi-hook")
"""Programs that engines look for to do `--gpus`, the second one from docker 29.2 on."""

LISTS_SINCE = (28, 3)
"""From this release on `docker info` surely names the devices that the engine found."""

_NAME = re.compile(r"""(?:^|[\s{,-])"?name"?:\s*["']?([\w.:-]+)""", re.MULTILINE)
"""The name of a device in a list, which is YAML or JSON. The names of other things there do no harm."""


@dataclass(frozen=True)
class Engine:
    """What the engine says about GPUs; ``devices``: names such as nvidia.com/gpu=0, None where it cannot tell."""

    answers: bool = False
    version: str = ""
    runtimes: tuple[str, ...] = ()
    cdi: bool = False
    devices: frozenset[str] | None = None
    hook: bool = False

    def has(self, way: str, ids: t.Sequence[str] = ()) -> bool:
        """Whether containers can get the GPUs ``ids`` by ``way``, as far as can be told."""
        if way == CDI:
            return self.cdi and (self.devices is None or self.devices.issuperset(cdi_names(ids)))
        return way == HOOK or "nvidia" in self.runtimes


def look(docker: Docker, which: t.Callable[[str], str | None] = shutil.which) -> Engine:
    """Return what the engine and this host say about GPUs for containers."""
    rc, out, _ = docker.attempt("info", "--format", "{{json .}}")
    try:
        info = json.loads(out) if rc == 0 else None
    except ValueError:
        info = None
    if not isinstance(info, dict) or info.get("ServerErrors"):
        return Engine()
    folders = info.get("CDISpecDirs") or []
    version = str(info.get("ServerVersion") or "")
    listed = info.get("DiscoveredDevices") or []
    devices = {str(device.get("ID")) for device in listed}
    if not listed and (release(version) or (0, 0)) < LISTS_SINCE:
        devices = _in_lists(folders)
    desktop = info.get("OperatingSystem") == DESKTOP
    return Engine(
        answers=True,
        version=version,
        runtimes=tuple(info.get("Runtimes") or ()),
        cdi=bool(folders),
        # the lists of an engine in a virtual machine are not to be seen from here
        devices=None if desktop and not listed else frozenset(devices),
        hook=desktop or any(which(name) for name in HOOKS),
    )


def _in_lists(folders: t.Sequence[str]) -> set[str]:
    """Return the names of NVIDIA's devices in the lists of ``folders``."""
    found: set[str] = set()
    for path in sorted(file for folder in folders for file in glob.glob(f"{folder}/*")):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if CDI_KIND in text:
            found |= {f"{CDI_KIND}={name}" for name in _NAME.findall(text)}
    return found


def choose(planned: str, access: str, ids: t.Sequence[str], engine: Engine) -> str:
    """Return the way of gpu_access.WAYS; ``planned`` is that of the plan, ``access`` what the user asks for.

    Raises LlmfleetError when the engine does not have what was asked for.
    """
    if planned not in NVIDIA_WAYS or not (engine.answers or access == "auto"):
        return ACCESS.get(access, planned) if planned in NVIDIA_WAYS else planned
    if access == "auto":
        if planned == CDI and engine.has(CDI, ids):
            return CDI
        return RUNTIME if not engine.hook and engine.has(RUNTIME) else HOOK
    way = ACCESS[access]
    if engine.has(way, ids):
        return way
    said = f"llm_service_gpu_access is {access}, but docker {engine.version}"
    if way == RUNTIME:
        raise LlmfleetError(f"{said} knows no runtime `nvidia`; run playbooks/host.yml, or set it to auto")
    if not engine.cdi:
        raise LlmfleetError(
            f'{said} has device lists (CDI) off; set `nvidia_container_toolkit_cdi: "true"` (docker 25 or newer), or '
            "set it to auto"
        )
    missing = [name for name in cdi_names(ids) if name not in (engine.devices or ())]
    known = ", ".join(sorted(engine.devices or ())) or "none"
    raise LlmfleetError(
        f"{said} knows no device {missing[0]} (it knows: {known}); run playbooks/host.yml, which has the list made"
    )


def kept(wanted: Spec, before: Spec | None, engine: Engine) -> Spec:
    """Return ``wanted`` with the way of the container that runs, where nothing else differs and it still works.

    An engine that was upgraded, or a toolkit that was set up anew, is no reason to stop a service; the new way is taken
    with the next change of something else.
    """
    way = (before or {}).get("gpus")
    if not before or wanted.get("gpus") not in NVIDIA_WAYS or way not in NVIDIA_WAYS:
        return wanted
    same = {**wanted, "gpus": way}
    return wanted if changes(before, same) or not engine.has(str(way), wanted.get("gpu_ids", ())) else same


def settle(docker: Docker, planned: str) -> str:
    """Return the way that ``planned`` becomes on this host, where nobody asks for a certain one or certain GPUs."""
    return choose(planned, "auto", (), look(docker)) if planned in NVIDIA_WAYS else planned


def nodes_of(way: str, ids: t.Sequence[str], root: str = "/") -> list[str]:
    """Return ``ids`` as docker is given them: GPUs of AMD and Intel by the device node of their PCI address.

    Raises LlmfleetError for one without a node.
    """
    if way not in ("amd", "intel"):
        return list(ids)
    nodes = []
    for address in ids:
        found = glob.glob(os.path.join(root, f"sys/bus/pci/devices/{address}/drm/renderD*"))
        if not found:
            raise LlmfleetError(f"GPU {address} has no device node (renderD*); is its driver loaded?")
        nodes.append(f"/dev/dri/{os.path.basename(found[0])}")
    return nodes


def device_groups(way: str, nodes: t.Sequence[str] = ()) -> list[int]:
    """Return the groups that own the device nodes that ``way`` stands for (all, or ``nodes``); other ways need none."""
    if way not in ("amd", "intel"):
        return []
    wanted = ["/dev/kfd", *(nodes or glob.glob("/dev/dri/renderD*"))]
    return sorted({os.stat(node).st_gid for node in wanted if os.path.exists(node)})
