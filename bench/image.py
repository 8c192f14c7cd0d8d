#!/usr/bin/env python3
"""Size and build time of the image: against the single-stage image of the usual guides, and warm against cold.

The single-stage image holds toolchain, source and build tree, compiled from the same source with the same flags and
without a compiler cache: its size and its compile time stand for the guides. The warm rebuilds are ours with one flag
changed. Takes about as long as one cold compile (5 to 10 minutes on two cores).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
import conftest  # noqa: E402, F401 - makes the checkout importable
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF, BuildRequest  # noqa: E402
from ansible.module_utils.llmfleet.image_variants import PROGRAMS  # noqa: E402
from helpers import docker, run_module  # noqa: E402

TOOLCHAIN = "llmfleet/toolchain:debian-bookworm"
SINGLE = "bench-single-stage:latest"
SDIST = "/var/lib/llmfleet/sources/llama.cpp"


def single_stage(flags: list[str]) -> float:
    """Build the single-stage image and return the seconds that took, its toolchain layer not counted."""
    recipe = (
        f"FROM {TOOLCHAIN}\nCOPY llama.cpp /src\n"
        f"RUN cmake -S /src -B /build -G Ninja {' '.join(flags)} -DGGML_CCACHE=OFF"
        f" && cmake --build /build --parallel 2 --target {' '.join(PROGRAMS['server'])}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        archive = next(Path(SDIST).glob("*.tar.gz"))
        subprocess.run(
            ["tar", "-xzf", archive, "-C", folder, "--strip-components=2", "--wildcards", "*/vendor/llama.cpp"],
            check=True,
        )
        Path(folder, "Dockerfile").write_text(recipe)
        begun = time.monotonic()
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        argv = ["docker", "build", "--no-cache", "--tag", SINGLE, folder]
        subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - begun


def rebuild(run: int) -> tuple[str, float]:
    """Build ours with a flag that no other build had; return the image and the seconds it took."""
    begun = time.monotonic()
    flag = f"-DBENCH={run}-{time.time():.0f}"
    result = run_module("llama_cpp_image", {"source": "build", "cmake_flags": [flag]})
    if result.get("failed"):
        sys.exit(result["msg"])
    return result["image"], time.monotonic() - begun


def size(image: str) -> int:
    """Return an image's size in bytes."""
    return int(docker("image", "inspect", "-f", "{{.Size}}", image))


def main() -> None:
    """Build cold once and warm several times, print sizes, times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="warm rebuilds")
    runs = parser.parse_args().runs
    # base, sources and compiler cache are there after this; the legacy builder leaves the toolchain as an image
    result = run_module("llama_cpp_image", {"source": "build"})
    request = BuildRequest(
        ref=DEFAULT_REF,
        pins=(),
        cmake_flags=(),
        cpu_level=result["cpu_level"],
        architecture="amd64",
    )
    cold = single_stage(request.flags())
    single = size(SINGLE)
    docker("rmi", SINGLE)
    warm = [rebuild(run) for run in range(runs)]
    ours = size(warm[-1][0])
    docker("rmi", *(image for image, _ in warm))
    median = statistics.median(seconds for _, seconds in warm)
    print(f"image {ours / 1e6:.1f} MB, single stage {single / 1e6:.0f} MB: ratio {ours / single:.3f} (goal <= 0.2)")
    print(f"warm rebuild, median of {runs}: {median:.0f} s, cold {cold:.0f} s: ratio {median / cold:.2f} (goal <= 0.3)")


if __name__ == "__main__":
    main()
