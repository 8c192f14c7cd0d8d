#!/usr/bin/env python3
"""How long a run that changes nothing takes: site.yml against the plain playbook a user would write (baseline.yml).

Both are brought to their state first; then they run in turn and every run must report changed=0. Both verify down
to a generated token. Run with the project's virtual environment: `make bench`.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ["site.yml", "-i", "inventory/localhost"]


def play(*arguments: str) -> tuple[float, int]:
    """Run ansible-playbook and return (wall seconds, changed)."""
    executable = Path(sys.executable).parent / "ansible-playbook"
    begun = time.monotonic()
    done = subprocess.run([executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    wall = time.monotonic() - begun
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return wall, sum(map(int, re.findall(r"changed=(\d+)", done.stdout)))


def main() -> None:
    """Measure in turn, print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    play(*OURS)
    image = subprocess.run(
        ["docker", "container", "inspect", "-f", "{{.Config.Image}}", "tiny"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    subprocess.run(["docker", "tag", image, "bench-baseline:latest"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        plain = ["bench/baseline.yml", "-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}"]
        plain += ["-e", f"baseline_dir={folder}/models baseline_port=18099 baseline_image=bench-baseline:latest"]
        plain += ["-e", "baseline_model=/var/lib/llmfleet/models/tiny.gguf"]
        try:
            play(*plain)
            times: dict[str, list[float]] = {"plain": [], "llmfleet": []}
            for _ in range(runs):
                for name, arguments in (("plain", plain), ("llmfleet", OURS)):
                    wall, changed = play(*arguments)
                    if changed:
                        sys.exit(f"{name} changed {changed} things in a run that should change nothing")
                    times[name].append(wall)
        finally:
            subprocess.run(["docker", "rm", "-f", "bench-baseline"], capture_output=True, check=False)
            subprocess.run(["docker", "rmi", "bench-baseline:latest"], capture_output=True, check=False)
    median = {name: statistics.median(walls) for name, walls in times.items()}
    print(f"no-change run, median of {runs}: llmfleet {median['llmfleet']:.2f} s, plain {median['plain']:.2f} s")
    print(f"ratio {median['llmfleet'] / median['plain']:.2f} (goal <= 0.50)")


if __name__ == "__main__":
    main()
