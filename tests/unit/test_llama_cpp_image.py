"""The llama_cpp_image module against a fake docker that keeps its images in a folder."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

import llama_cpp_image
import pytest
from ansible.module_utils.llmfleet import build_engine, cuda_wheels, host_edge, image_job
from ansible.module_utils.llmfleet.cuda_tables import toolkit
from ansible.module_utils.testing import patch_module_args
from image_host import Host

REGISTRY = "registry.invalid"


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(build_engine, "CLIENT_DIRS", ())
    monkeypatch.setattr(image_job.BuildHost, "registry_problem", lambda _self, _registry: "no answer within 5 s")
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return Host(tmp_path / "host")


@pytest.fixture
def run(capsys, host):
    def run(check_mode: bool = False, **args: object) -> dict:
        given = {
            "docker_cli": str(host.docker),
            "work_dir": str(host.folder / "work"),
            "base": "debian:bookworm",
            "registries": [REGISTRY],
            "_ansible_check_mode": check_mode,
            **args,
        }
        if "sources" not in given:
            given["sources"] = [host.archive()]
        with patch_module_args(given), pytest.raises(SystemExit):
            llama_cpp_image.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_a_new_image_is_built_tried_and_named(run, host):
    result = run()
    assert (result["changed"], result["action"]) == (True, "build")
    assert result["image"] == f"llmfleet/llama.cpp:cpu-{result['build_key']}"
    assert host.names() == ["llmfleet/base:debian-bookworm", result["image"]]
    labels = (host.folder / "images" / result["image"].replace("/", "!")).read_text().splitlines()
    assert f"io.llmfleet.build-key={result['build_key']}" in labels
    assert "building 1 ['Dockerfile', 'site', 'source', 'tools']" in Path(result["log"]).read_text()
    base = {"how": "present", "image": "llmfleet/base:debian-bookworm", "distribution": "debian:bookworm"}
    assert result["toolchain"] == {"kind": "base", **base}
    assert result["base"] == {"kind": "present", "image": "llmfleet/base:debian-bookworm"}
    assert (result["variant"], result["contents"], result["cuda"], result["architectures"]) == ("cpu", "server", "", [])
    assert result["layers"][0] == "sha256:libs"
    assert [row["result"] for row in result["tried"]] == ["no answer within 5 s", "used"]
    assert not list((host.folder / "work").glob(".build-*"))


def test_the_same_again_is_two_questions_to_the_engine(run, host):
    first = run()
    (host.folder / "calls").unlink()
    second = run()
    assert (second["changed"], second["action"], second["image"]) == (False, "keep", first["image"])
    calls = map(json.loads, (host.folder / "calls").read_text().splitlines())
    assert [call[0] for call in calls] == ["images", "image"]
    assert run(check_mode=True)["changed"] is False


def test_check_mode_says_what_would_be_done_and_does_nothing(run, host):
    result = run(check_mode=True)
    assert (result["changed"], result["action"], result["image_id"]) == (True, "build", "")
    assert result["diff"] == {"before": {"image": None}, "after": {"image": result["image"]}}
    assert result["why"] == "no registry of the published image answers"
    assert host.names() == ["llmfleet/base:debian-bookworm"]
    assert not (host.folder / "work").exists()


def test_a_changed_flag_is_another_image_from_the_kept_source(run, host):
    first = run(cmake_flags=["-DGGML_OPENMP=ON"])
    (host.folder / "tree.tar.gz").unlink()
    second = run(cmake_flags=["-DGGML_OPENMP=OFF"], sources=[{"archive": "/gone", "sha256": host_digest(first, host)}])
    assert second["image"] != first["image"]
    assert second["tried"][-1]["result"] == "used, kept from an earlier build"


def host_digest(_result, host):
    kept = next((host.folder / "work/sources/llama.cpp").glob("archive-*"))
    return hashlib.sha256(kept.read_bytes()).hexdigest()


def test_check_mode_works_on_a_host_without_docker(run):
    result = run(check_mode=True, docker_cli="/no/docker")
    assert (result["action"], result["changed"]) == ("build", True)


@pytest.mark.parametrize(
    ("docker", "words"), [("/no/docker", "no docker client"), ("", "Is the docker daemon running")]
)
def test_without_an_engine_the_reason_is_given(run, host, docker, words):
    host.set("down")
    result = run(docker_cli=docker or str(host.docker))
    assert result["failed"]
    assert words in result["msg"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"sources": [{"gti": "https://h/x"}]}, "unknown key gti"),
        ({"sources": []}, "the list is empty"),
        ({"sources": [{"archive": "/no/file", "sha256": "0" * 64}]}, "there is no file /no/file"),
        ({"cpu_level": "x86-64-v9"}, "cpu_level x86-64-v9 does not exist"),
        ({"cmake_flags": ["AVX=OFF"]}, "cmake_flags"),
        ({"ref": "no ref"}, "ref 'no ref'"),
        ({"base": "bookworm"}, "distribution:codename"),
        ({"source": "pull"}, "registry.invalid/ggml-org/llama.cpp:server-b11206: no answer"),
        ({"source": "pull", "cmake_flags": ["-DX=1"]}, "can only be honoured by building"),
        ({"source": "pull", "ref": "main"}, "no published release stands for main"),
        ({"source": "build", "ca_bundle": "/no/ca"}, "ca_bundle /no/ca"),
        ({"source": "pull", "tag": "", "published_why": "no code for P40 (6.1)"}, "no code for P40 (6.1)"),
        ({"ref": "latest"}, "give what llama_cpp_ref returns"),
        ({"ref": ""}, "ref is empty"),
        ({"keep": -1}, "keep is a number of images"),
        ({"received": True}, "not on this host; send it again"),
        ({"variant": "cuda"}, "needs architectures and toolkits"),
        ({"variant": "cuda", "architectures": ["8.6"], "toolkits": ["12.8.1"]}, "'8.6' is not of the form 86-real"),
        ({"cpu_level_planned": "armv8-a"}, "cpu_level armv8-a does not exist"),
    ],
)
@pytest.mark.parametrize("check_mode", [True, False])
def test_bad_input_is_one_sentence_and_nothing_is_built(run, host, args, words, check_mode):
    result = run(check_mode, **args)
    assert result["failed"]
    assert words in result["msg"]
    assert "Traceback" not in result["msg"]
    assert host.names() == ["llmfleet/base:debian-bookworm"]


def test_a_failed_build_gives_the_compilers_words_and_the_log(run, host):
    result = run(sources=[host.archive("broken")])
    assert result["failed"]
    assert "/src/a.cpp:1:1: error: expected unqualified-id" in result["msg"]
    assert result["log"] in result["msg"]
    assert host.names() == ["llmfleet/base:debian-bookworm"]


def test_an_image_that_does_not_run_here_is_not_named(run, host):
    host.set("illegal")
    result = run(source="build")
    assert "choose a lower cpu_level" in result["msg"]
    assert host.names() == ["llmfleet/base:debian-bookworm"]


def test_the_legacy_builder_is_told_so_and_gets_no_secrets(run, host):
    result = run(source="build", buildkit="none")
    assert "building 0" in Path(result["log"]).read_text()
    assert "--secret" not in host.calls("build")[0]
    assert "--mount" not in (host.folder / "Dockerfile").read_text()


def test_proxies_are_passed_by_name_only(run, host, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:7890")
    run(source="build")
    command = host.calls("build")[0]
    assert "https_proxy" in command
    assert "secret" not in " ".join(command).replace("--secret", "")
    assert command[command.index("--network") + 1] == "host"


@pytest.fixture
def answering(host, monkeypatch):
    """A host whose registry answers."""
    assert host
    monkeypatch.setattr(image_job.BuildHost, "registry_problem", lambda _self, _registry: "")


PULLED = f"{REGISTRY}/ggml-org/llama.cpp:server-b11206"


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("source", ["auto", "pull"])
def test_a_registry_that_answers_is_pulled_from_and_the_image_kept(run, host, source):
    assert run(True, source=source)["action"] == "pull"
    result = run(source=source)
    assert (result["changed"], result["action"], result["image"]) == (True, "pull", PULLED)
    again = run(source=source)
    assert (again["changed"], again["action"], again["image"]) == (False, "keep", PULLED)
    assert host.calls("pull") == [["pull", PULLED]]


@pytest.mark.usefixtures("answering")
def test_a_pull_that_breaks_off_becomes_a_build_only_when_that_is_allowed(run, host):
    host.set("pull_fails")
    failed = run(source="pull")
    assert "unexpected EOF" in failed["msg"]
    result = run(source="auto")
    assert (result["action"], result["why"]) == ("build", "the pull of the published image failed")
    assert "unexpected EOF" in json.dumps(result["tried"])


@pytest.mark.usefixtures("answering")
def test_a_pulled_image_that_does_not_run_is_not_kept(run, host):
    host.set("illegal")
    assert "does not run on this host" in run(source="pull")["msg"]
    assert PULLED not in host.names()


def test_absent_removes_what_is_ours_and_names_what_is_in_use(run, host, monkeypatch):
    built = run()["image"]
    monkeypatch.setattr(image_job.BuildHost, "registry_problem", lambda _self, _registry: "")
    run(source="pull")
    host.add("mine/own:1", "io.llmfleet.build-key=built-on-top")
    host.add("debian:12")
    host.set("used", built)
    before = host.names()

    planned = run(True, state="absent")
    assert host.names() == before
    result = run(state="absent")
    assert planned["removed"] == result["removed"]
    assert result["in_use"] == {built: ["chat"]}
    assert host.names() == sorted(["debian:12", "mine/own:1", built])
    assert not (host.folder / "work").exists()

    host.set("used", "nothing")
    assert run(state="absent")["removed"] == [built]
    assert run(state="absent")["changed"] is False


# --- what covers, what is old


def images_of(host):
    return [name for name in host.names() if name.startswith("llmfleet/llama.cpp")]


def aged(host, *names):
    """Make the images of these names old ones, the first one the oldest."""
    for age, name in enumerate(names):
        path = host.folder / "images" / name.replace("/", "!")
        os.utime(path, (1_000_000 + age, 1_000_000 + age))


CUDA = {
    "variant": "cuda",
    "source": "build",
    "architectures": ["75-real", "90-real"],
    "toolkits": ["13.0.2", "12.9.1"],
    "cuda_images": ["nvidia/cuda:{tag}"],
}


@pytest.fixture
def cuda_image(host):
    """A host that has NVIDIA's images to build on; give the name of the best one."""
    rows = [toolkit(version) for version in CUDA["toolkits"]]
    for row in rows:
        host.add(f"nvidia/cuda:{row.devel}")
    return f"nvidia/cuda:{rows[0].devel}"


