"""A host after remove.yml: what is ours is gone, what may be others' stays."""

from __future__ import annotations


def test_no_container_is_left(host):
    assert host.check_output("docker ps --all --quiet") == ""


def test_no_image_of_ours_is_left(host):
    assert host.check_output("docker image ls --all --quiet --filter label=io.llmfleet.build-key") == ""
    assert "llama.cpp" not in host.check_output("docker image ls --all")


def test_no_network_of_ours_is_left(host):
    assert set(host.check_output("docker network ls --format '{{.Name}}'").split()) == {"bridge", "host", "none"}


def test_ports_are_closed(host):
    assert not host.socket("tcp://0.0.0.0:8080").is_listening
    assert not host.socket("tcp://127.0.0.1:8081").is_listening


def test_engine_and_models_stay(host):
    assert host.service("docker").is_running
    kept = host.check_output("find /var/lib/llmfleet -type f").split()
    assert "/var/lib/llmfleet/models/tiny.gguf" in kept
    others = [file for file in kept if not file.startswith("/var/lib/llmfleet/models/")]
    assert others == ["/var/lib/llmfleet/docker_engine.json"], "only the record of the engine's packages stays"
