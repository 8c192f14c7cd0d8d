"""Transfers from a real and often broken server: whole and verified in the end, or refused in one sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import random
import signal
import subprocess
import sys
import threading
import time
import types
import typing as t
import urllib.request
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub import desk, intake, part
from ansible.module_utils.llmfleet.hub.manifest import RepoFile
from ansible.module_utils.llmfleet.hub.progress import State
from ansible.module_utils.llmfleet.hub.reply import UNKNOWN, Broken, Reply, file_reply
from ansible.module_utils.llmfleet.hub.transfer import Stats, Transfer
from ansible.module_utils.llmfleet.hub.web import UrlOpener

BLOCK = 1 << 14
LEASE = 1 << 16
SIZE = 5 * LEASE + 1234
GOOD, OTHER = random.Random(1).randbytes(SIZE), random.Random(2).randbytes(SIZE)
PAGE = b"<!DOCTYPE html>\n<title>Log in</title>" + b" " * 100


def file_of(content: bytes = GOOD, path: str = "a/model.bin", *, git: bool = False) -> RepoFile:
    if git:
        blob_id = hashlib.new("sha1", b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        return RepoFile(path, len(content), blob_id=blob_id)
    return RepoFile(path, len(content), hashlib.sha256(content).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the content of its server; a fault that is set applies to the next requests, ``times`` often."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        with self.server.lock:
            self.server.asked.append(asked)
            fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        content = self.server.contents.get(self.path, self.server.content)
        start, end = 0, len(content)
        if asked and fault != "no-range":
            first, _, last = asked[len("bytes=") :].partition("-")
            start, end = int(first), min(int(last) + 1, end) if last else end
        if fault == "circle":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers = {"ETag": f'"{self.server.etag}"', "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        status, body = (206 if asked and fault != "no-range" else 200), content[start:end]
        length = len(body)
        if fault.startswith("status "):
            status, body = int(fault.split()[1]), b"no"
            length, headers = 2, {"Retry-After": fault.split()[2]} if len(fault.split()) > 2 else {}
        elif fault.startswith("cut "):
            body = body[: int(fault.split()[1])]
        elif fault == "stall":
            body = body[: length // 2]
        elif fault == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        elif fault == "html":
            body, status, length, headers = PAGE, 200, len(PAGE), {"Content-Type": "text/html; charset=utf-8"}
        elif fault == "wrong total":
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content) + 1}"
        elif fault == "elsewhere" and asked:
            body = content[: end - start]
            headers["Content-Range"] = f"bytes 0-{end - start - 1}/{len(content)}"
        if status == 200 and fault != "html":
            headers.pop("Content-Range", None)
        self.send_response(status)
        if fault == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:9], body[9:], b""))
            length = len(body)
        else:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "slow":
            for at in range(0, len(body), 4096):
                self.wfile.write(body[at : at + 4096])
                time.sleep(self.server.pause)
        else:
            self.wfile.write(body)
        if fault == "stall":
            self.server.go_on.wait(10)
        if len(body) < length:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.go_on = threading.Event()
        self.asked: list[str] = []
        self.faults: list[str] = []
        """Of the next requests, one each; then ``always`` counts."""
        self.always = ""
        self.pause = 0.002
        """Seconds between the pieces of a slow answer."""
        self.content = GOOD
        self.contents: dict[str, bytes] = {}
        self.etag = "1"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of these tests."""

    def url(self, path: str = "/m") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks so small that little files have many."""
    for module in (part, desk, intake):
        for name, value in (("BLOCK", BLOCK), ("LEASE", LEASE)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(intake, "READ", BLOCK // 2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> t.Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


def opener(server: Server, files: t.Iterable[RepoFile], timeout: float = 5) -> UrlOpener:
    urls = {file.path: server.url("/" + file.path) for file in files}
    return UrlOpener(urls, timeout, urllib.request.build_opener().open, time.time)


def fetch(server: Server, folder: Path, *files: RepoFile, timeout: float = 5, **options: t.Any) -> Stats:
    wanted = files or (file_of(),)
    options = {"connections": 4, "pause": 0.01, "attempts": 3, "opener": opener(server, wanted, timeout), **options}
    return Transfer(wanted, str(folder), timeout=timeout, **options).run()


def there(folder: Path) -> list[str]:
    """Return what lies in a folder beside the notes."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".journal" not in path.parts
    )


