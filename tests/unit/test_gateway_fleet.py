"""Services of hosts as the gateway reaches them, and which of them are one to callers."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gateway import fleet

LAN = {"bind": "10.0.0.5", "api_key": "engine-key"}


def service(name="chat", port=8001, **fields):
    return {"name": name, "model": "tiny", "port": port, **fields}


def host(name, *services, address="10.0.0.9"):
    return {"host": name, "address": address, "services": list(services)}


@pytest.mark.parametrize(
    ("fields", "own", "address", "expected"),
    [
        ({}, True, "10.0.0.9", "127.0.0.1:8001"),
        ({"bind": "::1"}, True, "10.0.0.9", "[::1]:8001"),
        (LAN, True, "10.0.0.9", "10.0.0.5:8001"),
        (LAN, False, "10.0.0.9", "10.0.0.5:8001"),
        ({**LAN, "bind": "0.0.0.0"}, True, "10.0.0.9", "127.0.0.1:8001"),
        ({**LAN, "bind": "0.0.0.0"}, False, "10.0.0.9", "10.0.0.9:8001"),
        ({**LAN, "bind": "0.0.0.0"}, False, "gpu-2.example.org", "gpu-2.example.org:8001"),
        ({**LAN, "bind": "::"}, False, "fd00::9", "[fd00::9]:8001"),
        ({**LAN, "bind": "::"}, True, "fd00::9", "[::1]:8001"),
    ],
)
def test_where_a_backend_is(fields, own, address, expected):
    (found,) = fleet.backends([host("a", service(**fields), address=address)], "a" if own else "b", [])
    assert found.address == expected


@pytest.mark.parametrize(
    ("fields", "address"),
    [({}, "10.0.0.9"), ({**LAN, "bind": "0.0.0.0"}, "127.0.0.1"), ({**LAN, "bind": "0.0.0.0"}, "localhost")],
)
def test_a_service_out_of_reach_is_refused(fields, address):
    with pytest.raises(BadInput, match="service chat on a: the gateway on b cannot reach `bind"):
        fleet.backends([host("a", service(**fields), address=address)], "b", [])


def test_what_is_published():
    rows = [host("a", service(), service("off", 8002, state="stopped"), service("second", 8003))]
    assert [one.service.name for one in fleet.backends(rows, "a", [])] == ["chat", "second"]
    assert [one.service.name for one in fleet.backends(rows, "a", ["second"])] == ["second"]
    with pytest.raises(BadInput, match="names third, and no host"):
        fleet.backends(rows, "a", ["third"])
    # it comes back with its service
    assert [one.service.name for one in fleet.backends(rows, "a", ["chat", "off"])] == ["chat"]
    # one that is not published may be anything
    rows = [host("a", service(), service("second", 8003))]
    assert len(fleet.backends(rows, "a", ["chat"])) == 1
    with pytest.raises(BadInput, match=r"^service chat: unknown key `prot`"):
        fleet.backends([host("a", service(prot=1))], "a", [])


def test_paths_are_those_of_the_task():
    (found,) = fleet.backends([host("a", service(engine="vllm", model="org/name"))], "a", [])
    assert found.paths == ENGINES["vllm"].PATHS["generate"]
    (found,) = fleet.backends([host("a", service(task="embed"))], "a", [])
    assert found.paths == ENGINES["llama_server"].PATHS["embed"]


def grouped(*hosts):
    return fleet.groups(fleet.backends(hosts, "a", []))


def test_replicas_are_one_to_callers():
    one = host("a", service("chat-a", served_name="big", api_key="engine-key"), service("other", 8002))
    two = host("b", service("chat-b", served_name="big", **LAN))
    big, other = grouped(one, two)
    assert (big.model, big.names, big.api_key) == ("big", ("chat-a", "chat-b"), "engine-key")
    assert big.backends == ("127.0.0.1:8001", "10.0.0.5:8001")
    assert (other.model, other.names, other.api_key) == ("other", ("other",), "")


def test_a_replica_without_a_key_gets_that_of_the_other():
    (group,) = grouped(host("a", service()), host("b", service(**LAN)))
    assert group.api_key == "engine-key"


def test_of_different_engines_the_paths_that_both_have():
    (group,) = grouped(
        host("a", service(task="embed")), host("b", service(engine="vllm", model="org/name", task="embed", **LAN))
    )
    assert group.paths == ("/v1/embeddings",)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"served_name": "other"}, "service chat on b serves other, on a the same name serves chat"),
        ({"task": "embed"}, "service chat on b and service chat on a are both called chat, and have different tasks"),
    ],
)
def test_one_name_is_one_thing(fields, why):
    with pytest.raises(BadInput, match=why):
        grouped(host("a", service()), host("b", service(**{**LAN, **fields})))


def test_replicas_have_one_key():
    with pytest.raises(BadInput, match="the replicas of chat have different API keys; give service chat on a, service"):
        grouped(host("a", service(api_key="first-key")), host("b", service(**LAN)))
