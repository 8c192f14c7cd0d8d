"""One host fetches a model from a hub, the others from it and from each other: modules as Ansible runs them.

Hosts are directories of this machine; the hub is the stand-in, whose log says who asked it for what.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import model_share
import pytest
from ansible.module_utils.llmfleet import chunk_in_place, chunk_server, tiny_gguf
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub import swarm
from ansible.module_utils.llmfleet.hub.manifest import manifest_from
from ansible.module_utils.llmfleet.hub.place import Place
from ansible.module_utils.llmfleet.image_peers import spread
from helpers import run_module, start_module

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
from hub_server import Hub

MODEL = "org/tiny:Q8_0"
MIB = 1 << 20
Data = dict[str, t.Any]


class Slow:
    """A TCP proxy that counts what comes from ``target`` and lets ``rate`` bytes/s through; -1 is all, 0 nothing."""

    def __init__(self, url: str, rate: float = -1) -> None:
        address, _, token = url.partition("//")[2].partition("/")
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.urls = [f"http://127.0.0.1:{self._listener.getsockname()[1]}/{token}"]
        self.rate = rate
        self.count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                for source, sink, counted in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass, args=(source, sink, counted), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(1 << 16):
                while counted and self.rate == 0:
                    time.sleep(0.05)
                if counted and self.rate > 0:
                    time.sleep(len(data) / self.rate)
                sink.sendall(data)
                self.count += len(data) if counted else 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def good(result: Data) -> Data:
    assert not result.get("failed"), result.get("msg")
    return result


class Fleet:
    """Hosts by name; "a" has been there before."""

    def __init__(self, folder: Path, hub: Hub, dests: t.Mapping[str, str]) -> None:
        self.hub = hub
        self._folder = folder
        self._dests = dict(dests)

    def dest(self, name: str) -> str:
        return self._dests.setdefault(name, str(self._folder / name))

    def fetch_arguments(self, name: str, **more: t.Any) -> Data:
        return {"model": MODEL, "dest": self.dest(name), "sources": [self.hub.url], "timeout": 3, **more}

    def fetch(self, name: str, **more: t.Any) -> Data:
        return run_module("model_fetch", self.fetch_arguments(name, **more))

    def share(self, name: str, manifest: Data, **more: t.Any) -> Data:
        arguments = {"manifest": manifest, "dest": self.dest(name), "bind": "127.0.0.1", "idle_timeout": 120, **more}
        return good(run_module("model_share", arguments))

    def stop(self, *but: str) -> None:
        for name, dest in self._dests.items():
            if name not in but and os.path.isdir(dest):
                model_share.stop({"manifest": {}, "dest": dest}, check_mode=False)

    def path(self, name: str, fetched: Data) -> Path:
        return Path(fetched["path"].replace(self.dest("a"), self.dest(name), 1))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Hub]:
    """A hub with one repository, whose model has several chunks."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "org" / "tiny"
    folder.mkdir(parents=True)
    with (folder / "tiny-Q8_0.gguf").open("wb") as file:
        tiny_gguf.write(file, layers=6, dim=512)
    assert (folder / "tiny-Q8_0.gguf").stat().st_size > 48 * MIB
    with Hub(root) as hub:
        yield hub


class Leader(t.NamedTuple):
    """The host that has the model: what it fetched, and its share."""

    fetched: Data
    share: Data
    dest: str

    @property
    def given(self) -> Data:
        return {"manifest": self.fetched["manifest"], "archive": self.share["archive"]}


@pytest.fixture(scope="module")
def leader(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Leader]:
    hosts = Fleet(tmp_path_factory.mktemp("leader"), hub, {})
    fetched = good(hosts.fetch("a"))
    assert fetched["action"] == "download"
    assert hub.log
    yield Leader(fetched, hosts.share("a", fetched["manifest"]), hosts.dest("a"))
    hosts.stop()


@pytest.fixture
def fleet(hub: Hub, leader: Leader, tmp_path: Path) -> t.Iterator[Fleet]:
    hub.reset()
    hosts = Fleet(tmp_path, hub, {"a": leader.dest})
    yield hosts
    hosts.stop("a")


def same(fleet: Fleet, leader: Leader, *names: str) -> None:
    """Check that hosts have the model, and nothing half beside it."""
    content = Path(leader.fetched["path"]).read_bytes()
    for name in names:
        assert fleet.path(name, leader.fetched).read_bytes() == content, name
        place = Place(fleet.dest(name), "org/tiny")
        assert not os.path.exists(place.incoming(manifest_from(leader.fetched["manifest"]).key))


def test_one_fetches_from_outside_and_the_others_from_the_fleet(fleet: Fleet, leader: Leader) -> None:
    """All at once, each from its parent in the tree; the hub is not asked again, and few copies leave the first."""
    proxy = Slow(leader.share["urls"][0])
    urls, receivers = {"a": proxy.urls}, ["b", "c", "d"]
    for name in receivers:
        urls[name] = fleet.share(name, leader.fetched["manifest"], archive=leader.share["archive"])["urls"]
    runs = {}
    for name, parents in spread("a", receivers).items():
        more = {**leader.given, "peers": [urls[parent] for parent in parents], "sources": []}
        runs[name] = start_module("model_fetch", fleet.fetch_arguments(name, timeout=30, **more))
    results = {name: good(json.loads(run.communicate()[0])) for name, run in runs.items()}
    proxy.close()
    assert {result["action"] for result in results.values()} == {"receive"}
    assert {result["bytes_fetched"] for result in results.values()} == {leader.fetched["total_size"]}
    same(fleet, leader, *receivers)
    assert not fleet.hub.log
    assert proxy.count < 2.2 * leader.fetched["total_size"]
    again = good(fleet.fetch("b", **leader.given, peers=[urls["a"]], sources=[]))
    assert (again["changed"], again["action"], again["bytes_fetched"]) == (False, "keep", 0)


