"""The module that lets other hosts fetch a model from here: started, found again, stopped; and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import model_share
import pytest
from ansible.module_utils.llmfleet import chunk_server
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import model_chunks
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Manifest, RepoFile, manifest_from
from ansible.module_utils.llmfleet.hub.place import Place

RUN_MODULE = Path(__file__).resolve().parents[1] / "run_module.py"
CONTENT = b"GGUF" + bytes(range(256)) * 300
REPO, COMMIT = "org/tiny", "d" * 40
Data = dict[str, t.Any]


def module(check: bool = False, **arguments: t.Any) -> Data:
    argv = [sys.executable, str(RUN_MODULE), "model_share", json.dumps(arguments), *(["--check"] if check else [])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    assert not done.stderr, done.stderr
    return t.cast("Data", json.loads(done.stdout))


@pytest.fixture
def manifest() -> Data:
    file = RepoFile("tiny-Q8_0.gguf", len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    return Manifest(REPO, COMMIT, GGUF, (file,), entry=file.path).as_data()


@pytest.fixture
def dest(tmp_path: Path) -> t.Iterator[str]:
    """A store with the model; its servers are ended afterwards."""
    folder = Path(Place(str(tmp_path / "models"), REPO).snapshot(COMMIT))
    folder.mkdir(parents=True)
    (folder / "tiny-Q8_0.gguf").write_bytes(CONTENT)
    yield str(tmp_path / "models")
    run("stopped", dest=str(tmp_path / "models"))


def run(state: str, check: bool = False, **arguments: t.Any) -> Data:
    """Do what the module does, in this process."""
    defaults = {name: option["default"] for name, option in model_share.ARGUMENT_SPEC.items()}
    params = {**defaults, "state": state, **arguments}
    model_share.check(params)
    return (model_share.start if state == "started" else model_share.stop)(params, check)


def start(dest: str, manifest: Data, check: bool = False, **more: t.Any) -> Data:
    return run("started", check, **{"manifest": manifest, "dest": dest, "bind": "127.0.0.1", **more})


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return t.cast("bytes", answer.read())


def gone(pid: int) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until and chunk_server.start_time(pid):
        time.sleep(0.05)
    return not chunk_server.start_time(pid)


def test_a_model_is_shared_once_found_again_and_stopped_once(dest: str, manifest: Data) -> None:
    first = module(manifest=manifest, dest=dest, bind="127.0.0.1")
    assert (first["changed"], first["diff"]) == (True, {"before": "not shared", "after": "shared"})
    assert first["urls"] == [f"http://127.0.0.1:{first['port']}/{first['token']}"]
    assert first["archive"]["files"][0]["chunks"] == [hashlib.sha256(CONTENT).hexdigest()]
    assert get(first["urls"][0] + "/0") == CONTENT
    again = module(manifest=manifest, dest=dest, bind="127.0.0.1")
    assert not again["changed"]
    assert [again[key] for key in ("archive", "pid", "urls")] == [first[key] for key in ("archive", "pid", "urls")]
    stopped = module(state="stopped", dest=dest)
    assert (stopped["changed"], stopped["stopped"]) == (True, [REPO])
    assert gone(first["pid"])
    assert not module(state="stopped", dest=dest)["changed"]
    assert not module(state="stopped", dest=dest, manifest=manifest)["changed"]


def test_one_model_is_stopped(dest: str, manifest: Data) -> None:
    started = start(dest, manifest)
    assert run("stopped", dest=dest, manifest=manifest)["stopped"] == [REPO]
    assert gone(started["pid"])


def test_the_token_is_for_root_only(dest: str, manifest: Data) -> None:
    started = start(dest, manifest)
    notes = Path(Place(dest, REPO).own) / "share"
    holding = [path for path in notes.iterdir() if started["token"] in path.read_text()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in holding] == [0o600]
    assert started["token"] not in Path(f"/proc/{started['pid']}/cmdline").read_text()


def test_a_record_is_made_once(dest: str, manifest: Data) -> None:
    """What is there is not read a second time: the record is used although the file has another content by now."""
    record = start(dest, manifest)["archive"]
    run("stopped", dest=dest)
    target = Path(Place(dest, REPO).snapshot(COMMIT)) / "tiny-Q8_0.gguf"
    target.write_bytes(bytes(len(CONTENT)))
    assert start(dest, manifest)["archive"] == record


def test_check_mode_starts_and_reads_nothing(dest: str, manifest: Data) -> None:
    said = start(dest, manifest, check=True)
    assert (said["changed"], said["port"], said["pid"], said["urls"], said["archive"]) == (True, 0, 0, [], {})
    assert not Path(Place(dest, REPO).own).exists()
    started = start(dest, manifest)
    assert start(dest, manifest, check=True)["archive"] == started["archive"]
    assert run("stopped", True, dest=dest)["changed"]
    assert chunk_server.start_time(started["pid"])


def test_a_receiving_host_shares_before_anything_has_arrived(tmp_path: Path, dest: str, manifest: Data) -> None:
    record = start(dest, manifest)["archive"]
    other = str(tmp_path / "other")
    try:
        started = start(other, manifest, archive=record)
        assert started["archive"] == record
        with pytest.raises(urllib.error.HTTPError, match="503"):
            get(started["urls"][0] + "/0")
        folder = Path(Place(other, REPO).snapshot(COMMIT))
        folder.mkdir(parents=True)
        (folder / "tiny-Q8_0.gguf").write_bytes(CONTENT)
        assert get(started["urls"][0] + "/0") == CONTENT
    finally:
        run("stopped", dest=other)


def test_chunks_that_are_counted_in_another_way_are_served_anew(dest: str, manifest: Data) -> None:
    """Hosts ask for chunks by their numbers, which are those of the record that came with the peers."""
    first = start(dest, manifest)
    place = Place(dest, REPO)
    other = model_chunks.make(manifest_from(manifest), place.snapshot(COMMIT), 1 << 16).as_data()
    second = start(dest, manifest, archive=other)
    assert second["changed"]
    assert gone(first["pid"])
    assert get(second["urls"][0] + "/1") == CONTENT[1 << 16 :]
    assert not start(dest, manifest)["changed"]


def test_a_server_ends_when_the_repository_is_removed(dest: str, manifest: Data) -> None:
    started = start(dest, manifest)
    subprocess.run(["rm", "-r", Place(dest, REPO).root], check=True)
    assert gone(started["pid"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"manifest": {}}, "nothing to share: give the `manifest`"),
        ({"dest": "models"}, "`dest` must be an absolute path"),
        ({"port": 65536}, "`port` must be from 0 to 65535"),
        ({"idle_timeout": 0}, "`idle_timeout` must be from 1"),
        ({"bind": "everywhere"}, "'everywhere' is no IP address"),
        ({"addresses": ["host"]}, "'host' is no IP address"),
        ({"manifest": {"repo": "x"}}, "not the manifest of a model"),
        ({"archive": {"files": []}}, "`archive` is not what model_share returned"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, manifest: Data, arguments: Data, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        run("started", **{"dest": str(tmp_path / "none"), "manifest": manifest, **arguments})
    assert said in str(caught.value)
    assert not os.path.exists(tmp_path / "none")


def test_a_host_without_the_model_cannot_share_it(tmp_path: Path, manifest: Data) -> None:
    result = module(dest=str(tmp_path / "none"), manifest=manifest)
    assert result["failed"]
    assert "cannot be shared: No such file or directory; share a model on a host that has it" in result["msg"]
    assert not os.path.exists(tmp_path / "none")
