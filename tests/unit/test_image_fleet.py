"""Who keeps, makes, sends and receives which llama.cpp image, from the facts of a fleet."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet import cuda_plan, image_fleet, image_need, image_plan, image_rounds, image_row
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF
from ansible.module_utils.llmfleet.image_source import DEFAULT_SOURCES
from facts import gpu, host, nvidia
from hypothesis import given, settings
from hypothesis import strategies as st

INPUTS = {
    "source": "auto",
    "variant": "auto",
    "contents": "server",
    "ref": DEFAULT_REF,
    "ref_why": "",
    "sources": list(DEFAULT_SOURCES),
    "cmake_flags": [],
    "cpu_level": "auto",
    "base": "",
    "ptx": False,
    "cuda_toolkit": "",
    "registries": ["ghcr.io", "ghcr.nju.edu.cn"],
    "repository": "ggml-org/llama.cpp",
    "tag": "",
    "digest": "",
    "builder": "auto",
    "builder_known": True,
    "controller": "",
    "fa_all_quants": False,
    "toolkit": {},
}
CARDS = {
    "3090": gpu("NVIDIA GeForce RTX 3090", "8.6"),
    "4090": gpu("NVIDIA GeForce RTX 4090", "8.9"),
    "5090": gpu("NVIDIA GeForce RTX 5090", "12.0"),
    "p40": gpu("Tesla P40", "6.1"),
    "h100": gpu("NVIDIA H100 80GB HBM3", "9.0"),
    "gb10": gpu("NVIDIA GB10", "12.1"),
}
GIB = 1024**3


def need(name, *cards, driver="580.95.05", cuda="13.0", wanted="any", cpus=8, level="x86-64-v3", images=(), **inputs):
    """Return the need of a host with these cards and images."""
    parts = {"machine": {"cpus": cpus, "cpu_level": level}, "images": list(images)}
    free = inputs.pop("free", 200 * GIB)
    parts["machine"]["built_at"] = inputs.pop("built_at", None)
    if cards:
        parts["gpu"] = nvidia(driver, cuda, *(CARDS[card] for card in cards))
    if inputs.pop("arm", False):
        parts["platform"] = {"architecture": "aarch64"}
        parts["machine"]["cpu_level"] = "armv8.2-a"
    facts = host("distro", docker={"disk_free_bytes": free}, **parts)
    return image_fleet.need(facts, {**INPUTS, **inputs}, name, wanted)


def built(like, code="", toolkit="", level="x86-64-v3", identity="sha256:1", **labels):
    """Return an image as host_info tells it, made from what the need ``like`` asks for."""
    own = {"recipe": like["recipe"], "variant": like["variant"], "contents": like["contents"], "cpu-level": level}
    own.update({"architectures": code, "cuda": toolkit, **labels})
    return {
        "references": [f"llmfleet/llama.cpp:{like['variant']}-{identity[7:]}"],
        "id": identity,
        "size_bytes": 1,
        "created": "2026",
        "labels": {f"io.llmfleet.{name}": value for name, value in own.items()},
        "layers": [],
    }


def pulled(tag="server-b11206", registry="ghcr.nju.edu.cn"):
    return {
        "references": [f"{registry}/ggml-org/llama.cpp:{tag}"],
        "id": "sha256:9",
        "size_bytes": 1,
        "created": "2026",
        "labels": {},
        "layers": [],
    }


def actions(rows):
    return {name: row["action"] for name, row in rows.items()}


def test_the_seeds_case_is_one_image_with_exactly_8_6():
    rows = image_rounds.plan([need("gpu", "3090", driver="520.61.05", cuda="11.8")])
    assert rows["gpu"]["action"] == "provide"
    assert rows["gpu"]["architectures"] == ["86-real"]
    assert rows["gpu"]["toolkits"] == ["11.8.0"]
    assert "520.61.05" in rows["gpu"]["published_why"]


def test_a_host_that_depends_on_no_other_is_settled_alone():
    like = need("h1", "3090")
    alone = [need("h1", "3090", images=[built(like, "86-real", "13.0.2")]), need("h2", wanted="none")]
    assert {one["host"]: one["settled"] for one in alone} == image_rounds.plan(alone)
    assert actions(image_rounds.plan(alone)) == {"h1": "keep", "h2": "none"}
    assert like["settled"] == {}
    refused = need("h3", level="x86-64-v2", cpu_level="x86-64-v4")
    assert refused["settled"]["action"] == "refuse"


def test_what_was_made_for_others_restarts_nobody():
    like = need("h1", "3090")
    first = built(like, "86-real", "13.0.2", identity="sha256:1")
    for_others = built(like, "86-real", "12.4.1", identity="sha256:2")
    # as host_info has them, newest first
    row = image_rounds.plan([need("h1", "3090", images=[for_others, first])])["h1"]
    assert (row["action"], row["image"]) == ("keep", "llmfleet/llama.cpp:cuda-1")


def test_an_image_that_is_only_pulled_needs_no_toolkit_for_its_gpus():
    one = {**need("k80", "3090", source="pull", tag="server-cuda-mine"), "capabilities": ["3.7"]}
    row = image_rounds.plan([one])["k80"]
    assert (row["action"], row["tag"], row["problems"]) == ("provide", "server-cuda-mine", [])


def test_a_mixed_fleet():
    """One toolkit serves P40 and RTX 5090 together; the host without a GPU has an image of its own kind."""
    fleet = [
        need("gpu-3090", "3090", source="build"),
        need("gpu-5090", "5090", source="build", cpus=64),
        need("gpu-h100", "h100", source="build", cpus=32),
        need("gpu-p40", "p40", source="build"),
        need("cpu", source="build"),
    ]
    rows = image_rounds.plan(fleet)
    group = [rows[name] for name in ("gpu-3090", "gpu-5090", "gpu-h100", "gpu-p40")]
    assert all(row["architectures"] == ["61-real", "86-real", "90-real", "120-real"] for row in group)
    assert all(row["toolkits"] == ["12.9.1", "12.8.1"] for row in group)
    assert all(row["builder"] == row["leader"] == "gpu-5090" for row in group)
    assert rows["gpu-5090"]["receivers"] == ["gpu-3090", "gpu-h100", "gpu-p40"]
    assert actions(rows) == {
        "gpu-3090": "receive",
        "gpu-5090": "provide",
        "gpu-h100": "receive",
        "gpu-p40": "receive",
        "cpu": "provide",
    }
    assert rows["cpu"]["architectures"] == []
    assert "P40" in rows["gpu-p40"]["coverage"]
    assert "5090" in rows["gpu-p40"]["coverage"]


def test_the_published_image_is_pulled_once_where_it_has_native_code_for_every_gpu():
    rows = image_rounds.plan(
        [need("a", "3090"), need("b", "4090", "5090"), need("c", "p40"), need("d", "3090", "h100")]
    )
    assert [rows[name]["tag"] for name in "abcd"] == ["server-cuda-b11206", "server-cuda-b11206", "", ""]
    assert rows["a"]["members"] == ["a", "b"]
    assert rows["c"]["members"] == ["c", "d"]
    assert "P40 (6.1)" in rows["c"]["published_why"]
    assert "H100" in rows["d"]["published_why"]


def test_when_no_registry_answers_those_that_would_pull_build_with_the_others():
    fleet = [need("a", "3090"), need("b", "p40"), need("cpu")]
    first = image_rounds.plan(fleet)
    assert [first[name]["leader"] for name in ("a", "b", "cpu")] == ["a", "b", "cpu"]
    silent = {"action": "build", "why": "no registry of the published image answers", "image": "x"}
    rows = image_rounds.plan(fleet, [[{**silent, "leader": name} for name in ("a", "b", "cpu")]])
    assert rows["a"]["members"] == rows["b"]["members"] == ["a", "b"]
    assert rows["a"]["architectures"] == ["61-real", "86-real"]
    assert (rows["a"]["answer"], rows["a"]["why"]) == ({}, silent["why"])
    # alone before and after: what was said of it holds
    assert rows["cpu"]["answer"]["why"] == silent["why"]
    assert rows["cpu"]["tag"] == ""


def answers_to(rows, can):
    """Return what the builders say where no registry answers; ``can``: the toolkits that can be had."""
    said = []
    for leader in dict.fromkeys(row["leader"] for row in rows.values()):
        row = rows.get(leader)
        if row and not row["answer"]:
            able = row["variant"] != "cuda" or set(row["toolkits"]) & set(can)
            answer = {"action": "build", "image": f"image of {leader}", "why": "no registry answers"}
            said.append({"leader": leader, **(answer if able else {"msg": "There is no toolchain."})})
    return said


def rounds_of(fleet, can):
    """Return the plan after all rounds of questions."""
    rounds: list[list[dict]] = []
    for _ in range(3):
        rows = image_rounds.plan(fleet, rounds)
        rounds.append(answers_to(rows, can))
    return image_rounds.plan(fleet, rounds)


def mixed():
    return [
        need("a-3090", "3090", driver="570.133.20", cuda="12.8"),
        need("b-5090", "5090", driver="575.57.08", cuda="12.9"),
        need("c-h100", "h100"),
        need("d-p40", "p40"),
        need("e-cpu"),
    ]


def test_hosts_that_no_toolkit_to_be_had_serves_together_are_parted():
    """Without a registry: 13.0 from the package index and Debian 12's 11.8."""
    rows = rounds_of(mixed(), ["13.0.2", "11.8.0"])
    assert (rows["a-3090"]["action"], rows["a-3090"]["toolkits"]) == ("provide", ["11.8.0"])
    assert (rows["c-h100"]["members"], rows["c-h100"]["toolkits"][-1]) == (["c-h100", "d-p40"], "11.8.0")
    assert rows["b-5090"]["action"] == "refuse"
    assert "no other toolkit than CUDA 13.0.2 and 11.8.0 can be had" in rows["b-5090"]["problems"][0]
    assert "There is no toolchain" in rows["b-5090"]["problems"][0]
    assert (rows["e-cpu"]["action"], bool(rows["e-cpu"]["answer"])) == ("provide", True)


