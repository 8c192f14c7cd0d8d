"""The signing_key module against a server with all the faults a mirror may have."""

from __future__ import annotations

import http.server
import json
import os
import socket
import stat
import threading
import time
import typing as t
from pathlib import Path

import pytest
import signing_key
from ansible.module_utils.llmfleet.openpgp import armor, grouped
from ansible.module_utils.testing import patch_module_args
from openpgp_keys import GNUPG_FINGERPRINT, GNUPG_KEY, body, key, packet, print_of

RIGHT, WRONG = print_of(1), print_of(2)
SERVED = {
    "right": armor(key(1)),
    "binary": key(1),
    "gnupg": GNUPG_KEY.encode(),
    "wrong": armor(key(2)),
    "both": armor(key(1) + key(2)),
    "secret": key(1) + packet(7, body(3)),
    "page": b"<!DOCTYPE html>\n<title>Please log in</title>",
    "huge": key(1) + packet(13, bytes(1 << 20)),
}


class Handler(http.server.BaseHTTPRequestHandler):
    """The path says which key is served, or what is wrong with the server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        fault = self.path[1:]
        self.server.asked.append(fault)  # type: ignore[attr-defined]
        if fault == "moved":
            self.answer(b"", 302, ("Location", "/right"))
        elif fault == "away":
            self.answer(b"", 302, ("Location", "file:///etc/hostname"))
        elif fault == "circle":
            self.answer(b"", 302, ("Location", "/circle"))
        elif fault == "cut":
            self.answer(SERVED["right"][:300], 200, ("Content-Length", str(len(SERVED["right"]))))
        elif fault == "short":
            self.answer(SERVED["right"][:300])
        elif fault == "hang":
            time.sleep(30)
        elif fault == "drip":
            self.answer(b"", 200, ("Content-Length", str(len(SERVED["right"]))))
            for octet in SERVED["right"]:
                self.wfile.write(bytes([octet]))
                time.sleep(0.1)
        elif fault in SERVED:
            self.answer(SERVED[fault])
        else:
            self.answer(b"no such file", 404)

    def answer(self, content: bytes, status: int = 200, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self.close_connection = True
        for name, value in headers:
            self.send_header(name, value)
        if "Content-Length" not in dict(headers):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of these tests."""

    def url(self, fault: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{fault}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Host:
    """The module, writing into a folder of the test."""

    def __init__(self, capsys: pytest.CaptureFixture[str], root: Path, server: Server) -> None:
        self.capsys, self.root, self.server = capsys, root, server
        self.dest = root / "keyrings/example.asc"

    def run(self, *faults: str, **args: t.Any) -> dict[str, t.Any]:
        given = {"dest": str(self.dest), "urls": [self.server.url(fault) for fault in faults], "fingerprints": [RIGHT]}
        with patch_module_args({**given, **args}), pytest.raises(SystemExit):
            signing_key.main()
        result: dict[str, t.Any] = json.loads(self.capsys.readouterr().out)
        return result

    def put(self, content: bytes, mode: int = 0o644) -> None:
        self.dest.parent.mkdir(exist_ok=True)
        self.dest.write_bytes(content)
        self.dest.chmod(mode)

    def mode(self, path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def host(capsys: pytest.CaptureFixture[str], tmp_path: Path, server: Server) -> Host:
    return Host(capsys, tmp_path, server)


def test_a_right_key_is_written_once(host, server):
    old = os.umask(0o077)
    try:
        first = host.run("right")
    finally:
        os.umask(old)
    assert (first["changed"], first["fingerprints"], first["url"]) == (True, [RIGHT], server.url("right"))
    assert (first["refused"], first["backup_file"]) == ([], "")
    assert first["diff"] == {"before": "", "after": f"{grouped(RIGHT)}\nmode 0644\n"}
    assert host.dest.read_bytes() == SERVED["right"]
    assert (host.mode(host.dest), host.mode(host.dest.parent)) == (0o644, 0o755)
    again = host.run("right")
    assert (again["changed"], again["fingerprints"], again["url"]) == (False, [RIGHT], "")
    assert server.asked == ["right"]


def test_a_real_key_and_a_fingerprint_as_people_write_it(host):
    result = host.run("gnupg", fingerprints=[grouped(GNUPG_FINGERPRINT).lower()])
    assert result["fingerprints"] == [GNUPG_FINGERPRINT]
    assert host.dest.read_text() == GNUPG_KEY


@pytest.mark.parametrize("served", ["right", "binary"])
@pytest.mark.parametrize(("name", "content"), [("k.asc", SERVED["right"]), ("k.gpg", key(1)), ("K", SERVED["right"])])
def test_the_suffix_decides_on_the_form(host, served, name, content):
    host.dest = host.root / name
    assert host.run(served)["changed"]
    assert host.dest.read_bytes() == content
    assert host.run(served)["changed"] is False


def test_a_wrong_key_is_refused_with_both_fingerprints(host, server):
    result = host.run("wrong")
    assert result["failed"]
    assert result["msg"] == (
        f"no URL serves the signing key {host.dest}: {server.url('wrong')} serves the key {grouped(WRONG)}; "
        f"wanted is {grouped(RIGHT)}; choose another mirror, or add the fingerprint once the repository's owner "
        "confirms it as new"
    )
    assert result["refused"][0]["fingerprints"] == [WRONG]
    assert not host.dest.parent.exists()


def test_a_second_key_beside_the_right_one_is_refused(host):
    result = host.run("both")
    assert result["failed"]
    assert f"serves, beside a right one, the key {grouped(WRONG)}" in result["msg"]
    assert host.run("both", fingerprints=[RIGHT, WRONG])["fingerprints"] == [RIGHT, WRONG]


def test_the_next_url_is_used_and_the_refusal_told(host, server):
    result = host.run("missing", "wrong", "right", "page")
    assert result["url"] == server.url("right")
    assert [item["url"] for item in result["refused"]] == [server.url("missing"), server.url("wrong")]
    assert [item["fingerprints"] for item in result["refused"]] == [[], [WRONG]]
    # a server that is merely down is no reason to worry; other tests of this process may have warned of their own
    warnings = [warning for warning in map(json.dumps, result["warnings"]) if server.url("") in warning]
    assert len(warnings) == 1
    assert (
        f"{server.url('wrong')} serves the key {grouped(WRONG)}; wanted is {grouped(RIGHT)}; "
        f"the signing key was taken from {server.url('right')} instead"
    ) in warnings[0]
    assert server.asked == ["missing", "wrong", "right"]


def test_a_redirect_is_followed(host):
    assert host.run("moved")["fingerprints"] == [RIGHT]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("missing", "answers HTTP 404"),
        ("page", "serves a web page"),
        ("secret", "serves a secret key"),
        ("huge", "serves more than 1048576 bytes"),
        ("cut", "breaks off in the middle"),
        ("short", "serves a key file that ends too early"),
        ("circle", "redirects in a circle"),
        ("away", "where it should not"),
    ],
)
def test_what_is_not_taken(host, server, fault, why):
    result = host.run(fault)
    assert result["failed"]
    assert why in result["refused"][0]["why"]
    assert f"{server.url(fault)} {result['refused'][0]['why']}; " in result["msg"]
    assert result["msg"].endswith("choose another mirror, or correct the host's network, proxy and certificates")
    assert not host.dest.exists()


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_the_time_limit_is_one_for_all(host, fault):
    began = time.monotonic()
    result = host.run(fault, "right", timeout=1)
    # each of them would go on for 30 s and more
    assert time.monotonic() - began < 10
    assert result["refused"][0]["why"] == "did not serve the key within 1 s"
    assert result["fingerprints"] == [RIGHT]


