"""What llama-completion is asked and what is made of its words; lines recorded from commit 0c1e57098."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet import tool_prompt
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.tool_prompt import Ask

PERF = """\
0.00.014.601 I common_perf_print: prompt eval time =       0.34 ms /     6 tokens (    0.06 ms per token, 17647.06 tokens per second)
0.00.014.619 I common_perf_print:        eval time =       1.07 ms /    14 runs   (    0.08 ms per token, 13108.61 tokens per second)
0.00.014.635 I common_perf_print:       total time =       2.20 ms /    20 tokens
"""  # noqa: E501 -- as it was printed
ON_GPU = """\
0.00.1 I llama_model_load_from_file_impl: using device CUDA0 (NVIDIA H200) (0000:03:00.0) - 142000 MiB free
0.00.2 I load_tensors: offloaded 33/33 layers to GPU
0.00.2 I load_tensors:        CUDA0 model buffer size =  4000.00 MiB
"""
FALLEN_BACK = "warning: no usable GPU found, --gpu-layers option will be ignored\n"


def test_arguments() -> None:
    words = tool_prompt.argv(
        Ask("Hello", system="Be brief", context_length=512, threads=2, seed=7, temperature=0), "m.gguf"
    )
    joined = " ".join(words)
    for part in (
        *("--model /models/m.gguf", "--file /run/llmfleet/prompt", "--system-prompt-file /run/llmfleet/system"),
        *("--conversation --single-turn", "--ctx-size 512", "--threads 2", "--seed 7", "--temp 0", "--n-gpu-layers 0"),
    ):
        assert part in joined
    # the words themselves are in files, where no process list shows them
    assert "Hello" not in joined
    assert "Be brief" not in joined


def test_a_text_to_go_on_with_and_a_gpu() -> None:
    words = tool_prompt.argv(Ask("Once upon", chat=False, gpu=True), "m.gguf")
    assert "--no-conversation" in words
    assert "--single-turn" not in words
    assert words[words.index("--n-gpu-layers") + 1] == "999"
    # hidden at the usual verbosity
    assert words[words.index("--log-verbosity") + 1] == "4"


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (Ask(" "), "the prompt is empty"),
        (Ask("x", max_tokens=0), "max_tokens must be at least 1, not 0"),
        (Ask("x", context_length=-1), "must not be negative"),
        (Ask("x", system="y", chat=False), "needs the model's chat template"),
    ],
)
def test_what_no_model_can_be_asked(ask: Ask, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        tool_prompt.check(ask)


def test_the_reply_and_how_it_ended() -> None:
    assert tool_prompt.reply(" Hello there. [end of text]\n\n\n") == "Hello there."
    assert tool_prompt.ended("Hello there. [end of text]\n\n\n")
    assert tool_prompt.reply("cut in the mid\n\n") == "cut in the mid"
    assert not tool_prompt.ended("it says [end of text] within\nand goes on")


def test_speeds() -> None:
    assert tool_prompt.speeds(PERF) == {"prompt": 17647.06, "generation": 13108.61}
    assert tool_prompt.speeds("nothing of the kind") == {}


def test_the_device_is_proven_by_the_log() -> None:
    assert tool_prompt.device(Ask("x"), "", "") == "CPU"
    assert tool_prompt.device(Ask("x", gpu=True), ON_GPU, "cuda") == "33/33 layers on CUDA0 (NVIDIA H200)"
    with pytest.raises(LlmfleetError, match="the image was built for the CPU, and a GPU was planned"):
        tool_prompt.device(Ask("x", gpu=True), FALLEN_BACK, "cpu")
    with pytest.raises(LlmfleetError, match="only 20 of the model's 33 layers are on the GPU"):
        tool_prompt.device(Ask("x", gpu=True), ON_GPU.replace("33/33", "20/33"), "cuda")


def test_the_command_can_be_copied() -> None:
    words = ["run", "-it", "--mount", "type=bind,src=/srv/my models/a.gguf"]
    assert tool_prompt.command("docker", words) == "docker run -it --mount 'type=bind,src=/srv/my models/a.gguf'"
