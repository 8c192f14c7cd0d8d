"""A stand-in for an engine's HTTP server: answers what a test says, or else what llama-server and vLLM would."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import threading
import time
import typing as t

KEY = "the-key"
PIECES = ("你", "好,", "世界", "!")
MESSAGE = {"role": "assistant", "content": "".join(PIECES)}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "output_tokens": 4}
ANSWERS: dict[tuple[str, str], t.Any] = {
    ("GET", "/health"): {"status": "ok"},
    ("GET", "/v1/models"): {"data": [{"id": "chat"}]},
    ("GET", "/metrics"): "llamacpp:prompt_tokens_total 1\nvllm:num_requests_running 0\n",
    ("POST", "/v1/chat/completions"): {"choices": [{"message": MESSAGE}], "usage": USAGE},
    ("POST", "/v1/completions"): {"choices": [{"text": "blue"}]},
    ("POST", "/v1/responses"): {"output": [{"type": "message"}]},
    ("POST", "/v1/messages"): {"content": [{"type": "text", "text": "Hello"}], "usage": USAGE},
    ("POST", "/v1/embeddings"): {"data": [{"embedding": [0.5, 0.0]}, {"embedding": [0.0, 0.5]}]},
    ("POST", "/v1/rerank"): {"results": [{"index": 1, "relevance_score": 2.5}, {"index": 0, "relevance_score": -1}]},
    ("POST", "/v1/score"): {"data": [{"score": 0.25}, {"score": 0.75}]},
    ("POST", "/classify"): {"data": [{"probs": [0.25, 0.75]}, {"probs": [0.5, 0.5]}]},
    ("POST", "/tokenize"): {"tokens": [1, 2, 3]},
    ("POST", "/detokenize"): {"content": "Grüße, 世界! 你好 🙂", "prompt": "Grüße, 世界! 你好 🙂"},
}
"""(method, path) -> what is answered: data as JSON, a text as it is, or (status, text)."""


class Server(http.server.ThreadingHTTPServer):
    """What it says can be changed by a test."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = dict(ANSWERS)
        self.key = ""
        self.open: tuple[str, ...] = ("/health",)
        """Paths that answer without the key."""
        self.pieces: tuple[str, ...] = PIECES
        self.usage: dict[str, int] | None = USAGE
        self.events: tuple[t.Any, ...] | None = None
        """The events of a stream; None: those of ``pieces`` and ``usage``."""
        self.before = self.between = 0.0
        """Seconds before the first piece of a stream and before each of the others."""
        self.cut = 0
        """Bytes that are sent at once; 0: each event whole."""
        self.held = False
        """Whether a stream is gathered and sent when it is whole, as by a proxy that buffers."""
        self.asked: list[tuple[str, str, t.Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer("GET", None)

    def do_POST(self) -> None:
        self._answer("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, method: str, payload: t.Any) -> None:
        server = self.server
        server.asked.append((method, self.path, payload))
        if server.key and self.path not in server.open and self.headers.get("Authorization") != f"Bearer {server.key}":
            self._send(401, '{"error":"Unauthorized"}')
            return
        answer = server.answers.get((method, self.path), (405 if method == "GET" else 404, "no such path"))
        if isinstance(answer, tuple):
            self._send(*answer)
        elif payload and payload.get("stream"):
            self._stream()
        else:
            self._send(200, answer if isinstance(answer, str) else json.dumps(answer))

    def _send(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def _stream(self) -> None:
        self.send_response(200)
        self.end_headers()
        time.sleep(self.server.before)
        client = self.wfile
        if self.server.held:
            self.wfile = io.BytesIO()
        for event in self.server.events or ():
            self._event(event)
        if self.server.events is None:
            self._reply()
        self.wfile.write(b"data: [DONE]\n\n")
        if isinstance(self.wfile, io.BytesIO):
            client.write(self.wfile.getvalue())
            self.wfile = client

    def _reply(self) -> None:
        for number, piece in enumerate(self.server.pieces):
            time.sleep(self.server.between if number else 0)
            self._event({"choices": [{"delta": {"content": piece}}]})
        self._event({"choices": [], "usage": self.server.usage})

    def _event(self, event: t.Any) -> None:
        data = f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode("utf-8", "surrogateescape")
        size = self.server.cut or len(data)
        for start in range(0, len(data), size):
            self.wfile.write(data[start : start + size])
            self.wfile.flush()

    def log_message(self, *_: t.Any) -> None:
        """Stay silent."""


@contextlib.contextmanager
def serving() -> t.Iterator[Server]:
    """Serve for the length of a test."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