def test_the_toolkit_that_serves_most_hosts_is_taken_first():
    fleet = [
        need(name, card, source="build") for name, card in (("a", "p40"), ("b", "3090"), ("c", "5090"), ("d", "h100"))
    ]
    rows = rounds_of(fleet, ["13.0.2", "11.8.0"])
    assert {name: row["toolkits"] for name, row in rows.items()} == {
        "a": ["11.8.0"],
        "b": ["13.0.2"],
        "c": ["13.0.2"],
        "d": ["13.0.2"],
    }


def test_with_toolkits_from_a_registry_one_image_serves_them_all():
    rows = rounds_of(mixed(), ["12.8.1"])
    assert rows["a-3090"]["members"] == ["a-3090", "b-5090", "c-h100", "d-p40"]
    assert all(rows[row["leader"]]["answer"]["image"] for row in rows.values())


def test_a_host_alone_is_not_asked_twice():
    rows = rounds_of([need("a", "h100", driver="535.183.01", cuda="12.2")], [])
    assert rows["a"]["answer"] == {"leader": "a", "msg": "There is no toolchain."}


def test_a_toolkit_that_was_asked_for_is_not_replaced():
    fleet = [
        need("a", "3090", source="build", cuda_toolkit="12.9"),
        need("b", "p40", source="build", cuda_toolkit="12.9"),
    ]
    assert rounds_of(fleet, ["13.0.2", "11.8.0"])["a"]["toolkits"] == ["12.9.1"]


