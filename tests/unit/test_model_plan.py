"""Of what a hub holds every host gets the best files that fit its services; who cannot be served is told why."""

from __future__ import annotations

import typing as t

import pytest
from ansible.module_utils.llmfleet import model_plan, model_rows
from ansible.module_utils.llmfleet.hub.manifest import GGUF, SAFETENSORS, Listing, Manifest, RepoFile, manifest_from
from ansible.module_utils.llmfleet.memory.shape import Layer, Shape
from facts import gpu, host, nvidia

GIB = 1 << 30
REPO = "org/Example-8B-GGUF"
SIZES = {"Q2_K": 3.0, "Q4_K_M": 4.7, "Q6_K": 6.3, "Q8_0": 8.1, "BF16": 15.3}
STORE = "/var/lib/llmfleet/models"
SERVICE = {"name": "chat", "model": REPO, "port": 8080}
TOOLKIT = {"state": "present", "cdi": False}
CPU = {"llama_server": {"action": "keep", "image": "x:cpu-0", "variant": "cpu", "why": ""}}
CUDA = {"llama_server": {"action": "keep", "image": "x:cuda-0", "variant": "cuda", "why": ""}}


def shape(size: int = round(8.1 * GIB), quant: str = "Q8_0", form: str = GGUF) -> Shape:
    """Return a model of 8 billion parameters with 32 layers of 8 key heads."""
    layer = Layer(
        heads=32, kv_heads=8, key_length=128, value_length=128, weights=round(size * 0.9) // 32, ff=14336, work=14336
    )
    return Shape(
        form,
        "llama",
        (layer,) * 32,
        context_length=131072,
        embedding_length=4096,
        vocab_size=128256,
        input_bytes=round(size * 0.05),
        output_bytes=round(size * 0.05),
        quant=quant,
    )


def file(path: str, size: float) -> RepoFile:
    return RepoFile(path, round(size * GIB), sha256=path.encode().hex().rjust(64, "0")[-64:])


def answer(commit: str = "c0ffee", quant: str = "Q8_0") -> dict[str, t.Any]:
    """Return what hub_listing says of a repository with five types of weights."""
    files = tuple(file(f"Example-8B-{name}.gguf", size) for name, size in SIZES.items())
    listing = Listing("hf", REPO, commit, files)
    return {"listing": listing.as_data(), "source": "hf", "shape": shape(quant=quant).as_data()}


def missing(engine: str = "llama_server", model: str = REPO) -> dict[str, t.Any]:
    return {"engine": engine, "model": model, "sha256": "", "action": "missing", "why": "it is not there", "path": ""}


def settle(
    services: t.Sequence[dict[str, t.Any]] = (SERVICE,),
    answers: t.Any = None,
    images: t.Any = CPU,
    rows: t.Any = None,
    others: t.Any = None,
    **facts: t.Any,
) -> list[dict[str, t.Any]]:
    answers = {REPO: answer()} if answers is None else answers
    return model_plan.settle(
        rows or [missing()], list(services), answers, STORE, host("distro", **facts), TOOLKIT, images, others
    )


def machine(ram: float) -> dict[str, t.Any]:
    return {"memory_bytes": round(ram * GIB)}


def card(memory: float) -> dict[str, t.Any]:
    return nvidia("580.95.05", "13.0", gpu("RTX", "8.6", index=0, memory_total_bytes=round(memory * GIB)))


@pytest.mark.parametrize(
    ("ram", "quant"),
    [(64, "Q8_0"), (9, "Q6_K"), (7, "Q4_K_M"), (5, "Q2_K")],
)
def test_on_the_cpu_the_best_that_fits_in_ram(ram, quant):
    (row,) = settle(machine=machine(ram))
    assert manifest_from(row["manifest"]).quant == quant
    assert row["action"] == "download"
    assert row["source"] == "hf"
    assert row["path"] == f"{STORE}/hub/models--org--Example-8B-GGUF/snapshots/c0ffee/Example-8B-{quant}.gguf"
    assert row["shape"]
    assert quant in row["why"]


