"""The model_fetch module: files of the user, the generated model, and downloads from a real and often broken server."""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import http.server
import io
import json
import os
import socket
import struct
import sys
import threading
import time
import typing as t
from pathlib import Path

import hub_listing
import model_fetch
import model_prune
import pytest
import tiny_hf
from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.hub import url_download
from ansible.module_utils.testing import patch_module_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
from hub_server import Hub


def model(seed: int = 1) -> bytes:
    stream = io.BytesIO()
    tiny_gguf.write(stream, layers=1, dim=32, seed=seed)
    return stream.getvalue()


GOOD, OTHER = model(), model(seed=2)
SHA = hashlib.sha256(GOOD).hexdigest()
OTHER_SHA = hashlib.sha256(OTHER).hexdigest()
HALF = len(GOOD) // 2
NAME = f"{SHA[:12]}-m.gguf"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves GOOD at every path; the first folder of the path says what is wrong with the server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        fault = self.path.split("/")[1]
        asked = self.headers.get("Range", "")
        self.server.asked.append((fault, asked))  # type: ignore[attr-defined]
        times = self.server.asked.count((fault, asked))  # type: ignore[attr-defined]
        start = int(asked[len("bytes=") :].partition("-")[0]) if asked and fault != "no-range" else 0
        if fault.isdigit() or (fault == "busy" and times == 1):
            self.send_error(int(fault) if fault.isdigit() else 503)
        elif fault == "moved":
            self.answer(302, b"", Location="/fine/m.gguf")
        elif fault == "login":
            self.answer(200, b"<!DOCTYPE html>\n<title>Log in</title>", Content_Type="text/html")
        elif fault == "lfs":
            self.answer(200, b"version https://git-lfs.github.com/spec/v1\n")
        elif fault == "huge":
            self.answer(200, GOOD, length=1 << 60)
        elif fault == "chunked":
            self.answer(
                200, b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (GOOD[:9], GOOD[9:], b"")), length=-1
            )
        elif start >= len(GOOD):
            self.answer(416, b"", Content_Range=f"bytes */{len(GOOD)}")
        elif fault == "elsewhere" and start:
            self.answer(206, GOOD, Content_Range=f"bytes 0-{len(GOOD) - 1}/{len(GOOD)}")
        else:
            body = GOOD[start:]
            status = 206 if start else 200
            ranged: dict[str, t.Any] = {"Content_Range": f"bytes {start}-{len(GOOD) - 1}/{len(GOOD)}"} if start else {}
            if fault in ("cut", "dead", "stall"):
                kept = 0 if fault == "dead" and start else HALF if not start else len(body)
                self.answer(status, body[:kept], length=len(body), **ranged)
                if fault == "stall" and not start:
                    time.sleep(1)
                self.close_connection = True
            else:
                self.answer(status, body, **ranged)

    def answer(self, status: int, body: bytes, /, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        if length < 0:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length or len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = self.close_connection or length > len(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of these tests."""

    def url(self, fault: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{fault}/m.gguf"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Fetch:
    """The module, storing into a directory of the test."""

    def __init__(self, capsys: pytest.CaptureFixture[str], store: Path) -> None:
        self._capsys = capsys
        self.store = store

    def __call__(self, check: bool = False, **args: object) -> dict[str, t.Any]:
        given = {"dest": str(self.store), "_ansible_check_mode": check, **args}
        with patch_module_args(given), pytest.raises(SystemExit):
            model_fetch.main()
        answer: dict[str, t.Any] = json.loads(self._capsys.readouterr().out)
        return answer

    def files(self) -> dict[str, bytes]:
        if not self.store.exists():
            return {}
        return {path.name: path.read_bytes() for path in sorted(self.store.iterdir())}


@pytest.fixture
def fetch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Fetch:
    return Fetch(capsys, tmp_path / "models")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a server up soon."""
    monkeypatch.setattr(url_download, "Transfer", functools.partial(url_download.Transfer, pause=0.01))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.gguf"
    path.write_bytes(GOOD)
    path.chmod(0o644)
    return path


class TestTiny:
    def test_new_then_same(self, fetch: Fetch) -> None:
        first = fetch(model="tiny")
        assert (first["changed"], first["action"], first["why"]) == (True, "generate", "it is not there")
        assert first["path"] == str(fetch.store / "tiny.gguf")
        assert hashlib.sha256(fetch.files()["tiny.gguf"]).hexdigest() == tiny_gguf.SHA256
        assert oct((fetch.store / "tiny.gguf").stat().st_mode)[-3:] == "644"
        assert oct(fetch.store.stat().st_mode)[-3:] == "755"
        assert first["size"] == len(fetch.files()["tiny.gguf"])
        assert first["gguf"]["context_length"] == 4096
        second = fetch(model="tiny")
        assert (second["changed"], second["action"], second["why"]) == (False, "keep", "it was verified before")
        assert second["fingerprint"] == first["fingerprint"]
        assert second["diff"] == {"before": "", "after": ""}

    def test_check_mode_knows_what_it_would_be(self, fetch: Fetch) -> None:
        planned = fetch(model="tiny", check=True)
        assert not fetch.store.exists()
        done = fetch(model="tiny")
        del planned["invocation"]
        # what exit_json says about an existing path (owner, mode ...) comes on top
        assert planned.items() <= done.items()
        assert planned["size"] > 0

    def test_a_damaged_one_is_made_again(self, fetch: Fetch) -> None:
        fetch(model="tiny")
        (fetch.store / "tiny.gguf").write_bytes(b"damaged")
        assert fetch(model="tiny", check=True)["action"] == "generate"
        again = fetch(model="tiny")
        assert again["changed"]
        assert "the file there has the sha256" in again["why"]
        assert not fetch(model="tiny")["changed"]

    def test_a_download_under_its_name_was_interrupted(self, fetch: Fetch) -> None:
        (fetch.store / ".tiny.gguf.partial/.journal").mkdir(parents=True)
        assert fetch(model="tiny")["action"] == "generate"
        assert list(fetch.files()) == ["tiny.gguf", "tiny.gguf.verified"]

    def test_a_wrong_mode_is_corrected(self, fetch: Fetch) -> None:
        fetch(model="tiny")
        path = fetch.store / "tiny.gguf"
        path.chmod(0o600)
        assert fetch(model="tiny", check=True)["changed"]
        assert oct(path.stat().st_mode)[-3:] == "600"
        assert fetch(model="tiny")["action"] == "repair"
        assert oct(path.stat().st_mode)[-3:] == "644"

    def test_removal_leaves_nothing(self, fetch: Fetch) -> None:
        fetch(model="tiny")
        assert fetch(model="tiny", state="absent", check=True)["changed"]
        assert "tiny.gguf" in fetch.files()
        gone = fetch(model="tiny", state="absent")
        assert (gone["changed"], gone["action"]) == (True, "remove")
        assert not fetch.store.exists()
        assert not fetch(model="tiny", state="absent")["changed"]

    def test_removal_leaves_other_files(self, fetch: Fetch) -> None:
        fetch(model="tiny")
        (fetch.store / "other.gguf").write_bytes(b"x")
        fetch(model="tiny", state="absent")
        assert list(fetch.files()) == ["other.gguf"]

    def test_a_directory_in_its_place(self, fetch: Fetch) -> None:
        (fetch.store / "tiny.gguf").mkdir(parents=True)
        assert "is a directory where the model's file belongs" in fetch(model="tiny")["msg"]

    def test_a_directory_in_its_place_is_not_removed(self, fetch: Fetch) -> None:
        fetch(model="tiny", name="other.gguf")
        (fetch.store / "hub").mkdir()
        (fetch.store / "hub" / "model").write_text("x")
        for check in (True, False):
            answer = fetch(model="tiny", name="hub", state="absent", check=check)
            assert "is a directory where the model's file belongs" in answer["msg"]
        assert (fetch.store / "hub" / "model").read_text() == "x"

    def test_a_store_that_cannot_go_stays(self, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may be where a file system is mounted."""
        fetch(model="tiny")

        def busy(path: str) -> None:
            raise OSError(errno.EBUSY, "Device or resource busy", path)

        monkeypatch.setattr(os, "rmdir", busy)
        assert fetch(model="tiny", state="absent")["action"] == "remove"
        assert fetch.files() == {}

    def test_a_file_in_place_of_the_store(self, fetch: Fetch) -> None:
        fetch.store.write_text("x")
        answer = fetch(model="tiny")
        assert answer["failed"]
        assert str(fetch.store) in answer["msg"]


class TestOwnFile:
    def test_is_used_and_never_touched(self, fetch: Fetch, mine: Path) -> None:
        before = mine.stat()
        answer = fetch(model=str(mine))
        assert (answer["changed"], answer["action"], answer["path"]) == (False, "keep", str(mine))
        assert answer["files"] == [str(mine)]
        assert answer["gguf"]["architecture"] == "llama"
        removed = fetch(model=str(mine), state="absent")
        assert (removed["changed"], removed["why"]) == (False, "a file given by its path is never removed")
        assert mine.stat() == before
        assert not fetch.store.exists()

    def test_fingerprint_follows_the_content(self, fetch: Fetch, mine: Path) -> None:
        before = fetch(model=str(mine))["fingerprint"]
        mine.write_bytes(GOOD)
        assert fetch(model=str(mine))["fingerprint"] == before
        mine.write_bytes(OTHER)
        assert fetch(model=str(mine))["fingerprint"] != before

    def test_a_given_digest_is_checked_once(self, fetch: Fetch, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = fetch(model=str(mine), sha256=OTHER_SHA)["msg"]
        assert SHA in wrong
        assert OTHER_SHA in wrong
        for check in (True, False):
            first = fetch(model=str(mine), sha256=SHA, check=check)
            assert (first["changed"], first["action"]) == (True, "verify")
            assert first["why"] == "its sha256 is the expected one"
        monkeypatch.setattr("ansible.module_utils.llmfleet.model_file.digest_of", None)
        second = fetch(model=str(mine), sha256=SHA)
        assert (second["changed"], second["why"]) == (False, "it was verified before")
        assert fetch(model=str(mine), sha256=SHA, state="absent")["changed"]
        assert mine.exists()
        assert not fetch.store.exists()

    def test_what_is_no_model(self, fetch: Fetch, mine: Path) -> None:
        folder = mine.parent
        mine.with_name("page.gguf").write_text("<html>")
        mine.with_name("short.gguf").write_bytes(GOOD[:-5000])
        os.mkfifo(folder / "pipe")
        expected = {
            "min.gguf": f"there is no such file; did you mean {mine}?",
            "nowhere/x.gguf": "there is no such file; check the path on that host",
            "mine.gguf/x": "there is no such file; check the path on that host",
            "": "it is a directory; name the GGUF file itself (such as",
            "page.gguf": "the file is a web page",
            "short.gguf": f"need {len(GOOD)} bytes and it has {len(GOOD) - 5000}",
            "pipe": "not a regular file",
        }
        for name, message in expected.items():
            for check in (False, True):
                answer = fetch(model=f"{folder}/{name}", check=check)
                assert answer["failed"]
                assert message in answer["msg"]
                assert answer["msg"].startswith(f"model {folder}")

    def test_engines_must_be_able_to_read_it(self, fetch: Fetch, mine: Path) -> None:
        mine.chmod(0o640)
        assert "mode 0640" in fetch(model=str(mine))["msg"]

    def test_a_split_model(self, fetch: Fetch, mine: Path) -> None:
        first = mine.with_name("big-00001-of-00002.gguf")
        second = mine.with_name("big-00002-of-00002.gguf")
        first.write_bytes(part(0, 2, ARCHITECTURE))
        assert "big-00002-of-00002.gguf is missing" in fetch(model=str(first))["msg"]
        second.write_bytes(part(1, 2))
        answer = fetch(model=str(first))
        assert answer["files"] == [str(first), str(second)]
        assert answer["total_size"] == first.stat().st_size + second.stat().st_size
        assert "part 2 of a model in 2 files; name the first part" in fetch(model=str(second))["msg"]
        renamed = first.rename(mine.with_name("big.gguf"))
        assert "give the parts their names back" in fetch(model=str(renamed))["msg"]


def entry(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


def part(number: int, count: int, *more: bytes) -> bytes:
    keys = [entry("split.no", 2, struct.pack("<H", number)), entry("split.count", 2, struct.pack("<H", count)), *more]
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(keys)) + b"".join(keys)


ARCHITECTURE = entry("general.architecture", 8, struct.pack("<Q", 5) + b"llama")


class TestDownload:
    def test_new_then_same_without_reading_or_asking(
        self, fetch: Fetch, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = fetch(model=server.url("fine"), sha256=SHA)
        assert (first["changed"], first["action"], first["path"]) == (True, "download", str(fetch.store / NAME))
        assert first["gguf"]["name"] == "llmfleet tiny"
        assert sorted(fetch.files()) == [NAME, NAME + ".verified"]
        assert fetch.files()[NAME] == GOOD
        assert oct((fetch.store / NAME).stat().st_mode)[-3:] == "644"
        note = json.loads(fetch.files()[NAME + ".verified"])
        assert note == {"sha256": SHA, "size": len(GOOD), "mtime_ns": (fetch.store / NAME).stat().st_mtime_ns}
        monkeypatch.setattr("ansible.module_utils.llmfleet.model_file.digest_of", None)
        second = fetch(model=server.url("fine"), sha256=SHA)
        assert (second["changed"], second["why"]) == (False, "it was verified before")
        assert len(server.asked) == 1

    def test_check_mode_asks_nothing(self, fetch: Fetch, server: Server) -> None:
        answer = fetch(model=server.url("fine"), sha256=SHA, check=True)
        assert (answer["changed"], answer["action"], answer["gguf"]) == (True, "download", {})
        assert not server.asked
        assert not fetch.store.exists()

    @pytest.mark.parametrize("fault", ["moved", "chunked", "busy", "cut", "stall"])
    def test_survives(self, fetch: Fetch, server: Server, fault: str) -> None:
        answer = fetch(model=server.url(fault), sha256=SHA, timeout=5)
        assert answer["changed"], answer
        assert fetch.files()[NAME] == GOOD

    def test_a_cut_transfer_continues_where_it_stopped(self, fetch: Fetch, server: Server) -> None:
        fetch(model=server.url("cut"), sha256=SHA)
        assert server.asked == [("cut", ""), ("cut", f"bytes={HALF}-{len(GOOD) - 1}")]

    def interrupted(self, fetch: Fetch, server: Server) -> None:
        """Leave the first half of the file behind, as a run does that was interrupted."""
        failed = fetch(model=server.url("dead"), sha256=SHA, timeout=1)
        assert f"{HALF} of {len(GOOD)} bytes are kept, and the next run continues from there" in failed["msg"]
        assert sorted(path.name for path in fetch.store.iterdir()) == [f".{NAME}.partial"]
        server.asked.clear()

    @pytest.mark.parametrize(
        ("fault", "asked"),
        [
            ("fine", [f"bytes={HALF}-{len(GOOD) - 1}"]),
            ("no-range", [f"bytes={HALF}-{len(GOOD) - 1}"]),
            ("elsewhere", [f"bytes={HALF}-{len(GOOD) - 1}", f"bytes=0-{len(GOOD) - 1}"]),
        ],
        ids=["continues", "server cannot", "server goes wrong"],
    )
    @pytest.mark.usefixtures("impatient")
    def test_what_an_interrupted_run_left(self, fetch: Fetch, server: Server, fault: str, asked: list[str]) -> None:
        self.interrupted(fetch, server)
        answer = fetch(model=server.url(fault), sha256=SHA)
        assert answer["why"] == f"{HALF} bytes are there from an interrupted run"
        assert sorted(fetch.files()) == [NAME, NAME + ".verified"]
        assert fetch.files()[NAME] == GOOD
        assert [header for _, header in server.asked] == asked

    @pytest.mark.usefixtures("impatient")
    def test_what_an_interrupted_run_left_was_damaged(self, fetch: Fetch, server: Server) -> None:
        self.interrupted(fetch, server)
        partial = fetch.store / f".{NAME}.partial" / NAME
        partial.write_bytes(OTHER[:HALF] + bytes(len(GOOD) - HALF))
        assert fetch(model=server.url("fine"), sha256=SHA)["changed"]
        assert fetch.files()[NAME] == GOOD
        assert len(server.asked) == 2

    @pytest.mark.usefixtures("impatient")
    def test_what_an_interrupted_run_left_is_removed(self, fetch: Fetch, server: Server) -> None:
        self.interrupted(fetch, server)
        assert fetch(model=server.url("fine"), sha256=SHA, state="absent")["changed"]
        assert not fetch.store.exists()

    def test_a_partial_file_of_an_older_version(self, fetch: Fetch, server: Server) -> None:
        fetch.store.mkdir()
        (fetch.store / f".{NAME}.partial").write_bytes(GOOD[:1000])
        assert fetch(model=server.url("fine"), sha256=SHA)["why"] == "it is not there"
        assert fetch.files()[NAME] == GOOD

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ("401", "HTTP 401 Unauthorized: it wants a login"),
            ("403", "HTTP 403 Forbidden: it refuses access"),
            ("404", "HTTP 404 Not Found: there is no such file"),
            ("login", "is a web page"),
            ("lfs", "git LFS pointer"),
            ("huge", "bytes free and the download needs 1152921504606846976 more"),
        ],
    )
    def test_says_what_is_wrong_and_leaves_nothing(
        self, fetch: Fetch, server: Server, fault: str, message: str
    ) -> None:
        answer = fetch(model=server.url(fault) + "?sig=s3cret", sha256=SHA)
        assert answer["failed"]
        assert message in answer["msg"]
        assert answer["msg"].startswith(f"model {server.url(fault)}: ")
        assert "s3cret" not in answer["msg"]
        assert fetch.files() == {}

    def test_a_wrong_digest_names_both(self, fetch: Fetch, server: Server) -> None:
        answer = fetch(model=server.url("fine"), sha256=OTHER_SHA)
        assert SHA in answer["msg"]
        assert OTHER_SHA in answer["msg"]
        assert fetch.files() == {}
        assert len(server.asked) == 1

    def test_a_wrong_download_never_replaces_the_old_file(self, fetch: Fetch, server: Server) -> None:
        fetch(model=server.url("fine"), sha256=SHA)
        (fetch.store / NAME).write_bytes(OTHER)
        assert "HTTP 404" in fetch(model=server.url("404"), sha256=SHA)["msg"]
        assert fetch.files()[NAME] == OTHER
        assert fetch(model=server.url("fine"), sha256=SHA)["changed"]
        assert fetch.files()[NAME] == GOOD

    def test_a_present_file_without_note_is_verified(self, fetch: Fetch, server: Server) -> None:
        fetch.store.mkdir()
        (fetch.store / NAME).write_bytes(GOOD)
        (fetch.store / NAME).chmod(0o644)
        (fetch.store / (NAME + ".verified")).write_text("{not json")
        answer = fetch(model=server.url("fine"), sha256=SHA)
        assert (answer["action"], answer["why"]) == ("verify", "its sha256 is the expected one")
        assert (answer["changed"], answer["diff"]["after"]) == (True, f"{fetch.store / NAME}.verified\n")
        again = fetch(model=server.url("fine"), sha256=SHA)
        assert (again["changed"], again["why"]) == (False, "it was verified before")
        assert not server.asked

    def test_removal(self, fetch: Fetch, server: Server) -> None:
        fetch(model=server.url("fine"), sha256=SHA)
        assert fetch(model=server.url("fine"), sha256=SHA, state="absent")["changed"]
        assert not fetch.store.exists()

    def test_nobody_listens(self, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            answer = fetch(model=f"http://127.0.0.1:{unused.getsockname()[1]}/m.gguf", sha256=SHA)
        assert "cannot be reached: the connection was refused" in answer["msg"]

    def test_a_proxy_is_used(self, fetch: Fetch, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        assert fetch(model="http://models.invalid/fine/m.gguf", sha256=SHA)["changed"]

    def test_a_signature_is_in_no_message(self, fetch: Fetch, server: Server) -> None:
        fetch.store.write_text("x")
        answer = fetch(model=server.url("fine") + "?sign=secret", sha256=SHA)
        assert f"model {server.url('fine')}: {fetch.store}" in answer["msg"]
        assert "secret" not in answer["msg"]

    def test_two_runs_at_once(self, fetch: Fetch, server: Server) -> None:
        fetch.store.mkdir()
        partial = fetch.store / f".{NAME}.partial"
        partial.mkdir()
        other = os.open(partial, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_EX)
        answer = fetch(model=server.url("fine"), sha256=SHA)
        os.close(other)
        assert "another run is downloading it" in answer["msg"]
        assert not server.asked


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"model": "hf:org"}, "a hub's model has an owner and a name"),
        ({"model": "org/repo", "sources": ["ftp://x"]}, "ftp://x"),
        ({"model": "org/repo", "sources": [{"name": "x", "token": "t0ken"}]}, "`sources` may hold no `token`"),
        ({"model": "org/repo", "sources": []}, "there is no source to get it from"),
        ({"model": "org/repo", "manifest": {"repo": "x"}}, "not the manifest of a model"),
        ({"model": "org/repo", "sources": ["hf"], "token_file": "/none"}, "there is no token file /none"),
        ({"model": "tiny", "connections": 65}, "`connections` must be at most 64"),
        ({"model": "tiny", "token": "hf_0", "token_file": "/b"}, "exclude each other"),
        ({"model": "https://example.org/m.gguf"}, "a URL needs the sha256"),
        ({"model": "tiny", "dest": "models"}, "`dest` must be an absolute path"),
        ({"model": "tiny", "timeout": 0}, "`timeout` must be at least 1 second"),
        ({"model": "tiny", "name": "../x"}, "plain file name"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_bad_input_fails_before_any_change(fetch: Fetch, args: dict[str, object], message: str, check: bool) -> None:
    answer = fetch(check=check, **args)
    assert answer["failed"]
    assert message in answer["msg"]
    assert not fetch.store.exists()


class TestOwnFolder:
    """A model in Hugging Face's format that is on the host."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        found: Path = tiny_hf.write(tmp_path / "mine", shards=2)
        for path in (found, *found.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return found

    def test_is_used_and_never_touched(self, fetch: Fetch, folder: Path) -> None:
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        for more in ({}, {"engine": "vllm", "check": True}, {"verify": "full"}):
            answer = fetch(model=str(folder), **more)
            assert (answer["changed"], answer["action"], answer["path"]) == (False, "keep", str(folder))
            assert (answer["format"], answer["gguf"]) == ("safetensors", {})
            assert answer["shape"]["architecture"] == "LlamaForCausalLM"
            assert sorted(answer["files"]) == sorted(str(path) for path in folder.iterdir())
            weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
            assert answer["total_size"] > weights
        assert fetch(model=str(folder), state="absent")["action"] == "keep"
        assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert not fetch.store.exists()

    def test_fingerprint_follows_the_content(self, fetch: Fetch, folder: Path) -> None:
        before = fetch(model=str(folder))["fingerprint"]
        assert fetch(model=str(folder) + "/")["fingerprint"] == before
        path = folder / "model-00002-of-00002.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        assert fetch(model=str(folder))["fingerprint"] != before

    def test_what_is_no_model(self, fetch: Fetch, folder: Path) -> None:
        weights = folder / "model-00001-of-00002.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-1])
        assert "model-00001-of-00002.safetensors is cut off" in fetch(model=str(folder))["msg"]
        weights.chmod(0o600)
        assert "mode 0600" in fetch(model=str(folder))["msg"]
        weights.unlink()
        assert "model-00001-of-00002.safetensors is missing (1 of 2" in fetch(model=str(folder))["msg"]
        (folder / "config.json").unlink()
        answer = fetch(model=str(folder))
        assert "the folder has no config.json" in answer["msg"]
        assert answer["msg"].startswith(f"model {folder}: ")
        assert "a folder has no sha256" in fetch(model=str(folder), sha256=SHA)["msg"]


class TestHub:
    """A model of a hub, through the module; the rest is in test_hub_job."""

    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Hub]:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        folder = tmp_path / "repos/org/tiny"
        folder.mkdir(parents=True)
        (folder / "tiny-Q8_0.gguf").write_bytes(GOOD)
        with Hub(tmp_path / "repos", tokens=["hf_secret"]) as running:
            yield running

    def test_new_then_same(self, fetch: Fetch, hub: Hub) -> None:
        would = fetch(model="org/tiny", sources=[hub.url], check=True)
        assert (would["changed"], would["action"], would["files"]) == (True, "download", [])
        first = fetch(model="org/tiny", sources=[hub.url])
        assert (first["changed"], first["action"], first["format"]) == (True, "download", "gguf")
        assert first["path"] == would["path"]
        assert Path(first["path"]).read_bytes() == GOOD
        assert first["files"] == [first["path"]]
        assert (first["total_size"], first["bytes_fetched"]) == (len(GOOD), len(GOOD))
        assert first["gguf"]["name"] == "llmfleet tiny"
        assert first["shape"]["architecture"] == "llama"
        assert first["manifest"]["commit"] == hub.commit("org/tiny")
        again = fetch(model="org/tiny", manifest=first["manifest"])
        assert (again["changed"], again["fingerprint"]) == (False, first["fingerprint"])
        second = fetch(model="org/tiny")
        assert (second["changed"], second["action"], second["shape"]) == (False, "keep", first["shape"])
        assert fetch(model="org/tiny", state="absent")["changed"]
        assert not fetch.store.exists()

    def test_check_mode_looks_at_the_disk_alone(self, fetch: Fetch, hub: Hub) -> None:
        answer = fetch(model="org/tiny", check=True)
        assert (answer["changed"], answer["action"], answer["manifest"]) == (True, "missing", {})
        assert hub.log == []

    def test_a_token_is_in_no_answer(
        self, fetch: Fetch, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        hub.repo("org/tiny", gated=True)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        refused = fetch(model="hf:org/tiny", sources=["hf"])
        assert "is gated: accept the licence at" in refused["msg"]
        wrong = fetch(model="hf:org/tiny", sources=["hf"], token="hf_wrong")
        assert "token is not valid" in wrong["msg"]
        assert "hf_wrong" not in json.dumps(wrong)
        done = fetch(model="hf:org/tiny", sources=["hf"], token="hf_secret")
        assert done["action"] == "download"
        assert "hf_secret" not in json.dumps(done)
        (tmp_path / "token").write_text("hf_secret\n")
        fetch(model="hf:org/tiny", state="absent")
        again = fetch(model="hf:org/tiny", sources=["hf"], token_file=str(tmp_path / "token"))
        assert again["action"] == "download"

    def test_tokens_of_peers_are_not_shown(self, fetch: Fetch) -> None:
        answer = fetch(model="tiny", peers=[["http://127.0.0.1:1/" + "t" * 32]])
        assert answer["action"] == "generate"
        assert "t" * 32 not in json.dumps(answer)

    def test_listing_and_prune(
        self, fetch: Fetch, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def run(module: t.Any, check: bool = False, **args: t.Any) -> dict[str, t.Any]:
            with patch_module_args({**args, "_ansible_check_mode": check}), pytest.raises(SystemExit):
                module.main()
            return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))

        listed = run(hub_listing, model="org/tiny", sources=["/nonexistent", hub.url])
        assert not listed["changed"]
        assert listed["candidates"] == [{"quant": "Q8_0", "files": ["tiny-Q8_0.gguf"], "size": len(GOOD)}]
        assert [row["source"] for row in listed["tried"]] == ["/nonexistent"]
        assert "there is nothing to list" in run(hub_listing, model="tiny")["msg"]
        assert "model org/none: " in run(hub_listing, model="org/none", sources=[hub.url])["msg"]

        path = fetch(model="org/tiny", sources=[hub.url])["path"]
        kept = fetch(model="tiny")["path"]
        for check in (True, False):
            pruned = run(model_prune, check, dest=str(fetch.store), keep=[kept])
            assert (pruned["changed"], [row["path"] for row in pruned["removed"]]) == (True, [path])
            assert pruned["freed"] >= len(GOOD)
            assert Path(path).exists() == check
        assert not run(model_prune, dest=str(fetch.store), keep=[kept])["changed"]
        assert not fetch(model="tiny")["changed"]
        monkeypatch.undo()


def test_failures_are_single_sentences(fetch: Fetch, server: Server, mine: Path) -> None:
    say = functools.partial(fetch, sha256=SHA)
    answers = [say(model=server.url("404")), fetch(model=str(mine) + "x"), fetch(model="nonsense")]
    for answer in answers:
        assert "\n" not in answer["msg"]
        assert "Traceback" not in answer["msg"]