def test_a_killed_receiver_goes_on_and_what_it_has_is_served_meanwhile(fleet: Fleet, leader: Leader) -> None:
    """kill -9 in the middle: no more than a chunk per connection comes again, and a third host gets on without it."""
    proxy = Slow(leader.share["urls"][0], rate=24 * MIB)
    share = fleet.share("b", leader.fetched["manifest"], archive=leader.share["archive"])
    arguments = fleet.fetch_arguments("b", **leader.given, peers=[proxy.urls], sources=[], connections=2)
    place = Place(fleet.dest("b"), "org/tiny")
    note = Path(place.incoming(leader.share["archive"]["key"])) / chunk_in_place.JOURNAL
    run = start_module("model_fetch", arguments)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (note.exists() and note.read_bytes().count(b"\n") > 2):
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    assert note.exists()
    total, chunk = leader.fetched["total_size"], 16 * MIB
    kept = [int(line) for line in note.read_bytes().split(b"\n")[1:-1]]
    assert len(kept) >= 2
    assert not fleet.path("b", leader.fetched).exists()
    proxy.rate = -1
    third = good(fleet.fetch("c", **leader.given, peers=[share["urls"], leader.share["urls"]], sources=[]))
    assert third["source"].count(":") == 2  # both gave some
    first = proxy.count
    result = good(run_module("model_fetch", arguments))
    proxy.close()
    assert result["bytes_fetched"] == total - sum(min(chunk, total - number * chunk) for number in kept)
    assert first + result["bytes_fetched"] < total + 2.2 * chunk
    same(fleet, leader, "b", "c")
    assert not fleet.hub.log


def test_when_the_fleet_cannot_give_it_the_rest_comes_from_outside(fleet: Fleet, leader: Leader) -> None:
    """The host that gives it stops in the middle: what it gave is used."""
    good(fleet.fetch("c", **leader.given, peers=[leader.share["urls"]], sources=[]))
    proxy = Slow(fleet.share("c", leader.fetched["manifest"])["urls"][0], rate=32 * MIB)

    def cut() -> None:
        while proxy.count < 20 * MIB:
            time.sleep(0.01)
        fleet.stop("a")

    cutter = threading.Thread(target=cut)
    cutter.start()
    result = good(fleet.fetch("b", **leader.given, peers=[proxy.urls], connections=1))
    cutter.join()
    proxy.close()
    same(fleet, leader, "b")
    assert fleet.hub.log
    assert result["bytes_fetched"] <= leader.fetched["total_size"] - 16 * MIB  # the first chunk came from the fleet


def test_without_a_way_out_it_says_so_and_leaves_nothing_half(fleet: Fleet, leader: Leader) -> None:
    wrong = [leader.share["urls"][0].rpartition("/")[0] + "/" + "x" * 32]
    result = fleet.fetch("b", **leader.given, peers=[wrong], sources=[])
    assert result["failed"]
    assert "does not take the token" in result["msg"]
    assert leader.share["token"] not in json.dumps(result)
    assert not fleet.path("b", leader.fetched).exists()


def test_a_damaged_host_infects_nobody(fleet: Fleet, leader: Leader) -> None:
    """Its file changes after its record was made: who asks it goes on elsewhere."""
    good(fleet.fetch("c", **leader.given, peers=[leader.share["urls"]], sources=[]))
    share = fleet.share("c", leader.fetched["manifest"])
    with fleet.path("c", leader.fetched).open("r+b") as file:
        file.seek(5 * MIB)
        file.write(bytes(100))
    result = good(
        fleet.fetch("b", **leader.given, peers=[share["urls"], leader.share["urls"]], sources=[], connections=1)
    )
    assert result["action"] == "receive"
    same(fleet, leader, "b")
    assert not fleet.hub.log


def test_a_removed_model_is_no_longer_shared(fleet: Fleet, leader: Leader) -> None:
    good(fleet.fetch("c", **leader.given, peers=[leader.share["urls"]], sources=[]))
    share = fleet.share("c", leader.fetched["manifest"])
    good(fleet.fetch("c", state="absent"))
    until = time.monotonic() + 60
    while time.monotonic() < until and chunk_server.start_time(share["pid"]):
        time.sleep(0.05)
    assert not chunk_server.start_time(share["pid"])
    result = fleet.fetch("b", **leader.given, peers=[share["urls"]], sources=[])
    assert result["failed"]
    assert not os.path.exists(fleet.path("b", leader.fetched))


def test_a_full_disk_is_said_and_what_came_is_used_when_there_is_room(
    fleet: Fleet, leader: Leader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system of its own that is too small, for the look beforehand and, past that, for what arrives."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "b"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(folder)]
    subprocess.run(mount, check=True)
    try:
        result = fleet.fetch("b", **leader.given, peers=[leader.share["urls"]], sources=[])
        assert result["failed"]
        assert "must stay free" in result["msg"]
        monkeypatch.setattr(swarm, "RESERVE", -(1 << 40))
        with pytest.raises(LlmfleetError, match="cannot be written: No space left on device; what has arrived is kept"):
            swarm.receive(
                manifest_from(leader.fetched["manifest"]),
                leader.share["archive"],
                [leader.share["urls"]],
                Place(str(folder), "org/tiny"),
                connections=1,
            )
        subprocess.run(["mount", "-o", "remount,size=600m", str(folder)], check=True)
        result = good(fleet.fetch("b", **leader.given, peers=[leader.share["urls"]], sources=[]))
        assert result["bytes_fetched"] < leader.fetched["total_size"]
        same(fleet, leader, "b")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
