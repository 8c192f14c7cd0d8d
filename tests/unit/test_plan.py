"""The plan says what will happen and why, or names each problem."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.closing_report import closing_report
from ansible.module_utils.llmfleet.plan import make_plan, problems_of, table
from facts import NOW, host

IMAGE = {"action": "build", "image": "llmfleet/llama.cpp:cpu-0", "why": "no registry answers"}
MODELS = {"tiny": {"action": "generate", "path": "/m/tiny.gguf", "gguf": {"context_length": 4096}}}
SERVICE = {"name": "chat", "model": "tiny", "port": 8080}


ENGINE = {
    "action": "keep",
    "why": "docker 20.10.24 answers",
    "daemon": {"action": "none", "changes": [], "why": ""},
    "restarts": False,
    "warnings": [],
    "problems": [],
}
TOOLKIT = {"action": "skip", "version": "", "why": "no NVIDIA GPU", "warnings": [], "problems": []}


def plan(services=(SERVICE,), engine=None, toolkit=None, now=NOW, **facts):
    engine, toolkit = {**ENGINE, **(engine or {})}, {**TOOLKIT, **(toolkit or {})}
    return make_plan(list(services), "gpu1", host("distro", **facts), engine, toolkit, IMAGE, MODELS, now)


def test_a_good_host_has_no_problems_and_every_row_says_why():
    made = plan()
    assert made["problems"] == []
    text = table([made])
    assert "docker 20.10.24 answers" in text
    assert "no NVIDIA GPU on the PCI bus" in text
    assert "llama_server, CPU, tiny (generate), 127.0.0.1:8080" in text
    assert len({line.index("ACTION") for line in text.splitlines()[:1]}) == 1


def test_a_gpu_that_is_not_used_yet_is_named():
    made = plan(gpu={"verdict": "gpu", "reason": "1 NVIDIA GPU with driver 580", "driver_version": "580.95.05"})
    assert made["services"][0]["device"] == "CPU"
    assert made["services"][0]["why"].startswith("1 NVIDIA GPU with driver 580; images for GPUs are not there yet")


def test_a_host_without_services_says_so():
    assert "llm_services is empty or not set" in table([plan([])])


def test_each_stage_has_its_row_and_warnings_stand_below_the_table():
    daemon = {"action": "reload", "changes": ["registry-mirrors"], "why": "a reload applies registry-mirrors"}
    made = plan(
        engine={"daemon": daemon, "warnings": ["a restart stops 2 containers"]},
        toolkit={"action": "install", "version": "1.20.0-1", "why": "1 GPU"},
    )
    lines = table([made]).splitlines()
    assert any("docker engine" in line and "daemon.json: a reload applies registry-mirrors" in line for line in lines)
    assert any("nvidia toolkit" in line and "1.20.0-1" in line for line in lines)
    assert lines[-1] == "warning: gpu1: a restart stops 2 containers"


def test_without_services_no_image_is_asked_for():
    made = make_plan([], "gpu1", host("distro"), ENGINE, TOOLKIT, {}, {}, NOW)
    assert made["image"]["action"] == "keep"
    assert "llama.cpp image" not in table([made])


@pytest.mark.parametrize(
    ("facts", "services", "words"),
    [
        ({"engine": {"problems": ["docker_engine_source is `existing`"]}}, [SERVICE], "docker_engine_source is"),
        ({"toolkit": {"problems": ["the driver is too old"]}}, [SERVICE], "the driver is too old"),
        ({"now": NOW + 100_000}, [SERVICE], "clock"),
        (
            {"platform": {"architecture": "riscv64"}},
            [SERVICE],
            "architecture riscv64 is not supported",
        ),
        ({}, [{**SERVICE, "context_length": 8192}], "`context_length` 8192 is more than the 4096 tokens"),
        ({}, [SERVICE, SERVICE], "`name` is used twice"),
    ],
)
def test_what_cannot_work_is_named(facts, services, words):
    made = plan(services, **facts)
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


def test_on_wsl_the_report_says_whose_address_it_prints():
    result = {
        "action": "keep",
        "why": "it runs",
        "service": {**SERVICE, "has_api_key": True},
        "urls": {"host": "http://127.0.0.1:8080/v1", "lan": "http://172.20.1.2:8080/v1"},
        "verification": {"levels": {"http": 0.1}},
    }
    assert "WSL virtual machine" in closing_report([result], "gpu1", wsl=True)
    assert "forwards port 8080" in closing_report([result], "gpu1", wsl=True)
    assert "WSL" not in closing_report([result], "gpu1")
    assert plan(platform={"wsl": True})["wsl"] is True
