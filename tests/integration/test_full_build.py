"""The whole of llama.cpp without any compiler cache: what the quick tests do with a small tree, for real."""

from __future__ import annotations

import time

import pytest
from helpers import docker, free_port, run_module

pytestmark = pytest.mark.full


def test_the_legacy_builder_makes_an_image_that_serves(tiny, tmp_path):
    # a flag of its own gives the build a key of its own
    flag = f"-DFULL_BUILD={time.time():.0f}"
    built = run_module("llama_cpp_image", {"source": "build", "buildkit": "none", "cmake_flags": [flag]})
    assert built["action"] == "build", built
    again = run_module("llama_cpp_image", {"source": "build", "buildkit": "none", "cmake_flags": [flag]})
    assert (again["changed"], again["action"]) == (False, "keep")
    service = {"name": "test-full-build", "model": str(tiny), "port": free_port()}
    arguments = {"image": built["image"], "model_path": str(tiny), "directory": str(tmp_path)}
    try:
        served = run_module("llm_service", {"service": service, **arguments})
        assert served["verification"]["reply"], served
    finally:
        run_module("llm_service", {"service": {**service, "state": "absent"}, **arguments})
        docker("rmi", built["image"])
