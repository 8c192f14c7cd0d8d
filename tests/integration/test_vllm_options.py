"""What a service says about the work of vLLM is taken by vLLM's own parser of arguments: no flag is invented."""

from __future__ import annotations

import json
import math
import subprocess
import typing as t
import urllib.request

import pytest
import tiny_hf
from ansible.module_utils.llmfleet.engines import vllm
from ansible.module_utils.llmfleet.service_fields import KEYS
from ansible.module_utils.llmfleet.services import parse
from helpers import free_port, run_module

pytestmark = pytest.mark.full

PARSER = """
import argparse, json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

def refuse(self, message):
    raise ValueError(message)

argparse.ArgumentParser.error = refuse
said = []
for argv in json.load(sys.stdin):
    parser = make_arg_parser(FlexibleArgumentParser())
    try:
        found = vars(parser.parse_args(argv))
        said.append({key: value if isinstance(value, (str, int, float, bool, dict, list)) else str(value)
                     for key, value in found.items()})
    except (ValueError, SystemExit) as error:
        said.append(f"refused: {error}")
parser = make_arg_parser(FlexibleArgumentParser())
flags = sorted(flag for action in parser._actions for flag in action.option_strings)
print("RESULT" + json.dumps([said, flags], default=str))
"""

FIELDS: dict[str, t.Any] = {
    "pipeline_parallel": 2,
    "expert_parallel": True,
    "quantization": "fp8",
    "load_format": "safetensors",
    "trust_remote_code": True,
    "enforce_eager": True,
    "batch_size": 4096,
    "chunked_prefill": False,
    "prefix_caching": False,
    "cpu_offload": 2.5,
    "kv_offload": 8,
    "generation_config": "/srv/generation",
    "max_tokens": 100,
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "min_p": 0,
    "repetition_penalty": 1.05,
    "seed": 7,
    "chat_template": "/srv/chat.jinja",
    "tool_call_parser": "hermes",
    "reasoning_parser": "qwen3",
    "draft_model": "/models/draft",
    "draft_tokens": 4,
    "lora": ["mine=/srv/adapter", "/srv/other"],
    "log_level": "debug",
}


def argv_of(**fields: t.Any) -> list[str]:
    service = parse({"name": "chat", "engine": "vllm", "model": "/models/m", "port": 1, **fields})
    made = vllm.launch(service, "/models/m", 512, "", True, more={"draft_model": "/files/draft_model/own/draft"})
    assert made.entrypoint == "vllm"
    # `serve` is a word of the command before the parser
    return list(made.argv[1:])


@pytest.fixture(scope="module")
def asked() -> tuple[dict[str, t.Any], list[str]]:
    """What the parser makes of each line by its name, and all flags that it has."""
    image = run_module("vllm_image", {})["image"]
    removed = [flag for flag, why in vllm.REFUSED_FLAGS.items() if "was removed" in why or "no such flag" in why]
    lines = {
        "plain": argv_of(),
        "all": argv_of(tensor_parallel=2, dtype="half", cache_type="fp8", gpu_memory_utilization=0.5, **FIELDS),
        "off": argv_of(expert_parallel=False, trust_remote_code=False, chunked_prefill=True, prefix_caching=True),
        "text": argv_of(
            chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}", generation_config="vllm"
        ),
        **{task: argv_of(task=task) for task in vllm.PATHS},
        "pooling": argv_of(task="embed", pooling="mean"),
        **{flag: ["/models/m", flag, "1"] for flag in removed},
    }
    command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--entrypoint", "python", image, "-c"]
    said = subprocess.run(
        [*command, PARSER], input=json.dumps(list(lines.values())), capture_output=True, text=True, check=False
    )
    found = [line for line in said.stdout.splitlines() if line.startswith("RESULT")]
    assert found, said.stderr
    answers, flags = json.loads(found[0].removeprefix("RESULT"))
    return dict(zip(lines, answers)), flags


def test_every_field_is_tested_here():
    own = {name for name, option in vllm.OPTIONS.items() if option.own} - {"enforce_eager"}
    assert set(vllm.OPTIONS) - own == {*FIELDS, "task", "pooling"}
    assert set(FIELDS) <= set(KEYS)


