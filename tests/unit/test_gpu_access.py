"""The words by which docker and Compose give a container GPUs."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.gpu_access import ACCESS, PLANNED, WAYS, compose_keys, docker_words


@pytest.mark.parametrize(
    ("way", "ids", "words"),
    [
        ("nvidia", (), "--gpus all"),
        ("nvidia", ("GPU-a",), "--gpus device=GPU-a"),
        # docker's client reads the value as CSV
        ("nvidia", ("GPU-a", "GPU-b"), '--gpus "device=GPU-a,GPU-b"'),
        ("nvidia_cdi", (), "--device nvidia.com/gpu=all"),
        ("nvidia_cdi", ("GPU-a", "GPU-b"), "--device nvidia.com/gpu=GPU-a --device nvidia.com/gpu=GPU-b"),
        ("nvidia_runtime", (), "--runtime nvidia --env NVIDIA_VISIBLE_DEVICES=all"),
        ("nvidia_runtime", ("GPU-a", "GPU-b"), "--runtime nvidia --env NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b"),
        ("amd", (), "--device /dev/kfd --device /dev/dri"),
        ("amd", ("/dev/dri/renderD129",), "--device /dev/kfd --device /dev/dri/renderD129"),
        ("intel", (), "--device /dev/dri"),
        ("intel", ("/dev/dri/renderD128",), "--device /dev/dri/renderD128"),
        ("moore_threads", (), "--env MTHREADS_VISIBLE_DEVICES=all"),
        ("moore_threads", ("0", "2"), "--env MTHREADS_VISIBLE_DEVICES=0,2"),
    ],
)
def test_docker_is_told(way, ids, words):
    assert " ".join(docker_words(way, ids)) == words


def test_a_way_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'gpus' is no way to a GPU; there are nvidia, "):
        docker_words("gpus")


def test_all_that_can_be_planned_or_asked_for_is_a_way():
    assert set(PLANNED) | set(ACCESS.values()) == set(WAYS)


def devices(**request):
    return {"deploy": {"resources": {"reservations": {"devices": [{**request, "capabilities": ["gpu"]}]}}}}


@pytest.mark.parametrize(
    ("way", "ids", "keys"),
    [
        ("nvidia", (), devices(driver="nvidia", count="all")),
        ("nvidia", ("GPU-a", "GPU-b"), devices(driver="nvidia", device_ids=["GPU-a", "GPU-b"])),
        ("nvidia_cdi", (), devices(driver="cdi", device_ids=["nvidia.com/gpu=all"])),
        ("nvidia_cdi", ("a", "b"), devices(driver="cdi", device_ids=["nvidia.com/gpu=a", "nvidia.com/gpu=b"])),
        ("nvidia_runtime", ("a",), {"runtime": "nvidia", "environment": {"NVIDIA_VISIBLE_DEVICES": "a"}}),
        ("amd", (), {"devices": ["/dev/kfd:/dev/kfd", "/dev/dri:/dev/dri"]}),
        ("intel", ("/dev/dri/renderD128",), {"devices": ["/dev/dri/renderD128:/dev/dri/renderD128"]}),
        ("moore_threads", (), {"environment": {"MTHREADS_VISIBLE_DEVICES": "all"}}),
    ],
)
def test_compose_is_told_the_same(way, ids, keys):
    assert compose_keys(way, ids) == keys
