"""A host that llmfleet has not touched, or has left for good."""

from __future__ import annotations


def test_nothing_of_ours_is_there(host):
    assert not host.file("/var/lib/llmfleet").exists


def test_no_engine_is_there(host):
    assert not host.package("docker.io").is_installed
    assert not host.exists("docker")
    assert not host.exists("dockerd")
    assert not host.file("/var/lib/docker").exists
    assert host.run("pgrep -x 'dockerd|containerd'").rc == 1
