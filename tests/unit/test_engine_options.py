"""Fields of a service as arguments of its engine: what is said, what is refused, and what stays as it was."""

from __future__ import annotations

import re
import typing as t

import pytest
from ansible.module_utils.llmfleet.engines import ENGINES, llama_server, options, vllm
from ansible.module_utils.llmfleet.engines.options import Option
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.service_fields import KEYS, Service
from ansible.module_utils.llmfleet.service_options import MODEL_KEYS, NEEDS, OPTION_KEYS, Options
from ansible.module_utils.llmfleet.services import parse, with_more

LLAMA = {"name": "chat", "model": "/models/chat.gguf", "port": 8080}
VLLM = {"name": "chat", "engine": "vllm", "model": "/models/qwen3", "port": 8001}
OF_EVERY_ENGINE = {
    *("name", "engine", "runtime", "state", "model_sha256", "device", "gpus", "memory", "cpus", "image"),
    *("args", "env", "verify"),
}
"""Keys that are about the container, or not about the engine's words."""


def llama(has_gpus: bool = False, more: dict[str, str] | None = None, **fields: t.Any) -> list[str]:
    service = parse({**LLAMA, **fields})
    return list(llama_server.launch(service, "/models/chat.gguf", 4096, "", has_gpus, more=more).argv)


def of_vllm(has_gpus: bool = True, more: dict[str, str] | None = None, **fields: t.Any) -> list[str]:
    return list(vllm.launch(parse({**VLLM, **fields}), "/models/qwen3", 4096, "", has_gpus, more=more).argv)


LLAMA_PLAIN = [
    *("--model", "/models/chat.gguf", "--alias", "chat", "--host", "0.0.0.0", "--port", "8080"),
    *("--ctx-size", "4096", "--parallel", "1", "--fit", "off", "--metrics", "--no-slots", "--offline"),
]
VLLM_PLAIN = [
    *("serve", "/models/qwen3", "--served-model-name", "chat", "--host", "0.0.0.0", "--port", "8000"),
    *("--max-model-len", "4096", "--max-num-seqs", "64", "--disable-uvicorn-access-log"),
]


def test_a_service_that_says_nothing_of_it_is_started_as_ever():
    """Byte for byte: a difference would restart every service of a fleet on an upgrade."""
    assert llama() == LLAMA_PLAIN
    said = {"cache_type": "q8_0", "threads": 4, "parallel": 2, "args": ["--no-warmup"]}
    tail = "--cache-type-k q8_0 --cache-type-v q8_0 --threads 4"
    plain = [*LLAMA_PLAIN[:9], "8192", "--parallel", "2", *LLAMA_PLAIN[12:]]
    assert llama(**said) == [*plain, *tail.split(), "--no-warmup"]
    on_gpu = [*plain, *tail.split(), *["--n-gpu-layers", "999", "--verbosity", "4", "--no-warmup"]]
    assert llama(has_gpus=True, **said) == on_gpu
    assert llama(has_gpus=True, device="cpu") == [*LLAMA_PLAIN, "--device", "none"]

    assert of_vllm() == VLLM_PLAIN
    full = {"gpu_memory_utilization": 0.9, "dtype": "half", "cache_type": "fp8", "tensor_parallel": 2, "args": ["-x"]}
    tail = "--gpu-memory-utilization 0.9 --dtype half --kv-cache-dtype fp8 --tensor-parallel-size 2 -x"
    assert of_vllm(**full) == [*VLLM_PLAIN, *tail.split()]
    on_cpu = ["--enforce-eager", "--dtype", "float32", "--gpu-memory-utilization", "0.4"]
    assert of_vllm(has_gpus=False) == [*VLLM_PLAIN, *on_cpu]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"flash_attention": True}, "--flash-attn on"),
        ({"flash_attention": False}, "--flash-attn off"),
        ({"prefix_caching": False}, "--no-cache-prompt"),
        ({"jinja": False}, "--no-jinja"),
        ({"cache_ram": 0}, "--cache-ram 0"),
        ({"cache_ram": -1}, "--cache-ram -1"),
        ({"cpu_moe_layers": 12}, "--n-cpu-moe 12"),
        ({"temperature": 0.25, "top_p": 1, "top_k": 0}, "--temp 0.25 --top-p 1 --top-k 0"),
        ({"chat_template": "chatml"}, "--chat-template chatml"),
        ({"chat_template": "/srv/t.jinja"}, "--chat-template-file /files/chat_template/own/t.jinja"),
        ({"grammar": "/srv/g.gbnf"}, "--grammar-file /files/grammar/own/g.gbnf"),
        (
            {"lora": ["/srv/a.gguf", "b=/srv/a.gguf"]},
            "--lora /files/lora/own/a.gguf,/files/lora/b/own/a.gguf",
        ),
        ({"task": "embed", "pooling": "cls"}, "--batch-size 4096 --ubatch-size 4096 --embeddings --pooling cls"),
        ({"task": "embed", "ubatch_size": 256}, "--embeddings --ubatch-size 256"),
        (
            {"task": "rerank", "batch_size": 9000},
            "--ubatch-size 4096 --reranking --batch-size 9000",
        ),
        ({"log_level": "warning"}, "--verbosity 2"),
    ],
)
def test_what_llama_server_is_told(fields, words):
    assert llama(**fields) == [*LLAMA_PLAIN, *words.split()]


