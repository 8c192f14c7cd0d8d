"""Which published image suits a host: llama.cpp's own and vLLM's. Pure.

An image suits when it has native code for every GPU of the host and the driver carries its CUDA in full: NVIDIA's base
images refuse to start on an older driver (NVIDIA_REQUIRE_CUDA), and what they compile on the spot needs it as well.
A host is a row as cuda_plan takes it.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.cuda_host import Host, carried, title_of
from ansible.module_utils.llmfleet.cuda_tables import CAPABILITIES, numbers
from ansible.module_utils.llmfleet.cuda_tables import toolkit as toolkit_row

RELEASE_OF = {"0c1e57098bba43ac29e6e3b677cdceebdd22334f": "b11206"}
"""The published release that stands in for a commit; releases name themselves."""


@dataclass(frozen=True)
class Verdict:
    """The tag to pull, "" when nothing suits, and why; ``fix`` is what would make one suit."""

    tag: str
    why: str
    fix: str = ""


@dataclass(frozen=True)
class LlamaImage:
    """A published llama.cpp image of one kind."""

    infix: str
    """What stands in the tag between contents and release."""
    architectures: tuple[str, ...] = ("amd64",)
    cuda: str = ""
    native: tuple[str, ...] = ()
    """Capabilities it has native code for; all others are compiled from PTX at the first start."""
    since: int = 0
    """First build number that is known to be made so."""


LLAMA_IMAGES = {
    "cpu": (LlamaImage("", ("amd64", "arm64")),),
    "cuda": (
        LlamaImage("-cuda", ("amd64", "arm64"), "12.8", ("8.6", "8.9", "12.0"), since=8734),
        LlamaImage("-cuda13", ("amd64", "arm64"), "13.4", ("8.6", "8.9", "12.0", "12.1"), since=11206),
    ),
    "vulkan": (LlamaImage("-vulkan", ("amd64", "arm64")),),
    "rocm": (LlamaImage("-rocm"),),
    "musa": (LlamaImage("-musa"),),
    "intel": (LlamaImage("-intel"),),
}
"""Of llama.cpp's .github/workflows/docker.yml and ggml/src/ggml-cuda/CMakeLists.txt, as of b11206. The build numbers
are those of the first release that was looked at: older ones had another CUDA (12.4, 13.1, 13.3)."""


def release_of(ref: str) -> str:
    """Return the published release of a ref ("b11206"), "" when none stands for it."""
    release = RELEASE_OF.get(ref, ref)
    return release if re.fullmatch(r"b\d+", release) else ""


def llama_cpp(variant: str, contents: str, ref: str, host: Host) -> Verdict:
    """Return the verdict on llama.cpp's published images for a variant, contents (server, light, full) and ref."""
    release = release_of(ref)
    if not release:
        return Verdict("", f"no published release stands for {ref[:12]}")
    images = [row for row in LLAMA_IMAGES.get(variant, ()) if host["architecture"] in row.architectures]
    if not images:
        return Verdict("", f"llama.cpp publishes no {variant} image for {host['architecture']}")
    if variant != "cuda":
        tag = f"{contents}{images[0].infix}-{release}"
        return Verdict(tag, f"{tag} is published")
    known = [row for row in images if int(release[1:]) >= row.since]
    if not known:
        return Verdict("", f"which GPUs the images published as {release} have native code for is not known here")
    capabilities = host["capabilities"]
    able = [row for row in known if capabilities and set(capabilities) <= set(row.native)]
    if not able:
        lacking = next((one for one in capabilities if not any(one in row.native for row in known)), None)
        what = title_of(host, lacking) if lacking in capabilities else "all of its GPUs"
        return Verdict("", f"the published images have no native code for {what}")
    fitting = next((row for row in able if carried(host) >= numbers(row.cuda)), None)
    if fitting is None:
        driver = host.get("driver") or "of unknown version"
        return Verdict("", f"the published image for its GPUs has CUDA {able[0].cuda}, too new for driver {driver}")
    tag = f"{contents}{fitting.infix}-{release}"
    return Verdict(tag, f"{tag} has native code for its GPUs, and the driver carries its CUDA {fitting.cuda}")


