"""A short load against a real HTTP server that answers well, badly, or too slowly."""

from __future__ import annotations

import http.server
import json
import threading
import time

import pytest
from ansible.module_utils.llmfleet import llm_load_run
from ansible.module_utils.llmfleet.llm_load_run import Load, Request, failed, percentile, run, summary


class Server(http.server.ThreadingHTTPServer):
    """Streams ``pieces`` tokens, one each ``pause`` seconds, and remembers what it was asked."""

    daemon_threads = True
    pieces, pause, status, key = 3, 0.0, 200, ""
    extra: tuple = ()

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked, self.now, self.most, self.lock = [], 0, 0, threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(request)
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        refused = self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}"
        self.send_response(401 if refused else self.server.status)
        self.end_headers()
        if not refused and self.server.status == 200:
            self.stream()

    def stream(self):
        tokens = [{"choices": [{"delta": {"content": "word "}}]}] * self.server.pieces
        usage = {"choices": [], "usage": {"completion_tokens": self.server.pieces}}
        try:
            self.wfile.write(b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n')
            for event in [*tokens, *self.server.extra, usage]:
                time.sleep(self.server.pause)
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            # over before the client can know it, as it asks again at once
            with self.server.lock:
                self.server.now -= 1
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            pass

    def log_message(self, *_):
        """Stay silent."""


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def load_on(server, key="", **load):
    return run(f"http://127.0.0.1:{server.server_port}", key, "chat", Load(**load))


def test_as_many_streams_ask_at_once_as_were_wanted(server):
    server.pause = 0.05
    result = load_on(server, streams=3, requests=6)
    assert server.most == 3
    assert (result["requests"], result["answered"], result["tokens"], result["errors"]) == (6, 6, 18, {})
    assert 0.05 <= result["first_token_p50"] <= result["first_token_p95"]
    assert failed(result) == ""


def test_no_two_requests_are_equal_and_every_answer_is_as_long_as_asked(server):
    load_on(server, streams=2, requests=5, max_tokens=7, prompt="Count.")
    load_on(server, streams=1, requests=1, max_tokens=7, prompt="Count.")
    prompts = {request["messages"][0]["content"] for request in server.asked}
    assert len(prompts) == 6
    assert all(prompt.endswith(". Count.") for prompt in prompts)
    assert {(request["max_tokens"], request["ignore_eos"]) for request in server.asked} == {(7, True)}


def test_time_ends_a_load_and_what_was_cut_is_no_error(server):
    server.pause, server.pieces = 0.05, 1000
    # each answer would take 50 s
    result = load_on(server, streams=2, requests=50, seconds=1.5)
    assert (result["unfinished"], result["answered"], result["errors"]) == (2, 0, {})
    assert 2 <= result["tokens"] < 100
    assert result["total_tokens_per_second"] > 0
    assert failed(result) == ""


def test_a_first_token_that_does_not_come_in_time_is_told(server, monkeypatch):
    monkeypatch.setattr(llm_load_run, "LEAST_SECONDS", 0.1)
    server.pause = 5
    result = load_on(server, streams=1, requests=1, seconds=1)
    assert (result["unfinished"], result["first_token_p50"]) == (1, None)
    assert "none of 1 requests was given a token in time" in failed(result)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"key": "secret"}, "HTTP 401"),
        ({"status": 500}, "HTTP 500"),
        ({"pieces": 0}, "without a single token"),
        ({"extra": ({"error": {"message": "out of memory"}},)}, "out of memory"),
        ({"extra": (None,)}, "'None' in place of a mapping"),
    ],
)
def test_what_goes_wrong_is_counted_by_its_words(server, attributes, words):
    vars(server).update(attributes)
    result = load_on(server, key="wrong", streams=2, requests=4)
    (text,) = result["errors"]
    assert words in text
    assert result["errors"][text] == 4
    assert f"4 of 4 requests of 2 streams failed: {text}" == failed(result)


def test_a_count_of_tokens_that_is_none_counts_nothing(server):
    server.extra = ({"choices": [], "usage": {"completion_tokens": None}},)
    assert load_on(server, streams=1, requests=1)["tokens"] == 3


def test_nobody_there_is_an_error_too(server):
    port = server.server_port
    server.shutdown()
    server.server_close()
    assert "ConnectionRefusedError" in failed(run(f"http://127.0.0.1:{port}", "", "chat", Load(streams=1)))


def test_what_is_no_url_is_refused_at_once():
    with pytest.raises(ValueError, match="not an http"):
        run("chat:8080", "", "chat", Load())


@pytest.mark.parametrize(
    ("values", "share", "expected"), [([1], 0.95, 1), ([3, 1, 2], 0.5, 2), (range(1, 101), 0.95, 95), ([1, 2], 0.5, 1)]
)
def test_percentiles_are_values_that_were_seen(values, share, expected):
    assert percentile(list(values), share) == expected


def test_the_summary_counts_from_the_first_request_to_the_last_token():
    result = summary(2, [Request(0.0, 0.5, 2.5, 5), Request(1.0, 2.0, 4.0, 11), Request(1.0, error="HTTP 500: no")])
    assert (result["tokens"], result["seconds"], result["total_tokens_per_second"]) == (16, 4.0, 4.0)
    assert (result["first_token_p50"], result["first_token_p95"], result["tokens_per_second"]) == (0.5, 1.0, 3.5)


def test_a_load_of_nothing_has_no_figures():
    result = summary(1, [])
    assert result["first_token_p50"] is result["tokens_per_second"] is result["total_tokens_per_second"] is None
    assert failed(result) == ""