def test_other_models_are_where_the_container_sees_them():
    said = llama(draft_model="o/r:Q4_0", draft_tokens=6, more={"draft_model": "/files/draft_model/own/x.gguf"})
    words = "--spec-type draft-simple --model-draft /files/draft_model/own/x.gguf --spec-draft-n-max 6"
    assert said == [*LLAMA_PLAIN, *words.split()]
    on_gpu = llama(has_gpus=True, draft_model="o/r")
    assert on_gpu[on_gpu.index("--n-gpu-layers") :][:4] == ["--n-gpu-layers", "999", "--gpu-layers-draft", "999"]
    said = llama(mmproj="o/r/mmproj-F16.gguf", more={"mmproj": "/files/mmproj/own/mmproj-F16.gguf"})
    assert said == [*LLAMA_PLAIN, "--mmproj", "/files/mmproj/own/mmproj-F16.gguf"]
    said = of_vllm(draft_model="o/r", more={"draft_model": "/files/draft_model/own/r"})
    config = '{"model": "/files/draft_model/own/r", "num_speculative_tokens": 5}'
    assert said == [*VLLM_PLAIN, "--speculative-config", config]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"trust_remote_code": True, "expert_parallel": True}, ["--enable-expert-parallel", "--trust-remote-code"]),
        ({"trust_remote_code": False, "expert_parallel": False}, []),
        (
            {"prefix_caching": False, "chunked_prefill": True},
            ["--enable-chunked-prefill", "--no-enable-prefix-caching"],
        ),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enforce_eager": False}, []),
        ({"cpu_offload": 4, "kv_offload": 0.5}, ["--cpu-offload-gb", "4", "--kv-offloading-size", "0.5"]),
        ({"tool_call_parser": "hermes"}, ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]),
        ({"max_tokens": 9, "top_k": 0}, ["--override-generation-config", '{"max_new_tokens": 9, "top_k": 0}']),
        ({"task": "embed", "pooling": "mean"}, ["--runner", "pooling", "--pooler-config", '{"pooling_type": "MEAN"}']),
        ({"task": "classify"}, ["--runner", "pooling"]),
        (
            {"lora": ["/srv/a", "b=/srv/c"]},
            ["--enable-lora", "--lora-modules", "a=/files/lora/own/a", "b=/files/lora/b/own/c"],
        ),
        ({"generation_config": "vllm"}, ["--generation-config", "vllm"]),
    ],
)
def test_what_vllm_is_told(fields, words):
    assert of_vllm(**fields) == [*VLLM_PLAIN, *words]


def test_on_a_cpu_vllm_compiles_only_when_told_so():
    assert "--enforce-eager" in of_vllm(has_gpus=False)
    assert "--enforce-eager" not in of_vllm(has_gpus=False, enforce_eager=False)


