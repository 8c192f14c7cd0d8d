"""Chunks between hosts: the real server process, the real fetcher, and peers with every fault."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import threading
import time
import typing as t
import urllib.parse
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import chunk_folder, chunk_server, image_share
from ansible.module_utils.llmfleet.chunk_fetch import Fetcher
from ansible.module_utils.llmfleet.chunk_peer import parse_peers
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.image_chunks import Archive, Chunk
from ansible.module_utils.llmfleet.image_identity import Image
from ansible.module_utils.llmfleet.image_share import Share

DIGEST = f"sha256:{'a' * 64}"
TOKEN = "t" * 32


class Sample(t.NamedTuple):
    """An archive: its parts, and what describes it."""

    parts: list[bytes]
    archive: Archive
    path: Path


def describe(parts: t.Sequence[bytes], path: Path) -> Archive:
    chunks = tuple(Chunk(len(part), hashlib.sha256(part).hexdigest(), 2 * len(part)) for part in parts)
    whole = hashlib.sha256(b"".join(parts)).hexdigest()
    return Archive(str(path), whole, chunks, (Image("a:1", DIGEST, (DIGEST,)),))


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """An archive of seven chunks, as image_archive leaves it."""
    rng = random.Random(4)
    parts = [rng.randbytes(size) for size in (10, 40_000, 300_000, 1, 65_536, 7, 100_000)]
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(b"".join(parts))
    archive = describe(parts, path)
    notes = {"key": {}, "mtime_ns": path.stat().st_mtime_ns, "archive": archive.as_data()}
    Path(f"{path}.json").write_text(json.dumps(notes))
    return Sample(parts, archive, path)


@contextlib.contextmanager
def shared(share: Share, idle_timeout: int = 60) -> t.Iterator[list[str]]:
    noted = share.start("127.0.0.1", 0, idle_timeout)
    try:
        yield image_share.urls(noted, ["127.0.0.1"])
    finally:
        share.stop()


def get(url: str, method: str = "GET") -> tuple[int, bytes, t.Any]:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.putrequest(method, parts.path + (f"?{parts.query}" if parts.query else ""), skip_host=False)
    connection.endheaders()
    answer = connection.getresponse()
    try:
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def fetch(
    sample: Sample,
    folder: Path,
    peers: t.Sequence[t.Sequence[str]],
    timeout: float = 1,
    connections: int = 2,
    hurry: float = 5,
) -> Fetcher:
    """Fetch the whole archive and check that it is the one; pauses between rounds are ``hurry`` times shorter."""
    folder.mkdir(exist_ok=True)
    fetcher = Fetcher(
        parse_peers(peers), str(folder), timeout, connections, lambda seconds: time.sleep(seconds / hurry)
    )
    fetcher.start(list(enumerate(sample.archive.chunks)))
    try:
        assert [fetcher.read(chunk) for chunk in sample.archive.chunks] == sample.parts
    finally:
        fetcher.stop()
    return fetcher


class Faulty:
    """A peer in a thread that serves ``parts`` its own way: ``serve`` gets the socket and the number of the chunk."""

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

    def __enter__(self) -> Faulty:
        return self

    def __exit__(self, *_: object) -> None:
        # shutting down wakes the thread in accept(), which closing alone does not
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def head(size: int, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{more}\r\n".encode()


# ---------------------------------------------------------------- the server


def test_a_file_is_served_in_chunks(sample: Sample) -> None:
    with shared(Share.of_file(str(sample.path))) as (url,):
        answers = [get(f"{url}/{number}") for number in range(len(sample.parts))]
    assert [(status, body) for status, body, _ in answers] == [(200, part) for part in sample.parts]


def test_nothing_but_chunks_is_served_and_those_only_with_the_token(sample: Sample) -> None:
    with shared(Share.of_file(str(sample.path))) as (url,):
        base, _, token = url.rpartition("/")
        refused = {
            f"{base}/{'x' * 32}/0": 403,
            f"{base}/{token[:-1]}/0": 403,
            f"{base}/0": 404,
            f"{base}/": 404,
            f"{base}/{token}": 404,
            f"{base}/{token}/": 404,
            f"{base}/{token}/7": 404,
            f"{base}/{token}/9999999": 404,
            f"{base}/{token}/-1": 404,
            f"{base}/{token}/0/../1": 404,
            f"{base}/{token}/../{token}/0": 404,
            f"{base}/{token}/archive.json": 404,
            f"{base}/{token}/%2e%2e/%2e%2e/etc/passwd": 404,
            f"{base}/../../etc/passwd": 404,
            f"{base}//etc/passwd": 404,
        }
        assert {path: get(path)[0] for path in refused} == refused
        assert all(get(path)[1] == b"" for path in refused)
        assert [get(f"{url}/0", method)[0] for method in ("HEAD", "POST", "PUT", "DELETE")] == [501] * 4


def test_a_replaced_file_stays_the_one_that_was_shared(sample: Sample) -> None:
    with shared(Share.of_file(str(sample.path))) as (url,):
        other = sample.path.with_name("other")
        other.write_bytes(bytes(sample.archive.size))
        other.replace(sample.path)
        assert get(f"{url}/1")[1] == sample.parts[1]
        sample.path.unlink()
        assert get(f"{url}/2")[1] == sample.parts[2]


def test_a_file_that_changed_since_it_was_written_is_not_shared(sample: Sample) -> None:
    with sample.path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(BadInput, match="is not an archive that image_archive wrote, or was changed since"):
        Share.of_file(str(sample.path)).start("127.0.0.1", 0, 60)


def test_a_chunk_that_is_to_come_is_waited_for(sample: Sample, tmp_path: Path) -> None:
    folder = Path(image_share.prepare_folder(str(tmp_path / "t"), sample.archive))
    with shared(Share.of_folder(str(folder))) as (url,):
        status, _, headers = get(f"{url}/2")
        assert (status, headers["X-Bytes"]) == (503, "0")

        def arrive() -> None:
            time.sleep(0.4)
            (folder / f"{sample.archive.chunks[2].sha256}.1.part").write_bytes(sample.parts[2])
            (folder / f"{sample.archive.chunks[2].sha256}.1.part").rename(folder / sample.archive.chunks[2].sha256)

        begun = time.monotonic()
        threading.Thread(target=arrive).start()
        assert get(f"{url}/2?wait=10")[:2] == (200, sample.parts[2])
        assert 0.2 < time.monotonic() - begun < 5
        assert get(f"{url}/1")[2]["X-Bytes"] == str(len(sample.parts[2]))


def test_a_chunk_that_will_not_come_is_not_waited_for(sample: Sample, tmp_path: Path) -> None:
    folder = Path(image_share.prepare_folder(str(tmp_path / "t"), sample.archive))
    (folder / chunk_folder.SKIPPED).write_text("[2]")
    with shared(Share.of_folder(str(folder))) as (url,):
        begun = time.monotonic()
        assert get(f"{url}/2?wait=10")[0] == 404
        assert time.monotonic() - begun < 5
        assert get(f"{url}/1")[0] == 503


def test_half_a_chunk_is_not_served(sample: Sample, tmp_path: Path) -> None:
    folder = Path(image_share.prepare_folder(str(tmp_path / "t"), sample.archive))
    (folder / f"{sample.archive.chunks[2].sha256}.1.part").write_bytes(sample.parts[2][:999])
    with shared(Share.of_folder(str(folder))) as (url,):
        status, _, headers = get(f"{url}/2")
    assert (status, headers["X-Bytes"]) == (503, "999")


def gone(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not chunk_server.start_time(pid) or image_share._is_dead(pid):
            return True
        time.sleep(0.05)
    return False


def test_a_server_that_nobody_asks_ends(sample: Sample) -> None:
    share = Share.of_file(str(sample.path))
    noted = share.start("127.0.0.1", 0, 3)
    (url,) = image_share.urls(noted, ["127.0.0.1"])
    for _ in range(8):
        time.sleep(0.5)
        assert get(f"{url}/0")[0] == 200  # who asks keeps it
    # a stranger does not
    stranger = f"{url.rpartition('/')[0]}/{'x' * 32}/0"
    until = time.monotonic() + 15
    while time.monotonic() < until and chunk_server.start_time(noted["pid"]):
        with contextlib.suppress(OSError, http.client.HTTPException):
            get(stranger)
        time.sleep(0.1)
    assert gone(noted["pid"], 1)
    assert not os.path.exists(share.state)


def test_a_server_takes_chunks_of_a_loaded_image_along_when_it_ends(sample: Sample, tmp_path: Path) -> None:
    folder = Path(image_share.prepare_folder(str(tmp_path / "t"), sample.archive))
    (folder / sample.archive.chunks[0].sha256).write_bytes(sample.parts[0])
    (folder / chunk_folder.LOADED).touch()
    noted = Share.of_folder(str(folder)).start("127.0.0.1", 0, 3)
    assert gone(noted["pid"], 20)
    assert not folder.exists()


def test_a_server_ends_when_its_notes_are_gone(sample: Sample) -> None:
    share = Share.of_file(str(sample.path))
    noted = share.start("127.0.0.1", 0, 60)
    os.unlink(share.state)
    assert gone(noted["pid"], 8)


def test_a_share_is_found_again_and_stopped_once(sample: Sample) -> None:
    share = Share.of_file(str(sample.path))
    noted = share.start("127.0.0.1", 0, 60)
    assert share.running() == noted
    assert oct(os.stat(share.state).st_mode & 0o777) == "0o600"
    assert TOKEN not in Path(f"/proc/{noted['pid']}/cmdline").read_text()
    assert noted["token"] not in Path(f"/proc/{noted['pid']}/cmdline").read_text()
    assert share.stop()
    assert gone(noted["pid"], 1)
    assert not share.stop()
    assert share.running() is None


def test_a_stopped_process_that_does_not_listen_is_ended(sample: Sample) -> None:
    share = Share.of_file(str(sample.path))
    noted = share.start("127.0.0.1", 0, 60)
    os.kill(noted["pid"], signal.SIGSTOP)
    assert share.stop()
    assert gone(noted["pid"], 1)


def test_another_process_with_the_same_number_is_left_alone(sample: Sample) -> None:
    share = Share.of_file(str(sample.path))
    Path(share.state).write_text(json.dumps({"pid": os.getpid(), "started": "1", "port": 1, "token": TOKEN}))
    assert share.running() is None
    assert not share.stop()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": "x", "started": "1"}'])
def test_damaged_notes_are_none(sample: Sample, content: str) -> None:
    share = Share.of_file(str(sample.path))
    Path(share.state).write_text(content)
    assert share.running() is None


def test_a_port_that_is_taken_is_said(sample: Sample) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LlmfleetError) as caught:
        Share.of_file(str(sample.path)).start("127.0.0.1", taken.getsockname()[1], 60)
    assert "Address already in use" in str(caught.value)
    assert "choose another `bind` or `port`" in str(caught.value)


def test_every_address_means_both_families(sample: Sample) -> None:
    share = Share.of_file(str(sample.path))
    noted = share.start("", 0, 60)
    try:
        reached = [get(f"{url}/0")[0] for url in image_share.urls(noted, ["127.0.0.1", *_ipv6_loopback()])]
    finally:
        share.stop()
    assert set(reached) == {200}


def _ipv6_loopback() -> list[str]:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return []
    return ["::1"]


def test_too_many_connections_do_no_harm(sample: Sample) -> None:
    with shared(Share.of_file(str(sample.path))) as (url,):
        parts = urllib.parse.urlsplit(url)
        address = (parts.hostname or "", parts.port or 0)
        idle = [socket.create_connection(address) for _ in range(chunk_server.MOST_CONNECTIONS + 20)]
        for connection in idle:
            connection.close()
        time.sleep(0.2)
        assert get(f"{url}/0")[0] == 200


# ---------------------------------------------------------------- fetching


def test_all_is_fetched_from_one(sample: Sample, tmp_path: Path) -> None:
    with shared(Share.of_file(str(sample.path))) as urls:
        fetcher = fetch(sample, tmp_path / "in", [urls])
    assert [peer.got for peer in fetcher.peers] == [sample.archive.size]


def test_a_dead_host_is_passed_over(sample: Sample, tmp_path: Path) -> None:
    with shared(Share.of_file(str(sample.path))) as urls:
        fetcher = fetch(sample, tmp_path / "in", [["http://127.0.0.1:1/" + TOKEN], urls])
    assert [peer.got for peer in fetcher.peers] == [0, sample.archive.size]
    assert "refused" in fetcher.peers[0].said


def test_another_address_of_the_same_host_is_tried(sample: Sample, tmp_path: Path) -> None:
    with shared(Share.of_file(str(sample.path))) as urls:
        fetcher = fetch(sample, tmp_path / "in", [["http://127.0.0.1:1/" + TOKEN, *urls]])
    assert fetcher.peers[0].name == urllib.parse.urlsplit(urls[0]).netloc


def test_a_wrong_token_is_passed_over(sample: Sample, tmp_path: Path) -> None:
    with shared(Share.of_file(str(sample.path))) as urls:
        wrong = urls[0].rpartition("/")[0] + "/" + TOKEN
        fetcher = fetch(sample, tmp_path / "in", [[wrong], urls])
        assert "does not take the token" in fetcher.peers[0].said
        with pytest.raises(LlmfleetError, match="does not take the token"):
            fetch(sample, tmp_path / "in2", [[wrong]])


def test_a_host_that_says_nothing_is_passed_over(sample: Sample, tmp_path: Path) -> None:
    with shared(Share.of_file(str(sample.path))) as urls, Faulty(lambda *_: time.sleep(9)) as mute:
        begun = time.monotonic()
        fetcher = fetch(sample, tmp_path / "in", [mute.urls, urls])
        assert time.monotonic() - begun < 6
    assert fetcher.peers[0].said == "no answer in time"
    assert len(mute.asked) <= 2 * len(sample.parts)


def test_a_host_that_stalls_in_the_middle_is_passed_over(sample: Sample, tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        part = sample.parts[number]
        connection.sendall(head(len(part)) + part[: len(part) // 2])
        time.sleep(9)

    with shared(Share.of_file(str(sample.path))) as urls, Faulty(serve) as stalled:
        begun = time.monotonic()
        fetcher = fetch(sample, tmp_path / "in", [stalled.urls, urls])
        assert time.monotonic() - begun < 6
    assert fetcher.peers[0].got == 0


def test_a_host_that_trickles_is_passed_over(sample: Sample, tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        part = sample.parts[number]
        connection.sendall(head(len(part)))
        for octet in part:
            connection.sendall(bytes([octet]))
            time.sleep(0.05)

    with shared(Share.of_file(str(sample.path))) as urls, Faulty(serve) as slow:
        fetcher = fetch(sample, tmp_path / "in", [slow.urls, urls])
    assert "it gives only" in fetcher.peers[0].said


def test_a_host_that_gives_wrong_data_is_not_believed_and_soon_not_asked(sample: Sample, tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        part = sample.parts[number]
        connection.sendall(head(len(part)) + part[:-1] + bytes([part[-1] ^ 1]))

    with shared(Share.of_file(str(sample.path))) as urls, Faulty(serve) as liar:
        fetcher = fetch(sample, tmp_path / "in", [liar.urls, urls])
        assert len(liar.asked) <= 3
        assert [peer.got for peer in fetcher.peers] == [0, sample.archive.size]
        assert "does not have the right digest" in fetcher.peers[0].said
        with pytest.raises(LlmfleetError, match="does not have the right digest"):
            fetch(sample, tmp_path / "in2", [liar.urls])
    assert not [name for name in os.listdir(tmp_path / "in2") if name.endswith(".part")]


def test_a_host_with_another_archive_is_passed_over(sample: Sample, tmp_path: Path) -> None:
    def serve(connection: socket.socket, _: int) -> None:
        connection.sendall(head(5) + b"other")

    with shared(Share.of_file(str(sample.path))) as urls, Faulty(serve) as other:
        fetcher = fetch(sample, tmp_path / "in", [other.urls, urls])
    assert "it has another archive" in fetcher.peers[0].said


@pytest.mark.parametrize(
    "answer", [b"", b"rubbish\r\n\r\n", head(0, "500 Oops"), head(0, "503 Later"), b"HTTP/1.1 200 O"]
)
def test_rubbish_is_passed_over(sample: Sample, tmp_path: Path, answer: bytes) -> None:
    def serve(connection: socket.socket, _: int) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    with shared(Share.of_file(str(sample.path))) as urls, Faulty(serve) as odd:
        fetcher = fetch(sample, tmp_path / "in", [odd.urls, urls])
    assert fetcher.peers[0].got == 0


@pytest.mark.parametrize("place", [0, 1, 2, 50, 99])
def test_a_connection_may_break_at_any_byte(sample: Sample, tmp_path: Path, place: int) -> None:
    """Every chunk breaks once, headers included, at ``place`` percent of what is sent."""
    broken: set[int] = set()

    def serve(connection: socket.socket, number: int) -> None:
        said = head(len(sample.parts[number])) + sample.parts[number]
        if number not in broken:
            broken.add(number)
            connection.sendall(said[: len(said) * place // 100])
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(said)

    with Faulty(serve) as flaky:
        fetch(sample, tmp_path / "in", [flaky.urls])
    assert broken == set(range(len(sample.parts)))


def test_connections_are_used_again_and_nothing_is_asked_twice(sample: Sample, tmp_path: Path) -> None:
    used: set[t.Any] = set()

    def serve(connection: socket.socket, number: int) -> None:
        used.add(connection.getpeername())
        connection.sendall(head(len(sample.parts[number])) + sample.parts[number])

    with Faulty(serve) as host:
        fetch(sample, tmp_path / "in", [host.urls], connections=2)
        assert sorted(host.asked) == list(range(len(sample.parts)))
    assert len(used) <= 2


def test_without_anybody_it_gives_up_soon_says_why_and_keeps_what_came(sample: Sample, tmp_path: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        if number < 3:
            connection.sendall(head(len(sample.parts[number])) + sample.parts[number])
        else:
            connection.shutdown(socket.SHUT_RDWR)

    begun = time.monotonic()
    with Faulty(serve) as half, pytest.raises(LlmfleetError) as caught:
        fetch(sample, tmp_path / "in", [["http://127.0.0.1:1/" + TOKEN], half.urls], connections=1)
    assert time.monotonic() - begun < 20
    assert "no host gives chunk 3 (127.0.0.1:1: Connection refused; 127.0.0.1:" in str(caught.value)
    assert "what has arrived is kept, and the next run goes on from it" in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert sorted(os.listdir(tmp_path / "in")) == sorted(chunk.sha256 for chunk in sample.archive.chunks[:3])


def test_a_receiver_passes_on_what_it_is_still_receiving(sample: Sample, tmp_path: Path) -> None:
    """Host 2 asks host 1 only, and host 1 has nothing when both begin; the first one's source is slow."""

    def serve(connection: socket.socket, number: int) -> None:
        time.sleep(0.3)
        connection.sendall(head(len(sample.parts[number])) + sample.parts[number])

    first = Path(image_share.prepare_folder(str(tmp_path / "1"), sample.archive))
    with Faulty(serve) as builder, shared(Share.of_folder(str(first))) as urls:
        results: list[Fetcher] = []
        peers = [urls, builder.urls]
        second = threading.Thread(target=lambda: results.append(fetch(sample, tmp_path / "2", peers, timeout=10)))
        second.start()
        fetch(sample, first, [builder.urls])
        second.join()
    assert [peer.got for peer in results[0].peers] == [sample.archive.size, 0]
    assert sorted(builder.asked) == list(range(len(sample.parts)))