@dataclass(frozen=True)
class VllmImage:
    """A published vLLM image."""

    tag: str
    cuda: str
    amd64: tuple[str, ...]
    arm64: tuple[str, ...] = ()


_UP_TO_019 = ("7.0", "7.5", "8.0", "8.9", "9.0", "10.0", "12.0")
_SINCE_020 = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
VLLM_IMAGES = (
    VllmImage("v0.33.0", "13.0", _SINCE_020, ("8.0", "8.7", "8.9", "9.0", "10.0", "11.0", "12.0")),
    VllmImage("v0.32.0-cu129", "12.9", _SINCE_020, ("8.0", "8.7", "8.9", "9.0", "10.0", "12.0")),
    VllmImage("v0.19.1", "12.9", _UP_TO_019),
    VllmImage("v0.10.2", "12.8", _UP_TO_019),
    VllmImage("v0.8.5", "12.4", ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0")),
)
"""Newest first, of docker/Dockerfile and .buildkite/release-pipeline.yaml in vLLM's source releases. The older rows
are the last ones for the GPUs and drivers that newer ones have left behind."""
UNPROVEN = ("10.3", "12.1")
"""They run the code of their generation's first GPU, save what is compiled for that one only."""
INSTEAD = "serve its models with llama.cpp"


VLLM_ON_PYPI = tuple(image for image in VLLM_IMAGES if "-" not in image.tag)
"""Those made of what `pip install vllm` gives in that version; packages for another CUDA are not on PyPI."""


def vllm(host: Host, images: t.Sequence[VllmImage] = VLLM_IMAGES) -> Verdict:
    """Return the verdict on vLLM's ``images`` (vllm/vllm-openai) for a host."""
    capabilities = host["capabilities"]
    if not capabilities:
        return Verdict("", "it has no NVIDIA GPU that can be used", INSTEAD)
    for capability in capabilities:
        if capability not in CAPABILITIES:
            return Verdict("", f"it is not known what {title_of(host, capability)} runs", INSTEAD)
        if not any(_runs(image, host, capability) for image in images):
            title = title_of(host, capability)
            return Verdict("", f"no vLLM image for {host['architecture']} has code for {title}", INSTEAD)
    able = [image for image in images if all(_runs(image, host, one) for one in capabilities)]
    if not able:
        return Verdict("", "no vLLM image has code for all of its GPUs", INSTEAD)
    driver = host.get("driver") or "of unknown version"
    fitting = next((image for image in able if carried(host) >= numbers(image.cuda)), None)
    if fitting is None:
        oldest = able[-1]
        return Verdict(
            "",
            f"vLLM's images for its GPUs need CUDA {oldest.cuda} or newer, which driver {driver} does not carry",
            f"install driver {_driver(oldest)} or newer (for {oldest.tag}), or {INSTEAD}",
        )
    newer = f"driver {_driver(able[0])} or newer allows {able[0].tag}" if fitting is not able[0] else ""
    return Verdict(fitting.tag, "; ".join(_remarks(fitting, host)), newer)


def _remarks(image: VllmImage, host: Host) -> list[str]:
    driver = host.get("driver") or "of unknown version"
    said = [f"{image.tag} has code for its GPUs, and driver {driver} carries its CUDA {image.cuda}"]
    for capability in sorted(set(host["capabilities"]), key=numbers):
        title = title_of(host, capability)
        if numbers(capability) < (8, 0):
            said.append(f"{title} knows no bfloat16: give the engine --dtype half")
        elif capability in UNPROVEN:
            said.append(f"{title} runs what is compiled for its generation, which was not tried here")
    return said


def _driver(image: VllmImage) -> str:
    row = toolkit_row(image.cuda)
    return row.driver if row else ""


def _has_code(image: VllmImage, host: Host) -> bool:
    return all(_runs(image, host, capability) for capability in host["capabilities"])


def _runs(image: VllmImage, host: Host, capability: str) -> bool:
    """Whether native code of an image runs: of the GPU itself, or of an earlier one of its generation."""
    codes = image.arm64 if host["architecture"] == "arm64" else image.amd64
    if capability in codes:
        return True
    major, minor = numbers(capability)
    same = any(numbers(code)[0] == major and numbers(code)[1] <= minor for code in codes)
    return same and not CAPABILITIES[capability].jetson
