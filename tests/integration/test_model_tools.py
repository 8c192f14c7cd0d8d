"""Making and running models with the real tools of llama.cpp on the real engine.

`make test` walks quantising, splitting, merging and running with an image of the programs alone; converting needs
Python and PyTorch in the image, which takes minutes and stands in the tests marked full.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import llama_cpp_image
import pytest
import tiny_hf
import yaml
from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.image_job import ImageJob
from ansible.module_utils.llmfleet.image_request import BuildRequest
from ansible.module_utils.llmfleet.source_host import limited
from helpers import docker, free_port, run_module, start_module

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("llama-server", "llama-cli", "llama-completion", "llama-quantize", "llama-gguf-split")
DEFAULTS = {name: option.get("default") for name, option in llama_cpp_image.ARGUMENT_SPEC.items()}


class Request(BuildRequest):
    """An image of the programs of a full one, without Python."""

    def programs(self) -> tuple[str, ...]:
        return PROGRAMS


class Job(ImageJob):
    """Makes it."""

    def _request(self) -> BuildRequest:
        return Request(**vars(super()._request()))


@pytest.fixture(scope="module")
def tools(image: str) -> str:
    """An image with the tools; its objects are compiled already, for the image of the services."""
    assert image
    done = Job({**DEFAULTS, "source": "build", "keep": 1000}, False, limited(1200)).provide()
    return str(done["image"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an F32 model that K-quants apply to."""
    tmp_path.chmod(0o755)
    stream = io.BytesIO()
    tiny_gguf.write(stream, dim=256)
    (tmp_path / "small-F32.gguf").write_bytes(stream.getvalue())
    return tmp_path


