#!/usr/bin/env python3
"""How much faster vLLM starts with the caches that its first start left than without any.

The tiny model on the processor. This project's image holds no compiler, and without one nothing is compiled that could
be kept; so a copy of it with g++ and PyTorch's headers is made for this bench, and `enforce_eager: false` lets vLLM
compile (torch.compile), as it does on GPUs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
import conftest  # noqa: E402, F401 - makes the checkout importable
import tiny_hf  # noqa: E402
from ansible.module_utils.llmfleet.vllm_pins import TORCH  # noqa: E402
from helpers import docker, free_port, run_module  # noqa: E402

NAME = "bench-vllm-start"
IMAGE = "bench-vllm-compiler:latest"
INSTALL = """
set -e
apt-get update
apt-get install -y --no-install-recommends g++ python3-dev
cd /tmp && python3 -m zipfile -e /wheels/torch-*.whl wheel
cp -r wheel/torch/include /opt/vllm/lib/python3*/site-packages/torch/
rm -rf wheel
"""


def with_compiler(image: str) -> None:
    """Make IMAGE: ``image`` and a compiler, from this machine's own package sources."""
    mounts = [f"--volume={path}:{path}:ro" for path in ("/etc/apt", "/etc/ssl/certs/ca-certificates.crt")]
    with tempfile.TemporaryDirectory() as wheels:
        wanted = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", f"torch=={TORCH}"]
        subprocess.run(["python3", "-m", "pip", "download", "--quiet", "--dest", wheels, *wanted], check=True)
        mounts.append(f"--volume={wheels}:/wheels:ro")
        asked = ["--name", NAME, "--user", "0", "--network", "host", *mounts, "--entrypoint", "sh"]
        docker("run", *asked, image, "-c", INSTALL)
    user = docker("image", "inspect", "--format", "{{.Config.User}}", image).strip()
    entrypoint = docker("image", "inspect", "--format", "{{json .Config.Entrypoint}}", image).strip()
    docker("commit", "--change", f"USER {user}", "--change", f"ENTRYPOINT {entrypoint}", NAME, IMAGE)
    docker("rm", NAME)


def start(model: Path, folder: Path, port: int) -> float:
    """Launch the service anew and return the seconds to its first token."""
    service = {
        "name": NAME,
        "engine": "vllm",
        "model": str(model),
        "port": port,
        "context_length": 1024,
        "parallel": 4,
        "enforce_eager": False,
    }
    arguments: dict[str, t.Any] = {
        "service": service,
        "image": IMAGE,
        "model_path": str(model),
        "directory": str(folder / "services"),
        "cache_directory": str(folder / "cache"),
    }
    result = run_module("llm_service", arguments)
    run_module("llm_service", {**arguments, "service": {**service, "state": "absent"}})
    if result.get("failed"):
        sys.exit(f"{result['msg']}\n" + "\n".join(result.get("log_tail", [])))
    return float(result["verification"]["levels"]["token"])


def main() -> None:
    """Measure cold and warm starts in turns, print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    result = run_module("vllm_image", {})
    if result.get("failed"):
        sys.exit(result["msg"])
    with_compiler(result["image"])
    cold, warm = [], []
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            folder.chmod(0o755)
            tiny_hf.write(folder / "model", head_dim=32)
            configuration = json.loads((folder / "model" / "config.json").read_text())
            for _ in range(runs):
                shutil.rmtree(folder / "cache", ignore_errors=True)
                cold.append(start(folder / "model", folder, free_port()))
                warm.append(start(folder / "model", folder, free_port()))
    finally:
        subprocess.run(["docker", "rmi", "--force", IMAGE], stdout=subprocess.DEVNULL, check=False)
    slow, fast = statistics.median(cold), statistics.median(warm)
    print(f"vLLM, {configuration['model_type']}, to the first token, medians of {runs}:")
    print(f"no caches {slow:.1f} s, kept caches {fast:.1f} s: ratio {fast / slow:.2f}")


if __name__ == "__main__":
    main()
