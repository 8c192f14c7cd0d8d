"""Models of hosts as rows: which are wanted, who asks about them, and how the plan prints them."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet import catalogue_read, model_rows
from ansible.module_utils.llmfleet.errors import BadInput
from test_model_rounds import manifest, plan

LACKS = {
    "engine": "llama_server",
    "model": "org/m",
    "sha256": "",
    "dest": "/models",
    "action": "missing",
    "why": "it is not there",
}
HAS = {**LACKS, "action": "keep", "manifest": manifest("m").as_data()}


def test_models_are_wanted_once_for_each_engine():
    services = [
        {"name": "a", "model": "tiny"},
        {"name": "b", "model": "tiny", "engine": "llama_server"},
        {"name": "c", "model": "tiny", "engine": "vllm"},
        {"name": "d", "model": "/m.gguf", "model_sha256": "0" * 64, "state": "stopped"},
        {"name": "e", "model": "org/gone", "state": "absent"},
        {"name": "f", "state": "absent"},
    ]
    assert [tuple(row.values()) for row in model_rows.wanted(services)] == [
        ("llama_server", "tiny", "", False),
        ("vllm", "tiny", "", False),
        ("llama_server", "/m.gguf", "0" * 64, True),
    ]
    assert model_rows.wanted(services, absent_too=True)[-1]["model"] == "org/gone"


def test_models_beside_the_first_are_wanted_like_it():
    services = [
        {"name": "a", "model": "o/r", "model_sha256": "0" * 64, "draft_model": "o/small", "mmproj": "o/r/mmproj.gguf"},
        {"name": "b", "model": "o/small", "state": "stopped"},
        {"name": "c", "model": "o/x", "draft_model": "o/gone", "state": "absent"},
    ]
    assert [tuple(row.values()) for row in model_rows.wanted(services)] == [
        ("llama_server", "o/r", "0" * 64, False),
        ("llama_server", "o/small", "", False),
        ("llama_server", "o/r/mmproj.gguf", "", False),
    ]
    assert model_rows.wanted(services, absent_too=True)[-1]["model"] == "o/gone"


def test_a_row_is_what_was_wanted_and_what_was_found():
    wish = {"engine": "llama_server", "model": "tiny", "sha256": ""}
    result = {"__model_store_place": 0, "action": "generate", "path": "/t", "changed": True, "diff": {}}
    assert model_rows.rows([wish], [result], "/models") == [
        {**wish, "dest": "/models", "action": "generate", "path": "/t"}
    ]


def test_what_only_stopped_services_name_is_not_brought():
    for states, idle in ((["stopped"], True), (["stopped", "started"], False), (["started", "stopped"], False)):
        services = [{"name": str(place), "model": "org/m", "state": state} for place, state in enumerate(states)]
        (wish,) = model_rows.wanted(services)
        assert wish["idle"] is idle
        kept = model_rows.rows([wish], [{"action": "keep"}], "/models")
        assert (len(kept), "idle" in kept[0]) == (1, False)
        assert len(model_rows.rows([wish], [{"action": "missing"}], "/models")) == (0 if idle else 1)


def test_what_needs_no_hub_is_done_directly():
    rows = [
        {"engine": "llama_server", "model": "tiny", "action": "generate"},
        {"engine": "llama_server", "model": "/m.gguf", "action": "keep"},
        {**plan("verify", "v")},
        plan("download"),
    ]
    assert [row["model"] for row in model_rows.directly(rows)] == ["tiny", "org/v"]


def test_the_first_host_that_lacks_a_model_asks_for_all():
    plans = {"a": [HAS], "b": [LACKS], "c": [LACKS, {**LACKS, "model": "org/n"}]}
    assert [model_rows.to_ask(plans, host) for host in plans] == [[], ["org/m"], ["org/n"]]
    assert [model_rows.lacking(plan) for plan in plans.values()] == [False, True, True]


def test_with_update_hosts_that_have_it_ask_too_but_not_about_files():
    plans = {"a": [HAS, {**LACKS, "model": "tiny", "action": "keep"}], "b": [HAS]}
    assert [model_rows.to_ask(plans, host, True) for host in plans] == [["org/m"], []]
    assert [model_rows.lacking(plan, True) for plan in plans.values()] == [True, True]


def test_hubs_are_asked_once_in_a_run():
    asked = {**LACKS, "asked": True}
    assert not model_rows.lacking([asked, {**HAS, "asked": True}], True)
    assert model_rows.to_ask({"a": [asked], "b": [LACKS]}, "b", True) == ["org/m"]


@pytest.mark.parametrize(
    ("sources", "answer"),
    [
        (["hf", "https://mirror.example.org"], False),
        (["hf", "/mnt/usb"], True),
        ([{"name": "nas", "kind": "folder", "path": "/nas"}], True),
        ([{"name": "m", "kind": "hf", "url": "https://mirror.example.org"}], False),
    ],
)
def test_folders_are_the_hosts(sources, answer):
    assert model_rows.folders(sources) is answer


def test_the_answer_of_the_host_counts_where_the_controller_had_none():
    failed = {"item": "org/m", "msg": "hf: no route", "failed": True}
    good = {"item": "org/m", "listing": {"repo": "org/m"}, "source": "hf", "invocation": {}}
    assert model_rows.answered([failed, good]) == ["org/m"]
    assert model_rows.heard([failed, good]) == {"org/m": {"listing": {"repo": "org/m"}, "source": "hf"}}
    assert model_rows.heard([failed, {"item": "org/m", "msg": "refused"}]) == {
        "org/m": {"msg": "hf: no route; from the host: refused"}
    }
    assert model_rows.heard([failed, failed]) == {"org/m": {"msg": "hf: no route"}}
    assert model_rows.heard([{"item": "org/m", "skipped": True}]) == {}


def test_the_plan_says_who_fetches_and_who_receives():
    row = {**plan("download"), "source": "hf", "total_size": 3 << 30, "why": "it is the best that fits"}
    ways = model_rows.ways({"a": [row], "b": [row]})
    assert [ways["a"][0]["action"], ways["b"][0]["action"], ways["b"][0]["from"]] == ["download", "receive", "a"]
    assert model_rows.lines("b", ways["b"]) == [
        ("b", "model org/m", "receive", "3.0 GiB, from a", "it is the best that fits")
    ]
    assert model_rows.lines("a", ways["a"])[0][3] == "3.0 GiB, from hf"
    assert [rows[0]["action"] for rows in model_rows.ways({"a": [row], "b": [row]}, fan_out=False).values()] == [
        "download",
        "download",
    ]


def test_the_files_of_each_engine_are_told_apart():
    found = plan("keep")
    found["manifest"] = {**found["manifest"], "format": "safetensors"}
    other = {**found, "manifest": {**found["manifest"], "format": "gguf", "quant": "Q8_0"}}
    assert [line[3] for line in model_rows.lines("a", [found, other])] == ["safetensors", "Q8_0"]


def test_a_host_that_has_it_gives_it_to_those_before_it():
    ways = model_rows.ways({"a": [plan("download")], "b": [plan("keep")]})
    assert (ways["a"][0]["action"], ways["a"][0]["from"]) == ("receive", "b")


def test_a_host_that_cannot_have_it_gives_it_to_nobody():
    ways = model_rows.ways({"a": [{**plan("download"), "problem": "too large"}], "b": [plan("download")]})
    assert [rows[0]["action"] for rows in ways.values()] == ["download", "download"]


def test_the_secret_part_of_a_url_is_not_printed():
    row = {**LACKS, "model": "https://h/m.gguf?sig=secret", "action": "download"}
    assert "secret" not in str(model_rows.lines("a", [row]))


def test_what_came_is_there_now():
    generated = {"engine": "llama_server", "model": "tiny", "sha256": "", "dest": "/models", "action": "generate"}
    result = {"__model_store_place": 0, "path": "/t", "gguf": {"context_length": 5}, "changed": True}
    brought = [{"engine": "llama_server", "model": "org/m", "has": True, "found": {"shape": {"layers": []}}}]
    lacks = {**LACKS, "action": "download", "manifest": manifest("m").as_data()}
    after = model_rows.done([lacks, generated, {**LACKS, "model": "org/n"}], [result], brought)
    after[0], after[1] = after[1], after[0]
    assert [row["action"] for row in after] == ["keep", "keep", "missing"]
    assert after[0]["gguf"] == {"context_length": 5}
    assert after[1]["shape"] == {"layers": []}


def test_only_single_words_are_looked_up_in_the_catalogue(tmp_path):
    services = [{"name": "a", "model": "tiny"}, {"name": "b", "model": "org/m"}, {"name": "c", "model": "/m.gguf"}, {}]
    services += [{"name": "d", "model": "https://h/m@x.gguf"}, {"name": "e", "model": "org/m@refs/pr/1"}]
    assert catalogue_read.resolve(services, {}, tmp_path / "not there") is services
    assert catalogue_read.resolve("no list") == "no list"


def test_a_name_of_the_catalogue_becomes_what_its_engine_needs():
    services = [{"name": engine, "engine": engine, "model": "qwen3-8b"} for engine in ("llama_server", "vllm")]
    found = [service["model"] for service in catalogue_read.resolve(services)]
    assert found[0] != found[1]
    assert all("/" in model for model in found)


def test_a_name_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(BadInput, match="qwen3-8b"):
        catalogue_read.resolve([{"name": "a", "model": "qwen3-8"}])
