"""Compute capability by product name: the last resort, where neither nvidia-smi nor the driver's libraries tell it.

Data of https://developer.nvidia.com/cuda-gpus and https://developer.nvidia.com/cuda-legacy-gpus; products that these
pages do not name are left out on purpose: a wrong architecture costs more than an unknown one.
"""

from __future__ import annotations

import re

PRODUCTS = (
    ("12.1", r"GB10"),
    ("12.0", r"RTX PRO [2-6]\d00 (.* )?Blackwell|GeForce RTX 50[5-9]0( Ti)?"),
    ("11.0", r"Thor|T5000|T4000"),
    ("10.3", r"G?B300"),
    ("10.0", r"G?B200"),
    ("9.0", r"H100|H200|GH200"),
    ("8.9", r"L4|L40S?|RTX [2-6]\d00 (.* )?Ada( Generation)?|GeForce RTX 40[5-9]0( Ti)?"),
    ("8.7", r"Orin"),
    ("8.6", r"A40|A10|A16|A2|RTX A[2-6]\d00|GeForce RTX 30[5-9]0( Ti)?"),
    ("8.0", r"A100|A30"),
    ("7.5", r"T4|Quadro RTX [3-8]000|GeForce RTX 20[6-8]0( Ti)?|TITAN RTX|GTX 16[56]0( Ti)?"),
    ("7.2", r"Xavier"),
    ("7.0", r"V100S?|TITAN V|Quadro GV100"),
    ("6.2", r"Tegra X2|Jetson TX2"),
    ("6.1", r"P40|P4|GTX 10[5-8]0( Ti)?|TITAN Xp"),
    ("6.0", r"P100|Quadro GP100"),
    ("5.3", r"Tegra X1|Jetson TX1|Jetson Nano"),
    ("5.2", r"M60|M40|M4|GTX 9[5-8]0( Ti)?|GTX TITAN X"),
    ("5.0", r"GTX 750( Ti)?|Quadro K620|Quadro K1200|Quadro K2200"),
)
"""(compute capability, names), looked up from the top: newer products repeat the numbers of older ones."""


def capability_of(name: str) -> str | None:
    """Return the compute capability of a product as nvidia-smi names it, or None when the table lacks it."""
    for capability, names in PRODUCTS:
        if re.search(rf"(?<!\w)(?:{names})(?!\w)", name, flags=re.IGNORECASE):
            return capability
    return None
