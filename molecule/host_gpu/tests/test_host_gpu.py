"""Containers reach the GPU in every way that users know, and Docker was never restarted."""

from __future__ import annotations

import json

import pytest

PACKAGES = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools")


@pytest.mark.parametrize("package", [*PACKAGES, "libnvidia-container1"])
def test_all_four_packages_have_the_version_asked_for(host, package):
    assert host.package(package).version == "1.18.0-1"


@pytest.mark.parametrize("way", ["--gpus all", "--runtime nvidia --env NVIDIA_VISIBLE_DEVICES=all"])
def test_a_container_sees_the_gpu(host, way):
    assert "GPU 0:" in host.check_output(f"docker run --rm {way} registry.test:5000/library/hello:1 nvidia-smi -L")


def test_daemon_json_is_what_the_toolkit_itself_would_write(host):
    ours = json.loads(host.check_output("cat /etc/docker/daemon.json"))
    host.check_output("cp /etc/docker/daemon.json /tmp/theirs.json")
    host.check_output("nvidia-ctk runtime configure --runtime=docker --config=/tmp/theirs.json")
    assert json.loads(host.check_output("cat /tmp/theirs.json")) == ours


def test_the_engine_was_never_restarted(host):
    starts = host.check_output("journalctl --unit docker --output cat --no-pager | grep --count '^Started'")
    assert starts == "1"


def test_the_key_is_the_right_one_though_a_mirror_offered_another(host):
    sources = host.check_output("cat /etc/apt/sources.list.d/nvidia-container-toolkit.sources")
    assert "http://mirrors.test/good/libnvidia-container" in sources
    assert host.run("apt-get update").rc == 0