def test_a_cuda_image_says_what_it_is(run, host, cuda_image):
    result = run(**CUDA)
    assert not result.get("failed"), result
    assert result["image"] == f"llmfleet/llama.cpp:cuda-{result['build_key']}"
    assert (result["cuda"], result["architectures"]) == ("13.0.2", ["75-real", "90-real"])
    assert result["toolchain"]["image"] == cuda_image
    assert result["toolchain"]["how"] == "present"
    assert f"io.llmfleet.recipe={result['recipe']}" in host.calls("build")[0]


@pytest.mark.usefixtures("cuda_image")
def test_an_image_that_covers_what_is_needed_is_kept(run):
    wide = run(**CUDA)
    for narrower in ({"architectures": ["90-real"]}, {"toolkits": ["13.0.1"]}, {"toolkits": ["13.4.0", "13.0.2"]}):
        kept = run(**{**CUDA, **narrower})
        assert (kept["action"], kept["changed"], kept["image"]) == ("keep", False, wide["image"])
        assert kept["build_key"] != wide["build_key"]
        assert (kept["recipe"], kept["cuda"], kept["architectures"]) == (
            wide["recipe"],
            "13.0.2",
            ["75-real", "90-real"],
        )
    for other in ({"architectures": ["90-real", "120-real"]}, {"toolkits": ["12.9.1"]}, {"contents": "light"}):
        assert run(True, **{**CUDA, **other})["action"] == "build"