def test_what_is_only_to_be_pulled_is_not_built():
    fleet = [need("a", "3090", source="pull"), need("b", "4090", source="pull")]
    rows = image_rounds.plan(fleet, [[{"leader": "a", "msg": "no registry answers"}]])
    assert rows["a"]["tag"] == "server-cuda-b11206"
    assert rows["a"]["answer"]["msg"] == "no registry answers"


def test_a_failed_build_for_several_hosts_says_what_bounds_it():
    fleet = [need("a", "3090", source="build", cpus=99), need("b", "p40", source="build")]
    made = settled(fleet, {"a": {"msg": "There is no toolchain."}})
    assert made["a"]["problems"][0].startswith("There is no toolchain (one image is to serve a, b: ")
    assert "P40 (6.1) of b ends at CUDA 12.9" in made["b"]["problems"][0]


def test_a_registry_that_answers_changes_nothing():
    fleet = [need("a", "3090"), need("b", "p40")]
    answers = [
        {"leader": "a", "action": "pull", "why": "it answers", "image": "x"},
        {"leader": "b", "action": "build", "why": "no native code", "image": "y"},
    ]
    rows = image_rounds.plan(fleet, [answers])
    assert all(row["answer"] for row in rows.values())
    assert rows["a"]["tag"] == "server-cuda-b11206"