def make(folder: Path, image: str, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
    given = {
        "source": str(folder / "small-F32.gguf"),
        "dest": str(folder / "made"),
        "image": image,
        "log_dir": str(folder / "logs"),
        **more,
    }
    result = run_module("model_tool_make", given, check=check)
    assert not result.get("failed"), result
    return result


def ask(model: str, image: str, **more: t.Any) -> dict[str, t.Any]:
    return run_module("model_tool_run", {"model": model, "prompt": "What\nis this?", "image": image, **more})


def playbook(name: str, inventory: Path, *arguments: str, code: int = 0) -> str:
    """Run a playbook as a user does, with its one command; return what it printed."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), f"playbooks/{name}", "-i", str(inventory)]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return " ".join(done.stdout.split())


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Two hosts, of which the playbooks are to take the first one."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    variables = {"llama_cpp_image_source": "build", "llama_cpp_image_keep": 1000}
    hosts = {"localhost": local, "second": {"ansible_host": "192.0.2.1"}}
    path = tmp_path / "inventory"
    path.write_text(yaml.safe_dump({"llm_hosts": {"hosts": hosts, "vars": variables}}))
    return path


def test_quantise_split_merge_and_run(tools: str, folder: Path) -> None:
    quantized = make(folder, tools)
    assert quantized["gguf"]["architecture"] == "llama"
    small, big = os.path.getsize(quantized["path"]), os.path.getsize(folder / "small-F32.gguf")
    assert small < big / 4
    assert not make(folder, tools)["changed"]

    whole = make(folder, tools, type="keep", split_size="1M", dest=str(folder / "parts/big.gguf"))
    assert len(whole["files"]) > 3

    merged = make(folder, tools, source=whole["path"], type="keep", dest=str(folder / "merged.gguf"))
    again = make(folder, tools, source=whole["path"], type="Q4_K_M", dest=str(folder / "again.gguf"))
    # from the parts comes what came from the whole, as far as numbers go
    assert os.path.getsize(merged["path"]) == pytest.approx(big, rel=0.001)
    assert os.path.getsize(again["path"]) == pytest.approx(small, rel=0.01)

    speeds = []
    for path in (quantized["path"], whole["path"], merged["path"], again["path"]):
        answer = ask(path, tools)
        assert not answer.get("failed"), answer
        assert answer["text"] == tiny_gguf.ANSWER
        assert answer["ended"]
        speeds.append(answer["tokens_per_second"].get("generation", 0))
    # the program may end before it has printed the speed
    assert max(speeds) > 0
    cut = ask(quantized["path"], tools, max_tokens=3, chat=False)
    assert (cut["text"], cut["ended"]) == ("Hello from llmfleet:", False)
    left = docker("ps", "--all", "--format", "{{.Names}}")
    assert "llmfleet-run-" not in left
    assert "llmfleet-make-" not in left


def test_the_service_serves_what_was_made(tools: str, folder: Path) -> None:
    made = make(folder, tools, type="Q8_0", split_size="1M")
    assert len(made["files"]) > 1
    service = {"name": "test-made-model", "model": made["path"], "port": free_port()}
    arguments = {"image": tools, "model_path": made["path"], "directory": str(folder / "services")}
    try:
        served = run_module("llm_service", {"service": service, **arguments})
        assert served["verification"]["reply"].strip() == tiny_gguf.ANSWER, served
    finally:
        run_module("llm_service", {"service": {**service, "state": "absent"}, **arguments})


def test_a_run_that_is_killed_leaves_nothing_that_computes_on(tools: str, folder: Path) -> None:
    # large enough to be caught at work
    with (folder / "large.gguf").open("wb") as file:
        tiny_gguf.write(file, layers=4, dim=512)
    given = {
        "source": str(folder / "large.gguf"),
        "dest": str(folder / "made"),
        "image": tools,
        "type": "Q2_K",
        "threads": 1,
        "log_dir": str(folder / "logs"),
    }
    process = start_module("model_tool_make", given)
    work = folder / "made/.large-Q2_K.making/out"
    end = time.monotonic() + 60
    while not (work.exists() and any(work.iterdir())):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (folder / "made/large-Q2_K.gguf").exists()
    made = run_module("model_tool_make", given)
    assert made["changed"], made
    assert sorted(path.name for path in (folder / "made").iterdir()) == ["large-Q2_K.gguf", "large-Q2_K.made.json"]
    assert "llmfleet-make-" not in docker("ps", "--all", "--format", "{{.Names}}")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"options": ["--no-such-option"]}, "an option is wrong"),
        ({"imatrix": "small-F32.gguf", "type": "IQ2_XS"}, "the importance matrix cannot be read"),
        ({"type": "IQ3_XS"}, "a tensor would get a type that needs an importance matrix"),
    ],
)
def test_what_the_tools_refuse_is_told(tools: str, folder: Path, more: dict[str, t.Any], sentence: str) -> None:
    if "imatrix" in more:
        more = {**more, "imatrix": str(folder / more["imatrix"])}
    given = {"source": str(folder / "small-F32.gguf"), "dest": str(folder / "made"), "image": tools, **more}
    result = run_module("model_tool_make", {**given, "log_dir": str(folder / "logs")})
    assert result["failed"]
    assert sentence in result["msg"], result["msg"]
    assert list((folder / "made").iterdir()) == []


def test_an_image_without_the_program_is_told(image: str, folder: Path) -> None:
    result = ask(str(folder / "small-F32.gguf"), image)
    assert "the image has no llama-completion" in result["msg"]


def test_a_gpu_on_the_image_for_the_cpu_is_refused(tools: str, folder: Path) -> None:
    # a host without the NVIDIA toolkit refuses earlier, in the engine's words
    result = ask(str(folder / "small-F32.gguf"), tools, gpus="moore_threads")
    assert "the image was built for the CPU, and a GPU was planned" in result["msg"]


def test_the_playbooks_with_one_command_each(tools: str, folder: Path, inventory: Path) -> None:
    given = (
        *("-e", f"model_tools_source={folder}/small-F32.gguf", "-e", f"model_tools_dest={folder}/made"),
        *("-e", f"model_tools_image={tools}", "-e", f"model_tools_log_dir={folder}/logs"),
    )
    assert "would be made: quantise to Q4_K_M" in playbook("quantize.yml", inventory, *given, "--check", "--diff")
    assert not (folder / "made").exists()
    first = playbook("quantize.yml", inventory, *given)
    assert "small-Q4_K_M.gguf: quantise to Q4_K_M" in first
    assert "tail -F" in first
    assert "second" not in first
    again = playbook("quantize.yml", inventory, *given)
    assert "changed=0" in again
    assert "it was made of this source with these options before" in again

    question = json.dumps({"model_tools_model": f"{folder}/made/small-Q4_K_M.gguf", "model_tools_prompt": "Say 'hi'"})
    answer = playbook("run-model.yml", inventory, "-e", question, "-e", f"model_tools_image={tools}")
    assert tiny_gguf.ANSWER in answer
    assert "To talk with it, on the host: docker run --rm -it" in answer
    assert "changed=0" in answer

    assert "model_tools_source is empty" in playbook("quantize.yml", inventory, code=2)
    assert "model_tools_prompt is empty" in playbook("run-model.yml", inventory, "-e", "model_tools_model=tiny", code=2)
    missing = playbook("quantize.yml", inventory, "-e", "model_tools_source=/nonexistent/model", code=2)
    assert "model /nonexistent/model: there is no such file" in missing


@pytest.mark.full
def test_from_hugging_face_to_an_answer_with_one_command(folder: Path, inventory: Path) -> None:
    """The images are made by the playbooks themselves: full for the conversion, light for the run."""
    snapshot = folder / "models--org--tiny" / "snapshots" / "abc"
    blobs = folder / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(tiny_hf.write(folder / "hf", dim=256, shards=2).iterdir())):
        file.rename(blobs / f"b{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/b{number}")
    given = (
        *("-e", f"model_tools_source={snapshot}", "-e", f"model_tools_dest={folder}/made"),
        *("-e", f"model_tools_log_dir={folder}/logs"),
    )
    first = playbook("quantize.yml", inventory, *given, "-e", "model_tools_split_size=1M")
    assert "convert to BF16, quantise to Q4_K_M, split into parts of 1M at most" in first
    path = f"{folder}/made/tiny-Q4_K_M.gguf"
    assert os.path.exists(path)  # smaller than a part
    assert "changed=0" in playbook("quantize.yml", inventory, *given, "-e", "model_tools_split_size=1M")
    answer = playbook("run-model.yml", inventory, "-e", f"model_tools_model={path}", "-e", "model_tools_prompt=What?")
    assert tiny_gguf.ANSWER in answer
