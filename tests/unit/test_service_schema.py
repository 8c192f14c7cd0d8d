"""The schema for editors says what the plan says: about every example, and about services nobody thought of."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import re
import string
import typing as t
from pathlib import Path

import jsonschema
import pytest
import yaml
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.service_fields import KEYS, Key, Service, default_of
from ansible.module_utils.llmfleet.service_options import NEEDS
from ansible.module_utils.llmfleet.service_schema import schema
from ansible.module_utils.llmfleet.service_verify import LEVELS, VERIFY_KEYS
from ansible.module_utils.llmfleet.services import parse_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "schema" / "llm_services.schema.json"
SCHEMA = schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
GOOD = {"name": "chat", "model": "/models/chat.gguf", "port": 8080}
LINE = "# yaml-language-server: $schema=../schema/llm_services.schema.json"

EXAMPLES = [ROOT / "inventory" / name for name in ("localhost", "gpu_hosts")]
INVENTORIES = [*EXAMPLES, *sorted(ROOT.glob("molecule/*/inventory.yml"))]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md"), *ROOT.glob("schema/*.md")]
)

LEFT_TO_THE_PLAN = (
    ", short for --",
    "`bind` must be an IP address",
    "is the projector",
    "set `api_key` too",
    "says a part: say it all there",
)
"""What of one service is beyond the schema."""


def problems(data: t.Any) -> list[tuple[str, str]]:
    """Return (where, what) of all that the schema refuses."""
    found = ((".".join(map(str, error.absolute_path)), error.message) for error in VALIDATOR.iter_errors(data))
    return sorted(found)


def service_lists(data: t.Any) -> t.Iterator[t.Any]:
    """Yield every llm_services anywhere in ``data``."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from [value] if key == "llm_services" else service_lists(value)


def sentence(service: t.Any) -> str:
    """Return why the plan refuses a service, "" when it does not."""
    try:
        parse_all([service])
    except BadInput as refusal:
        return str(refusal)
    return ""


