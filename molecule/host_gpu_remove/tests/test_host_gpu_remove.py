"""Nothing of the toolkit is left, and the engine runs on without its runtime."""

from __future__ import annotations

import json


def test_packages_source_and_key_are_gone(host):
    assert not host.package("nvidia-container-toolkit").is_installed
    assert not host.package("libnvidia-container1").is_installed
    assert host.run("grep --recursive --files-with-matches libnvidia-container /etc/apt").rc == 1
    assert host.check_output("find /etc/apt/keyrings /usr/share/keyrings -name '*nvidia*'") == ""


def test_daemon_json_and_the_engine_have_forgotten_the_runtime(host):
    assert "runtimes" not in json.loads(host.check_output("cat /etc/docker/daemon.json"))
    assert "nvidia" not in json.loads(host.check_output("docker info --format '{{json .Runtimes}}'"))


def test_the_engine_was_never_restarted_and_still_works(host):
    starts = host.check_output("journalctl --unit docker --output cat --no-pager | grep --count '^Started'")
    assert starts == "1"
    assert host.run("docker run --rm registry.test:5000/library/hello:1").rc == 0
