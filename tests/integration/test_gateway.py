"""The gateway's nginx for real: what it lets through, how it streams, and what happens when a backend dies.

Backends that say 200 to everything show what is kept from them; a real llama-server shows that the rest works.
"""

from __future__ import annotations

import json
import socket
import ssl
import statistics
import subprocess
import threading
import time
import typing as t
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai_calls
import pytest
import test_vllm
from ansible.module_utils.llmfleet.engines import ENGINES
from gateway_lab import ALICE, BOB, Backend, Gateway
from helpers import docker, free_port, run_module

ENGINE_KEY = "engine-key-$with'odd\\characters\""
CHAT = "/v1/chat/completions"

VLLM_PATHS = [
    "/invocations",
    "/generative_scoring",
    "/pooling",
    "/classify",
    "/score",
    "/rerank",
    "/v1/score",
    "/pause",
    "/resume",
    "/abort_requests",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/update_weights",
    "/init_weight_transfer_engine",
    "/get_world_size",
    "/metrics",
    "/tokenize",
    "/detokenize",
    "/ping",
    "/version",
    "/load",
    "/kv_event_sources",
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/collective_rpc",
    "/server_info",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/reset_encoder_cache",
    "/start_profile",
    "/stop_profile",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v2/embed",
    "/v2/rerank",
    "/inference/v1/generate",
    "/tokenizer_info",
    "/v1/realtime",
    "/cohere/v2/chat",
]
"""All that vLLM serves beside what the services here are for; some without a key (docs/usage/security.md)."""

LLAMA_PATHS = [
    "/props",
    "/slots",
    "/slots/0",
    "/completion",
    "/completions",
    "/chat/completions",
    "/embedding",
    "/embeddings",
    "/infill",
    "/apply-template",
    "/lora-adapters",
    "/models",
    "/models/load",
    "/models/unload",
    "/tools",
    "/cors-proxy",
    "/api/show",
    "/api/tags",
    "/api/chat",
    "/v1/health",
    "/",
    "/index.html",
    "/v1/rerank",
    "/v1/reranking",
    "/v1/embeddings",
]


@pytest.fixture(scope="session")
def nginx_image() -> str:
    result = run_module("packaged_image", {"kind": "gateway", "source": "build"})
    assert not result.get("failed"), result
    return str(result["image"])


