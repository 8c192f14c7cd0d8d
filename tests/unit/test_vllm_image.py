"""The vLLM image: what it is made from, which one a host needs, and the module against a fake docker."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
import vllm_image
from ansible.module_utils.llmfleet import build_engine, image_removal, vllm_pins
from ansible.module_utils.llmfleet.build_host import BuildHost
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.vllm_image_plan import need, settle
from ansible.module_utils.llmfleet.vllm_recipe import SCRIPT, VllmRequest
from ansible.module_utils.testing import patch_module_args
from facts import gpu, host, nvidia
from image_host import Host

SERVICE = {"name": "chat", "engine": "vllm", "model": "org/model", "port": 8001}
L4 = nvidia("580.95.05", "13.0", gpu("NVIDIA L4", "8.9"))


def test_every_package_has_one_version():
    text = vllm_pins.requirements()
    lines = text.splitlines()
    assert len(lines) == len(vllm_pins.PINS) > 100
    assert all("==" in line for line in lines)
    assert f"torch=={vllm_pins.TORCH}" in lines
    assert not [line for line in lines if line.startswith(("triton", "torchvision", "torchaudio", "torchcodec"))]
    assert [line for line in lines if "platform_machine" in line and "intel-openmp" in line]


def test_the_key_follows_what_the_image_is_made_from(monkeypatch):
    first = VllmRequest().key()
    assert VllmRequest().key() == first
    others = {VllmRequest("arm64").key(), VllmRequest(base_asked="debian:trixie").key()}
    monkeypatch.setattr("ansible.module_utils.llmfleet.vllm_recipe.requirements", lambda: "torch==1\n")
    others.add(VllmRequest().key())
    assert len({first, *others}) == 4
    assert VllmRequest().image() == f"llmfleet/vllm:cpu-{VllmRequest().key()}"


def test_the_dockerfile_leaves_nothing_of_the_host_in_a_layer():
    text = VllmRequest().dockerfile("debian:bookworm", buildkit=True)
    assert "COPY" not in text
    assert "--mount=type=secret,id=pip.conf,target=/run/llmfleet/pip.conf" in text
    assert "libiomp5.so" in text
    assert text.rstrip().endswith('ENTRYPOINT ["vllm", "serve"]')
    assert "\nUSER 10001:10001\n" in text
    legacy = VllmRequest("arm64").dockerfile("debian:bookworm", buildkit=False)
    assert "--mount" not in legacy
    assert "FROM scratch\nCOPY --from=build / /\n" in legacy
    assert "libiomp5.so" not in legacy
    assert "aarch64-linux-gnu" in legacy
    assert "@" not in text + legacy


def test_the_script_asks_pip_to_resolve_nothing():
    assert "--no-deps --only-binary=:all:" in SCRIPT


@pytest.mark.parametrize(
    ("asked", "of_host", "wanted"),
    [
        ("", "debian:bookworm", "debian:bookworm"),
        ("", "ubuntu:noble", "ubuntu:noble"),
        ("", "ubuntu:jammy", "debian:bookworm"),
        ("", "rocky:9", "debian:bookworm"),
        ("debian:trixie", "ubuntu:jammy", "debian:trixie"),
    ],
)
def test_the_base_has_a_python_that_is_new_enough(asked, of_host, wanted):
    assert VllmRequest(base_asked=asked).base_of(of_host) == wanted


def test_a_base_that_is_too_old_is_refused():
    with pytest.raises(BadInput, match=r"Python older than 3\.11"):
        VllmRequest(base_asked="ubuntu:jammy").check()
    with pytest.raises(BadInput, match="no packages for riscv64"):
        VllmRequest("riscv64").check()


@pytest.mark.parametrize(
    "service",
    [
        {"name": "a", "model": "/m.gguf", "port": 1},
        {**SERVICE, "state": "stopped"},
        {**SERVICE, "image": "mine:1"},
    ],
)
def test_a_host_without_such_a_service_needs_no_image(service):
    found = need([service], host(), "h1")
    assert found["needed"] is False
    assert settle(found, {})["action"] == "none"
    assert need([], host(), "h1")["needed"] is False


def test_a_host_without_gpu_gets_the_image_for_cpus():
    found = need([SERVICE], host(), "h1")
    assert (found["needed"], found["variant"], found["tag"], found["problems"]) == (True, "cpu", "", [])
    plan = settle(found, {"action": "build", "image": "llmfleet/vllm:cpu-1", "why": "vLLM 1"})
    assert (plan["action"], plan["image"]) == ("build", "llmfleet/vllm:cpu-1")
    assert plan["why"] == "vLLM 1; no NVIDIA GPU on the PCI bus"


def test_a_host_with_gpus_gets_the_published_image_that_fits():
    found = need([SERVICE], host(gpu=L4), "h1")
    assert (found["variant"], found["tag"]) == ("cuda", "v0.33.0")
    old = need([SERVICE], host(gpu=nvidia("550.54", "12.4", gpu("Tesla V100", "7.0"))), "h1")
    assert old["tag"] == "v0.8.5"
    assert "allows" in old["warnings"][0]
    named = need([SERVICE], host(gpu=L4), "h1", tag="v0.31.0")
    assert (named["tag"], named["why"]) == ("v0.31.0", "vllm_image_tag is v0.31.0")
    cpu = need([{**SERVICE, "device": "cpu"}], host(gpu=L4), "h1")
    assert cpu["variant"] == "cpu"


@pytest.mark.parametrize(
    ("services", "facts", "words"),
    [
        ([SERVICE], host(gpu=nvidia("470.1", "11.4", gpu("Tesla P4", "6.1"))), "no vLLM image suits this host"),
        ([{**SERVICE, "device": "gpu"}], host(), "this host has none that can be used"),
        ([SERVICE, {**SERVICE, "name": "b", "port": 2, "device": "cpu"}], host(gpu=L4), "takes two images"),
        ([SERVICE], host(platform={"architecture": "riscv64"}), "riscv64"),
    ],
)
def test_what_no_image_serves_is_a_problem_of_the_plan(services, facts, words):
    found = need(services, facts, "h1")
    assert words in found["problems"][0]
    plan = settle(found, {})
    assert (plan["action"], plan["why"]) == ("refuse", found["problems"][0])


def test_a_module_that_fails_is_a_problem_of_the_plan():
    found = need([SERVICE], host(), "h1")
    assert settle(found, {"failed": True, "msg": "no torch"})["problems"] == ["no torch"]
    assert settle(found, {"skipped": True})["action"] == "refuse"


def test_a_wrong_service_is_refused():
    with pytest.raises(BadInput, match="unknown engine"):
        need([{**SERVICE, "engine": "vlm"}], host(), "h1")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(build_engine, "CLIENT_DIRS", ())
    monkeypatch.setattr(BuildHost, "registry_problem", lambda _self, name: answers.get(name, "no answer"))
    monkeypatch.setattr(BuildHost, "apt_sources", lambda _self, _base: [])
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    answers: dict[str, str] = {}
    made = Host(tmp_path / "host")
    made.answers = answers  # type: ignore[attr-defined]
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / f"torch-{vllm_pins.TORCH}-cp311-cp311-manylinux_2_28_x86_64.whl").write_bytes(b"")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "1", "1", "x86_64")))
    return made


@pytest.fixture
def run(capsys, machine):
    def run(check_mode: bool = False, **args: t.Any) -> dict[str, t.Any]:
        given = {
            "docker_cli": str(machine.docker),
            "work_dir": str(machine.folder / "work"),
            "base": "debian:bookworm",
            "_ansible_check_mode": check_mode,
            **args,
        }
        with patch_module_args(given), pytest.raises(SystemExit):
            vllm_image.main()
        return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))

    return run


def test_an_image_is_built_tried_and_named_once(run, machine):
    would = run(check_mode=True)
    assert (would["action"], would["changed"], would["base"]) == ("build", True, "present")
    assert not (machine.folder / "work").exists()
    result = run()
    assert (result["changed"], result["action"]) == (True, "build")
    assert machine.names() == ["llmfleet/base:debian-bookworm", result["image"]]
    assert "building 1 ['Dockerfile', 'python-wheels', 'site', 'tools']" in Path(result["log"]).read_text()
    (tried,) = machine.calls("run")
    assert {"--read-only", "none", "--cap-drop"} <= set(tried)
    assert tried[-2:] == [f"{result['image']}-unverified", "--version"]
    again = run()
    assert (again["changed"], again["action"], again["image"]) == (False, "keep", result["image"])
    assert run(check_mode=True)["changed"] is False
    assert len(machine.calls("build")) == 1


def test_an_image_that_does_not_run_here_gets_no_name(run, machine):
    machine.set("illegal")
    result = run()
    assert "instructions that this processor does not have" in result["msg"]
    assert machine.names() == ["llmfleet/base:debian-bookworm"]


def test_a_build_that_fails_says_where_the_log_is(run, machine):
    machine.set("broken")
    result = run()
    assert "The build of vLLM failed" in result["msg"]
    assert result["log"] in result["msg"]


def test_without_pytorch_there_is_one_sentence_before_anything_changes(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    result = run(check_mode=True, torch_indexes=["http://127.0.0.1:1/whl"])
    assert f"The image of vLLM needs torch {vllm_pins.TORCH}" in result["msg"]
    assert "vllm_image_torch_indexes" in result["msg"]


def test_older_images_go_but_not_those_in_use(run, machine):
    machine.add("llmfleet/vllm:cpu-000000000001")
    machine.add("llmfleet/vllm:cpu-000000000002")
    machine.set("used", "cpu-000000000002")
    result = run()
    assert result["pruned"] == ["llmfleet/vllm:cpu-000000000001"]
    assert "llmfleet/vllm:cpu-000000000002" in machine.names()


def test_the_published_image_is_pulled_from_the_first_registry_that_answers(run, machine):
    machine.answers["second.invalid"] = ""
    given = {
        "variant": "cuda",
        "tag": "v0.33.0",
        "repositories": ["first.invalid/vllm/vllm-openai", "second.invalid/vllm/vllm-openai"],
    }
    wanted = "second.invalid/vllm/vllm-openai:v0.33.0"
    assert run(check_mode=True, **given)["image"] == wanted
    result = run(**given)
    assert (result["action"], result["image"], result["changed"]) == ("pull", wanted, True)
    assert result["tried"][0] == {"candidate": "first.invalid/vllm/vllm-openai:v0.33.0", "result": "no answer"}
    assert run(**given)["action"] == "keep"
    machine.answers.clear()
    assert "No registry" in run(**{**given, "tag": "v9"})["msg"]
    assert "No registry" in run(check_mode=True, **{**given, "tag": "v9"})["msg"]
    assert "needs the tag" in run(variant="cuda")["msg"]


def test_removal_takes_what_was_made_and_pulled(run, machine):
    machine.answers["second.invalid"] = ""
    built = run()["image"]
    pulled = run(variant="cuda", tag="v1", repositories=["second.invalid/vllm/vllm-openai"])["image"]
    cache = machine.folder / "work" / "cache" / "vllm"
    cache.mkdir(parents=True)
    machine.add("somebody/vllm:1")
    would = run(check_mode=True, state="absent")
    assert {built, pulled, str(cache)} <= set(would["removed"])
    assert cache.exists()
    gone = run(state="absent")
    assert gone["removed"] == would["removed"]
    assert machine.names() == ["llmfleet/base:debian-bookworm", "somebody/vllm:1"]
    assert not cache.exists()
    assert run(state="absent")["changed"] is False


@pytest.mark.parametrize("image", ["llmfleet/vllm:cpu-1", "llmfleet/gateway:1", "llmfleet/open-webui:1"])
def test_removing_llama_cpp_leaves_what_other_modules_made(machine, image):
    machine.add(image, "io.llmfleet.base=debian:bookworm")
    docker = Docker(lambda argv, **_: _said(argv), str(machine.docker))
    found = image_removal.remove(docker, machine.folder / "work", check_mode=True)
    assert found["removed"] == ["llmfleet/base:debian-bookworm"]


def _said(argv: t.Sequence[str]) -> tuple[int, str, str]:
    import subprocess

    done = subprocess.run(list(argv), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr
