"""Models of hubs from a stand-in hub that is healthy, moves, lies and breaks: whole and proven, or not there at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import sys
import threading
import typing as t
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_hf
from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import content, lookup, store, swarm
from ansible.module_utils.llmfleet.hub.job import Job
from ansible.module_utils.llmfleet.hub.manifest import RepoFile
from ansible.module_utils.llmfleet.hub.refusal import NoAnswer
from ansible.module_utils.llmfleet.hub.wanted import Done, Wanted
from ansible.module_utils.llmfleet.model_words import parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
from hub_server import Hub

TOKEN = "hf_secret-token"


def model(seed: int = 1) -> bytes:
    stream = io.BytesIO()
    tiny_gguf.write(stream, layers=1, dim=32, seed=seed)
    return stream.getvalue()


Q8, Q4 = model(1), model(2)


def entry(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


def part(number: int, count: int) -> bytes:
    """Return a part of a split model that holds no tensors."""
    keys = [
        entry("split.no", 2, struct.pack("<H", number)),
        entry("split.count", 2, struct.pack("<H", count)),
        entry("general.architecture", 8, struct.pack("<Q", 5) + b"llama"),
    ]
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(keys)) + b"".join(keys)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def repos(tmp_path: Path) -> Path:
    top = tmp_path / "repos"
    tiny = top / "org/tiny"
    tiny.mkdir(parents=True)
    (tiny / "tiny-Q8_0.gguf").write_bytes(Q8)
    (tiny / "tiny-Q4_K_M.gguf").write_bytes(Q4)
    (tiny / "README.md").write_text("# tiny\n")
    return top


@pytest.fixture
def hub(repos: Path) -> t.Iterator[Hub]:
    with Hub(repos, tokens=[TOKEN]) as running:
        yield running


class Bring:
    """Runs jobs into a store of the test."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.dest, self.log = hub, folder / "models", folder / "fetch.log"

    def job(self, ref: str = "org/tiny:Q8_0", *, check: bool = False, **more: t.Any) -> Job:
        values = {"sources": [self.hub.url], "timeout": 5.0, "pause": 0.01, "lock_timeout": 20.0, "log": str(self.log)}
        return Job(Wanted(parse(ref), str(self.dest), **{**values, **more}), check)

    def __call__(self, ref: str = "org/tiny:Q8_0", **more: t.Any) -> Done:
        return self.job(ref, **more).present()

    def content(self, done: Done, ref: str = "org/tiny:Q8_0") -> bytes:
        assert done.manifest
        return Path(self.job(ref).place.location(done.manifest)).read_bytes()

    def visible(self) -> list[str]:
        """Return what engines or other tools could find."""
        snapshots = self.dest.glob("hub/*/snapshots/*/**/*")
        return [str(path.relative_to(self.dest)) for path in snapshots if path.is_file()]


@pytest.fixture
def bring(hub: Hub, tmp_path: Path) -> Bring:
    return Bring(hub, tmp_path)


class Killed(BaseException):
    """Like a signal: nothing that handles errors handles it."""


def kill_at(patch: pytest.MonkeyPatch, step: int) -> list[str]:
    """Let a process end at its call number ``step`` of those that change a disk; return the list of these calls."""
    calls: list[str] = []

    def ends(name: str, real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def call(*args: t.Any, **more: t.Any) -> t.Any:
            calls.append(name)
            if len(calls) > step:
                raise Killed
            return real(*args, **more)

        return call

    for name in ("replace", "unlink", "mkdir", "rmdir", "chmod", "ftruncate", "write", "pwrite", "fsync"):
        patch.setattr(os, name, ends(name, getattr(os, name)))
    return calls


class TestBringing:
    def test_first_second_and_check(self, hub: Hub, bring: Bring) -> None:
        would = bring(check=True)
        assert (would.changed, would.action, would.is_there) == (True, "download", False)
        assert not bring.dest.exists()
        first = bring()
        assert (first.changed, first.action, first.why, first.is_there) == (True, "download", "it is not there", True)
        assert first.manifest
        assert first.manifest.commit == hub.commit("org/tiny")
        assert bring.content(first) == Q8
        assert first.bytes_fetched == len(Q8)
        assert first.before.endswith("tiny-Q8_0.gguf: it is not there\n")
        assert hashlib.sha256(Q8).hexdigest() in first.after
        hub.reset()
        for more in ({}, {"check": True}, {"sources": None}, {"verify": "full"}):
            second = bring(**more)
            assert (second.changed, second.action, second.is_there) == (False, "keep", True)
        assert hub.log == []

    def test_check_mode_without_sources_asks_nobody(self, hub: Hub, bring: Bring) -> None:
        done = bring(check=True, sources=None)
        assert (done.changed, done.action, done.manifest) == (True, "missing", None)
        assert hub.log == []

    def test_a_plan_is_followed_without_asking_again(self, hub: Hub, bring: Bring, tmp_path: Path) -> None:
        planned = bring("org/tiny", check=True).manifest
        assert planned
        assert planned.quant == "Q4_K_M"
        hub.reset()
        would = bring("org/tiny", check=True, manifest=planned, sources=None)
        assert (would.action, would.manifest) == ("download", planned)
        assert hub.log == []
        done = bring("org/tiny", manifest=planned)
        assert bring.content(done, "org/tiny") == Q4
        assert hub.requests(path="/api/*") == []
        assert bring("org/tiny", sources=None, check=True).action == "keep"
        with pytest.raises(BadInput, match="`manifest` is of the repository org/tiny"):
            bring("org/other", manifest=planned)
        del tmp_path

    def test_the_best_that_fits(self, bring: Bring, repos: Path) -> None:
        (repos / "org/tiny/tiny-Q4_K_M.gguf").write_bytes(part(0, 1))
        for limit, quant in ((0, "Q4_K_M"), (len(Q8), "Q8_0"), (len(Q8) - 1, "Q4_K_M")):
            done = bring("org/tiny", quant_limit=limit, check=True)
            assert done.manifest
            assert done.manifest.quant == quant
        with pytest.raises(BadInput, match=r"there is no Q5_K; .*Q8_0"):
            bring("org/tiny:Q5_K")

    def test_a_folder_for_vllm(self, bring: Bring, repos: Path, hub: Hub) -> None:
        tiny_hf.write(repos / "org/tiny-hf", shards=2)
        (repos / "org/tiny-hf/pytorch_model.bin").write_bytes(b"a copy")
        done = bring("org/tiny-hf", engine="vllm")
        assert done.manifest
        assert (done.manifest.format, done.manifest.entry) == ("safetensors", "")
        there = {Path(path).name for path in bring.visible()}
        assert "model-00002-of-00002.safetensors" in there
        assert "pytorch_model.bin" not in there
        hub.reset()
        assert not bring("org/tiny-hf", engine="vllm").changed
        assert hub.log == []

    def test_a_split_model(self, bring: Bring, repos: Path) -> None:
        folder = repos / "org/split/Q8_0"
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"m-Q8_0-{number + 1:05d}-of-00003.gguf").write_bytes(part(number, 3))
        done = bring("org/split:Q8_0")
        assert done.manifest
        assert done.manifest.entry == "Q8_0/m-Q8_0-00001-of-00003.gguf"
        assert len(bring.visible()) == 3
        (folder / "m-Q8_0-00002-of-00003.gguf").unlink()
        with pytest.raises(BadInput, match=r"lacks m-Q8_0-00002-of-00003.gguf"):
            bring("org/split:Q8_0", update=True)

    def test_several_kinds_of_sources(self, hub: Hub, bring: Bring, repos: Path) -> None:
        for number, source in enumerate(({"kind": "ms", "url": hub.url, "name": "ms"}, str(repos))):
            bring.dest = bring.dest.with_name(f"models{number}")
            done = bring(sources=["/nonexistent", source])
            assert bring.content(done) == Q8
            assert [row["source"] for row in done.tried] == ["/nonexistent"]
            assert not bring(sources=[source]).changed

    def test_the_log_tells_what_happens(self, bring: Bring) -> None:
        bring(sources=["/nonexistent", bring.hub.url])
        text = bring.log.read_text()
        assert "/nonexistent: there is no folder /nonexistent" in text
        assert "100 %" in text


