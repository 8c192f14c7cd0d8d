"""A host after remove.yml with its purge flags: as bare as it came."""

from __future__ import annotations


def test_nothing_of_ours_is_left(host):
    assert not host.file("/var/lib/llmfleet").exists


def test_engine_is_gone(host):
    assert not host.package("docker.io").is_installed
    assert not host.exists("docker")
    assert not host.exists("dockerd")
    assert host.run("pgrep -x 'dockerd|containerd'").rc == 1