@pytest.mark.parametrize(("memory", "quant"), [(24, "Q8_0"), (8.5, "Q6_K"), (6.5, "Q4_K_M"), (5, "Q2_K")])
def test_on_a_gpu_the_best_that_fits_there_whole(memory, quant):
    (row,) = settle(images=CUDA, gpu=card(memory), machine=machine(64))
    assert manifest_from(row["manifest"]).quant == quant
    assert "problem" not in row


def test_where_none_fits_whole_the_usual_one_is_taken():
    (row,) = settle(images=CUDA, gpu=card(2.5), machine=machine(64))
    assert manifest_from(row["manifest"]).quant == "Q4_K_M"
    assert row["why"] == "Q4_K_M is the usual choice, as none of 5 types of weights fits whole"


def test_a_quant_that_was_asked_for_is_taken_whatever_fits():
    service = {**SERVICE, "model": f"{REPO}:Q8_0"}
    (row,) = settle([service], {f"{REPO}:Q8_0": answer()}, rows=[missing(model=f"{REPO}:Q8_0")], machine=machine(4))
    assert manifest_from(row["manifest"]).quant == "Q8_0"


def test_what_nothing_is_known_of_gets_the_usual_quant():
    (row,) = settle(answers={REPO: {**answer(), "shape": {}}})
    assert manifest_from(row["manifest"]).quant == "Q4_K_M"
    assert row["shape"] == {}
    (row,) = model_plan.settle([missing()], [SERVICE], {REPO: answer()}, STORE)
    assert manifest_from(row["manifest"]).quant == "Q4_K_M"


def test_the_second_service_has_what_the_first_has_left():
    other = {**SERVICE, "name": "other", "port": 8081, "model": f"hf:{REPO}"}
    answers = {REPO: answer(), other["model"]: answer()}
    rows = settle([SERVICE, other], answers, rows=[missing(), missing(model=other["model"])], machine=machine(16))
    assert [manifest_from(row["manifest"]).quant for row in rows] == ["Q8_0", "Q4_K_M"]


def test_two_services_with_one_model_share_the_smaller_of_their_files():
    big = {**SERVICE, "name": "big", "port": 8081, "context_length": 32768}
    for services in ([SERVICE, big], [big, SERVICE]):
        (row,) = settle(services, machine=machine(22))
        alone = [manifest_from(settle([one], machine=machine(22))[0]["manifest"]).quant for one in services]
        assert alone == ["Q8_0", "Q8_0"]
        assert manifest_from(row["manifest"]).quant in ("Q6_K", "Q4_K_M")


def test_the_shape_of_another_quant_is_scaled():
    (row,) = settle(machine=machine(7))
    layers = row["shape"]["layers"]
    assert layers[0]["weights"] * 32 == pytest.approx(4.7 * GIB * 0.9, rel=0.01)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({REPO: {"msg": "hf: no route to host; ms: there is no such repository"}}, "ms: there is no such repository"),
        ({}, "no source answered"),
    ],
)
def test_without_an_answer_the_row_says_why(answers, words):
    (row,) = settle(answers=answers)
    assert words in row["problem"]
    assert row["action"] == "missing"


def test_an_engine_that_cannot_use_it_is_told_what_to_do():
    service = {**SERVICE, "engine": "vllm"}
    (row,) = settle([service], rows=[missing("vllm")])
    assert "safetensors" in row["problem"]


def test_before_the_hubs_are_asked_nothing_is_wrong_yet():
    (row,) = model_plan.settle([missing()], [SERVICE], None, STORE)
    assert row == missing()


