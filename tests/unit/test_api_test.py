"""The self-test of an API against a server that does well, or one thing wrong."""

from __future__ import annotations

import re
import typing as t

import api_server
import pytest
from ansible.module_utils.llmfleet import api_checks
from ansible.module_utils.llmfleet.api_checks import Subject
from ansible.module_utils.llmfleet.api_test import CHECKS, lines, run, summary
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.engines.dialects import DIALECTS
from ansible.module_utils.llmfleet.http_client import Endpoint

PATHS = ENGINES["vllm"].PATHS
KEY = api_server.KEY


@pytest.fixture
def server():
    with api_server.serving() as running:
        yield running


def subject(server: api_server.Server, task: str = "generate", engine: str = "llama_server", **more: t.Any) -> Subject:
    """Return what to test; the key is given where the server has one."""
    paths = PATHS[task] if engine != "llama_server" else ENGINES[engine].PATHS[task]
    endpoint = Endpoint(server.url, server.key, timeout=5)
    return Subject(endpoint, "chat", engine=engine, paths=tuple(paths), has_key=bool(server.key), **more)


def verdicts(results: list[dict[str, t.Any]]) -> dict[str, bool | None]:
    return {row["name"]: row["ok"] for row in results}


GENERATE = ["health", "models", "chat", "chat_stream", "chinese", "completions", "responses", "messages"]


@pytest.mark.parametrize(
    ("engine", "task", "names"),
    [
        ("llama_server", "generate", [*GENERATE, "metrics", "tokenize"]),
        ("vllm", "generate", [*GENERATE, "metrics", "tokenize"]),
        ("", "generate", GENERATE),
        ("llama_server", "embed", ["health", "models", "embeddings", "metrics", "tokenize"]),
        ("vllm", "rerank", ["health", "models", "rerank", "metrics", "tokenize"]),
        ("vllm", "score", ["health", "models", "score", "metrics", "tokenize"]),
        ("vllm", "classify", ["health", "models", "classify", "metrics", "tokenize"]),
    ],
)
def test_a_good_server_passes_what_engine_and_task_have(server, engine, task, names):
    results = run(subject(server, task, engine))
    assert verdicts(results) == dict.fromkeys(names, True), results
    assert summary(results) == ""


def test_every_check_is_made_of_some_server(server):
    server.key = KEY
    made = {row["name"] for task in PATHS for row in run(subject(server, task, "vllm", closed=("/docs",)))}
    assert made == {check.name for check in CHECKS}


def test_chosen_checks_only(server):
    assert list(verdicts(run(subject(server), ["chat", "models"]))) == ["models", "chat"]


def one(server: api_server.Server, name: str, task: str = "generate", **more: t.Any) -> dict[str, t.Any]:
    (row,) = run(subject(server, task, more.pop("engine", "vllm"), **more), [name])
    return row


CHAT = ("POST", "/v1/chat/completions")


