"""Models come from outside once, then from host to host; whoever fails is followed by another."""

from __future__ import annotations

import typing as t

import pytest
from ansible.module_utils.llmfleet import model_rounds as rounds
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Manifest, RepoFile
from hypothesis import given
from hypothesis import strategies as st

ROUNDS = 3


def manifest(name: str) -> Manifest:
    """Return a model of one file; the name is in its digest, so that two names are two models."""
    file = RepoFile(f"{name}.gguf", 10, sha256=name.encode().hex().ljust(64, "0"))
    return Manifest(f"org/{name}", "c0ffee", GGUF, (file,), entry=file.path)


def plan(action: str, name: str = "m", engine: str = "llama_server") -> dict[str, t.Any]:
    about = {"engine": engine, "model": f"org/{name}", "sha256": "", "dest": "/models"}
    return {**about, "action": action, "manifest": manifest(name).as_data()}


def run(
    plans: dict[str, list[dict[str, t.Any]]],
    no_outside: t.Collection[str] = (),
    no_share: t.Collection[str] = (),
    no_receive: t.Collection[str] = (),
    fan_out: bool = True,
    batch: list[str] | None = None,
) -> tuple[dict[str, list[dict[str, t.Any]]], list[tuple[str, str]], list[tuple[str, str]]]:
    """Do what the role does; return (rows by host, (host, model) fetched from outside, (host, model) received)."""
    batch = batch or list(plans)
    fleet = {host: rounds.begin(rows, fan_out) for host, rows in plans.items()}
    outside: list[tuple[str, str]] = []
    inside: list[tuple[str, str]] = []
    for number in range(1, ROUNDS + 1):
        if not rounds.open_rows(fleet, batch):
            break
        before = {host: list(rows) for host, rows in fleet.items()}
        for host in batch:
            results = []
            for item in rounds.to_fetch(before, batch, host, number == ROUNDS):
                outside.append((host, item["model"]))
                results.append({"item": item, **({"msg": "no route"} if host in no_outside else {"path": "/m"})})
            fleet[host] = rounds.fetched(fleet[host], results)
        if not rounds.open_rows(fleet, batch):
            break
        shared = []
        for host in batch:
            for item in rounds.to_share(fleet, batch, host):
                said = {"archive": {"key": item["key"]}, "urls": [f"http://{item['holder']}"]}
                shared.append({"item": item, **({"msg": "port taken"} if item["holder"] in no_share else said)})
        relays = {
            host: [{"item": item, "urls": [f"http://{host}"]} for item in rounds.to_receive(fleet, batch, host, shared)]
            for host in batch
        }
        after = {}
        for host in batch:
            results = []
            for item in rounds.to_receive(fleet, batch, host, shared, relays):
                assert item["peers"]
                assert [f"http://{host}"] not in item["peers"]
                inside.append((host, item["model"]))
                results.append({"item": item, **({"msg": "cut"} if host in no_receive else {"path": "/m"})})
            after[host] = rounds.received(fleet, batch, host, shared, results)
        fleet.update(after)
    return fleet, outside, inside


def test_one_host_fetches_and_the_others_receive():
    fleet, outside, inside = run({name: [plan("download")] for name in "abcd"})
    assert outside == [("a", "org/m")]
    assert sorted(inside) == [(name, "org/m") for name in "bcd"]
    assert all(row["has"] for rows in fleet.values() for row in rows)


def test_a_host_that_has_it_makes_going_outside_needless():
    _, outside, inside = run({"a": [plan("download")], "b": [plan("keep")]})
    assert (outside, inside) == ([], [("a", "org/m")])


def test_the_next_host_tries_when_the_first_cannot():
    fleet, outside, inside = run({name: [plan("download")] for name in "abc"}, no_outside=["a"])
    assert outside == [("a", "org/m"), ("b", "org/m")]
    assert sorted(inside) == [("a", "org/m"), ("c", "org/m")]
    assert rounds.failures(fleet["a"]) == []


def test_in_the_last_round_all_who_wait_try():
    fleet, outside, _ = run({name: [plan("download")] for name in "abcde"}, no_outside=["a", "b", "c"])
    assert [host for host, _ in outside] == ["a", "b", "c", "d", "e"]
    assert all(not rounds.failures(rows) for rows in fleet.values())


def test_who_cannot_receive_goes_outside():
    fleet, outside, _ = run({name: [plan("download")] for name in "abc"}, no_receive=["c"])
    assert outside == [("a", "org/m"), ("c", "org/m")]
    assert rounds.failures(fleet["c"]) == []


def test_a_damaged_model_is_mended_from_another_host():
    _, outside, inside = run({"a": [plan("repair")], "b": [plan("keep")]})
    assert (outside, inside) == ([], [("a", "org/m")])


def test_where_nobody_can_share_each_goes_outside():
    _, outside, inside = run({name: [plan("download")] for name in "abc"}, no_share=["a", "b", "c"])
    assert sorted(host for host, _ in outside) == ["a", "b", "c"]
    assert inside == []


def test_without_fan_out_each_fetches_for_itself():
    _, outside, inside = run({name: [plan("download")] for name in "abc"}, fan_out=False)
    assert [host for host, _ in outside] == ["a", "b", "c"]
    assert inside == []


def test_a_host_of_an_earlier_batch_gives_what_it_has():
    _, outside, inside = run({"a": [plan("keep")], "b": [plan("download")]}, batch=["b"])
    assert (outside, inside) == ([], [("b", "org/m")])


def test_a_host_that_needs_nothing_gives_what_it_has():
    rows = {"a": [], "b": rounds.begin([plan("download")])}
    found = rounds.fleet(rows, {"a": [plan("keep"), plan("download", "n")], "b": [plan("download")]})
    assert found["b"] == rows["b"]
    assert [(row["model"], row["has"], row["dest"]) for row in found["a"]] == [("org/m", True, "/models")]
    assert rounds.to_fetch(found, ["b"], "b") == []
    assert [item["holder"] for item in rounds.to_share(found, ["b"], "b")] == ["a"]


def test_a_failure_says_all_reasons():
    fleet, _, _ = run({"a": [plan("download")], "b": [plan("download")]}, no_outside=["a", "b"])
    assert rounds.failures(fleet["a"]) == ["model org/m: no route"]


def test_two_engines_with_one_model_fetch_it_once():
    rows = [plan("download"), plan("download", engine="vllm")]
    fleet, outside, _ = run({"a": rows, "b": rows})
    assert outside == [("a", "org/m")]
    assert all(row["has"] for rows in fleet.values() for row in rows)


def test_a_model_in_two_words_comes_once_and_is_noted_in_both():
    rows = [plan("download"), {**plan("download"), "model": "hf:org/m"}]
    fleet, outside, inside = run({"a": rows, "b": rows})
    assert outside == [("a", "org/m"), ("a", "hf:org/m")]
    assert inside == [("b", "org/m"), ("b", "hf:org/m")]
    assert all(row["has"] for rows in fleet.values() for row in rows)


def test_what_was_only_to_be_noted_is_given_to_others():
    for action in ("link", "verify"):
        _, outside, inside = run({"a": [plan(action)], "b": [plan("download")]})
        assert (outside, inside) == ([], [("b", "org/m")])


def test_models_that_one_host_shares_have_ports_of_their_own():
    fleet = {
        host: rounds.begin([plan(action, "m"), plan(action, "n")])
        for host, action in [("a", "keep"), ("b", "download")]
    }
    assert {item["dest"] for item in rounds.to_share(fleet, ["a", "b"], "b")} == {"/models"}
    assert [item["place"] for item in rounds.to_share(fleet, ["a", "b"], "b")] == [0, 1]
    assert rounds.to_share(fleet, ["a", "b"], "a") == []


@given(
    st.lists(st.sampled_from(["keep", "download"]), min_size=1, max_size=7),
    st.sets(st.integers(0, 6)),
    st.sets(st.integers(0, 6)),
    st.sets(st.integers(0, 6)),
)
def test_whoever_has_a_way_gets_the_model_and_nobody_asks_twice(actions, no_outside, no_share, no_receive):
    names = "abcdefg"
    plans = {names[place]: [plan(action)] for place, action in enumerate(actions)}
    fleet, outside, _ = run(
        plans, [names[i] for i in no_outside], [names[i] for i in no_share], [names[i] for i in no_receive]
    )
    assert len(set(outside)) == len(outside)
    for place, host in enumerate(plans):
        if place not in no_outside:
            assert not rounds.failures(fleet[host])
    if not no_outside | no_share | no_receive:
        assert len(outside) == (0 if "keep" in actions else 1)


@pytest.mark.parametrize("count", [1, 5])
def test_the_first_sends_two_copies(count):
    fleet = {name: rounds.begin([plan("keep" if name == "a" else "download")]) for name in "abcdef"[: count + 1]}
    batch = list(fleet)
    shared = [
        {"item": item, "archive": {"x": 1}, "urls": [f"http://{item['holder']}"]}
        for host in batch
        for item in rounds.to_share(fleet, batch, host)
    ]
    relays = {
        host: [{"item": item, "urls": [f"http://{host}"]} for item in rounds.to_receive(fleet, batch, host, shared)]
        for host in batch
    }
    first = [rounds.to_receive(fleet, batch, host, shared, relays)[0]["peers"][0] for host in batch[1:]]
    assert first.count(["http://a"]) == min(2, count)
