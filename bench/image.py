#!/usr/bin/env python3
"""Size and build time of the image: against the single-stage image of the usual guides, and warm against cold.

The cold build runs through the legacy builder, which has no compiler cache; its build stage (toolchain, source and
build tree in one image) is what a single-stage guide ends with. The warm rebuilds change one flag and use the
compiler cache. One cold compile takes 5 to 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
import conftest  # noqa: E402, F401 - makes the checkout importable
from helpers import docker, run_module  # noqa: E402


def build(label: str, **options: str) -> tuple[str, float]:
    """Build with a flag that no other build had; return the image and the seconds it took."""
    begun = time.monotonic()
    flag = f"-DBENCH={label}-{time.time():.0f}"
    result = run_module("llama_cpp_image", {"source": "build", "cmake_flags": [flag], **options})
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
    run_module("llama_cpp_image", {"source": "build"})  # base, sources and compiler cache are there
    made = []
    cold_image, cold = build("cold", buildkit="none")
    made.append(cold_image)
    stages = docker("images", "--all", "--quiet", "--filter", "label=io.llmfleet.stage=build").split()
    single = max(map(size, stages)) if stages else 0
    warm = []
    for run in range(runs):
        image, seconds = build(f"warm{run}")
        made.append(image)
        warm.append(seconds)
    ours = size(made[-1])
    docker("rmi", *made)
    print(f"image {ours / 1e6:.1f} MB, single stage {single / 1e6:.0f} MB: ratio {ours / single:.3f} (goal <= 0.2)")
    median = statistics.median(warm)
    print(f"warm rebuild, median of {runs}: {median:.0f} s, cold {cold:.0f} s: ratio {median / cold:.2f} (goal <= 0.3)")


if __name__ == "__main__":
    main()