def blocks(page: Path) -> list[t.Any]:
    texts = re.findall(r"^( *)```yaml\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for _, text in texts for block in yaml.safe_load_all(text)]


def test_it_is_a_schema_and_the_file_holds_it() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    # editors that know draft 7 only find nothing else in it
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert json.loads(FILE.read_text()) == SCHEMA


def test_every_key_is_described() -> None:
    for part, keys in (("service", KEYS), ("verify", VERIFY_KEYS)):
        properties = SCHEMA["$defs"][part]["properties"]
        assert list(properties) == list(keys)
        for name, said in properties.items():
            said = SCHEMA["$defs"]["verify"] if name == "verify" else said
            assert said["title"], name
            assert said["description"].endswith("."), name


@pytest.mark.parametrize("path", INVENTORIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_inventory(path: Path) -> None:
    assert problems(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_page(path: Path) -> None:
    found = [block for block in blocks(path) if isinstance(block, dict)]
    assert [problems(block) for block in found] == [[] for _ in found]
    for services in itertools.chain.from_iterable(map(service_lists, found)):
        assert problems({"llm_services": services}) == []


def test_there_are_examples() -> None:
    pages = {page.name for page in PAGES for block in blocks(page) if list(service_lists(block))}
    assert {"README.md", "README.zh-CN.md", "models.md"} <= pages
    assert len([path for path in INVENTORIES if list(service_lists(yaml.safe_load(path.read_text())))]) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_name_the_schema(path: Path) -> None:
    assert path.read_text().splitlines()[0] == LINE
    assert (path.parent / LINE.partition("=")[2]).resolve() == FILE


def test_it_looks_into_every_corner_of_an_inventory() -> None:
    inventory = yaml.safe_load((ROOT / "inventory" / "gpu_hosts").read_text())
    places = len(list(service_lists(inventory)))
    assert places >= 3
    for position in range(places):
        broken = copy.deepcopy(inventory)
        list(service_lists(broken))[position][0]["prot"] = 1
        assert ["prot" in what for _, what in problems(broken)] == [True]


@pytest.mark.parametrize(
    "variables",
    [
        None,
        {},
        {"web": {"hosts": ["a", "b"], "vars": 3, "children": None}, "port": "any", "verify": []},
        {"ungrouped": None, "llm_services": "{{ shared_services + own_services }}"},
        {"llm_services": ["{{ chat }}", GOOD]},
    ],
)
def test_other_variables_pass(variables: t.Any) -> None:
    assert problems(variables) == []


@pytest.mark.parametrize("name", [*KEYS, *(f"verify.{name}" for name in VERIFY_KEYS)])
def test_every_value_may_be_a_template(name: str) -> None:
    key, _, inner = name.partition(".")
    template = "{{ lookup('ansible.builtin.env', 'X') }}"
    service = {**GOOD, key: {inner: template} if inner else template}
    assert problems({"llm_services": [service]}) == []


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"name": None}, "name", "None is not of type 'string'"),
        ({"name": "Chat Bot"}, "name", "does not match"),
        ({"name": "chat.previous"}, "name", "does not match"),
        ({"engine": "llama_srever"}, "engine", "not valid under any"),
        ({"state": "running"}, "state", "not valid under any"),
        ({"prot": 1}, "", "'prot' was unexpected"),
        ({"port": 70000}, "port", "greater than the maximum of 65535"),
        ({"port": 0}, "port", "less than the minimum of 1"),
        ({"port": "8080"}, "port", "does not match"),
        ({"model": ""}, "model", "should be non-empty"),
        ({"model_sha256": "abc"}, "model_sha256", "does not match"),
        ({"model": "/models/a.SafeTensors"}, "model", "does not match"),
        ({"engine": "vllm", "model": "tiny"}, "model", "does not match"),
        ({"parallel": 0}, "parallel", "less than the minimum"),
        ({"memory": "lots"}, "memory", "does not match"),
        ({"api_key": "two words"}, "api_key", "does not match"),
        ({"args": ["--ctx-size=9"]}, "args.0", "does not match"),
        ({"args": ["--verbose", "--models-dir"]}, "args.1", "does not match"),
        ({"engine": "vllm", "model": "o/r", "args": ["-tp", "2"]}, "args.0", "does not match"),
        ({"env": {"A": 1}}, "env.A", "not of type 'string'"),
        ({"env": {"LLAMA_ARG_PORT": "1"}}, "env", "does not match"),
        ({"env": {"A B": "x"}}, "env", "does not match"),
        ({"task": "embed", "verify": {"answer": "x"}}, "verify.answer", "not valid under any"),
        ({"env": {"Hf_Token": "x"}}, "env", "does not match"),
        ({"verify": {"levle": "http"}}, "verify", "'levle' was unexpected"),
        ({"verify": {"level": "http", "answer": "x"}}, "verify.answer", "not valid under any"),
        ({"device": "cpu", "gpu_layers": 3}, "gpu_layers", "not valid under any"),
        ({"device": "cpu", "verify": {"level": "device"}}, "verify.level", "does not match"),
        ({"cache_type": "fp8"}, "cache_type", "not valid under any"),
        ({"dtype": "half"}, "dtype", "not valid under any"),
        ({"flash_attention": "on"}, "flash_attention", "does not match"),
        ({"cache_ram": -2}, "cache_ram", "less than the minimum of -1"),
        ({"lora": ["/a,b.gguf"]}, "lora.0", "does not match"),
        ({"draft_tokens": 4}, "", "'draft_model' is a required property"),
        ({"task": "score"}, "task", "not valid under any"),
        ({"args": ["--cache_ram", "1"]}, "args.0", "does not match"),
        ({"engine": "vllm", "model": "o/r", "quantization": "int8"}, "quantization", "does not match"),
        ({"engine": "vllm", "model": "o/r", "flash_attention": True}, "flash_attention", "not valid under any"),
        ({"env": {"VLLM_GPU_MEM_FRACTION": "0.9"}}, "env", "does not match"),
        ({"engine": "vllm", "model": "o/r", "gpu_memory_utilization": 90}, "gpu_memory_utilization", "maximum of 1"),
    ],
)
def test_what_is_wrong_is_shown_at_its_place(change: dict[str, t.Any], where: str, what: str) -> None:
    found = problems({"llm_services": [{**GOOD, **change}]})
    place = f"llm_services.0.{where}".rstrip(".")
    assert any(at == place and what in said for at, said in found), found
    assert sentence({**GOOD, **change})


def test_only_what_is_to_be_there_needs_model_and_port() -> None:
    assert problems({"llm_services": [{"name": "chat", "state": "absent"}]}) == []
    for service in ({"name": "chat"}, {"name": "chat", "state": "stopped"}):
        assert [what for _, what in problems({"llm_services": [service]})] == [
            "'model' is a required property",
            "'port' is a required property",
        ]


