"""Compute capabilities by names as nvidia-smi writes them."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.gpu_products import capability_of


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("NVIDIA GB10", "12.1"),
        ("NVIDIA GeForce RTX 5090", "12.0"),
        ("NVIDIA GeForce RTX 5070 Ti Laptop GPU", "12.0"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "12.0"),
        ("NVIDIA RTX PRO 4500 Blackwell", "12.0"),
        ("NVIDIA Thor", "11.0"),
        ("NVIDIA B300 SXM6 AC", "10.3"),
        ("NVIDIA GB200", "10.0"),
        ("NVIDIA H100 80GB HBM3", "9.0"),
        ("NVIDIA H200 NVL", "9.0"),
        ("NVIDIA GH200 480GB", "9.0"),
        ("NVIDIA L4", "8.9"),
        ("NVIDIA L40S", "8.9"),
        ("NVIDIA RTX 6000 Ada Generation", "8.9"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "8.9"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "8.9"),
        ("Orin (nvgpu)", "8.7"),
        ("NVIDIA RTX A6000", "8.6"),
        ("NVIDIA A2", "8.6"),
        ("GeForce RTX 3060 Laptop GPU", "8.6"),
        ("A100-SXM4-40GB", "8.0"),
        ("NVIDIA A100-PCIE-40GB MIG 1g.5gb", "8.0"),
        ("NVIDIA A30", "8.0"),
        ("Tesla T4", "7.5"),
        ("GRID T4-16Q", "7.5"),
        ("Quadro RTX 4000", "7.5"),
        ("NVIDIA GeForce GTX 1660 SUPER", "7.5"),
        ("NVIDIA TITAN RTX", "7.5"),
        ("Tesla V100-SXM2-16GB", "7.0"),
        ("Tesla V100S-PCIE-32GB", "7.0"),
        ("Tesla P40", "6.1"),
        ("NVIDIA GeForce GTX 1080 Ti", "6.1"),
        ("Tesla P100-PCIE-16GB", "6.0"),
        ("Tesla M60", "5.2"),
        ("GeForce GTX TITAN X", "5.2"),
        ("GeForce GTX 750 Ti", "5.0"),
        # no guesses: neither from parts of a number nor for products that the source does not name
        ("NVIDIA A10G", None),
        ("NVIDIA T400 4GB", None),
        ("Quadro P4000", None),
        ("NVIDIA GeForce RTX 5090 D", "12.0"),
        ("NVIDIA GeForce RTX 5090D", None),
        ("NVIDIA RTX 9000 Future Generation", None),
        ("NVIDIA Graphics Device", None),
        ("", None),
    ],
)
def test_capability_of(name, capability):
    assert capability_of(name) == capability
