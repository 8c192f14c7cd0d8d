"""What a plan says of images that will not be seen any more, and of mirrors that will not be read."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet import daemon_json
from ansible.module_utils.llmfleet.engine_storage import hidden, unread
from facts import host

HOSTS = {"ghcr.io": ["https://ghcr.invalid"]}


def engine(store=False, **changes):
    return {**host("ce")["docker"], "server_version": "28.5.2", "containerd_store": store, **changes}


def store(on):
    return {} if on is None else {"features": {"containerd-snapshotter": on}}


@pytest.mark.parametrize(
    ("before", "options", "words"),
    [
        (False, store(True), "changes its image store"),
        (True, store(False), "changes its image store"),
        (True, store(None), "changes its image store"),
        (False, store(False), ""),
        (True, {**store(True), "debug": True}, ""),
        (False, {"features": {"cdi": True}}, ""),
        (False, {"data-root": "/data/docker"}, "images and containers in /var/lib/docker are not seen any more"),
        (False, {"data-root": "/var/lib/docker/"}, ""),
    ],
)
def test_storage_that_changes_hides_what_is_there(before, options, words):
    done = daemon_json.merge({}, {"docker_engine": store(before)}, {})
    daemon = {"text": daemon_json.render(done.config, ""), "record": done.record}
    keys = daemon_json.foresee(daemon, {"docker_engine": options}, "28.5.2")["keys"]
    warnings = hidden(engine(before), options, keys)
    assert len(warnings) == bool(words)
    assert words in "".join(warnings)


@pytest.mark.parametrize("options", [store(True), {"features": "cdi"}])
def test_an_engine_that_does_not_run_hides_nothing(options):
    assert hidden(engine(reachable=False), options, ["features.containerd-snapshotter"]) == []


@pytest.mark.parametrize(
    ("now", "options", "changes", "words"),
    [
        (False, store(None), False, "only with the containerd image store; builds use them"),
        (True, store(None), False, ""),
        (False, store(True), True, ""),
        (True, store(False), True, "only with the containerd image store; builds use them"),
        (True, store(None), True, "only with the containerd image store; builds use them"),
    ],
)
def test_hosts_toml_is_held_against_the_store_to_come(now, options, changes, words):
    keys = ["features.containerd-snapshotter"] if changes else []
    said = unread(engine(now), options, keys, HOSTS)
    assert len(said) == bool(words)
    assert words in "".join(said)
