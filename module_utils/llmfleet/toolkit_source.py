"""Where the NVIDIA container toolkit's packages come from. Pure.

One flat repository serves all distributions; mirrors keep its layout below their root
(docs.nvidia.com/datacenter/cloud-native/container-toolkit).
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import mirror_choice
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.package_source import APT_ARCHITECTURES

Data = dict[str, t.Any]

MAIN = "nvidia-container-toolkit"
PACKAGES = (MAIN, "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
"""From 1.18 on they work only with one another of exactly the same version."""


def repository(platform: t.Mapping[str, t.Any]) -> Data:
    """Return {kind, path, architecture} of the toolkit's repository below a mirror's root. Raises BadInput."""
    machine = platform["architecture"]
    self_help = "; install it yourself, it is then used as it is, or set nvidia_container_toolkit_state to `absent`"
    if machine not in APT_ARCHITECTURES:
        raise BadInput(f"there is no NVIDIA container toolkit for the architecture {machine}{self_help}")
    if platform["os_family"] == "Debian":
        architecture = APT_ARCHITECTURES[machine]
        return {"kind": "apt_flat", "path": f"stable/deb/{architecture}", "architecture": architecture}
    if platform["os_family"] == "RedHat":
        return {"kind": "yum", "path": f"stable/rpm/{machine}", "architecture": machine}
    raise BadInput(
        "the NVIDIA container toolkit is installed on Debian, Ubuntu and the RHEL family, and this is "
        f"{platform['distribution']}{self_help}"
    )


def choose_source(plan: Data, facts: Data, inputs: Data, probe: Data) -> None:
    """Fill in where the packages of ``plan`` come from; asks for a probe first. Raises BadInput."""
    chosen = mirror_choice.considered(inputs["mirrors"], inputs["mirror"], "nvidia_container_toolkit_mirror")
    plan["repo"] = repo = repository(facts["platform"])
    plan["packages"] = dict.fromkeys(PACKAGES, plan["version"])
    if not probe:
        plan["mirrors"] = chosen
        plan["probe"] = {
            "kind": repo["kind"],
            "candidates": mirror_choice.candidates(chosen, repo["path"]),
            "package": MAIN,
            "architecture": repo["architecture"],
        }
        return
    try:
        mirrors, best, measured = mirror_choice.usable(chosen, repo["path"], probe, "the NVIDIA container toolkit")
    except BadInput as problem:
        raise BadInput(
            f"{problem}; add one that answers to nvidia_container_toolkit_mirrors, or set "
            "nvidia_container_toolkit_state to `absent`"
        ) from problem
    plan["mirrors"] = mirrors
    plan["why"] += f"; {plan['version']} from {best['name']} ({measured})"