def test_a_host_keeps_an_image_that_covers_it_and_more():
    mine = need("a", "3090", source="build")
    wide = built(mine, "61-real;86-real", "12.8.1")
    rows = image_rounds.plan([need("a", "3090", source="build", images=[wide])])
    assert actions(rows) == {"a": "keep"}
    assert rows["a"]["image"] == "llmfleet/llama.cpp:cuda-1"
    assert not image_plan.settle(rows["a"], None)["needed"]


@pytest.mark.parametrize(
    ("changes", "inputs"),
    [
        ({"code": "61-real"}, {}),
        ({"code": "86-virtual"}, {}),
        ({"toolkit": "13.4.1"}, {"driver": "570.86.10", "cuda": "12.8"}),
        ({"recipe": "another"}, {}),
        ({"variant": "cpu"}, {}),
        ({"contents": "full"}, {}),
        ({}, {"level": "x86-64-v2"}),
        ({}, {"ptx": True}),
        ({}, {"cuda_toolkit": "12.9"}),
        ({}, {"source": "pull", "tag": "server-cuda-b1"}),
    ],
)
def test_an_image_that_does_not_cover_the_host_is_not_kept(changes, inputs):
    inputs = {"source": "build", **inputs}
    like = need("a", "3090", **inputs)
    labels = {"code": "86-real", "toolkit": "12.8.1", **changes}
    assert image_need.suitable(like, built(like, **labels)) == ""


def test_what_the_image_was_asked_for_with_is_kept():
    for inputs, labels in (
        ({"ptx": True}, {"code": "86-real;86-virtual"}),
        ({"cuda_toolkit": "12.8"}, {}),
        ({"cuda_toolkit": "12.8.1"}, {}),
    ):
        like = need("a", "3090", source="build", **inputs)
        assert image_need.suitable(like, built(like, **{"code": "86-real", "toolkit": "12.8.1", **labels}))


def test_an_image_that_somebody_built_on_ours_is_not_ours():
    like = need("a", source="build")
    image = {**built(like), "references": ["me/llama.cpp:mine"]}
    assert image_need.suitable(like, image) == ""


def test_a_pulled_image_is_kept_whatever_mirror_it_came_from():
    rows = image_rounds.plan([need("a", images=[pulled()])])
    assert (rows["a"]["action"], rows["a"]["image"]) == ("keep", "ghcr.nju.edu.cn/ggml-org/llama.cpp:server-b11206")
    assert image_rounds.plan([need("a", images=[pulled("server-b1")])])["a"]["action"] == "provide"


def test_a_new_host_receives_what_another_one_has_and_nobody_builds():
    image = built(need("a", "3090", source="build"), "86-real", "12.8.1")
    fleet = [
        need("a", "3090", source="build", images=[image]),
        need("b", "3090", source="build"),
        need("c", "3090", source="build", images=[image], cpus=99),
        need("d", "3090", source="build"),
    ]
    rows = image_rounds.plan(fleet)
    assert actions(rows) == {"a": "keep", "b": "receive", "c": "keep", "d": "receive"}
    assert rows["b"]["has"] is True
    assert (rows["b"]["builder"], rows["b"]["leader"], rows["d"]["leader"]) == ("c", "b", "b")
    assert rows["d"]["receivers"] == ["b", "d"]
    settled = image_plan.settle(rows["b"], None)
    assert (settled["needed"], settled["image"]) == (True, "llmfleet/llama.cpp:cuda-1")


def test_a_host_with_another_gpu_makes_nobody_else_build():
    image = built(need("a", "3090", source="build"), "86-real", "12.8.1")
    rows = image_rounds.plan([need("a", "3090", source="build", images=[image]), need("b", "p40", source="build")])
    assert actions(rows) == {"a": "keep", "b": "provide"}
    assert rows["b"]["architectures"] == ["61-real"]


def test_two_groups_may_have_one_builder_and_each_has_its_own_leader():
    common = {"source": "build", "builder": "big"}
    fleet = [need("gpu", "3090", **common), need("cpu", **common), need("big", wanted="none", cpus=128, **common)]
    rows = image_rounds.plan(fleet)
    assert rows["big"]["action"] == "none"
    assert {name: (rows[name]["leader"], rows[name]["builder"]) for name in ("gpu", "cpu")} == {
        "gpu": ("gpu", "big"),
        "cpu": ("cpu", "big"),
    }
    assert rows["gpu"]["receivers"] == ["gpu"]
    assert rows["gpu"]["action"] == "receive"


