#!/usr/bin/env python3
"""How fast a large file is fetched and verified: this project's transfer against curl and the hub's own client.

All fetch the same file from a server on this machine that costs next to nothing (sendfile). curl does not verify, so
sha256sum reads the file after it; the hub's client does not verify either and is given the same. Runs alternate;
printed are medians of wall-clock and of CPU seconds (of the client and its children), and their ratios.

Then: the bytes that are sent again when a transfer is killed (-9) half-way, and the time of a second, quick look at a
model of that size that is there.

The hub's client is installed into a virtual environment that is thrown away; where pip cannot, it is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import conftest  # noqa: E402, F401 - makes the checkout importable
from ansible.module_utils.llmfleet.hub.manifest import SAFETENSORS, Manifest, RepoFile  # noqa: E402

REPO, NAME, COMMIT = "bench/large", "model.bin", "c" * 40
MIB = 1 << 20

CLIENT = """
import sys, time, urllib.request
sys.path.insert(0, sys.argv[1])
import conftest
from ansible.module_utils.llmfleet.hub.manifest import RepoFile
from ansible.module_utils.llmfleet.hub.transfer import Transfer
from ansible.module_utils.llmfleet.hub.web import UrlOpener
url, size, sha256, folder, connections, sync = sys.argv[2:]
opener = UrlOpener({"model.bin": url}, 30, urllib.request.build_opener().open, time.time)
stats = Transfer([RepoFile("model.bin", int(size), sha256)], folder, opener, connections=int(connections),
                 sync=sync == "1").run()
print(stats.bytes_fetched, stats.resumed_from)
"""


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file at every path, with ranges, and what the hub's client asks about it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self.start()

    def do_GET(self) -> None:
        start, end = self.start()
        self.wfile.flush()
        with open(self.server.file, "rb") as file:
            while start < end:
                wanted = min(end - start, MIB)
                count = os.sendfile(self.connection.fileno(), file.fileno(), start, wanted)
                start += count
                with self.server.lock:
                    self.server.sent += count
                if self.server.rate:
                    time.sleep(count / self.server.rate)

    def start(self) -> tuple[int, int]:
        size = self.server.size
        start, end, asked = 0, size, self.headers.get("Range", "")
        if asked:
            first, _, last = asked[len("bytes=") :].partition("-")
            start, end = int(first), min(int(last) + 1, size) if last else size
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{self.server.sha256}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        return start, end

    def handle(self) -> None:
        # a client that is killed is part of this
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, file: Path, sha256: str, rate: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.file, self.sha256, self.size = file, sha256, file.stat().st_size
        self.rate = rate
        """Bytes per second of one connection; 0: no limit."""
        self.sent = 0
        self.lock = threading.Lock()
        if rate:
            # what waits in buffers when a client is killed was sent and never arrived
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def ours(server: Server, folder: Path, connections: int, sync: bool = False) -> list[str]:
    where = [f"{server.url}/{NAME}", str(server.size), server.sha256, str(folder), str(connections), str(int(sync))]
    return [sys.executable, "-c", CLIENT, str(ROOT / "tests"), *where]


def shell(script: str, *values: object) -> list[str]:
    return ["sh", "-ec", script, "sh", *map(str, values)]


def measured(command: list[str], folder: Path, env: t.Mapping[str, str]) -> tuple[float, float]:
    """Run a command with an empty ``folder``; return wall-clock and CPU seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, **env}, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def hub_client(folder: Path) -> str:
    """Return the path of the hub's own client in a new virtual environment, "" where it cannot be installed."""
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False, capture_output=True)
    pip = [str(folder / "bin" / "pip"), "install", "-q", "huggingface_hub"]
    if made.returncode or subprocess.run(pip, check=False, capture_output=True).returncode:
        print("hf: left out, huggingface_hub cannot be installed here")
        return ""
    return str(folder / "bin" / "hf")


