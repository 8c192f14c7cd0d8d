"""Verification against a real HTTP server that behaves well, badly, or not yet."""

from __future__ import annotations

import api_server
import pytest
from ansible.module_utils.llmfleet.engines.base import DeviceError
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.services import Verify
from ansible.module_utils.llmfleet.verify import FailedError, NotYetError, Report, advance

EVENTS = (
    {"choices": [{"delta": {"role": "assistant"}}]},
    {"choices": [{"delta": {"content": "Hello"}}]},
    {"choices": [{"delta": {"content": " there"}}]},
    {"choices": [], "usage": {"completion_tokens": 2}, "timings": {"predicted_per_second": 50.0}},
)
"""As llama-server streams."""
HEALTH, MODELS = ("GET", "/health"), ("GET", "/v1/models")
CHAT = ("POST", "/v1/chat/completions")


@pytest.fixture
def server():
    with api_server.serving() as running:
        running.events = EVENTS
        yield running


def climb(server, key="", device=None, task="generate", **verify):
    report = Report()
    endpoint = Endpoint(server.url, key, timeout=5)
    advance(endpoint, "/health", "chat", Verify(**verify), report, 0.0, device, task)
    return report


def test_a_good_server_reaches_the_token_level(server):
    report = climb(server)
    assert list(report.levels) == ["http", "model", "token"]
    assert (report.reply, report.completion_tokens, report.tokens_per_second) == ("Hello there", 2, 50.0)
    assert report.first_token_seconds is not None


def test_lower_levels_ask_less(server):
    server.answers[MODELS] = (500, "broken")
    assert list(climb(server, level="http").levels) == ["http"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_counts_as_tokens(server, key):
    server.events = ({"choices": [{"delta": {key: "Hm"}}]},)
    report = climb(server)
    assert report.reply == "Hm"
    assert report.tokens_per_second is None


def test_the_key_is_sent(server):
    server.key = "k"
    assert "token" in climb(server, key="k").levels
    with pytest.raises(FailedError, match="refuses the API key"):
        climb(server, key="wrong")


@pytest.mark.parametrize(
    ("place", "answer", "error", "words"),
    [
        (HEALTH, (503, '{"error":{"message":"Loading model"}}'), NotYetError, "Loading model"),
        (HEALTH, (500, "broken"), FailedError, "HTTP 500"),
        (MODELS, "<html>", FailedError, "not a model list"),
        (MODELS, {"data": [{"id": "other"}]}, FailedError, "serves other, not chat"),
        (CHAT, (503, "no"), NotYetError, "still loading"),
        (CHAT, (400, "no"), FailedError, "refuses a chat completion: HTTP 400"),
    ],
)
def test_what_is_wrong_is_told_apart_from_what_is_not_ready(server, place, answer, error, words):
    server.answers[place] = answer
    with pytest.raises(error, match=words):
        climb(server)


@pytest.mark.parametrize(
    ("events", "words"),
    [((), "without a single token"), (({"error": {"message": "engine died"}},), "engine died")],
)
def test_a_stream_without_a_reply_is_a_failure(server, events, words):
    server.events = events
    with pytest.raises(FailedError, match=words):
        climb(server)


@pytest.mark.parametrize(
    ("task", "proof"),
    [
        ("embed", "vectors of 2 numbers"),
        ("rerank", "scores of 2 documents, -1 to 2.5"),
        ("score", "scores of 2 documents, 0.25 to 0.75"),
        ("classify", "probabilities of 2 classes"),
    ],
)
def test_a_service_that_writes_no_text_does_what_it_is_for(server, task, proof):
    report = climb(server, task=task)
    assert list(report.levels) == ["http", "model", "token"]
    assert (report.proof, report.reply, report.tokens_per_second) == (proof, None, None)
    assert CHAT not in [asked[:2] for asked in server.asked]


@pytest.mark.parametrize("bound", [{"max_first_token_seconds": 5}, {"min_tokens_per_second": 1}, {"answer": "yes"}])
def test_a_service_that_writes_no_text_has_no_bounds_of_one(server, bound):
    with pytest.raises(FailedError, match="writes no text"):
        climb(server, task="embed", **bound)


def test_nobody_listening_is_not_ready_yet(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(NotYetError, match="does not answer"):
        climb(server)


def test_speed_and_answer_are_levels_of_their_own(server):
    report = climb(server, min_tokens_per_second=10, max_first_token_seconds=5, answer="there")
    assert list(report.levels) == ["http", "model", "token", "speed", "answer"]


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ({"min_tokens_per_second": 51}, "below the floor"),
        ({"max_first_token_seconds": 0.0000001}, "the first token took"),
        ({"answer": "goodbye"}, "does not contain 'goodbye'"),
    ],
)
def test_missed_bounds_fail(server, bound, words):
    with pytest.raises(FailedError, match=words):
        climb(server, **bound)


def test_on_a_gpu_the_device_is_proven_between_answer_and_speed(server):
    report = climb(server, device=lambda: "3/3 layers on CUDA0", min_tokens_per_second=10)
    assert list(report.levels) == ["http", "model", "token", "device", "speed"]
    assert report.device == "3/3 layers on CUDA0"


def test_a_level_below_leaves_the_device_alone(server):
    report = climb(server, level="token", device=lambda: pytest.fail("asked"), answer="there")
    assert list(report.levels) == ["http", "model", "token", "answer"]
    assert report.device is None


def test_a_refuted_device_stops_the_climb(server):
    def refuted():
        raise DeviceError("it computes on the CPU", "no GPU", "choose another image")

    with pytest.raises(DeviceError, match="it computes on the CPU"):
        climb(server, device=refuted, answer="goodbye")
