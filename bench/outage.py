#!/usr/bin/env python3
"""For how long a service does not answer while an upgrade fails, against the time that its engine needs to start.

A real llama-server with a model of some size. Two upgrades that fail: arguments that it does not take, and a start that
fails (a context that its memory limit does not hold). A prober asks for one token again and again; the outage is the
longest time between two answers, less the usual one.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
import conftest  # noqa: E402, F401 - makes the checkout importable
from ansible.module_utils.llmfleet import tiny_gguf  # noqa: E402
from helpers import free_port, run_module  # noqa: E402

NAME = "bench-outage"
FAILURES = {
    "arguments refused": {"args": ["--no-such-flag"]},
    "start fails": {"args": ["--override-kv", "tokenizer.ggml.model=str:nope"]},
}


class Prober(threading.Thread):
    """Asks for one token all the time; ``moments`` are those of its answers."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.moments, self.going = port, [time.monotonic()], True

    def run(self) -> None:
        data = json.dumps({"prompt": "Hello", "max_tokens": 1}).encode()
        while self.going:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("POST", "/v1/completions", data, {"Content-Type": "application/json"})
                with connection.getresponse() as answer:
                    json.load(answer)["choices"]
                self.moments.append(time.monotonic())
            time.sleep(0.005)

    def gaps(self) -> list[float]:
        """Stop, and return the times between answers in seconds."""
        self.going = False
        self.join()
        return [after - before for before, after in itertools.pairwise(self.moments)]


class Bench:
    """One service and what is done to it."""

    def __init__(self, image: str, model: Path, folder: Path) -> None:
        self.image, self.model, self.folder, self.port = image, model, folder, free_port()

    def apply(self, **fields: t.Any) -> dict[str, t.Any]:
        """Run llm_service with ``fields`` and return its result."""
        service = {"name": NAME, "model": str(self.model), "port": self.port, "context_length": 2048, **fields}
        arguments = {
            "service": service,
            "image": self.image,
            "model_path": str(self.model),
            "directory": str(self.folder / "services"),
        }
        return run_module("llm_service", arguments)

    def start_seconds(self) -> float:
        """Return the seconds from `docker start` of the stopped container to its first token."""
        subprocess.run(["docker", "stop", NAME], stdout=subprocess.DEVNULL, check=True)
        prober = Prober(self.port)
        prober.start()
        began = time.monotonic()
        subprocess.run(["docker", "start", NAME], stdout=subprocess.DEVNULL, check=True)
        while len(prober.moments) < 2:
            time.sleep(0.002)
        prober.gaps()
        return prober.moments[1] - began

    def outage(self, **fields: t.Any) -> float:
        """Return the outage of an upgrade to ``fields``, which must fail, in seconds."""
        prober = Prober(self.port)
        prober.start()
        time.sleep(0.5)
        failed = self.apply(**fields)
        time.sleep(0.5)
        gaps = prober.gaps()
        if not failed.get("failed"):
            sys.exit(f"the upgrade to {fields} should have failed")
        return max(gaps) - statistics.median(gaps)


def main() -> None:
    """Measure starts and outages in turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--layers", type=int, default=24, help="of the model, 9 MB each with --dim 768")
    parser.add_argument("--dim", type=int, default=768)
    given = parser.parse_args()
    image = run_module("llama_cpp_image", {"source": "build"})["image"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        model = Path(folder, "model.gguf")
        with model.open("wb") as file:
            tiny_gguf.write(file, layers=given.layers, dim=given.dim)
        bench = Bench(image, model, Path(folder))
        try:
            first = bench.apply()
            if first.get("failed"):
                sys.exit(first["msg"])
            starts: list[float] = []
            outages: dict[str, list[float]] = {name: [] for name in FAILURES}
            for _ in range(given.runs):
                starts.append(bench.start_seconds())
                for name, fields in FAILURES.items():
                    outages[name].append(bench.outage(**fields))
        finally:
            bench.apply(state="absent")
        start = statistics.median(starts)
        print(f"model of {model.stat().st_size / 1e6:.0f} MB; from docker start to the first token: {start:.2f} s")
        for name, seconds in outages.items():
            median = statistics.median(seconds)
            print(f"outage, {name}: {median:.2f} s, ratio {median / start:.2f} (goal <= 1.2)")


if __name__ == "__main__":
    main()
