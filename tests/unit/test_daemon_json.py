"""daemon.json as data: what is refused, whose keys are whose, and what a plan foresees."""

from __future__ import annotations

import json
import random

import pytest
from ansible.module_utils.llmfleet.daemon_json import foresee, merge, parse, render, settled
from ansible.module_utils.llmfleet.errors import BadInput

PATH = "/etc/docker/daemon.json"
NVIDIA = {"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", {}),
        ("\ufeff", {}),
        (" \n", {}),
        ("{}", {}),
        ('\ufeff{"debug": true}', {"debug": True}),
        # the same name in two mappings, or as a value, is no repetition
        (
            '{"a": {"x": "a"}, "b": {"x": "a"}, "c": ["x", "x"]}',
            {"a": {"x": "a"}, "b": {"x": "a"}, "c": ["x", "x"]},
        ),
        ('{"a": "{\\"a\\": 1}", "b": "a\\\\"}', {"a": '{"a": 1}', "b": "a\\"}),
    ],
)
def test_what_is_read(text, config):
    assert parse(text, PATH) == config


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ('{\n  "debug": true,\n}', "line 3, column 1", "broken JSON"),
        ('{"debug": true', "line 1, column 15", "broken JSON"),
        ('{\n    // mirrors\n    "debug": true\n}', "line 2, column 5", "broken JSON"),
        ("[]", "line 1, column 1", "must hold a mapping"),
        ('\n  "text"', "line 2, column 3", "must hold a mapping"),
        ('{\n  "debug": true,\n  "debug": false\n}', "line 3, column 3", "the key debug is there twice"),
        ('{"features": {"cdi": true, "a": {}, "cdi": 1}}', "line 1, column 37", "the key cdi is there twice"),
        # the same name written in two ways
        ('{"d\\u0065bug": true, "debug": true}', "line 1, column 22", "the key debug is there twice"),
        ("[" * 100_000, "line 1, column 1", "too deeply nested"),
        # what Python reads and cannot write again
        ('{"mtu": 1e999}', "line 1, column 1", "cannot be written again"),
        ('{"labels": ["a=\\ud800"]}', "line 1, column 1", "cannot be written again"),
    ],
)
def test_what_is_refused(text, where, why):
    with pytest.raises(BadInput) as refused:
        parse(text, PATH)
    message = str(refused.value)
    assert message.startswith(f"{PATH}, {where}: ")
    assert why in message
    assert message.endswith("; correct it by hand, it was not touched")


def test_a_number_that_python_does_not_read_is_no_traceback(monkeypatch):
    def too_long(*_, **__):
        raise ValueError("Exceeds the limit (4300 digits) for integer string conversion")

    monkeypatch.setattr(json, "loads", too_long)  # from Python 3.11 on, and in later fixes of older ones
    with pytest.raises(BadInput, match="a number of too many digits; correct it by hand"):
        parse('{"mtu": 1}', PATH)


@pytest.mark.parametrize("key", ["insecure-registries", "labels"])
def test_a_set_given_as_a_mapping_is_refused(key):
    with pytest.raises(BadInput, match=f"`{key}` must be a list, not .*; write - before each"):
        merge({}, {"engine": {key: {"r.test:5000": "x"}}}, {})


def test_not_a_number_is_refused():
    with pytest.raises(BadInput, match="NaN is no JSON value"):
        parse('{"shutdown-timeout": NaN}', PATH)


@pytest.mark.parametrize(
    ("old", "indent"),
    [("", "    "), ('{"debug": true}', "    "), ('{\n  "debug": true\n}', "  "), ('{\n\t"a": 1}', "\t")],
)
def test_the_indentation_is_kept(old, indent):
    assert render({"debug": False, "labels": ["größe=1"]}, old) == (
        f'{{\n{indent}"debug": false,\n{indent}"labels": [\n{indent}{indent}"größe=1"\n{indent}]\n}}\n'
    )


def test_foreign_keys_and_their_order_are_kept():
    current = {
        "data-root": "/data",
        "runtimes": {"mine": {"path": "/mine"}},
        "unknown": [1, {"a": None}],
        "debug": True,
    }
    merged = merge(current, {"toolkit": NVIDIA, "engine": {"debug": False, "mtu": 1400}}, {})
    assert json.dumps(merged.config) == json.dumps(
        {
            "data-root": "/data",
            "runtimes": {"mine": {"path": "/mine"}, "nvidia": {"args": [], "path": "nvidia-container-runtime"}},
            "unknown": [1, {"a": None}],
            "debug": False,
            "mtu": 1400,
        }
    )
    assert merged.changes == (
        "runtimes.nvidia.args: [] (toolkit)",
        'runtimes.nvidia.path: "nvidia-container-runtime" (toolkit)',
        "debug: false instead of true (engine)",
        "mtu: 1400 (engine)",
    )
    assert current["debug"] is True, "the argument is left alone"
    back = merge(merged.config, {"toolkit": {}, "engine": {}}, merged.record)
    assert json.dumps(back.config) == json.dumps(current)
    assert back.record == {}
    assert "debug: true again, as it was before" in back.changes


