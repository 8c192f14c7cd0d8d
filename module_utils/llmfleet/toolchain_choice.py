"""Which toolchain compiles an image on this builder: an SDK image, CUDA's wheels, the distribution's packages.

The order is the order of trust: NVIDIA's own build images of the first toolkit that serves all hosts, then NVIDIA's
wheels on the distribution, then what the distribution has packaged. The candidates are pure; asking and making is edge
code.
"""

from __future__ import annotations

import re
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ansible.module_utils.llmfleet.base_image import base_references
from ansible.module_utils.llmfleet.build_host import BuildFailed, BuildHost
from ansible.module_utils.llmfleet.cuda_tables import ARCHITECTURES, numbers
from ansible.module_utils.llmfleet.cuda_tables import toolkit as toolkit_row
from ansible.module_utils.llmfleet.cuda_wheels import CUDA_OF_WHEELS, WHEELS, WheelStore
from ansible.module_utils.llmfleet.image_request import BuildRequest
from ansible.module_utils.llmfleet.image_source import SourceError
from ansible.module_utils.llmfleet.image_template import WHEELS_FOLDER
from ansible.module_utils.llmfleet.image_toolchain import Toolchain
from ansible.module_utils.llmfleet.image_variants import VARIANTS
from ansible.module_utils.llmfleet.registries import split_reference

CUDA_IMAGES = ("docker.io/nvidia/cuda:{tag}", "docker.m.daocloud.io/nvidia/cuda:{tag}")
UBUNTU = {"20.04": "focal", "22.04": "jammy", "24.04": "noble"}

CURRENT = {"debian": "debian:trixie", "ubuntu": "ubuntu:noble"}
"""The releases to build on where the host's own is too old or too new for a toolchain; all of them work there."""

WHEELS_ON = frozenset({"debian:bookworm", "debian:trixie", "ubuntu:jammy", "ubuntu:noble"})
"""Where nvcc of the wheels takes the distribution's compiler: gcc 16 (Debian forky) is refused, CMake 3.18 needed."""

NOT_VULKAN = frozenset({"debian:bullseye", "debian:bookworm", "ubuntu:focal", "ubuntu:jammy"})
"""Where the Vulkan headers are older than 1.3.272, without VK_EXT_layer_settings, or there is no glslc."""


@dataclass(frozen=True)
class Places:
    """Where toolchains come from.

    ``base`` is the host's distribution, to build on where a toolchain is no image of its own and none was asked for;
    ``base_images`` are the images of a distribution, ``{base}`` being replaced.
    """

    base: str
    base_images: tuple[str, ...]
    wheels: WheelStore
    cuda_images: tuple[str, ...] = CUDA_IMAGES


@dataclass(frozen=True)
class Chosen:
    """A toolchain and how its first stage comes here: ``present``, ``pull`` or ``bootstrap``."""

    toolchain: Toolchain
    how: str


def candidates(
    request: BuildRequest, base: str, cuda_images: t.Sequence[str] = CUDA_IMAGES
) -> tuple[list[Toolchain], list[str]]:
    """Return the toolchains that would do, in order, and why others that exist would not."""
    row = VARIANTS[request.variant]
    base = request.base_asked or base
    if request.variant == "vulkan":
        fitting = _fitting(request, base, base not in NOT_VULKAN)
        reason = f"{base} is too old for Vulkan, {' or '.join(CURRENT.values())} are not"
        return ([Toolchain("base", "", fitting)], []) if fitting else ([], [reason])
    if request.variant != "cuda":
        if not row.sdk:
            return [Toolchain("base", "", base)], []
        return [Toolchain("image", reference, row.distribution) for reference in row.sdk], []
    found: list[Toolchain] = []
    lacking = {version: lacks(version, request.architectures) for version in request.toolkits}
    able = [version for version, code in lacking.items() if not code]
    reasons = [f"CUDA {version} does not compile for {code}" for version, code in lacking.items() if code]
    rows = list(filter(None, map(toolkit_row, able)))
    for toolkit in rows:
        release = re.search(r"ubuntu(\d+\.\d+)$", toolkit.devel)
        if release and release[1] in UBUNTU:
            distribution = f"ubuntu:{UBUNTU[release[1]]}"
            images = (place.replace("{tag}", toolkit.devel) for place in cuda_images)
            found += [Toolchain("image", image, distribution, toolkit.version) for image in images]
    acceptable = " or ".join(able) or "another one"
    wheels = next((version for version in able if numbers(version)[:2] == numbers(CUDA_OF_WHEELS)), "")
    fitting = _fitting(request, base, base in WHEELS_ON)
    if wheels and fitting:
        found.append(Toolchain("wheels", "", fitting, wheels))
    elif wheels:
        reasons.append(f"CUDA {CUDA_OF_WHEELS} is not known to work with the compiler of {base}")
    else:
        reasons.append(f"the wheels on the package index are CUDA {CUDA_OF_WHEELS}, and the hosts need {acceptable}")
    packaged = next((toolkit for toolkit in rows if base in toolkit.packages), None)
    if packaged:
        found.append(Toolchain("packages", "", base, packaged.version))
    else:
        reasons.append(f"{base} has no package of CUDA {acceptable}")
    return found, reasons


