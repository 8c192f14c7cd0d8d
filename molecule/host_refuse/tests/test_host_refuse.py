"""After all the refusals the engine runs as the distribution ships it, and so does the container."""

from __future__ import annotations


def test_the_engine_runs_and_the_container_with_it(host):
    assert host.service("docker").is_running
    assert host.check_output("docker inspect --format '{{.State.Running}}' keep") == "true"


def test_nothing_of_ours_is_left(host):
    assert not host.file("/etc/docker/daemon.json").exists
    assert not host.file("/etc/apt/sources.list.d/docker.sources").exists
    assert not host.file("/etc/apt/keyrings/docker.asc").exists