def test_a_second_time_nothing_changes():
    contributions = {"engine": {"labels": ["a=b"], "log-opts": {"max-size": "50m"}, "default-runtime": None}}
    first = merge({"labels": ["x=y"]}, contributions, {})
    assert "default-runtime" not in first.config
    second = merge(first.config, contributions, first.record)
    assert (second.config, second.record, second.changes) == (first.config, first.record, ())


def test_sets_are_joined_and_only_ours_taken_back():
    current = {"insecure-registries": ["theirs:1", "both:2"], "dns": ["1.1.1.1"]}
    ours = {"insecure-registries": ["both:2", "ours:3"], "labels": ["a=b"], "dns": ["8.8.8.8"]}
    merged = merge(current, {"engine": ours}, {})
    assert merged.config["insecure-registries"] == ["theirs:1", "both:2", "ours:3"]
    assert merged.config["dns"] == ["8.8.8.8"], "any other list is a value"
    assert 'insecure-registries: "ours:3" (engine)' in merged.changes
    fewer = merge(merged.config, {"engine": {"insecure-registries": ["both:2"]}}, merged.record)
    assert fewer.config == {"insecure-registries": ["theirs:1", "both:2"], "dns": ["1.1.1.1"]}
    assert merge(fewer.config, {"engine": {}}, fewer.record).config == current


def test_containers_that_were_there_stay_when_they_are_empty():
    merged = merge({"runtimes": {}, "features": None}, {"t": {**NVIDIA, "features": {"cdi": True}}}, {})
    assert merge(merged.config, {"t": {}}, merged.record).config == {"runtimes": {}}
    kept = merge({}, {"t": NVIDIA}, {})
    with_foreign = {"runtimes": {**kept.config["runtimes"], "mine": {"path": "/mine"}}}
    assert merge(with_foreign, {"t": {}}, kept.record).config == {"runtimes": {"mine": {"path": "/mine"}}}


def test_contributors_that_are_not_mentioned_keep_what_they_have():
    first = merge({}, {"toolkit": NVIDIA, "engine": {"debug": True}}, {})
    by_hand = {**first.config, "runtimes": {"nvidia": {"args": [], "path": "/opt/runtime"}}}
    second = merge(by_hand, {"engine": {"debug": False}}, first.record)
    assert second.config == {**by_hand, "debug": False}
    assert second.changes == ("debug: false instead of true (engine)",)
    third = merge(first.config, {"engine": {}}, second.record)
    assert third.config == {**NVIDIA, "debug": True}, "true is not what we put there last"


def test_what_was_changed_by_hand():
    first = merge({"debug": False}, {"engine": {"debug": True, "mtu": 1400}}, {})
    edited = {"debug": True, "mtu": 9000}
    again = merge(edited, {"engine": {"debug": True, "mtu": 1400}}, first.record)
    assert again.config == {"debug": True, "mtu": 1400}
    assert again.changes == ("mtu: 1400 instead of 9000 set by hand (engine)",)
    released = merge(edited, {"engine": {}}, first.record)
    assert released.config == {"debug": False, "mtu": 9000}, "an edited value is theirs, it is not taken away"
    deleted = merge({"debug": True}, {"engine": {}}, first.record)
    assert deleted.config == {"debug": False}


def test_two_contributors_of_one_value():
    both = {"one": {"debug": True, "labels": ["a=b"]}, "two": {"debug": True, "labels": ["a=b"]}}
    merged = merge({}, both, {})
    assert merged.config == {"debug": True, "labels": ["a=b"]}
    assert merged.changes[0] == "debug: true (one, two)"
    half = merge(merged.config, {"one": {}}, merged.record)
    assert half.config == merged.config
    assert merge(half.config, {"two": {}}, half.record).config == {}


@pytest.mark.parametrize(
    ("contributions", "record_of", "said"),
    [
        (
            {"one": {"debug": True}, "two": {"debug": False}},
            {},
            "daemon.json: one wants `debug` to be true, two wants false; give it in one place",
        ),
        (
            {"one": {"features": {"cdi": True}}},
            {"two": {"features": {"cdi": False}}},
            "daemon.json: one wants `features.cdi` to be true, two wants false; give it in one place",
        ),
        (
            {"one": {"builder": "x"}, "two": {"builder": {"gc": {"enabled": True}}}},
            {},
            "daemon.json: one sets `builder`, two sets `builder.gc.enabled`; give it in one place",
        ),
    ],
)
def test_contradictions_are_refused(contributions, record_of, said):
    before = merge({}, record_of, {})
    with pytest.raises(BadInput) as refused:
        merge(before.config, contributions, before.record)
    assert str(refused.value) == said


def test_a_mapping_cannot_be_laid_over_something_else():
    with pytest.raises(BadInput, match="`log-opts` must be a mapping; correct it by hand"):
        merge({"log-opts": []}, {"engine": {"log-opts": {"max-size": "1m"}}}, {})
    with pytest.raises(BadInput, match="`labels` must be a list; correct it by hand"):
        merge({"labels": "a=b"}, {"engine": {"labels": ["c=d"]}}, {})


