"""The ref `latest`: the decision, and the module against real git repositories and a package index on loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import llama_cpp_ref
import pytest
from ansible.module_utils.llmfleet import image_source, source_host
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_source import Source, SourceError
from ansible.module_utils.llmfleet.latest_ref import resolve
from ansible.module_utils.testing import patch_module_args

ONE, TWO, KNOWN = "1" * 40, "2" * 40, "a" * 40
SHA, OTHER_SHA = "ab" * 32, "cd" * 32
HUB, MIRROR = Source("git", "https://hub.example/x.git"), Source("git", "https://mirror.example/x.git")
SDIST = Source("sdist", "llama-cpp-python", "1.0", SHA, KNOWN)
CANDIDATES = [HUB, MIRROR, SDIST]


class Told:
    """Answers as told; what is not told is silent."""

    def __init__(self, heads=None, releases=None):
        self.heads, self.releases, self.asked = heads or {}, releases or {}, []

    def head(self, source):
        return self._answer(self.heads, source)

    def newest(self, source):
        return self._answer(self.releases, source)

    def _answer(self, known, source):
        self.asked.append(source.where)
        if source.where not in known:
            raise SourceError("is silent")
        return known[source.where]


def found(told, candidates=CANDIDATES, current=""):
    tried = []
    return resolve(candidates, told, current, lambda *row: tried.append(row)), tried


def test_the_first_git_source_that_answers_decides_and_nobody_else_is_asked():
    told = Told({HUB.where: ONE, MIRROR.where: TWO})
    latest, tried = found(told)
    assert (latest.ref, latest.origin) == (ONE, HUB.label())
    assert told.asked == [HUB.where]
    # both repositories can deliver a commit; the release carries another one
    assert latest.sources == (HUB, MIRROR)
    assert tried == [(HUB.label(), "is at 111111111111")]


def test_a_silent_source_is_passed_over_with_its_reason():
    latest, tried = found(Told({MIRROR.where: TWO}))
    assert (latest.ref, latest.origin, latest.sources) == (TWO, MIRROR.label(), (HUB, MIRROR))
    assert tried[0] == (HUB.label(), "is silent")


def test_the_commit_that_a_release_carries_can_come_from_there_too():
    latest, _tried = found(Told({HUB.where: KNOWN}))
    assert latest.sources == (HUB, MIRROR, SDIST)


def test_without_git_the_newest_release_counts_and_is_pinned():
    latest, tried = found(Told(releases={SDIST.where: ("1.1", OTHER_SHA)}))
    assert latest.ref == "llama-cpp-python-1.1"
    assert latest.sources == (Source("sdist", "llama-cpp-python", "1.1", OTHER_SHA),)
    assert tried[-1] == ("sdist llama-cpp-python", "is at 1.1")


def test_a_release_whose_commit_is_known_is_that_commit():
    latest, _tried = found(Told(releases={SDIST.where: ("1.0", SHA)}))
    assert (latest.ref, latest.sources) == (KNOWN, (HUB, MIRROR, SDIST))


def test_a_release_with_another_content_than_the_inventory_says_is_not_taken():
    latest, tried = found(Told(releases={SDIST.where: ("1.0", OTHER_SHA)}))
    assert latest.ref == ""
    assert OTHER_SHA in tried[-1][1]
    assert SHA in tried[-1][1]


def test_the_same_distribution_is_asked_once():
    older = Source("sdist", "llama_cpp_python", "0.9", OTHER_SHA, TWO)
    told = Told(releases={older.where: ("1.0", SHA)})
    latest, _tried = found(told, [older, SDIST])
    assert latest.ref == KNOWN
    assert len(told.asked) == 1


def test_when_git_is_silent_a_commit_in_use_is_not_rolled_back_to_a_release():
    told = Told(releases={SDIST.where: ("1.1", SHA)})
    latest, _tried = found(told, current=TWO)
    assert (latest.ref, latest.sources, latest.origin) == (TWO, (HUB, MIRROR), "")
    assert "stays" in latest.why
    # what came from a release, or is one that the inventory knows, moves on
    assert found(told, current="llama-cpp-python-0.9")[0].ref == "llama-cpp-python-1.1"
    assert found(told, current=KNOWN)[0].ref == "llama-cpp-python-1.1"
    # and nothing could deliver that commit here
    assert found(told, [SDIST], current=TWO)[0].ref == "llama-cpp-python-1.1"


def test_what_holds_one_version_for_good_is_not_asked():
    archive = Source("archive", "/x.tar.gz", sha256=SHA)
    pinned = Source("git", HUB.where, ref=TWO)
    told = Told({HUB.where: ONE, MIRROR.where: ONE})
    latest, tried = found(told, [archive, pinned, MIRROR])
    assert told.asked == [MIRROR.where]
    assert latest.sources == (MIRROR,)
    assert "222222222222 only" in tried[0][1]


def test_nothing_that_answers_is_no_error_here():
    latest, tried = found(Told())
    assert (latest.ref, latest.sources, latest.origin) == ("", (), "")
    assert [row[1] for row in tried] == ["is silent"] * 3


@pytest.mark.parametrize("source", [*CANDIDATES, Source("archive", "/x", sha256=SHA, ref="b1")])
def test_a_row_of_the_inventory_is_the_same_candidate(source):
    assert image_source.parse_sources([source.row()]) == [source]


@pytest.mark.parametrize(("form", "kind"), [("json", "application/vnd.pypi.simple.v1+json"), ("html", "text/html")])
def test_a_withdrawn_release_is_not_the_newest_but_can_be_asked_for(form, kind):
    names = {"x-1.2.tar.gz": False, "x-1.10.tar.gz": False, "x-1.11.tar.gz": True, "x-2.0rc1.tar.gz": False}
    if form == "json":
        rows = [
            {"filename": name, "url": name, "hashes": {"sha256": SHA}, "yanked": "broken" if yanked else False}
            for name, yanked in names.items()
        ]
        body = json.dumps({"files": rows})
    else:
        body = "".join(
            f'<a href="{name}#sha256={SHA}"{" data-yanked=broken" if yanked else ""}>{name}</a>'
            for name, yanked in names.items()
        )
    files = image_source.parse_index(body, kind, "https://h/simple/x/")
    assert image_source.pick_sdist(files, "x", "", "")[0] == "1.10"
    assert image_source.pick_sdist(files, "x", "1.11", "")[0] == "1.11"


# --- the module, for real


@pytest.fixture
def ask(capsys, monkeypatch):
    """Run the module; the host's own proxies and pip settings are left out."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)

    def run(**args):
        with patch_module_args({"pypi_index": "http://127.0.0.1:1", **args}), pytest.raises(SystemExit):
            llama_cpp_ref.main()
        return json.loads(capsys.readouterr().out)

    return run