class TestWhole:
    def test_several_files_of_every_kind(self, server: Server, tmp_path: Path) -> None:
        contents = {"a/model.bin": GOOD, "b/c.json": b"{}", "empty": b"", "one": b"x", "even": GOOD[:LEASE]}
        server.contents = {f"/{path}": content for path, content in contents.items()}
        files = [file_of(content, path, git=len(content) < 10) for path, content in contents.items()]
        states: list[State] = []
        stats = fetch(server, tmp_path, *files, progress=states.append, log=str(tmp_path / "log"))
        for path, content in contents.items():
            assert (tmp_path / path).read_bytes() == content
            assert oct((tmp_path / path).stat().st_mode)[-3:] == "644"
        assert stats.bytes_fetched == sum(map(len, contents.values()))
        assert stats.digests == {file.path: file.digest for file in files}
        assert 1 < stats.connections <= 4
        assert stats.resumed_from == 0
        assert (states[-1].done, states[-1].files_done) == (stats.bytes_fetched, len(files))
        assert "100 %" in (tmp_path / "log").read_text()

    def test_ranges_cover_the_file_without_overlap(self, server: Server, tmp_path: Path) -> None:
        server.always = "slow"
        fetch(server, tmp_path)
        ranges = sorted(tuple(map(int, asked[len("bytes=") :].split("-"))) for asked in server.asked)
        assert ranges[0][0] == 0
        assert len(ranges) > 3
        assert {first for first, _ in ranges[1:]} <= {last + 1 for _, last in ranges} | {first for first, _ in ranges}

    def test_a_second_run_asks_and_reads_nothing(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = fetch(server, tmp_path)
        count = len(server.asked)
        monkeypatch.setattr("os.preadv", None)
        second = fetch(server, tmp_path)
        assert (len(server.asked), second.bytes_fetched, second.resumed_from) == (count, 0, SIZE)
        assert second.digests == first.digests

    def test_a_file_that_was_touched_is_read_again(self, server: Server, tmp_path: Path) -> None:
        fetch(server, tmp_path)
        path = tmp_path / "a/model.bin"
        path.write_bytes(GOOD[:-1] + b"?")
        assert fetch(server, tmp_path).again == ("a/model.bin",)
        assert path.read_bytes() == GOOD

    def test_a_file_of_another_digest_is_not_continued(self, server: Server, tmp_path: Path) -> None:
        fetch(server, tmp_path)
        server.content = OTHER
        stats = fetch(server, tmp_path, file_of(OTHER))
        assert (stats.resumed_from, stats.again) == (0, ())
        assert (tmp_path / "a/model.bin").read_bytes() == OTHER

    def test_no_digest_known(self, server: Server, tmp_path: Path) -> None:
        stats = fetch(server, tmp_path, RepoFile("a/model.bin", SIZE))
        assert stats.digests["a/model.bin"] == file_of().digest
        # without a digest nothing proves that the rest belongs to what is there
        assert fetch(server, tmp_path, RepoFile("a/model.bin", SIZE)).resumed_from == 0

    @pytest.mark.parametrize("fault", ["", "no-range", "chunked"])
    def test_no_size_known(self, server: Server, tmp_path: Path, fault: str) -> None:
        server.always = fault
        file = RepoFile("m.bin", UNKNOWN, file_of().sha256)
        assert fetch(server, tmp_path, file).bytes_fetched == SIZE
        assert (tmp_path / "m.bin").read_bytes() == GOOD
        if fault != "chunked":
            assert fetch(server, tmp_path, file).resumed_from == SIZE

    def test_a_local_file(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "from").write_bytes(GOOD)

        def local(_file: RepoFile, start: int, _end: int) -> Reply:
            stream = (tmp_path / "from").open("rb", buffering=0)
            stream.seek(start)
            return file_reply(stream, SIZE, start, "the folder")

        stats = fetch(server, tmp_path / "to", opener=local)
        assert (stats.sources, server.asked) == (("the folder",), [])
        assert (tmp_path / "to/a/model.bin").read_bytes() == GOOD


class TestFaults:
    @pytest.mark.parametrize(
        "faults",
        [
            ["cut 0"],
            ["cut 1", "cut 70"],
            ["cut 20000"] * 4,
            ["status 503"],
            ["status 429 0", "status 500"],
            ["wrong total"],
            ["elsewhere"] * 2,
            ["no-range"],
            ["", "no-range"],
            ["", "", "no-range", "cut 100"],
            ["no-range"] * 30,
            ["corrupt"],
            ["", "corrupt"],
            ["status 416"],
        ],
        ids=str,
    )
    @pytest.mark.parametrize("connections", [1, 4])
    def test_survives(self, server: Server, tmp_path: Path, faults: list[str], connections: int) -> None:
        server.faults = list(faults)
        stats = fetch(server, tmp_path, connections=connections)
        assert (tmp_path / "a/model.bin").read_bytes() == GOOD
        assert stats.again == (("a/model.bin",) if "corrupt" in faults else ())

    def test_cut_anywhere_costs_no_byte_twice(self, server: Server, tmp_path: Path) -> None:
        rng = random.Random(3)
        for number in range(25):
            cut = rng.choice([rng.randrange(200), rng.randrange(SIZE), BLOCK, BLOCK - 1])
            server.faults = [f"cut {cut}"]
            stats = fetch(server, tmp_path / str(number), connections=1)
            # too few bytes to look at are not kept
            assert stats.bytes_fetched == SIZE + (cut if cut < 64 else 0)
            assert stats.again == ()
            assert (tmp_path / str(number) / "a/model.bin").read_bytes() == GOOD

    def test_a_stall_is_noticed(self, server: Server, tmp_path: Path) -> None:
        server.faults = ["stall", "stall"]
        stats = fetch(server, tmp_path, timeout=2)
        assert (tmp_path / "a/model.bin").read_bytes() == GOOD
        assert stats.bytes_fetched == SIZE

    def test_a_trickle_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []

        class Trickle:
            def readinto(self, buffer: memoryview) -> int:
                time.sleep(0.05)
                buffer[:1] = GOOD[:1]
                return 1

            def close(self) -> None:
                pass

        def local(_file: RepoFile, start: int, _end: int) -> Reply:
            asked.append(start)
            return Reply(206, {}, SIZE, Trickle(), start)

        monkeypatch.setattr(intake, "HEAD", 1)
        transfer = Transfer([file_of()], str(tmp_path), local, connections=1, timeout=0.2, pause=0.01, attempts=2)
        with pytest.raises(LlmfleetError, match=r"it gives only .* bytes/s; .* of 328914 bytes are kept"):
            transfer.run()
        assert len(asked) == 2

    def test_gives_up_and_goes_on_later(self, server: Server, tmp_path: Path) -> None:
        server.faults, server.always = ["cut 30000"], "cut 0"
        with pytest.raises(LlmfleetError, match=f"30000 of {SIZE} bytes are kept, and the next run continues"):
            fetch(server, tmp_path, connections=1)
        assert len(server.asked) == 4
        server.always = ""
        stats = fetch(server, tmp_path)
        assert (stats.resumed_from, stats.bytes_fetched) == (30000, SIZE - 30000)

    def test_nothing_arrived_leaves_nothing(self, server: Server, tmp_path: Path) -> None:
        server.always = "status 503"
        with pytest.raises(LlmfleetError, match="HTTP 503"):
            fetch(server, tmp_path)
        assert there(tmp_path) == []

    def test_several_that_fail_together_count_once(self, server: Server, tmp_path: Path) -> None:
        together, real = threading.Barrier(4), opener(server, [file_of()])
        left = [Broken("busy")] * 4

        def busy(file: RepoFile, start: int, end: int) -> Reply:
            try:
                error = left.pop()
            except IndexError:
                return real(file, start, end)
            together.wait(5)
            raise error

        fetch(server, tmp_path, connections=4, attempts=2, opener=busy)
        assert (tmp_path / "a/model.bin").read_bytes() == GOOD

    def test_retry_after_is_honoured(self, server: Server, tmp_path: Path) -> None:
        server.faults = ["status 429 1"]
        begun = time.monotonic()
        fetch(server, tmp_path, connections=1)
        assert time.monotonic() - begun >= 1
        server.faults = ["status 503 86400"]
        with pytest.raises(LlmfleetError, match="only after 86400 seconds"):
            fetch(server, tmp_path / "other", connections=1)

    @pytest.mark.parametrize(("status", "hint"), [(401, "wants a login"), (403, "refuses"), (404, "no such file")])
    def test_no_second_attempt_at_what_is_final(self, server: Server, tmp_path: Path, status: int, hint: str) -> None:
        server.always = f"status {status}"
        with pytest.raises(LlmfleetError, match=hint):
            fetch(server, tmp_path, connections=1)
        assert len(server.asked) == 1

    def test_a_web_page(self, server: Server, tmp_path: Path) -> None:
        server.always = "html"
        for size in (SIZE, UNKNOWN, len(PAGE)):
            with pytest.raises(LlmfleetError, match=r"a web page came|has the sha256") as caught:
                fetch(server, tmp_path, RepoFile("m.bin", size, file_of().sha256))
            assert "\n" not in str(caught.value)
            assert there(tmp_path) == []

    def test_wrong_bytes_are_fetched_once_more_and_then_refused(self, server: Server, tmp_path: Path) -> None:
        server.content = OTHER
        server.contents = {"/good": GOOD}
        with pytest.raises(LlmfleetError) as caught:
            fetch(server, tmp_path, file_of(path="good"), file_of())
        for word in ("a/model.bin", file_of().sha256, file_of(OTHER).sha256):
            assert word in str(caught.value)
        assert "a/model.bin" not in there(tmp_path)
        bytes_before = len(server.asked)
        server.content = GOOD
        assert fetch(server, tmp_path, file_of(path="good"), file_of()).bytes_fetched <= 2 * SIZE
        assert len(server.asked) > bytes_before

    def test_a_redirection_in_a_circle(self, server: Server, tmp_path: Path) -> None:
        server.always = "circle"
        with pytest.raises(LlmfleetError, match="redirects in a circle") as caught:
            fetch(server, tmp_path)
        assert "\n" not in str(caught.value)

    def test_what_was_whole_and_not_verified_is_only_read(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(5, "no disk")))
            with pytest.raises(LlmfleetError, match=f"no disk; {SIZE} of {SIZE} bytes are kept"):
                fetch(server, tmp_path)
        asked = len(server.asked)
        stats = fetch(server, tmp_path)
        assert (stats.bytes_fetched, stats.resumed_from, len(server.asked)) == (0, SIZE, asked)

    def test_a_git_blob_with_a_wrong_byte(self, server: Server, tmp_path: Path) -> None:
        server.faults = ["corrupt"]
        assert fetch(server, tmp_path, file_of(git=True)).again == ("a/model.bin",)
        assert (tmp_path / "a/model.bin").read_bytes() == GOOD

    def test_not_again_when_told_so(self, server: Server, tmp_path: Path) -> None:
        server.content = OTHER[:LEASE]
        with pytest.raises(LlmfleetError, match="has the sha256"):
            fetch(server, tmp_path, RepoFile("m", LEASE, file_of().sha256), again=0)
        assert len(server.asked) == len(set(server.asked))

    def test_the_first_bytes_are_looked_at_before_anything_is_stored(self, server: Server, tmp_path: Path) -> None:
        def check(file: RepoFile, head: bytes, size: int) -> None:
            assert head == GOOD[: len(head)]
            assert len(head) >= 64
            raise LlmfleetError(f"{file.path} of {size} bytes is no model")

        with pytest.raises(LlmfleetError, match=f"model.bin of {SIZE} bytes is no model"):
            fetch(server, tmp_path, check_start=check, connections=1)
        assert there(tmp_path) == []

    def test_another_version_in_the_middle(self, server: Server, tmp_path: Path) -> None:
        server.content, server.always = OTHER, "slow"

        def replace() -> None:
            while len(server.asked) < 3:
                time.sleep(0.001)
            server.content, server.etag = GOOD, "2"

        thread = threading.Thread(target=replace)
        thread.start()
        fetch(server, tmp_path)
        thread.join()
        assert (tmp_path / "a/model.bin").read_bytes() == GOOD

    def test_another_size_in_the_middle(self, server: Server, tmp_path: Path) -> None:
        server.content, server.faults = OTHER[: LEASE * 3], ["", "cut 100"]
        file = RepoFile("m", UNKNOWN, file_of().sha256)
        server.always = "cut 0"
        with pytest.raises(LlmfleetError):
            fetch(server, tmp_path, file, connections=1, attempts=1)
        server.content, server.always, server.faults = GOOD, "", []
        fetch(server, tmp_path, file)
        assert (tmp_path / "m").read_bytes() == GOOD


