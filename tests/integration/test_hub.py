"""Models of hubs in processes of their own: killed, two at once, on a full disk; then served by the real engine."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import tiny_gguf
from helpers import free_port, run_module, start_module

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
from hub_server import Hub

MIB = 1 << 20
BLOCK = 4 * MIB
"""What may be fetched again per connection after a kill."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def repos(tmp_path):
    top = tmp_path / "repos"
    (top / "org/tiny").mkdir(parents=True)
    with (top / "org/tiny/tiny-Q8_0.gguf").open("wb") as file:
        tiny_gguf.write(file)
    # what follows the tensors is no business of engines, and makes the file large
    (top / "org/big").mkdir()
    with (top / "org/big/big-Q8_0.gguf").open("wb") as file:
        tiny_gguf.write(file, layers=1, dim=32)
        file.write(random.Random(1).randbytes(40 * MIB))
    return top


@pytest.fixture
def hub(repos):
    with Hub(repos) as running:
        yield running


@pytest.fixture
def store(tmp_path):
    return tmp_path / "models"


def arguments(hub, store, model="org/big", **more):
    return {"model": model, "sources": [hub.url], "dest": str(store), "connections": 4, "timeout": 5, **more}


def visible(store):
    """Return the files that engines and other tools could find."""
    return sorted(path.name for path in store.glob("hub/*/snapshots/*/*"))


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_killed_run_is_continued(hub, store):
    slow = hub.fault("*.gguf", slow=8 * MIB, times=-1)
    killed = start_module("model_fetch", arguments(hub, store))
    wait_for(lambda: sum(row["bytes"] for row in hub.requests("cdn")) > 20 * MIB)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert visible(store) == []
    slow.times = 0
    wait_for(lambda: all(row["status"] for row in list(hub.log)))
    hub.reset()
    done = run_module("model_fetch", arguments(hub, store))
    assert done["action"] == "download", done
    size = done["size"]
    # what was on its way is lost, at most a block per connection beyond what had been received
    assert done["bytes_fetched"] <= size - 20 * MIB + 4 * BLOCK
    assert Path(done["path"]).read_bytes() == (hub.root / "org/big/big-Q8_0.gguf").read_bytes()
    hub.reset()
    assert not run_module("model_fetch", arguments(hub, store))["changed"]
    assert hub.log == []


def test_two_processes_at_once(hub, store):
    hub.fault("*.gguf", slow=30 * MIB, times=-1)
    runs = [start_module("model_fetch", arguments(hub, store)) for _ in range(2)]
    results = [json.loads(run.communicate()[0].splitlines()[-1]) for run in runs]
    assert sorted(result["action"] for result in results) == ["download", "keep"], results
    assert sum(row["bytes"] for row in hub.requests("cdn")) == results[0]["size"]
    assert visible(store) == ["big-Q8_0.gguf"]


def test_a_process_that_cannot_wait_names_the_other(hub, store):
    slow = hub.fault("*.gguf", slow=1 * MIB, times=-1)
    first = start_module("model_fetch", arguments(hub, store))
    wait_for(lambda: hub.requests("cdn"))
    second = run_module("model_fetch", arguments(hub, store, lock_timeout=0))
    assert f"process {first.pid} is bringing files of org/big" in second["msg"]
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    slow.times = 0
    assert run_module("model_fetch", arguments(hub, store))["changed"]


@contextmanager
def small_disk(folder, size):
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting needs more rights than this user has")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_too_small_is_noticed_first(hub, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, 30 * MIB):
        answer = run_module("model_fetch", arguments(hub, disk / "models"))
        assert "free" in answer["msg"]
        assert hub.requests("cdn") == []
        assert visible(disk / "models") == []


def test_a_disk_that_fills_up_keeps_what_came(hub, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, 45 * MIB):
        slow = hub.fault("*.gguf", slow=2 * MIB, times=-1)
        run = start_module("model_fetch", arguments(hub, disk / "models"))
        wait_for(lambda: sum(row["bytes"] for row in hub.requests("cdn")) > 5 * MIB)
        (disk / "other").write_bytes(bytes(25 * MIB))
        answer = json.loads(run.communicate()[0].splitlines()[-1])
        assert answer["failed"]
        assert "No space left" in answer["msg"] or "full" in answer["msg"], answer
        assert "\n" not in answer["msg"]
        assert visible(disk / "models") == []
        (disk / "other").unlink()
        slow.times = 0
        again = run_module("model_fetch", arguments(hub, disk / "models"))
        assert again["action"] == "download", again
        assert again["bytes_fetched"] < again["size"]


def test_the_real_engine_serves_what_was_fetched(hub, store, tmp_path, image):
    name, port = f"test-hub-{os.getpid()}", free_port()
    # engines are another user
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    fetched = run_module("model_fetch", arguments(hub, store, "org/tiny:Q8_0"))
    assert fetched["action"] == "download", fetched
    service = {
        "service": {"name": name, "model": "org/tiny:Q8_0", "port": port, "context_length": 512},
        "image": image,
        "model_path": fetched["path"],
        "directory": str(tmp_path / "services"),
    }
    try:
        launched = run_module("llm_service", service)
        assert launched.get("action") == "create", launched
        assert launched["verification"]["reply"]
        again = run_module("model_fetch", arguments(hub, store, "org/tiny:Q8_0"))
        assert not again["changed"]
        assert run_module("llm_service", service)["action"] == "keep"
    finally:
        run_module("llm_service", {**service, "service": {**service["service"], "state": "absent"}})
