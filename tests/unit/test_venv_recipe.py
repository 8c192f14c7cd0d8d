"""The environment of vLLM: what it is made of, which one a host needs, and the module that makes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import vllm_venv
from ansible.module_utils.llmfleet import vllm_pins
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.plan import make_plan, table
from ansible.module_utils.llmfleet.venv import environments, job, recipe
from ansible.module_utils.llmfleet.venv.plan import need, settle
from ansible.module_utils.llmfleet.vllm_image_plan import need as image_need
from ansible.module_utils.testing import patch_module_args
from facts import NOW, gpu, host, nvidia

SERVICE = {"name": "chat", "engine": "vllm", "runtime": "venv", "model": "/m/model", "port": 8001}
L4 = nvidia("580.95.05", "13.0", gpu("NVIDIA L4", "8.9"))
ANSWER = {"action": "build", "venv": "/opt/llmfleet/vllm-cpu-0", "python": "python3", "why": "vLLM 1"}


def test_the_key_follows_what_it_is_made_of():
    first = recipe.request_for("cpu", "", "amd64", (3, 11))
    others = [
        recipe.request_for("cpu", "", "arm64", (3, 11)),
        recipe.request_for("cpu", "", "amd64", (3, 12)),
        recipe.request_for("cuda", "0.33.0", "amd64", (3, 11)),
        recipe.request_for("cuda", "0.19.1", "amd64", (3, 11)),
    ]
    assert len({first.path(), *(one.path() for one in others)}) == 5
    assert first.requirements() == vllm_pins.requirements()
    assert others[2].requirements() == "vllm==0.33.0\n"
    assert recipe.is_environment(Path(first.path()).name)
    assert not recipe.is_environment("vllm-mine")


@pytest.mark.parametrize(
    ("asked", "version", "found", "chosen"),
    [
        ("", "", {"python3": (3, 11)}, "python3"),
        ("", "", {"python3": (3, 10), "python3.12": (3, 12)}, "python3.12"),
        ("", "0.19.1", {"python3": (3, 10), "python3.12": (3, 12)}, "python3"),
        ("", "0.8.5", {"python3": (3, 13), "python3.12": (3, 12)}, "python3.12"),
        ("python3.13", "", {"python3": (3, 11), "python3.13": (3, 13)}, "python3.13"),
    ],
)
def test_the_distributions_python_is_taken_unless_it_does_not_suit(asked, version, found, chosen):
    assert recipe.choose_python(asked, version, found) == chosen


@pytest.mark.parametrize(
    ("asked", "version", "found", "words"),
    [
        (
            "",
            "cpu",
            {"python3": (3, 10), "python3.12": None},
            r"needs Python 3\.11 to 3\.14, and this host has python3 3\.10",
        ),
        ("", "0.19.1", {"python3": (3, 9)}, r"vLLM 0\.19\.1 in a venv needs Python 3\.10 to 3\.13"),
        ("", "0.33.0", {"python3": (3, 10)}, r"needs Python 3\.11 to 3\.14"),
        ("", "", {"python3": None}, "this host has none"),
        ("python3.9", "0.19.1", {"python3.9": (3, 9)}, r"python3\.9 is 3\.9"),
        ("python3.14", "", {"python3": (3, 11)}, r"python3\.14 is not on this host"),
    ],
)
def test_a_host_without_a_fitting_python_is_refused(asked, version, found, words):
    with pytest.raises(BadInput, match=words):
        recipe.choose_python(asked, version, found)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(BadInput, match="no packages for riscv64"):
        recipe.request_for("cpu", "", "riscv64", (3, 11))
    with pytest.raises(BadInput, match="needs its version"):
        recipe.request_for("cuda", "latest; rm", "amd64", (3, 11))


def test_a_host_without_such_a_service_needs_none():
    for services in ([], [{**SERVICE, "runtime": "container"}], [{**SERVICE, "state": "stopped"}]):
        found = need(services, host(), "h1")
        assert found["needed"] is False
        assert settle(found, {})["action"] == "none"


def test_a_service_in_a_venv_needs_no_image():
    assert image_need([SERVICE], host(), "h1")["needed"] is False
    assert image_need([{**SERVICE, "runtime": "container"}], host(), "h1")["needed"] is True


def test_a_host_without_gpu_gets_the_one_for_cpus():
    plan = settle(need([SERVICE], host(), "h1"), ANSWER)
    assert (plan["action"], plan["variant"], plan["image"]) == ("build", "cpu", ANSWER["venv"])
    assert plan["why"] == "vLLM 1; no NVIDIA GPU on the PCI bus"


def test_a_host_with_gpus_gets_the_release_that_fits_and_that_the_index_has():
    found = need([SERVICE], host(gpu=L4), "h1")
    assert (found["variant"], found["version"]) == ("cuda", "0.33.0")
    # v0.32.0-cu129 is an image only
    older = need([SERVICE], host(gpu=nvidia("575.57", "12.9", gpu("NVIDIA L4", "8.9"))), "h1")
    assert older["version"] == "0.19.1"
    named = need([SERVICE], host(gpu=L4), "h1", version="0.31.0")
    assert (named["version"], named["why"]) == ("0.31.0", "vllm_venv_version is 0.31.0")


@pytest.mark.parametrize(
    ("services", "facts", "words"),
    [
        ([SERVICE, {**SERVICE, "name": "b", "port": 2, "device": "cpu"}], {"gpu": L4}, "takes two environments"),
        ([{**SERVICE, "device": "gpu"}], {}, "this host has none that can be used"),
        ([SERVICE], {"gpu": nvidia("390.1", "9.1", gpu("Tesla P40", "6.1"))}, "no vLLM of the package index suits"),
    ],
)
def test_what_no_environment_serves_is_a_problem_of_the_plan(services, facts, words):
    found = need(services, host(**facts), "h1")
    assert any(words in problem for problem in found["problems"]), found
    assert settle(found, {})["action"] == "refuse"


def test_what_the_module_refuses_is_refused_by_the_plan():
    plan = settle(need([SERVICE], host(), "h1"), {"failed": True, "msg": "no Python"})
    assert (plan["action"], plan["problems"]) == ("refuse", ["no Python"])


def test_the_printed_plan_has_the_environment_and_where_the_service_computes():
    engine = {"action": "none", "why": "nothing runs in it", "daemon": {"action": "none", "changes": [], "why": ""}}
    engine.update(restarts=False, warnings=[], problems=[])
    toolkit = {"action": "skip", "state": "absent", "version": "", "why": "-", "warnings": [], "problems": []}
    venv = settle(need([SERVICE], host(gpu=L4), "h1"), {**ANSWER, "venv": "/opt/llmfleet/vllm-cuda-0"})
    model = {"engine": "vllm", "model": "/m/model", "path": "/m/model", "action": "keep", "sha256": "", "why": "there"}
    made = make_plan([SERVICE], "h1", host(gpu=L4), engine, toolkit, {"vllm_venv": venv}, [model], NOW)
    assert made["problems"] == []
    (row,) = made["services"]
    # its GPUs need no container toolkit
    assert (row["device"], row["gpus"], row["image_reference"]) == ("GPU: NVIDIA L4", "nvidia", venv["image"])
    assert "vLLM venv" in table([made])
    assert "vLLM image  " not in table([made])


PIP = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path(sys.argv[0]).parent
if os.path.basename(sys.argv[0]) == "vllm":
    print("0.0")
    sys.exit()
conf = pathlib.Path(os.environ["PIP_CONFIG_FILE"]).read_text() if "PIP_CONFIG_FILE" in os.environ else ""
pathlib.Path({calls!r}).write_text(json.dumps([sys.argv[1:], conf or os.environ["PIP_INDEX_URL"]]))
if os.path.exists({broken!r}):
    print("ERROR: No matching distribution found for zlib==9")
    sys.exit(1)
(here.parent / "lib/python3.11/site-packages").mkdir(parents=True)
(here / "vllm").write_text(pathlib.Path(sys.argv[0]).read_text())
(here / "vllm").chmod(0o755)
"""