def test_nobody_listens(host):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/gpg"
        result = host.run(urls=[url])
    assert f"{url} refuses the connection" in result["msg"]


def test_check_mode_judges_and_writes_nothing(host):
    result = host.run("right", _ansible_check_mode=True)
    assert (result["changed"], result["fingerprints"]) == (True, [RIGHT])
    assert not host.dest.parent.exists()
    assert host.run("wrong", _ansible_check_mode=True)["failed"]
    host.put(SERVED["wrong"], 0o600)
    assert host.run("right", _ansible_check_mode=True)["changed"]
    assert (host.dest.read_bytes(), host.mode(host.dest)) == (SERVED["wrong"], 0o600)
    assert os.listdir(host.dest.parent) == [host.dest.name]


@pytest.mark.parametrize("content", [SERVED["wrong"], SERVED["both"], b"", b"garbage", SERVED["right"][:300]])
def test_a_foreign_file_is_kept_aside(host, content):
    host.put(content)
    result = host.run("right")
    assert result["changed"]
    assert Path(result["backup_file"]).read_bytes() == content
    assert host.dest.read_bytes() == SERVED["right"]


def test_the_diff_shows_what_was_there(host):
    host.put(SERVED["wrong"], 0o640)
    assert host.run("right")["diff"]["before"] == f"{grouped(WRONG)}\nmode 0640\n"
    host.put(b"garbage")
    assert host.run("right")["diff"]["before"] == "a file of another kind\nmode 0644\n"