class TestLater:
    def test_a_branch_that_moved(self, hub: Hub, bring: Bring, repos: Path) -> None:
        first = bring()
        newer = repos / "org/tiny@new"
        newer.mkdir()
        (newer / "tiny-Q8_0.gguf").write_bytes(model(3))
        hub.move("org/tiny", "new")
        assert not bring().changed
        assert bring(check=True, update=True).action == "download"
        assert bring(check=True, update=True, sources=None).action == "keep"
        moved = bring(update=True)
        assert moved.manifest
        assert first.manifest
        assert moved.manifest.commit == hub.commit("org/tiny") != first.manifest.commit
        assert bring.content(moved) == model(3)
        assert bring().manifest == moved.manifest
        assert not bring(update=True).changed
        # a running engine still has the other one
        assert len(bring.visible()) == 2

    def test_a_source_that_is_away_takes_nothing_away(self, bring: Bring) -> None:
        bring()
        kept = bring(update=True, sources=["/nonexistent"])
        assert (kept.action, kept.changed) == ("keep", False)
        assert "whether it has moved is not known: " in kept.why

    def test_a_commit_is_never_asked_about_again(self, hub: Hub, bring: Bring) -> None:
        ref = f"org/tiny:Q8_0@{hub.commit('org/tiny')}"
        bring(ref)
        hub.reset()
        assert not bring(ref, update=True).changed
        assert hub.log == []

    def test_a_moved_branch_with_the_same_weights_costs_nothing(self, hub: Hub, bring: Bring, repos: Path) -> None:
        bring()
        newer = repos / "org/tiny@new"
        newer.mkdir()
        (newer / "tiny-Q8_0.gguf").write_bytes(Q8)
        hub.move("org/tiny", "new")
        hub.reset()
        done = bring(update=True)
        assert (done.changed, done.action, done.bytes_fetched) == (True, "link", 0)
        assert hub.requests("cdn") == []
        assert not bring(update=True).changed

    def test_other_words_for_what_is_there(self, hub: Hub, bring: Bring) -> None:
        bring()
        hub.reset()
        done = bring("hf:org/tiny/tiny-Q8_0.gguf")
        assert (done.changed, done.action, done.bytes_fetched) == (True, "link", 0)
        assert hub.requests("cdn") == []
        assert not bring("hf:org/tiny/tiny-Q8_0.gguf").changed

    def test_only_what_is_damaged_is_fetched_again(self, hub: Hub, bring: Bring, repos: Path) -> None:
        tiny_hf.write(repos / "org/tiny-hf", shards=2)
        done = bring("org/tiny-hf")
        assert done.manifest
        snapshot = Path(bring.job("org/tiny-hf").place.location(done.manifest))
        path = snapshot / "model-00002-of-00002.safetensors"
        before = path.stat()
        path.write_bytes(b"x" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert not bring("org/tiny-hf").changed
        assert bring("org/tiny-hf", verify="full", check=True).action == "repair"
        hub.reset()
        mended = bring("org/tiny-hf", verify="full")
        assert (mended.action, mended.bytes_fetched) == ("repair", before.st_size)
        assert "model-00002-of-00002.safetensors: its digest is" in mended.why
        assert {row["path"].split("?")[0].split("/")[-1] for row in hub.log} == {path.name}
        assert path.read_bytes() == (repos / "org/tiny-hf" / path.name).read_bytes()
        (snapshot / "config.json").unlink()
        assert bring("org/tiny-hf").action == "repair"
        assert not bring("org/tiny-hf", verify="full").changed

    def test_a_mode_that_engines_cannot_read(self, bring: Bring) -> None:
        done = bring()
        assert done.manifest
        path = Path(bring.job().place.location(done.manifest))
        path.chmod(0o600)
        assert bring(check=True).action == "repair"
        assert oct(path.stat().st_mode)[-3:] == "600"
        assert bring().action == "repair"
        assert oct(path.stat().st_mode)[-3:] == "644"
        assert not bring().changed

    def test_removal(self, bring: Bring) -> None:
        bring()
        bring("org/tiny")
        bring("hf:org/tiny:Q8_0")
        would = bring.job("org/tiny:Q8_0", check=True).absent()
        assert (would.changed, would.action) == (True, "keep")
        assert bring.job("org/tiny:Q8_0").absent().why == "it is still wanted in other words (hf:org/tiny:Q8_0)"
        assert not bring.job("org/tiny:Q8_0").absent().changed
        assert bring.job("hf:org/tiny:Q8_0", check=True).absent().action == "remove"
        assert len(bring.visible()) == 2
        gone = bring.job("hf:org/tiny:Q8_0").absent()
        assert (gone.changed, gone.action) == (True, "remove")
        assert gone.before.endswith("tiny-Q8_0.gguf\n")
        assert [Path(path).name for path in bring.visible()] == ["tiny-Q4_K_M.gguf"]
        bring.job("org/tiny").absent()
        assert not bring.dest.exists()
        assert not bring.job("org/tiny").absent().changed

    def test_killed_at_any_step(self, bring: Bring, repos: Path) -> None:
        """Steps are the calls that change something; every fourth is where a process ends."""
        for step in range(0, 400, 4):
            with pytest.MonkeyPatch.context() as patch:
                calls = kill_at(patch, step)
                with suppress(Killed):
                    bring(sources=[str(repos)])
            assert {Path(bring.dest, path).read_bytes() for path in bring.visible()} <= {Q8}
            assert bring.content(bring(sources=[str(repos)])) == Q8
            assert not bring(sources=[str(repos)]).changed
            with pytest.MonkeyPatch.context() as patch:
                kill_at(patch, step)
                with suppress(Killed):
                    bring.job().absent()
            bring.job().absent()
            assert not bring.visible()
            assert not bring.job().absent().changed
            if len(calls) <= step:
                break
        assert 20 < step < 396

    def test_removal_of_what_a_plan_settled(self, bring: Bring) -> None:
        settled = bring().manifest
        assert settled
        for changed in (True, False):
            gone = bring.job(manifest=settled).absent()
            assert (gone.changed, gone.action) == (changed, "remove" if changed else "keep")
        assert not bring.dest.exists()

    def test_removal_of_all_commits_of_a_branch(self, bring: Bring, repos: Path) -> None:
        bring()
        (repos / "org/tiny/tiny-Q8_0.gguf").write_bytes(model(3))
        assert bring(update=True, sources=[str(repos)]).changed
        assert len(bring.visible()) == 2
        assert bring.job(check=True).absent().before.count("\n") == 2
        assert bring.job().absent().changed
        assert not bring.dest.exists()
        assert not bring.job().absent().changed

    def test_a_part_of_what_came_otherwise_meanwhile_is_not_published(self, bring: Bring) -> None:
        """Of two models with a file in common one was interrupted, and the other brought the file."""
        done = bring()
        assert done.manifest
        common = done.manifest.files[0]
        other = replace(done.manifest, files=(common, RepoFile("extra.txt", 5, sha256="0" * 64)))
        place = bring.job().place
        for manifest in (done.manifest, other):
            partial = Path(place.incoming(manifest.key), common.path)
            partial.parent.mkdir(parents=True)
            partial.write_bytes(bytes(common.size))
        assert bring("hf:org/tiny:Q8_0", manifest=done.manifest).action == "link"
        assert bring.content(done) == Q8
        with pytest.raises(LlmfleetError):
            bring(manifest=other)
        assert bring.content(done) == Q8
        assert not Path(place.incoming(other.key), common.path).exists()

    def test_removal_of_a_part(self, hub: Hub, bring: Bring) -> None:
        hub.fault("*.gguf", cut_after=9000, times=1)
        hub.fault("*.gguf", status=500, times=-1)
        with pytest.raises(LlmfleetError, match="HTTP 500"):
            bring()
        for check in (True, False):
            gone = bring.job(check=check).absent()
            assert (gone.changed, gone.action, gone.why) == (True, "remove", "only a part of it is there")
        assert not bring.dest.exists()
        assert not bring.job().absent().changed

    def test_empty_files_come_too(self, bring: Bring, repos: Path) -> None:
        tiny_hf.write(repos / "org/tiny-hf")
        (repos / "org/tiny-hf/merges.txt").write_bytes(b"")
        assert "merges.txt" in {Path(path).name for path in (bring("org/tiny-hf"), bring.visible())[1]}
        assert not bring("org/tiny-hf", verify="full").changed


FAULTS: dict[str, dict[str, t.Any]] = {
    "cut": {"cut_after": 1000},
    "cut at once": {"cut_after": 0, "times": 2},
    "closed": {"drop": True},
    "busy": {"status": 503},
    "too many": {"status": 429, "retry_after": 0},
    "gateway": {"status": 502, "times": 2},
    "expired link": {"status": 403},
    "corrupt": {"corrupt": 5000},
    "corrupt at the end": {"corrupt": -1},
    "no ranges": {"no_range": True, "times": -1},
    "slow": {"slow": 1 << 20, "times": -1},
    "late": {"delay": 0.2},
}


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_survived(self, hub: Hub, bring: Bring, fault: str) -> None:
        hub.fault("*.gguf", **FAULTS[fault])
        done = bring(timeout=2.0)
        assert bring.content(done) == Q8
        assert not bring(verify="full").changed

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ({"corrupt": 5000}, "sha256"),
            ({"cut_after": 0}, "closed too early"),
            ({"status": 503}, "HTTP 503"),
            ({"html": True}, "page"),
            ({"wrong_size": 100}, "bytes"),
            ({"wrong_size": -100}, "bytes"),
            ({"drop": True}, "cannot be reached"),
            ({"status": 404, "on": "resolve"}, "no longer has tiny-Q8_0.gguf"),
            ({"loop": True, "on": "resolve"}, "redirects more than"),
        ],
    )
    def test_refused(self, hub: Hub, bring: Bring, fault: dict[str, t.Any], message: str) -> None:
        hub.fault("*.gguf", **{"times": -1, **fault})
        with pytest.raises(LlmfleetError) as caught:
            bring(timeout=2.0)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert bring.visible() == []
        assert bring(check=True, sources=None).action == "missing"
        hub.reset()
        assert bring.content(bring()) == Q8

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(cut=st.integers(0, len(Q8)))
    def test_cut_at_any_byte(self, hub: Hub, bring: Bring, cut: int) -> None:
        hub.fault("*.gguf", cut_after=cut)
        done = bring()
        assert bring.content(done) == Q8
        bring.job().absent()
        assert not bring.dest.exists()
        hub.reset()

    def test_another_source_has_what_one_spoils(self, hub: Hub, bring: Bring, repos: Path) -> None:
        hub.fault("*.gguf", corrupt=77, times=-1)
        with Hub(repos) as other:
            assert bring.content(bring(sources=[hub.url, other.url])) == Q8
            assert other.requests("cdn")

    def test_the_branch_moves_in_the_middle(self, hub: Hub, bring: Bring, repos: Path) -> None:
        tiny_hf.write(repos / "org/tiny-hf", shards=2)
        tiny_hf.write(repos / "org/tiny-hf@new", shards=2, layers=1)
        before = hub.commit("org/tiny-hf")
        hub.fault("model-00002*", on="resolve", move="new")
        done = bring("org/tiny-hf")
        assert hub.commit("org/tiny-hf") != before
        assert done.manifest
        assert done.manifest.commit == before
        snapshot = Path(bring.job("org/tiny-hf").place.location(done.manifest))
        for path in snapshot.iterdir():
            assert path.read_bytes() == (repos / "org/tiny-hf" / path.name).read_bytes()

    def test_gated(self, hub: Hub, bring: Bring, tmp_path: Path) -> None:
        hub.repo("org/tiny", gated=True)
        with pytest.raises(NoAnswer, match="is gated: accept the licence at http"):
            bring()
        assert bring.visible() == []
        (tmp_path / "token").write_text(TOKEN)
        done = bring(sources=[{"url": hub.url, "token_file": str(tmp_path / "token")}])
        assert bring.content(done) == Q8
        assert TOKEN not in bring.log.read_text() + repr(done)
        assert {row["token"] for row in hub.requests("cdn")} == {""}

    def test_what_the_hub_has_is_no_model(self, bring: Bring, repos: Path) -> None:
        (repos / "org/tiny/tiny-Q8_0.gguf").write_bytes(Q8[:-100])
        with pytest.raises(LlmfleetError, match=r"what 127.0.0.1:[0-9]+ has, and no engine can load it: the file"):
            bring()
        tiny_hf.write(repos / "org/tiny-hf")
        weights = repos / "org/tiny-hf/model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4])
        with pytest.raises(LlmfleetError, match=r"model.safetensors of org/tiny-hf .* it is cut off"):
            bring("org/tiny-hf")
        assert bring.visible() == []
        assert not list(bring.dest.glob("hub/*/.llmfleet/incoming-*"))
        (repos / "org/tiny/tiny-Q8_0.gguf").write_text("<html>" * 99)
        with pytest.raises(LlmfleetError, match="web page"):
            bring()
        assert bring.visible() == []

    def test_no_room(self, bring: Bring, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.statvfs

        def full(path: t.Any) -> os.statvfs_result:
            values = list(real(path))
            values[4] = 1  # f_bavail, in blocks
            return os.statvfs_result(values)

        monkeypatch.setattr(os, "statvfs", full)
        with pytest.raises(LlmfleetError, match="free"):
            bring()
        assert bring.visible() == []

    def test_two_at_once_fetch_once(self, hub: Hub, bring: Bring) -> None:
        hub.fault("*.gguf", slow=len(Q8) * 2, times=-1)
        done: list[Done] = []
        threads = [threading.Thread(target=lambda: done.append(bring())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(one.action for one in done) == ["download", "keep"]
        assert sum(row["bytes"] for row in hub.requests("cdn")) == len(Q8)
        assert "waiting for process" in bring.log.read_text()

    def test_a_folder_that_changed_between_two_runs_is_not_mixed(
        self, bring: Bring, repos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: t.Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            bring(sources=[str(repos)])
        monkeypatch.undo()
        other = bytearray(Q8)
        other[-1] ^= 1
        path = repos / "org/tiny/tiny-Q8_0.gguf"
        path.write_bytes(other)
        assert bring.content(bring(sources=[str(repos)])) == bytes(other)


class TestPeers:
    PEERS: t.ClassVar[dict[str, t.Any]] = {"peers": [["http://127.0.0.1:1/x"]], "archive": {"a": 1}}

    def test_they_are_asked_first(self, bring: Bring, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        planned = bring(check=True).manifest
        assert planned

        def receive(
            manifest: t.Any, _archive: t.Any, _peers: t.Any, place: t.Any, *, paths: t.Any, **_: t.Any
        ) -> t.Any:
            assert paths == {"tiny-Q8_0.gguf"}
            Path(place.incoming(manifest.key), "tiny-Q8_0.gguf").write_bytes(Q8)
            return swarm.Stats(fetched=len(Q8), peers={"10.0.0.1:80": len(Q8)})

        monkeypatch.setattr(swarm, "receive", receive)
        hub.reset()
        assert bring(manifest=planned, check=True, **self.PEERS).action == "receive"
        done = bring(manifest=planned, sources=[], **self.PEERS)
        assert (done.action, done.source, done.bytes_fetched) == ("receive", "10.0.0.1:80", len(Q8))
        assert hub.log == []

    def test_the_rest_comes_from_outside(self, bring: Bring, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: t.Any, **__: t.Any) -> None:
            raise LlmfleetError("no host gives the rest")

        monkeypatch.setattr(swarm, "receive", fail)
        planned = bring(check=True).manifest
        with pytest.raises(LlmfleetError, match="no host gives the rest"):
            bring(manifest=planned, sources=[], **self.PEERS)
        assert bring.visible() == []
        assert bring.content(bring(manifest=planned, **self.PEERS)) == Q8
        assert "no host gives the rest; the rest comes from outside" in bring.log.read_text()


class TestLookup:
    def look(self, hub: Hub, ref: str, engine: str = "") -> dict[str, t.Any]:
        found = lookup.look(parse(ref), [hub.url], {}, engine, 5.0)
        return t.cast("dict[str, t.Any]", json.loads(json.dumps(found)))

    def test_gguf(self, hub: Hub) -> None:
        found = self.look(hub, "org/tiny:Q8_0")
        assert [row["quant"] for row in found["candidates"]] == ["Q8_0", "Q4_K_M"]
        assert (found["formats"], found["shape_quant"], found["config"], found["why"]) == (["gguf"], "Q8_0", {}, "")
        assert found["shape"]["architecture"] == "llama"
        assert found["listing"]["commit"] == hub.commit("org/tiny")

    def test_safetensors(self, hub: Hub, repos: Path) -> None:
        tiny_hf.write(repos / "org/tiny-hf", shards=2)
        found = self.look(hub, "org/tiny-hf", "vllm")
        assert (found["formats"], found["candidates"]) == (["safetensors"], [])
        assert found["config"]["hidden_size"] == 64
        assert found["shape"]["context_length"] == 4096
        assert not hub.requests("cdn", path="*.safetensors*")

    def test_what_nobody_can_plan_is_listed(self, hub: Hub, repos: Path) -> None:
        (repos / "org/tiny/tiny-Q8_0.gguf").write_bytes(b"no GGUF at all" * 10)
        found = self.look(hub, "org/tiny:Q8_0")
        assert found["shape"] == {}
        assert found["why"]
        assert found["candidates"]


@pytest.mark.parametrize(
    ("name", "inside", "message"),
    [
        ("m.gguf", Q8[:-1], "need"),
        ("m.gguf", b"<html>", "web page"),
        ("m.safetensors", b"x", "it is no safetensors file"),
        ("config.json", b"[]", "no JSON object"),
        ("config.json", b"{", "no JSON object"),
    ],
)
def test_content_that_no_engine_can_load(tmp_path: Path, name: str, inside: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(inside)
    with pytest.raises(BadInput, match=message):
        content.check(str(tmp_path / name), name)


def test_content_that_says_nothing_is_not_looked_at(tmp_path: Path) -> None:
    for name, inside in (("m.gguf", Q8), ("README.md", b"\0"), ("config.json", b'{"a": 1}')):
        (tmp_path / name).write_bytes(inside)
        content.check(str(tmp_path / name), name)