@pytest.fixture
def backend() -> t.Iterator[Backend]:
    made = Backend()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(nginx_image: str, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[tuple[Gateway, Backend]]:
    """A gateway in front of one backend, for tests that change neither."""
    folder = tmp_path_factory.mktemp("gateway")
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    made, behind = Gateway(folder / "files", nginx_image, "test-gateway-shared", (free_port(), free_port())), Backend()
    made.stop()
    try:
        yield made.start([service(behind, name="chat", api_key=ENGINE_KEY)]), behind
    finally:
        made.stop()
        behind.close()


@pytest.fixture
def gateway(nginx_image: str, tmp_path: Path, request: pytest.FixtureRequest) -> t.Iterator[Gateway]:
    tmp_path.chmod(0o755)
    tmp_path.parent.chmod(0o755)
    name = f"test-gateway-{request.node.name.replace('[', '-').strip(']')[5:45]}"
    made = Gateway(tmp_path / "files", nginx_image, name, (free_port(), free_port()))
    made.stop()
    yield made
    made.stop()


def service(backend: Backend | int, name: str = "chat", **fields: t.Any) -> dict[str, t.Any]:
    port = backend if isinstance(backend, int) else backend.port
    return {"name": name, "engine": "vllm", "model": "org/name", "port": port, **fields}


def test_a_request_reaches_the_engine_with_the_engines_key_and_nothing_of_the_caller(shared):
    gateway, backend = shared
    backend.asked.clear()
    body = {"model": "chat", "messages": [{"role": "user", "content": "你好"}]}
    secret = {"Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "X-data-parallel-rank": "1", "X-Api-Key": ALICE}
    status, headers, said = gateway.ask("POST", CHAT + "?api-version=1", body, ALICE, **secret)
    assert (status, said["path"]) == (200, CHAT)
    method, _, seen = backend.asked[-1]
    assert method == "POST"
    assert seen["Authorization"] == f"Bearer {ENGINE_KEY}"
    assert set(seen) <= {"Host", "Content-Length", "Content-Type", "Accept", "X-Request-Id", "Authorization"}
    assert seen["X-Request-Id"] == headers["x-request-id"]
    assert "access-control-allow-origin" not in headers
    assert json.loads(backend.bodies[-1]) == body
    assert gateway.ask("POST", CHAT, body, **{"X-Api-Key": ALICE})[0] == 200


@pytest.mark.parametrize("path", [*VLLM_PATHS, *LLAMA_PATHS])
def test_every_other_path_of_the_engines_is_closed(shared, path):
    gateway, backend = shared
    before = len(backend.asked)
    for where in (path, f"/chat{path}"):
        for method in ("GET", "POST"):
            status, _, said = gateway.ask(method, where, {"model": "chat"} if method == "POST" else None, ALICE)
            assert status in (404, 405), (method, where)
            assert said["error"]["code"] in ("not_found", "method_not_allowed")
    assert len(backend.asked) == before


@pytest.mark.parametrize(
    "path",
    [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/../metrics",
        "/v1/chat/completions/../../../metrics",
        "/v1/%2e%2e/metrics",
        "/%2e%2e/metrics",
        "/v1/chat%2fcompletions",
        "/v1/%63hat/completions",
        "/metrics/../v1/chat/completions",
        "/./v1/chat/completions",
        "/v1/chat/completions%00",
        "/v1/chat/completions;a=b",
        "/V1/CHAT/COMPLETIONS",
        "/v1\\chat\\completions",
        "/v1/chat/completions%3f/../../../metrics",
        "/v1/chat/completions#/metrics",
        "http://127.0.0.1/metrics",
        "http://elsewhere/v1/../metrics",
        "/chat//v1/chat/completions",
        "/chat/v1/../../metrics",
        "@llm_0",
        "/@llm_0",
    ],
)
def test_a_path_counts_as_it_is_written(shared, path):
    gateway, backend = shared
    before = len(backend.asked)
    body = json.dumps({"model": "chat"})
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert raw(gateway, (head + body).encode()) in (400, 404)
    assert len(backend.asked) == before


def raw(gateway: Gateway, request: bytes) -> int:
    """Return the status that ``request`` gets, sent as it is."""
    with socket.create_connection(("127.0.0.1", gateway.local_port), timeout=10) as connection:
        connection.sendall(request)
        return int(connection.recv(4096).split(b" ", 2)[1])


def test_an_address_with_a_host_and_a_body_in_chunks_are_understood(shared):
    gateway, backend = shared
    body = b'{"model": "chat"}'
    head = f"POST http://some.host{CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: bearer {ALICE}\r\n".encode()
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert raw(gateway, head + chunks) == 200
    assert backend.asked[-1][1] == CHAT
    assert backend.bodies[-1] == body
    # two lengths are how one request is smuggled in another
    both = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert raw(gateway, head + both) == 400
    assert raw(gateway, head + b"X-Large: " + b"a" * 70000 + b"\r\n\r\n") == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_other_methods_are_refused(shared, method):
    gateway, backend = shared
    before = len(backend.asked)
    assert gateway.ask(method, CHAT, {"model": "chat"}, ALICE)[0] == 405
    assert len(backend.asked) == before


@pytest.mark.parametrize("key", ["", "wrong-key-0123456789", ALICE.upper(), f"{ALICE} x", f"x{ALICE}"])
def test_without_a_right_key_nothing_is_said(shared, key):
    gateway, backend = shared
    before = len(backend.asked)
    for method, path in (("POST", CHAT), ("POST", "/chat" + CHAT), ("GET", "/v1/models"), ("GET", "/v1/models/chat")):
        status, headers, said = gateway.ask(method, path, {"model": "chat"} if method == "POST" else None, key)
        assert (status, said["error"]["code"]) == (401, "invalid_api_key")
        assert headers["www-authenticate"] == "Bearer"
    assert gateway.ask("POST", CHAT, {"model": "chat"}, Authorization=f"Basic {ALICE}")[0] == 401
    assert gateway.ask("GET", "/health")[2]["status"] == "ok"
    assert len(backend.asked) == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"no json", 400, "invalid_json"),
        (b"[1]", 400, "invalid_json"),
        (b"null", 400, "invalid_json"),
        (b'{"model": "\xff"}', 404, "model_not_found"),
        (b'{"model": ["chat"]}', 404, "model_not_found"),
        (b'{"model": "other"}', 404, "model_not_found"),
        (b'{"model": "__proto__"}', 404, "model_not_found"),
        (b'{"messages": []}', 200, ""),
        (b'{"model": null}', 200, ""),
    ],
)
def test_the_body_says_which_model_is_meant(shared, body, status, code):
    gateway, _ = shared
    found, _, said = gateway.ask("POST", CHAT, body, ALICE)
    assert (found, said.get("error", {}).get("code", "")) == (status, code), said
    if code == "model_not_found":
        assert said["error"]["message"].endswith("there are: chat")


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ('"model": "chat", ', "", 200),
        ("", ', "model" : "chat"', 200),
        (r'"x\\": "}\"model", "a": ["model", "b"], ', r', "\u006dodel": "ch\u0061t"', 200),
        ('"model": "other", ', ', "model": "chat"', 200),
        ('"model": "chat", ', ', "model": "other"', 404),
        ("", "", 200),
        ('"model": "chat", ', ', "x": "', 400),
        ('"model": "chat", ', "}", 400),
    ],
)
def test_a_body_is_read_however_deep_it_is(shared, before, after, status):
    gateway, _ = shared
    body = "{" + before + '"tools": ' + '{"model": ["other", ' * 300 + "1" + "]}" * 300 + after + "}"
    assert gateway.ask("POST", CHAT, body.encode(), ALICE)[0] == status


