"""Where the NVIDIA container toolkit's packages come from. Pure.

One flat repository serves all distributions; mirrors keep its layout below their root
(docs.nvidia.com/datacenter/cloud-native/container-toolkit).
"""

from __future__ import annotations

import typing as t

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


def _chosen(inputs: Data) -> list[Data]:
    """Return the mirrors to consider. Raises BadInput."""
    mirrors, one = inputs["mirrors"], inputs["mirror"]
    if not one:
        return list(mirrors)
    chosen = [mirror for mirror in mirrors if one in (mirror["name"], mirror["url"])]
    if not chosen and "://" not in one:
        names = ", ".join(mirror["name"] for mirror in mirrors)
        raise BadInput(f"nvidia_container_toolkit_mirror `{one}` is none of {names}; use one, or give a URL")
    return chosen or [{"name": one, "url": one}]


def choose_source(plan: Data, facts: Data, inputs: Data, probe: Data) -> None:
    """Fill in where the packages of ``plan`` come from; asks for a probe first. Raises BadInput."""
    chosen = _chosen(inputs)
    plan["repo"] = repo = repository(facts["platform"])
    plan["packages"] = dict.fromkeys(PACKAGES, plan["version"])
    by_place = {f"{mirror['url'].rstrip('/')}/{repo['path']}": mirror for mirror in chosen}
    if not probe:
        plan["mirrors"] = chosen
        places = [{"name": mirror["name"], "url": place} for place, mirror in by_place.items()]
        plan["probe"] = {
            "kind": repo["kind"],
            "candidates": places,
            "package": MAIN,
            "architecture": repo["architecture"],
        }
        return
    ranked = [found for found in probe["ranked"] if found["url"] in by_place]
    if not ranked:
        said = "; ".join(f"{bad['name']}: {bad['why']}" for bad in probe["rejected"]) or "none is given"
        raise BadInput(
            f"no mirror of the NVIDIA container toolkit can be used ({said}); add one that answers to "
            "nvidia_container_toolkit_mirrors, or set nvidia_container_toolkit_state to `absent`"
        )
    plan["mirrors"] = [by_place[found["url"]] for found in ranked]
    speed = ranked[0].get("bytes_per_second")
    measured = f" ({speed / 1e6:.1f} MB/s)" if speed else ""
    plan["why"] += f"; {plan['version']} from {ranked[0]['name']}{measured}"
