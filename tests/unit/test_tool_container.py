"""Containers for llama.cpp's tools, and what their last words mean."""

from __future__ import annotations

import re

import pytest
from ansible.module_utils.llmfleet import tool_container
from ansible.module_utils.llmfleet.engines.base import Mount
from ansible.module_utils.llmfleet.tool_container import FAILURES, Sandbox, explain, run_argv

SANDBOX = Sandbox("name", "image:1", "10001:10001", (Mount("/srv/a,b", "/in/a"),), Mount("/srv/work", "/out"))

LOGS = {
    "the image has no converter": 'exec: "python3": executable file not found in $PATH: unknown.',
    "the image has no llama-quantize": 'exec: "/app/llama-quantize": stat /app/llama-quantize: no such file',
    "the disk is full": "OSError: [Errno 28] No space left on device",
    "does not know the architecture FooForCausalLM": "ERROR:hf-to-gguf:Model FooForCausalLM is not supported",
    "does not know the model's tokenizer": (
        "WARNING:x\nNotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()"
    ),
    "the model is quantised with awq": "NotImplementedError: Quant method is not yet supported: 'awq'",
    "the model is quantised with int3": "NotImplementedError: Quant format 'int3' for method 'x' is not yet supported",
    "the model's tokenizer is missing": (
        '    raise FileNotFoundError(f"File not found: {tokenizer_path}")\n'
        "FileNotFoundError: File not found: /in/m/tokenizer.model\n"
        "ValueError: Either model_file or model_proto must be specified."
    ),
    "weight files do not belong together": "ValueError: Mismatch between weight map and model parts for tensor names:",
    "does not know the tensor a.b": "ValueError: Can not map tensor 'a.b'",
    "needs the Python package tiktoken": "ModuleNotFoundError: No module named 'tiktoken'",
    "looked for on the network": "OSError: We couldn't connect to 'https://huggingface.co' to load this file",
    "a type that needs an importance matrix": "llama_model_quantize: failed: this quantization requires an imatrix!",
    "the model is quantised already (q4_K)": "failed to quantize: requantizing from type q4_K is disabled",
    "the importance matrix cannot be read": "load_imatrix: failed to load imatrix from '/imatrix.gguf'",
    "memory ran out": "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried",
    "an option is wrong": "usage: /app/llama-quantize [--help] [--allow-requantize]",
}
"""Cause -> what the tool said; the lines about converting were recorded from real runs with spoiled models."""


@pytest.mark.parametrize(("cause", "log"), LOGS.items())
def test_a_failure_is_told_with_cause_and_fix(cause: str, log: str) -> None:
    said = explain(1, f"first line\n{log}\nlast line")
    assert cause in said
    assert "; " in said


def test_every_row_has_its_test() -> None:
    for row in FAILURES:
        assert any(re.search(row.pattern, line) for log in LOGS.values() for line in log.splitlines()), row.pattern


def test_what_happens_when_a_model_is_loaded_is_explained_too() -> None:
    assert "this build of llama.cpp does not know the model architecture zz" in explain(
        1, "error loading model: unknown model architecture: 'zz'"
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [(124, "took longer than `timeout`"), (137, "memory ran out"), (132, "processor lacks"), (3, "nothing")],
)
def test_an_exit_status_says_something_itself(status: int, words: str) -> None:
    assert words in explain(status, "")


def test_the_converter_is_a_script_of_the_image() -> None:
    words = run_argv(SANDBOX, "convert", ["/in/a", "--outfile", "/out/x"])
    assert words[words.index("--entrypoint") :] == [
        *("--entrypoint", "python3", "image:1", "/app/convert_hf_to_gguf.py"),
        *("/in/a", "--outfile", "/out/x"),
    ]
    assert 'type=bind,"src=/srv/a,b",dst=/in/a,readonly' in words
    assert "type=bind,src=/srv/work,dst=/out" in words
    assert "HF_HUB_OFFLINE=1" in words


def test_gpus_and_memory_are_given_when_asked_for() -> None:
    plain = run_argv(SANDBOX, "llama-cli", [])
    assert not {"--gpus", "--memory", "-it"} & set(plain)
    given = Sandbox("", "i", "1:1", device_args=("--gpus", "all"), memory="2g")
    words = run_argv(given, "llama-cli", [], terminal=True)
    assert words[words.index("--gpus") + 1] == "all"
    assert words[words.index("--memory-swap") + 1] == "2g"
    assert "-it" in words
    assert "--name" not in words


def test_an_engine_without_a_client_is_said() -> None:
    docker = tool_container.Docker(lambda *_a, **_k: (1, "", ""), "")
    with pytest.raises(tool_container.LlmfleetError, match="there is no docker client on this host"):
        tool_container.find_image(docker, "x")