def neighbour(quant: str, size: float) -> dict[str, list[dict[str, t.Any]]]:
    manifest = Manifest(REPO, "beef", GGUF, (file("m.gguf", size),), "m.gguf", quant).as_data()
    row = {**missing(), "action": "keep", "manifest": manifest, "shape": shape(round(size * GIB), quant).as_data()}
    return {"b": [row]}


def test_what_another_host_has_is_taken_where_it_fits_and_no_hub_is_needed():
    (row,) = model_plan.settle(
        [missing()], [SERVICE], None, STORE, host("distro", machine=machine(16)), TOOLKIT, CPU, neighbour("Q8_0", 8.1)
    )
    assert (row["action"], row["why"], manifest_from(row["manifest"]).commit) == ("download", "b has it", "beef")
    assert row["path"].endswith("/snapshots/beef/m.gguf")
    assert model_rows.ways({"a": [row], **neighbour("Q8_0", 8.1)})["a"][0]["from"] == "b"


def test_what_another_host_has_is_left_where_it_does_not_fit():
    facts = host("distro", machine=machine(7))
    (row,) = model_plan.settle([missing()], [SERVICE], None, STORE, facts, TOOLKIT, CPU, neighbour("Q8_0", 8.1))
    assert row["action"] == "missing"
    (row,) = settle(machine=machine(7), rows=[row])
    assert manifest_from(row["manifest"]).quant == "Q4_K_M"


def test_what_another_host_has_is_taken_where_there_is_no_choice():
    facts = host("distro", machine=machine(4))
    named = {"b": [{**neighbour("Q8_0", 8.1)["b"][0], "model": f"{REPO}:Q8_0"}]}
    service = {**SERVICE, "model": f"{REPO}:Q8_0"}
    (row,) = model_plan.settle([missing(model=service["model"])], [service], None, STORE, facts, TOOLKIT, CPU, named)
    assert (row["action"], row["why"]) == ("download", "b has it")


def test_a_model_that_was_asked_about_is_marked():
    assert [row["asked"] for row in settle()] == [True]
    assert [row["asked"] for row in settle(answers={})] == [True]


def test_an_update_keeps_the_quant_and_changes_nothing_when_the_files_are_the_same():
    (present,) = settle(machine=machine(7))
    present = {**{key: value for key, value in present.items() if key != "chosen"}, "action": "keep"}
    (row,) = settle(rows=[present], machine=machine(64))
    assert row["action"] == "keep"
    moved = answer("d00d")
    moved["listing"]["files"][1]["sha256"] = "1" * 64
    (row,) = settle(rows=[present], answers={REPO: moved}, machine=machine(64))
    assert (row["action"], row["why"]) == ("download", "its default branch has moved on to d00d")
    assert (manifest_from(row["manifest"]).commit, manifest_from(row["manifest"]).quant) == ("d00d", "Q4_K_M")
    (row,) = settle(rows=[present], answers={REPO: {"msg": "no route"}}, machine=machine(64))
    assert (row["action"], row.get("problem")) == ("keep", None)


def test_a_folder_for_vllm_is_taken_whole():
    files = (file("config.json", 1e-6), file("model.safetensors", 2.0), file("tokenizer.json", 1e-5))
    found = {"listing": Listing("ms", "org/hf", "c1", files).as_data(), "source": "ms", "shape": {}}
    service = {**SERVICE, "engine": "vllm", "model": "org/hf"}
    (row,) = settle([service], {"org/hf": found}, rows=[missing("vllm", "org/hf")])
    assert row["format"] == SAFETENSORS
    assert row["path"] == f"{STORE}/hub/models--org--hf/snapshots/c1"


def test_a_service_that_is_stopped_keeps_its_model_and_takes_no_memory():
    stopped = {**SERVICE, "name": "stopped", "state": "stopped", "port": 8082, "model": "ms:org/other"}
    listing = Listing("ms", "org/other", "c", (file("other-Q8_0.gguf", 8.1),))
    answers = {REPO: answer(), "ms:org/other": {**answer(), "listing": listing.as_data()}}
    rows = settle([stopped, SERVICE], answers, rows=[missing(model="ms:org/other"), missing()], machine=machine(11))
    assert [manifest_from(row["manifest"]).quant for row in rows] == ["Q8_0", "Q8_0"]