@pytest.mark.parametrize(
    ("builder", "called"), [("controller", "the controller"), ("elsewhere", "elsewhere"), ("auto", "b")]
)
def test_who_builds(builder, called):
    common = {"source": "build", "builder": builder}
    rows = image_rounds.plan([need("a", **common), need("b", cpus=16, **common), need("c", cpus=16, free=5, **common)])
    assert image_row.called(rows["a"]["builder"]) == called
    assert rows["a"]["leader"] == ("b" if builder == "auto" else "a")


def test_most_free_disk_decides_between_equals():
    rows = image_rounds.plan([need("a", free=10 * GIB), need("b", free=20 * GIB)])
    assert rows["a"]["builder"] == "b"


def test_of_equal_hosts_the_one_that_has_built_before_builds_again():
    """The free disk changes from day to day, and a compiler cache is on one host only."""
    fleet = [need("a", free=30 * GIB), need("b", free=20 * GIB, built_at=5.0), need("c", built_at=2.0)]
    assert image_rounds.plan(fleet)["a"]["builder"] == "b"


def test_an_image_for_several_hosts_asks_no_more_of_a_processor_than_each_has():
    fleet = [need("a", cpus=99), need("b", level="x86-64-v2"), need("c")]
    assert {row["cpu_level"] for row in image_rounds.plan(fleet).values()} == {"x86-64-v2"}


def test_a_named_builder_tries_what_it_makes():
    fleet = [need("a", builder="old"), need("old", level="x86-64", wanted="none", builder="old")]
    assert image_rounds.plan(fleet)["a"]["cpu_level"] == "x86-64"


def test_an_image_does_not_cross_processor_architectures():
    fleet = [need("a", builder="a"), need("arm", arm=True, builder="a"), need("arm2", arm=True, cpus=64, builder="a")]
    rows = image_rounds.plan(fleet)
    assert rows["a"]["members"] == ["a"]
    assert rows["arm"]["builder"] == "arm2"
    assert rows["arm2"]["warnings"] == ["a (amd64) cannot build for arm64, so arm2 does"]


def test_the_controller_builds_only_for_its_own_kind():
    rows = image_rounds.plan([need("arm", arm=True, builder="controller", controller="x86_64")])
    assert rows["arm"]["builder"] == "arm"
    assert "the controller (amd64) cannot build for arm64" in rows["arm"]["warnings"][0]


def test_an_image_pinned_by_digest_is_pulled_by_each_host():
    """Saved and loaded it would lose the digest it is started by."""
    rows = image_rounds.plan([need("a", digest="sha256:" + "0" * 64), need("b", digest="sha256:" + "0" * 64)])
    assert actions(rows) == {"a": "provide", "b": "provide"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"driver": "440.33.01", "cuda": "10.2"}, "install driver 450.80.02 or newer, or set llama_cpp_image_variant"),
        ({"builder": "typo", "builder_known": False}, "llama_cpp_image_builder is typo"),
        ({"cpu_level": "x86-64-v3", "level": "x86-64-v2"}, "its processor has x86-64-v2; set auto"),
        ({"cpu_level": "armv8-a"}, "cpu_level armv8-a does not exist on amd64"),
        ({"sources": [{"git": "x", "archive": "y"}]}, "sources[1] needs exactly one"),
        ({"base": "debian"}, "base 'debian' is not of the form"),
        ({"source": "pull", "ref": "b1"}, "; set llama_cpp_image_tag to a published one"),
        (
            {"source": "pull", "cmake_flags": ["-DX=1"]},
            "but llama_cpp_image_cmake_flags can only be honoured by building",
        ),
        ({"source": "pull", "ptx": True}, "llama_cpp_image_ptx can only be honoured by building"),
        ({"cuda_toolkit": "99"}, "llama_cpp_image_cuda_toolkit: "),
        ({"variant": "rocm", "arm": True}, "variant rocm cannot be built on arm64"),
    ],
)
def test_what_cannot_work_is_one_sentence(changes, words):
    rows = image_rounds.plan([need("a", "3090", **changes)])
    assert rows["a"]["action"] == "refuse"
    assert len(rows["a"]["problems"]) == 1
    assert words in rows["a"]["problems"][0]


def test_a_host_that_needs_none_has_no_problems():
    rows = image_rounds.plan([need("a", "3090", wanted="none", driver="390.1", builder="typo", builder_known=False)])
    assert (rows["a"]["action"], rows["a"]["problems"]) == ("none", [])


