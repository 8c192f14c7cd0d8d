"""Serves the chunks of one archive or model to hosts that know a token, and ends when nobody asks any more.

A program of its own, with chunk_folder.py, chunk_archive.py and chunk_in_place.py: other code passes the sources and,
as JSON, the settings to the standard input of ``python3 -I -c``. It answers with one line of JSON, {"pid", "port"} or
{"error"}, and goes on in the background. Standard library only, nothing of Ansible; only what Python 3.8 has too.

GET /<token>/<n>[?wait=<seconds>] gives 200 and chunk n; 503 while n is still to come, after having waited for it, with
X-Bytes: how much is here by now, so that one who waits sees whether it is worth it; 404 when it will not come; 403
without the token. Nothing else is served. Chunks of an archive lie in one file, one after the other, or, where they are
still being received, in a folder, each under its sha256 once it has been checked. Those of a model lie in its files.
"""

from __future__ import annotations

import hmac
import http.server
import json
import os
import re
import socket
import socketserver
import threading
import time
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet.chunk_archive import InFile, InFolder
from ansible.module_utils.llmfleet.chunk_folder import LOADED, PARTIAL, clear
from ansible.module_utils.llmfleet.chunk_in_place import InPlace

MOST_CONNECTIONS = 64
LONGEST_WAIT = 20
QUIET_CONNECTION = 60

_PATH = re.compile(r"/([A-Za-z0-9_-]{16,64})/(\d{1,7})(?:\?wait=(\d{1,2}))?")


def start_time(pid: int | str) -> str:
    """Return when a process began, in the kernel's own units, "" when there is none; a pid alone may be used again."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]  # proc(5): field 22, counted behind the name
    except (OSError, IndexError):
        return ""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """One thread per connection, a limited number of them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], store: t.Any, count: int, token: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.store = store
        self.count = count
        self.token = token
        self.asked = time.monotonic()
        self.busy = 0
        self.lock = threading.Lock()
        self._open = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind, to both families where the address says any; HTTPServer's own would look up a name, for seconds."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(self.server_address[0] != "::"))
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "llmfleet", self.server_address[1]

    def process_request(self, request: t.Any, client_address: t.Any) -> None:
        """Serve a connection, or close it at once when there are too many."""
        if self._open.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: t.Any, client_address: t.Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.release()

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """Say nothing: connections break, and there is nobody to read it."""

    def occupied(self, change: int) -> None:
        """Note that somebody who knows the token is being served."""
        with self.lock:
            self.busy += change
            self.asked = time.monotonic()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers for chunks, and for nothing else."""

    protocol_version = "HTTP/1.1"
    server_version = "llmfleet"
    sys_version = ""
    timeout = QUIET_CONNECTION
    server: Server

    def do_GET(self) -> None:
        """Give a chunk."""
        asked = _PATH.fullmatch(self.path)
        if not asked or not hmac.compare_digest(asked.group(1).encode(), self.server.token.encode()):
            self.close_connection = True
            self._say(403 if asked else 404)
            return
        self.server.occupied(+1)
        try:
            self._give(int(asked.group(2)), min(int(asked.group(3) or 0), LONGEST_WAIT))
        finally:
            self.server.occupied(-1)

    def _give(self, number: int, wait: int) -> None:
        until = time.monotonic() + wait
        try:
            if number >= self.server.count:
                raise LookupError(number)
            place = self.server.store.find(number)
            while place is None and time.monotonic() < until:
                time.sleep(0.05)
                place = self.server.store.find(number)
        except LookupError:
            self._say(404)
            return
        if place is None:
            self._say(503)
            return
        try:
            path, offset, size = place
            try:
                file = open(path, "rb")  # noqa: SIM115
            except OSError:  # moved a moment ago, as a model is when it is whole
                path, offset, size = self.server.store.find(number) or place
                file = open(path, "rb")  # noqa: SIM115
        except (OSError, LookupError):
            self._say(404)  # removed
            return
        with file:
            self.send_response_only(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            self.connection.sendfile(file, offset, size)

    def _say(self, status: int) -> None:
        self.send_response_only(status)
        if status == 503:
            self.send_header("X-Bytes", str(self.server.store.progress()))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: t.Any) -> None:
        """Keep no log: tokens are part of paths."""


def open_store(settings: dict[str, t.Any]) -> tuple[t.Any, int]:
    """Return where the chunks are, and how many."""
    with open(settings["record"], encoding="utf-8") as file:
        record = json.load(file)
    if settings.get("incoming"):
        return InPlace(record, settings["incoming"], settings["snapshot"]), sum(
            len(f["chunks"]) for f in record["files"]
        )
    chunks = record.get("archive", record)["chunks"]
    sizes, names = [int(row["bytes"]) for row in chunks], [str(row["sha256"]) for row in chunks]
    if settings.get("file"):
        return InFile(settings["file"], sizes), len(chunks)
    return InFolder(settings["folder"], names, sizes), len(chunks)


def bind(settings: dict[str, t.Any], store: t.Any, count: int) -> Server:
    """Return a server on the address and port asked for; "" is every address of both families."""
    port, token = int(settings["port"]), str(settings["token"])
    if settings["bind"]:
        return Server((settings["bind"], port), store, count, token)
    try:
        return Server(("::", port), store, count, token)
    except OSError:  # no IPv6, or the port is taken, which the second attempt tells
        return Server(("0.0.0.0", port), store, count, token)  # noqa: S104 - asked for


def watch(server: Server, settings: dict[str, t.Any]) -> None:
    """End when nobody has asked for long, or the notes about this process are gone or about another one."""
    while True:
        time.sleep(min(1.0, settings["idle_timeout"] / 4))
        try:
            with open(settings["state"], encoding="utf-8") as file:
                mine = json.load(file)["pid"] == os.getpid()
        except (OSError, ValueError, KeyError, TypeError):
            mine = False
        with server.lock:
            idle = not server.busy and time.monotonic() - server.asked > settings["idle_timeout"]
        if mine and not idle:
            continue
        if mine:
            with suppress(OSError):
                os.unlink(settings["state"])
            if settings.get("folder") and os.path.exists(os.path.join(settings["folder"], LOADED)):
                clear(settings["folder"])
        os._exit(0)  # daemon threads may hang in a dead connection


def main(settings: dict[str, t.Any]) -> None:
    """Bind, say where, and serve in the background."""
    try:
        store, count = open_store(settings)
        server = bind(settings, store, count)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        print(json.dumps({"error": getattr(error, "strerror", None) or str(error)}))
        return
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        with open(told, encoding="utf-8") as answer:
            print(answer.read())
        return
    os.close(told)
    os.setsid()
    os.chdir("/")
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    state = {"pid": os.getpid(), "started": start_time("self"), "port": server.server_address[1]}
    state.update(token=settings["token"], bind=settings["bind"])
    partial = settings["state"] + PARTIAL
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(state, file)
    os.replace(partial, settings["state"])
    with open(tell, "w", encoding="utf-8") as answer:
        json.dump({"pid": state["pid"], "port": state["port"]}, answer)
    threading.Thread(target=watch, args=(server, settings), daemon=True).start()
    server.serve_forever()
