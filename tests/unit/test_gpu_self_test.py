"""The GPU self-test's verdict, from the words of the engine, the toolkit and the driver."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.gpu_self_test import FAILURES, TEST_TAGS, base_tag, judge

ONE = "GPU 0: NVIDIA GeForce RTX 3090 (UUID: GPU-5a1c7e0f-0000-1111-2222-333344445555)\n"
TWO = (
    ONE + "GPU 1: NVIDIA H100 (UUID: GPU-6b2d8f10-0000-1111-2222-333344445555)\n  MIG 1g.10gb Device 0: (UUID: MIG-1)\n"
)
DAEMON = "docker: Error response from daemon: "
SHIM = (
    DAEMON + "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create "
    "failed: unable to start container process: error during container init: error running hook #0: exit status 1, "
    "stdout: , stderr: Auto-detected mode as 'legacy'\n"
)

CASES = [
    # provoked: engine 20.10 with clients 20.10 and 28.2
    (125, f'{DAEMON}could not select device driver "" with capabilities: [[gpu]].', "engine knows no way to GPUs"),
    (125, f'{DAEMON}could not select device driver "cdi" with capabilities: []', "engine does not use CDI"),
    (125, "docker: nvidia.com/gpu=all is not an absolute path.", "engine does not use CDI"),
    (125, f"{DAEMON}Unknown runtime specified nvidia.", "does not know the runtime nvidia"),
    (127, f'{DAEMON}OCI runtime create failed: exec: "nvidia-smi": executable file not found', "has no nvidia-smi"),
    (1, 'Error response from daemon: Get "http://127.0.0.1:9/v2/": connect: connection refused', "cannot be reached"),
    (1, 'Error response from daemon: Get "https://x.invalid/v2/": dial tcp: no such host', "cannot be reached"),
    # recorded
    (125, f"{DAEMON}unknown or invalid runtime name: nvidia", "does not know the runtime nvidia"),
    (125, f"{DAEMON}failed to discover GPU vendor from CDI: no known GPU vendor found", "knows no way to GPUs"),
    (
        125,
        f'{DAEMON}error gathering device information while adding custom device "nvidia.com/gpu=all": no such file',
        "engine does not use CDI",
    ),
    (125, f"{DAEMON}CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all", "no CDI file names"),
    (
        125,
        f"{SHIM}nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver",
        "driver is too old for the test image, which asks for cuda>=13.0",
    ),
    (
        125,
        f"{SHIM}nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open shared "
        "object file: no such file or directory: unknown",
        "no NVIDIA driver libraries",
    ),
    (125, f"{SHIM}nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown", "is not loaded"),
    (
        125,
        f"{SHIM}nvidia-container-cli: mount error: file creation failed: unknown",
        "cannot set up the GPU: mount error",
    ),
    (18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54", "was upgraded"),
    (255, "Failed to initialize NVML: Unknown Error", "lost access to the GPU devices"),
    (255, "Failed to initialize NVML: Insufficient Permissions", "SELinux"),
    (6, "No devices were found", "lists no GPU"),
    (
        1,
        "Error response from daemon: manifest for nvidia/cuda:99 not found: manifest unknown",
        "does not have the test",
    ),
    (1, "write /var/lib/docker/tmp/x: no space left on device", "no room"),
    (1, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "does not answer"),
]


@pytest.mark.parametrize(("rc", "words", "expected"), CASES)
def test_each_failure_is_explained(rc, words, expected):
    verdict = judge(rc, "", words, 1)
    assert not verdict["passed"]
    assert expected in verdict["message"]
    assert verdict["message"].startswith("the GPU self-test failed: ")
    assert "\n" not in verdict["message"]


def test_every_row_is_tried():
    said = [judge(rc, "", words)["message"] for rc, words, _ in CASES]
    untried = [row.cause for row in FAILURES if not any(row.cause.split("{")[0] in message for message in said)]
    assert untried == []


def test_what_the_container_sees_is_told():
    verdict = judge(0, TWO, "", 2)
    assert verdict["passed"]
    assert verdict["seen"] == ["NVIDIA GeForce RTX 3090", "NVIDIA H100"]


def test_words_of_the_driver_on_stdout_count_as_well():
    assert "lists no GPU" in judge(0, "No devices were found\n", "", 1)["message"]


def test_a_container_that_sees_fewer_gpus_than_the_host_has_fails():
    assert "sees 1 of the host's 2 GPUs" in judge(0, ONE, "", 2)["message"]
    assert judge(0, ONE, "")["passed"]


@pytest.mark.parametrize(
    ("rc", "err", "expected"),
    [(124, "", "did not end in time"), (3, "", "status 3;"), (3, "first\nlast words", "status 3 (last words)")],
)
def test_what_is_not_known_is_quoted(rc, err, expected):
    assert expected in judge(rc, "", err)["message"]


@pytest.mark.parametrize(
    ("driver", "tag"),
    [
        ("610.43.02", "13.0.3-base-ubuntu24.04"),
        ("580.65.06", "13.0.3-base-ubuntu24.04"),
        ("579.99", "12.9.1-base-ubuntu22.04"),
        ("570.86.10", "12.8.1-base-ubuntu24.04"),
        ("570.86.9", "12.4.1-base-ubuntu22.04"),
        ("535.183.01", "11.8.0-base-ubuntu22.04"),
        ("470.256.02", "11.4.3-base-ubuntu20.04"),
        ("418.67", ""),
        (None, "11.4.3-base-ubuntu20.04"),
    ],
)
def test_the_image_asks_for_no_more_than_the_driver_has(driver, tag):
    assert base_tag(driver) == tag


def test_newest_first():
    drivers = [driver for driver, _ in TEST_TAGS]
    assert drivers == sorted(drivers, reverse=True)