def test_one_host_that_is_refused_holds_nobody_back():
    rows = image_rounds.plan([need("old", "h100", driver="440.33.01", cuda="10.2"), need("new", "h100")])
    assert actions(rows) == {"old": "refuse", "new": "provide"}


LATEST = {"ref": "", "ref_why": "nothing answers", "source": "build"}


def test_latest_that_nobody_knows_keeps_what_is_there():
    like = need("a", "3090", **LATEST)
    image = built({**like, "recipe": "of some day"}, "86-real", "12.8.1")
    rows = image_rounds.plan([need("a", "3090", images=[image], **LATEST), need("b", "3090", **LATEST)])
    assert actions(rows) == {"a": "keep", "b": "receive"}
    assert "nothing answers" in rows["a"]["warnings"][0]


def test_latest_that_nobody_knows_is_refused_where_there_is_no_image():
    rows = image_rounds.plan([need("a", "3090", **LATEST)])
    assert rows["a"]["problems"] == ["llama_cpp_image_ref is `latest`, and nothing answers"]


@pytest.mark.parametrize(
    ("vendor", "variant", "words"),
    [("amd", "cpu", "set llama_cpp_image_variant to rocm"), ("moore_threads", "cpu", "to musa"), ("", "cpu", "PCI")],
)
def test_gpus_of_others_are_used_when_asked_for(vendor, variant, words):
    cards = [{"vendor": vendor, "name": "x", "usable": False, "compute_capability": None}] if vendor else []
    made = image_need.make(host("distro", gpu={"gpus": cards}), INPUTS, "a")
    assert made["variant"] == variant
    assert words in made["variant_why"]
    assert image_need.make(host("distro", gpu={"gpus": cards}), {**INPUTS, "variant": "vulkan"}, "a")["variant"] == (
        "vulkan"
    )


def test_the_gpus_of_an_engine_on_another_machine_are_not_known():
    facts = host(gpu=nvidia("580.95.05", "13.0", CARDS["3090"]), docker={"problem": "elsewhere"})
    assert image_need.make(facts, INPUTS, "a")["variant"] == "cpu"


@pytest.mark.parametrize(
    ("services", "wish"),
    [
        ([], "none"),
        ([{}], "any"),
        ([{"device": "cpu"}], "cpu"),
        ([{"device": "cpu"}, {"device": "gpu"}], "any"),
        ([{"image": "registry.invalid/mine:1"}, {"state": "absent"}, {"state": "stopped"}], "none"),
    ],
)
def test_what_services_want_an_image_for(services, wish):
    rows = [{"name": f"s{place}", "model": "tiny", "port": 8080 + place, **one} for place, one in enumerate(services)]
    assert image_need.wish(rows) == wish


def test_services_that_ask_for_the_processor_get_no_cuda_image():
    assert need("a", "3090", wanted="cpu")["variant"] == "cpu"


ANSWER = {"action": "build", "image": "llmfleet/llama.cpp:cpu-1", "why": "no registry answers", "build_key": "1"}


def settled(fleet, answers):
    rows = image_rounds.plan(fleet)
    return {name: image_plan.settle(row, answers.get(row["leader"])) for name, row in rows.items()}


def test_the_modules_answer_completes_the_rows_of_its_group():
    made = settled([need("a", cpus=99), need("b")], {"a": {**ANSWER, "action": "pull", "why": "ghcr.io answers"}})
    assert (made["a"]["action"], made["a"]["why"]) == ("pull", "ghcr.io answers")
    assert (made["b"]["action"], made["b"]["why"]) == ("receive", "a makes it")
    assert {row["image"] for row in made.values()} == {"llmfleet/llama.cpp:cpu-1"}
    assert all(row["needed"] for row in made.values())


def test_a_builder_that_cannot_is_a_problem_of_all_that_wait_for_it():
    made = settled([need("a", cpus=99), need("b")], {"a": {"failed": True, "msg": "No source\nanswers."}})
    assert made["a"]["problems"] == ["No source answers."]
    assert made["b"]["problems"] == ["a cannot provide the image: No source answers."]
    assert not made["a"]["needed"]


def test_a_builder_out_of_reach_is_named_with_a_way_out():
    said = {"unreachable": True, "msg": "Task failed: no route to host", "leader": "a"}
    made = settled([need("a", builder="far")], {"a": said})
    assert made["a"]["problems"] == [
        "far, which is to provide the image, is not reachable (no route to host); mend that, or name another machine "
        "in llama_cpp_image_builder"
    ]


