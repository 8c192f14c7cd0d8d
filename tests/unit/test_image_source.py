"""Source candidates, the package index, downloads, unpacking; base images and registries."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import random
import subprocess
import tarfile
import threading
import urllib.request
from contextlib import contextmanager

import pytest
from ansible.module_utils.llmfleet import base_image as base
from ansible.module_utils.llmfleet import image_source as src
from ansible.module_utils.llmfleet import registries as reg
from ansible.module_utils.llmfleet import source_host
from ansible.module_utils.llmfleet.build_host import GIB, disk_problem
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_source import Source, SourceError
from ansible.module_utils.llmfleet.source_fetch import Fetcher, tree_root, unpack

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({}, "exactly one"),
        ({"git": "https://h/x", "sdist": "y"}, "exactly one"),
        ({"gitt": "https://h/x"}, "unknown key gitt"),
        ({"git": "not a url"}, "not a URL"),
        ({"archive": "/x.tar.gz"}, "sha256"),
        ({"archive": "/x.tar.gz", "sha256": "12"}, "64 hexadecimal"),
    ],
)
def test_bad_source_rows_are_named(row, word):
    with pytest.raises(BadInput, match=rf"sources\[2\].*{word}"):
        src.parse_sources([{"git": "https://h/x"}, row])


def test_the_default_sources_are_valid_and_deliver_the_default_ref():
    sources = src.parse_sources(src.DEFAULT_SOURCES)
    usable, passed = src.for_ref(sources, sources[-1].ref)
    assert usable == sources
    assert passed == []


def test_a_source_that_carries_another_ref_is_passed_over():
    usable, passed = src.for_ref([Source("git", "https://h/x"), Source("sdist", "n", "1", SHA, "f" * 40)], "b1")
    assert [source.kind for source in usable] == ["git"]
    assert passed == [{"candidate": "sdist n 1", "result": "carries ffffffffffff, not b1"}]


def test_credentials_are_never_shown():
    assert Source("git", "https://me:secret@h/x.git").label() == "git https://h/x.git"
    assert (
        src.public_url_in("fatal: unable to access 'https://me:secret@h/x'") == "fatal: unable to access 'https://h/x'"
    )


HTML = f"""<html><body><a href="../../f/foo_bar-1.9.tar.gz#sha256={SHA}" data-x="&gt;">foo_bar-1.9.tar.gz</a>
<a href="https://h/foo_bar-1.10.tar.gz#sha256={SHA}">foo_bar-1.10.tar.gz</a>
<a href="foo_bar-2.0rc1.tar.gz#sha256={SHA}">foo_bar-2.0rc1.tar.gz</a>
<a href="x.whl">foo_bar-3-py3-none-any.whl</a></body></html>"""
JSON = json.dumps(
    {
        "files": [
            {"filename": "foo_bar-1.9.tar.gz", "url": "../../f/foo_bar-1.9.tar.gz", "hashes": {"sha256": SHA}},
            {"filename": "foo_bar-1.10.tar.gz", "url": "https://h/foo_bar-1.10.tar.gz", "hashes": {"sha256": SHA}},
        ]
    }
)


@pytest.mark.parametrize(("body", "kind"), [(HTML, "text/html"), (JSON, "application/vnd.pypi.simple.v1+json")])
def test_an_index_is_read_in_both_forms(body, kind):
    files = src.parse_index(body, kind, "https://h/simple/foo-bar/")
    assert src.pick_sdist(files, "foo.bar", "1.9", "")[1] == src.IndexFile(
        "foo_bar-1.9.tar.gz", "https://h/f/foo_bar-1.9.tar.gz", SHA
    )
    assert src.pick_sdist(files, "foo-bar", "", "")[0] == "1.10"


@pytest.mark.parametrize(
    ("version", "sha", "word"), [("9", "", "no source distribution"), ("1.9", "cd" * 32, "was asked for")]
)
def test_a_wrong_version_or_digest_is_an_error(version, sha, word):
    with pytest.raises(SourceError, match=word):
        src.pick_sdist(src.parse_index(HTML, "text/html", "https://h/"), "foo-bar", version, sha)


def test_broken_json_is_an_error():
    with pytest.raises(SourceError, match="not valid JSON"):
        src.parse_index("<html>", "application/json", "https://h/")


def test_the_index_of_pips_files_strongest_last():
    texts = ["[global]\nindex-url = https://a/simple\n", "broken", "[install]\nindex_url = https://b/simple\n", ""]
    assert src.index_from_config(texts) == "https://b/simple"
    assert src.index_from_config(["[global]\ncert = x\n"]) == ""


def test_the_order_in_which_an_index_is_chosen():
    order = ["option", "environment", "configured", "builtin", "fallback"]
    for number in range(5):
        given = ["" if place < number else f"https://{name}/" for place, name in enumerate(order)]
        option, env, *rest = given
        assert src.choose_index(option, {"PIP_INDEX_URL": env}, *rest) == f"https://{order[number]}"
    assert src.choose_index("", {}, "", "", "") == ""


# --- fetching


def packed(files: dict[str, str], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return out.getvalue()


TREE = packed(
    {
        "x-1/CMakeLists.txt": "wrapper",
        "x-1/vendor/llama.cpp/CMakeLists.txt": "real",
        "x-1/vendor/llama.cpp/src/a.cpp": "code",
        "x-1/vendor/llama.cpp/models/big.gguf": "weights",
        "x-1/vendor/llama.cpp/.git": "gitdir",
    },
    {"x-1/vendor/llama.cpp/link": "/etc/passwd"},
)


def test_the_tree_is_unpacked_without_links_and_what_is_not_wanted(tmp_path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(TREE)
    unpack(archive, tmp_path / "out", {"models", ".git"})
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found == ["CMakeLists.txt", "src/a.cpp"]
    assert (tmp_path / "out/CMakeLists.txt").read_text() == "real"
    assert not (tmp_path / "out/link").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil", "x/../../evil"])
def test_a_path_that_points_outside_is_refused(tmp_path, name):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(packed({"CMakeLists.txt": "", name: "evil"}))
    with pytest.raises(SourceError, match="unsafe path"):
        unpack(archive, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "content", [b"<html>", TREE[: len(TREE) // 2], packed({"README": ""})], ids=["page", "truncated", "no sources"]
)
def test_what_is_no_source_archive_is_an_error(tmp_path, content):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(SourceError):
        unpack(archive, tmp_path / "out")


def test_the_topmost_project_is_the_root():
    assert tree_root(["a/b/CMakeLists.txt", "a/CMakeLists.txt", "a/c/d/CMakeLists.txt"]) == "a"


class Files(http.server.BaseHTTPRequestHandler):
    """Serves TREE; the first answer of /cut stops half way, /rot is another content."""

    seen: list[tuple[str, str | None]]
    cut: bool

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).seen.append((self.path, wanted))
        if self.path.startswith("/simple/"):
            body = HTML.replace(SHA, hashlib.sha256(TREE).hexdigest()).encode()
            return self.answer(200, body, "text/html")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = (b"rotten" if self.path == "/rot" else TREE)[start:]
        if self.path == "/cut" and type(self).cut:
            type(self).cut = False
            return self.answer(200, body, "x/y", send=len(body) // 2)
        return self.answer(206 if wanted else 200, body, "x/y")

    def answer(self, status, body, kind, send=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:send])

    def log_message(self, *_args):
        pass


@contextmanager
def serving():
    handler = type("Handler", (Files,), {"seen": [], "cut": True})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_fetcher(folder, **changed):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    values = {
        "folder": folder,
        "run": lambda *_a, **_k: (0, "", ""),
        "opener": opener,
        "connect": lambda *_a, **_k: None,
        "git": None,
        "index": lambda: "",
        "environment": {},
        **changed,
    }
    return Fetcher(**values)


DIGEST = hashlib.sha256(TREE).hexdigest()


def test_a_broken_download_continues_where_it_stopped(tmp_path):
    with serving() as (url, seen):
        fetched = make_fetcher(tmp_path).fetch(Source("archive", f"{url}/cut", sha256=DIGEST), "r")
    assert fetched.path.read_bytes() == TREE
    assert [wanted for _path, wanted in seen] == [None, f"bytes={len(TREE) // 2}-"]


def test_a_rotten_leftover_is_fetched_again_from_the_start(tmp_path):
    source = Source("archive", "", sha256=DIGEST)
    with serving() as (url, _seen):
        fetcher = make_fetcher(tmp_path)
        (tmp_path / f"archive-{DIGEST[:24]}.tar.part").write_bytes(b"rubbish")
        fetched = fetcher.fetch(Source("archive", f"{url}/whole", sha256=DIGEST), "r")
    assert fetched.path.read_bytes() == TREE
    assert fetcher.cached(source, "r").path == fetched.path


def test_a_wrong_digest_is_never_kept(tmp_path):
    with serving() as (url, _seen), pytest.raises(SourceError, match="was asked for"):
        make_fetcher(tmp_path).fetch(Source("archive", f"{url}/rot", sha256=DIGEST), "r")
    assert list(tmp_path.iterdir()) == []


def test_an_sdist_is_resolved_through_the_index_and_a_second_fetch_needs_no_download(tmp_path):
    with serving() as (url, seen):
        fetcher = make_fetcher(tmp_path, index=lambda: f"{url}/simple")
        source = Source("sdist", "foo-bar", "1.9")
        fetcher.probe(source)
        assert fetcher.fetch(source, "r").path == fetcher.fetch(source, "r").path
    assert [path for path, _range in seen].count("/f/foo_bar-1.9.tar.gz") == 1


def test_a_local_archive_is_copied_and_checked(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(TREE)
    for number, place in enumerate((str(tmp_path / "a.tar.gz"), f"file://{tmp_path}/a.tar.gz")):
        source = Source("archive", place, sha256=DIGEST)
        fetcher = make_fetcher(tmp_path / f"kept{number}")
        fetcher.probe(source)
        assert fetcher.fetch(source, "r").path.read_bytes() == TREE
    with pytest.raises(SourceError, match="was asked for"):
        fetcher.fetch(Source("archive", str(tmp_path / "a.tar.gz"), sha256=SHA), "r")
    with pytest.raises(SourceError, match="there is no file"):
        fetcher.probe(Source("archive", str(tmp_path / "b.tar.gz"), sha256=SHA))


def refuse(*_args, **_kwargs):
    raise ConnectionRefusedError(111, "Connection refused")


@pytest.mark.parametrize(
    ("changed", "source", "word"),
    [
        ({}, Source("git", "https://h/x"), "git is not installed"),
        ({"git": "git", "connect": refuse}, Source("git", "https://h/x"), "h does not answer on port 443"),
        ({"connect": refuse}, Source("archive", "http://h:81/x", sha256=SHA), "h does not answer on port 81"),
        ({}, Source("sdist", "foo"), "no package index"),
    ],
)
def test_a_probe_says_why_a_candidate_cannot_deliver(tmp_path, changed, source, word):
    with pytest.raises(SourceError, match=word):
        make_fetcher(tmp_path, **changed).probe(source)


def test_behind_a_proxy_git_hosts_are_not_dialled(tmp_path):
    environment = {"HTTPS_PROXY": "http://p:1"}
    make_fetcher(tmp_path, git="git", connect=refuse, environment=environment).probe(Source("git", "https://h/x"))


def test_gits_own_words_are_the_reason(tmp_path):
    def git(_argv, **_options):
        return 128, "", "warning: x\nfatal: unable to access 'https://me:pw@h/x/': could not resolve\n"

    with pytest.raises(SourceError, match="fatal: unable to access 'https://h/x/'"):
        make_fetcher(tmp_path, git="git", run=git).fetch(Source("git", "https://me:pw@h/x"), "b1")


def git(folder, *words):
    own = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    return subprocess.run([*own, *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository with something large in it that stays."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "CMakeLists.txt").write_text("")
    (folder / "large").write_bytes(random.Random(1).randbytes(300_000))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "x")
    return folder


def test_git_fetches_a_commit_once_and_of_the_next_one_what_has_changed(tmp_path, repository):
    fetcher = make_fetcher(tmp_path / "kept", git="git", run=source_host.limited(60))
    source = Source("git", f"file://{repository}")
    packs = tmp_path / "kept" / "llama.cpp.git" / "objects"

    def size():
        return sum(path.stat().st_size for path in packs.rglob("*") if path.is_file())

    heads = [git(repository, "rev-parse", "HEAD")]
    first = fetcher.fetch(source, heads[0])
    assert (first.commit, first.path.name) == (heads[0], f"git-{heads[0]}.tar")
    assert fetcher.cached(source, heads[0]).path == first.path
    one = size()
    assert one > 300_000
    # left by a run that was killed
    (tmp_path / "kept" / "llama.cpp.git" / "shallow.lock").touch()
    (repository / "CMakeLists.txt").write_text("project(x)\n")
    git(repository, "commit", "--quiet", "--all", "--message", "y")
    heads.append(git(repository, "rev-parse", "HEAD"))
    second = fetcher.fetch(source, heads[1])
    assert second.commit == heads[1] != heads[0]
    assert size() - one < 10_000
    with tarfile.open(second.path) as tar:
        assert tar.extractfile("CMakeLists.txt").read() == b"project(x)\n"
        assert tar.getmember("large").size == 300_000


# --- base images


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID=debian\nVERSION_CODENAME=trixie\nNAME="x"\n', "debian:trixie"),
        ("ID=ubuntu\nVERSION_CODENAME=noble\n", "ubuntu:noble"),
        ('ID="fedora"\nVERSION_CODENAME=""\n', "debian:bookworm"),
        ("ID=debian\n", "debian:bookworm"),
        ("", "debian:bookworm"),
    ],
)
def test_the_base_follows_the_host(text, expected):
    assert base.host_base(text) == expected


def test_a_malformed_base_is_refused():
    with pytest.raises(BadInput, match="distribution:codename"):
        base.check_base("debian/bookworm")


TARGETS = """http://m/debian/|bookworm|bookworm|main|Debian
http://m/debian/|bookworm|bookworm|contrib|Debian
http://m/debian/|bookworm|bookworm|main|Debian
http://m/debian/|bookworm-updates|bookworm-updates|main|Debian
http://s/security/|bookworm-security|bookworm-security|main|Debian
http://d/docker/|bookworm|bookworm|stable|Docker
http://m/debian/|sid|sid|main|Debian
"""


def test_only_the_distributions_own_suites_are_taken_from_apt():
    sources = base.parse_targets(TARGETS, "debian:bookworm")
    assert base.mirror(sources, "debian:bookworm") == "http://m/debian/"
    assert base.sources_list(sources) == (
        "deb http://m/debian/ bookworm main contrib\n"
        "deb http://m/debian/ bookworm-updates main\n"
        "deb http://s/security/ bookworm-security main\n"
    )
    assert base.parse_targets(TARGETS, "debian:trixie") == []
    assert base.mirror([], "debian:trixie") == ""


DUMP = """Acquire "";
Acquire::http::Proxy "http://u:p@127.0.0.1:3142";
Acquire::https::Proxy::h.example "DIRECT";
Acquire::Check-Valid-Until "false";
Acquire::https::CAInfo "/etc/own.crt";
APT::Update::Post-Invoke "x";
"""


def test_apts_network_settings_reach_the_build_and_nothing_else():
    text = base.apt_conf(DUMP, own_sources=True, own_ca=True)
    assert 'Acquire::http::Proxy "http://u:p@127.0.0.1:3142";' in text
    assert 'Acquire::https::Proxy::h.example "DIRECT";' in text
    assert 'Acquire::Check-Valid-Until "false";' in text
    assert 'Acquire::https::CAInfo "/run/llmfleet/ca.crt";' in text
    assert "/etc/own.crt" not in text
    assert "Post-Invoke" not in text
    assert "sourcelist" not in base.apt_conf(DUMP, own_sources=False, own_ca=False)
    assert base.apt_proxies(DUMP) == {"http_proxy": "http://u:p@127.0.0.1:3142"}


@pytest.mark.parametrize(
    ("proxies", "network"),
    [
        ([], "default"),
        (["http://proxy.example:3128"], "default"),
        (["http://proxy.example:1", "http://localhost:7890"], "host"),
        (["127.0.0.1:7890"], "host"),
        (["http://[::1]:1"], "host"),
    ],
)
def test_a_proxy_on_loopback_needs_the_hosts_network(proxies, network):
    assert base.build_network(proxies) == network


# --- registries


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("debian:bookworm", ("docker.io", "debian:bookworm")),
        ("library/debian", ("docker.io", "library/debian")),
        ("ghcr.io/a/b:c", ("ghcr.io", "a/b:c")),
        ("127.0.0.1:5000/a", ("127.0.0.1:5000", "a")),
        ("localhost/a", ("localhost", "a")),
    ],
)
def test_references_are_split_as_docker_does(reference, parts):
    assert reg.split_reference(reference) == parts


INFO = {
    "RegistryConfig": {
        "Mirrors": ["https://mirror.example/"],
        "IndexConfigs": {"lan.example:5000": {"Secure": False}, "docker.io": {"Secure": True}},
    }
}


def test_where_a_registry_is_asked():
    insecure = reg.insecure_registries(INFO)
    assert reg.api_urls("127.0.0.1:5000") == ["http://127.0.0.1:5000/v2/"]
    assert reg.api_urls("lan.example:5000", insecure) == ["http://lan.example:5000/v2/"]
    assert reg.api_urls("ghcr.io", insecure) == ["https://ghcr.io/v2/"]
    hub = reg.api_urls("docker.io", insecure, reg.hub_mirrors(INFO))
    assert hub == ["https://mirror.example/v2/", "https://registry-1.docker.io/v2/"]


def answering(status):
    def opener(request, timeout):
        assert timeout == 5
        if status >= 400:
            raise urllib.request.HTTPError(request.full_url, status, "no", {}, io.BytesIO())
        answer = io.BytesIO()
        answer.status = status
        return answer

    return opener


class Answer(io.BytesIO):
    status = 200


@pytest.mark.parametrize(("status", "problem"), [(401, ""), (404, "answered 404"), (503, "answered 503")])
def test_a_registry_answers_200_or_401(status, problem):
    assert problem in reg.probe(["http://r/v2/"], answering(status))
    assert bool(reg.probe(["http://r/v2/"], answering(status))) == bool(problem)


def test_the_second_address_counts_when_the_first_is_silent():
    def opener(request, **_options):
        if "one" in request.full_url:
            raise TimeoutError("timed out")
        return Answer()

    assert reg.probe(["http://one/v2/", "http://two/v2/"], opener) == ""
    assert reg.probe(["http://one/v2/"], opener) == "no answer within 5 s"


@pytest.mark.parametrize(
    ("docker", "work", "shared", "words"),
    [
        (9, 9, False, ()),
        (3.5, 9, True, ("4.0 GiB", "3.5 GiB", "/docker")),
        (2, 9, False, ("3.0 GiB", "2.0 GiB", "/docker")),
        (9, 0.5, False, ("1.0 GiB", "0.5 GiB", "/work")),
        (None, 2, False, ()),
    ],
)
def test_both_figures_of_a_small_disk_are_named(docker, work, shared, words):
    free = None if docker is None else int(docker * GIB)
    problem = disk_problem("/docker", free, "/work", int(work * GIB), shared)
    assert bool(problem) == bool(words)
    assert all(word in problem for word in words)