class Repository:
    """A real git repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch", "master")
        self.commit("first")

    def git(self, *words: str) -> str:
        own = ["git", "-C", str(self.path), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
        return subprocess.run([*own, *words], check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, text: str) -> str:
        self.git("commit", "--quiet", "--allow-empty", "--message", text)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repositories" / "x")


@contextmanager
def serving(folder: Path):
    """Serve ``folder``: repositories under /git/ through git's own HTTP back-end, plain files under /simple/."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith("/git/"):
                return super().do_GET()
            path, _, query = self.path.partition("?")
            named = {
                "GIT_PROJECT_ROOT": str(folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path[len("/git") :],
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            length = int(self.headers.get("Content-Length") or 0)
            done = subprocess.run(
                ["git", "http-backend"],
                env={**os.environ, **named},
                input=self.rfile.read(length),
                capture_output=True,
                check=True,
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            rows = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(rows.pop("Status", "200").split()[0]))
            for name, value in rows.items():
                self.send_header(name, value)
            self.end_headers()
            return self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(folder / "index"))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("way", ["file", "path", "http"])
def test_the_module_follows_the_head_of_a_repository(ask, repository, way):
    with serving(repository.path.parent) as url:
        where = {"file": f"file://{repository.path}", "path": str(repository.path), "http": f"{url}/git/x/.git"}[way]
        rows = [{"git": where}]
        first = ask(sources=rows)
        assert not first.get("failed"), first
        assert first["ref"] == repository.git("rev-parse", "HEAD")
        assert (first["sources"], first["from"], first["changed"]) == (rows, f"git {where}", False)
        assert ask(sources=rows, _ansible_check_mode=True)["ref"] == first["ref"]
        newer = repository.commit("second")
        assert ask(sources=rows)["ref"] == newer


def test_the_head_counts_whatever_the_default_branch_is_called(ask, repository):
    repository.git("checkout", "--quiet", "-b", "main")
    newer = repository.commit("on main")
    repository.git("update-ref", "refs/remotes/origin/HEAD", "HEAD~1")  # the head of another repository
    assert ask(sources=[{"git": f"file://{repository.path}"}])["ref"] == newer


def test_a_repository_without_a_head_is_said_to_have_none(ask, tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "empty")], check=True)
    result = ask(sources=[{"git": str(tmp_path / "empty")}])
    assert result["ref"] == ""
    assert "no HEAD" in result["why"]


def test_the_reasons_and_what_to_do_are_told_without_a_password(ask, tmp_path):
    rows = [
        {"git": "http://me:secret@127.0.0.1:1/x.git"},
        {"git": f"file://{tmp_path}/nothing"},
        {"sdist": "llama-cpp-python"},
    ]
    result = ask(sources=rows)
    assert not result.get("failed"), result
    assert (result["ref"], result["sources"], result["from"]) == ("", [], "")
    for words in ("Connection refused", "does not appear to be a git repository", "llama_cpp_image_sources"):
        assert words in result["why"], result["why"]
    assert "secret" not in result["why"]
    assert result["tried"][0]["candidate"] == "git http://127.0.0.1:1/x.git"


