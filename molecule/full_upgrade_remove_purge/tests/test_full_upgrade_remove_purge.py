"""Nothing of the engine and its data is left; the owner's file is."""

from __future__ import annotations

import json


def test_no_package_is_left(host):
    left = host.check_output("dpkg-query --show --showformat '${Package} ${db:Status-Status}\\n'").splitlines()
    assert [line for line in left if line.startswith(("docker", "containerd", "runc"))] == []


def test_no_process_is_left(host):
    assert host.run("pgrep -x 'dockerd|containerd|containerd-shim|sleep'").rc == 1


def test_no_data_and_no_record_is_left(host):
    for path in ("/var/lib/docker", "/var/lib/containerd", "/var/lib/llmfleet"):
        assert not host.file(path).exists, path


def test_the_owners_file_stays(host):
    assert json.loads(host.check_output("cat /etc/docker/daemon.json")) == {
        "max-concurrent-downloads": 5,
        "registry-mirrors": ["http://registry.test:5000"],
    }
