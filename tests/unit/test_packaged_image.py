"""Images of helpers: their identity, their Dockerfile, and the module against a fake docker."""

from __future__ import annotations

import dataclasses
import json
import os
import typing as t
from pathlib import Path

import packaged_image
import pytest
from ansible.module_utils.llmfleet import build_engine
from ansible.module_utils.llmfleet.build_host import BuildHost
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.packaged import RECIPES
from ansible.module_utils.llmfleet.packaged.base import PackagedRequest
from ansible.module_utils.testing import patch_module_args
from image_host import Host

GATEWAY = RECIPES["gateway"]
OFFICIAL = f"{GATEWAY.repositories[1]}:{GATEWAY.tag}"


def test_the_key_follows_what_the_image_is_made_from():
    first = PackagedRequest(GATEWAY).key()
    assert PackagedRequest(GATEWAY).key() == first
    others = {
        PackagedRequest(GATEWAY, "arm64").key(),
        PackagedRequest(GATEWAY, base_asked="debian:trixie").key(),
        PackagedRequest(dataclasses.replace(GATEWAY, script="true")).key(),
        PackagedRequest(dataclasses.replace(GATEWAY, files={"a": "b"})).key(),
    }
    assert len({first, *others}) == 5
    # where the official image is says nothing of the built one
    assert PackagedRequest(dataclasses.replace(GATEWAY, tag="2", repositories=("x",))).key() == first
    assert PackagedRequest(GATEWAY).image() == f"llmfleet/gateway:{first}"


@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_is_whole_and_leaves_nothing_of_the_host_in_a_layer(kind):
    recipe = RECIPES[kind]
    assert recipe.kind == kind
    assert set(recipe.layouts) == {"official", "built"}
    assert set(recipe.layouts["official"]) == set(recipe.layouts["built"])
    assert recipe.tag not in ("", "latest")
    assert recipe.script.startswith("#!/bin/sh\n")
    request = PackagedRequest(recipe)
    with_buildkit = request.dockerfile("debian:bookworm", buildkit=True)
    assert "COPY" not in with_buildkit
    assert "--mount=type=secret,id=pip.conf,target=/run/llmfleet/pip.conf" in with_buildkit
    assert "id=llmfleet-apt-debian-bookworm" in with_buildkit
    legacy = request.dockerfile("debian:bookworm", buildkit=False)
    assert "--mount" not in legacy
    assert "FROM scratch\nCOPY --from=build / /\n" in legacy
    for text in (with_buildkit, legacy):
        # the tree that is copied has lost the PATH of its base
        assert "ENV PATH=" in text.replace("ENV \\\n", "ENV ")
        assert "ENTRYPOINT" in text
        assert "@" not in text
    assert request.scripts()["install.sh"] == recipe.script


def test_a_base_that_is_too_old_is_refused_or_passed_over():
    with pytest.raises(BadInput, match="ubuntu:jammy is too old or too new for nginx"):
        PackagedRequest(GATEWAY, base_asked="ubuntu:jammy").check()
    with pytest.raises(BadInput, match="not built for riscv64"):
        PackagedRequest(GATEWAY, "riscv64").check()
    request = PackagedRequest(GATEWAY)
    assert request.base_of("ubuntu:jammy") == "debian:bookworm"
    assert request.base_of("rocky:9") == "debian:bookworm"
    assert request.base_of("ubuntu:noble") == "ubuntu:noble"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    answers: dict[str, str] = {}
    monkeypatch.setattr(build_engine, "CLIENT_DIRS", ())
    monkeypatch.setattr(BuildHost, "registry_problem", lambda _self, name: answers.get(name, "no answer"))
    monkeypatch.setattr(BuildHost, "apt_sources", lambda _self, _base: [])
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", "1", "1", "x86_64")))
    made = Host(tmp_path / "host")
    made.answers = answers  # type: ignore[attr-defined]
    return made