def test_the_rest_of_the_record_is_kept():
    record = {"pending": {"action": "restart"}, "created": True}
    merged = merge({}, {"engine": {"debug": True}}, record)
    assert {key: merged.record[key] for key in record} == record
    assert merge(merged.config, {"engine": {}}, merged.record).record == record


def tree(rng: random.Random, depth: int = 0) -> dict:
    """Return a mapping with few names, so that trees meet."""
    made: dict = {}
    for name in rng.sample("abc", rng.randint(0, 3)):
        deeper = depth < 2 and name == "a"  # the same place is a mapping in every tree
        made[name] = tree(rng, depth + 1) if deeper else rng.choice([1, True, "x", ["y"], []])
    if depth == 0 and rng.random() < 0.5:
        made["labels"] = rng.sample(["k=1", "l=2", "m=3"], rng.randint(0, 3))
    return made


def test_whatever_is_laid_in_comes_out_again():
    for seed in range(2000):
        rng = random.Random(seed)
        start = tree(rng)
        config, record = start, {}
        for _ in range(rng.randint(1, 5)):
            try:
                merged = merge(config, {rng.choice(["one", "two"]): tree(rng)}, record)
            except BadInput:
                continue  # the two want different things
            config, record = merged.config, json.loads(json.dumps(merged.record))
        merged = merge(config, {"one": {}, "two": {}}, record)
        assert json.dumps(merged.config, sort_keys=True) == json.dumps(start, sort_keys=True), seed
        assert merged.record == {}, seed


def facts(text: str | None = None, **more: object) -> dict:
    return {"path": PATH, "text": text, "error": "", "record": {}, "flags": {}, **more}


@pytest.mark.parametrize(
    ("text", "ours", "version", "action", "why"),
    [
        (None, {}, "26.1.5", "none", ""),
        (None, {"registry-mirrors": ["https://m.test"]}, "26.1.5", "reload", "a reload applies registry-mirrors"),
        ("", {"debug": True, "data-root": "/d"}, "29.8.0", "restart", "only a restart applies data-root"),
        ('{"debug": true}', {"debug": True}, "26.1.5", "none", ""),
        (None, {"log-driver": "local"}, "", "none", "the engine reads the file when it starts"),
        # what an absent key means already
        (None, {"log-driver": "json-file"}, "26.1.5", "none", ""),
    ],
)
def test_what_a_change_will_need(text, ours, version, action, why):
    found = foresee(facts(text), {"engine": ours}, version)
    assert (found["action"], found["why"], found["problems"]) == (action, why, [])
    assert found["changed"] is bool(found["changes"])


def test_an_earlier_change_that_was_not_applied_is_foreseen():
    first = merge({}, {"engine": {"log-driver": "local"}}, {})
    waiting = facts(render(first.config), record={**first.record, "pending": {"action": "restart"}})
    found = foresee(waiting, {"engine": {"log-driver": "local"}}, "26.1.5")
    assert (found["changed"], found["action"]) == (False, "restart")
    assert found["why"] == f"an earlier change of {PATH} still waits for a restart"


def test_problems_are_foreseen():
    assert foresee(facts("{"), {"engine": {}}, "26.1.5")["problems"][0].startswith(f"{PATH}, line 1, column 2: ")
    assert foresee(facts(error="not UTF-8"), {"engine": {}}, "26.1.5")["problems"] == ["not UTF-8"]
    clash = foresee(facts(flags={"dns": "--dns 1.1.1.1 (x.conf)"}), {"engine": {"dns": ["8.8.8.8"]}}, "26.1.5")
    assert clash["problems"][0].startswith(f"`dns` is set in {PATH} and by the flag --dns 1.1.1.1 (x.conf)")
    assert foresee(facts('{"debugg": true}'), {"engine": {}}, "26.1.5")["problems"] == [], "nothing is written"


def test_masked_facts_do_not_look_like_a_change():
    proxies = {"engine": {"proxies": {"http-proxy": "http://me:hidden@proxy.test:3128"}}}
    done = merge({}, proxies, {})
    plain = foresee(facts(render(done.config), record=done.record), proxies, "26.1.5")
    masked = foresee(facts(render(done.config).replace("me:hidden", "********"), record=done.record), proxies, "26.1.5")
    assert plain["changed"] is masked["changed"] is False
    assert "hidden" not in str(foresee(facts(), proxies, "26.1.5"))


def test_the_interim_file_of_an_interrupted_reload_is_not_read_as_the_users():
    record = {"pending": {"action": "reload", "swap": {"interim": '{"dns": []}', "final": None}}}
    assert settled('{"dns": []}', record) == ""
    assert settled('{"dns": ["1.1.1.1"]}', record) == '{"dns": ["1.1.1.1"]}'
    assert foresee(facts('{"dns": []}', record=record), {"engine": {}}, "26.1.5")["changed"] is False
