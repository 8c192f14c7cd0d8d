"""Images from host to host on a real engine: archives, chunks between hosts, registries; with every kind of cut.

One engine plays both sides: the image is removed before it is received.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import threading
import time
import typing as t
from pathlib import Path

import pytest
import small_images
from ansible.module_utils.llmfleet import chunk_folder, image_chunks, image_share
from ansible.module_utils.llmfleet.chunk_fetch import Fetcher
from ansible.module_utils.llmfleet.chunk_peer import parse_peers
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.image_engine import ImageEngine
from ansible.module_utils.llmfleet.image_receive import Reception
from ansible.module_utils.llmfleet.image_share import Share
from helpers import docker, run_module, start_module
from registry import registry

NAME = "llmfleet-test/ship"
OLD, NEW = f"{NAME}:old", f"{NAME}:new"
MIB = 1 << 20
Data = dict[str, t.Any]


@functools.cache
def libraries() -> bytes:
    return small_images.layer(1, 3 * MIB)


@functools.cache
def programs(seed: int) -> bytes:
    return small_images.layer(seed, 2 * MIB)


def forget(*names: str) -> None:
    for name in names or (OLD, NEW):
        subprocess.run(["docker", "rmi", name], capture_output=True, check=False)


def identity(name: str) -> str:
    done = subprocess.run(
        ["docker", "image", "inspect", "-f", "{{.Id}}", name], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


@pytest.fixture
def old() -> t.Iterator[str]:
    """An image of two layers."""
    forget()
    small_images.load(OLD, [libraries(), programs(2)])
    yield identity(OLD)
    forget()


class Builder(t.NamedTuple):
    """The host that has the image: its archive, and what others fetch it from."""

    archive: Data
    urls: list[str]


def write(folder: Path, name: str = OLD, **options: t.Any) -> Data:
    arguments = {"path": str(folder / "archive.tar.gz"), "images": [name], "chunk_mib": 1, **options}
    result = run_module("image_archive", arguments)
    assert not result.get("failed"), result
    return result


def share(check: bool = False, **arguments: t.Any) -> Data:
    result = run_module("image_share", {"bind": "127.0.0.1", "idle_timeout": 60, **arguments}, check=check)
    assert not result.get("failed"), result
    return result


@pytest.fixture
def builder(old: str, tmp_path: Path) -> t.Iterator[Builder]:  # noqa: ARG001 - the image it has
    """A host that shares the old image."""
    archive = write(tmp_path)
    try:
        yield Builder(archive, share(path=archive["path"])["urls"])
    finally:
        share(state="stopped", path=archive["path"])


def receive(builder: Builder, directory: Path, *peers: list[str], check: bool = False, **options: t.Any) -> Data:
    asked = [*peers] or [builder.urls]
    arguments = {"archive": builder.archive, "peers": asked, "directory": str(directory), "timeout": 3, **options}
    return run_module("image_receive", arguments, check=check)


def folder_with(builder: Builder, directory: Path, count: int) -> Path:
    """Return the folder of a host that has received ``count`` chunks so far."""
    archive = image_chunks.from_data(builder.archive)
    folder = Path(image_share.prepare_folder(str(directory), archive))
    data = Path(archive.path).read_bytes()
    for number in range(count):
        size = archive.chunks[number].size
        (folder / archive.chunks[number].sha256).write_bytes(data[:size])
        data = data[size:]
    return folder


# ---------------------------------------------------------------- archives


def test_an_archive_is_one_that_everybody_can_read(old: str, tmp_path: Path) -> None:
    made = write(tmp_path, checksum=True)
    assert made["changed"] is True
    assert made["bytes"] == os.path.getsize(made["path"]) == sum(chunk["bytes"] for chunk in made["chunks"])
    assert (
        subprocess.run(
            ["sha256sum", "-c", "archive.tar.gz.sha256"], cwd=tmp_path, capture_output=True, check=False
        ).returncode
        == 0
    )
    plain = subprocess.run(["docker", "save", OLD], capture_output=True, check=True).stdout
    assert gzip.decompress(Path(made["path"]).read_bytes()) == plain
    layers = made["images"][0]["layers"]
    assert sorted({chunk["layer"] for chunk in made["chunks"]}) == sorted(["", *layers])
    forget()
    docker("load", "--input", made["path"])
    assert identity(OLD) == old


@pytest.mark.usefixtures("old")
def test_an_archive_is_written_once(tmp_path: Path) -> None:
    would = run_module("image_archive", {"path": str(tmp_path / "archive.tar.gz"), "images": [OLD]}, check=True)
    assert (would["changed"], would["chunks"], os.listdir(tmp_path)) == (True, [], [])
    made = write(tmp_path)
    before = os.stat(made["path"])
    again = write(tmp_path)
    assert again == {**made, "changed": False, "seconds": again["seconds"], "diff": again["diff"]}
    assert os.stat(made["path"]) == before
    # what changes the archive writes it again: another level, another image under the name, a damaged file
    assert write(tmp_path, level=1)["changed"] is True
    small_images.load(OLD, [libraries(), programs(3)])
    assert write(tmp_path, level=1)["changed"] is True
    with open(made["path"], "ab") as file:
        file.write(b"x")
    assert write(tmp_path, level=1)["changed"] is True
    assert write(tmp_path, level=1)["changed"] is False


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    small_images.load(NEW, [small_images.layer(4, 24 * MIB)])
    try:
        arguments = {"path": str(tmp_path / "archive.tar.gz"), "images": [NEW], "level": 9, "chunk_mib": 1}
        process = start_module("image_archive", arguments)
        wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob("*.part")))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert os.listdir(tmp_path) == ["archive.tar.gz.part"]
        assert write(tmp_path, NEW)["changed"] is True
        assert sorted(os.listdir(tmp_path)) == ["archive.tar.gz", "archive.tar.gz.json"]
    finally:
        forget()


@pytest.mark.usefixtures("old")
def test_files_of_others_are_kept(tmp_path: Path) -> None:
    mine = tmp_path / "archive.tar.gz"
    mine.write_text("mine")
    for state in ("written", "absent"):
        result = run_module("image_archive", {"path": str(mine), "images": [OLD], "state": state})
        assert "was not written by this module and is kept" in result["msg"]
    assert mine.read_text() == "mine"
    assert os.listdir(tmp_path) == ["archive.tar.gz"]


@pytest.mark.usefixtures("old")
def test_an_archive_is_removed_with_what_lies_next_to_it(tmp_path: Path) -> None:
    path = write(tmp_path, checksum=True)["path"]
    arguments = {"path": path, "state": "absent"}
    assert run_module("image_archive", arguments, check=True)["changed"] is True
    assert len(os.listdir(tmp_path)) == 3
    assert len(run_module("image_archive", arguments)["removed"]) == 3
    assert os.listdir(tmp_path) == []
    assert run_module("image_archive", arguments)["changed"] is False


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"images": [f"{NAME}:none"]}, f"the engine has no image {NAME}:none; pull or build it first"),
        ({"images": [f"{NAME}@sha256:{'a' * 64}"]}, "is named by its digest, which an archive cannot carry"),
        ({"images": []}, "`images` names no image to write"),
        ({"images": [OLD], "path": "relative"}, "`path` must be an absolute path"),
        ({"images": [OLD], "level": 0}, "`level` must be from 1 to 9, not 0"),
        ({"images": [OLD], "docker_cli": "/nonexistent/docker"}, "There is no docker client on this host"),
        ({"images": [OLD], "path": "/proc/archive.tar.gz"}, "archive /proc/archive.tar.gz"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path: Path, arguments: Data, words: str) -> None:
    result = run_module("image_archive", {"path": str(tmp_path / "a.tar.gz"), **arguments})
    assert result["failed"]
    assert words in result["msg"]
    assert os.listdir(tmp_path) == []


def test_an_archive_is_loaded_once(old: str, tmp_path: Path) -> None:
    path = write(tmp_path, checksum=True)["path"]
    os.unlink(f"{path}.json")  # on another machine there are only the archive and its checksum
    arguments = {"path": path, "state": "loaded", "images": [OLD]}
    assert run_module("image_archive", arguments)["changed"] is False
    forget()
    assert run_module("image_archive", arguments, check=True)["changed"] is True
    assert identity(OLD) == ""
    assert run_module("image_archive", arguments)["changed"] is True
    assert identity(OLD) == old
    assert run_module("image_archive", arguments)["changed"] is False


def test_an_uncompressed_archive_of_docker_save_is_loaded(old: str, tmp_path: Path) -> None:
    path = tmp_path / "plain.tar"
    docker("save", "--output", str(path), OLD)
    forget()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    result = run_module("image_archive", {"path": str(path), "state": "loaded", "sha256": digest})
    assert result["changed"] is True, result
    assert identity(OLD) == old


@pytest.mark.usefixtures("old")
def test_an_archive_cut_anywhere_is_not_loaded(tmp_path: Path) -> None:
    made = write(tmp_path, checksum=True)
    forget()
    for size in (made["bytes"] - 1, made["bytes"] // 2, made["chunks"][0]["bytes"], 700, 1, 0):
        os.truncate(made["path"], size)
        result = run_module("image_archive", {"path": made["path"], "state": "loaded"})
        assert "it was cut short or changed on its way; copy it again" in result["msg"]
        assert identity(OLD) == ""


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", {}, "there is no sha256 to check"),
        (b"x", {"sha256": "12"}, "`sha256` holds none"),
        (b"x", {"sha256": hashlib.sha256(b"x").hexdigest()}, "is not an archive of images"),
        (b"\x1f\x8bx", {"sha256": hashlib.sha256(b"\x1f\x8bx").hexdigest()}, "is not an archive of images"),
        (bytes(10240), {"sha256": hashlib.sha256(bytes(10240)).hexdigest()}, "it has no manifest.json"),
        (None, {"sha256": "a" * 64}, "No such file or directory; correct `path`"),
    ],
)
def test_what_is_no_archive_is_not_loaded(tmp_path: Path, content: bytes | None, options: Data, words: str) -> None:
    path = tmp_path / "a.tar.gz"
    if content is not None:
        path.write_bytes(content)
    result = run_module("image_archive", {"path": str(path), "state": "loaded", **options})
    assert words in result["msg"]


@pytest.mark.usefixtures("old")
def test_an_archive_without_the_wanted_image_is_not_loaded(tmp_path: Path) -> None:
    path = write(tmp_path, checksum=True)["path"]
    result = run_module("image_archive", {"path": path, "state": "loaded", "images": [NEW]})
    assert f"it holds {OLD}, and not {NEW}" in result["msg"]


@pytest.mark.usefixtures("old")
def test_an_archive_without_layers_fits_hosts_that_have_them(tmp_path: Path) -> None:
    small_images.load(NEW, [libraries(), programs(3)])
    new = identity(NEW)
    whole = write(tmp_path, NEW)["bytes"]
    lower = json.loads(docker("image", "inspect", NEW))[0]["RootFS"]["Layers"][0]
    thin = write(tmp_path, NEW, without_layers=[lower], checksum=True)
    assert thin["without_layers"] == [lower]
    assert thin["bytes"] < whole * 0.5
    assert hashlib.sha256(Path(thin["path"]).read_bytes()).hexdigest() == thin["sha256"]
    with tarfile.open(thin["path"]) as archive:
        assert not any(lower.partition(":")[2] in name for name in archive.getnames())
    forget(NEW)
    arguments = {"path": thin["path"], "state": "loaded"}
    assert run_module("image_archive", arguments)["changed"] is True
    assert identity(NEW) == new
    forget()
    assert "it was written without 1 layers that this host lacks" in run_module("image_archive", arguments)["msg"]
    assert identity(NEW) == ""


@pytest.mark.usefixtures("old")
def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 4) as folder:
        result = run_module("image_archive", {"path": str(folder / "a.tar.gz"), "images": [OLD]})
        assert "free, too little: " in result["msg"]
        assert "for the archive are needed" in result["msg"]
        assert os.listdir(folder) == []


@contextlib.contextmanager
def tmpfs(folder: Path, mib: int) -> t.Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# ---------------------------------------------------------------- from host to host


def test_an_image_is_received_once(builder: Builder, old: str, tmp_path: Path) -> None:
    directory = tmp_path / "in"
    assert receive(builder, directory)["changed"] is False
    forget()
    would = receive(builder, directory, check=True)
    assert (would["changed"], would["bytes"], directory.exists()) == (True, builder.archive["bytes"], False)
    got = receive(builder, directory)
    assert got["changed"] is True, got
    assert (got["bytes"], got["kept"], got["spared"]) == (builder.archive["bytes"], 0, 0)
    assert list(got["from"].values()) == [builder.archive["bytes"]]
    assert identity(OLD) == old
    assert os.listdir(directory) == []
    assert receive(builder, directory)["changed"] is False


def test_an_image_that_has_only_another_name_gets_its_own(builder: Builder, old: str, tmp_path: Path) -> None:
    docker("tag", OLD, NEW)
    forget(OLD)
    got = receive(builder, tmp_path / "in", ["http://127.0.0.1:1/" + "x" * 32])
    assert (got["changed"], got["bytes"]) == (True, 0), got
    assert identity(OLD) == old


@pytest.mark.usefixtures("old")
def test_layers_that_are_there_are_not_fetched(tmp_path: Path) -> None:
    small_images.load(NEW, [libraries(), programs(3)])
    new = identity(NEW)
    archive = write(tmp_path, NEW)
    lower = json.loads(docker("image", "inspect", NEW))[0]["RootFS"]["Layers"][0]
    builder = Builder(archive, share(path=archive["path"])["urls"])
    try:
        forget(NEW)
        got = receive(builder, tmp_path / "in")
        assert got["spared"] == sum(chunk["bytes"] for chunk in archive["chunks"] if chunk["layer"] == lower) > MIB
        assert got["bytes"] == archive["bytes"] - got["spared"]
        assert identity(NEW) == new
        # and all of them where the host has nothing
        forget()
        assert receive(builder, tmp_path / "in")["spared"] == 0
        assert identity(NEW) == new
    finally:
        share(state="stopped", path=archive["path"])


class WholeArchives(ImageEngine):
    """This engine, taken for one of containerd's store, which takes no archive that lacks a layer."""

    containerd_store = True


