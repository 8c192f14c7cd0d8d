#!/usr/bin/env python3
"""What the gateway costs: time to the first token and tokens per second, through it and past it.

A llama-server with a model of more than 100 MB answers the same prompt in turn directly and through the gateway, with
its key, over TLS and over the local listener. Every reading is one stream on an open connection. On a busy machine the
rates scatter more than the goal; the computing time that the gateway takes for a token does not.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
import conftest  # noqa: E402, F401 - makes the checkout importable
from ansible.module_utils.llmfleet import tiny_gguf  # noqa: E402
from gateway_lab import ALICE, Gateway  # noqa: E402
from helpers import docker, free_port, run_module  # noqa: E402

ENGINE = "bench-gateway-engine"
# not its usual answer, which ends after a dozen tokens: any token may come
BODY = {
    "model": "bench",
    "messages": [{"role": "user", "content": "Tell me a long story."}],
    "stream": True,
    "temperature": 1,
    "seed": 1,
    "ignore_eos": True,
}


def ask(connection: http.client.HTTPConnection, tokens: int) -> tuple[float, float]:
    """Return (seconds to the first token, tokens per second after it) of one stream."""
    body = json.dumps({**BODY, "max_tokens": tokens})
    # one that was idle for some seconds the server has closed
    connection.close()
    connection.request("GET", "/health")
    connection.getresponse().read()
    begun = time.perf_counter()
    headers = {"Authorization": f"Bearer {ALICE}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    times = [time.perf_counter() for line in answer if line.startswith(b"data: {") and b'"content":' in line]
    assert len(times) > tokens / 2, f"only {len(times)} tokens"
    return times[0] - begun, (len(times) - 1) / (times[-1] - times[0])


def start_engine(image: str, model: Path, port: int, threads: int) -> None:
    """Run llama-server and return when it is ready."""
    subprocess.run(["docker", "rm", "--force", ENGINE], capture_output=True, check=False)
    options = ("--volume", f"{model}:/m.gguf:ro", "--publish", f"127.0.0.1:{port}:8080")
    said = ("--model", "/m.gguf", "--host", "0.0.0.0", "--alias", "bench", "--threads", str(threads), "--parallel", "1")  # noqa: S104
    docker("run", "--detach", "--name", ENGINE, *options, image, *said, "--cache-ram", "0")
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    sys.exit(docker("logs", ENGINE))


def computed(name: str) -> float:
    """Return the seconds that the processes of a container have computed for."""
    pids = docker("top", name, "-o", "pid").split()[1:]
    fields = [Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split() for pid in pids]
    return sum(int(row[11]) + int(row[12]) for row in fields) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure in turn, print medians and differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    image = run_module("llama_cpp_image", {"source": "build"})["image"]
    nginx = run_module("packaged_image", {"kind": "gateway", "source": "build"})["image"]
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        model = Path(folder) / "model.gguf"
        with model.open("wb") as file:
            tiny_gguf.write(file, layers=12, dim=768)
        gateway = Gateway(Path(folder) / "files", nginx, "bench-gateway", (free_port(), free_port()))
        gateway.stop()
        try:
            start_engine(image, model, port, asked.threads)
            gateway.start([{"name": "bench", "model": "tiny", "port": port}])
            context = ssl.create_default_context(cafile=str(gateway.folder / "certificate.pem"))
            ways: dict[str, http.client.HTTPConnection] = {
                "direct": http.client.HTTPConnection("127.0.0.1", port, timeout=600),
                "gateway, local": gateway.connect(),
                "gateway, TLS": http.client.HTTPSConnection("127.0.0.1", gateway.port, timeout=600, context=context),
            }
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            begun = 0.0
            for number in range(asked.runs + 2):
                if number == 2:
                    begun = computed(gateway.name)
                for name, connection in ways.items():
                    reading = ask(connection, asked.tokens)
                    if number > 1:  # the first ones warm up
                        found[name].append(reading)
            spent = (computed(gateway.name) - begun) / (2 * asked.runs * asked.tokens)
        finally:
            gateway.stop()
            subprocess.run(["docker", "rm", "--force", ENGINE], capture_output=True, check=False)
        size = model.stat().st_size / 1e6
    report(found, size, asked.runs)
    speed = statistics.median(row[1] for row in found["direct"])
    print(f"the gateway computes {spent * 1e6:.0f} us per token, {spent * speed * 100:.2f} % of the time a token takes")


def report(found: t.Mapping[str, t.Sequence[tuple[float, float]]], size: float, runs: int) -> None:
    """Print the figures of each way, and how far those through the gateway are from those past it."""
    # of pairs, as a busy machine slows both alike
    direct = found["direct"]
    print(f"model of {size:.0f} MB, median of {runs} streams each, in turn")
    for name, rows in found.items():
        first, speed = (statistics.median(row[at] for row in rows) for at in (0, 1))
        print(f"{name:16} first token {first * 1000:7.1f} ms   {speed:6.1f} tokens/s", end="")
        if name == "direct":
            print()
            continue
        added = statistics.median(row[0] - past[0] for row, past in zip(rows, direct))
        lost = statistics.median(1 - row[1] / past[1] for row, past in zip(rows, direct))
        print(f"   added {added * 1000:5.2f} ms (goal <= 5)   lost {lost * 100:5.2f} % (goal <= 2)")


if __name__ == "__main__":
    main()