def race(server: Server, work: Path, rounds: int) -> None:
    """Print how long each way takes."""
    folder = work / "got"
    check = 'echo "$3  $2" | sha256sum -c --quiet'
    ways: dict[str, tuple[list[str], dict[str, str]]] = {
        "curl, not verified": (shell('curl -sf -o "$2" "$1"', f"{server.url}/{NAME}", folder / NAME), {}),
        "curl + sha256sum": (
            shell(f'curl -sf -o "$2" "$1"; {check}', f"{server.url}/{NAME}", folder / NAME, server.sha256),
            {},
        ),
        "curl + sha256sum + sync": (
            shell(f'curl -sf -o "$2" "$1"; {check}; sync "$2"', f"{server.url}/{NAME}", folder / NAME, server.sha256),
            {},
        ),
        **{f"llmfleet, {n} connections": (ours(server, folder, n), {}) for n in (1, 4, 8)},
        "llmfleet, 8 connections + sync": (ours(server, folder, 8, sync=True), {}),
    }
    hf = hub_client(work / "venv")
    if hf:
        env = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(work / "hf-home")}
        script = f'"$1" download {REPO} {NAME} --local-dir "$4" >/dev/null 2>&1; {check}'
        ways["hf download + sha256sum"] = (shell(script, hf, folder / NAME, server.sha256, folder), env)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (command, env) in ways.items():
            seen[name].append(measured(command, folder, env))
    base = [statistics.median(one) for one in zip(*seen["curl + sha256sum"])]
    print(f"{server.size / MIB:.0f} MiB, medians of {rounds} runs; ratios to curl + sha256sum")
    for name, runs in seen.items():
        wall, cpu = (statistics.median(one) for one in zip(*runs))
        print(f"{name:32} {wall:6.2f} s ({wall / base[0]:4.2f})   CPU {cpu:6.2f} s ({cpu / base[1]:4.2f})", flush=True)
    shutil.rmtree(folder)


def killed(file: Path, sha256: str, work: Path, connections: int) -> None:
    """Print what a transfer that is killed half-way costs."""
    size = file.stat().st_size
    server = Server(file, sha256, rate=size / connections / 4)
    folder = work / "killed"
    process = subprocess.Popen(ours(server, folder, connections), stdout=subprocess.DEVNULL)
    while server.sent < size / 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.rate = 0
    done = subprocess.run(ours(server, folder, connections), check=True, capture_output=True, text=True)
    fetched, resumed = map(int, done.stdout.split())
    print(
        f"killed -9 half-way with {connections} connections: {resumed / MIB:.1f} MiB used again, "
        f"{(server.sent - size) / MIB:.1f} MiB sent twice (at most {4 * connections} MiB wanted), "
        f"{fetched / MIB:.1f} MiB fetched by the second run"
    )
    server.shutdown()
    shutil.rmtree(folder)


def second_look(file: Path, sha256: str, work: Path) -> None:
    """Print how long it takes to see that a model is there."""
    try:
        from ansible.module_utils.llmfleet.hub.place import Place
        from ansible.module_utils.llmfleet.hub.presence import state_of
        from ansible.module_utils.llmfleet.hub.store import publish
    except ImportError:
        print("a second look: left out, there is no store")
        return
    config = b"{}"
    files = (
        RepoFile(NAME, file.stat().st_size, sha256),
        RepoFile("config.json", len(config), hashlib.sha256(config).hexdigest()),
    )
    manifest = Manifest(REPO, COMMIT, SAFETENSORS, files)
    place = Place(str(work / "store"), REPO)
    incoming = Path(place.incoming(manifest.key))
    incoming.mkdir(parents=True)
    os.link(file, incoming / NAME)
    (incoming / "config.json").write_bytes(config)
    publish(place, manifest)
    for verify in ("quick", "full"):
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            assert state_of(place, manifest, verify=verify).present
            times.append(time.perf_counter() - begun)
        print(f"a second look ({verify}): {statistics.median(times):.4f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each way (default: %(default)s)")
    parser.add_argument("--folder", default=None, help="where to work (default: the system's place for such)")
    given = parser.parse_args()
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        work, digest = Path(name), hashlib.sha256()
        file = work / "served"
        with open(file, "wb") as out:
            for _ in range(given.mib):
                block = os.urandom(MIB)
                digest.update(block)
                out.write(block)
        race(Server(file, digest.hexdigest()), work, given.rounds)
        for connections in (1, 8):
            killed(file, digest.hexdigest(), work, connections)
        second_look(file, digest.hexdigest(), work)


if __name__ == "__main__":
    main()
