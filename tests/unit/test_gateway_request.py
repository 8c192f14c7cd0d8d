"""What is asked of a gateway: checked before anything changes."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gateway.request import make

KEY = {"name": "alice", "key": "0123456789abcdef"}
SAID = {
    "bind": "0.0.0.0",
    "port": 8443,
    "local_port": 8480,
    "keys": [KEY],
    "services": [],
    "max_body_mib": 32,
    "access_log": True,
    "web_ui": "",
}
HOSTS = [
    {
        "host": "a",
        "address": "10.0.0.9",
        "services": [
            {"name": "chat", "model": "tiny", "port": 8001},
            {"name": "embed", "model": "tiny", "port": 8002, "task": "embed"},
            {"name": "off", "model": "tiny", "port": 8003, "state": "stopped"},
        ],
    }
]


def made(**said):
    return make({**SAID, **said}, HOSTS, "a")


def test_what_keys_may_use():
    request = made(keys=[KEY, {"name": "bob", "key": "b" * 16, "services": ["embed"]}], web_ui="http://[::1]:3000/")
    assert [request.allowed(one) for one in request.keys] == [[0, 1], [1]]
    assert not request.open
    assert request.web_ui == "http://[::1]:3000"
    assert made(bind="127.0.0.1", keys=[]).open


def test_a_service_that_is_stopped_makes_nothing_wrong():
    request = made(services=["chat", "off"], keys=[{**KEY, "services": ["off"]}])
    assert [group.names for group in request.groups] == [("chat",)]
    assert [request.allowed(one) for one in request.keys] == [[]]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"bind": "gateway"}, "llm_gateway_bind must be an IP address"),
        ({"keys": []}, "set llm_gateway_keys too, or bind to 127.0.0.1"),
        ({"port": 0}, "llm_gateway_port must be a port"),
        ({"local_port": 70000}, "llm_gateway_local_port must be a port"),
        ({"port": 8480}, "are both 8480"),
        ({"port": 8002}, "llm_gateway_port: 8002 is the port of service embed"),
        # it would be in the way as soon as the service is started
        ({"local_port": 8003}, "llm_gateway_local_port: 8003 is the port of service off"),
        ({"max_body_mib": 0}, "llm_gateway_max_body_mib must be"),
        ({"services": ["third"]}, "llm_gateway_services names third"),
        ({"services": "chat"}, "llm_gateway_services must be a list"),
        ({"names": "llm.example.org"}, "llm_gateway_names must be a list"),
        ({"keys": [{**KEY, "services": ["third"]}]}, "there is no service third \\(there are chat, embed, off\\)"),
        ({"services": ["chat"], "keys": [{**KEY, "services": ["embed"]}]}, "no service embed \\(there are chat\\)"),
        ({"web_ui": "127.0.0.1:3000"}, "llm_gateway_web_ui must be an address"),
        ({"web_ui": "http://127.0.0.1:3000/ui"}, "llm_gateway_web_ui must be an address"),
        ({"web_ui": "http://ui;}"}, "llm_gateway_web_ui must be an address"),
    ],
)
def test_what_is_refused(said, why):
    with pytest.raises(BadInput, match=why):
        made(**said)


def test_nothing_to_publish_is_refused():
    with pytest.raises(BadInput, match="nothing to publish"):
        make(SAID, [{**HOSTS[0], "services": []}], "a")


def test_a_service_may_not_have_a_path_of_the_web_ui():
    hosts = [{**HOSTS[0], "services": [{"name": "api", "model": "tiny", "port": 8001}]}]
    assert make(SAID, hosts, "a").groups
    with pytest.raises(BadInput, match="service api: Open WebUI has paths of this name"):
        make({**SAID, "web_ui": "http://127.0.0.1:3000"}, hosts, "a")