def test_a_body_that_is_too_large_is_refused_before_it_is_read(shared):
    gateway, _ = shared
    right = json.dumps({"model": "chat", "image": "a" * (2 * 2**20 - 100)}).encode()
    assert gateway.ask("POST", CHAT, right, ALICE)[0] == 200
    status, _, said = gateway.ask("POST", CHAT, right + b" " * 200, ALICE)
    assert (status, said["error"]["code"]) == (413, "request_too_large")
    assert "2 MiB" in said["error"]["message"]


def test_tokens_are_passed_on_as_they_come(shared, monkeypatch):
    gateway, backend = shared
    monkeypatch.setattr(backend, "pause", 0.3)
    connection = gateway.connect()
    connection.request("POST", CHAT, '{"model": "chat", "stream": true}', {"Authorization": f"Bearer {ALICE}"})
    answer = connection.getresponse()
    delays = []
    for line in answer:
        if line.startswith(b"data: "):
            delays.append(time.time() - float(line.split()[2]))
    connection.close()
    assert len(delays) == 10
    # kept back until there is more, the first of them would come after all ten were written, 2.7 s later
    assert delays[0] < 1.5, delays
    # kept back until the next one, each of them would come 0.3 s later
    assert statistics.median(delays) < 0.15, delays


def test_a_caller_that_leaves_stops_the_computation(shared, monkeypatch):
    gateway, backend = shared
    monkeypatch.setattr(backend, "pause", 0.3)
    backend.broken_off.clear()
    connection = gateway.connect()
    connection.request("POST", CHAT, '{"model": "chat", "stream": true}', {"Authorization": f"Bearer {ALICE}"})
    connection.getresponse().readline()
    connection.close()
    assert backend.broken_off.wait(20)


def test_the_log_names_keys_and_shows_none(shared):
    gateway, _ = shared
    asked = ((f"{CHAT}?api_key={ALICE}", ALICE), (f"/nothing?api_key={ALICE}", ALICE), (CHAT, BOB))
    answers = [gateway.ask("POST", path, {"model": "chat"}, key) for path, key in asked]
    numbers = [headers["x-request-id"] for _, headers, _ in answers]
    until = time.monotonic() + 10
    rows: dict[str, dict[str, t.Any]] = {}
    while not set(numbers) <= set(rows):
        assert time.monotonic() < until, rows
        log = gateway.log()
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        rows = {row["request_id"]: row for row in lines}
    first, _, last = (rows[number] for number in numbers)
    assert {"key": "alice", "service": "chat", "path": CHAT, "status": 200}.items() <= first.items()
    assert (last["key"], last["status"]) == ("", 401)
    for key in (ALICE, BOB, ENGINE_KEY):
        assert key not in log


