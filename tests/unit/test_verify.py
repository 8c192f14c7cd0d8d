"""Verification against a real HTTP server that behaves well, badly, or not yet."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from ansible.module_utils.llmfleet.engines.base import DeviceError
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.services import Verify
from ansible.module_utils.llmfleet.verify import FailedError, NotYetError, Report, advance


class Server(http.server.ThreadingHTTPServer):
    """Answers like llama-server; tests change the attributes."""

    health = (200, '{"status":"ok"}')
    models = (200, '{"data":[{"id":"chat"}]}')
    key = ""
    events: tuple = (
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"content": "Hello"}}]},
        {"choices": [{"delta": {"content": " there"}}]},
        {"choices": [], "usage": {"completion_tokens": 2}, "timings": {"predicted_per_second": 50.0}},
    )
    status = 200


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves what its server's attributes say."""

    server: Server

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        refused = self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}"
        if self.path == "/health":
            self._send(*self.server.health)
        elif refused:
            self._send(401, '{"error":{"message":"Invalid API Key"}}')
        else:
            self._send(*self.server.models)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status != 200:
            self._send(self.server.status, "no")
            return
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in self.server.events) + "data: [DONE]\n\n"
        self._send(200, body)

    def log_message(self, *_):
        """Stay silent."""


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def climb(server, key="", device=None, **verify):
    report = Report()
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}", key, timeout=5)
    advance(endpoint, "/health", "chat", Verify(**verify), report, 0.0, device)
    return report


def test_a_good_server_reaches_the_token_level(server):
    report = climb(server)
    assert list(report.levels) == ["http", "model", "token"]
    assert (report.reply, report.completion_tokens, report.tokens_per_second) == ("Hello there", 2, 50.0)
    assert report.first_token_seconds is not None


def test_lower_levels_ask_less(server):
    server.models = (500, "broken")
    assert list(climb(server, level="http").levels) == ["http"]


def test_reasoning_counts_as_tokens(server):
    server.events = ({"choices": [{"delta": {"reasoning_content": "Hm"}}]},)
    report = climb(server)
    assert report.reply == "Hm"
    assert report.tokens_per_second is None


def test_the_key_is_sent(server):
    server.key = "k"
    assert "token" in climb(server, key="k").levels
    with pytest.raises(FailedError, match="refuses the API key"):
        climb(server, key="wrong")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"health": (503, '{"error":{"message":"Loading model"}}')}, NotYetError, "Loading model"),
        ({"health": (500, "broken")}, FailedError, "HTTP 500"),
        ({"models": (200, "<html>")}, FailedError, "not a model list"),
        ({"models": (200, '{"data":[{"id":"other"}]}')}, FailedError, "serves other, not chat"),
        ({"status": 503}, NotYetError, "still loading"),
        ({"status": 400}, FailedError, "refuses a chat completion: HTTP 400"),
        ({"events": ()}, FailedError, "without a single token"),
        ({"events": ({"error": {"message": "engine died"}},)}, FailedError, "engine died"),
    ],
)
def test_what_is_wrong_is_told_apart_from_what_is_not_ready(server, change, error, words):
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(error, match=words):
        climb(server)


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