def test_a_lower_processor_level_of_the_fleet_is_built_for_and_kept_on_a_better_host(run):
    low = run(cpu_level_planned="x86-64")
    assert low["cpu_level"] == "x86-64"
    kept = run()
    assert (kept["action"], kept["image"], kept["cpu_level"]) == ("keep", low["image"], "x86-64")
    # who names a level gets that one
    assert run(True, cpu_level="x86-64")["action"] == "build"


def test_older_images_go_but_for_some_and_those_in_use(run, host):
    old = [run(cmake_flags=[f"-DN={number}"], keep=9)["image"] for number in range(5)]
    aged(host, *old)
    cuda, mine = "llmfleet/llama.cpp:cuda-0123456789ab", "mine/llama.cpp:cpu-0123456789ab"
    host.add(cuda, "io.llmfleet.variant=cuda\nio.llmfleet.build-key=x")
    host.add(mine, "io.llmfleet.variant=cpu\nio.llmfleet.build-key=x")
    host.set("used", old[0])

    planned = run(True, cmake_flags=["-DN=6"], keep=1)
    assert planned["pruned"] == [old[3], old[2], old[1]]
    assert len(images_of(host)) == 6

    result = run(cmake_flags=["-DN=6"], keep=1)
    assert not result.get("failed"), result
    assert result["pruned"] == planned["pruned"]
    assert result["in_use"] == {old[0]: ["chat"]}
    assert result["diff"]["before"]["older"] == result["pruned"]
    assert images_of(host) == sorted([old[0], old[4], result["image"], cuda])
    assert mine in host.names()
    # the logs of what went are gone, those of what is there are not
    logs = {path.name for path in (host.folder / "work" / "logs").iterdir()}
    assert logs == {f"llama_cpp-{name.rpartition('-')[2]}.log" for name in (old[0], old[4], result["image"])}
    again = run(cmake_flags=["-DN=6"], keep=1)
    assert (again["changed"], again["pruned"], again["in_use"]) == (False, [], {old[0]: ["chat"]})