FLAGS = sorted({flag for engine in ENGINES.values() for flag in (*engine.OWNED_FLAGS, *engine.REFUSED_FLAGS)})
ENV = sorted({name for engine in ENGINES.values() for name in engine.OWNED_ENV})
WORDS = {
    key: sorted(
        {
            word
            for engine in ENGINES.values()
            for word in (*engine.CHOICES.get(key, ()), *engine.REFUSED_WORDS.get(key, ()))
        }
    )
    for key in ("cache_type", "dtype", "pooling", "quantization")
}
SAID: dict[str, list[t.Any]] = {
    "name": ["a", "a.previous", "a.next", "a.nextx", ".a", "a_-.b", "a" * 63, "a" * 64, "A"],
    "engine": [*ENGINES, "VLLM"],
    "model": ["tiny", "Tiny", "tiny2", "o/r", "/m/a.gguf", "/m/a.GGUF", "/m/a.bin", "/m/a.safeTensors", "a.binx"],
    "model_sha256": ["a" * 64, "A" * 64, "a" * 63, "g" * 64],
    "bind": ["127.0.0.1", "::1", "0.0.0.0", "localhost"],
    "api_key": ["s3cret", "#x", "a,b", "a b", "a#", "ä"],
    **WORDS,
    **{key: ["tiny", "o/r", "/m/a.gguf", "/m/a.BIN"] for key in ("draft_model", "mmproj")},
    "models": [
        {"a": "o/r"},
        {"a": "o/r", "b": "tiny"},
        {"a:b": "o/r"},
        {"a": ""},
        {"a": "/m/x.bin"},
        {"a" * 64: "o/r"},
    ],
    "lora": [["/a.gguf", "x=/b"], ["/a,b"], ["a"], ["=/a"], ["/a b"]],
    "tensor_split": ["3,1", "3", "3,", "0.5,0.5", "a"],
    "generation_config": ["auto", "vllm", "/etc/x", "etc/x"],
    "gpu_memory_utilization": [0.5, 1],
    "memory": ["8g", "0g", "8G", "8", "10m"],
    "args": [["x", flag] for word in ("--verbose", *FLAGS) for flag in (word, f"{word}=1", f"{word}x")],
    "env": [
        {name: "x"}
        for name in (*ENV, *map(str.lower, ENV), "PATH", "A=B", "1", "A\n", "HF_TOKEN", "my_ApiKey", "tokens", "SECRET")
    ],
}
ANYTHING: list[t.Any] = [None, "", "x", True, -1, 0, 1, 7, -0.5, 0.5, [], {}, ["x"], {"x": "y"}, [1], {"x": 1}]


def values(name: str, key: Key) -> list[t.Any]:
    """Return values that a key may have, nearly may have, and may not have."""
    bounds = [bound + step for bound in (key.minimum, key.maximum) if bound is not None for step in (-1, 0, 1)]
    return [*ANYTHING, *bounds, *key.choices, *map(str.upper, key.choices), *SAID.get(name, [])]


CHANGES = [
    *({name: value} for name, key in KEYS.items() for value in values(name, key)),
    *({"verify": {name: value}} for name, key in VERIFY_KEYS.items() for value in values(name, key)),
    *({name: value, "verify": {name: value}} for name in ("nmae", 1) for value in (None, "x")),
    {},
]
BASES: list[dict[str, t.Any]] = [
    GOOD,
    {**GOOD, "engine": "vllm", "model": "o/r"},
    {**GOOD, "engine": None, "state": None},
    {"name": "chat", "state": "absent"},
    {"name": "chat", "port": 1},
    {"name": "chat", "model": "o/r", "state": "stopped"},
    {"model": "o/r", "port": 1},
    {"name": "chat", "port": 1, "models": {"a": "o/r", "b": "tiny"}},
    {**GOOD, "device": "cpu", "gpu_layers": None},
    *({**GOOD, "verify": {"level": level}} for level in (*LEVELS, None)),
    {**GOOD, "verify": {"answer": "x"}},
    {**GOOD, "task": "embed"},
    {**GOOD, "gpu_layers": 2, "device": "gpu"},
]


