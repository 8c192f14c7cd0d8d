"""Asking hubs, mirrors and folders: what they hold, what they refuse, and that a token goes nowhere else."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import client, source_web, store
from ansible.module_utils.llmfleet.hub.client import first_that_answers, list_repo
from ansible.module_utils.llmfleet.hub.manifest import GGUF, Listing, Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.opener import HubOpener
from ansible.module_utils.llmfleet.hub.place import Place
from ansible.module_utils.llmfleet.hub.refusal import NoAnswer
from ansible.module_utils.llmfleet.hub.reply import Broken, Reply, TransferError, read_some
from ansible.module_utils.llmfleet.hub.source_web import Web
from ansible.module_utils.llmfleet.hub.sources import FOLDER, HF, MS, Source

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
from hub_server import Hub

WEIGHTS = bytes(range(256)) * 40
FILES = {"m-Q8_0.gguf": WEIGHTS, "sub dir/ä+%&#.json": b"{}", "config.json": b'{"a": 1}'}
TOKEN = "hf_secret-token"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, content in FILES.items():
        file = tmp_path / "repos/org/model" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "repos"


@pytest.fixture
def hub(root: Path) -> t.Iterator[Hub]:
    with Hub(root, tokens=[TOKEN]) as running:
        yield running


def hf(hub: Hub, token: str = "") -> Source:
    return Source("hf", HF, hub.url, token)


def ms(hub: Hub, token: str = "") -> Source:
    return Source("ms", MS, hub.url, token)


@pytest.fixture
def web() -> Web:
    return Web(5, sleep=lambda _: None)


def content(reply: Reply) -> bytes:
    data, buffer = b"", memoryview(bytearray(1000))
    while True:
        count = read_some(reply.stream, buffer)
        if not count:
            reply.stream.close()
            return data
        data += buffer[:count]


def file_of(listing: Listing, path: str) -> RepoFile:
    return next(file for file in listing.files if file.path == path)


class TestListing:
    def test_of_every_kind(self, hub: Hub, root: Path, web: Web) -> None:
        commit = hub.commit("org/model")
        for source in (hf(hub), ms(hub)):
            found = list_repo(source, "org/model", "", web)
            assert (found.source, found.repo, found.commit) == (source.name, "org/model", commit)
            assert {file.path: file.size for file in found.files} == {k: len(v) for k, v in FILES.items()}
            assert file_of(found, "m-Q8_0.gguf").sha256 == hashlib.sha256(WEIGHTS).hexdigest()
        folder = list_repo(Source("usb", FOLDER, str(root)), "org/model", "", web)
        assert {file.path: file.size for file in folder.files} == {k: len(v) for k, v in FILES.items()}

    def test_of_a_mirror_that_tells_no_sizes_page_by_page(
        self, hub: Hub, root: Path, web: Web, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(7):
            (root / "org/model" / f"{number}.txt").write_text(str(number))
        hub.page = 3
        whole = list_repo(hf(hub), "org/model", "", web)
        monkeypatch.setattr("ansible.module_utils.llmfleet.hub.listing.from_hf", lambda *_: None)
        assert list_repo(hf(hub), "org/model", "", web) == whole
        assert len(hub.requests(path="*/tree/*")) == 4

    def test_of_a_revision(self, hub: Hub, root: Path, web: Web) -> None:
        (root / "org/model@v2").mkdir()
        (root / "org/model@v2/config.json").write_text("{ }")
        for source in (hf(hub), ms(hub)):
            found = list_repo(source, "org/model", "v2", web)
            assert (found.asked, found.commit) == ("v2", hub.commit("org/model", "v2"))
            assert len(found.files) == 1
            with pytest.raises(NoAnswer, match="no revision v3"):
                list_repo(source, "org/model", "v3", web)

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ({"html": True}, "is a web page; a proxy or a login page stands between"),
            ({"text": "[1, 2]"}, "is not what a hub answers"),
            ({"text": '{"sha": "x", "siblings": []}'}, "names no commit"),
            ({"status": 429, "times": -1}, "asked too often"),
            ({"status": 503, "times": -1}, "HTTP 503"),
            ({"status": 403}, "refuses access"),
            ({"loop": True, "times": -1}, "redirects more than"),
            ({"redirect": "ftp://example.org/x"}, "no http(s) URL"),
            ({"drop": True, "times": -1}, "cannot be reached"),
        ],
    )
    def test_what_is_no_answer(self, hub: Hub, web: Web, fault: dict[str, t.Any], message: str) -> None:
        hub.fault(on="api", **fault)
        with pytest.raises(NoAnswer) as caught:
            list_repo(hf(hub), "org/model", "", web)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_busy_hub_is_asked_again_when_it_says(self, hub: Hub) -> None:
        pauses: list[float] = []
        hub.fault(on="api", status=429, retry_after=7)
        hub.fault(on="api", status=503, retry_after=10_000)
        assert list_repo(hf(hub), "org/model", "", Web(5, sleep=pauses.append)).files
        assert pauses == [7, client.LONGEST_WAIT]

    def test_letters_in_a_redirect(self) -> None:
        """Servers put the bytes of a name there as they are; http.client takes them for Latin-1."""
        place = "/æ¨¡ a?sign=%2B&x=1"
        assert source_web.joined("https://hub/x", place) == "https://hub/%E6%A8%A1%20a?sign=%2B&x=1"
        assert source_web.joined("https://hub/x", "http://[hub/x") == ""

    def test_a_listing_that_never_ends(self, hub: Hub, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "_LISTING_SECONDS", 0.0)
        with pytest.raises(NoAnswer, match=r"the listing broke off: after 0 seconds only \d+ bytes had come"):
            list_repo(hf(hub), "org/model", "", web)

    def test_pages_that_never_end(self, hub: Hub, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        pages = iter(range(10**6))

        def page(_: t.Any, __: str, ___: str, url: str, ____: Web) -> tuple[t.Any, t.Any]:
            return [], {"Link": f'<{url.partition("?")[0]}?cursor={next(pages)}>; rel="next"'}

        monkeypatch.setattr(client, "_json", page)
        with pytest.raises(NoAnswer, match="has more than 1000 pages"):
            list(client._pages(hf(hub), "org/model", "", f"{hub.url}/tree", web))

    def test_where_the_next_page_is(self, hub: Hub) -> None:
        url = f"{hub.url}/api/models/org/model"
        link = f'<{url}?x>; rel="next", <{url}?y>; rel="last"'
        assert client._next_page(url, link) == f"{url}?x"
        for nonsense in ("nonsense", "<http://[x>", "<ftp://x/y>"):
            assert client._next_page(url, f'{nonsense}; rel="next"') == ""
        # the host that a mirror mirrors is not asked
        assert (
            client._next_page(url, '<https://huggingface.co/api/a?cursor=1>; rel="next"') == f"{hub.url}/api/a?cursor=1"
        )


class TestRefusals:
    def test_gated(self, hub: Hub, web: Web) -> None:
        hub.repo("org/model", gated=True)
        for source in (hf(hub), ms(hub)):
            with pytest.raises(NoAnswer, match="is gated: accept the licence at http") as caught:
                list_repo(source, "org/model", "", web)
            assert caught.value.gated
        assert list_repo(hf(hub, TOKEN), "org/model", "", web).files
        hub.repo("org/model", granted=["another"])
        with pytest.raises(NoAnswer, match="the token's account has not been let in"):
            list_repo(hf(hub, TOKEN), "org/model", "", web)

    def test_private(self, hub: Hub, web: Web) -> None:
        hub.repo("org/model", private=True)
        with pytest.raises(NoAnswer, match=r"has no repository org/model: .* a private one needs a token"):
            list_repo(hf(hub), "org/model", "", web)
        assert list_repo(hf(hub, TOKEN), "org/model", "", web).files

    def test_a_token_that_is_no_good(self, hub: Hub, web: Web) -> None:
        with pytest.raises(NoAnswer, match="its token is not valid") as caught:
            list_repo(hf(hub, "hf_wrong"), "org/model", "", web)
        assert "hf_wrong" not in str(caught.value)

    def test_all_sources_are_asked_and_named(self, hub: Hub, root: Path, web: Web) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            dead = Source("dead", HF, f"http://127.0.0.1:{unused.getsockname()[1]}")
            hub.repo("org/model", gated=True)
            folder = Source("usb", FOLDER, str(root))
            found, source, tried = first_that_answers([dead, hf(hub), folder], "org/model", "", web)
            assert (source, found.source) == (folder, "usb")
            assert [row["source"] for row in tried] == ["dead", "hf"]
            assert "connection was refused" in tried[0]["said"]
            assert "is gated" in tried[1]["said"]
            with pytest.raises(NoAnswer, match=r"no source gives org/model \(dead: .*; hf: .*gated") as caught:
                first_that_answers([dead, hf(hub)], "org/model", "", web)
            assert caught.value.gated

    def test_a_token_file(self, hub: Hub, tmp_path: Path, web: Web) -> None:
        path = tmp_path / "token"
        source = Source("hf", HF, hub.url, token_file=str(path))
        hub.repo("org/model", gated=True)
        for content_, message in (
            (None, "cannot be read: No such file"),
            ("", "holds no token"),
            ("a b", "holds no token"),
        ):
            if content_ is not None:
                path.write_text(content_)
            with pytest.raises((NoAnswer, BadInput), match=message):
                list_repo(source, "org/model", "", web)
        path.write_text(TOKEN + "\n")
        assert list_repo(source, "org/model", "", web).files


class TestToken:
    def test_it_goes_to_the_hub_and_not_to_the_cdn(self, hub: Hub, web: Web) -> None:
        hub.repo("org/model", gated=True)
        source = hf(hub, TOKEN)
        found = list_repo(source, "org/model", "", web)
        opener = HubOpener(found, [source], web)
        assert content(opener(file_of(found, "m-Q8_0.gguf"), 0, len(WEIGHTS))) == WEIGHTS
        assert {row["token"] for row in hub.requests("hub")} == {f"Bearer {TOKEN}"}
        assert {row["token"] for row in hub.requests("cdn")} == {""}

    def test_it_does_not_follow_a_redirect_of_a_listing(self, hub: Hub, root: Path, web: Web) -> None:
        with Hub(root) as other:
            hub.fault(on="api", redirect=f"{other.url}/api/models/org/model?blobs=true")
            assert list_repo(hf(hub, TOKEN), "org/model", "", web).files
            assert {row["token"] for row in other.log} == {""}

    def test_it_is_not_sent_in_the_open(self) -> None:
        sent: list[t.Any] = []

        def open_url(request: t.Any, timeout: float) -> t.Any:
            del timeout
            sent.append(request)
            raise OSError("no network here")

        for place in ("http://hub.example.org", "https://hub.example.org"):
            with pytest.raises(NoAnswer, match="cannot be reached"):
                list_repo(Source("hf", HF, place, TOKEN), "org/model", "", Web(5, open_url))
        assert [request.get_header("Authorization") for request in sent] == [None, f"Bearer {TOKEN}"]


class TestOpener:
    @pytest.mark.parametrize("kind", [HF, MS, FOLDER])
    def test_ranges(self, hub: Hub, root: Path, web: Web, kind: str) -> None:
        source = Source("it", kind, str(root) if kind == FOLDER else hub.url)
        found = list_repo(source, "org/model", "", web)
        opener = HubOpener(found, [source], web)
        for path, data in FILES.items():
            file = file_of(found, path)
            assert content(opener(file, 0, len(data))) == data
        reply = opener(file_of(found, "m-Q8_0.gguf"), 1000, 2000)
        assert (reply.status, reply.start, reply.total, reply.source) == (206, 1000, len(WEIGHTS), "it")
        assert content(reply)[:1000] == WEIGHTS[1000:2000]

    def test_the_commit_of_the_listing_is_fetched_when_the_branch_moves(self, hub: Hub, root: Path, web: Web) -> None:
        (root / "org/model@v2").mkdir()
        (root / "org/model@v2/m-Q8_0.gguf").write_bytes(b"other")
        for source in (hf(hub), ms(hub)):
            hub.move("org/model", "")
            found = list_repo(source, "org/model", "", web)
            hub.move("org/model", "v2")
            assert content(HubOpener(found, [source], web)(found.files[1], 0, len(WEIGHTS))) == WEIGHTS

    def test_a_link_that_expired_is_made_again(self, hub: Hub, web: Web) -> None:
        found = list_repo(hf(hub), "org/model", "", web)
        file, opener = file_of(found, "m-Q8_0.gguf"), HubOpener(found, [hf(hub)], web)
        content(opener(file, 0, 10))
        content(opener(file, 10, 20))
        assert len(hub.requests("hub", path="*resolve*")) == 1
        hub.fault("*.gguf", status=403)
        assert content(opener(file, 20, 30)) == WEIGHTS[20:30]
        assert len(hub.requests("hub", path="*resolve*")) == 2
        hub.fault("*.gguf", status=403, times=-1)
        with pytest.raises(TransferError, match="refuse"):
            opener(file, 30, 40)

    def test_busy_and_gone(self, hub: Hub, web: Web) -> None:
        found = list_repo(hf(hub), "org/model", "", web)
        file, opener = file_of(found, "m-Q8_0.gguf"), HubOpener(found, [hf(hub)], web)
        hub.fault("*.gguf", status=429, retry_after=9)
        with pytest.raises(Broken) as caught:
            opener(file, 0, 10)
        assert caught.value.retry_after == 9
        hub.fault("*.gguf", on="resolve", drop=True)
        with pytest.raises(Broken, match="cannot be reached"):
            opener(file, 0, 10)
        with pytest.raises(TransferError, match=r"hf no longer has gone.gguf of org/model"):
            opener(RepoFile("gone.gguf", 1), 0, 1)
        hub.repo("org/model", gated=True)
        with pytest.raises(TransferError, match="hf: org/model is gated: accept the licence"):
            HubOpener(found, [hf(hub)], web)(file, 0, 10)

    def test_another_source_takes_over_file_by_file(self, hub: Hub, root: Path, web: Web) -> None:
        found = list_repo(hf(hub), "org/model", "", web)
        folder = Source("usb", FOLDER, str(root))
        opener = HubOpener(found, [folder, hf(hub)], web)
        file = file_of(found, "m-Q8_0.gguf")

        def source_of(path: str) -> str:
            reply = opener(file_of(found, path), 0, 8)
            reply.stream.close()
            return reply.source

        assert source_of(file.path) == "hf"
        assert opener.next_source(file, "broken")
        assert source_of(file.path) == "usb"
        assert source_of("config.json") == "hf"
        assert not opener.next_source(file, "broken")
        assert not opener.next_source(file, "broken")

    def test_a_source_that_is_dead_is_given_up_for_all_files(self, hub: Hub, web: Web) -> None:
        found = list_repo(hf(hub), "org/model", "", web)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            dead = Source("hf", HF, f"http://127.0.0.1:{unused.getsockname()[1]}")
            opener = HubOpener(found, [dead], web)
            for _ in range(client.ATTEMPTS - 1):
                with pytest.raises(Broken, match="hf cannot be reached: the connection was refused"):
                    opener(found.files[0], 0, 1)
            with pytest.raises(TransferError, match="hf cannot be reached: the connection was refused"):
                opener(found.files[0], 0, 1)
            with pytest.raises(TransferError, match="hf cannot be reached"):
                opener(found.files[1], 0, 1)

    def test_a_source_that_gave_bytes_is_not_given_up_so_soon(self, hub: Hub, web: Web) -> None:
        found = list_repo(hf(hub), "org/model", "", web)
        opener = HubOpener(found, [hf(hub)], web)
        file = file_of(found, "config.json")
        content(opener(file, 0, 8))
        hub.fault("config.json", drop=True, times=5)
        for _ in range(5):
            with pytest.raises(Broken):
                opener(file, 0, 8)
        content(opener(file, 0, 8))

    def test_a_cdn_that_cannot_be_reached_is_named(self, hub: Hub, web: Web) -> None:
        found = list_repo(hf(hub), "org/model", "", web)
        hub.fault("*.gguf", on="resolve", redirect="http://127.0.0.1:1/x", times=-1)
        with pytest.raises(Broken, match=r"hf sends on to 127.0.0.1:1, which cannot be reached: the connection was"):
            HubOpener(found, [hf(hub)], web)(file_of(found, "m-Q8_0.gguf"), 0, 10)

    def test_modelscope_is_asked_by_branch_for_the_commit_of_another_hub(self, hub: Hub, web: Web) -> None:
        manifest = Manifest("org/model", "f" * 40, GGUF, (RepoFile("m-Q8_0.gguf", len(WEIGHTS)),), source="hf")
        opener = HubOpener(manifest, [ms(hub)], web)
        assert content(opener(manifest.files[0], 0, len(WEIGHTS))) == WEIGHTS
        assert "Revision=master" in hub.requests(path="*repo?*")[-1]["path"]

    def test_without_ranges(self, hub: Hub, web: Web) -> None:
        found = list_repo(hf(hub), "org/model", "", web)
        hub.fault("*.gguf", no_range=True)
        reply = HubOpener(found, [hf(hub)], web)(file_of(found, "m-Q8_0.gguf"), 100, 200)
        assert (reply.status, reply.start, reply.total) == (200, 0, len(WEIGHTS))
        reply.stream.close()


class TestFolder:
    """A disk that was carried there, or the cache of another tool."""

    def source(self, place: Path) -> Source:
        return Source("usb", FOLDER, str(place))

    def test_the_repository_itself(self, root: Path, web: Web) -> None:
        assert list_repo(self.source(root / "org/model"), "org/model", "", web).files
        assert list_repo(self.source(root / "org/model"), "Org/MODEL", "", web).files
        with pytest.raises(NoAnswer, match="holds nothing of org/other"):
            list_repo(self.source(root / "org/model"), "org/other", "", web)
        with pytest.raises(NoAnswer, match=r"no folder .*/none; mount or create it"):
            list_repo(self.source(root / "none"), "org/model", "", web)
        with pytest.raises(NoAnswer, match="no revision v2"):
            list_repo(self.source(root), "org/model", "v2", web)

    def test_its_commit_follows_the_content(self, root: Path, web: Web) -> None:
        first = list_repo(self.source(root), "org/model", "", web)
        assert first.commit.startswith("folder-")
        assert Place("/models", "org/model").snapshot(first.commit)
        os.utime(root / "org/model/config.json", (1, 1))
        assert list_repo(self.source(root), "org/model", "", web).commit != first.commit

    @pytest.mark.parametrize("below", ["", "hub"])
    def test_a_cache(self, tmp_path: Path, web: Web, below: str) -> None:
        commit, sha256 = "c" * 40, hashlib.sha256(WEIGHTS).hexdigest()
        top = tmp_path / "cache" / below / "models--org--model"
        for folder in ("refs", "blobs", f"snapshots/{commit}"):
            (top / folder).mkdir(parents=True)
        (top / "refs/main").write_text(commit)
        (top / "blobs" / sha256).write_bytes(WEIGHTS)
        (top / f"snapshots/{commit}/m.gguf").symlink_to(f"../../blobs/{sha256}")
        source = self.source(tmp_path / "cache")
        for revision in ("", "main", commit):
            found = list_repo(source, "org/model", revision, web)
            assert (found.commit, found.files) == (commit, (RepoFile("m.gguf", len(WEIGHTS), sha256),))
        assert content(HubOpener(found, [source], web)(found.files[0], 0, len(WEIGHTS))) == WEIGHTS
        with pytest.raises(NoAnswer, match="no revision v2"):
            list_repo(source, "org/model", "v2", web)
        (top / "refs/main").unlink()
        assert list_repo(source, "org/model", "", web).commit == commit

    def test_a_store_of_ours_tells_digests(self, tmp_path: Path, web: Web) -> None:
        place = Place(str(tmp_path / "models"), "org/model")
        file = RepoFile("m.gguf", 4, hashlib.sha256(b"GGUF").hexdigest())
        manifest = Manifest("org/model", "d" * 40, GGUF, (file,), entry="m.gguf")
        Path(place.incoming(manifest.key)).mkdir(parents=True)
        Path(place.incoming(manifest.key), "m.gguf").write_bytes(b"GGUF")
        store.publish(place, manifest)
        assert list_repo(self.source(tmp_path / "models"), "org/model", "", web).files == (file,)
        os.utime(place.location(manifest))
        assert list_repo(self.source(tmp_path / "models"), "org/model", "", web).files[0].sha256 == ""

    def test_a_link_that_leads_out_is_refused(self, root: Path, web: Web) -> None:
        (root / "org/model/tokenizer.json").symlink_to("/etc/hostname")
        with pytest.raises(NoAnswer, match="is a link that leads out of"):
            list_repo(self.source(root), "org/model", "", web)
