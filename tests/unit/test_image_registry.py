"""Names in registries, and what helps with what docker says about one."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_registry import explain, remote_name


@pytest.mark.parametrize(
    ("image", "registry", "name"),
    [
        ("llmfleet/llama.cpp:cpu-1", "10.0.0.5:5000", "10.0.0.5:5000/llmfleet/llama.cpp:cpu-1"),
        ("llmfleet/llama.cpp:cpu-1", "hub.example.org/gpu/", "hub.example.org/gpu/llmfleet/llama.cpp:cpu-1"),
        ("ghcr.io/ggml-org/llama.cpp:server", "r.lan:5000", "r.lan:5000/ggml-org/llama.cpp:server"),
        ("10.0.0.9:5000/a/b:1", "localhost:5000", "localhost:5000/a/b:1"),
        ("debian", "[fd00::2]:5000", "[fd00::2]:5000/debian:latest"),
    ],
)
def test_names(image: str, registry: str, name: str) -> None:
    assert remote_name(image, registry) == name


@pytest.mark.parametrize(
    "registry", ["", "http://r:5000", "r.lan:5000/Upper", "r lan:5000", "r.lan:port", "registry", "-"]
)
def test_what_is_no_registry_is_refused(registry: str) -> None:
    with pytest.raises(BadInput):
        remote_name("a:1", registry)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        # 20.10 and 28
        (
            'Get "https://r:5000/v2/": http: server gave HTTP response to HTTPS client',
            "add r:5000 to docker_engine_insec",
        ),
        (
            "failed to do request: tls: first record does not look like a TLS handshake",
            "docker_engine_insecure_registries",
        ),
        (
            'Get "https://r:5000/v2/": x509: certificate signed by unknown authority',
            "/etc/docker/certs.d/r:5000/ca.crt",
        ),
        ("tls: failed to verify certificate: x509: certificate has expired", "its CA into"),
        ("dial tcp 10.0.0.5:5000: connect: connection refused", "nothing listens there"),
        ("dial tcp: lookup r on 10.0.0.1:53: no such host", "its name does not resolve on this host"),
        ("dial tcp 10.0.0.5:5000: i/o timeout", "a firewall"),
        ("net/http: request canceled while waiting for connection (Client.Timeout exceeded)", "a firewall"),
        ("no basic auth credentials", "run `docker login r:5000` as root"),
        ("denied: requested access to the resource is denied", "run `docker login r:5000` as root"),
        ("manifest for r:5000/a:1 not found: manifest unknown: manifest unknown", "it does not have the image"),
        ("failed to register layer: write /x: no space left on device", "there is no room left"),
        ("proxyconnect tcp: dial tcp 10.0.0.8:3128: connect: no route to host", "no_proxy"),
        ("something quite new", "r:5000: something quite new"),
    ],
)
def test_what_docker_says_is_explained(said: str, words: str) -> None:
    assert words in explain("r:5000", said)
    assert said in explain("r:5000", said)
