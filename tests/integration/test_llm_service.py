"""The life of a service on the real engine with the real llama-server."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import textwrap
import time

import pytest
from helpers import docker, free_port, run_module, running, start_module

KEY = "first-key-0123456789"
FAILS_AT_START = ["--override-kv", "tokenizer.ggml.model=str:nope"]
"""Arguments that the engine takes, and then cannot start with."""


@pytest.fixture
def service(request, tmp_path, image, tiny):
    """Return a function that runs llm_service for one service of this test; everything is removed afterwards."""
    name = f"test-{abs(hash(request.node.nodeid)) % 10**8}"
    port = free_port()

    def run(*, key="", model=tiny, check=False, docker_cli="docker", background=False, **fields):
        run = start_module if background else run_module
        return run(
            "llm_service",
            {
                "service": {"name": name, "model": str(model), "port": port, "context_length": 512, **fields},
                "api_key": key,
                "image": image,
                "model_path": str(model),
                "directory": str(tmp_path / "services"),
                "docker_cli": docker_cli,
            },
            check=check,
        )

    run.name, run.port, run.directory = name, port, tmp_path / "services" / name
    yield run
    for suffix in ("", ".previous", ".next"):
        subprocess.run(["docker", "rm", "-f", name + suffix], capture_output=True, check=False)


def answers(service, key=""):
    """Whether the service answers a prompt through its published port."""
    result = run_module(
        "llm_health", {"url": f"http://127.0.0.1:{service.port}", "served_name": service.name, "api_key": key}
    )
    return not result.get("failed")


def container_id(name):
    return docker("container", "inspect", "-f", "{{.Id}}", name).strip()


def restart_policy(name):
    return docker("container", "inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", name).strip()


def test_launch_check_repeat_change_stop_remove(service):
    would = service(check=True)
    assert (would["changed"], would["action"]) == (True, "create")
    assert not running(service.name)

    launched = service()
    assert (launched["changed"], launched["action"]) == (True, "create"), launched
    assert list(launched["verification"]["levels"]) == ["process", "http", "model", "token"]
    assert launched["verification"]["reply"]
    assert launched["urls"] == {"host": f"http://127.0.0.1:{service.port}/v1", "lan": None}

    first = container_id(service.name)
    same = service()
    assert (same["changed"], same["action"]) == (False, "keep")
    assert same["verification"]["levels"]["token"]
    assert not service(check=True)["changed"]
    assert container_id(service.name) == first

    would = service(context_length=256, check=True)
    assert (would["changed"], would["why"]) == (True, "argv: --ctx-size 512 -> --ctx-size 256")
    assert would["diff"]["before"] != would["diff"]["after"]
    assert container_id(service.name) == first

    changed = service(context_length=256)
    assert (changed["changed"], changed["action"]) == (True, "replace")
    assert container_id(service.name) != first
    assert not docker("ps", "-aq", "--filter", f"name={service.name}.previous")

    assert service(context_length=256, state="stopped")["changed"]
    assert not service(context_length=256, state="stopped")["changed"]
    assert not running(service.name)
    restarted = service(context_length=256)
    assert (restarted["changed"], restarted["action"]) == (True, "start")

    assert service(state="absent")["changed"]
    assert not service(state="absent")["changed"]
    assert not docker("ps", "-aq", "--filter", f"name={service.name}")


def test_the_container_is_confined(service):
    service(key=KEY, memory="1g")
    found = json.loads(docker("container", "inspect", service.name))[0]
    host = found["HostConfig"]
    assert found["Config"]["User"] == "10001:10001"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"] == {"max-size": "50m", "max-file": "3"}
    assert host["Memory"] == host["MemorySwap"] == 1 << 30
    assert all(not mount["RW"] for mount in found["Mounts"])
    # the key is in no place that docker inspect or the log shows, and only the engine's user reads its file
    assert KEY not in json.dumps(found)
    assert KEY not in docker("logs", service.name)
    (key_file,) = service.directory.glob("*/api_key")
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o400
    assert key_file.stat().st_uid == 10001


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (["--no-such-flag"], "llama-server does not know the argument --no-such-flag"),
        (["--keep", "some"], "llama-server refuses the value of --keep (stoi)"),
    ],
)
def test_a_bad_argument_never_reaches_the_running_service(service, args, cause):
    service(key=KEY)
    before = json.loads(docker("container", "inspect", service.name))[0]
    failed = service(key=KEY, args=args)
    assert failed["failed"]
    assert (failed["changed"], failed["rolled_back"]) == (False, False)
    assert failed["diagnosis"]["cause"] == cause
    assert failed["msg"].endswith("What runs now serves on as before")
    after = json.loads(docker("container", "inspect", service.name))[0]
    assert (after["Id"], after["State"]) == (before["Id"], before["State"])
    assert len(list(service.directory.iterdir())) == 1
    assert not docker("ps", "--all", "--quiet", "--filter", f"name={service.name}.next")
    assert not service(key=KEY)["changed"]


def test_what_only_the_start_shows_is_rolled_back_and_the_old_service_answers(service):
    service()
    failed = service(args=FAILS_AT_START)
    assert failed["failed"]
    assert failed["rolled_back"]
    assert "The previous container is back and verified" in failed["msg"]
    assert failed["previous_verification"]["levels"]["token"]
    assert answers(service)
    assert not service()["changed"]
    assert restart_policy(service.name) == "unless-stopped"


def test_a_first_launch_that_fails_leaves_nothing_behind(service):
    failed = service(args=["--no-such-flag"])
    assert failed["failed"]
    assert not failed["rolled_back"]
    assert failed["log_tail"]
    assert not docker("ps", "-aq", "--filter", f"name={service.name}")


def test_a_corrupt_model_is_refused_before_the_old_service_is_touched(service, tmp_path):
    service()
    first = container_id(service.name)
    corrupt = tmp_path / "corrupt.gguf"
    corrupt.write_bytes(b"<!doctype html>" + bytes(1000))
    failed = service(model=corrupt)
    assert failed["failed"]
    assert str(corrupt) in failed["msg"]
    missing = service(model=tmp_path / "missing.gguf")
    assert missing["failed"]
    assert "missing.gguf" in missing["msg"]
    assert container_id(service.name) == first
    assert answers(service)


def test_a_model_that_only_the_engine_finds_broken_is_rolled_back(service, tmp_path, tiny):
    """The header is whole, so only llama-server notices: an architecture it does not know."""
    service()
    strange = tmp_path / "strange.gguf"
    # same length, so every offset stays right
    strange.write_bytes(tiny.read_bytes().replace(b"llama", b"zzzzz"))
    failed = service(model=strange)
    assert failed["rolled_back"], failed
    assert "architecture zzzzz" in failed["diagnosis"]["cause"]
    assert answers(service)


def test_a_taken_port_is_named_before_anything_changes(service):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        failed = service(port=taken)
        assert failed["failed"]
        assert f"port {taken} on 127.0.0.1 is taken" in failed["msg"]
        service()
        first = container_id(service.name)
        assert service(port=taken)["failed"]
        assert container_id(service.name) == first
        assert answers(service)


def test_a_foreign_container_of_the_same_name_is_left_alone(service, image):
    docker("create", "--name", service.name, image)
    for state in ("started", "stopped", "absent"):
        failed = service(state=state)
        assert failed["failed"]
        assert "that llmfleet did not make" in failed["msg"]
    assert container_id(service.name)


def test_a_killed_container_is_brought_back(service):
    service()
    # docker kill counts as a manual stop, so the restart policy does not bring it back
    docker("kill", service.name)
    again = service()
    assert (again["changed"], again["action"]) == (True, "start")
    assert answers(service)


def test_a_frozen_service_is_restarted(service):
    service()
    docker("pause", service.name)
    again = service()
    assert (again["changed"], again["action"]) == (True, "start")
    assert answers(service)


def test_the_key_is_required_and_a_wrong_one_is_named(service):
    service(key=KEY)
    assert answers(service, KEY)
    refused = run_module(
        "llm_health",
        {"url": f"http://127.0.0.1:{service.port}", "served_name": service.name, "api_key": "wrong"},
    )
    assert refused["failed"]
    assert "refuses the API key" in refused["msg"]


def test_a_changed_key_is_a_new_specification_and_the_old_file_goes(service):
    service(key=KEY)
    changed = service(key="second-key-0123456789")
    assert (changed["action"], changed["why"]) == ("replace", "api_key: changed")
    assert answers(service, "second-key-0123456789")
    assert not answers(service, KEY)
    assert len(list(service.directory.glob("*/api_key"))) == 1


def test_the_old_key_returns_with_the_old_container(service):
    service(key=KEY)
    failed = service(key="second-key-0123456789", args=FAILS_AT_START)
    assert failed["rolled_back"]
    assert answers(service, KEY)
    assert not answers(service, "second-key-0123456789")
    assert not service(key=KEY)["changed"]
    assert len(list(service.directory.glob("*/api_key"))) == 1


def test_a_memory_limit_that_is_hit_is_explained(service, big_model):
    failed = service(model=big_model, memory="40m", load_mode="none")
    assert failed["failed"]
    assert "memory" in failed["diagnosis"]["cause"], failed


def test_a_missed_speed_floor_and_answer_are_rolled_back(service):
    service()
    slow = service(context_length=256, verify={"min_tokens_per_second": 1e9})
    assert slow["rolled_back"]
    assert "below the floor" in slow["msg"]
    wrong = service(context_length=256, verify={"answer": "forty-two"})
    assert wrong["rolled_back"]
    assert "does not contain 'forty-two'" in wrong["msg"]
    assert answers(service)


def interrupt(service, tmp_path, verb, **fields):
    """Run a roll-out whose docker client stops at ``verb``, kill the module there, and leave what it left."""
    reached = tmp_path / "reached"
    wrapper = tmp_path / "docker-wrapper"
    wrapper.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        case "$*" in "{verb}"*) touch {reached}; exec sleep 60;; esac
        exec docker "$@"
        """)
    )
    wrapper.chmod(0o755)
    process = service(docker_cli=str(wrapper), background=True, **fields)
    deadline = time.monotonic() + 60
    while not reached.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


