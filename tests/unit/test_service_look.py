"""Looking at services by their containers alone, with an engine that is a table of answers."""

from __future__ import annotations

import json
import socket
import types

import pytest
from ansible.module_utils.llmfleet import service_look, unit_look
from ansible.module_utils.llmfleet.constants import LABEL_SERVICE, LABEL_SIDE, LABEL_SPEC
from ansible.module_utils.llmfleet.container_look import life
from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.helper_look import helpers
from ansible.module_utils.llmfleet.llm_load_run import Load
from ansible.module_utils.llmfleet.service_look import NONE, Questions, in_containers
from ansible.module_utils.llmfleet.verify import Report
from ansible.module_utils.llmfleet.watch import NotReadyError

SPEC = {
    "name": "chat",
    "engine": "llama_server",
    "served_name": "qwen",
    "image": "llmfleet/llama.cpp:cpu-0",
    "argv": ["--model", "/models/m.gguf"],
    "mounts": {"/models/m.gguf": "/srv/m.gguf"},
    "model_fingerprint": "f0",
    "publish": "127.0.0.1:8080:8080",
    "memory": "",
    "secrets": {},
}


def container(name="chat", status="running", spec=SPEC, label=LABEL_SERVICE, service="chat", **more):
    labels = {label: service, **({LABEL_SPEC: json.dumps(spec)} if spec is not None else {})}
    state = {"Status": status, "Pid": 0, "StartedAt": "2026-01-02T03:04:05.678901Z", "ExitCode": more.pop("code", 0)}
    return {
        "Id": f"id-{name}",
        "Name": f"/{name}",
        "Image": "sha256:0123",
        "RestartCount": 0,
        "Config": {"Labels": labels, "Image": "nginx:1"},
        "State": state,
        "Mounts": [],
        **more,
    }


def engine(*containers, log=""):
    """Return a Docker with these containers."""

    def run(argv, **_):
        verb = argv[1:3]
        if argv[1] == "ps":
            label = argv[-1].partition("=")[2]
            found = [one["Id"] for one in containers if label in one["Config"]["Labels"]]
            return 0, "\n".join(found), ""
        if verb == ["container", "inspect"]:
            return 0, json.dumps([one for one in containers if one["Id"] in argv[3:]]), ""
        if verb == ["image", "inspect"]:
            return 0, json.dumps([{"RepoDigests": ["llama.cpp@sha256:9"]}]), ""
        return (0, log, "") if argv[1] == "logs" else (1, "", "no")

    return Docker(run)


def look(docker, questions):
    return service_look.look(docker, in_containers(docker), questions)


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """Record what is asked of services, all of which answer."""
    calls = types.SimpleNamespace(verified=[], loads=[], error=None)

    def wait_ready(_, spec, endpoint, verify):
        calls.verified.append((spec["name"], endpoint.url, verify.level, verify.timeout))
        if calls.error:
            raise calls.error
        return Report({"token": 0.1})

    def run(url, key, name, load):
        calls.loads.append((url, key, name, load.streams, load.count, load.seconds))
        return {"streams": load.streams, "errors": {}, "requests": 2, "first_token_p50": 0.1}

    monkeypatch.setattr(service_look, "wait_ready", wait_ready)
    monkeypatch.setattr(service_look.llm_load_run, "run", run)
    return calls


def test_a_service_is_told_by_its_container_alone(asked):
    (row,) = look(engine(container()), Questions(patience=3))
    assert (row["answering"], row["verification"]["levels"], row["problem"]) == (True, {"token": 0.1}, "")
    assert (row["urls"]["host"], row["urls"]["lan"]) == ("http://127.0.0.1:8080/v1", None)
    assert (row["served_name"], row["task"], row["has_api_key"]) == ("qwen", "generate", False)
    assert (row["image_id"], row["image_digests"]) == ("sha256:0123", ["llama.cpp@sha256:9"])
    assert row["model"] == {"path": "/srv/m.gguf", "source": "", "digest": "fingerprint:f0"}
    assert asked.verified == [("chat", "http://127.0.0.1:8080", "", 3)]
    assert asked.loads == []


def test_loads_come_one_after_the_other_and_begin_anew(asked):
    (row,) = look(engine(container()), Questions(streams=(1, 4), load=Load(seconds=2)))
    assert [load["streams"] for load in row["loads"]] == [1, 4]
    assert [call[3:] for call in asked.loads] == [(1, 2, 2), (4, 8, 2)]


def test_only_services_that_write_are_put_under_load(asked):
    (row,) = look(engine(container(spec={**SPEC, "task": "embed"})), Questions(streams=(4,)))
    assert (row["task"], row["loads"], asked.loads) == ("embed", [], [])