class Maker:
    """A host whose `python3 -m venv` makes an environment with a pip that only notes what it is asked for."""

    def __init__(self, tmp_path, monkeypatch, capsys):
        self.root, self.calls, self.broken = tmp_path / "opt", tmp_path / "calls", tmp_path / "broken"
        self.capsys = capsys
        pip = PIP.format(python=sys.executable, calls=str(self.calls), broken=str(self.broken))
        python = tmp_path / "bin" / "python3"
        python.parent.mkdir()
        (tmp_path / "pip").write_text(pip)
        python.write_text(
            '#!/bin/sh\n[ "$1" = -c ] && { echo 3 11; exit; }\n'
            f'mkdir -p "$3/bin" && cp {tmp_path}/pip "$3/bin/pip" && chmod 755 "$3/bin/pip"\n'
        )
        python.chmod(0o755)
        wheels = tmp_path / "wheels"
        wheels.mkdir()
        (wheels / f"torch-{vllm_pins.TORCH}-cp311-cp311-manylinux_2_28_x86_64.whl").write_text("")
        monkeypatch.setenv("PATH", f"{python.parent}:/usr/bin:/bin")
        monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
        monkeypatch.setattr(job.os, "uname", lambda: type("Uname", (), {"machine": "x86_64"}))
        self.args = {
            "root": str(self.root),
            "work_dir": str(tmp_path / "work"),
            "pypi_index": "http://127.0.0.1:1/simple",
        }

    def __call__(self, check=False, **args):
        with patch_module_args({**self.args, **args, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            vllm_venv.main()
        return json.loads(self.capsys.readouterr().out)


@pytest.fixture
def maker(tmp_path, monkeypatch, capsys):
    return Maker(tmp_path, monkeypatch, capsys)


def test_it_is_made_once_and_only_from_what_is_pinned(maker):
    foreseen = maker(check=True)
    assert (foreseen["action"], foreseen["changed"], maker.root.exists()) == ("build", True, False)
    made = maker()
    assert (made["action"], made["venv"]) == ("build", foreseen["venv"]), made
    asked, conf = json.loads(maker.calls.read_text())
    assert {"--no-deps", "--only-binary=:all:"} <= set(asked)
    assert "index-url = http://127.0.0.1:1/simple" in conf
    assert (Path(made["venv"]) / f"lib/python3.11/site-packages/vllm-{vllm_pins.VLLM}+cpu.dist-info/METADATA").exists()
    maker.calls.unlink()
    kept = maker()
    assert (kept["action"], kept["changed"], maker.calls.exists()) == ("keep", False, False)


def test_one_that_fails_leaves_nothing_and_says_why(maker):
    maker.broken.touch()
    failed = maker()
    assert "No matching distribution found for zlib==9 (log: " in failed["msg"]
    assert not list(maker.root.iterdir())
    assert not failed.get("changed")


def test_one_for_gpus_is_resolved_by_pip(maker):
    index = "http://me:secret@127.0.0.1:1/simple"
    made = maker(variant="cuda", version="0.33.0", pypi_index=index)
    assert made["action"] == "build", made
    asked, used = json.loads(maker.calls.read_text())
    assert "--no-deps" not in asked
    assert used == index
    assert "secret" not in " ".join(asked)


def test_a_full_disk_is_told_before_anything_is_fetched(maker, monkeypatch):
    monkeypatch.setattr(job.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 1 << 30}))
    assert "has 1 GiB free, and vLLM's environment needs 5" in maker(check=True)["msg"]


def test_all_go_but_those_in_use(tmp_path):
    root, units, work = tmp_path / "opt", tmp_path / "units", tmp_path / "work"
    path = root / "vllm-cpu-0123456789ab"
    for folder in (path, units, work / "logs", work / "cache/vllm-venv"):
        folder.mkdir(parents=True)
    (work / "logs/venv-0.log").write_text("")
    environments.finish(path, {})
    assert job.remove(root, units, work, check_mode=True)["removed"] == [
        str(path),
        str(work / "cache/vllm-venv"),
        str(work / "logs/venv-0.log"),
    ]
    assert path.exists()
    (work / ".llama_cpp_image.lock").touch()
    assert job.remove(root, units, work, check_mode=False)["changed"]
    assert not root.exists()
    assert not list(work.iterdir())
    assert job.remove(root, units, work, check_mode=False)["changed"] is False
