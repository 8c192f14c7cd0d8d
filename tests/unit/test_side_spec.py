"""Helper containers: what is refused, what docker is told, and what a difference leads to."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.lifecycle import Seen
from ansible.module_utils.llmfleet.side import parts
from ansible.module_utils.llmfleet.side import spec as side_spec
from ansible.module_utils.llmfleet.side.keeper import decide_side
from asked_side import HOME, given, side


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "Proxy"}, "no name of a container"),
        ({"name": "a.next"}, "no name of a container"),
        ({"image": ""}, "`image` is needed"),
        ({"files": [{"path": "a", "content": "x"}]}, "`files_target`"),
        ({"user": "nobody"}, "not of the form uid:gid"),
        ({"network": "host", "publish": ["127.0.0.1:1:1"]}, "listens on the host itself"),
        ({"reload_signal": "--all"}, "no name of a signal"),
        ({"publish": ["80:80"]}, "not an address and a port"),
        ({"listens": ["localhost:80"]}, "not an address and a port"),
        ({"files_target": "/f", "files": [{"path": "../a", "content": "x"}]}, "not a relative path"),
        ({"files_target": "/f", "files": [{"path": "/a", "content": "x"}]}, "not a relative path"),
        ({"files_target": "/f", "files": [{"path": "a", "content": "x", "mode": "rw"}]}, "mode 'rw' of a"),
        ({"files_target": "/f", "files": [{"path": "a", "content": "x"}] * 2}, "named twice"),
        ({"volumes": [{"source": "data", "target": "/d"}]}, "not absolute"),
        ({"volumes": [{"source": "/", "target": "/d"}]}, "not absolute"),
        ({"volumes": [{"source": "/srv/../etc", "target": "/d"}]}, "not absolute"),
        ({"volumes": [{"source": "/srv/side", "target": "/d"}]}, "would hold what this module keeps"),
        ({"volumes": [{"source": f"{HOME}/files/a", "target": "/d"}]}, "would hold what this module keeps"),
        ({"health": {"url": "unix:/x"}}, "no http or https URL"),
    ],
)
def test_what_cannot_be_is_refused_by_one_sentence(fields, words):
    with pytest.raises(BadInput) as error:
        side(**fields)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_going_needs_nothing_but_a_name():
    assert parts.parse(given(state="absent", image="", user="nobody"), HOME).name == "proxy"
    with pytest.raises(BadInput):
        parts.parse(given(state="absent", name="../etc"), HOME)


def test_docker_is_told_to_confine_it():
    asked = side(
        argv=["-c", "/f/a"],
        entrypoint="nginx",
        env={"B": 1, "A": "x y"},
        files=[{"path": "a", "content": "a secret"}],
        files_target="/f",
        volumes=[{"source": f"{HOME}/data", "target": "/d"}],
        publish=["[::1]:8080:80"],
        caps=["NET_BIND_SERVICE"],
        memory="64m",
    )
    assert asked.listens == (("::1", 8080),)
    spec = side_spec.build(asked, "sha256:1")
    assert "a secret" not in json.dumps(spec)
    argv = side_spec.create_argv(spec, "proxy.next", f"{HOME}/files")
    text = " ".join(argv)
    for words in (
        "--user 10001:10001",
        "--network bridge",
        "--cap-drop ALL --security-opt no-new-privileges",
        "--read-only",
        "--cap-add NET_BIND_SERVICE",
        "--memory 64m --memory-swap 64m",
        "--publish [::1]:8080:80",
        "--env A=x y --env B=1",
        f"--mount type=bind,src={HOME}/data,dst=/d ",
        f"--mount type=bind,src={HOME}/files,dst=/f,readonly",
        "--entrypoint nginx",
    ):
        assert words in text
    assert argv[-3:] == ["i:1", "-c", "/f/a"]
    looked = side_spec.check_argv(spec, "proxy.check", ["nginx", "-t"], "/new")
    assert looked[:6] == ["run", "--rm", "--name", "proxy.check", "--pull", "never"]
    assert f"type=bind,src={HOME}/data,dst=/d,readonly" in looked
    assert "type=bind,src=/new,dst=/f,readonly" in looked
    assert "--publish" not in looked
    assert looked[-4:] == ["--entrypoint", "nginx", "i:1", "-t"]
    assert "--read-only" not in side_spec.create_argv(side_spec.build(side(read_only=False), ""), "x", "")


def test_only_files_that_differ_make_no_new_container():
    spec = side_spec.build(side(), "sha256:1")
    alive, dead = Seen(spec, "running"), Seen(spec, "exited")

    def action(current, files, wanted=spec, previous=None, state="started", had=(), **fields):
        found = decide_side(side(**fields), state, current, previous, wanted, files, had)
        return found.action

    assert action(alive, "") == "keep"
    assert action(alive, "files: a", reload_signal="HUP") == "reload"
    assert action(alive, "files: a") == "restart"
    assert action(alive, "files: a", reload_signal="HUP", listens=["127.0.0.1:80"], had=["127.0.0.1 80"]) == "reload"
    assert action(alive, "files: a", reload_signal="HUP", listens=["127.0.0.1:81"], had=["127.0.0.1 80"]) == "reload"
    # it would be in its own way
    assert action(alive, "files: a", reload_signal="HUP", listens=["0.0.0.0:80"], had=["127.0.0.1 80"]) == "restart"
    assert action(dead, "files: a", reload_signal="HUP") == "start"
    assert action(None, "files: a") == "create"
    other = side_spec.build(side(memory="1g"), "sha256:1")
    assert action(alive, "files: a", wanted=other, reload_signal="HUP") == "replace"
    assert action(None, "", previous=alive) == "restore"
    assert action(alive, "files: a", state="absent", wanted=None) == "remove"
