"""The plan says what will happen and why, or names each problem."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.llmfleet import image_need, image_plan, image_rounds, image_row
from ansible.module_utils.llmfleet.closing_report import closing_report
from ansible.module_utils.llmfleet.plan import make_plan, problems_of, table
from facts import NOW, gpu, host, nvidia
from test_image_fleet import INPUTS
from test_model_plan import shape

IMAGE = image_plan.settle(
    {
        **image_row.EMPTY,
        "action": "build",
        "variant": "cpu",
        "image": "llmfleet/llama.cpp:cpu-0",
        "why": "no registry answers",
    },
    None,
)
TINY = {"engine": "llama_server", "model": "tiny", "sha256": "", "path": "/m/tiny.gguf", "why": "it is not there"}
MODELS = [{**TINY, "action": "generate", "gguf": {"context_length": 4096}}]
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


def plan(services=(SERVICE,), engine=None, toolkit=None, image=None, now=NOW, models=MODELS, more=(), **facts):
    engine, toolkit = {**ENGINE, **(engine or {})}, {**TOOLKIT, **(toolkit or {})}
    images = {"llama_server": {**IMAGE, **(image or {})}}
    return make_plan(list(services), "gpu1", host("distro", **facts), engine, toolkit, images, models, now, *more)


def test_a_good_host_has_no_problems_and_every_row_says_why():
    made = plan()
    assert made["problems"] == []
    text = table([made])
    assert "docker 20.10.24 answers" in text
    assert "no NVIDIA GPU on the PCI bus" in text
    assert "llama_server, CPU, tiny (generate), 127.0.0.1:8080" in text
    assert re.search(r"gpu1 +model tiny +generate +it is not there", text)
    assert len({line.index("ACTION") for line in text.splitlines()[:1]}) == 1


def test_models_beside_the_first_reach_the_service_or_stop_it():
    service = {**SERVICE, "draft_model": "org/small"}
    small = {**MODELS[0], "model": "org/small", "path": "/models/small.gguf", "action": "download"}
    made = plan([service], models=[*MODELS, small])
    assert made["problems"] == []
    assert made["services"][0]["more_paths"] == {"draft_model": "/models/small.gguf"}
    made = plan([service], models=[*MODELS, {**small, "problem": "model org/small: no source answered"}])
    assert made["problems"] == ["gpu1: service chat: model org/small: no source answered"]
    assert problems_of([{**SERVICE, "draft_model": "small"}], "gpu1")[0].startswith("gpu1: service chat: model small")
    assert plan()["services"][0]["more_paths"] == {}


def with_shape(gib):
    """Return the row of a model with weights of so many GiB."""
    return [{**MODELS[0], "action": "keep", "shape": shape(gib << 30).as_data()}]


def test_the_plan_says_that_a_model_fits_and_what_the_services_after_it_have_left():
    other = {**SERVICE, "name": "other", "port": 8081}
    made = plan([SERVICE, other], models=with_shape(8), machine={"memory_bytes": 32 << 30})
    rooms = [re.search(r"fits: ([\d.]+) GiB of ([\d.]+) GiB", row["why"]).groups() for row in made["services"]]
    assert float(rooms[1][1]) == pytest.approx(float(rooms[0][1]) - float(rooms[0][0]), abs=0.2)


def test_what_does_not_fit_is_refused_with_the_change_that_would():
    (problem,) = plan(
        [{**SERVICE, "context_length": 4096, "parallel": 32}], models=with_shape(20), machine={"memory_bytes": 24 << 30}
    )["problems"]
    assert problem.startswith("gpu1: service chat: tiny does not fit: it needs ")
    assert "would fit" in problem or "are missing" in problem
    assert "preflight_memory: warn" in problem


def test_what_does_not_fit_can_be_tried_all_the_same():
    made = plan(models=with_shape(40), more=["warn"], machine={"memory_bytes": 24 << 30})
    assert made["problems"] == []
    assert any("tiny does not fit" in line for line in table([made]).splitlines() if line.startswith("warning: gpu1"))
    assert made["services"][0]["settings"] == {}


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("chat /m/tiny.gguf", False),
        ("chat /srv/secret,/m", False),
        ("chat /m/tiny.gguf.old", True),
        ("chat ", True),
        ("other /m/tiny.gguf", True),
        ("chat /m/other.gguf", True),
    ],
)
def test_a_service_that_runs_with_its_model_is_not_refused_by_a_count(line, refused):
    made = plan(models=with_shape(40), more=["refuse", [line]], machine={"memory_bytes": 24 << 30})
    assert (len(made["problems"]), len(made["services"])) == ((1, 0) if refused else (0, 1))
    assert refused or "tiny does not fit" in made["services"][0]["warning"]


def test_of_a_model_without_known_layers_nothing_is_said():
    unknown = {**shape(40 << 30).as_data(), "layers": []}
    made = plan(models=[{**MODELS[0], "action": "keep", "shape": unknown}], machine={"memory_bytes": 8 << 30})
    assert (made["problems"], made["services"][0]["settings"]) == ([], {})


def test_the_secrets_of_a_url_are_in_no_plan():
    url = "https://user:hidden@h/m.gguf?sig=hidden"
    row = {**with_shape(40)[0], "model": url}
    service = {**SERVICE, "model": url, "model_sha256": "0" * 64}
    machine = {"memory_bytes": 8 << 30}
    for rule, context in (("warn", 0), ("refuse", 0), ("warn", 1 << 30)):
        made = plan([{**service, "context_length": context}], models=[row], more=[rule], machine=machine)
        assert made["problems"] or made["services"]
        assert "hidden" not in table([made]) + str(made["problems"])
        assert "https://h/m.gguf" in table([made])


def test_what_is_left_open_is_filled_in_and_said():
    card = gpu("RTX", "8.6", index=0, memory_total_bytes=6 << 30)
    image = {"action": "keep", "variant": "cuda", "image": "x:cuda-0"}
    made = plan(
        models=with_shape(8), image=image, gpu=nvidia("580.95.05", "13.0", card), machine={"memory_bytes": 64 << 30}
    )
    assert 0 < made["services"][0]["settings"]["gpu_layers"] < 33
    assert "layers on the GPU, the others on the CPU; 1 NVIDIA GPU" in made["services"][0]["why"]


def test_a_model_that_cannot_be_had_is_a_problem_of_its_service():
    row = {**MODELS[0], "action": "missing", "problem": "model org/m: no route"}
    assert plan(models=[row])["problems"] == ["gpu1: service chat: model org/m: no route"]


def test_a_gpu_that_the_image_does_not_use_is_named():
    made = plan(gpu={"verdict": "gpu", "reason": "1 NVIDIA GPU with driver 580", "driver_version": "580.95.05"})
    assert made["services"][0]["device"] == "CPU"
    assert made["services"][0]["why"].startswith("1 NVIDIA GPU with driver 580; the image is for the CPU")


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


def test_an_image_that_cannot_be_made_is_a_problem_and_what_is_odd_about_it_a_warning():
    made = plan(image={"action": "refuse", "image": "", "problems": ["the driver is too old"], "warnings": ["hm"]})
    assert made["problems"] == ["gpu1: the driver is too old"]
    assert table([made]).splitlines()[-1] == "warning: gpu1: hm"


def test_an_unsupported_architecture_is_told_once():
    made = plan(image={"problems": ["riscv64 is not supported"]}, platform={"architecture": "riscv64"})
    assert made["problems"] == ["gpu1: riscv64 is not supported"]


def test_what_vllm_offers_stands_below_the_table():
    card = gpu("NVIDIA GeForce RTX 3090", "8.6")
    assert "vLLM image for gpu1: v0.33.0 has code for its GPUs" in table([plan(gpu=nvidia("580.95.05", "13.0", card))])
    assert "install driver" in table([plan(gpu=nvidia("470.256.02", "11.4", card))]).splitlines()[-1]
    assert "vLLM" not in table([plan()])


FLEETS = Path(__file__).resolve().parents[1] / "fixtures" / "fleets"


def plan_of(fleet, source):
    """Return the plans of an example fleet's hosts, where no registry answers."""
    rows = yaml.safe_load((FLEETS / f"{fleet}.yml").read_text())["hosts"]
    found = {
        row["host"]: host("distro", gpu={"reason": "as nvidia-smi says", "problems": [], **row["gpu"]}) for row in rows
    }
    needs = [image_need.make(facts, {**INPUTS, "source": source}, name) for name, facts in found.items()]
    silent = {"action": "build", "image": "llmfleet/llama.cpp:x", "why": "no registry answers", "build_key": "x"}
    leaders = {row["leader"] for row in image_rounds.plan(needs).values()}
    images = image_rounds.plan(needs, [[{**silent, "leader": leader} for leader in leaders]])
    return [
        make_plan([SERVICE], name, facts, ENGINE, {**TOOLKIT, "state": "present", "cdi": False}, image, MODELS, NOW)
        for name, facts in found.items()
        for image in [{"llama_server": image_plan.settle(images[name], silent)}]
    ]


