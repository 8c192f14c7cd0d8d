"""Hosts with NVIDIA GPUs as the CUDA plan takes them, for tests: of the example fleets, and made up on the spot."""

from __future__ import annotations

import typing as t
from pathlib import Path

import yaml
from ansible.module_utils.llmfleet import cuda_plan

FLEETS = Path(__file__).resolve().parents[1] / "fixtures" / "fleets"
NAMES = {
    "5.2": "Tesla M40",
    "6.1": "Tesla P40",
    "7.0": "Tesla V100-SXM2-32GB",
    "7.5": "Tesla T4",
    "8.6": "NVIDIA GeForce RTX 3090",
    "8.7": "Orin (nvgpu)",
    "8.9": "NVIDIA L4",
    "9.0": "NVIDIA H100 80GB HBM3",
    "10.3": "NVIDIA B300 SXM6 AC",
    "11.0": "NVIDIA Thor",
    "12.0": "NVIDIA GeForce RTX 5090",
    "12.1": "NVIDIA GB10",
}

Row = dict[str, t.Any]


def fleet(name: str) -> list[Row]:
    """Return the rows of an example fleet's hosts that have GPUs."""
    hosts = yaml.safe_load((FLEETS / f"{name}.yml").read_text())["hosts"]
    with_gpus = [one for one in hosts if one["gpu"]["verdict"] == "gpu"]
    return [cuda_plan.row_of(one["host"], one["architecture"], one["gpu"]) for one in with_gpus]


def host(
    *capabilities: str | None,
    name: str = "gpu-1",
    driver: str | None = "580.95.05",
    cuda: str | None = "13.0",
    architecture: str = "amd64",
) -> Row:
    """Return the row of a host with one GPU of each capability."""
    return {
        "host": name,
        "architecture": architecture,
        "driver": driver,
        "cuda_version": cuda,
        "capabilities": list(capabilities),
        "gpu_names": [NAMES.get(one or "", "NVIDIA Graphics Device") for one in capabilities],
    }