def test_the_plan_in_words():
    fleet = [need("a", "3090", source="build", cpus=99), need("b", "p40", source="build"), need("cpu", source="build")]
    made = settled(fleet, dict.fromkeys(("a", "cpu"), ANSWER))
    (line,) = image_plan.lines(made)
    for words in (
        "llmfleet/llama.cpp:cpu-1",
        "CUDA 12.9.1 (",
        "61-real;86-real",
        "a builds it and sends it to b",
        "P40",
    ):
        assert words in line


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"cuda": "12.8.1", "toolchain": {"kind": "image", "image": "nvidia/cuda:x"}}, "CUDA 12.8.1 of nvidia/cuda:x"),
        ({"cuda": "13.0.2", "toolchain": {"kind": "wheels", "image": "y"}}, "CUDA 13.0.2 from the package index"),
        ({"action": "keep"}, "image llmfleet/llama.cpp:cpu-1: a has it"),
        ({"action": "pull", "why": "ghcr.io answers"}, "image llmfleet/llama.cpp:cpu-1: a pulls it"),
    ],
)
def test_the_plan_says_where_an_image_for_gpus_comes_from(answer, words):
    made = settled([need("a", "3090")], {"a": {**ANSWER, **answer}})
    assert words in image_plan.lines(made)[0]
    assert ("carries CUDA" in made["a"]["why"]) == (answer.get("action") is None)


def test_containers_get_the_gpus_of_a_builder_for_the_trial_of_its_image():
    toolkit = {"action": "none", "cdi": True}
    rows = image_rounds.plan([need("a", "3090", toolkit=toolkit), need("b", toolkit=toolkit)])
    assert (rows["a"]["gpu_access"], rows["b"]["gpu_access"]) == ("nvidia_cdi", "")
    skipped = image_rounds.plan([need("a", "3090", toolkit={"action": "skip", "cdi": False})])
    assert skipped["a"]["gpu_access"] == ""


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(sorted(CARDS)), max_size=2),
            st.sampled_from([("580.95.05", "13.0"), ("550.54.14", "12.4"), ("440.33.01", "10.2")]),
            st.sampled_from(["auto", "build"]),
            st.sampled_from(["any", "cpu", "none"]),
            st.booleans(),
            st.integers(0, 2),
        ),
        max_size=6,
    ),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_fleet(hosts, silent):
    """Each host has one part; who receives has somebody who sends; no image lacks code for a GPU it is for."""
    fleet = []
    for place, (cards, (driver, cuda), source, wanted, has, wide) in enumerate(hosts):
        args = {"driver": driver, "cuda": cuda, "source": source, "wanted": wanted}
        one = need(f"h{place}", *cards, **args)
        if has and one["recipe"]:
            code = ";".join([f"{CARDS[card]['compute_capability'].replace('.', '')}-real" for card in cards][:wide])
            one["images"] = [built(one, code, "12.8.1" if cards else "", identity=f"sha256:{place}")]
        fleet.append(one)
    by_host = {one["host"]: one for one in fleet}
    rows = image_rounds.plan(fleet)
    if silent:
        rows = rounds_of(fleet, ["13.0.2", "11.8.0"])
    assert set(rows) == set(by_host)
    for name, row in rows.items():
        mine = by_host[name]
        assert (row["action"] == "none") == (mine["wanted"] == "none")
        assert (row["action"] == "refuse") == bool(row["problems"])
        if row["action"] not in ("provide", "receive"):
            assert row["leader"] == ""
            continue
        assert name in row["members"]
        assert rows[row["leader"]]["leader"] == row["leader"]
        assert (name in row["receivers"]) == (row["action"] == "receive")
        if row["has"]:
            sent = next(image for image in by_host[row["builder"]]["images"] if row["image"] in image["references"])
            assert image_need.suitable(mine, sent) == row["image"]
        else:
            assert bool(rows[row["leader"]]["answer"]) == silent
            assert rows[row["builder"]]["action"] == "provide"
            assert rows[row["builder"]]["members"] == row["members"]
            if mine["variant"] == "cuda" and not row["tag"]:
                assert cuda_plan.covers(row["architectures"], mine["capabilities"])
                assert all(cuda_plan.serves(toolkit, mine) for toolkit in row["toolkits"])
