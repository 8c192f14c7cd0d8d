"""Docker CE runs where the distribution's engine did, with the same images and containers."""

from __future__ import annotations

import pytest


def test_docker_ce_runs_in_its_place(host):
    assert host.package("docker-ce").is_installed
    assert not host.package("docker.io").is_installed
    assert host.check_output("docker version --format '{{.Server.Version}}'").startswith("26.1.")
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled


def test_the_same_containers_are_there(host):
    now = host.check_output("docker ps --all --no-trunc --format '{{.Names}} {{.ID}}' | sort")
    assert now == host.check_output("cat /root/containers")


@pytest.mark.parametrize("name", ["always", "plain"])
def test_those_that_ran_run_again_with_what_they_had_written(host, name):
    assert host.check_output(f"docker exec {name} cat /note") == "mine"


def test_the_one_that_rested_rests(host):
    assert host.check_output("docker inspect --format '{{.State.Status}}' resting") == "created"


def test_new_containers_start(host):
    assert host.run("docker run --rm owner:1 true").rc == 0