def test_all_fields_mean_what_they_say(asked):
    found = asked[0]["all"]
    assert isinstance(found, dict), found
    wanted = {
        "pipeline_parallel_size": 2,
        "tensor_parallel_size": 2,
        "enable_expert_parallel": True,
        "quantization": "fp8",
        "load_format": "safetensors",
        "trust_remote_code": True,
        "enforce_eager": True,
        "max_num_batched_tokens": 4096,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
        "cpu_offload_gb": 2.5,
        "kv_offloading_size": 8.0,
        "generation_config": "/files/generation_config/own/generation",
        "seed": 7,
        "chat_template": "/files/chat_template/own/chat.jinja",
        "enable_auto_tool_choice": True,
        "tool_call_parser": "hermes",
        "reasoning_parser": "qwen3",
        "enable_lora": True,
    }
    assert {key: found[key] for key in wanted} == wanted
    sampling = {"max_new_tokens": 100, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0}
    assert found["override_generation_config"] == {**sampling, "repetition_penalty": 1.05}
    speculation = {"model": "/files/draft_model/own/draft", "num_speculative_tokens": 4}
    assert found["speculative_config"] == speculation
    for words in ("mine", "/files/lora/mine/own/adapter", "other", "/files/lora/own/other"):
        assert words in str(found["lora_modules"])


def test_what_is_off_and_what_is_text(asked):
    said = asked[0]
    assert (said["off"]["enable_chunked_prefill"], said["off"]["enable_prefix_caching"]) == (True, True)
    assert (said["off"]["trust_remote_code"], said["off"]["enable_expert_parallel"]) == (False, False)
    assert said["text"]["chat_template"].startswith("{% for")
    assert said["text"]["generation_config"] == "vllm"
    assert said["plain"]["enforce_eager"] is False


@pytest.mark.parametrize("task", vllm.PATHS)
def test_every_task_is_one_of_vllms_runners(asked, task):
    assert asked[0][task]["runner"] == ("auto" if task == "generate" else "pooling")


def test_pooling_is_a_word_of_its_configuration(asked):
    assert "MEAN" in str(asked[0]["pooling"]["pooler_config"])


def test_flags_that_are_refused_in_favour_of_a_field_exist(asked):
    known = set(asked[1])
    # `--task` was its name before `--runner`
    assert {flag for flag in (*vllm.OWNED_FLAGS, *vllm.SHARED_FLAGS) if flag not in known} <= {"--task"}


def test_flags_that_were_removed_are_none_of_the_real_parser(asked):
    removed = {flag: said for flag, said in asked[0].items() if flag.startswith("--")}
    assert len(removed) > 10
    assert {flag: said for flag, said in removed.items() if not str(said).startswith("refused:")} == {}


def test_the_real_vllm_embeds(tmp_path):
    """The fields that a CPU can do, in one start."""
    tmp_path.chmod(0o755)
    model = tiny_hf.write(tmp_path / "tiny-hf", head_dim=32)
    name, port = f"test-vllm-options-{free_port()}", free_port()
    service = {"name": name, "engine": "vllm", "model": str(model), "port": port, "task": "embed", "pooling": "mean"}
    fields = {"batch_size": 512, "prefix_caching": False, "seed": 3, "log_level": "debug", "context_length": 256}
    try:
        made = run_module(
            "llm_service",
            {
                "service": {**service, **fields, "verify": {"level": "model"}},
                "image": run_module("vllm_image", {})["image"],
                "model_path": str(model),
                "directory": str(tmp_path / "services"),
                "cache_directory": str(tmp_path / "cache"),
            },
        )
        assert not made.get("failed"), made["msg"]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/embeddings",
            json.dumps({"model": name, "input": ["hello", "world"]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            rows = json.load(answer)["data"]
        assert len(rows) == 2
        assert all(math.isclose(math.hypot(*row["embedding"]), 1.0, rel_tol=1e-2) for row in rows)
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