def test_tls_is_verified_by_the_file_and_plain_http_is_told_so(shared, tmp_path):
    gateway, _ = shared
    ca = tmp_path / "gateway.pem"
    ca.write_text((gateway.folder / "certificate.pem").read_text())
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("127.0.0.1", "localhost"):
        request = urllib.request.Request(
            f"https://{name}:{gateway.port}/v1/models", headers={"Authorization": f"Bearer {ALICE}"}
        )
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            assert json.load(answer)["data"][0]["id"] == "chat"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        said = connection.recv(4096)
    assert said.startswith(b"HTTP/1.1 400")
    assert b"use https" in said


def test_several_services_and_what_each_key_may_use(gateway, backend):
    with_embeddings = Backend()
    services = [
        service(backend, name="chat", served_name="org/Chat-7B"),
        service(with_embeddings, name="embed", task="embed"),
    ]
    keys = [{"name": "alice", "key": ALICE}, {"name": "bob", "key": BOB, "services": ["embed"]}]
    gateway.start(services, keys=keys)
    seen = {key: [row["id"] for row in gateway.ask("GET", "/v1/models", key=key)[2]["data"]] for key in (ALICE, BOB)}
    assert seen == {ALICE: ["org/Chat-7B", "embed"], BOB: ["embed"]}
    assert gateway.ask("GET", "/v1/models/org/Chat-7B", key=ALICE)[2]["id"] == "org/Chat-7B"
    assert gateway.ask("GET", "/v1/models/org/Chat-7B", key=BOB)[0] == 404
    assert gateway.ask("GET", "/embed/v1/models", key=ALICE)[2]["data"][0]["id"] == "embed"
    asked: list[tuple[str, str, str, int, int]] = [
        (ALICE, CHAT, "org/Chat-7B", 200, backend.port),
        (ALICE, "/v1/embeddings", "embed", 200, with_embeddings.port),
        # the one that serves the path
        (ALICE, CHAT, "", 200, backend.port),
        (ALICE, "/chat" + CHAT, "anything", 200, backend.port),
        (BOB, "/embed/v1/embeddings", "embed", 200, with_embeddings.port),
        (BOB, CHAT, "org/Chat-7B", 404, 0),
        (BOB, "/chat" + CHAT, "org/Chat-7B", 404, 0),
        (ALICE, CHAT, "embed", 400, 0),
        (ALICE, "/embed" + CHAT, "embed", 404, 0),
    ]
    for key, path, model, status, port in asked:
        found, _, said = gateway.ask("POST", path, {"model": model}, key)
        assert (found, said.get("port", 0)) == (status, port), (path, model, said)
    _, _, said = gateway.ask("POST", CHAT, {"model": "org/Chat-7B"}, BOB)
    assert "org/Chat-7B" not in said["error"]["message"].split("there are:")[1]
    with_embeddings.close()


def test_each_of_several_models_of_a_service_has_its_name(gateway, backend):
    other = Backend()
    several = {"name": "desk", "port": backend.port, "models": {"chat": "o/r", "Code-Q4.x": "o/c"}}
    keys = [{"name": "alice", "key": ALICE, "services": ["desk"]}, {"name": "bob", "key": BOB, "services": ["embed"]}]
    gateway.start([several, service(other, name="embed", task="embed")], keys=keys)
    seen = {key: [row["id"] for row in gateway.ask("GET", "/v1/models", key=key)[2]["data"]] for key in (ALICE, BOB)}
    assert seen == {ALICE: ["chat", "Code-Q4.x"], BOB: ["embed"]}
    asked = ((ALICE, CHAT, 200), (BOB, CHAT, 404), (ALICE, f"/Code-Q4.x{CHAT}", 200), (ALICE, f"/desk{CHAT}", 404))
    for key, path, status in asked:
        assert gateway.ask("POST", path, {"model": "Code-Q4.x"}, key)[0] == status, path
    assert json.loads(backend.bodies[0])["model"] == "Code-Q4.x"
    other.close()