def merged(base: t.Mapping[str, t.Any], change: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    both = {**base, **change}
    if isinstance(base.get("verify"), dict) and isinstance(change.get("verify"), dict):
        both["verify"] = {**base["verify"], **change["verify"]}
    return both


def disagreement(service: dict[str, t.Any]) -> str:
    """Return what only one of schema and plan has to say, "" when they agree."""
    why = sentence(service)
    if VALIDATOR.is_valid({"llm_services": [service]}):
        beyond = any(words in why for words in LEFT_TO_THE_PLAN)
        return f"{service}: only the plan refuses it: {why}" if why and not beyond else ""
    return "" if why else f"{service}: only the schema refuses it: {problems({'llm_services': [service]})}"


@pytest.mark.parametrize("base", BASES, ids=str)
def test_schema_and_plan_agree_on_every_value(base: dict[str, t.Any]) -> None:
    # what engines know is the same whatever the rest says
    changes = [change for change in CHANGES if base in BASES[:2] or not change.keys() & {"args", "env"}]
    assert [found for change in changes if (found := disagreement(merged(base, change)))] == []


TEXTS = st.text(string.ascii_letters + string.digits + " .,-_#:/é", max_size=8)
CHANGE = st.sampled_from(CHANGES) | st.builds(lambda name, text: {name: text}, st.sampled_from(sorted(KEYS)), TEXTS)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(BASES), st.lists(CHANGE, min_size=2, max_size=4))
def test_schema_and_plan_agree_on_several(base: dict[str, t.Any], changes: list[dict[str, t.Any]]) -> None:
    assert disagreement(functools.reduce(merged, changes, base)) == ""


@st.composite
def good_services(draw: st.DrawFn) -> dict[str, t.Any]:
    """Return a service that is right, with about half of the keys."""
    name = draw(st.sampled_from(sorted(ENGINES)))
    engine = ENGINES[name]
    numbers = {
        key: st.integers(row.minimum, row.maximum or 10**6)
        for key, row in KEYS.items()
        if row.minimum is not None and row.kind is int
    }
    words = {key: st.sampled_from(row.choices) for key, row in KEYS.items() if row.choices}
    optional: dict[str, st.SearchStrategy[t.Any]] = {
        **numbers,
        **words,
        "model_sha256": st.from_regex(KEYS["model_sha256"].pattern, fullmatch=True),
        "memory": st.from_regex(KEYS["memory"].pattern, fullmatch=True),
        "bind": st.sampled_from(["127.0.0.1", "::1"]),
        "api_key": st.from_regex(KEYS["api_key"].pattern, fullmatch=True),
        **{key: st.sampled_from(["", *choices]) for key, choices in engine.CHOICES.items()},
        "task": st.sampled_from(list(engine.PATHS)),
        "lora": st.lists(st.from_regex(KEYS["lora"].pattern, fullmatch=True), max_size=2),
        **{key: st.booleans() for key, row in KEYS.items() if row.kind is bool},
        "gpu_memory_utilization": st.floats(0, 1),
        "args": st.lists(st.sampled_from(["--verbose", "-x=1", "--modelx"])),
        "env": st.dictionaries(st.sampled_from(["PATH", "TOKENIZERS_PARALLELISM"]), TEXTS),
        "verify": st.fixed_dictionaries(
            {}, optional={"timeout": st.integers(1, 1 << 62), "answer": TEXTS, "max_tokens": st.integers(1, 1 << 62)}
        ),
    }
    for key in (*engine.REFUSED_FIELDS, "port", *(() if name == "vllm" else ("runtime",))):
        optional.pop(key, None)
    service = draw(
        st.fixed_dictionaries({"name": st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)}, optional=optional)
    )
    for key, (other, _) in NEEDS.items():
        if service.get(other, default_of(other, Service)) == default_of(other, Service):
            service.pop(key, None)
    if service.get("device") == "cpu":
        service.pop("gpu_layers", None)
    if service.get("task", Service.task) != Service.task:
        service.get("verify", {}).pop("answer", None)
    model = {"llama_server": "o/r:Q8_0", "vllm": "o/r"}[name]
    return {**service, "engine": name, "model": model, "port": draw(numbers["port"])}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(good_services())
def test_both_accept_what_is_right(service: dict[str, t.Any]) -> None:
    assert problems({"llm_services": [service]}) == []
    assert sentence(service) == ""
