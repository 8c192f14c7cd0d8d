"""Pulls and builds go through the mirrors of their registry, and the engine was only reloaded for it."""

from __future__ import annotations

import json
import subprocess

import pytest

MANIFEST = "/v2/library/hello/manifests/1"


@pytest.fixture(scope="module")
def daemon(host):
    """What the engine that runs says of itself."""
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


def asked_for(image: str, who: str) -> bool:
    """Whether the registry's log has a request of ``who`` for the manifest of ``image``."""
    log = subprocess.run(["docker", "logs", "llmfleet-test-registry"], capture_output=True, text=True, check=True)
    registry = image.partition("/")[0]
    wanted = f"{MANIFEST}?ns={registry} "
    return any(wanted in line and who in line for line in (log.stdout + log.stderr).splitlines())


def test_the_engine_is_a_new_one_with_containerds_image_store(daemon):
    assert daemon["ServerVersion"].startswith("28.5.")
    assert ["driver-type", "io.containerd.snapshotter.v1"] in daemon["DriverStatus"]


@pytest.mark.parametrize("image", ["ghcr.test/library/hello:1", "docker.io/library/hello:1"])
def test_a_pull_goes_through_the_mirrors_of_its_registry(host, image):
    host.check_output(f"docker pull {image}")
    assert asked_for(image, '"docker/28.5.')
    assert host.check_output(f"docker run --rm {image} echo works") == "works"


def test_a_build_goes_through_the_mirrors_too(host):
    image = "ghcr.test/library/hello:1"
    host.check_output(f"echo 'FROM {image}' | docker build --pull --tag built -")
    assert asked_for(image, '"buildkit/')


def test_the_engine_was_not_restarted_and_the_container_runs_on(host):
    assert host.check_output("systemctl show --property MainPID --value docker") == host.check_output(
        "cat /root/dockerd.pid"
    )
    before = host.check_output("cat /root/keep.pid")
    assert host.check_output("docker inspect --format '{{.State.Pid}}' keep") == before


def test_what_went_from_the_file_went_from_the_engine(host, daemon):
    written = json.loads(host.check_output("cat /etc/docker/daemon.json"))
    assert written == {
        "features": {"containerd-snapshotter": True},
        "registry-mirrors": ["http://registry.test:5000"],
        "shutdown-timeout": 20,
    }
    assert (daemon["Labels"], daemon["Debug"]) == ([], False)
    assert list(daemon["RegistryConfig"]["IndexConfigs"]) == ["docker.io"]


def test_devices_are_given_by_cdi_without_a_setting(daemon):
    assert daemon["CDISpecDirs"] == ["/etc/cdi", "/var/run/cdi"]
