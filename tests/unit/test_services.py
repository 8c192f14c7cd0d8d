"""What a service may look like, and the one sentence that refuses everything else."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.services import parse, parse_all, without_secrets

GOOD = {"name": "chat", "model": "/models/chat.gguf", "port": 8080}


def test_a_few_lines_give_a_good_service():
    service = parse(GOOD)
    assert (service.engine, service.state, service.bind, service.served_name) == (
        "llama_server",
        "started",
        "127.0.0.1",
        "chat",
    )
    assert (service.device, service.gpu_layers) == ("auto", 0)
    assert not service.public


@pytest.mark.parametrize(
    ("level", "on_cpu", "on_gpu"),
    [
        ("", "token", "device"),
        ("token", "token", "token"),
        ("http", "http", "http"),
        # what was asked of the new container is not asked of a previous one that never had a GPU
        ("device", "token", "device"),
    ],
)
def test_a_service_on_a_gpu_is_to_prove_it(level, on_cpu, on_gpu):
    verify = parse({**GOOD, "verify": {"level": level}}).verify
    assert (verify.goal(on_gpu=False), verify.goal(on_gpu=True)) == (on_cpu, on_gpu)


def test_the_api_key_is_checked_but_not_kept():
    service = parse({**GOOD, "api_key": "s3cret-key", "bind": "0.0.0.0"})
    assert service.has_api_key
    assert service.public
    assert "s3cret-key" not in repr(service)
    assert without_secrets([{**GOOD, "api_key": "s3cret-key"}]) == [GOOD]


def test_gpus_are_named_by_numbers_or_words():
    assert parse({"name": "chat", "model": "m", "port": 1, "gpus": [0, " 01:00.0 "]}).gpus == ("0", "01:00.0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": None}, ["llm_services[0]", "`name` is missing"]),
        ({"name": "Chat Bot"}, ["service Chat Bot", "names the container too"]),
        ({"name": "chat.previous"}, ["may not end in .previous"]),
        ({"name": 7}, ["llm_services[0]", "`name` must be a string, not 7"]),
        ({"engine": "llama_srever"}, ["unknown engine `llama_srever`", "did you mean `llama_server`?"]),
        ({"state": "running"}, ["`state` must be one of started, stopped, absent"]),
        ({"prot": 1}, ["unknown key `prot`", "did you mean `port`?"]),
        ({"port": 70000}, ["`port` must be between 1 and 65535, not 70000"]),
        ({"port": -1}, ["`port` must be between 1 and 65535"]),
        ({"port": None}, ["`port` is missing"]),
        ({"port": "8080"}, ["`port` must be an integer, not '8080'"]),
        ({"port": True}, ["`port` must be an integer, not True"]),
        ({"model": None}, ["`model` is missing"]),
        ({"model_sha256": "abc"}, ["`model_sha256` must be 64"]),
        ({"context_length": -5}, ["`context_length` may not be negative: -5"]),
        ({"context_length": 2.5}, ["`context_length` must be an integer (tokens), not 2.5"]),
        ({"parallel": 0}, ["`parallel` must be at least 1"]),
        ({"memory": "lots"}, ["`memory`", "such as 8g"]),
        ({"bind": "example"}, ["`bind` must be an IP address"]),
        ({"bind": "0.0.0.0"}, ["`bind: 0.0.0.0`", "set `api_key` too"]),
        ({"bind": "::"}, ["`bind: ::`", "set `api_key` too"]),
        ({"api_key": "two words"}, ["`api_key` may not contain white space"]),
        ({"api_key": "密钥"}, ["`api_key` may not contain", "other characters than ASCII's"]),
        ({"cpus": float("inf")}, ["`cpus` must be a finite number, not inf"]),
        ({"temperature": float("nan")}, ["`temperature` may not be negative: nan"]),
        ({"args": ["--port", "1"]}, ["`args` holds --port: say it with `port`"]),
        ({"args": ["--ctx-size=9"]}, ["`args` holds --ctx-size: say it with `context_length`"]),
        ({"args": ["--models-dir", "/m"]}, ["`args` may not hold --models-dir", "router"]),
        ({"args": [1]}, ["`args` must be a list of strings"]),
        ({"args": "--verbose"}, ["`args` must be a list of strings, not '--verbose'"]),
        ({"env": {"A": 1}}, ["`env` must map names to strings"]),
        ({"env": {"LLAMA_API_KEY": "x"}}, ["`env` holds LLAMA_API_KEY: say it with `api_key`"]),
        ({"env": {"A=B": "x"}}, ["`env` has names of letters, digits and `_`", "not 'A=B'"]),
        ({"env": {"": "x"}}, ["`env` has names", "not ''"]),
        ({"env": {"HF_TOKEN": "x"}}, ["HF_TOKEN, which looks like a secret"]),
        ({"verify": {"levle": "http"}}, ["service chat: verify: unknown key `levle`", "did you mean `level`?"]),
        ({"verify": {"level": "gpu"}}, ["`verify.level` must be one of process, http, model, token, device"]),
        ({"verify": {"level": "http", "answer": "x"}}, ["can only be verified at `verify.level: token`"]),
        (
            {"task": "embed", "verify": {"answer": "x"}},
            ["`verify.answer` is about an answer in words"],
        ),
        ({"task": "rerank", "verify": {"min_tokens_per_second": 2}}, ["`verify.min_tokens_per_second`", "gives none"]),
        ({"device": "cuda"}, ["`device` must be one of auto, cpu, gpu, not 'cuda'"]),
        ({"gpu_layers": -1}, ["`gpu_layers` may not be negative: -1"]),
        ({"gpu_layers": "all"}, ["`gpu_layers` must be an integer, not 'all'"]),
        ({"gpus": "0"}, ["`gpus` must be"]),
        ({"gpus": [True]}, ["`gpus` must be a list of numbers, UUIDs or PCI addresses, not True in it"]),
        ({"gpus": ["0,1"]}, ["not '0,1' in it"]),
        ({"gpus": [{"index": 0}]}, ["not a mapping in it"]),
        ({"device": "cpu", "gpus": [0]}, ["`gpus` contradicts `device: cpu`"]),
        ({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, ["`env` holds CUDA_VISIBLE_DEVICES: say it with `gpus`"]),
        ({"device": "cpu", "gpu_layers": 3}, ["`gpu_layers: 3` contradicts `device: cpu`"]),
        ({"device": "cpu", "verify": {"level": "device"}}, ["`verify.level: device` is about GPUs"]),
        ({"args": ["-ngl", "20"]}, ["`args` holds -ngl: say it with `gpu_layers`"]),
        ({"env": {"LLAMA_ARG_N_GPU_LAYERS": "20"}}, ["LLAMA_ARG_N_GPU_LAYERS: say it with `gpu_layers`"]),
        ({"verify": {"max_tokens": 0}}, ["`verify.max_tokens` must be at least 1"]),
        ({"verify": {"timeout": -3}}, ["`verify.timeout` must be at least 1, not -3"]),
        ({"verify": {"min_tokens_per_second": -0.5}}, ["`verify.min_tokens_per_second` may not be negative: -0.5"]),
        ({"verify": ["token"]}, ["`verify` must be a mapping, not a list"]),
        # what is not needed has to be right all the same
        ({"state": "absent", "port": 70000}, ["`port` must be between 1 and 65535"]),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, words):
    with pytest.raises(BadInput) as refusal:
        parse({**GOOD, **change})
    sentence = str(refusal.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"PORT": 1}, "unknown key `PORT` (did you mean `port`?)"),
        ({"contextlength": 1}, "unknown key `contextlength` (did you mean `context_length`?)"),
        ({"gpu_memory": 0.9}, "unknown key `gpu_memory` (did you mean `gpu_memory_utilization`?)"),
        ({"qqq": 1}, "unknown key `qqq` (docs/services.md lists all keys)"),
        ({"verify": {"qqq": 1}}, "unknown key `qqq` (known: level, prompt, "),
        ({"verify": {"time_out": 1}}, "verify: unknown key `time_out` (did you mean `timeout`?)"),
        ({"engine": "llama-server"}, "unknown engine `llama-server` (did you mean `llama_server`?)"),
        ({"engine": "vLLM"}, "unknown engine `vLLM` (did you mean `vllm`?)"),
        ({"engine": "ollama.cpp.x"}, "unknown engine `ollama.cpp.x` (known: llama_server, vllm)"),
        ({"state": "start"}, "not 'start' (did you mean `started`?)"),
        ({"state": "stop"}, "not 'stop' (did you mean `stopped`?)"),
        ({"device": "GPU"}, "not 'GPU' (did you mean `gpu`?)"),
        ({"device": "gpus"}, "not 'gpus' (did you mean `gpu`?)"),
        ({"verify": {"level": "tokens"}}, "not 'tokens' (did you mean `token`?)"),
        ({"cache_type": "Q8"}, "not 'Q8' (did you mean `q8_0`?)"),
        ({"engine": "vllm", "model": "o/r", "cache_type": "fp8_e5m2"}, "not 'fp8_e5m2' (did you mean `fp8`?)"),
        ({"engine": "vllm", "model": "o/r", "dtype": "bf16"}, "not 'bf16' (did you mean `bfloat16`?)"),
    ],
)
def test_what_was_nearly_right_is_named(change, hint):
    with pytest.raises(BadInput) as refusal:
        parse({**GOOD, **change})
    assert hint in str(refusal.value)


@pytest.mark.parametrize(
    "raw",
    [
        {**GOOD, "api_key": 1234567},
        {**GOOD, "api_key": "1234567 "},
        {**GOOD, "api_key": ["1234567"]},
        [{**GOOD, "api_key": "1234567"}],
    ],
)
def test_no_refusal_shows_a_key(raw):
    with pytest.raises(BadInput) as refusal:
        parse_all([raw])
    assert "1234567" not in str(refusal.value)
    if isinstance(raw, dict):
        assert "`api_key`" in str(refusal.value)


def test_a_service_in_place_of_the_list_does_not_show_its_key():
    with pytest.raises(BadInput, match="llm_services must be a list of services, not a mapping") as refusal:
        parse_all({**GOOD, "api_key": "1234567"})
    assert "1234567" not in str(refusal.value)


@pytest.mark.parametrize("raw", [None, "chat", {"name": "chat"}])
def test_services_must_be_a_list(raw):
    with pytest.raises(BadInput, match="llm_services must be a list"):
        parse_all(raw)


def test_a_service_must_be_a_mapping():
    with pytest.raises(BadInput, match=r"llm_services\[1\] must be a mapping|llm_services\[1\]: must be a mapping"):
        parse_all([GOOD, "chat"])


def test_names_and_ports_are_unique_on_a_host():
    with pytest.raises(BadInput, match="service chat: `name` is used twice"):
        parse_all([GOOD, {**GOOD, "port": 8081}])
    with pytest.raises(BadInput, match="service other: `port` 8080 is taken by service chat"):
        parse_all([GOOD, {**GOOD, "name": "other"}])


def test_a_stopped_service_does_not_hold_its_port():
    assert len(parse_all([GOOD, {**GOOD, "name": "other", "state": "stopped"}])) == 2


def test_an_absent_service_needs_no_more_than_its_name():
    assert parse({"name": "chat", "state": "absent"}).state == "absent"