@pytest.mark.parametrize("source", ["auto", "build"])
def test_a_mixed_fleet_gets_one_image_for_all_its_gpus(source):
    made = plan_of("mixed", source)
    assert [problem for one in made for problem in one["problems"]] == []
    assert {one["image"]["variant"] for one in made} == {"cuda", "cpu"}
    (line,) = [line for line in table(made).splitlines() if line.startswith("image ")]
    assert "code 61-real;86-real;90-real;120-real" in line
    assert "CUDA 12.8.1" in line
    assert "RTX 5090 (12.0) of gpu-5090 begins at CUDA 12.8" in line
    assert "driver 570.133.20 of gpu-3090" in line
    assert len([one for one in made if one["image"]["action"] == "build"]) == 2


def test_the_seeds_host_gets_an_image_for_exactly_its_gpu():
    (made,) = plan_of("seed", "auto")
    assert made["image"]["architectures"] == ["86-real"]
    assert (made["image"]["action"], made["image"]["toolkits"]) == ("build", ["11.8.0"])
    assert made["services"][0]["device"].startswith("GPU")


def test_a_refusal_names_host_cause_and_fix():
    problems = [problem for one in plan_of("refused", "build") for problem in one["problems"]]
    assert problems
    for problem in problems:
        assert "no CUDA image can be made for it" in problem
        assert "install driver" in problem or "llama_cpp_image_variant" in problem or "give the service" in problem


def test_without_services_no_image_is_asked_for():
    made = make_plan([], "gpu1", host("distro"), ENGINE, TOOLKIT, {}, [], NOW)
    assert (made["image"]["action"], made["image"]["needed"]) == ("none", False)
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


def test_a_service_with_several_models_reaches_the_plan_or_is_stopped_by_one():
    service = {"name": "desk", "models": {"a": "tiny", "b": "org/small"}, "port": 8080}
    small = {**TINY, "model": "org/small", "path": "/models/small.gguf", "action": "download"}
    made = plan([service], models=[*MODELS, small])
    assert made["problems"] == []
    assert made["services"][0]["more_paths"] == {"models/a": "/m/tiny.gguf", "models/b": "/models/small.gguf"}
    assert "a: tiny (generate); b: org/small (download)" in table([made])
    made = plan([service], models=[*MODELS, {**small, "problem": "no source has it"}])
    assert made["problems"] == ["gpu1: service desk: no source has it"]
    assert problems_of([{**service, "models": {"a": "tiny", "b": "small"}}], "gpu1")[0].startswith(
        "gpu1: service desk: model"
    )