def test_a_key_has_its_rate(gateway, backend):
    keys = [{"name": "alice", "key": ALICE, "requests_per_minute": 3}, {"name": "bob", "key": BOB}]
    gateway.start([service(backend)], keys=keys)
    answers = [gateway.ask("POST", CHAT, {"model": "chat"}, ALICE) for _ in range(5)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429]
    _, headers, said = answers[-1]
    assert said["error"]["code"] == "rate_limit_exceeded"
    assert int(headers["retry-after"]) > 0
    assert [gateway.ask("POST", CHAT, {"model": "chat"}, BOB)[0] for _ in range(5)] == [200] * 5


def test_a_key_has_its_number_of_requests_at_once(gateway, backend):
    backend.pause = 0.3
    gateway.start([service(backend)], keys=[{"name": "alice", "key": ALICE, "parallel": 2}])
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(gateway.ask, "POST", CHAT, {"model": "chat", "stream": True}, ALICE) for _ in range(4)]
        assert sorted(one.result()[0] for one in asked) == [200, 200, 429, 429]
    assert gateway.ask("POST", CHAT, {"model": "chat"}, ALICE)[0] == 200


def test_keys_change_while_a_stream_goes_on(gateway, backend):
    backend.pause = 0.2
    gateway.start([service(backend)])
    connection = gateway.connect()
    connection.request("POST", CHAT, '{"model": "chat", "stream": true}', {"Authorization": f"Bearer {ALICE}"})
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: 0")
    gateway.reload([service(backend)], keys=[{"name": "bob", "key": BOB}])
    until = time.monotonic() + 5
    asked = {"model": "chat"}
    # for a moment workers of before and after accept side by side
    while (gateway.ask("POST", CHAT, asked, ALICE)[0], gateway.ask("POST", CHAT, asked, BOB)[0]) != (401, 200):
        assert time.monotonic() < until
        time.sleep(0.02)
    # the stream of the key that is gone now ends as it would have
    assert answer.read().count(b"data: ") == 9
    connection.close()


def test_no_server_at_all_is_said_in_json(gateway):
    gateway.start([service(free_port())])
    status, headers, said = gateway.ask("POST", CHAT, {"model": "chat"}, ALICE)
    assert (status, said["error"]["code"]) == (503, "service_unavailable")
    assert headers["retry-after"] == "5"


def test_the_web_ui_is_behind_the_same_address_and_opens_no_path(gateway, backend):
    ui = Backend()
    gateway.start([service(backend)], web_ui=f"http://127.0.0.1:{ui.port}")
    assert gateway.ask("GET", "/auth?x=1")[2]["port"] == ui.port
    assert ui.asked[-1][1] == "/auth?x=1"
    assert gateway.ask("POST", "/api/v1/auths/signin", {"a": 1}, Cookie="token=1")[2]["port"] == ui.port
    assert ui.asked[-1][2]["Cookie"] == "token=1"
    assert gateway.ask("GET", "/ws/socket.io/", Upgrade="websocket", Connection="Upgrade")[0] == 200
    assert ui.asked[-1][2]["Upgrade"] == "websocket"
    assert gateway.ask("POST", CHAT, {"model": "chat"})[0] == 401
    assert gateway.ask("GET", "/v1/anything")[0] == 404
    assert gateway.ask("GET", "/health")[2]["status"] == "ok"
    ui.close()


def test_without_keys_the_loopback_address_is_open(gateway, backend):
    gateway.start([service(backend)], keys=[])
    assert gateway.ask("POST", CHAT, {"model": "chat"})[0] == 200
    assert gateway.ask("POST", "/metrics")[0] == 404


class Llama:
    """Real llama-servers with one model."""

    def __init__(self, image: str, model: Path, count: int) -> None:
        self.names = [f"test-gateway-llama-{number}" for number in range(count)]
        self.ports = [free_port() for _ in range(count)]
        for name, port in zip(self.names, self.ports):
            docker_rm(name)
            docker(
                *("run", "--detach", "--name", name, "--volume", f"{model}:/m.gguf:ro"),
                *("--publish", f"127.0.0.1:{port}:8080", image, "--model", "/m.gguf", "--host", "0.0.0.0"),
                *("--alias", "tiny", "--parallel", "2", "--threads", "1"),
            )
        for port in self.ports:
            until = time.monotonic() + 30
            while not healthy(port):
                assert time.monotonic() < until
                time.sleep(0.1)

    def services(self) -> list[dict[str, t.Any]]:
        rows = enumerate(self.ports)
        return [{"name": f"tiny-{at}", "served_name": "tiny", "model": "tiny", "port": port} for at, port in rows]

    def remove(self) -> None:
        for name in self.names:
            docker_rm(name)