def test_nothing_is_asked_unless_wanted(asked):
    (row,) = look(engine(container()), Questions(level=NONE, streams=(4,)))
    assert (row["answering"], row["verification"], asked.verified, asked.loads) == (None, None, [], [])


def test_the_key_is_read_from_the_file_that_the_container_has(asked, tmp_path):
    (tmp_path / "key").write_text("secret\nsecret\n")
    mounts = [{"Destination": "/run/llmfleet/api_key", "Source": str(tmp_path / "key")}]
    one = container(spec={**SPEC, "secrets": {"api_key": "digest"}}, Mounts=mounts)
    (row,) = look(engine(one), Questions(streams=(1,)))
    assert row["has_api_key"]
    assert asked.loads[0][1] == "secret"
    assert "secret" not in json.dumps(row)


def test_one_that_does_not_answer_says_why(asked):
    diagnosis = {"cause": "not ready after 5 s", "evidence": "still loading", "fix": "wait"}
    asked.error = NotReadyError(diagnosis, report=Report({"process": 0.1}))
    (row,) = look(engine(container()), Questions(streams=(4,)))
    assert (row["answering"], row["problem"], row["fix"]) == (False, "not ready after 5 s (still loading)", "wait")
    assert (row["verification"]["levels"], asked.loads) == ({"process": 0.1}, [])


@pytest.mark.parametrize(
    ("fix", "said"),
    [
        ("see log_tail", "see docker logs chat"),
        ("see log_tail; raise verify.timeout if the host is just slow", "wait and look again (docker logs chat says"),
    ],
)
def test_the_fix_is_for_somebody_who_has_launched_nothing(asked, fix, said):
    asked.error = NotReadyError({"cause": "not ready after 5 s", "evidence": "still loading", "fix": fix})
    (row,) = look(engine(container()), Questions())
    assert row["fix"].startswith(said)


@pytest.mark.parametrize("code", [0, 137, 143])
def test_one_that_was_stopped_is_no_problem(asked, code):
    (row,) = look(engine(container(status="exited", code=code)), Questions())
    assert (row["answering"], row["problem"], row["uptime_seconds"]) == (False, "", None)
    assert asked.verified == []


def test_one_that_ended_by_itself_is_explained():
    log = "gguf_init_from_file: failed to open GGUF file '/models/m.gguf' (No such file or directory)"
    (row,) = look(engine(container(status="exited", code=1), log=log), Questions())
    assert "/models/m.gguf" in row["problem"]
    assert row["fix"]


def test_a_death_for_want_of_memory_is_no_stop():
    one = container(status="exited", code=137)
    one["State"]["OOMKilled"] = True
    (row,) = look(engine(one), Questions())
    assert "memory limit" in row["problem"]


@pytest.mark.parametrize("spec", [None, {**SPEC, "engine": "of tomorrow"}])
def test_a_container_that_cannot_be_read_is_a_row_all_the_same(asked, spec):
    (row,) = look(engine(container(spec=spec)), Questions())
    assert "no specification that can be read" in row["problem"]
    assert asked.verified == []


def test_what_an_interrupted_roll_out_left_is_not_a_second_service():
    previous = container("chat.previous", "exited")
    (row,) = look(engine(previous, container()), Questions())
    assert row["container"] == "chat"
    (row,) = look(engine(previous), Questions())
    assert (row["name"], row["container"]) == ("chat", "chat.previous")


@pytest.mark.parametrize(
    ("answer", "lan", "problem"),
    [
        ((200, ""), "http://192.0.2.9:8080/v1", ""),
        ((502, ""), None, "http://192.0.2.9:8080/v1 does not work: it says HTTP 502"),
        (OSError("timed out"), None, "http://192.0.2.9:8080/v1 does not work: timed out"),
    ],
)
def test_an_address_for_others_is_tried(monkeypatch, answer, lan, problem):
    def get(*_, **__):
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(
        service_look, "urls_of", lambda *_: {"host": "http://127.0.0.1:8080/v1", "lan": "http://192.0.2.9:8080/v1"}
    )
    monkeypatch.setattr(service_look.Endpoint, "get", get)
    (row,) = look(engine(container(spec={**SPEC, "publish": "0.0.0.0:8080:8080"})), Questions())
    assert (row["urls"]["lan"], row["problem"], row["answering"]) == (lan, problem, True)


@pytest.mark.parametrize(
    ("publish", "host"), [("[::1]:8080:80", "http://[::1]:8080/v1"), ("127.0.0.1:9:80", "http://127.0.0.1:9/v1")]
)
def test_the_address_is_what_was_published(publish, host):
    (row,) = look(engine(container(spec={**SPEC, "publish": publish})), Questions())
    assert row["urls"]["host"] == host


