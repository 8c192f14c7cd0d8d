"""What tells where a service computes; the devices themselves are in test_service_plan.py."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.service_device import variant_of


@pytest.mark.parametrize(
    ("reference", "variant"),
    [
        ("llmfleet/llama.cpp:cpu-1fd465d15179", "cpu"),
        ("llmfleet/llama.cpp:cuda-light-0123456789ab", "cuda"),
        ("registry.lan:5000/ggml-org/llama.cpp:server-cuda12-b1", "cuda"),
        ("ghcr.io/ggml-org/llama.cpp:server-vulkan@sha256:cuda", "vulkan"),
        ("example/llama:server-sycl", "intel"),
        ("ghcr.io/ggml-org/llama.cpp:server", ""),
        ("cuda/llama.cpp", ""),
        ("registry.lan:5000/cuda", ""),
        ("example/llama:1.2-cuda", "cuda"),
        ("docker.io/vllm/vllm-openai:v0.33.0", "cuda"),
        ("vllm/vllm-openai@sha256:0123", "cuda"),
        ("vllm/vllm-openai-cpu:v0.33.0", ""),
    ],
)
def test_the_tag_of_an_image_names_its_back_end(reference, variant):
    assert variant_of(reference) == variant