@pytest.fixture
def run(capsys, machine):
    def run(check_mode: bool = False, **args: t.Any) -> dict[str, t.Any]:
        given = {
            "kind": "gateway",
            "docker_cli": str(machine.docker),
            "work_dir": str(machine.folder / "work"),
            "base": "debian:bookworm",
            "_ansible_check_mode": check_mode,
            **args,
        }
        with patch_module_args(given), pytest.raises(SystemExit):
            packaged_image.main()
        return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))

    return run


def test_without_a_registry_it_is_built_tried_and_named_once(run, machine):
    would = run(check_mode=True)
    assert (would["action"], would["changed"], would["base"]) == ("build", True, "present")
    assert not (machine.folder / "work").exists()
    result = run()
    assert (result["changed"], result["action"]) == (True, "build")
    assert [row["result"] for row in result["tried"]] == ["no answer", "no answer"]
    assert result["layout"] == dict(GATEWAY.layouts["built"])
    assert machine.names() == ["llmfleet/base:debian-bookworm", result["image"]]
    assert "building 1 ['Dockerfile', 'python-wheels', 'site', 'tools']" in Path(result["log"]).read_text()
    (tried,) = machine.calls("run")
    assert tried[-4:] == ["--entrypoint", "nginx", f"{result['image']}-unverified", "-V"]
    again = run()
    assert (again["changed"], again["action"], again["image"]) == (False, "keep", result["image"])
    assert run(check_mode=True)["changed"] is False


def test_the_official_image_is_pulled_where_a_registry_answers(run, machine):
    machine.answers["docker.m.daocloud.io"] = ""
    assert run(check_mode=True)["image"] == OFFICIAL
    result = run()
    assert (result["action"], result["image"]) == ("pull", OFFICIAL)
    assert result["layout"] == dict(GATEWAY.layouts["official"])
    machine.answers.clear()
    assert run()["action"] == "keep"
    # asked for is asked for
    assert run(source="build")["action"] == "build"
    assert run()["image"] == OFFICIAL


def test_a_pull_that_fails_is_made_up_for_by_a_build(run, machine):
    machine.answers["docker.m.daocloud.io"] = ""
    machine.set("pull_fails")
    result = run()
    assert result["action"] == "build"
    assert "unexpected EOF" in result["tried"][1]["result"]
    failed = run(source="pull")
    assert "No registry delivers nginx's image" in failed["msg"]
    machine.answers.clear()
    assert "No registry of nginx's image answers" in run(source="pull", check_mode=True)["msg"]


def test_a_tag_and_repositories_of_ones_own(run, machine):
    machine.answers["mine.invalid"] = ""
    assert run(tag="1.0", repositories=["mine.invalid/nginx"])["image"] == "mine.invalid/nginx:1.0"


def test_an_image_that_does_not_run_gets_no_name(run, machine):
    machine.set("illegal")
    assert "nginx in llmfleet/gateway" in run()["msg"]
    assert machine.names() == ["llmfleet/base:debian-bookworm"]


def test_removal_takes_what_was_made_and_pulled_of_this_kind(run, machine):
    built = run()
    machine.answers["docker.m.daocloud.io"] = ""
    machine.add("llmfleet/gateway:000000000001")
    machine.set("used", "000000000001")
    pulled = run(source="pull")["image"]
    machine.add("llmfleet/open-webui:1")
    would = run(check_mode=True, state="absent")
    assert {built["image"], pulled, built["log"]} <= set(would["removed"])
    gone = run(state="absent")
    assert gone["removed"] == would["removed"]
    assert gone["in_use"] == {"llmfleet/gateway:000000000001": ["chat"]}
    left = ["llmfleet/base:debian-bookworm", "llmfleet/gateway:000000000001", "llmfleet/open-webui:1"]
    assert machine.names() == left
    assert run(state="absent")["changed"] is False


def test_what_was_pulled_and_is_in_use_is_taken_by_a_later_removal(run, machine):
    machine.answers["docker.m.daocloud.io"] = ""
    pulled = run(source="pull")["image"]
    machine.set("used", pulled)
    assert run(state="absent")["in_use"] == {pulled: ["chat"]}
    machine.set("used", "nothing")
    assert pulled in run(state="absent")["removed"]
    assert run(state="absent")["changed"] is False