@pytest.mark.usefixtures("old")
def test_an_engine_that_takes_whole_archives_is_given_layers_from_its_own_images(tmp_path: Path) -> None:
    """Only what is new is fetched; `docker load` gets an archive with all layers all the same."""
    small_images.load(NEW, [libraries(), programs(3)])
    new = identity(NEW)
    noted = write(tmp_path, NEW)
    forget(NEW)
    archive = image_chunks.from_data(noted)
    engine = WholeArchives(Docker(_run), 60)
    given: list[bytes] = []
    engine.load = lambda blocks: (given.extend(blocks), ImageEngine.load(engine, given))[1]  # type: ignore[method-assign]
    reception = Reception(archive, str(tmp_path / "in"), engine)
    try:
        urls = share(path=noted["path"])["urls"]
        would = reception.plan()
        outcome = reception.receive(Fetcher(parse_peers([urls]), reception.prepare(), 5, 2))
    finally:
        share(state="stopped", path=noted["path"])
    assert (would.fetched, would.spared) == (outcome.fetched, outcome.spared)
    assert outcome.spared > MIB
    assert outcome.fetched == archive.size - outcome.spared
    with tarfile.open(fileobj=io.BytesIO(b"".join(given))) as whole:
        manifest = json.load(whole.extractfile("manifest.json") or io.BytesIO())
        found = [
            hashlib.sha256((whole.extractfile(name) or io.BytesIO()).read()).hexdigest()
            for name in manifest[0]["Layers"]
        ]
    assert [f"sha256:{digest}" for digest in found] == list(archive.images[0].layers)
    assert identity(NEW) == new
    assert os.listdir(tmp_path / "in") == []


