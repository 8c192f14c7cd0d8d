"""The server of the package mirrors in tests: each fault is what it says, so that what survives it is proven."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
import socket
import sys
import threading
import time
import typing as t
from email.message import Message
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "mirror_server.py"
spec = importlib.util.spec_from_file_location("mirror_server", FILE)
assert spec
assert spec.loader
mirror_server = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = mirror_server
spec.loader.exec_module(mirror_server)

PACKAGE = bytes(range(256)) * 40
INDEX = b"Package: docker-ce\n"


@pytest.fixture
def server(tmp_path) -> t.Iterator[t.Any]:
    for tree, index in (("good", INDEX), ("old", b"old\n"), ("wrongkey", b"wrong\n")):
        (tmp_path / tree).mkdir()
        (tmp_path / tree / "Packages").write_bytes(index)
        (tmp_path / tree / "docker ce~1.deb").write_bytes(PACKAGE)
    (tmp_path.parent / "outside").write_text("secret")
    with mirror_server.MirrorServer(tmp_path, log=io.StringIO()) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


class Answer(t.NamedTuple):
    status: int
    headers: Message
    body: bytes
    complete: bool = True


def ask(
    server: mirror_server.MirrorServer, path: str, method: str = "GET", timeout: float = 5, **headers: str
) -> Answer:
    host, port = server.server_address[:2]
    with contextlib.closing(http.client.HTTPConnection(str(host), port, timeout=timeout)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        try:
            return Answer(response.status, response.headers, response.read())
        except http.client.IncompleteRead as error:
            return Answer(response.status, response.headers, error.partial, complete=False)


DEB = "docker%20ce%7e1.deb"


@pytest.mark.parametrize(("tree", "index"), [("good", INDEX), ("old", b"old\n"), ("wrongkey", b"wrong\n")])
def test_trees_are_served_as_they_are(server, tree, index):
    assert ask(server, f"/{tree}/Packages").body == index
    assert ask(server, f"/{tree}/{DEB}").body == PACKAGE


@pytest.mark.parametrize("path", ["/good/none", "/good/", "/", "/good/../../outside", "/good/%2e%2e/%2e%2e/outside"])
def test_what_is_not_there_or_outside_is_not_found(server, path):
    assert ask(server, path).status == 404


def test_head_tells_the_size_only(server):
    answer = ask(server, f"/good/{DEB}", "HEAD")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", str(len(PACKAGE)))


def test_transfers_can_be_resumed(server):
    answer = ask(server, f"/good/{DEB}", Range="bytes=100-")
    assert (answer.status, answer.body) == (206, PACKAGE[100:])
    assert answer.headers["Content-Range"] == f"bytes 100-{len(PACKAGE) - 1}/{len(PACKAGE)}"


def test_unchanged_files_are_not_sent_again(server):
    changed = ask(server, "/good/Packages").headers["Last-Modified"]
    assert ask(server, "/good/Packages", If_Modified_Since=changed).status == 304


@pytest.mark.parametrize("path", ["Packages", DEB, "v2/", "none"])
def test_html_answers_everything_with_a_page(server, path):
    answer = ask(server, f"/html/{path}")
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "text/html", mirror_server.PAGE)


def test_hang_takes_the_request_and_says_nothing(server):
    with pytest.raises(socket.timeout):
        ask(server, "/hang/Packages", timeout=0.2)


def test_slow_sends_a_thousand_bytes_in_a_second(server):
    before = time.monotonic()
    (server.root / "good" / "Packages").write_bytes(b"x" * 400)
    assert len(ask(server, "/slow/Packages").body) == 400
    assert 0.3 < time.monotonic() - before < 3


@pytest.mark.parametrize("fault", ["mismatch", "resized", "broken"])
def test_damaged_packages_have_good_indexes(server, fault):
    assert ask(server, f"/{fault}/Packages").body == INDEX


def test_mismatch_has_the_right_size_and_wrong_bytes(server):
    answer = ask(server, f"/mismatch/{DEB}")
    assert len(answer.body) == len(PACKAGE)
    assert answer.body != PACKAGE


def test_resized_is_shorter_than_the_index_says(server):
    assert ask(server, f"/resized/{DEB}", "HEAD").headers["Content-Length"] == str(len(PACKAGE) - 1)
    assert ask(server, f"/resized/{DEB}").body == PACKAGE[:-1]


def test_broken_promises_all_and_never_gets_there(server):
    got = b""
    for _ in range(30):
        answer = ask(server, f"/broken/{DEB}", Range=f"bytes={len(got)}-")
        assert not answer.complete
        assert int(answer.headers["Content-Length"]) == len(PACKAGE) - len(got)
        got += answer.body
    assert PACKAGE.startswith(got)
    assert len(got) < len(PACKAGE)


def test_every_request_is_logged_once(server):
    ask(server, f"/good/{DEB}", "HEAD")
    ask(server, "/mismatch/none")
    # the line is written after the answer
    deadline = time.monotonic() + 5
    while server.log.getvalue().count("\n") < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    # each by the thread that answered, in any order
    assert sorted(server.log.getvalue().splitlines()) == [
        "127.0.0.1 GET /mismatch/none 404 10",
        f"127.0.0.1 HEAD /good/{DEB} 200 0",
    ]
