"""Models between hosts: real servers, real files, several receivers, and every fault on the way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import chunk_in_place, image_share
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import journal, model_chunks, store, swarm
from ansible.module_utils.llmfleet.hub.digest import expected
from ansible.module_utils.llmfleet.hub.manifest import SAFETENSORS, Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.place import Place
from ansible.module_utils.llmfleet.hub.progress import State
from hypothesis import given
from hypothesis import strategies as st
from model_share import share_of

TOKEN = "t" * 32
NAMES = ["name", "key", "chunk_bytes", "files", "path", "size", "chunks"]
STEP = 64 << 10
REPO, COMMIT = "org/tiny-hf", "c" * 40
SIZES = {"config.json": 700, "empty.txt": 0, "model-1.safetensors": 5 * STEP + 17, "sub/model-2.safetensors": 3 * STEP}


def blob_id(data: bytes) -> str:
    return hashlib.new("sha1", b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Sample(t.NamedTuple):
    """A model, the host that has it, and the record of its chunks."""

    contents: dict[str, bytes]
    manifest: Manifest
    place: Place
    archive: dict[str, t.Any]


def whole_model(place: Place, sizes: t.Mapping[str, int] = SIZES, seed: int = 1) -> tuple[dict[str, bytes], Manifest]:
    """Write a model as another host would have published it."""
    rng = random.Random(seed)
    contents = {path: rng.randbytes(size) for path, size in sizes.items()}
    files = []
    for path, data in contents.items():
        target = Path(place.snapshot(COMMIT)) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        large = path.endswith(".safetensors")
        digest = {"sha256": hashlib.sha256(data).hexdigest()} if large else {"blob_id": blob_id(data)}
        files.append(RepoFile(path, len(data), **digest))
    return contents, Manifest(REPO, COMMIT, SAFETENSORS, tuple(files))


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    place = Place(str(tmp_path / "first"), REPO)
    contents, manifest = whole_model(place)
    record = model_chunks.make(manifest, place.snapshot(COMMIT), STEP)
    return Sample(contents, manifest, place, json.loads(json.dumps(record.as_data())))


@contextlib.contextmanager
def shared(sample: Sample, place: Place | None = None) -> t.Iterator[list[str]]:
    """Share the model of a host, or what arrives there."""
    place = place or sample.place
    model_chunks.save(place, model_chunks.record_from(sample.archive, sample.manifest))
    share = share_of(place, sample.manifest)
    noted = share.start("127.0.0.1", 0, 60)
    try:
        yield image_share.urls(noted, ["127.0.0.1"])
    finally:
        share.stop()


def receive(sample: Sample, place: Place, *peers: list[str], hurry: float = 5, **options: t.Any) -> swarm.Stats:
    options.setdefault("timeout", 1.0)
    return swarm.receive(
        sample.manifest, sample.archive, peers, place, sleep=lambda seconds: time.sleep(seconds / hurry), **options
    )


def arrived(sample: Sample, place: Place) -> dict[str, bytes]:
    folder = Path(place.incoming(sample.manifest.key))
    return {path: (folder / path).read_bytes() for path in sample.contents}


def published(sample: Sample, place: Place) -> dict[str, bytes]:
    folder = Path(place.snapshot(COMMIT))
    return {path: (folder / path).read_bytes() for path in sample.contents}


class Odd:
    """A peer in a thread that answers its own way: ``serve`` gets the socket and the number of the chunk."""

    def __init__(self, serve: t.Callable[[socket.socket, int], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.urls = [f"http://127.0.0.1:{self._listener.getsockname()[1]}/{TOKEN}"]
        self.asked: list[int] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"GET"):
                    number = int(line.split(b"/")[2].split(b"?")[0])
                elif line == b"\r\n":
                    self.asked.append(number)
                    self._serve(connection, number)

    def __enter__(self) -> Odd:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def chunk_of(sample: Sample, number: int) -> bytes:
    path, offset, size = chunk_in_place.places(sample.archive)[number]
    return sample.contents[path][offset : offset + size]


def head(size: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()


def honest(sample: Sample) -> t.Callable[[socket.socket, int], None]:
    def serve(connection: socket.socket, number: int) -> None:
        part = chunk_of(sample, number)
        connection.sendall(head(len(part)) + part)

    return serve


def count(sample: Sample) -> int:
    return len(chunk_in_place.places(sample.archive))


# ---------------------------------------------------------------- the record


def test_a_record_comes_back_as_it_went(sample: Sample) -> None:
    record = model_chunks.record_from(sample.archive, sample.manifest)
    assert record.as_data() == sample.archive
    assert b"".join(chunk_of(sample, number) for number in range(count(sample))) == b"".join(sample.contents.values())
    for number, piece in enumerate(record.pieces()):
        assert hashlib.sha256(chunk_of(sample, number)).hexdigest() == piece.sha256


def test_a_record_is_kept_and_found(sample: Sample) -> None:
    record = model_chunks.record_from(sample.archive, sample.manifest)
    assert model_chunks.load(sample.place, sample.manifest) is None
    path = model_chunks.save(sample.place, record)
    assert model_chunks.load(sample.place, sample.manifest) == record
    Path(path).write_text("{")
    assert model_chunks.load(sample.place, sample.manifest) is None


def test_notes_of_shares_are_no_notes_of_commits(sample: Sample) -> None:
    with shared(sample):
        assert not [path for path in Path(sample.place.own).iterdir() if path.suffix == ".json"]


@pytest.mark.parametrize("path", ["config.json", "model-1.safetensors", "sub/model-2.safetensors"])
def test_damage_is_not_shared(sample: Sample, path: str) -> None:
    target = Path(sample.place.snapshot(COMMIT)) / path
    data = bytearray(target.read_bytes())
    data[-1] ^= 1
    target.write_bytes(data)
    with pytest.raises(LlmfleetError, match=f"{path} is damaged: it has not the .*verify: full"):
        model_chunks.make(sample.manifest, sample.place.snapshot(COMMIT), STEP)
    target.write_bytes(data[:-1])
    with pytest.raises(LlmfleetError, match=f"{path} is damaged: it has {len(data) - 1} bytes instead of {len(data)}"):
        model_chunks.make(sample.manifest, sample.place.snapshot(COMMIT), STEP)
    target.unlink()
    with pytest.raises(LlmfleetError, match=f"{path} cannot be shared: No such file"):
        model_chunks.make(sample.manifest, sample.place.snapshot(COMMIT), STEP)


def change(data: dict[str, t.Any], *way: t.Any) -> dict[str, t.Any]:
    *path, key, value = way
    data = json.loads(json.dumps(data))
    inner: t.Any = data
    for step in path:
        inner = inner[step]
    inner[key] = value
    return data


@pytest.mark.parametrize(
    "way",
    [
        ("files", 1),
        ("files", []),
        ("files", 2, "size", 5),
        ("files", 2, "path", "other"),
        ("files", 2, "path", "../../etc/passwd"),
        ("files", 2, "chunks", []),
        ("files", 2, "chunks", 0, "x"),
        ("chunk_bytes", 0),
        ("chunk_bytes", -1),
        ("chunk_bytes", "much"),
        ("key", "0" * 16),
    ],
)
def test_what_is_no_record_of_this_model_is_refused(sample: Sample, tmp_path: Path, way: tuple[t.Any, ...]) -> None:
    broken = sample._replace(archive=change(sample.archive, *way))
    with pytest.raises(BadInput):
        receive(broken, Place(str(tmp_path / "in"), REPO), ["http://127.0.0.1:1/" + TOKEN])
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("archive", [{}, {"files": None}, {"key": "x", "chunk_bytes": 1, "files": [[]]}])
def test_what_is_no_record_at_all_is_refused(sample: Sample, archive: dict[str, t.Any]) -> None:
    with pytest.raises(BadInput, match="is not what model_share returned"):
        model_chunks.record_from(archive, sample.manifest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
def test_no_nonsense_passes_for_a_record(data: dict[str, t.Any]) -> None:
    manifest = Manifest(REPO, COMMIT, SAFETENSORS, (RepoFile("a", 3, sha256="0" * 64),))
    with pytest.raises(BadInput):
        model_chunks.record_from(data, manifest)


@pytest.mark.parametrize("total", [0, 1, 16 << 20, 128 << 30, (128 << 30) + 1, 1 << 40, 1 << 42])
def test_records_stay_small(total: int) -> None:
    size = model_chunks.chunk_size(total)
    assert size >= model_chunks.SMALLEST
    assert total / size <= model_chunks.MOST


# ---------------------------------------------------------------- receiving


def test_a_model_is_received_published_and_served_on(sample: Sample, tmp_path: Path) -> None:
    second, third = Place(str(tmp_path / "2"), REPO), Place(str(tmp_path / "3"), REPO)
    with shared(sample) as first, shared(sample, second) as urls:
        stats = receive(sample, second, first)
        assert arrived(sample, second) == sample.contents
        assert (stats.fetched, stats.kept) == (sample.manifest.size, 0)
        assert stats.peers == {first[0].split("/")[2]: sample.manifest.size}
        store.publish(second, sample.manifest)
        assert published(sample, second) == sample.contents
        assert not os.path.exists(second.incoming(sample.manifest.key))
        assert receive(sample, third, urls).fetched == sample.manifest.size
        assert arrived(sample, third) == sample.contents


def test_progress_is_told_and_logged(sample: Sample, tmp_path: Path) -> None:
    told: list[State] = []
    log = tmp_path / "log"

    def serve(connection: socket.socket, number: int) -> None:
        time.sleep(0.3)
        honest(sample)(connection, number)

    with Odd(serve) as has:
        place = Place(str(tmp_path / "2"), REPO)
        receive(sample, place, has.urls, progress=told.append, log=str(log), interval=0.0, connections=1)
    assert len(told) > 2
    assert [state.done for state in told] == sorted(state.done for state in told)
    assert (told[-1].done, told[-1].files_done, told[-1].working_on) == (sample.manifest.size, len(SIZES), "")
    assert len(log.read_text().splitlines()) == len(told)
    assert "100 %" in log.read_text().splitlines()[-1]


def test_a_host_passes_on_what_it_is_still_receiving(sample: Sample, tmp_path: Path) -> None:
    """Three hosts in a row; only the first asks the one that has the model, which is slow."""
    asked: list[int] = []

    def serve(connection: socket.socket, number: int) -> None:
        asked.append(number)
        time.sleep(0.15)
        honest(sample)(connection, number)

    places = [Place(str(tmp_path / str(number)), REPO) for number in range(3)]
    with contextlib.ExitStack() as stack:
        has = stack.enter_context(Odd(serve))
        urls = [stack.enter_context(shared(sample, place)) for place in places]
        results: dict[int, swarm.Stats] = {}

        def run(number: int) -> None:
            peers = [*reversed(urls[:number]), has.urls]
            results[number] = receive(sample, places[number], *peers, timeout=10)
            store.publish(places[number], sample.manifest)

        threads = [threading.Thread(target=run, args=(number,)) for number in (2, 1, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(asked) == list(range(count(sample)))
    for number, place in enumerate(places):
        assert published(sample, place) == sample.contents
        assert len(results[number].peers) == 1


def test_only_the_files_that_are_missing_are_fetched_and_all_are_passed_on(sample: Sample, tmp_path: Path) -> None:
    second, third = Place(str(tmp_path / "2"), REPO), Place(str(tmp_path / "3"), REPO)
    here = Path(second.snapshot(COMMIT)) / "model-1.safetensors"
    here.parent.mkdir(parents=True)
    here.write_bytes(sample.contents["model-1.safetensors"])
    wanted = [path for path in SIZES if path != "model-1.safetensors"]
    with shared(sample) as first, shared(sample, second) as urls:
        stats = receive(sample, second, first, paths=wanted)
        assert stats.fetched == sample.manifest.size - SIZES["model-1.safetensors"]
        assert not os.path.exists(os.path.join(second.incoming(sample.manifest.key), "model-1.safetensors"))
        assert receive(sample, third, urls).fetched == sample.manifest.size
    assert arrived(sample, third) == sample.contents


def test_a_file_that_a_host_neither_has_nor_gets_is_asked_for_elsewhere(sample: Sample, tmp_path: Path) -> None:
    second, third = Place(str(tmp_path / "2"), REPO), Place(str(tmp_path / "3"), REPO)
    with shared(sample) as first, shared(sample, second) as urls:
        receive(sample, second, first, paths=["config.json"])
        begun = time.monotonic()
        stats = receive(sample, third, urls, first, timeout=120)
        assert time.monotonic() - begun < 100  # it was told at once, not by silence
    assert stats.peers == {urls[0].split("/")[2]: SIZES["config.json"], first[0].split("/")[2]: stats.fetched - 700}
    assert arrived(sample, third) == sample.contents


def test_a_file_of_another_snapshot_is_not_written_to(sample: Sample, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "2"), REPO)
    other = tmp_path / "other"
    other.write_bytes(b"x" * SIZES["model-1.safetensors"])
    Path(place.incoming(sample.manifest.key)).mkdir(parents=True)
    os.link(other, os.path.join(place.incoming(sample.manifest.key), "model-1.safetensors"))
    with shared(sample) as first:
        receive(sample, place, first)
    assert arrived(sample, place) == sample.contents
    assert other.read_bytes() == b"x" * SIZES["model-1.safetensors"]


# ---------------------------------------------------------------- what goes wrong


def test_what_came_is_kept_and_not_fetched_again(sample: Sample, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "2"), REPO)

    def serve(connection: socket.socket, number: int) -> None:
        if number < 4:
            honest(sample)(connection, number)
        else:
            connection.shutdown(socket.SHUT_RDWR)

    with Odd(serve) as half, pytest.raises(LlmfleetError) as caught:
        receive(sample, place, half.urls, connections=1)
    assert "no host gives chunk 4" in str(caught.value)
    assert "what has arrived is kept" in str(caught.value)
    assert TOKEN not in str(caught.value)
    with Odd(honest(sample)) as rest:
        stats = receive(sample, place, rest.urls, connections=1)
        assert sorted(rest.asked) == list(range(4, count(sample)))
    assert stats.kept + stats.fetched == sample.manifest.size
    assert arrived(sample, place) == sample.contents
    with Odd(honest(sample)) as nobody:
        assert receive(sample, place, nobody.urls).fetched == 0
        assert not nobody.asked


def test_transfer_finds_what_came_and_the_other_way_round(sample: Sample, tmp_path: Path) -> None:
    """The rest may come from outside: the notes of both ways are about the same bytes."""
    place = Place(str(tmp_path / "2"), REPO)
    folder = Path(place.incoming(sample.manifest.key))
    large = next(file for file in sample.manifest.files if file.path == "model-1.safetensors")

    def serve(connection: socket.socket, number: int) -> None:
        if number == 1:  # the second chunk: the first of the large file, behind config.json
            connection.shutdown(socket.SHUT_RDWR)
        else:
            honest(sample)(connection, number)

    with Odd(serve) as half, pytest.raises(LlmfleetError):
        receive(sample, place, half.urls, connections=2)
    notes = journal.Journal(str(folder / ".journal"), large.path, expected(large))
    notes.read()
    assert notes.size == large.size
    assert notes.have.reach(0) == 0
    assert notes.have.total >= STEP or chunk_in_place.places(sample.archive)[2][0] != large.path
    # now "from outside": the rest but for the last chunk
    handle = os.open(folder / large.path, os.O_WRONLY)
    os.pwrite(handle, sample.contents[large.path][: 5 * STEP], 0)
    os.close(handle)
    notes.add(0, 5 * STEP)
    notes.close()
    with Odd(honest(sample)) as rest:
        receive(sample, place, rest.urls)
        brought = {chunk_in_place.places(sample.archive)[number][:2] for number in rest.asked}
    assert not {(large.path, number * STEP) for number in range(5)} & brought
    assert arrived(sample, place) == sample.contents


def test_bytes_that_are_noted_but_wrong_are_fetched_again(sample: Sample, tmp_path: Path) -> None:
    """As after a power failure: the notes reached the disk, the bytes did not."""
    place = Place(str(tmp_path / "2"), REPO)
    with Odd(honest(sample)) as has:
        receive(sample, place, has.urls)
        target = Path(place.incoming(sample.manifest.key)) / "model-1.safetensors"
        with target.open("r+b") as file:
            file.seek(2 * STEP)
            file.write(bytes(STEP))
        has.asked.clear()
        stats = receive(sample, place, has.urls)
        assert [chunk_in_place.places(sample.archive)[n] for n in has.asked] == [(target.name, 2 * STEP, STEP)]
    assert stats.fetched == STEP
    assert arrived(sample, place) == sample.contents


@pytest.mark.parametrize("torn", [b"5", b"-3", b"\x00\x00", b"17 "])
def test_a_torn_note_is_none(sample: Sample, tmp_path: Path, torn: bytes) -> None:
    place = Place(str(tmp_path / "2"), REPO)

    def serve(connection: socket.socket, number: int) -> None:
        if number < 2:
            honest(sample)(connection, number)
        else:
            connection.shutdown(socket.SHUT_RDWR)

    with Odd(serve) as half, pytest.raises(LlmfleetError):
        receive(sample, place, half.urls, connections=1)
    note = Path(place.incoming(sample.manifest.key)) / chunk_in_place.JOURNAL
    note.write_bytes(note.read_bytes() + torn)
    with Odd(honest(sample)) as rest:
        receive(sample, place, rest.urls)
        assert sorted(rest.asked) == list(range(2, count(sample)))
    lines = note.read_bytes().split(b"\n")
    assert sorted(int(line) for line in lines[1:-1]) == list(range(count(sample)))
    assert arrived(sample, place) == sample.contents


def test_notes_about_another_record_are_not_believed(sample: Sample, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "2"), REPO)
    other = model_chunks.make(sample.manifest, sample.place.snapshot(COMMIT), STEP // 2).as_data()
    with Odd(honest(sample)) as has:
        receive(sample, place, has.urls)
    again = sample._replace(archive=other)
    with Odd(honest(again)) as has:
        stats = receive(again, place, has.urls)
        assert not has.asked  # what is here is found right by its content
    assert stats.kept == sample.manifest.size


def test_a_host_that_gives_wrong_data_is_not_believed(sample: Sample, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "2"), REPO)

    def serve(connection: socket.socket, number: int) -> None:
        part = chunk_of(sample, number)
        connection.sendall(head(len(part)) + part[:-1] + bytes([part[-1] ^ 1]))

    with Odd(serve) as liar, shared(sample) as first:
        stats = receive(sample, place, liar.urls, first)
        assert len(liar.asked) <= 5
        assert list(stats.peers) == [first[0].split("/")[2]]
    assert arrived(sample, place) == sample.contents


def test_a_record_of_damaged_files_is_found_out_and_nothing_of_them_is_kept(sample: Sample, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "2"), REPO)
    contents = dict(sample.contents)
    contents["model-1.safetensors"] = bytes(SIZES["model-1.safetensors"])
    lying = sample._replace(contents=contents)
    for row in lying.archive["files"]:
        data = contents[row["path"]]
        row["chunks"] = [hashlib.sha256(data[at : at + STEP]).hexdigest() for at in range(0, len(data), STEP)]
    with Odd(honest(lying)) as has, pytest.raises(LlmfleetError) as caught:
        receive(lying, place, has.urls)
    assert "model-1.safetensors of org/tiny-hf arrived with sha256 " in str(caught.value)
    assert "`verify: full` on the host that shares it" in str(caught.value)
    file = next(file for file in sample.manifest.files if file.path == "model-1.safetensors")
    notes = journal.Journal(place.incoming(sample.manifest.key) + "/.journal", file.path, expected(file))
    notes.read()
    assert notes.have.total == 0
    assert not notes.verified


@pytest.mark.parametrize("place_of_cut", [0, 1, 40, 99])
def test_a_connection_may_break_at_any_byte(sample: Sample, tmp_path: Path, place_of_cut: int) -> None:
    place, broken = Place(str(tmp_path / "2"), REPO), set[int]()

    def serve(connection: socket.socket, number: int) -> None:
        said = head(len(chunk_of(sample, number))) + chunk_of(sample, number)
        if number not in broken:
            broken.add(number)
            connection.sendall(said[: len(said) * place_of_cut // 100])
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(said)

    with Odd(serve) as flaky:
        receive(sample, place, flaky.urls)
    assert broken == set(range(count(sample)))
    assert arrived(sample, place) == sample.contents


def test_a_wrong_token_is_said(sample: Sample, tmp_path: Path) -> None:
    with shared(sample) as urls, pytest.raises(LlmfleetError, match="does not take the token") as caught:
        receive(sample, Place(str(tmp_path / "2"), REPO), [urls[0].rpartition("/")[0] + "/" + TOKEN])
    assert TOKEN not in str(caught.value)


def test_no_room_is_said_before_anything_is_fetched(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "RESERVE", 1 << 60)
    with (
        Odd(honest(sample)) as has,
        pytest.raises(LlmfleetError, match=r"bytes free and .* must stay free"),
    ):
        receive(sample, Place(str(tmp_path / "2"), REPO), has.urls)
    assert not has.asked


def test_a_killed_receiver_goes_on_where_it_was(sample: Sample, tmp_path: Path) -> None:
    """kill -9 of a receiving process in the middle: what it noted is neither fetched nor asked for again."""
    place = Place(str(tmp_path / "2"), REPO)
    lock, before = threading.Lock(), 5
    served: list[int] = []

    def serve(connection: socket.socket, number: int) -> None:
        with lock:
            served.append(number)
            late = len(served) > before
        if late and not killed.is_set():
            connection.sendall(head(len(chunk_of(sample, number))) + chunk_of(sample, number)[:100])
            time.sleep(9)
        else:
            honest(sample)(connection, number)

    killed = threading.Event()
    with Odd(serve) as has:
        program = (
            "import sys, json; sys.path.insert(0, sys.argv[1]); import conftest;"
            "from ansible.module_utils.llmfleet.hub import swarm;"
            "from ansible.module_utils.llmfleet.hub.manifest import manifest_from;"
            "from ansible.module_utils.llmfleet.hub.place import Place;"
            "data = json.load(sys.stdin);"
            "swarm.receive(manifest_from(data['manifest']), data['archive'], [data['urls']],"
            " Place(sys.argv[2], data['manifest']['repo']), connections=2, timeout=30)"
        )
        tests = str(Path(__file__).resolve().parents[1])
        process = subprocess.Popen([sys.executable, "-c", program, tests, place.dest], stdin=subprocess.PIPE)
        assert process.stdin
        said = {"manifest": sample.manifest.as_data(), "archive": sample.archive, "urls": has.urls}
        process.stdin.write(json.dumps(said).encode())
        process.stdin.close()
        note = Path(place.incoming(sample.manifest.key)) / chunk_in_place.JOURNAL
        until = time.monotonic() + 30
        while time.monotonic() < until and not (note.exists() and len(note.read_bytes().split(b"\n")) - 2 >= before):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        killed.set()
        noted = {int(line) for line in note.read_bytes().split(b"\n")[1:-1]}
        assert len(noted) >= before
        has.asked.clear()
        stats = receive(sample, place, has.urls)
        assert set(has.asked) == set(range(count(sample))) - noted
    assert stats.kept == sum(len(chunk_of(sample, number)) for number in noted)
    assert arrived(sample, place) == sample.contents
