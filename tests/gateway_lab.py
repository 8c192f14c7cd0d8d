"""A gateway to try things on: nginx in a container with files made by the core, and backends that answer everything."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
import typing as t
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ansible.module_utils.llmfleet.gateway import certificate, nginx, plan, words
from ansible.module_utils.llmfleet.packaged import gateway

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = (ROOT / "roles/llm_gateway/files/gateway.js").read_text(encoding="utf-8")
ALICE, BOB = "key-of-alice-0123456789", "Key-Of-Bob-0123456789"
HOST = "gateway-host"
SAID: dict[str, t.Any] = {
    "bind": "127.0.0.1",
    "keys": [{"name": "alice", "key": ALICE}],
    "services": [],
    "names": [],
    "max_body_mib": 2,
    "access_log": True,
    "web_ui": "",
}
SSE = {"Content-Type": "text/event-stream", "Connection": "close"}


class Backend(ThreadingHTTPServer):
    """Says 200 to every method and path, and keeps what it was asked; a body with `stream` gets ten events."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, pause: float = 0.05) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pause = pause
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.broken_off = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def handle_error(self, *_args: t.Any) -> None:
        """Callers that go away are what is tested."""

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Backend

    def _all(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers.items())))
        self.server.bodies.append(body)
        if b'"stream"' in body:
            self._stream()
            return
        answer = json.dumps({"port": self.server.port, "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_TRACE = _all  # noqa: N815

    def _stream(self) -> None:
        self.send_response(200)
        for name, value in SSE.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        try:
            for number in range(10):
                self.wfile.write(f"data: {number} {time.time():.4f}\n\n".encode())
                time.sleep(self.server.pause)
        except OSError:
            self.server.broken_off.set()

    def log_message(self, *_args: t.Any) -> None:
        """Say nothing."""


class Gateway:
    """nginx as the role runs it, with the files of ``said`` and ``services`` of this one host."""

    def __init__(self, folder: Path, image: str, name: str, ports: tuple[int, int]) -> None:
        self.folder, self.image, self.name = folder, image, name
        self.port, self.local_port = ports
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self._pair: dict[str, str] = {}

    def container(self, services: list[dict[str, t.Any]], **said: t.Any) -> dict[str, t.Any]:
        """Return what the module side_container would be told."""
        asked = {**SAID, "port": self.port, "local_port": self.local_port, **said}
        hosts = plan.hosts([HOST], [services], ["192.0.2.9"], [""])
        layout = gateway.RECIPE.layouts["built"]
        return plan.container(asked, hosts, HOST, PROGRAM, layout, self._pair or self._make_pair())

    def _make_pair(self) -> dict[str, str]:
        argv = certificate.command(["127.0.0.1", "localhost"])
        done = subprocess.run(
            ["docker", "run", "--rm", "--network", "none", "--entrypoint", argv[0], self.image, *argv[1:]],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self._pair = dict(zip(("certificate", "private_key"), certificate.split(done.stdout)))
        return self._pair

    def start(self, services: list[dict[str, t.Any]], **said: t.Any) -> Gateway:
        """Run it and return when it answers."""
        self._write(services, said)
        options = ("--network", "host", "--user", "10001:10001", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp")
        mount = f"{self.folder}:{words.TARGET}:ro"
        argv = ["docker", "run", "--detach", "--name", self.name, *options, "--volume", mount, "--entrypoint", "nginx"]
        subprocess.run([*argv, self.image, *nginx.ARGV], stdout=subprocess.PIPE, check=True)
        self._wait()
        return self

    def reload(self, services: list[dict[str, t.Any]], **said: t.Any) -> None:
        """Give it other files as the role does, without a restart."""
        self._write(services, said)
        subprocess.run(["docker", "kill", "--signal", "HUP", self.name], stdout=subprocess.PIPE, check=True)

    def _write(self, services: list[dict[str, t.Any]], said: dict[str, t.Any]) -> None:
        for file in self.container(services, **said)["files"]:
            path = self.folder / file["path"]
            path.unlink(missing_ok=True)
            path.write_text(file["content"], encoding="utf-8")

    def _wait(self) -> None:
        for _ in range(100):
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return
            except OSError:
                if "[emerg]" in self.log():
                    break
                time.sleep(0.05)
        raise AssertionError(self.log())

    def log(self) -> str:
        """Return what it has printed."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to the listener without TLS."""
        return http.client.HTTPConnection("127.0.0.1", self.local_port, timeout=30)

    def ask(
        self, method: str, path: str, body: t.Any = None, key: str = "", **headers: str
    ) -> tuple[int, dict[str, str], t.Any]:
        """Return (status, headers, body read as JSON where it is any)."""
        connection = self.connect()
        try:
            sent = {"Authorization": f"Bearer {key}"} if key else {}
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            connection.request(method, path, data, {**sent, **headers})
            answer = connection.getresponse()
            text = answer.read().decode()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, json.loads(text) if text and "json" in found.get("content-type", "") else text
        finally:
            connection.close()

    def stop(self) -> None:
        """Take it away."""
        subprocess.run(["docker", "rm", "--force", self.name], capture_output=True, check=False)