def _run(argv: list[str], **_: t.Any) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_killed_receiver_goes_on_where_it_stopped(builder: Builder, old: str, tmp_path: Path) -> None:
    """Its only source has half of the chunks, so that it hangs in the middle, the engine already loading."""
    forget()
    half = folder_with(builder, tmp_path / "half", len(builder.archive["chunks"]) // 2)
    expected = sum(chunk["bytes"] for chunk in builder.archive["chunks"][: len(builder.archive["chunks"]) // 2])
    with served(half) as urls:
        arguments = {"archive": builder.archive, "peers": [urls], "directory": str(tmp_path / "in"), "timeout": 60}
        process = start_module("image_receive", arguments)
        wait_for(lambda: chunk_bytes(tmp_path / "in") == expected)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert identity(OLD) == ""
    got = receive(builder, tmp_path / "in")
    assert (got["kept"], got["bytes"]) == (expected, builder.archive["bytes"] - expected), got
    assert identity(OLD) == old
    assert os.listdir(tmp_path / "in") == []


def test_a_killed_server_is_bridged_in_the_middle(builder: Builder, old: str, tmp_path: Path) -> None:
    forget()
    half = folder_with(builder, tmp_path / "half", 3)
    noted = Share.of_folder(str(half)).start("127.0.0.1", 0, 60)
    urls = image_share.urls(noted, ["127.0.0.1"])
    killer = threading.Thread(
        target=lambda: (wait_for(lambda: chunk_bytes(tmp_path / "in") > 0), os.kill(noted["pid"], signal.SIGKILL))
    )
    killer.start()
    got = receive(builder, tmp_path / "in", urls, builder.urls, timeout=30)
    killer.join()
    assert got["changed"] is True, got
    assert len(got["from"]) == 2
    assert sum(got["from"].values()) == builder.archive["bytes"]
    assert identity(OLD) == old


def test_wrong_chunks_never_reach_the_engine(builder: Builder, old: str, tmp_path: Path) -> None:
    forget()
    liar = folder_with(builder, tmp_path / "liar", len(builder.archive["chunks"]))
    for chunk in builder.archive["chunks"][1:]:
        (liar / chunk["sha256"]).write_bytes(bytes(chunk["bytes"]))
    with served(liar) as urls:
        result = receive(builder, tmp_path / "in", urls)
        assert "does not have the right digest" in result["msg"]
        assert identity(OLD) == ""
        got = receive(builder, tmp_path / "in", urls, builder.urls)
    assert got["kept"] == builder.archive["chunks"][0]["bytes"], got
    assert identity(OLD) == old


def test_chunks_damaged_on_the_disk_are_fetched_again(builder: Builder, old: str, tmp_path: Path) -> None:
    """What a power cut may leave: names without their content, whole or in part."""
    forget()
    folder = folder_with(builder, tmp_path / "in", 4)
    chunks = builder.archive["chunks"]
    (folder / chunks[1]["sha256"]).write_bytes(b"")
    (folder / chunks[2]["sha256"]).write_bytes(bytes(chunks[2]["bytes"]))
    (folder / f"{chunks[5]['sha256']}.77.part").write_bytes(b"half")
    got = receive(builder, tmp_path / "in")
    assert got["kept"] == chunks[0]["bytes"] + chunks[3]["bytes"], got
    assert identity(OLD) == old


def test_dead_stalled_and_wrong_hosts_are_bridged(builder: Builder, old: str, tmp_path: Path) -> None:
    forget()
    wrong = [builder.urls[0].rpartition("/")[0] + "/" + "x" * 32]
    with socket.create_server(("127.0.0.1", 0)) as mute:
        stalled = [f"http://127.0.0.1:{mute.getsockname()[1]}/{'x' * 32}"]
        dead = ["http://127.0.0.1:1/" + "x" * 32]
        got = receive(builder, tmp_path / "in", dead, wrong, stalled, builder.urls, timeout=2)
        assert list(got["from"].values()) == [builder.archive["bytes"]], got
        assert identity(OLD) == old
        forget()
        begun = time.monotonic()
        result = receive(builder, tmp_path / "in", dead, wrong, stalled, timeout=1)
    assert time.monotonic() - begun < 30
    for words in ("127.0.0.1:1: Connection refused", "it does not take the token", "no answer in time"):
        assert words in result["msg"]
    assert "what has arrived is kept" in result["msg"]
    assert "x" * 32 not in result["msg"]


def test_a_host_passes_on_while_it_receives(builder: Builder, old: str, tmp_path: Path) -> None:
    """Both modules run at the same time on directories of two hosts; the second one asks the first one first."""
    forget()
    first, second = tmp_path / "first", tmp_path / "second"
    urls = share(archive=builder.archive, directory=str(first))["urls"]
    arguments = {"archive": builder.archive, "peers": [urls, builder.urls], "directory": str(second)}
    # the image must be missing when it begins, so it starts first and finds its source empty
    process = start_module("image_receive", arguments)
    wait_for(lambda: any(second.glob("*/lock")))
    got_first = receive(builder, first)
    out, err = process.communicate()
    got_second = json.loads(out.splitlines()[-1])
    assert not got_first.get("failed"), got_first
    assert not got_second.get("failed"), (got_second, err)
    assert identity(OLD) == old
    port = urls[0].split(":")[2].split("/")[0]
    assert got_second["from"] == {f"127.0.0.1:{port}": builder.archive["bytes"]}
    # the chunks stay while they are shared, and go when that ends
    assert chunk_bytes(first) == builder.archive["bytes"]
    assert share(state="stopped", directory=str(first))["changed"] is True
    assert os.listdir(first) == []
    assert share(state="stopped", directory=str(first))["changed"] is False


def test_what_is_not_complete_survives_the_end_of_sharing(builder: Builder, tmp_path: Path) -> None:
    folder = folder_with(builder, tmp_path / "in", 2)
    share(archive=builder.archive, directory=str(tmp_path / "in"))
    share(state="stopped", directory=str(tmp_path / "in"))
    assert len([name for name in os.listdir(folder) if chunk_folder.is_chunk(name)]) == 2


def test_a_host_that_needs_nothing_says_so_to_others(builder: Builder, tmp_path: Path) -> None:
    urls = share(archive=builder.archive, directory=str(tmp_path / "first"))["urls"]
    assert receive(builder, tmp_path / "first")["changed"] is False
    forget()
    begun = time.monotonic()
    got = receive(builder, tmp_path / "second", urls, builder.urls, timeout=30)
    # without being told it would wait for the 30 s
    assert time.monotonic() - begun < 25
    assert list(got["from"].values()) == [builder.archive["bytes"]]
    share(state="stopped", directory=str(tmp_path / "first"))
    assert os.listdir(tmp_path / "first") == []


def test_chunks_of_an_archive_with_the_same_content_are_taken_over(builder: Builder, tmp_path: Path) -> None:
    """The builder has written its archive again meanwhile, of a new image: the lower layer's chunks are the same."""
    folder_with(builder, tmp_path / "in", len(builder.archive["chunks"]) - 1)
    forget()
    small_images.load(OLD, [libraries(), programs(3)])
    other = write(tmp_path / "other", OLD)
    forget()
    urls = share(path=other["path"])["urls"]
    try:
        got = receive(Builder(other, urls), tmp_path / "in")
    finally:
        share(state="stopped", path=other["path"])
    assert got["kept"] > MIB, got
    assert got["bytes"] == other["bytes"] - got["kept"]
    assert os.listdir(tmp_path / "in") == []


def test_two_runs_at_a_time_do_not_mix(builder: Builder, tmp_path: Path) -> None:
    forget()
    half = folder_with(builder, tmp_path / "half", 2)
    with served(half) as urls:
        arguments = {"archive": builder.archive, "peers": [urls], "directory": str(tmp_path / "in"), "timeout": 60}
        process = start_module("image_receive", arguments)
        wait_for(lambda: chunk_bytes(tmp_path / "in") > 0)
        result = receive(builder, tmp_path / "in")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert "another run is receiving it; wait for it and start again" in result["msg"]


def test_no_room_to_receive_is_said_before_anything_is_fetched(builder: Builder, tmp_path: Path) -> None:
    forget()
    with tmpfs(tmp_path / "small", 4) as folder:
        result = receive(builder, folder)
        assert "for its chunks are needed" in result["msg"]
        assert chunk_bytes(folder) == 0


def test_a_disk_that_fills_up_is_said_and_what_came_is_kept(builder: Builder, tmp_path: Path) -> None:
    """The room is taken by others after the check, so the fetcher is asked directly."""
    archive = image_chunks.from_data(builder.archive)
    with tmpfs(tmp_path / "small", 2) as folder:
        fetcher = Fetcher(parse_peers([builder.urls]), str(folder), 3, 1)
        fetcher.start(list(enumerate(archive.chunks)))
        with pytest.raises(LlmfleetError, match="cannot be written: No space left on device; what has arrived is kept"):
            [fetcher.read(chunk) for chunk in archive.chunks]
        fetcher.stop()
        assert 0 < chunk_bytes(folder.parent) < 2 * MIB
        assert not [name for name in os.listdir(folder) if name.endswith(".part")]


def test_bad_arguments_are_said(builder: Builder, tmp_path: Path) -> None:
    for options, words in (
        ({"directory": "relative"}, "`directory` must be an absolute path"),
        ({"connections": 0}, "`connections` must be from 1 to 16, not 0"),
        ({"archive": {"changed": True}}, "is not the result of image_archive"),
        ({"docker_cli": "/nonexistent/docker"}, "There is no docker client on this host"),
        ({"peers": [["file:///etc/passwd"]]}, "is no URL of a share"),
    ):
        arguments = {"archive": builder.archive, "peers": [builder.urls], "directory": str(tmp_path / "in"), **options}
        result = run_module("image_receive", arguments)
        assert result["failed"]
        assert words in result["msg"]
    for options, words in (
        ({}, "nothing to share: give `path` or `archive`"),
        ({"path": str(tmp_path / "none")}, "is not an archive that image_archive wrote"),
        ({"path": "/a", "archive": builder.archive}, "not both"),
        ({"path": "/a", "bind": "host"}, "'host' is no IP address"),
        ({"path": "/a", "port": 70000}, "`port` must be from 0 to 65535"),
    ):
        result = run_module("image_share", options)
        assert result["failed"]
        assert words in result["msg"]


def test_sharing_is_idempotent_and_does_nothing_in_check_mode(builder: Builder, tmp_path: Path) -> None:
    path = builder.archive["path"]
    again = share(path=path)
    assert (again["changed"], again["urls"]) == (False, builder.urls)
    assert share(path=path, state="stopped", check=True)["changed"] is True
    assert share(path=path)["changed"] is False
    assert share(path=path, state="stopped")["changed"] is True
    would = share(path=path, check=True)
    assert (would["changed"], would["urls"], would["port"]) == (True, [], 0)
    assert not os.path.exists(Share.of_file(path).state)
    would = share(archive=builder.archive, directory=str(tmp_path / "in"), check=True)
    assert would["changed"] is True
    assert not (tmp_path / "in").exists()


def served(folder: Path) -> t.ContextManager[list[str]]:
    """Share a folder for the time of a with statement."""

    @contextlib.contextmanager
    def manage() -> t.Iterator[list[str]]:
        part = Share.of_folder(str(folder))
        noted = part.start("127.0.0.1", 0, 60)
        try:
            yield image_share.urls(noted, ["127.0.0.1"])
        finally:
            part.stop()

    return manage()


def chunk_bytes(directory: Path) -> int:
    """Return the bytes of whole chunks in the folders of a directory."""
    names = (path for path in directory.glob("*/*") if chunk_folder.is_chunk(path.name))
    return sum(path.stat().st_size for path in names if not path.name.endswith(".part"))


def wait_for(condition: t.Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


# ---------------------------------------------------------------- by way of a registry


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """A registry that the engine accepts, as it is on the loopback address."""
    folder = tmp_path_factory.mktemp("registry")
    with registry(folder) as name:
        yield name


def test_an_image_goes_through_a_registry_and_leaves_no_second_name(old: str, store: str) -> None:
    push = {"state": "pushed", "image": OLD, "registry": store}
    assert run_module("image_registry", push, check=True)["changed"] is True
    pushed = run_module("image_registry", push)
    assert (pushed["changed"], pushed["name"], pushed["id"]) == (True, f"{store}/{OLD}", old)
    assert identity(pushed["name"]) == ""
    assert run_module("image_registry", push)["changed"] is False
    forget()
    given = {key: pushed[key] for key in ("id", "layers", "settings")}
    pull = {"state": "pulled", "image": OLD, "registry": store, **given}
    assert run_module("image_registry", pull, check=True)["changed"] is True
    assert identity(OLD) == ""
    pulled = run_module("image_registry", pull)
    assert (pulled["changed"], pulled["id"]) == (True, old), pulled
    assert identity(OLD) == old
    assert identity(pushed["name"]) == ""
    assert run_module("image_registry", pull)["changed"] is False


def test_another_image_under_the_name_is_pushed_again_and_never_taken_for_the_wanted_one(old: str, store: str) -> None:
    push = {"state": "pushed", "image": OLD, "registry": f"{store}/below"}
    assert run_module("image_registry", push)["changed"] is True
    small_images.load(OLD, [libraries(), programs(3)])
    other = run_module("image_registry", push)
    assert other["changed"] is True
    forget()
    result = run_module("image_registry", {**push, "state": "pulled", "id": old})
    assert "somebody pushed another image under this name" in result["msg"]
    assert identity(OLD) == ""
    assert identity(other["name"]) == ""


@pytest.mark.usefixtures("old")
def test_a_second_name_that_somebody_gave_is_kept(store: str) -> None:
    small_images.load(NEW, [programs(3)])
    name, new = f"{store}/{OLD}", identity(NEW)
    docker("tag", NEW, name)
    try:
        assert run_module("image_registry", {"state": "pushed", "image": OLD, "registry": store})["name"] == name
        assert identity(name) == new
    finally:
        forget(name)


def test_registries_that_do_not_do_are_explained(old: str, store: str, tmp_path: Path) -> None:
    gateway = docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}").strip()
    page = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer((gateway, 0), page) as plain:
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        untrusted = f"{gateway}:{plain.server_address[1]}"
        rows: list[tuple[Data, str]] = [
            ({"state": "pushed", "registry": untrusted}, f"add {untrusted} to docker_engine_insecure_registries"),
            ({"state": "pushed", "registry": "127.0.0.1:1"}, "nothing listens there"),
            ({"state": "pulled", "registry": store, "image": f"{NAME}:none", "id": old}, "it does not have the image"),
            ({"state": "pulled", "registry": store, "image": f"{NAME}:none"}, "`id` is empty"),
            ({"state": "pushed", "registry": store, "image": f"{NAME}:none"}, "the engine has no such image"),
            ({"state": "pushed", "registry": store, "id": f"sha256:{'a' * 64}"}, "instead of sha256:aaa"),
            ({"state": "pushed", "registry": "http://x:5000"}, "is no name of a registry"),
            ({"state": "pushed", "registry": "registry"}, "takes 'registry' for a user of Docker Hub"),
            ({"state": "pushed", "registry": store, "image": f"{NAME}@sha256:{'a' * 64}"}, "cannot be pushed"),
            ({"state": "pushed", "registry": store, "layers": ["x"]}, "is no id or layer"),
        ]
        for arguments, words in rows:
            result = run_module("image_registry", {"image": OLD, **arguments})
            assert result["failed"]
            assert words in result["msg"], result["msg"]
        plain.shutdown()
    assert identity(f"{untrusted}/{OLD}") == ""