@pytest.mark.parametrize(
    ("name", "task", "place", "answer", "words"),
    [
        ("health", "generate", ("GET", "/health"), (500, "dead"), "HTTP 500: dead"),
        ("health", "generate", ("GET", "/health"), (503, "loading"), "HTTP 503: loading"),
        ("models", "generate", ("GET", "/v1/models"), {"data": [{"id": "other"}]}, "serves other, not chat"),
        ("models", "generate", ("GET", "/v1/models"), "<html>", "not a model list"),
        ("chat", "generate", CHAT, {"choices": []}, "in a shape that is not expected"),
        ("chat", "generate", CHAT, "<html>", "no JSON: <html>"),
        ("chat", "generate", CHAT, (400, "no template"), "HTTP 400: no template"),
        (
            "chat",
            "generate",
            CHAT,
            {"choices": [{"message": {"content": ""}}], "usage": {"completion_tokens": 0}},
            "without a single token",
        ),
        (
            "chinese",
            "generate",
            CHAT,
            {"choices": [{"message": {"content": "\ufffd\ufffd好"}}], "usage": {"completion_tokens": 1}},
            "breaks characters",
        ),
        ("completions", "generate", ("POST", "/v1/completions"), {"choices": [{}]}, "not expected"),
        ("responses", "generate", ("POST", "/v1/responses"), {"output": []}, "no output"),
        ("messages", "generate", ("POST", "/v1/messages"), {"usage": {"output_tokens": 0}}, "without a single token"),
        ("embeddings", "embed", ("POST", "/v1/embeddings"), {"data": [{"embedding": [1]}]}, "1 vectors to 2 texts"),
        (
            "embeddings",
            "embed",
            ("POST", "/v1/embeddings"),
            {"data": [{"embedding": [0.0]}, {"embedding": [1.0]}]},
            "a vector of zeros",
        ),
        (
            "embeddings",
            "embed",
            ("POST", "/v1/embeddings"),
            {"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]},
            "the same vector",
        ),
        (
            "embeddings",
            "embed",
            ("POST", "/v1/embeddings"),
            {"data": [{"embedding": [1.0]}, {"embedding": [float("nan")]}]},
            "no finite numbers",
        ),
        (
            "rerank",
            "rerank",
            ("POST", "/v1/rerank"),
            {"results": [{"index": 0, "relevance_score": 1}, {"index": 1, "relevance_score": 2}]},
            "best document first",
        ),
        ("rerank", "rerank", ("POST", "/v1/rerank"), {"results": [{"index": 0, "relevance_score": 1}]}, "each of 2"),
        ("score", "score", ("POST", "/v1/score"), {"data": [{"score": 1}]}, "1 scores to 2 documents"),
        ("classify", "classify", ("POST", "/classify"), {"data": [{"probs": [1]}]}, "1 classes to 2 texts"),
        ("metrics", "generate", ("GET", "/metrics"), "# empty\n", "nothing that begins with vllm:"),
        ("tokenize", "generate", ("POST", "/detokenize"), {"prompt": "Gr\ufffd\ufffdsse"}, "into 3 tokens, and those"),
    ],
)
def test_what_is_wrong_is_said(server, name, task, place, answer, words):
    server.answers[place] = answer
    row = one(server, name, task)
    assert row["ok"] is False
    assert words in row["why"]
    assert f"1 of 1 checks of the API failed: {name}: " in summary([row])


@pytest.mark.parametrize("name", ["completions", "responses", "messages"])
def test_what_older_builds_lack_is_no_failure(server, name):
    del server.answers["POST", f"/v1/{name}"]
    row = one(server, name)
    assert row["ok"] is None
    assert "HTTP 404" in row["why"]
    assert summary([row]) == ""


@pytest.mark.parametrize(("name", "task", "path"), [("embeddings", "embed", "/v1/embeddings")])
def test_what_the_service_is_for_has_to_be_there(server, name, task, path):
    del server.answers["POST", path]
    assert one(server, name, task)["ok"] is False


def test_nobody_there_fails_every_check():
    with api_server.serving() as server:
        asked = subject(server)
    results = run(asked)
    assert verdicts(results) == {"health": False, "models": False}
    assert "does not answer" in summary(results)
    assert "whether this address reaches it" in summary(results)


def test_a_key_that_is_refused_ends_it(server):
    asked = subject(server)
    server.key = KEY
    results = run(asked)
    assert verdicts(results) == {"health": True, "models": False}
    assert "refuses the API key (HTTP 401) (give the `api_key`" in summary(results)


def test_characters_survive_a_stream_that_is_cut_anywhere(server):
    server.cut = 1
    assert one(server, "chinese")["ok"]
    server.pieces = ("\udce4\udcbd", "\udca0")  # an engine that sends the bytes of one character in two pieces
    assert "breaks characters" in one(server, "chinese")["why"]


def test_a_reply_may_end_within_a_character(server):
    server.pieces = ("你", "\udce4")
    assert one(server, "chinese")["ok"]


def test_a_stream_has_its_usage(server):
    server.usage = None
    assert "without the usage" in one(server, "chat_stream")["why"]


@pytest.mark.parametrize(
    ("before", "between", "held", "ok"),
    [
        # quick ones cannot be told from those that were held back
        (0.0, 0.0, True, True),
        (0.32, 0.0, True, False),
        (0.32, 0.02, False, True),
        # a short reply after a long wait for the prompt
        (1.0, 0.012, False, True),
    ],
)
def test_a_stream_that_something_holds_back_is_noticed(server, before, between, held, ok):
    server.before, server.between, server.held = before, between, held
    row = one(server, "chat_stream")
    assert row["ok"] is ok, row
    told = re.search(r"4 pieces at once after (\d+\.\d+)", row["why"])
    assert ok or float(told[1]) >= before


def test_many_tokens_in_one_piece_are_held_back(server):
    server.pieces, server.usage = ("".join(api_server.PIECES),), {"completion_tokens": 16}
    assert "1 pieces at once" in one(server, "chat_stream")["why"]


def test_no_path_answers_without_the_key(server):
    server.key = KEY
    row = one(server, "key")
    assert row["ok"], row
    asked = [(method, path) for method, path, _ in server.asked]
    # what changes a server is looked at only
    assert ("GET", "/collective_rpc") in asked
    assert {path for method, path in asked if method == "POST"} == set(PATHS["generate"])
    for path in ("/invocations", "/pause", "/tokenize", "/metrics", "/v1/models"):
        assert asked.count(("GET", path)) == 2, path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/metrics", "GET /metrics (HTTP 200)"),
        # only POST would answer, which is open all the same
        ("/invocations", "GET /invocations (HTTP 405)"),
        ("/v1/chat/completions", "POST /v1/chat/completions (HTTP 200)"),
    ],
)
def test_an_open_path_is_named(server, path, said):
    server.key, server.open = KEY, ("/health", path)
    row = one(server, "key")
    assert row["ok"] is False
    assert f"answers without a key: {said}" in row["why"]
    assert "through the gateway" in summary([row])


def test_behind_a_gateway_nothing_but_the_api_is_asked(server):
    server.key = KEY
    names = list(verdicts(run(subject(server, engine="vllm", direct=False))))
    assert "metrics" not in names
    assert "tokenize" not in names
    assert not {path for _, path, _ in server.asked} & set(DIALECTS["vllm"].guarded)


def test_closed_paths_are_closed_with_the_key_too(server):
    server.key = KEY
    server.answers["GET", "/tokenize"] = (404, "no")
    assert one(server, "closed", closed=("/tokenize",))["ok"]
    row = one(server, "closed", closed=("/tokenize", "/metrics"))
    assert "lets callers through to GET /metrics (HTTP 200)" in row["why"]


def test_the_lines_say_all():
    rows = [
        {"name": "chat", "ok": True, "seconds": 0.0314, "why": "replied 'Hi'"},
        {"name": "responses", "ok": None, "seconds": 0.001, "why": "HTTP 404"},
        {"name": "key", "ok": False, "seconds": 12.5, "why": "answers"},
    ]
    assert lines("service chat", rows) == [
        "service chat",
        "  chat        ok          0.031 s  replied 'Hi'",
        "  responses   not there   0.001 s  HTTP 404",
        "  key         FAILED     12.500 s  answers",
    ]


def test_every_engine_is_known_beside_its_api():
    assert set(DIALECTS) == set(ENGINES)


def test_the_wrong_key_is_nobodys():
    assert api_checks.WRONG_KEY != KEY