def test_the_log_level_of_vllm_is_a_variable():
    made = vllm.launch(parse({**VLLM, "log_level": "debug"}), "/models/qwen3", 4096, "")
    assert made.env["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert "VLLM_LOGGING_LEVEL" not in vllm.launch(parse(VLLM), "/models/qwen3", 4096, "").env


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_knows_every_key_or_says_why_not(name):
    engine = ENGINES[name]
    assert set(engine.OPTIONS) & set(engine.REFUSED_FIELDS) == set()
    assert set(KEYS) - OF_EVERY_ENGINE == set(engine.OPTIONS) | set(engine.REFUSED_FIELDS)
    assert {key for words in (engine.CHOICES, engine.REFUSED_WORDS) for key in words} <= set(engine.OPTIONS)
    assert all(
        why and not why.endswith(".") for why in (*engine.REFUSED_FIELDS.values(), *engine.REFUSED_FLAGS.values())
    )


@pytest.mark.parametrize("name", ENGINES)
def test_no_flag_is_owned_and_refused_or_owned_twice(name):
    engine = ENGINES[name]
    assert set(engine.OWNED_FLAGS) & (set(engine.REFUSED_FLAGS) | set(engine.SHARED_FLAGS)) == set()
    assert set(engine.OWNED_ENV) & set(engine.REFUSED_ENV) == set()
    flags = [flag for option in engine.OPTIONS.values() if not option.member for flag in (option.flag, *option.also)]
    said = [flag for flag in flags if flag]
    assert sorted(said) == sorted(set(said))


@pytest.mark.parametrize(("raw", "engine"), [(LLAMA, llama_server), (VLLM, vllm)], ids=["llama_server", "vllm"])
def test_a_flag_that_a_field_says_is_refused_in_free_arguments(raw, engine):
    assert len(engine.OWNED_FLAGS) > 30
    for flag, key in engine.OWNED_FLAGS.items():
        spelled = [flag, f"{flag}=1"]
        if flag.startswith("--"):
            spelled += [f"--{flag[2:].replace('-', '_')}", f"{flag}.member"]
        for words in spelled:
            with pytest.raises(BadInput, match=re.escape(f"`args` holds {flag}: say it with `{key}`")):
                parse({**raw, "args": ["--verbose", words]})
    for words, why in engine.REFUSED_FLAGS.items():
        with pytest.raises(BadInput, match=re.escape(f"may not hold {words}: {why}")):
            parse({**raw, "args": [words]})
    for variable, key in engine.OWNED_ENV.items():
        with pytest.raises(BadInput, match=re.escape(f"`env` holds {variable}: say it with `{key}`")):
            parse({**raw, "env": {variable: "1"}})
    for variable, why in engine.REFUSED_ENV.items():
        with pytest.raises(BadInput, match=re.escape(f"may not hold {variable}: {why}")):
            parse({**raw, "env": {variable: "1"}})


@pytest.mark.parametrize(
    ("args", "words"),
    [
        # what guides for these engines say, and no engine has
        (["--quantize", "nf4"], "choose a quantisation in `model`"),
        (["--quantization", "int8"], "choose a quantisation in `model`"),
        (["--dtype", "int8"], "choose a quantisation in `model`"),
        (["--max-gpu-memory", "20GiB"], "say it with `gpu_layers`"),
        (["--local-dir-use-symlinks", "False"], "huggingface-cli"),
        # what llama-server had
        (["--mlock"], "say it with `load_mode`"),
        (["--no-mmap"], "say it with `load_mode`"),
        (["--draft", "8"], "say it with `draft_tokens`"),
        (["--draft-max", "8"], "say it with `draft_tokens`"),
        (["--spec-ngram-size-n", "8"], "--spec-ngram-mod-n-match"),
        (["-fa"], "say it with `flash_attention`"),
    ],
)
def test_flags_of_old_guides_are_refused_with_what_takes_their_place(args, words):
    with pytest.raises(BadInput) as refusal:
        parse({**LLAMA, "args": args})
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split_mode": "rows"}, "must be one of none, layer, row, tensor, not 'rows' (did you mean `row`?)"),
        ({"tensor_split": "3;1"}, "`tensor_split` must be numbers with commas between them, such as 3,1, not '3;1'"),
        ({"cache_ram": -2}, "`cache_ram` must be at least -1, not -2"),
        ({"top_p": 1.5}, "`top_p` must be between 0 and 1, not 1.5"),
        ({"flash_attention": "on"}, "`flash_attention` must be true or false, not 'on'"),
        ({"gpu_layers": True}, "`gpu_layers` must be an integer, not True"),
        ({"lora": ["adapter.gguf"]}, "`lora` must be an absolute path"),
        ({"lora": [1]}, "`lora` must be a list of strings"),
        ({"pooling": "average"}, "`pooling` says nothing without `task`: it says how texts become vectors"),
        ({"task": "embed", "pooling": "average"}, "`pooling` must be one of none, mean, cls, last, rank"),
        ({"task": "score"}, "engine llama_server does not do `task: score`, only generate, embed, rerank"),
        ({"task": "embeding"}, "(did you mean `embed`?)"),
        ({"draft_tokens": 3}, "`draft_tokens` says nothing without `draft_model`"),
        ({"draft_model": "/m/x.safetensors"}, "`draft_model` is /m/x.safetensors: llama-server reads GGUF files only"),
        ({"quantization": "awq"}, "`quantization` is nothing that engine llama_server knows: a GGUF says the types"),
        ({"enforce_eager": False}, "`enforce_eager` is nothing that engine llama_server knows: it compiles nothing"),
        ({"model": "hf:o/r/mmproj-F16.gguf"}, "`model` is the projector hf:o/r/mmproj-F16.gguf: name it in `mmproj`"),
        ({"mmproj": "/m/eyes.bin"}, "`mmproj` is /m/eyes.bin"),
        ({"cpus": -1}, "`cpus` may not be negative: -1"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(change, words):
    with pytest.raises(BadInput, match="service chat: ") as refusal:
        parse({**LLAMA, **change})
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--gpu-memory-util", "0.5"], "short for --gpu-memory-utilization: say it with `gpu_memory_utilization`"),
        (
            ["--tensor-parallel=2"],
            "`args` holds --tensor-parallel, short for --tensor-parallel-size: say it with `tensor_parallel`",
        ),
        (["--conf", "/x"], "`args` may not hold --conf, short for --config"),
    ],
)
def test_flags_that_vllm_would_complete_are_refused_too(args, words):
    with pytest.raises(BadInput) as refusal:
        parse({**VLLM, "args": args})
    assert words in str(refusal.value)
    assert parse({**VLLM, "args": ["--max-logprobs", "5"]}).args