def helper(tmp_path, *listens, **more):
    """Return the container of a helper that was accepted on these addresses."""
    (tmp_path / "files").mkdir()
    (tmp_path / "record.json").write_text(json.dumps({"listens": listens}))
    mounts = [{"Destination": "/files", "Source": str(tmp_path / "files")}]
    return container("gw", label=LABEL_SIDE, service="gateway", spec=None, Mounts=mounts, **more)


def test_helpers_are_those_with_a_label_of_their_own(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (row,) = helpers(engine(helper(tmp_path, f"127.0.0.1 {port}"), container()))
    assert (row["name"], row["state"], row["image"], row["memory_bytes"]) == ("gateway", "running", "nginx:1", None)
    assert (row["addresses"], row["problem"]) == ([f"127.0.0.1:{port}"], "")


def test_a_helper_that_does_not_answer_is_a_problem(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (row,) = helpers(engine(helper(tmp_path, f"127.0.0.1 {port}")))
    assert row["addresses"] == []
    assert f"nothing answers at 127.0.0.1:{port}" in row["problem"]


@pytest.mark.parametrize(
    ("status", "code", "problem"),
    [("exited", 0, ""), ("exited", 1, "it is exited; docker logs gw says why"), ("restarting", 0, "it is restarting")],
)
def test_a_helper_that_does_not_run_is_a_problem_unless_it_was_stopped(tmp_path, status, code, problem):
    (row,) = helpers(engine(helper(tmp_path, "127.0.0.1 1", status=status, code=code)))
    assert row["problem"].startswith(problem)
    assert bool(row["problem"]) == bool(problem)


def test_a_helper_without_a_record_has_no_addresses(tmp_path):
    one = helper(tmp_path)
    (tmp_path / "record.json").write_text("[]")
    assert helpers(engine(one))[0]["addresses"] == []


def test_only_what_was_named_is_looked_at(asked):
    both = engine(container(), container("other", service="other", spec={**SPEC, "name": "other"}))
    assert [row["name"] for row in look(both, Questions(names=("other",)))] == ["other"]
    assert [call[0] for call in asked.verified] == ["other"]


def test_one_that_is_taken_away_meanwhile_does_not_hide_the_others(asked):
    asked.error = DockerError("docker container inspect failed")
    (row,) = look(engine(container()), Questions())
    assert (row["answering"], row["problem"]) == (False, "docker container inspect failed")


def test_a_life_is_counted_from_its_start():
    row = life(container(), now=1767323045 + 90)
    assert (row["started_at"], row["uptime_seconds"]) == ("2026-01-02T03:04:05Z", 90)


UNIT_SPEC = {
    **{key: value for key, value in SPEC.items() if key not in ("mounts", "image")},
    "name": "q",
    "engine": "vllm",
    "runtime": "venv",
    "argv": ["/bin/sh", "-c", 'cat "$0"', "sh", "/opt/v/bin/vllm", "serve", "/srv/hub/q"],
    "secrets": {"api_key": "digest"},
}


def systemctl(argv, **_):
    """Answer as a host does whose unit has run since some time and was started again twice."""
    if "--value" in argv:
        return 0, "42\n", ""
    said = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "2"}
    return (
        0,
        "\n".join(f"{key}={value}" for key, value in said.items()) + "\nExecMainStartTimestampMonotonic=1000000",
        "",
    )


def test_a_service_of_systemd_is_told_in_the_same_words(asked, tmp_path):
    secrets = tmp_path / "services" / "q" / "0a1b"
    secrets.mkdir(parents=True)
    (secrets / "api_key").write_text("secret\n")
    text = f'[Service]\nExecStart="/bin/sh" "-c" "cat {secrets}/api_key"\nSpec={json.dumps(UNIT_SPEC)}\n'
    (tmp_path / "llmfleet-vllm-q.service").write_text(text)
    (tmp_path / "other.service").write_text("[Service]\n")
    found = unit_look.in_units(systemctl, str(tmp_path))
    (row,) = service_look.look(engine(), found, Questions(streams=(1,)))
    assert (row["name"], row["container"], row["runtime"]) == ("q", "llmfleet-vllm-q.service", "venv")
    assert (row["state"], row["restarts"], row["answering"]) == ("running", 2, True)
    assert row["model"]["path"] == "/srv/hub/q"
    assert asked.verified == [("q", "http://127.0.0.1:8080", "", 5)]
    assert asked.loads[0][1] == "secret"


def test_a_unit_that_cannot_be_read_is_a_row_all_the_same(tmp_path):
    (tmp_path / "llmfleet-vllm-q.service").write_text("[Service]\n")
    found = unit_look.in_units(systemctl, str(tmp_path))
    (row,) = service_look.look(engine(), found, Questions())
    assert row["name"] == "q"
    assert "no specification that can be read" in row["problem"]