def test_a_parent_that_gets_nothing_is_bridged(sample: Sample, tmp_path: Path) -> None:
    first = image_share.prepare_folder(str(tmp_path / "1"), sample.archive)
    with shared(Share.of_file(str(sample.path))) as builder, shared(Share.of_folder(first)) as urls:
        fetcher = fetch(sample, tmp_path / "2", [urls, builder])
    assert [peer.got for peer in fetcher.peers] == [0, sample.archive.size]
    assert "got nothing new" in fetcher.peers[0].said


def test_a_parent_with_the_image_is_bridged_at_once(sample: Sample, tmp_path: Path) -> None:
    first = Path(image_share.prepare_folder(str(tmp_path / "1"), sample.archive))
    (first / chunk_folder.SKIPPED).write_text(json.dumps(list(range(len(sample.parts)))))
    with shared(Share.of_file(str(sample.path))) as builder, shared(Share.of_folder(str(first))) as urls:
        begun = time.monotonic()
        fetch(sample, tmp_path / "2", [urls, builder], timeout=10)
        assert time.monotonic() - begun < 3


def test_a_killed_server_that_comes_back_on_its_port_is_used_again(sample: Sample, tmp_path: Path) -> None:
    """kill -9 of the server in the middle: what is asked later waits for it within the rounds."""
    share = Share.of_file(str(sample.path))
    noted = share.start("127.0.0.1", 0, 60)
    os.kill(noted["pid"], signal.SIGKILL)
    assert gone(noted["pid"], 3)
    threading.Timer(0.2, lambda: _revive(share, noted)).start()
    try:
        fetch(sample, tmp_path / "in", [image_share.urls(noted, ["127.0.0.1"])], hurry=0.3)
    finally:
        share.stop()


def _revive(share: Share, noted: dict[str, t.Any]) -> None:
    settings = {**noted, "idle_timeout": 60, "state": share.state, "record": share.record, "file": share.file}
    assert Share._run({**settings, "folder": ""}) != {}


@pytest.mark.parametrize(
    "row",
    [
        ["ftp://127.0.0.1:1/" + TOKEN],
        ["http://127.0.0.1/" + TOKEN],
        ["http://127.0.0.1:1/"],
        ["http://127.0.0.1:1/" + TOKEN + "/0"],
        ["http://user@127.0.0.1:1/" + TOKEN],
        [""],
    ],
)
def test_what_is_no_share_is_refused(row: list[str]) -> None:
    with pytest.raises(BadInput, match="is no URL of a share") as caught:
        parse_peers([row])
    assert TOKEN not in str(caught.value)


def test_nobody_to_ask_is_refused() -> None:
    with pytest.raises(BadInput, match="names nobody"):
        parse_peers([[]])
