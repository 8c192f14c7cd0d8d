"""The GPU is there again, at the price of one restart."""

from __future__ import annotations

import json


def test_a_container_sees_the_gpu(host):
    assert "GPU 0:" in host.check_output("docker run --rm --gpus all registry.test:5000/library/hello:1 nvidia-smi -L")
    assert "nvidia" in json.loads(host.check_output("docker info --format '{{json .Runtimes}}'"))


def test_the_engine_was_restarted_once(host):
    starts = host.check_output("journalctl --unit docker --output cat --no-pager | grep --count '^Started'")
    assert starts == "2", "the first start, which was before the toolkit came back, and one more"