def test_a_foreign_file_stays_when_there_is_no_right_key(host):
    host.put(SERVED["wrong"])
    assert host.run("page")["failed"]
    assert host.dest.read_bytes() == SERVED["wrong"]


def test_the_form_is_put_right_without_a_download(host, server):
    host.put(key(1))
    result = host.run("wrong")
    assert (result["changed"], result["url"], server.asked) == (True, "", [])
    assert host.dest.read_bytes() == SERVED["right"]


def test_a_mode_that_shuts_out_apt_is_put_right(host, server):
    host.put(SERVED["right"], 0o600)
    result = host.run("wrong")
    assert (result["changed"], result["backup_file"], server.asked) == (True, "", [])
    assert result["diff"]["before"] != result["diff"]["after"]
    assert host.mode(host.dest) == 0o644
    assert host.run("wrong")["changed"] is False


def test_a_link_stays_a_link(host):
    target = host.root / "shared.gpg"
    target.write_bytes(SERVED["wrong"])
    host.dest.parent.mkdir()
    host.dest.symlink_to(target)
    assert host.run("right")["changed"]
    assert host.dest.is_symlink()
    # apt reads the name it is given, not that of the target
    assert target.read_bytes() == SERVED["right"]
    assert host.run("right")["changed"] is False


def test_removal(host, server):
    host.put(SERVED["right"])
    absent = {"state": "absent", "urls": [], "fingerprints": []}
    assert host.run(**absent, _ansible_check_mode=True)["changed"]
    assert host.dest.exists()
    result = host.run(**absent)
    assert (result["changed"], result["fingerprints"]) == (True, [])
    assert result["diff"] == {"before": f"{host.dest}\n", "after": ""}
    assert not host.dest.exists()
    assert host.run(**absent)["changed"] is False
    assert server.asked == []


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"fingerprints": []}, "must name at least one each"),
        ({"urls": []}, "must name at least one each"),
        ({"fingerprints": ["0EBFCD88"]}, "'0EBFCD88' is not a whole fingerprint"),
        ({"urls": ["ftp://example.org/gpg"]}, "'ftp://example.org/gpg' cannot be one of `urls`"),
        ({"urls": ["/etc/passwd"]}, "cannot be one of `urls`"),
        ({"urls": ["http://[::1/gpg"]}, "cannot be one of `urls`"),
        ({"timeout": 0}, "at least 1 second"),
        ({"dest": "keys.asc"}, "absolute path"),
        ({"dest": "/"}, "absolute path of a file"),
        ({"ca_bundle": "/nonexistent/ca.pem"}, "`ca_bundle` /nonexistent/ca.pem: No such file"),
        ({"ca_bundle": "/dev/null"}, "no certificate in PEM form"),
        ({"state": "newest"}, "state"),
        ({"dest": "/dev/null/keys/k.asc"}, "/dev/null is not a folder"),
    ],
)
def test_broken_input(host, args, why):
    result = host.run("right", **args)
    assert result["failed"]
    assert why in result["msg"]
    assert "Traceback" not in result["msg"]


def test_a_password_in_a_url_is_not_shown(host):
    result = host.run(urls=["https://user:hunter2@example.org/gpg"])
    assert result["failed"]
    assert "example.org" in result["msg"]
    assert "hunter2" not in result["msg"]