def _fitting(request: BuildRequest, base: str, fits: bool) -> str:
    """Return the distribution to build on: ``base`` if it fits, else a current one unless ``base`` was asked for."""
    if fits or request.base_asked:
        return base if fits else ""
    return CURRENT[base.split(":")[0]]


def lacks(version: str, architectures: t.Iterable[str]) -> str:
    """Return the first of ``architectures`` (61-real) that a toolkit has no code for, as sm_61, "" when it has all."""
    minor = numbers(version)[:2]
    for architecture in architectures:
        code = (re.match(r"\d+", architecture) or [""])[0]
        row = next((row for row in ARCHITECTURES if row.code == code), None)
        # what the table does not know may be newer than the table: the compiler decides
        if row and (minor < numbers(row.first) or (row.last and minor > numbers(row.last))):
            return f"sm_{code}"
    return ""


def choose_toolchain(host: BuildHost, request: BuildRequest, places: Places) -> Chosen:
    """Return the toolchain a build would use; changes nothing, and raises BuildFailed when there is none."""
    rows, reasons = candidates(request, places.base, places.cuda_images)
    return next(_answering(host, request, places, rows, reasons))


def make_toolchain(host: BuildHost, request: BuildRequest, places: Places, context: Path) -> Chosen:
    """Return the toolchain of the build, with its image on this host and its files in ``context``."""
    rows, reasons = candidates(request, places.base, places.cuda_images)
    for chosen in _answering(host, request, places, rows, reasons):
        try:
            return _make(host, request, places, chosen, context)
        except (BuildFailed, SourceError) as problem:
            if chosen.toolchain.kind == "base":
                raise
            host.note(_name(chosen.toolchain), str(problem))
            reasons.append(f"{_name(chosen.toolchain)}: {problem}")
    raise AssertionError("_answering raises when nothing is left")


def _answering(
    host: BuildHost, request: BuildRequest, places: Places, rows: t.Sequence[Toolchain], reasons: list[str]
) -> t.Iterator[Chosen]:
    """Yield the candidates that can be had now, what is on this host first; end with BuildFailed."""
    images = [row for row in rows if row.kind == "image"]
    for row in images:
        if host.docker.executable and host.docker.inspect("image", row.base):
            yield Chosen(row, "present")
    registries = list(dict.fromkeys(split_reference(row.base)[0] for row in images))
    with ThreadPoolExecutor(max_workers=8) as pool:
        down = dict(zip(registries, pool.map(host.registry_problem, registries)))
    said = set()
    for row in images:
        registry = split_reference(row.base)[0]
        if not down[registry]:
            yield Chosen(row, "pull")
        elif registry not in said:
            said.add(registry)
            host.note(_name(row), down[registry])
            reasons.append(f"{_name(row)}: {down[registry]}")
    for row in rows:
        if row.kind == "image":
            continue
        problem = _problem(host, request, places, row)
        if problem:
            host.note(_name(row), problem)
            reasons.append(f"{_name(row)}: {problem}")
            continue
        how, reference = host.find_base(row.distribution, base_references(places.base_images, row.distribution))
        yield Chosen(replace(row, base=reference), how)
    title = VARIANTS[request.variant].title
    reach = "let it reach a registry that has one (llama_cpp_image_cuda_images), " if request.variant == "cuda" else ""
    raise BuildFailed(
        f"There is no toolchain to build llama.cpp for {title} with on this host ({'; '.join(reasons)}); "
        f"{reach}build on another host (llama_cpp_image_builder), or use llama_cpp_image_variant: cpu."
    )


def _problem(host: BuildHost, request: BuildRequest, places: Places, row: Toolchain) -> str:
    if row.kind == "wheels":
        return places.wheels.missing(WHEELS[request.architecture])
    if row.kind == "packages":
        return host.cuda_package_problem(row.distribution, request.architecture)
    return ""


def _make(host: BuildHost, request: BuildRequest, places: Places, chosen: Chosen, context: Path) -> Chosen:
    row = chosen.toolchain
    if row.kind == "image":
        if chosen.how == "pull" and host.stream([host.docker.executable, "pull", row.base], {}) != 0:
            raise BuildFailed(f"the pull failed: {host.why()}")
        return chosen
    if row.kind == "wheels":
        places.wheels.bring(WHEELS[request.architecture], context / WHEELS_FOLDER)
    how, reference = host.make_base(row.distribution, base_references(places.base_images, row.distribution))
    return Chosen(replace(row, base=reference), how)


def _name(row: Toolchain) -> str:
    if row.kind == "image":
        return f"toolchain {row.base}"
    return {
        "wheels": f"toolchain CUDA {row.cuda} from the package index",
        "packages": f"toolchain CUDA {row.cuda} of {row.distribution}",
    }.get(row.kind, f"toolchain of {row.distribution}")
