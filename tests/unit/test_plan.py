"""The plan says what will happen and why, or names each problem."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.closing_report import closing_report
from ansible.module_utils.llmfleet.plan import make_plan, problems_of, table

DEBIAN = {"os_family": "Debian", "distribution": "Debian", "distribution_version": "12", "architecture": "x86_64"}
SUSE = {**DEBIAN, "os_family": "suse", "distribution": "openSUSE", "distribution_version": "15"}
FACTS = {
    "platform": DEBIAN,
    "docker": {"reachable": True, "problem": "", "server_version": "20.10.24", "error": ""},
    "gpu": {"verdict": "none", "reason": "no NVIDIA GPU on the PCI bus"},
}
DOWN = {"reachable": False, "problem": "nothing_there", "error": "no docker client", "server_version": None}
IMAGE = {"action": "build", "image": "llmfleet/llama.cpp:cpu-0", "why": "no registry answers"}
MODELS = {"tiny": {"action": "generate", "path": "/m/tiny.gguf", "gguf": {"context_length": 4096}}}
SERVICE = {"name": "chat", "model": "tiny", "port": 8080}


def plan(services=(SERVICE,), source="auto", **facts):
    return make_plan(list(services), "gpu1", {**FACTS, **facts}, source, IMAGE, MODELS)


def test_a_good_host_has_no_problems_and_every_row_says_why():
    made = plan()
    assert made["problems"] == []
    assert made["engine"] == {"action": "keep", "why": "docker 20.10.24 answers"}
    text = table([made])
    assert "no NVIDIA GPU on the PCI bus" in text
    assert "llama_server, CPU, tiny (generate), 127.0.0.1:8080" in text
    assert len({line.index("ACTION") for line in text.splitlines()[:1]}) == 1


def test_a_gpu_that_is_not_used_yet_is_named():
    made = plan(gpu={"verdict": "gpu", "reason": "1 NVIDIA GPU with driver 580"})
    assert made["services"][0]["device"] == "CPU"
    assert made["services"][0]["why"].startswith("1 NVIDIA GPU with driver 580; images for GPUs are not there yet")


def test_a_host_without_services_says_so():
    assert "llm_services is empty or not set" in table([plan([])])


@pytest.mark.parametrize(
    ("docker", "source", "action"),
    [
        (DOWN, "auto", "install"),
        (DOWN, "distro", "install"),
        ({**DOWN, "problem": "not_running"}, "auto", "start"),
    ],
)
def test_an_engine_is_installed_or_started_only_when_none_answers(docker, source, action):
    assert plan(source=source, docker=docker)["engine"]["action"] == action


@pytest.mark.parametrize(
    ("facts", "source", "services", "words"),
    [
        ({}, "mirror", [SERVICE], "`mirror` (Docker CE from a mirror) is not available"),
        ({"docker": {**DOWN, "problem": "no_permission", "error": "not allowed"}}, "auto", [SERVICE], "not allowed"),
        ({"docker": DOWN}, "existing", [SERVICE], "docker_engine_source is `existing`"),
        (
            {"docker": DOWN, "platform": SUSE},
            "auto",
            [SERVICE],
            "openSUSE 15",
        ),
        (
            {"platform": {**DEBIAN, "architecture": "riscv64"}},
            "auto",
            [SERVICE],
            "architecture riscv64 is not supported",
        ),
        ({}, "auto", [{**SERVICE, "context_length": 8192}], "`context_length` 8192 is more than the 4096 tokens"),
        ({}, "auto", [SERVICE, SERVICE], "`name` is used twice"),
    ],
)
def test_what_cannot_work_is_named(facts, source, services, words):
    made = plan(services, source, **facts)
    assert len(made["problems"]) == 1
    assert words in made["problems"][0]
    assert "gpu1" in made["problems"][0]


def test_the_inventory_alone_already_tells_problems():
    assert problems_of([SERVICE], "gpu1") == []
    assert problems_of([{**SERVICE, "port": 0}], "gpu1") == ["gpu1: service chat: `port` is missing"]


def test_the_report_shows_the_reply_and_how_to_call():
    result = {
        "action": "create",
        "why": "there is no such container yet",
        "service": {**SERVICE, "has_api_key": True, "prompt": "Say hello."},
        "urls": {"host": "http://127.0.0.1:8080/v1", "lan": None},
        "verification": {
            "levels": {"http": 0.1, "token": 0.2},
            "reply": "Hello!",
            "first_token_seconds": 0.05,
            "tokens_per_second": 99.0,
        },
    }
    text = closing_report([result, {"service": {"name": "old"}, "action": "remove", "why": "state is absent"}], "gpu1")
    for expected in ("Hello!", "99.0 tokens/s", "first token after 0.050 s", "http 0.10 s, token 0.20 s", "$API_KEY"):
        assert expected in text
    assert "service old: remove (state is absent)" in text
    assert "not published" in text
