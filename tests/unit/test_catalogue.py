"""Well-known models by their names."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import model_words
from ansible.module_utils.llmfleet.catalogue import Entry, load, resolve
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import quants
from hypothesis import given
from hypothesis import strategies as st

FILES = sorted((Path(__file__).resolve().parents[2] / "catalog").glob("*.yml"))
OWN = """
small-1b:
  llama_server: org/Small-1B-GGUF
  quant: Q4_K_M
  vllm: org/Small-1B
big-70b:
  llama_server: hf:org/Big-70B-GGUF@v1
vectors:
  vllm: ms:org/vectors
  task: embedding
one-file:
  llama_server: hf:org/repo/x-Q8_0.gguf
  quant: Q4_K_M
here:
  llama_server: /srv/models/x.gguf
"""


@pytest.fixture(scope="module")
def shipped() -> dict[str, Entry]:
    return load({path.name: path.read_text() for path in FILES})


@pytest.fixture(scope="module")
def own() -> dict[str, Entry]:
    return load({"own.yml": OWN})


def model(word: t.Any, catalogue: dict[str, Entry], **more: t.Any) -> t.Any:
    return resolve([{"name": "chat", "model": word, **more}], catalogue)[0]["model"]


def test_what_is_shipped(shipped: dict[str, Entry]) -> None:
    assert len(shipped) >= 14
    for entry in shipped.values():
        assert entry.title != entry.name, entry.name
        assert entry.why.endswith("."), entry.name
        assert len(entry.why) <= 120, entry.name
        assert entry.licence, entry.name
        assert entry.parameters, entry.name
        assert 2048 <= entry.context_length <= 1 << 20, entry.name
        if entry.llama_server:
            assert quants.worth(entry.quant) > 0, entry.name
            assert entry.size > 100e6, entry.name
        for engine in ("llama_server", "vllm"):
            if entry.reference(engine):
                ref = model_words.parse(entry.reference(engine))
                assert (ref.kind, ref.source, ref.quant, ref.revision) == ("hub", "", "", ""), entry.name
                assert model_words.parse(model(entry.name, shipped, engine=engine)).repo == ref.repo


def test_sizes_agree_with_what_types_take(shipped: dict[str, Entry]) -> None:
    for entry in shipped.values():
        weights = float(entry.parameters.split("B")[0]) * 1e9
        # small models spend much on their vocabulary, which is kept in a larger type
        assert not entry.size or 0.85 < entry.size * 8 / weights / quants.worth(entry.quant) < 1.35, entry.name


@pytest.mark.parametrize(
    ("word", "engine", "reference"),
    [
        ("small-1b", "llama_server", "org/Small-1B-GGUF:Q4_K_M"),
        ("Small-1B", "llama_server", "org/Small-1B-GGUF:Q4_K_M"),
        (" small-1b ", "llama_server", "org/Small-1B-GGUF:Q4_K_M"),
        ("small-1b:q8_0", "llama_server", "org/Small-1B-GGUF:q8_0"),
        ("small-1b:auto", "llama_server", "org/Small-1B-GGUF"),
        ("small-1b:Q8_0@v2", "llama_server", "org/Small-1B-GGUF:Q8_0@v2"),
        ("small-1b@v2", "llama_server", "org/Small-1B-GGUF:Q4_K_M@v2"),
        ("small-1b", "vllm", "org/Small-1B"),
        ("small-1b@v2", "vllm", "org/Small-1B@v2"),
        ("big-70b", "llama_server", "hf:org/Big-70B-GGUF@v1"),
        ("big-70b:Q4_0", "llama_server", "hf:org/Big-70B-GGUF:Q4_0@v1"),
        ("big-70b@v2", "llama_server", "hf:org/Big-70B-GGUF@v2"),
        ("vectors", "vllm", "ms:org/vectors"),
        ("one-file", "llama_server", "hf:org/repo/x-Q8_0.gguf"),
        ("one-file:Q4_0", "llama_server", "hf:org/repo:Q4_0"),
        ("here", "llama_server", "/srv/models/x.gguf"),
    ],
)
def test_a_name_becomes_a_reference(word: str, engine: str, reference: str, own: dict[str, Entry]) -> None:
    assert model(word, own, engine=engine) == reference
    assert model_words.parse(reference).model == reference


def test_an_engine_that_is_not_named_is_llama_server(own: dict[str, Entry]) -> None:
    assert model("small-1b", own) == "org/Small-1B-GGUF:Q4_K_M"


@pytest.mark.parametrize(
    "word",
    [
        "tiny",
        "small-1b:b\nc",
        "/srv/x.gguf",
        "org/repo",
        "org/small-1b:Q8_0",
        "hf:org/repo",
        "https://h/x",
        "x.gguf",
        "X.GGUF",
        "",
        "a b",
        None,
        7,
        ["x"],
    ],
)
def test_what_is_no_name_stays(word: t.Any, own: dict[str, Entry]) -> None:
    assert model(word, own) == word


def test_what_is_no_service_stays(own: dict[str, Entry]) -> None:
    for services in (None, "x", {}, [], [None, "x", {"name": "x"}]):
        assert resolve(services, own) == services


def test_the_services_that_were_given_are_not_changed(own: dict[str, Entry]) -> None:
    services = [{"name": "chat", "model": "small-1b"}]
    assert resolve(services, own) == [{"name": "chat", "model": "org/Small-1B-GGUF:Q4_K_M"}]
    assert services == [{"name": "chat", "model": "small-1b"}]


def test_a_service_that_is_to_go_needs_no_entry(own: dict[str, Entry]) -> None:
    assert model("gone", own, state="absent") == "gone"


@pytest.mark.parametrize(
    ("word", "engine", "message"),
    [
        (
            "smal-1b",
            "llama_server",
            "service chat: model smal-1b: the catalogue has no such model; did you mean small-1b?",
        ),
        ("big", "llama_server", "did you mean big-70b"),
        ("tinny", "llama_server", "did you mean tiny?"),
        (
            "zzz:Q8_0",
            "llama_server",
            "has no such model, only big-70b, here, one-file, small-1b, vectors; a model of a hub",
        ),
        ("vectors", "llama_server", "has no files of it for engine llama_server, only for vllm; change `engine`"),
        ("big-70b", "vllm", "only for llama_server"),
        ("small-1b", "sglang", "no files of it for engine sglang, only for llama_server and vllm"),
        ("small-1b:Q8_0", "vllm", "vLLM takes the whole repository org/Small-1B: leave :Q8_0 out"),
        ("small-1b:", "llama_server", "nothing follows the :"),
        ("small-1b@", "llama_server", "nothing follows the @"),
        ("here:Q8_0", "llama_server", "the catalogue says /srv/models/x.gguf, of which there is one only"),
    ],
)
def test_names_that_do_not_do(word: str, engine: str, message: str, own: dict[str, Entry]) -> None:
    with pytest.raises(BadInput) as caught:
        model(word, own, engine=engine)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_users_own_entries_are_laid_over(own: dict[str, Entry]) -> None:
    overlay = {
        "small-1b": {"quant": "Q8_0"},
        "chat": "hf:org/Chat-GGUF",
        "new": {"vllm": "org/new", "gated": ["vllm"], "size": None},
        "big-70b": None,
        "never-there": None,
    }
    found = load({"own.yml": OWN}, overlay)
    assert (found["small-1b"].quant, found["small-1b"].vllm) == ("Q8_0", "org/Small-1B")
    assert (found["chat"].llama_server, found["chat"].vllm, found["chat"].title) == ("hf:org/Chat-GGUF",) * 2 + (
        "chat",
    )
    assert found["new"].gated == ("vllm",)
    assert set(found) == {*own, "chat", "new"} - {"big-70b"}
    assert load({"own.yml": OWN}, {}) == load({"own.yml": OWN}) == own
    assert load({}) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {llama_server: o/r", "own.yml: not valid YAML (line 1)"),
        ("a: &x [*x]", "own.yml: model a: must be a mapping or a reference, not list"),
        ("- a", "own.yml must map names of models to entries, not be list"),
        ("7: {vllm: o/r}", "7 can not be the name of a model"),
        ("Big: {vllm: o/r}", "'Big' can not be the name of a model"),
        ("tiny: {vllm: o/r}", "'tiny' can not be the name of a model"),
        ("org/x: {vllm: o/r}", "'org/x' can not be the name of a model"),
        ("x.gguf: {vllm: o/r}", "because it looks like a file"),
        ("a: 7", "own.yml: model a: must be a mapping or a reference, not int"),
        ("a: null", "own.yml: model a: must be a mapping or a reference, not NoneType"),
        ("a: {}", "own.yml: model a: say where it comes from with `llama_server`, `vllm` or both"),
        ("a: {vlm: o/r}", "own.yml: model a: unknown key `vlm` (did you mean `vllm`?"),
        ("a: {name: a, vllm: o/r}", "unknown key `name`"),
        ("a: {vllm: 7}", "`vllm` must be a line of text, not 7"),
        ("a: {vllm: gpt2}", "own.yml: model a: `vllm`: model gpt2: not a model"),
        ("a: {vllm: 'https://h.example.org/x.gguf'}", "a file of the web is given with its sha256, in a service"),
        ("a: {vllm: o/r, why: 'a\nb\n\nc'}", "`why` must be a line of text"),
        ("a: {vllm: o/r, size: 4.7 GB}", "`size` must be a whole number of bytes, not '4.7 GB'"),
        ("a: {vllm: o/r, context_length: -1}", "`context_length` must be a whole number of tokens, not -1"),
        ("a: {vllm: o/r, context_length: true}", "`context_length` must be a whole number of tokens, not True"),
        ("a: {vllm: o/r, gated: true}", "`gated` must be a list of llama_server, vllm, not True"),
        ("a: {vllm: o/r, task: draw}", "`task` must be one of chat, embedding, not 'draw'"),
    ],
)
def test_bad_entries(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load({"own.yml": text})
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_name_is_in_one_file() -> None:
    with pytest.raises(BadInput, match=r"b\.yml: model x is in a\.yml already"):
        load({"b.yml": "x: {vllm: o/r}", "a.yml": "x: {vllm: o/r}"})


def test_a_mistake_in_the_users_own_list_is_named_so() -> None:
    with pytest.raises(BadInput, match="llm_catalog: model small-1b: unknown key `quants`"):
        load({"own.yml": OWN}, {"small-1b": {"quants": "Q8_0"}})
    with pytest.raises(BadInput, match="llm_catalog must map names"):
        load({}, ["x"])


@given(st.text(max_size=30) | st.from_regex(r"[a-z0-9.-]{0,10}(:[\w.]{0,5})?(@[\w./]{0,5})?", fullmatch=True))
def test_any_word_is_resolved_or_one_sentence(word: str) -> None:
    catalogue = load({"own.yml": OWN})
    try:
        found = model(word, catalogue)
    except BadInput as error:
        said = str(error)
        assert said.isprintable()
    else:
        assert isinstance(found, str)