def test_an_object_may_be_given_whole_where_no_field_says_a_part_of_it():
    flag = "--override-generation-config"
    assert of_vllm(args=[flag, '{"top_k": 3}'])[-2:] == [flag, '{"top_k": 3}']
    with pytest.raises(BadInput, match="of which `max_tokens` and `top_k` says a part"):
        parse({**VLLM, "max_tokens": 4, "top_k": 3, "args": [flag, "{}"]})


def test_other_models_are_fetched_like_the_first():
    service = parse({**LLAMA, "draft_model": "o/small", "mmproj": "o/r/mmproj.gguf", "model_sha256": "a" * 64})
    assert service.more_models == {"draft_model": "o/small", "mmproj": "o/r/mmproj.gguf"}
    found = with_more([service, parse(LLAMA)])
    assert [one.model for one in found] == ["/models/chat.gguf", "o/small", "o/r/mmproj.gguf", "/models/chat.gguf"]
    assert [one.model_sha256 for one in found] == ["a" * 64, "", "", ""]
    assert not any(one.more_models for one in found[1:])


def test_files_of_the_host_have_places_of_their_own():
    service = parse(
        {**LLAMA, "lora": ["a=/srv/x.gguf", "/srv/x.gguf"], "chat_template": "/srv/x", "grammar": "root ::= x"}
    )
    assert options.files(service, llama_server.OPTIONS) == {
        "/files/lora/a/own/x.gguf": "/srv/x.gguf",
        "/files/lora/own/x.gguf": "/srv/x.gguf",
        "/files/chat_template/own/x": "/srv/x",
    }
    assert options.files(parse(LLAMA), llama_server.OPTIONS) == {}


def test_every_option_has_a_default_and_a_description():
    assert list(OPTION_KEYS) == list(Options.__dataclass_fields__)
    assert set(OPTION_KEYS) <= set(KEYS)
    assert set(NEEDS) <= set(OPTION_KEYS)
    assert set(MODEL_KEYS) <= set(KEYS)
    for name, key in OPTION_KEYS.items():
        default = getattr(Service, name)
        assert default in (None, False, 0, "", ()), name
        assert key.about.endswith("."), name


def test_words_of_a_table_are_told_apart():
    table = {"seed": Option("--seed"), "log_level": Option(variable="LEVEL", words={"debug": ("D",)})}
    service = parse({**LLAMA, "seed": 0, "log_level": "debug"})
    assert options.argv(service, table, {}) == ["--seed", "0"]
    assert options.variables(service, table) == {"LEVEL": "D"}
    assert options.owned_env(table) == {"LEVEL": "log_level"}
    assert options.flag_of("--a_b.c=d-e_f") == "--a-b"
    assert options.flag_of("-a_b") == "-a_b"
