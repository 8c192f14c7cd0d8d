"""After all that went wrong both services run from one container each, as they were deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

INVENTORY = yaml.safe_load((Path(__file__).parents[1] / "inventory.yml").read_text())
SERVICES = INVENTORY["llm_hosts"]["vars"]["llm_services"]


def test_there_is_one_container_a_service(host):
    names = host.check_output("docker ps --all --filter label=io.llmfleet.service --format '{{.Names}}'").split()
    assert sorted(names) == sorted(service["name"] for service in SERVICES)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service["name"])
def test_it_runs_and_will_be_started_again(host, service):
    (container,) = json.loads(host.check_output("docker container inspect %s", service["name"]))
    assert container["State"]["Status"] == "running"
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert container["Mounts"][0]["Source"].startswith("/var/lib/llmfleet/models/")


def test_the_engine_is_systemds(host):
    assert host.service("docker").is_running


def test_nothing_of_the_full_disk_is_left(host):
    assert not host.mount_point("/mnt/models").exists
