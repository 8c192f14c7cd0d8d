"""Which published image suits a host: llama.cpp's and vLLM's."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.cuda_tables import CAPABILITIES, TOOLKITS, numbers
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF
from ansible.module_utils.llmfleet.published_images import (
    LLAMA_IMAGES,
    RELEASE_OF,
    VLLM_IMAGES,
    llama_cpp,
    release_of,
    vllm,
)
from cuda_hosts import fleet, host
from hypothesis import given, settings
from hypothesis import strategies as st

COMMIT, RELEASE = next(iter(RELEASE_OF.items()))
ARM = {"architecture": "arm64"}
NEWEST = {"driver": "615.10", "cuda": "13.4"}


def test_the_default_commit_has_a_release():
    assert release_of(DEFAULT_REF)


@pytest.mark.parametrize(("ref", "release"), [(COMMIT, RELEASE), ("b12000", "b12000"), ("main", ""), (COMMIT[:9], "")])
def test_release_of(ref, release):
    assert release_of(ref) == release


@pytest.mark.parametrize(
    ("variant", "contents", "ref", "row", "tag"),
    [
        ("cpu", "server", COMMIT, host(), "server-b11206"),
        ("cpu", "light", "b9000", host(**ARM), "light-b9000"),
        ("vulkan", "full", COMMIT, host(**ARM), "full-vulkan-b11206"),
        ("rocm", "server", COMMIT, host(), "server-rocm-b11206"),
        ("musa", "server", COMMIT, host(), "server-musa-b11206"),
        ("intel", "server", COMMIT, host(), "server-intel-b11206"),
        ("cuda", "server", COMMIT, host("8.6"), "server-cuda-b11206"),
        ("cuda", "full", COMMIT, host("8.6", "8.9", "12.0"), "full-cuda-b11206"),
        ("cuda", "server", COMMIT, host("8.9", **ARM), "server-cuda-b11206"),
        ("cuda", "server", COMMIT, host("8.6", driver="570.86.10", cuda=None), "server-cuda-b11206"),
        ("cuda", "server", "b10000", host("8.6", **NEWEST), "server-cuda-b10000"),
        ("cuda", "server", COMMIT, host("12.1", **ARM, **NEWEST), "server-cuda13-b11206"),
        ("cuda", "server", COMMIT, host("8.6", "12.1", **ARM, **NEWEST), "server-cuda13-b11206"),
    ],
)
def test_published(variant, contents, ref, row, tag):
    verdict = llama_cpp(variant, contents, ref, row)
    assert verdict.tag == tag
    assert tag in verdict.why


@pytest.mark.parametrize(
    ("variant", "ref", "row", "why"),
    [
        ("cpu", "main", host(), "no published release stands for main"),
        ("cpu", "0" * 40, host(), "no published release stands for 000000000000"),
        ("rocm", COMMIT, host(**ARM), "llama.cpp publishes no rocm image for arm64"),
        ("abacus", COMMIT, host(), "llama.cpp publishes no abacus image for amd64"),
        ("cuda", COMMIT, host("9.0"), "the published images have no native code for H100 80GB HBM3 (9.0)"),
        ("cuda", COMMIT, host("8.6", "6.1"), "the published images have no native code for P40 (6.1)"),
        ("cuda", COMMIT, host(None), "the published images have no native code for Graphics Device"),
        ("cuda", COMMIT, host(), "the published images have no native code for all of its GPUs"),
        (
            "cuda",
            COMMIT,
            host("8.6", driver=None, cuda=None),
            "the published image for its GPUs has CUDA 12.8, too new for driver of unknown version",
        ),
        (
            "cuda",
            COMMIT,
            host("8.6", driver="535.183.01", cuda="12.2"),
            "the published image for its GPUs has CUDA 12.8, too new for driver 535.183.01",
        ),
        (
            "cuda",
            COMMIT,
            host("12.1", **ARM),
            "the published image for its GPUs has CUDA 13.4, too new for driver 580.95.05",
        ),
        (
            "cuda",
            "b6000",
            host("8.6"),
            "which GPUs the images published as b6000 have native code for is not known here",
        ),
    ],
)
def test_not_published(variant, ref, row, why):
    verdict = llama_cpp(variant, "server", ref, row)
    assert (verdict.tag, verdict.why) == ("", why)


def test_the_verdict_on_the_mixed_fleet():
    """An RTX 3090 and an RTX 5090 are pulled for; the P40 and the H100 would compile at their first start."""
    tags = {row["host"]: llama_cpp("cuda", "server", COMMIT, row).tag for row in fleet("mixed")}
    assert tags == {
        "gpu-3090": "server-cuda-b11206",
        "gpu-5090": "server-cuda-b11206",
        "gpu-p40": "",
        "gpu-h100": "",
    }


@pytest.mark.parametrize(
    ("row", "tag", "fix"),
    [
        (host("8.6"), "v0.33.0", ""),
        (host("8.6", driver="575.57.08", cuda="12.9"), "v0.32.0-cu129", "driver 580.65.06 or newer allows v0.33.0"),
        (host("8.6", driver="570.86.10", cuda=None), "v0.10.2", "driver 580.65.06 or newer allows v0.33.0"),
        (host("8.6", driver="550.54.14", cuda="12.4"), "v0.8.5", "driver 580.65.06 or newer allows v0.33.0"),
        (host("7.0"), "v0.19.1", ""),
        (host("7.0", driver="570.86.10", cuda="12.8"), "v0.10.2", "driver 575.51.03 or newer allows v0.19.1"),
        (host("7.5"), "v0.33.0", ""),
        (host("7.0", "8.6"), "v0.19.1", ""),
        (host("9.0", **ARM), "v0.33.0", ""),
        (
            host("9.0", driver="575.57.08", cuda="12.9", **ARM),
            "v0.32.0-cu129",
            "driver 580.65.06 or newer allows v0.33.0",
        ),
        (host("12.1", **ARM), "v0.33.0", ""),
        (host("11.0", **ARM, driver="580.00"), "v0.33.0", ""),
        (host("8.7", **ARM, driver="595.1", cuda="13.2"), "v0.33.0", ""),
        (host("10.3"), "v0.33.0", ""),
    ],
)
def test_vllm(row, tag, fix):
    verdict = vllm(row)
    assert (verdict.tag, verdict.fix) == (tag, fix)
    assert f"{tag} has code for its GPUs, and driver {row['driver']} carries its CUDA" in verdict.why


@pytest.mark.parametrize(
    ("row", "remark"),
    [
        (host("7.5"), "T4 (7.5) knows no bfloat16: give the engine --dtype half"),
        (host("8.6", "7.0"), "V100-SXM2-32GB (7.0) knows no bfloat16: give the engine --dtype half"),
        (host("12.1", **ARM), "GB10 (12.1) runs what is compiled for its generation, which was not tried here"),
    ],
)
def test_vllm_with_a_remark(row, remark):
    assert vllm(row).why.endswith(f"; {remark}")


@pytest.mark.parametrize(
    ("row", "why", "fix"),
    [
        (host("6.1"), "no vLLM image for amd64 has code for P40 (6.1)", "serve its models with llama.cpp"),
        (host("8.6", "6.1"), "no vLLM image for amd64 has code for P40 (6.1)", "serve its models with llama.cpp"),
        (host("7.5", **ARM), "no vLLM image for arm64 has code for T4 (7.5)", "serve its models with llama.cpp"),
        (host("11.0"), "no vLLM image for amd64 has code for Thor (11.0)", "serve its models with llama.cpp"),
        # Jetson modules do not run the code of GPUs for servers
        (host("8.7"), "no vLLM image for amd64 has code for Orin (nvgpu) (8.7)", "serve its models with llama.cpp"),
        (host(None), "it is not known what Graphics Device runs", "serve its models with llama.cpp"),
        (host(), "it has no NVIDIA GPU that can be used", "serve its models with llama.cpp"),
        (
            host("8.6", driver="535.183.01", cuda="12.2"),
            "vLLM's images for its GPUs need CUDA 12.4 or newer, which driver 535.183.01 does not carry",
            "install driver 550.54.14 or newer (for v0.8.5), or serve its models with llama.cpp",
        ),
        (
            host("12.0", driver=None, cuda=None),
            "vLLM's images for its GPUs need CUDA 12.8 or newer, which driver of unknown version does not carry",
            "install driver 570.86.10 or newer (for v0.10.2), or serve its models with llama.cpp",
        ),
    ],
)
def test_no_vllm(row, why, fix):
    verdict = vllm(row)
    assert (verdict.tag, verdict.why, verdict.fix) == ("", why, fix)


def test_images_are_listed_newest_first():
    order = [numbers(image.tag.split("-")[0]) for image in VLLM_IMAGES]
    assert order == sorted(order, reverse=True)
    assert [numbers(image.cuda) for image in VLLM_IMAGES] == sorted(
        (numbers(image.cuda) for image in VLLM_IMAGES), reverse=True
    )


def test_images_name_known_toolkits_and_gpus():
    named = {row.name for row in TOOLKITS}
    for image in VLLM_IMAGES:
        assert image.cuda in named
        assert {*image.amd64, *image.arm64} <= set(CAPABILITIES)
    for images in LLAMA_IMAGES.values():
        for image in images:
            assert image.cuda in {*named, ""}
            assert set(image.native) <= set(CAPABILITIES)


GPUS = st.lists(st.sampled_from(sorted(CAPABILITIES)), min_size=1, max_size=3)
LEVELS = st.sampled_from(["11.8", "12.2", "12.4", "12.8", "12.9", "13.0", "13.2", "13.4", "13.9"])


@settings(deadline=None)
@given(GPUS, LEVELS, st.sampled_from(["amd64", "arm64"]))
def test_no_image_is_named_that_a_gpu_or_the_driver_cannot_run(capabilities, cuda, architecture):
    row = host(*capabilities, cuda=cuda, architecture=architecture)
    tag = llama_cpp("cuda", "server", COMMIT, row).tag
    if tag:
        (image,) = [image for image in LLAMA_IMAGES["cuda"] if tag == f"server{image.infix}-{RELEASE}"]
        assert set(capabilities) <= set(image.native)
        assert numbers(cuda) >= numbers(image.cuda)
    tag = vllm(row).tag
    if tag:
        (image,) = [image for image in VLLM_IMAGES if image.tag == tag]
        codes = image.arm64 if architecture == "arm64" else image.amd64
        for capability in capabilities:
            majors = [code for code in codes if code.split(".")[0] == capability.split(".")[0]]
            assert capability in codes or (majors and not CAPABILITIES[capability].jetson)
        assert numbers(cuda) >= numbers(image.cuda)