# where the hand-over stops: before the old container is renamed, before it is stopped, before its policy is
# updated, before the new one has the name, before it is started, before the old one is removed
@pytest.mark.parametrize(
    "verb", ["rename", "stop", "update", "rename {name}.next", "start {name}", "rm --force {name}.previous"]
)
def test_an_interrupted_hand_over_is_finished_by_the_next_run(service, tmp_path, verb):
    service(key=KEY)
    interrupt(service, tmp_path, verb.format(name=service.name), key="second-key-0123456789")
    finished = service(key="second-key-0123456789")
    assert finished["changed"], finished
    assert answers(service, "second-key-0123456789")
    assert docker("ps", "-a", "--filter", f"name={service.name}", "--format", "{{.Names}}").split() == [service.name]
    assert not service(key="second-key-0123456789")["changed"]
    assert len(list(service.directory.glob("*/api_key"))) == 1


@pytest.mark.parametrize("verb", ["rename {name}.next", "start {name}"])
def test_an_interrupted_hand_over_is_undone_when_the_old_service_is_wanted_again(service, tmp_path, verb):
    service(key=KEY)
    first = container_id(service.name)
    interrupt(service, tmp_path, verb.format(name=service.name), key="second-key-0123456789")
    restored = service(key=KEY)
    assert (restored["changed"], restored["action"]) == (True, "restore")
    assert container_id(service.name) == first
    assert answers(service, KEY)
    assert restart_policy(service.name) == "unless-stopped"


def test_an_interrupted_hand_over_is_undone_by_stopping_the_service(service, tmp_path):
    service(key=KEY)
    first = container_id(service.name)
    interrupt(service, tmp_path, f"rename {service.name}.next", key="second-key-0123456789")
    assert service(key=KEY, state="stopped")["action"] == "stop"
    assert container_id(service.name) == first
    assert not running(service.name)
    assert restart_policy(service.name) == "unless-stopped"
    assert service(key=KEY)["action"] == "start"
    assert answers(service, KEY)


def test_an_interrupted_roll_out_that_then_fails_still_returns_to_the_old_service(service, tmp_path):
    service(key=KEY)
    interrupt(service, tmp_path, f"rename {service.name}.next", key="second-key-0123456789", args=FAILS_AT_START)
    failed = service(key="second-key-0123456789", args=FAILS_AT_START)
    assert failed["rolled_back"], failed
    assert answers(service, KEY)