def test_an_image_that_came_from_elsewhere_lets_older_ones_go_too(run, host):
    old = [run(cmake_flags=[f"-DN={number}"], keep=9)["image"] for number in range(3)]
    new = run(cmake_flags=["-DN=9"], keep=9)["image"]
    aged(host, *old)
    received = run(cmake_flags=["-DN=9"], keep=0)
    assert (received["action"], received["changed"], received["pruned"]) == ("keep", True, old[::-1])
    assert images_of(host) == [new]


@pytest.mark.usefixtures("cuda_image")
def test_images_for_other_gpus_of_the_fleet_are_not_older_ones(run, host):
    first = run(**CUDA, keep=0)["image"]
    second = run(**{**CUDA, "architectures": ["120-real"]}, keep=0)
    assert (second["action"], second["pruned"]) == ("build", [])
    third = run(**CUDA, cmake_flags=["-DX=1"], keep=0)
    assert sorted(third["pruned"]) == sorted([first, second["image"]])
    assert images_of(host) == [third["image"]]


def test_a_published_image_that_was_received_counts_as_ours(run, host):
    host.add(PULLED)
    assert run(True, received=True)["image"] == PULLED
    assert not (host.folder / "work").exists()
    assert run(received=True)["changed"] is False
    assert PULLED in run(state="absent")["removed"]
    host.add(PULLED)
    run()
    assert PULLED not in run(state="absent")["removed"]


@pytest.mark.usefixtures("answering")
def test_pulled_images_are_pruned_like_built_ones(run, host):
    for release in ("b1", "b2", "b3"):
        assert run(source="pull", tag=f"server-{release}", keep=1)["action"] == "pull"
        aged(host, *(name for name in host.names() if name.startswith(REGISTRY)))
    assert [name.rpartition("-")[2] for name in host.names() if name.startswith(REGISTRY)] == ["b2", "b3"]
    assert "b1" not in (host.folder / "work/sources/llama_cpp_pulled").read_text()


def test_the_sources_of_older_builds_go_with_them(run, host):
    for number in range(4):
        assert run(sources=[host.archive(f"project(x{number})")], source="build", keep=1)["action"] == "build"
    assert len(list((host.folder / "work/sources/llama.cpp").glob("archive-*"))) == 2


@pytest.mark.usefixtures("answering")
def test_a_named_tag_can_be_pulled_while_nobody_knows_what_latest_is(run):
    result = run(source="pull", ref="", tag="server-b1")
    assert (result["action"], result["image"]) == ("pull", f"{REGISTRY}/ggml-org/llama.cpp:server-b1")


@pytest.mark.usefixtures("answering")
def test_where_the_plan_finds_no_published_image_one_is_built_for_its_reason(run):
    result = run(True, tag="", published_why="no native code for P40 (6.1)")
    assert (result["action"], result["why"]) == ("build", "no native code for P40 (6.1)")


@pytest.mark.usefixtures("answering")
def test_a_repository_of_another_name_is_looked_at_too(run):
    wanted = {"source": "pull", "repository": "own/servers", "tag": "x"}
    assert run(**wanted)["action"] == "pull"
    assert run(**wanted)["action"] == "keep"


def test_a_cuda_image_that_cannot_be_made_is_refused_with_every_reason(run, monkeypatch):
    monkeypatch.setattr(cuda_wheels.WheelStore, "missing", lambda _self, _wheels: "no package index has the wheel")
    result = run(True, **CUDA)
    assert result["failed"]
    for words in ("no answer within 5 s", "no package index has the wheel", "llama_cpp_image_variant: cpu"):
        assert words in result["msg"]


# --- other runs on the same host


def test_what_another_run_has_made_meanwhile_is_not_made_again(run, host, monkeypatch):
    planned = run(True)

    @contextmanager
    def exclusive(_work):
        host.add(planned["image"], f"io.llmfleet.recipe={planned['recipe']}")
        yield

    monkeypatch.setattr(image_job.edge, "exclusive", exclusive)
    result = run()
    assert (result["action"], result["changed"], result["image"]) == ("keep", False, planned["image"])
    assert not host.calls("build")


def test_nothing_is_pruned_while_another_run_makes_an_image(run, host):
    old = [run(cmake_flags=[f"-DN={number}"], keep=9)["image"] for number in range(2)]
    aged(host, *old)
    work = host.folder / "work"
    with host_edge.exclusive(work):
        assert run(cmake_flags=["-DN=1"], keep=0)["changed"] is False
    assert run(cmake_flags=["-DN=1"], keep=0)["pruned"] == [old[0]]
