"""Several models behind one llama-server: what may be said, how it is launched, planned, verified and published."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet import catalogue_read, model_rows, verify
from ansible.module_utils.llmfleet.compose_export import EXAMPLE, export
from ansible.module_utils.llmfleet.compose_health import Deployed
from ansible.module_utils.llmfleet.engines import llama_offload, llama_router, llama_server
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gateway import fleet
from ansible.module_utils.llmfleet.services import Verify, parse, with_more
from ansible.module_utils.llmfleet.spec import build

MODELS = {"chat": "o/r:Q4_0", "small-Q4.x": "/m/small.gguf"}
RAW = {"name": "desk", "port": 8080, "models": MODELS}
INSIDE = {"models/chat": "/files/models/chat/own/r.gguf", "models/small-Q4.x": "/files/models/small-Q4.x/own/s.gguf"}


def launched(contexts=None, has_gpus=False, api_key="", **fields):
    return llama_server.launch(
        parse({**RAW, **fields}), "", None, api_key, has_gpus, more=INSIDE, contexts=contexts or {}
    )


def test_what_a_service_with_several_models_is():
    service = parse(RAW)
    assert service.served_names == ("chat", "small-Q4.x")
    assert (service.served_name, service.loaded, service.model) == ("chat", 1, "")
    assert service.more_models == {f"models/{name}": model for name, model in MODELS.items()}
    assert [one.model for one in with_more([service])] == list(MODELS.values())
    assert all(not one.models for one in with_more([service]))
    assert parse({**RAW, "models_loaded": 3}).loaded == 2
    one = parse({"name": "chat", "model": "o/r", "port": 8080})
    assert (one.served_names, one.loaded, one.more_models) == (("chat",), 1, {})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"model": "o/r"}, "`model` contradicts `models`"),
        ({"model_sha256": "a" * 64}, "`model_sha256` contradicts `models`"),
        ({"mmproj": "o/r/mmproj.gguf"}, "`mmproj` contradicts `models`"),
        ({"draft_model": "o/s"}, "`draft_model` contradicts `models`"),
        ({"lora": ["/l.gguf"]}, "`lora` contradicts `models`"),
        ({"served_name": "x"}, "`served_name` contradicts `models`"),
        ({"models": {}, "model": "o/r", "models_loaded": 1}, "`models_loaded` says nothing without `models`"),
        ({"models": {"a:b": "o/r"}}, "`models` has names that callers use"),
        ({"models": {"a]\n[b": "o/r"}}, "`models` has names that callers use"),
        ({"models": {"a": 1}}, "`models` must map names to models"),
        ({"models": {"a": ""}}, "`models` must map names to models"),
        ({"models": ["o/r"]}, "`models` must be a mapping of names to models"),
        ({"models": {"a": "/m/x.safetensors"}}, "`models/a` is /m/x.safetensors: llama-server reads GGUF files only"),
        ({"verify": {"level": "device"}}, "cannot be proven of several `models`"),
        ({"engine": "vllm"}, "`models` is nothing that engine vllm knows"),
        ({"args": ["--models-max", "9"]}, "say it with `models_loaded`"),
        ({"args": ["--models-dir", "/x"]}, "say it with `models`"),
        ({"models": {}}, "`model` is missing"),
    ],
)
def test_what_is_refused(fields, why):
    with pytest.raises(BadInput, match=f"service desk: .*{why}"):
        parse({**RAW, **fields})


def test_launch():
    made = launched({"models/chat": 40960, "models/small-Q4.x": 512}, parallel=2, api_key="k", args=["--no-warmup"])
    assert made.argv[:4] == ("--models-preset", "/run/llmfleet/models_preset", "--models-max", "1")
    assert not {"--model", "--alias", "--ctx-size"} & set(made.argv)
    assert made.argv[-1] == "--no-warmup"
    assert made.mounts == ()
    assert made.secrets == {
        "api_key": "k",
        "models_preset": "[chat]\nmodel = /files/models/chat/own/r.gguf\nctx-size = 8192\n\n"
        "[small-Q4.x]\nmodel = /files/models/small-Q4.x/own/s.gguf\nctx-size = 1024",
    }


def test_a_context_that_was_asked_for_is_an_argument():
    made = launched(context_length=2048, models_loaded=2)
    assert made.argv[made.argv.index("--ctx-size") + 1] == "2048"
    assert made.argv[3] == "2"
    assert "ctx-size" not in made.secrets["models_preset"]


def test_on_gpus_nothing_is_proven_that_is_not():
    made = launched(has_gpus=True)
    assert "--n-gpu-layers" in made.argv
    assert llama_offload.planned_layers(made.argv) is None


@pytest.mark.parametrize("name", ["a b.gguf", "a#b.gguf", "a;b.gguf", "a\nb.gguf"])
def test_a_file_that_the_preset_cannot_name(name):
    with pytest.raises(BadInput, match="service desk: the file of chat in `models` may not have white space"):
        llama_router.preset(parse(RAW), {**INSIDE, "models/chat": f"/files/{name}"}, {}, 0)


def test_all_of_them_are_wanted():
    found = model_rows.wanted([RAW, {"name": "gone", "models": {"x": "o/x"}, "state": "absent"}])
    assert [(row["model"], row["sha256"], row["idle"]) for row in found] == [
        (one, "", False) for one in MODELS.values()
    ]


def test_names_of_the_catalogue():
    found = catalogue_read.resolve([{**RAW, "models": {"a": "qwen3-8b", "b": "/m/b.gguf"}}])[0]["models"]
    assert "/" in found["a"]
    assert found["b"] == "/m/b.gguf"
    with pytest.raises(BadInput, match="qwen3-9b"):
        catalogue_read.resolve([{**RAW, "models": {"a": "qwen3-9b"}}])


def test_each_of_them_has_to_answer_and_is_asked_once(monkeypatch):
    asked, failing = [], {"b": verify.NotYetError("still loading")}

    def task(_, name, *__):
        asked.append(name)
        if name in failing:
            raise failing.pop(name)

    monkeypatch.setattr(verify.api_calls, "get", lambda *_: "")
    monkeypatch.setattr(verify.api_calls, "check_model", lambda _, name: asked.append(f"listed {name}"))
    monkeypatch.setattr(verify, "check_task", task)
    report = verify.Report()
    with pytest.raises(verify.NotYetError):
        verify.advance(None, "/health", "a", Verify(), report, 0.0, names=("a", "b"))
    verify.advance(None, "/health", "a", Verify(), report, 0.0, names=("a", "b"))
    assert asked == ["listed a", "listed b", "a", "b", "b"]
    assert report.as_dict()["answered"] == ["a", "b"]
    assert "answered" not in verify.Report().as_dict()
    failing["a"] = verify.FailedError("HTTP 500")
    with pytest.raises(verify.FailedError, match="model a: HTTP 500"):
        verify.advance(None, "/health", "a", Verify(), verify.Report(), 0.0, names=("a", "b"))


def test_behind_the_gateway_each_is_a_model():
    services = [RAW, {"name": "talk", "model": "o/t", "port": 8081}]
    groups = fleet.groups(fleet.backends([{"host": "h", "address": "10.0.0.9", "services": services}], "h", []))
    assert [(one.model, one.names, one.owners) for one in groups] == [
        ("chat", ("chat",), ("desk",)),
        ("small-Q4.x", ("small-Q4.x",), ("desk",)),
        ("talk", ("talk",), ("talk",)),
    ]
    services[1] = {"name": "chat", "model": "o/t", "port": 8081, "served_name": "other"}
    with pytest.raises(BadInput, match="service chat on h serves other, on h the same name serves chat"):
        fleet.groups(fleet.backends([{"host": "h", "address": "10.0.0.9", "services": services}], "h", []))
    services[1] = {"name": "talk", "model": "o/t", "port": 8081, "served_name": "chat"}
    with pytest.raises(BadInput, match="services desk and talk both serve chat, one of them among several `models`"):
        fleet.groups(fleet.backends([{"host": "h", "address": "10.0.0.9", "services": services}], "h", []))


def made(service, launch):
    return build(service, launch, image="llmfleet/llama.cpp:cpu-1", image_id="sha256:1", model_fingerprint="", salt="s")


def test_the_specification_names_them_and_no_other_has_such_a_key():
    assert made(parse(RAW), launched())["models"] == ["chat", "small-Q4.x"]
    alone = parse({"name": "chat", "model": "/m/m.gguf", "port": 8080})
    assert "models" not in made(alone, llama_server.launch(alone, "/m/m.gguf", 2048, ""))


def test_an_export_says_where_the_list_of_models_is():
    source = "/var/lib/llmfleet/services/desk/0123/models_preset"
    export_ = export([Deployed(made(parse(RAW), launched()), {}, {"models_preset": source})])
    assert export_.secrets == [{"service": "desk", "name": "models_preset", "file": "./secrets/desk/models_preset"}]
    assert "File that lists the models" in export_.files[EXAMPLE]
    assert source in export_.files[EXAMPLE]
    assert "openssl" not in export_.files[EXAMPLE]
