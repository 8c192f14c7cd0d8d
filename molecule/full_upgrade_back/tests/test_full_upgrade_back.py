"""The older engine runs, with the containers of the newer one."""

from __future__ import annotations

import pytest


def test_the_older_engine_runs(host):
    assert host.check_output("docker version --format '{{.Server.Version}}'").startswith("20.10.")
    assert host.check_output("dpkg-query --show --showformat '${Version}' docker-ce").startswith("5:20.10.")


@pytest.mark.parametrize("name", ["always", "keep"])
def test_the_containers_run(host, name):
    assert host.check_output(f"docker exec {name} echo works") == "works"


def test_the_packages_are_held(host):
    assert {"docker-ce", "docker-ce-cli"} <= set(host.check_output("apt-mark showhold").split())
