"""The CUDA wheels: where pip would look for them, and that only the pinned bytes are taken."""

from __future__ import annotations

import hashlib
import http.server
import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import replace

import pytest
from ansible.module_utils.llmfleet.cuda_tables import numbers
from ansible.module_utils.llmfleet.cuda_wheels import CUDA_OF_WHEELS, WHEELS, Wheel, WheelStore
from ansible.module_utils.llmfleet.image_source import SourceError
from ansible.module_utils.llmfleet.pip_places import PipPlaces, local_path, pip_places
from ansible.module_utils.llmfleet.source_fetch import Fetcher

CONTENT = b"a compiler"
WHEEL = Wheel("nvidia-x", "nvidia_x-13.0-py3-none-any.whl", hashlib.sha256(CONTENT).hexdigest())


def test_the_pins_are_one_toolkit_for_both_architectures():
    assert [wheel.project for wheel in WHEELS["amd64"]] == [wheel.project for wheel in WHEELS["arm64"]]
    for architecture, machine in (("amd64", "x86_64"), ("arm64", "aarch64")):
        for wheel in WHEELS[architecture]:
            project, version, *_tags = wheel.name.split("-")
            assert project.replace("_", "-") == wheel.project
            assert numbers(version)[:2] == numbers(CUDA_OF_WHEELS)
            assert wheel.name.endswith(f"{machine}.whl")
            assert len(wheel.sha256) == 64
    digests = [wheel.sha256 for wheels in WHEELS.values() for wheel in wheels]
    assert len(set(digests)) == len(digests)


PIP_CONF = """[global]
index-url = https://mirror.example/simple/
extra-index-url =
    https://extra.example/simple
    file:///opt/index/simple
find-links = /opt/wheels
"""


def test_pips_files_are_read_the_strongest_last():
    weaker = "[global]\nextra-index-url = https://weak.example/simple\n[install]\nfind-links = /weak\n"
    places = pip_places([weaker, PIP_CONF], {}, "https://mirror.example/simple")
    # what is on this host is asked first
    assert places.indexes == (
        "file:///opt/index/simple",
        "https://mirror.example/simple",
        "https://extra.example/simple",
    )
    assert places.links == ("/opt/wheels",)


def test_pips_environment_wins_and_rubbish_is_pips_own_business():
    environment = {"PIP_EXTRA_INDEX_URL": "https://env.example/simple", "PIP_FIND_LINKS": "/a /b /a"}
    places = pip_places(["no section\n", PIP_CONF], environment, "")
    assert places == PipPlaces(("https://env.example/simple",), ("/a", "/b"))


@pytest.mark.parametrize(
    ("place", "path"),
    [("/a/b", "/a/b"), ("file:///a/b%20c", "/a/b c"), ("https://h/a", None), ("http://h/a", None)],
)
def test_local_places_are_told_from_those_on_the_network(place, path):
    found = local_path(place)
    assert (found and str(found)) == path


@contextmanager
def serving(folder):
    """An index of this folder on the loopback address; yields its URL and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def index(folder, content=CONTENT, digest=WHEEL.sha256, name=WHEEL.name):
    """Make a simple index with one file."""
    page = folder / "simple" / WHEEL.project / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files" / name).write_bytes(content)
    fragment = f"#sha256={digest}" if digest else ""
    page.write_text(f'<a href="../../files/{name}{fragment}">{name}</a>')
    return folder


@pytest.fixture
def store(tmp_path):
    def make(*indexes, links=()):
        fetcher = Fetcher(
            folder=tmp_path / "unused",
            run=lambda *_args, **_options: (1, "", ""),
            opener=urllib.request.build_opener(urllib.request.ProxyHandler({})).open,
            connect=lambda *_args, **_options: None,
            git=None,
            index=lambda: "",
            environment={},
        )
        return WheelStore(fetcher, lambda: PipPlaces(tuple(indexes), tuple(map(str, links))), tmp_path / "kept")

    return make


def test_a_wheel_comes_from_an_index_on_the_network_once(store, tmp_path):
    with serving(index(tmp_path / "site")) as (url, asked):
        wheels = store(url)
        assert wheels.missing([WHEEL]) == ""
        assert not [path for path in asked if path.endswith(".whl")]
        wheels.bring([WHEEL], tmp_path / "context")
        assert (tmp_path / "context" / WHEEL.name).read_bytes() == CONTENT
    # the index is gone now, and nobody minds
    assert wheels.missing([WHEEL]) == ""
    wheels.bring([WHEEL], tmp_path / "again")
    assert (tmp_path / "again" / WHEEL.name).read_bytes() == CONTENT


def test_a_wheel_comes_from_an_index_in_a_folder(store, tmp_path):
    place = (index(tmp_path / "site") / "simple").as_uri()
    wheels = store(place)
    assert wheels.missing([WHEEL]) == ""
    wheels.bring([WHEEL], tmp_path / "context")
    assert (tmp_path / "context" / WHEEL.name).read_bytes() == CONTENT


def test_a_wheel_comes_from_a_folder_of_find_links(store, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / WHEEL.name).write_bytes(CONTENT)
    wheels = store(links=[folder])
    assert wheels.missing([WHEEL]) == ""
    wheels.bring([WHEEL], tmp_path / "context")
    assert (tmp_path / "context" / WHEEL.name).read_bytes() == CONTENT


def test_an_index_that_is_down_or_lacks_the_file_is_passed_over(store, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with serving(index(tmp_path / "site")) as (url, _asked):
        wheels = store("http://127.0.0.1:1/simple", empty.as_uri(), url)
        assert wheels.missing([WHEEL]) == ""


def test_what_cannot_be_had_is_named_with_the_places_that_were_asked(store):
    with_password = "http://me:secret@127.0.0.1:1/simple"
    said = store(with_password).missing([WHEEL])
    assert WHEEL.name in said
    assert "http://127.0.0.1:1/simple" in said
    assert "secret" not in said
    assert "none is configured" in store().missing([WHEEL])


def test_another_file_of_the_same_name_is_not_taken(store, tmp_path):
    other = hashlib.sha256(b"other").hexdigest()
    with serving(index(tmp_path / "site", digest=other)) as (url, _asked):
        assert "no package index has" in store(url).missing([WHEEL])


@pytest.mark.parametrize("digest", ["", WHEEL.sha256])
def test_bytes_that_are_not_the_pinned_ones_never_reach_the_build(store, tmp_path, digest):
    site = index(tmp_path / "site", content=b"evil", digest=digest)
    with serving(site) as (url, _asked), pytest.raises(SourceError, match="was asked for"):
        store(url).bring([WHEEL], tmp_path / "context")
    assert not (tmp_path / "context" / WHEEL.name).exists()
    assert not (tmp_path / "kept" / WHEEL.name).exists()


def test_a_mirror_that_renames_is_known_by_the_digest(store, tmp_path):
    with serving(index(tmp_path / "site", name="renamed-13.0-py3-none-any.whl")) as (url, _asked):
        wheels = store(url)
        wheels.bring([replace(WHEEL)], tmp_path / "context")
    assert (tmp_path / "context" / WHEEL.name).read_bytes() == CONTENT
