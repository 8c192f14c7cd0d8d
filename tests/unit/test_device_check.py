"""The running container is asked for its GPUs, and its log for the time of its start."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet import device_check
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.engines.base import DeviceError
from ansible.module_utils.llmfleet.timed_run import Answer
from ansible.module_utils.llmfleet.verify import NotYetError
from test_llama_offload import LISTED, NONE, ON_CPU, ON_GPU

STARTED = "2026-11-21T15:00:00.123456789Z"
EPOCH = 1_795_273_200
CONTAINER = {
    "Id": "c0ffee",
    "Path": "/app/llama-server",
    "Args": ["--model", "/models/m.gguf"],
    "State": {"StartedAt": STARTED},
    "Config": {"Labels": None},
}


@pytest.fixture
def ask(monkeypatch):
    """Return a function that checks a container of some age; its ``asked`` holds every command."""

    def check(log=ON_GPU, listing=LISTED, age=5, container=CONTAINER, layers=999):
        def docker(argv, **_):
            check.asked.append(argv)
            return 0, log, ""

        def timed(argv, seconds):
            assert 0 < seconds <= 60
            check.asked.append(argv)
            return listing

        monkeypatch.setattr(device_check.time, "time", lambda: EPOCH + age)
        return device_check.check_device(Docker(docker), container, layers, llama_server, timed)

    check.asked = []
    return check


def test_a_new_container_is_asked_for_its_devices_and_its_log(ask):
    assert ask() == "3/3 layers on CUDA0 (NVIDIA H200)"
    assert ask.asked == [
        ["docker", "logs", "--since", STARTED, "--until", str(EPOCH + 600), "c0ffee"],
        ["docker", "exec", "c0ffee", "/app/llama-server", "--list-devices"],
    ]


def test_one_that_has_served_for_a_while_is_not_disturbed(ask):
    assert ask(age=601) == "3/3 layers on CUDA0 (NVIDIA H200)"
    assert [argv[1] for argv in ask.asked] == ["logs"]


def test_it_is_when_its_log_is_no_longer_whole(ask):
    assert "the log of its start is gone" in ask(log="all slots are idle", age=9999)
    assert [argv[1] for argv in ask.asked] == ["logs", "exec"]


def test_the_image_s_label_tells_what_it_was_built_for(ask):
    container = {**CONTAINER, "Config": {"Labels": {"io.llmfleet.variant": "cpu"}}}
    with pytest.raises(DeviceError, match="built for the CPU"):
        ask(ON_CPU, NONE, container=container)


def test_a_small_init_in_front_of_the_server_is_stepped_over(ask):
    ask(container={**CONTAINER, "Path": "/usr/bin/tini", "Args": ["--", "/app/llama-server", "--model", "m"]})
    assert ask.asked[1][3] == "/app/llama-server"


@pytest.mark.parametrize(
    "said",
    [
        "Error response from daemon: Container c0ffee is not running",
        "Error response from daemon: Container c0ffee is restarting, wait until the container is running",
        "Error: No such container: c0ffee",
    ],
)
def test_a_container_that_ended_meanwhile_is_left_to_the_watch(ask, said):
    with pytest.raises(NotYetError):
        ask(listing=Answer(1, "", said))


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ({"argv": ["--n-gpu-layers", "999"], "gpus": "nvidia"}, 999),
        ({"argv": ["--device", "none"], "gpus": "nvidia"}, None),
        ({"argv": []}, None),
        # free arguments of a service on the CPU of the time before gpu_layers
        ({"argv": ["--n-gpu-layers", "all"]}, None),
    ],
)
def test_what_was_planned_stands_in_the_specification(spec, layers):
    assert device_check.planned(spec, llama_server) == layers