def docker_rm(name: str) -> None:
    subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def wait_for(rows: list[t.Any], count: int) -> None:
    until = time.monotonic() + 30
    while len(rows) < count:
        assert time.monotonic() < until, rows
        time.sleep(0.02)


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def test_of_two_replicas_one_is_killed_and_nobody_notices(gateway, image, tiny):
    llama = Llama(image, tiny, 2)
    try:
        gateway.start(llama.services())
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
        stop, statuses = threading.Event(), []

        def work() -> None:
            while not stop.is_set():
                status, _, said = gateway.ask("POST", CHAT, body, ALICE)
                statuses.append((status, said))

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(work) for _ in range(4)]
            try:
                wait_for(statuses, 12)
                docker("kill", "--signal", "KILL", llama.names[0])
                wait_for(statuses, len(statuses) + 24)
            finally:
                stop.set()
            for one in asked:
                one.result()
        assert [one for one in statuses if one[0] != 200] == []
        assert "Hello" in statuses[-1][1]["choices"][0]["message"]["content"]
        chosen = {json.loads(line)["backend"] for line in gateway.log().splitlines() if line.startswith("{")}
        assert {f"127.0.0.1:{port}" for port in llama.ports} <= chosen
    finally:
        llama.remove()


def test_the_openai_package_works_through_it_over_tls(gateway, image, tiny, monkeypatch):
    llama = Llama(image, tiny, 1)
    try:
        gateway.start(llama.services())
        monkeypatch.setenv("SSL_CERT_FILE", str(gateway.folder / "certificate.pem"))
        url = f"https://127.0.0.1:{gateway.port}"
        openai_calls.generates(url, ALICE, "tiny", "Hello from llmfleet")
        openai_calls.is_closed(url, "tiny")
    finally:
        llama.remove()


@pytest.mark.full
def test_every_path_that_vllm_has_is_closed_but_for_its_api(gateway, tmp_path):
    """The list comes from vLLM itself."""
    run_vllm = test_vllm.Run(run_module("vllm_image", {})["image"], tmp_path, "test-gateway-vllm")
    try:
        result = run_vllm(test_vllm.model(tmp_path / "model"), key=ENGINE_KEY, context_length=256)
        assert not result.get("failed"), result
        served = [{"name": "chat", "engine": "vllm", "model": "org/name", "port": run_vllm.port, "api_key": ENGINE_KEY}]
        gateway.start(served)
        headers = {"Authorization": f"Bearer {ENGINE_KEY}"}
        request = urllib.request.Request(f"http://127.0.0.1:{run_vllm.port}/openapi.json", headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            routes = {path: list(methods) for path, methods in json.load(answer)["paths"].items()}
        assert len(routes) > 20
        assert {"/invocations", "/tokenize", CHAT} <= set(routes)
        answered = []
        for path, methods in routes.items():
            for method in {*methods, "get", "post"}:
                status, _, said = gateway.ask(
                    method.upper(), path, {"model": "none"} if method == "post" else None, ALICE
                )
                code = said["error"]["code"] if isinstance(said, dict) and "error" in said else ""
                if (status, code) not in ((404, "not_found"), (405, "method_not_allowed")):
                    answered.append((method, path))
        # these tell that there is no model of this name
        api = [("post", path) for path in ENGINES["vllm"].PATHS["generate"]]
        own = [("get", "/health"), ("get", "/v1/models")]
        assert sorted(answered) == sorted([*api, *own])
        body = {"model": "test-gateway-vllm", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 4}
        assert gateway.ask("POST", f"/chat{CHAT}", body, ALICE)[2]["usage"]["completion_tokens"] == 4
    finally:
        for suffix in ("", ".previous", ".next"):
            docker_rm(f"test-gateway-vllm{suffix}")