def test_a_draft_and_a_projector_are_chosen_too_and_what_they_take_is_counted():
    projector = f"hf:{REPO}/mmproj-F16.gguf"
    service = {**SERVICE, "draft_model": "org/Small-GGUF:Q4_K_M", "mmproj": projector}
    small = Listing("hf", "org/Small-GGUF", "d00d", (file("Small-Q4_K_M.gguf", 2.0),))
    eyes = Listing("hf", REPO, "c0ffee", (file("mmproj-F16.gguf", 0.8), file("Example-8B-Q8_0.gguf", 8.1)))
    answers = {
        REPO: answer(),
        service["draft_model"]: {
            "listing": small.as_data(),
            "source": "hf",
            "shape": shape(2 * GIB, "Q4_K_M").as_data(),
        },
        projector: {"listing": eyes.as_data(), "source": "hf"},
    }
    rows = settle([service], answers, rows=[missing(model=model) for model in answers], machine=machine(64))
    assert [manifest_from(row["manifest"]).quant for row in rows[:2]] == ["Q8_0", "Q4_K_M"]
    assert rows[2]["path"].endswith("/snapshots/c0ffee/mmproj-F16.gguf")
    assert not any(row.get("problem") for row in rows)
    # a second service gets less
    second = {**SERVICE, "name": "other", "port": 8081, "model": f"{REPO}@main"}
    wanted = {**answers, second["model"]: answer()}
    rows = [missing(model=model) for model in wanted]
    before = settle([SERVICE, second], wanted, rows=rows, machine=machine(19))
    after = settle([service, second], wanted, rows=rows, machine=machine(19))
    quants = [manifest_from(found[-1]["manifest"]).quant for found in (before, after)]
    assert SIZES[quants[1]] < SIZES[quants[0]]


def test_the_code_of_a_model_comes_only_where_it_is_trusted():
    repo = "org/Own"
    files = (file("config.json", 0.0001), file("model.safetensors", 2.0), file("modeling_own.py", 0.0001))
    said = {repo: {"listing": Listing("hf", repo, "c0de", files).as_data(), "source": "hf"}}
    for trusted in (False, True):
        service = {"name": "own", "engine": "vllm", "model": repo, "port": 8000, "trust_remote_code": trusted}
        (row,) = settle([service], said, rows=[missing("vllm", repo)], machine=machine(64))
        assert ("modeling_own.py" in str(row["manifest"]["files"])) == trusted


def test_of_several_models_each_may_have_what_those_in_memory_with_it_leave():
    names = (REPO, f"{REPO}@main")
    several = {"name": "desk", "port": 8080, "models": dict(zip("ab", names))}
    answers, rows = {name: answer() for name in names}, [missing(model=name) for name in names]

    def quants(*services, ram):
        found = settle(services, answers, rows=rows, machine=machine(ram))
        return [manifest_from(row["manifest"]).quant for row in found]

    assert quants(several, ram=10.5) == ["Q8_0", "Q8_0"]
    first, second = quants({**several, "models_loaded": 2}, ram=14)
    assert first == "Q8_0"
    assert SIZES[second] < SIZES[first]
    # one of them is in memory beside another service
    other = {**SERVICE, "name": "other", "port": 8081}
    alone = settle([other], {REPO: answer()}, rows=[missing()], machine=machine(14))
    beside = settle(
        [{**several, "models": {"a": names[1]}}, other], answers, rows=list(reversed(rows)), machine=machine(14)
    )
    assert SIZES[manifest_from(beside[-1]["manifest"]).quant] < SIZES[manifest_from(alone[0]["manifest"]).quant]