FAULTS = [
    "",
    "cut 0",
    "cut 10",
    "cut 30000",
    "status 503",
    "status 429 0",
    "wrong total",
    "elsewhere",
    "no-range",
    "corrupt",
    "html",
    "status 416",
    "slow",
    "chunked",
]


@pytest.mark.parametrize("seed", range(25))
def test_any_faults_end_in_whole_files_or_a_sentence(server: Server, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    contents = {f"f{number}": GOOD[: rng.choice([0, 1, 70, BLOCK, LEASE + 1, SIZE])] for number in range(3)}
    server.contents = {f"/{path}": content for path, content in contents.items()}
    known = [file_of(content, path, git=rng.random() < 0.3) for path, content in contents.items()]
    files = [dataclasses.replace(file, size=UNKNOWN) if rng.random() < 0.2 and file.sha256 else file for file in known]
    said: list[str] = []
    for _ in range(rng.randrange(1, 4)):
        server.faults = rng.choices(FAULTS, k=rng.randrange(20))
        try:
            fetch(server, tmp_path, *files, connections=rng.randrange(1, 6), pause=0.001)
            break
        except LlmfleetError as error:
            said.append(str(error))
    server.faults = []
    stats = fetch(server, tmp_path, *files)
    assert stats.digests == {file.path: file.digest for file in known}
    for path, content in contents.items():
        assert (tmp_path / path).read_bytes() == content
    assert there(tmp_path) == sorted(contents)
    assert "\n" not in "".join(said)


class Sources:
    """An opener with two places; the first one gives what ``fault`` says."""

    def __init__(self, server: Server, fault: str) -> None:
        self._server = server
        self._fault = fault
        self._other: set[str] = set()
        self.said: list[str] = []

    def __call__(self, file: RepoFile, start: int, end: int) -> Reply:
        if file.path in self._other:
            reply = opener(self._server, [file])(file, start, end)
            reply.source = "second"
            return reply
        if self._fault == "wrong":
            import io

            return Reply(206, {}, file.size, io.BytesIO(OTHER[start:end]), start, "first")
        raise Broken("busy") if self._fault == "busy" else LlmfleetError("no such file")

    def next_source(self, file: RepoFile, said: str) -> bool:
        self.said.append(said)
        if file.path in self._other:
            return False
        self._other.add(file.path)
        return True


class TestSources:
    @pytest.mark.parametrize("fault", ["wrong", "busy", "missing"])
    def test_the_next_one_is_asked(self, server: Server, tmp_path: Path, fault: str) -> None:
        sources = Sources(server, fault)
        stats = fetch(server, tmp_path, opener=sources, again=0)
        assert (tmp_path / "a/model.bin").read_bytes() == GOOD
        assert stats.sources[-1] == "second"
        assert len(sources.said) == 1

    def test_until_there_is_none(self, server: Server, tmp_path: Path) -> None:
        server.always = "status 404"
        with pytest.raises(LlmfleetError, match="HTTP 404"):
            fetch(server, tmp_path, opener=Sources(server, "missing"))


class TestDisk:
    def test_room_is_looked_for_first(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=SIZE - 1))
        for size in (SIZE, UNKNOWN):
            with pytest.raises(LlmfleetError, match=f"has {SIZE - 1} bytes free and the download needs {SIZE} more"):
                fetch(server, tmp_path, RepoFile("m", size, file_of().sha256))
            assert there(tmp_path) == []

    def test_what_is_there_needs_no_room(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server.faults, server.always = ["cut 30000"], "cut 0"
        with pytest.raises(LlmfleetError):
            fetch(server, tmp_path, connections=1)
        server.always = ""
        monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=SIZE - 30000))
        fetch(server, tmp_path)

    def test_full_in_the_middle(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written = 0
        real = os.pwrite

        def pwrite(handle: int, data: bytes, offset: int) -> int:
            nonlocal written
            if written > SIZE // 2:
                raise OSError(28, "No space left on device")
            written += len(data)
            return real(handle, data, offset)

        monkeypatch.setattr("os.pwrite", pwrite)
        with pytest.raises(LlmfleetError, match=rf"the disk of {tmp_path} is full.*bytes are kept"):
            fetch(server, tmp_path)
        monkeypatch.setattr("os.pwrite", real)
        stats = fetch(server, tmp_path)
        assert stats.resumed_from > SIZE // 4
        assert (tmp_path / "a/model.bin").read_bytes() == GOOD

    def test_a_link_is_not_followed(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "other").write_bytes(b"mine")
        (tmp_path / "a/model.bin").symlink_to(tmp_path / "other")
        with pytest.raises(LlmfleetError, match="cannot write"):
            fetch(server, tmp_path)
        assert (tmp_path / "other").read_bytes() == b"mine"

    def test_two_at_once(self, server: Server, tmp_path: Path) -> None:
        server.faults = ["stall"]
        first = threading.Thread(target=fetch, args=(server, tmp_path), kwargs={"connections": 1})
        first.start()
        while not server.asked:
            time.sleep(0.001)
        with pytest.raises(LlmfleetError, match="another run is downloading it"):
            fetch(server, tmp_path)
        server.go_on.set()
        first.join()
        assert (tmp_path / "a/model.bin").read_bytes() == GOOD

    def test_unsafe_paths(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(LlmfleetError, match="no safe path"):
            fetch(server, tmp_path / "x", file_of(path="../m"))
        assert not server.asked


KILLED = """
import sys, time, urllib.request
sys.path[:0] = {path!r}
import conftest
from ansible.module_utils.llmfleet.hub.manifest import RepoFile
from ansible.module_utils.llmfleet.hub.transfer import Transfer
from ansible.module_utils.llmfleet.hub.web import UrlOpener
from ansible.module_utils.llmfleet.hub import part, desk, intake
part.BLOCK = desk.BLOCK = {block}
part.LEASE = desk.LEASE = intake.LEASE = {lease}
opener = UrlOpener({{"a/model.bin": {url!r}}}, 5, urllib.request.build_opener().open, time.time)
Transfer([RepoFile("a/model.bin", {size}, {sha!r})], {folder!r}, opener, connections=4).run()
"""


def test_a_killed_process_loses_a_block_per_connection(server: Server, tmp_path: Path) -> None:
    # many times what it takes to notice and to kill
    server.always, server.pause = "slow", 0.02
    tests = str(Path(__file__).parent.parent)
    script = KILLED.format(
        path=[tests], block=BLOCK, lease=LEASE, url=server.url(), size=SIZE, sha=file_of().sha256, folder=str(tmp_path)
    )
    taken = 0
    for after in (6, 12):
        process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "no_proxy": "127.0.0.1"})
        journal = tmp_path / ".journal"
        while process.poll() is None:
            lines = sum(path.read_bytes().count(b"\n") for path in journal.glob("*")) if journal.exists() else 0
            if lines >= after:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        assert process.wait() == -signal.SIGKILL
    asked = len(server.asked)
    stats = fetch(server, tmp_path)
    taken = stats.resumed_from
    assert taken >= 8 * BLOCK
    assert stats.bytes_fetched == SIZE - taken
    assert len(server.asked) > asked
    assert (tmp_path / "a/model.bin").read_bytes() == GOOD
