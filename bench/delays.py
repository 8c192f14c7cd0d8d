#!/usr/bin/env python3
"""Delays that a user waits for: from true readiness to "ready", and from a container's death to the failure report.

True readiness is the first moment /health answers 200, seen by a prober that asks every 2 ms; "ready" is the end of
the llm_service module, its verification with a generated token included. Death is the engine's own `die` event.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
import conftest  # noqa: E402, F401 - makes the checkout importable
from ansible.module_utils.llmfleet import tiny_gguf  # noqa: E402
from helpers import docker, free_port, run_module  # noqa: E402

NAME = "bench-delays"


def first_health(port: int, seen: list[float], stop: threading.Event) -> None:
    """Note when /health first answers 200."""
    while not stop.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.05)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                seen.append(time.time())
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.002)


def launch(model: Path, image: str, folder: str, port: int, *args: str) -> tuple[dict, float]:
    """Start the service; return the module's result and when it was there."""
    service = {"name": NAME, "model": str(model), "port": port, "args": list(args)}
    result = run_module(
        "llm_service", {"service": service, "image": image, "model_path": str(model), "directory": folder}
    )
    return result, time.time()


def main() -> None:
    """Measure both delays and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    image = run_module("llama_cpp_image", {"source": "build"})["image"]
    ready: list[float] = []
    died: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        model = Path(folder) / "model.gguf"
        with model.open("wb") as file:
            tiny_gguf.write(file, layers=8, dim=512)
        for _ in range(runs):
            port, seen, stop = free_port(), [], threading.Event()
            prober = threading.Thread(target=first_health, args=(port, seen, stop))
            prober.start()
            result, end = launch(model, image, folder, port)
            stop.set()
            prober.join()
            assert not result.get("failed"), result
            assert seen, "the prober never saw the service healthy"
            ready.append(end - seen[0])
            docker("rm", "-f", NAME)
            since = f"{time.time():.6f}"
            result, end = launch(model, image, folder, port, "--no-such-flag")
            assert result["failed"], result
            events = docker(
                "events", "--since", since, "--until", str(int(time.time()) + 1), "--filter", "event=die",
                "--filter", f"container={NAME}", "--format", "{{.TimeNano}}",
            )  # fmt: skip
            # with a restart policy it may die again before it is removed; the first death counts
            died.append(end - int(events.split()[0]) / 1e9)
    print(f"true readiness to `ready`, median of {runs}: {statistics.median(ready):.2f} s (goal <= 0.5 s)")
    print(f"death to failure report, median of {runs}: {statistics.median(died):.2f} s (goal <= 1 s)")
    subprocess.run(["docker", "rm", "-f", NAME], capture_output=True, check=False)


if __name__ == "__main__":
    main()
