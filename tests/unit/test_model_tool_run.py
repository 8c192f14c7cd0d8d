"""model_tool_run with a stand-in for docker: the prompt's way, the answer, and what goes wrong."""

from __future__ import annotations

import io
import json
import sys
import typing as t
from pathlib import Path

import model_tool_run
import pytest
from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.testing import patch_module_args

TESTS = Path(__file__).resolve().parents[1]
SAYS = {
    "says": "Because of the air. [end of text]\n\n",
    "logs": "eval time = 1 ms / 14 runs (0.1 ms, 21.5 tokens per second)",
}
FALLEN_BACK = "warning: no usable GPU found, --gpu-layers option will be ignored"
Run = t.Callable[..., "dict[str, t.Any]"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model and a stand-in for docker."""
    stream = io.BytesIO()
    tiny_gguf.write(stream, layers=1, dim=32)
    (tmp_path / "small.gguf").write_bytes(stream.getvalue())
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{TESTS / "fake_tools.py"}" "$@"\n')
    docker.chmod(0o755)
    return tmp_path


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("FAKE_TOOLS_CALLS", str(place / "calls"))

    def run(*, check: bool = False, told: t.Any = None, **more: t.Any) -> dict[str, t.Any]:
        monkeypatch.setenv("FAKE_TOOLS", json.dumps({**SAYS, **(told or {})}))
        arguments = {
            "model": str(place / "small.gguf"),
            "prompt": "Why is the sky blue?",
            "image": "tools",
            "docker_cli": str(place / "docker"),
            "_ansible_check_mode": check,
        }
        with patch_module_args({**arguments, **more}), pytest.raises(SystemExit):
            model_tool_run.main()
        return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out.splitlines()[-1]))

    return run


def calls(place: Path) -> list[list[str]]:
    path = place / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_an_answer(run: Run, place: Path) -> None:
    result = run()
    assert result["text"] == "Because of the air."
    assert result["ended"] is True
    assert result["changed"] is False
    assert result["device"] == "CPU"
    assert result["tokens_per_second"] == {"generation": 21.5}
    assert result["gguf"]["name"] == "llmfleet tiny"
    words = next(words for words in calls(place) if words[0] == "run")
    assert "Why is the sky blue?" not in words
    assert words[words.index("--network") + 1] == "none"
    # a container that outlives its client would go on computing
    assert calls(place)[-1][:2] == ["rm", "--force"]
    assert "-it" in result["command"]
    assert result["command"].endswith("--n-gpu-layers 0")


def test_check_mode_asks_nothing(run: Run, place: Path) -> None:
    result = run(check=True)
    assert (result["text"], result["device"], result["changed"]) == ("", "", False)
    assert "llama-cli" in result["command"]
    assert not calls(place)


def test_a_gpu_that_is_not_used_is_a_failure(run: Run) -> None:
    told = {"logs": FALLEN_BACK, "labels": {"io.llmfleet.variant": "cpu"}}
    assert "the image was built for the CPU, and a GPU was planned" in run(gpus="nvidia", told=told)["msg"]


@pytest.mark.parametrize(
    ("more", "told", "sentence"),
    [
        ({"prompt": ""}, {}, "the prompt is empty"),
        ({"model": "x.gguf"}, {}, "model must be the absolute path"),
        ({"model": "/nonexistent/x.gguf"}, {}, "there is no such file"),
        ({}, {"images": []}, "the image tools is not on this host"),
        ({"timeout": 1}, {"sleep": 5}, "no answer in 1 s; raise timeout"),
        (
            {},
            {"fail": {"llama-completion": [1, "unknown model architecture: 'zz'"]}},
            "does not know the model architecture",
        ),
        (
            {},
            {"fail": {"llama-completion": [127, 'exec: "/app/llama-completion": stat']}},
            "the image has no llama-completion",
        ),
        ({}, {"says": "Because of"}, "ended 20 times before it had printed the answer"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    run: Run, more: dict[str, t.Any], told: dict[str, t.Any], sentence: str
) -> None:
    result = run(told=told, **more)
    assert result["failed"]
    assert sentence in result["msg"]
    assert "Traceback" not in result["msg"]