def test_a_source_that_accepts_and_is_silent_costs_its_time_limit_only(ask, repository):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        started = time.monotonic()
        place = f"http://127.0.0.1:{mute.getsockname()[1]}/x.git"
        result = ask(sources=[{"git": place}, {"git": str(repository.path)}], timeout=2)
    assert result["ref"] == repository.git("rev-parse", "HEAD")
    assert result["tried"][0]["result"] == "fatal: no answer within 2 s"
    assert time.monotonic() - started < 5


@pytest.fixture
def index(tmp_path):
    """A simple index with two releases of llama-cpp-python; give (URL, digest of the newer one)."""
    project = tmp_path / "index" / "simple" / "llama-cpp-python"
    project.mkdir(parents=True)
    links = []
    for version in ("0.3.9", "0.3.36"):
        name = f"llama_cpp_python-{version}.tar.gz"
        (project / name).write_text(version)
        digest = hashlib.sha256(version.encode()).hexdigest()
        links.append(f'<a href="{name}#sha256={digest}">{name}</a>')
    (project / "index.html").write_text("\n".join(links))
    with serving(tmp_path) as url:
        yield f"{url}/simple", digest


def test_without_git_the_index_is_asked(ask, index, tmp_path):
    url, digest = index
    rows = [{"git": f"file://{tmp_path}/nothing"}, {"sdist": "llama-cpp-python", "version": "0.3.9", "sha256": SHA}]
    result = ask(sources=rows, pypi_index=url)
    assert result["ref"] == "llama-cpp-python-0.3.36"
    assert result["sources"] == [{"sdist": "llama-cpp-python", "version": "0.3.36", "sha256": digest}]
    assert result["from"] == "sdist llama-cpp-python"
    # what is resolved is exact: resolved again it is itself
    assert ask(ref=result["ref"], sources=result["sources"])["sources"] == result["sources"]


def test_without_a_git_program_the_index_is_asked(ask, index, repository, monkeypatch):
    monkeypatch.setattr(source_host, "find_program", lambda name: "" if name == "git" else shutil.which(name) or "")
    result = ask(sources=[{"git": str(repository.path)}, {"sdist": "llama-cpp-python"}], pypi_index=index[0])
    assert result["ref"] == "llama-cpp-python-0.3.36"
    assert result["tried"][0]["result"] == "git is not installed on this host"


def test_a_commit_in_use_stays_when_no_git_answers(ask, index, tmp_path):
    rows = [{"git": f"file://{tmp_path}/nothing"}, {"sdist": "llama-cpp-python"}]
    result = ask(sources=rows, pypi_index=index[0], current=ONE)
    assert (result["ref"], result["sources"]) == (ONE, rows[:1])
    assert "stays" in result["why"]


def test_another_ref_is_returned_as_it_stands_and_nobody_is_asked(ask):
    rows = [{"git": "http://127.0.0.1:1/x.git"}, {"sdist": "y", "version": "1", "sha256": SHA, "ref": KNOWN}]
    result = ask(ref="b77", sources=rows)
    assert (result["ref"], result["sources"], result["tried"]) == ("b77", rows[:1], [])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"sources": [{"gti": "x"}]}, "unknown key gti"),
        ({"timeout": 0}, "timeout must be at least 1 second"),
        ({"ca_bundle": "/no/ca"}, "ca_bundle /no/ca is not a file"),
    ],
)
def test_bad_input_is_one_sentence(ask, args, words):
    result = ask(**args)
    assert result["failed"]
    assert words in result["msg"]


def test_a_ca_bundle_that_is_none_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(BadInput, match=r"ca\.pem cannot be used.*PEM"):
        source_host.https_opener(str(tmp_path / "ca.pem"))


def test_git_trusts_the_given_ca(tmp_path):
    (tmp_path / "ca.pem").write_text("")
    seen = {}

    def run(argv, environ_update):
        seen.update(environ_update)
        return 0, f"{ONE}\tHEAD\n", str(argv)

    bundle = "/etc/ssl/certs/ca-certificates.crt"
    params = {"ca_bundle": bundle, "pypi_index": "", "pypi_index_fallback": ""}
    fetcher = source_host.make_fetcher(params, tmp_path, 5)
    fetcher.run = run
    fetcher.git_says("ls-remote", "https://h/x", "HEAD")
    assert seen["GIT_SSL_CAINFO"] == bundle
    assert seen["GIT_TERMINAL_PROMPT"] == "0"
