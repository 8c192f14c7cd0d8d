"""The store of models of hubs: what is visible when, what is read again, what may go."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
import typing as t
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import digest, presence, removal, repository_lock, store
from ansible.module_utils.llmfleet.hub.manifest import GGUF, SAFETENSORS, Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.place import Asked, Place, models, read_note
from ansible.module_utils.llmfleet.hub.presence import FULL
from hypothesis import given, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
COMMIT, OTHER = "a" * 40, "b" * 40
REPO = "org/model"


def repo_file(path: str, content: bytes, kind: str = "sha256") -> RepoFile:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 -- git's
    sha256 = hashlib.sha256(content).hexdigest()
    return RepoFile(path, len(content), sha256 if kind == "sha256" else "", blob if kind == "git" else "")


CONTENTS = {"m-00001-of-00002.gguf": b"first" * 100, "m-00002-of-00002.gguf": b"second" * 100}


def gguf_manifest(commit: str = COMMIT, contents: t.Mapping[str, bytes] = CONTENTS, **more: t.Any) -> Manifest:
    files = tuple(repo_file(path, content) for path, content in contents.items())
    values = {"entry": next(iter(contents)), "quant": "Q8_0", "source": "hf", **more}
    return Manifest(REPO, commit, GGUF, files, **values)


def arrive(place: Place, manifest: Manifest, contents: t.Mapping[str, bytes]) -> None:
    for path, content in contents.items():
        file = Path(place.incoming(manifest.key), path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o600)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "models"), REPO)


@pytest.fixture
def published(place: Place) -> Manifest:
    manifest = gguf_manifest()
    arrive(place, manifest, CONTENTS)
    store.publish(place, manifest, Asked("", "Q8_0"))
    return manifest


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the path of each file that is read as a whole."""
    read: list[str] = []
    real = digest.digest_of_file

    def digest_of(path: str, file: RepoFile) -> str:
        read.append(file.path)
        return real(path, file)

    monkeypatch.setattr(digest, "digest_of_file", digest_of)
    return read


def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the name of each file that is put into its place."""
    moved: list[str] = []
    real = os.replace

    def replace_file(old: str, new: str) -> None:
        moved.append(os.path.basename(new))
        real(old, new)

    monkeypatch.setattr(os, "replace", replace_file)
    return moved


class TestPublish:
    def test_layout(self, place: Place, published: Manifest) -> None:
        root = Path(place.dest, "hub", "models--org--model")
        assert (root / "refs" / "main").read_text() == COMMIT
        for path, content in CONTENTS.items():
            file = root / "snapshots" / COMMIT / path
            assert file.read_bytes() == content
            assert stat.S_IMODE(file.stat().st_mode) == 0o644
            assert not file.is_symlink()
        for folder in (root, root / "snapshots", root / "snapshots" / COMMIT, Path(place.dest)):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert not Path(place.incoming(published.key)).exists()
        assert place.location(published) == str(root / "snapshots" / COMMIT / "m-00001-of-00002.gguf")
        assert models(place) == [published]

    def test_the_entry_comes_last(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        manifest = gguf_manifest()
        arrive(place, manifest, CONTENTS)
        moved = moves(monkeypatch)
        store.publish(place, manifest)
        assert moved == ["m-00002-of-00002.gguf", "m-00001-of-00002.gguf", "main", f"{COMMIT}.json"]

    def test_config_comes_last_of_a_folder(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        contents = {"config.json": b"{}", "model.safetensors": b"xx", "sub/x.json": b"{ }"}
        files = tuple(repo_file(path, content, "git") for path, content in contents.items())
        manifest = Manifest(REPO, COMMIT, SAFETENSORS, files)
        arrive(place, manifest, contents)
        moved = moves(monkeypatch)
        store.publish(place, manifest)
        assert moved[:3] == ["model.safetensors", "x.json", "config.json"]
        assert place.location(manifest) == place.snapshot(COMMIT)

    @pytest.mark.parametrize("fault", ["missing", "short"])
    def test_nothing_is_moved_when_something_is_wrong(self, place: Place, fault: str) -> None:
        manifest = gguf_manifest()
        contents = dict(CONTENTS)
        if fault == "missing":
            contents.pop("m-00002-of-00002.gguf")
        else:
            contents["m-00002-of-00002.gguf"] = b"x"
        arrive(place, manifest, contents)
        with pytest.raises(LlmfleetError, match=r"m-00002-of-00002\.gguf (is missing|has 1 bytes instead of 600)"):
            store.publish(place, manifest)
        assert not os.path.exists(place.snapshot(COMMIT))
        assert not presence.state_of(place, Asked("", "Q8_0")).present

    @pytest.mark.parametrize("step", range(6))
    def test_a_kill_between_two_steps_leaves_what_the_next_run_completes(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, step: int
    ) -> None:
        manifest = gguf_manifest()
        arrive(place, manifest, CONTENTS)
        steps = 0
        real = os.replace

        def replace_or_die(old: str, new: str) -> None:
            nonlocal steps
            steps += 1
            if steps > step:
                raise KeyboardInterrupt
            real(old, new)

        monkeypatch.setattr(os, "replace", replace_or_die)
        try:
            store.publish(place, manifest, Asked())
        except KeyboardInterrupt:
            # what engines open is there only with everything else
            entry = place.location(manifest)
            assert not os.path.exists(entry) or os.path.exists(
                os.path.join(place.snapshot(COMMIT), "m-00002-of-00002.gguf")
            )
        monkeypatch.setattr(os, "replace", real)
        store.publish(place, manifest, Asked())
        assert presence.state_of(place, Asked(), FULL).present

    def test_the_same_again_changes_nothing_but_the_words(self, place: Place, published: Manifest) -> None:
        before = {path: path.stat().st_mtime_ns for path in Path(place.snapshot(COMMIT)).iterdir()}
        store.publish(place, published, Asked("hf", "Q8_0"))
        assert before == {path: path.stat().st_mtime_ns for path in Path(place.snapshot(COMMIT)).iterdir()}
        assert presence.state_of(place, Asked("hf", "Q8_0")).present
        assert presence.state_of(place, Asked("", "Q8_0")).present

    def test_a_revision_gets_its_ref(self, place: Place) -> None:
        manifest = gguf_manifest(asked="refs/pr/1")
        arrive(place, manifest, CONTENTS)
        store.publish(place, manifest)
        assert Path(place.root, "refs/refs/pr/1").read_text() == COMMIT
        assert not Path(place.root, "refs/main").exists()

    def test_a_ref_in_the_way_of_another_is_no_matter(self, place: Place) -> None:
        for commit, revision in ((COMMIT, "v1"), (OTHER, "v1/patched")):
            manifest = gguf_manifest(commit, asked=revision)
            arrive(place, manifest, CONTENTS)
            store.publish(place, manifest, Asked("", "Q8_0", revision))
            assert presence.state_of(place, Asked("", "Q8_0", revision)).present

    def test_a_commit_gets_none(self, place: Place) -> None:
        manifest = gguf_manifest(asked=COMMIT)
        arrive(place, manifest, CONTENTS)
        store.publish(place, manifest)
        assert not Path(place.root, "refs").exists()


class TestState:
    def test_quick_reads_nothing(self, place: Place, published: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
        read = counted(monkeypatch)
        assert presence.state_of(place, Asked("", "Q8_0")).present
        assert presence.state_of(place, published).present
        assert read == []
        assert presence.state_of(place, published, FULL).present
        assert read == list(CONTENTS)

    @pytest.mark.usefixtures("published")
    def test_words(self, place: Place) -> None:
        found = {
            Asked("", "q8_0"): True,
            Asked("", "Q8_0", format=GGUF): True,
            Asked("", "Q8_0", format=SAFETENSORS): False,
            # which one would be chosen depends on the device
            Asked(): False,
            Asked("ms", "Q8_0"): False,
            # it was asked for without a source, so it need not have come from there
            Asked("hf", "Q8_0"): False,
            Asked("", "Q4_K_M"): False,
            Asked("", "Q8_0", "v2"): False,
            Asked("", "Q8_0", COMMIT): True,
            Asked("hf", "Q8_0", COMMIT): True,
            Asked("", "", COMMIT): False,
            Asked("", "", COMMIT, "m-00001-of-00002.gguf"): True,
        }
        assert {asked: presence.state_of(place, asked).present for asked in found} == found

    def test_without_a_source_any_will_do(self, place: Place, published: Manifest) -> None:
        removal.forget(place, published)
        arrive(place, published, CONTENTS)
        store.publish(place, published, Asked("ms", "Q8_0"))
        assert presence.state_of(place, Asked("", "Q8_0")).present
        assert presence.state_of(place, Asked("ms", "Q8_0")).present
        assert not presence.state_of(place, Asked("hf", "Q8_0")).present
        assert not presence.state_of(place, Asked("", "Q8_0", "v2")).present

    def test_the_latest_counts_when_a_branch_has_moved(self, place: Place, published: Manifest) -> None:
        time.sleep(0.01)
        newer = gguf_manifest(OTHER, {**CONTENTS, "m-00002-of-00002.gguf": b"third" * 99})
        arrive(place, newer, {path: b"third" * 99 for path in CONTENTS if "2-of" in path})
        linked = store.reuse(place, newer, newer.files)
        assert [file.path for file in linked] == ["m-00001-of-00002.gguf"]
        store.publish(place, newer, Asked("", "Q8_0"))
        assert presence.state_of(place, Asked("", "Q8_0")).manifest == newer
        first = [Path(place.snapshot(commit), "m-00001-of-00002.gguf") for commit in (COMMIT, OTHER)]
        assert os.path.samefile(*first)
        assert presence.state_of(place, published).present

    def test_what_is_wrong_is_told_by_file(self, place: Place, published: Manifest) -> None:
        first, second = (Path(place.snapshot(COMMIT), path) for path in CONTENTS)
        first.unlink()
        second.write_bytes(b"x" * second.stat().st_size)
        state = presence.state_of(place, published)
        assert [file.path for file in state.missing] == [first.name]
        assert "its digest is sha256:" in state.why[second.name]
        assert not state.present
        second.write_bytes(b"x")
        assert presence.state_of(place, published).why[second.name] == "it has 1 bytes instead of 600"

    def test_damage_that_keeps_size_and_time_is_found_by_full(self, place: Place, published: Manifest) -> None:
        path = Path(place.snapshot(COMMIT), "m-00002-of-00002.gguf")
        before = path.stat()
        path.write_bytes(b"x" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert presence.state_of(place, published).present
        assert [file.path for file in presence.state_of(place, published, FULL).damaged] == [path.name]

    def test_a_touched_file_is_read_once(
        self, place: Place, published: Manifest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.utime(Path(place.snapshot(COMMIT), "m-00002-of-00002.gguf"))
        read = counted(monkeypatch)
        state = presence.state_of(place, published)
        assert state.present
        assert [file.path for file in state.unnoted] == read == ["m-00002-of-00002.gguf"]
        store.publish(place, published)
        read.clear()
        assert presence.state_of(place, published).present
        assert read == []

    def test_what_other_tools_have_brought_is_taken_over(self, place: Place) -> None:
        manifest = gguf_manifest()
        blobs = Path(place.root, "blobs")
        snapshot = Path(place.snapshot(COMMIT))
        blobs.mkdir(parents=True)
        snapshot.mkdir(parents=True)
        for file in manifest.files:
            (blobs / file.sha256).write_bytes(CONTENTS[file.path])
            (blobs / file.sha256).chmod(0o600)
            (snapshot / file.path).symlink_to(f"../../blobs/{file.sha256}")
        state = presence.state_of(place, manifest)
        assert state.present
        assert state.crooked == state.unnoted == manifest.files
        store.publish(place, manifest, Asked())
        again = presence.state_of(place, Asked())
        assert again.present
        assert not again.crooked
        assert not again.unnoted
        for file in manifest.files:
            path = snapshot / file.path
            assert not path.is_symlink()
            assert os.path.samefile(path, blobs / file.sha256)
            assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_a_link_to_a_file_of_the_user_leaves_that_file_alone(self, place: Place, tmp_path: Path) -> None:
        own = tmp_path / "own.gguf"
        own.write_bytes(CONTENTS["m-00001-of-00002.gguf"])
        own.chmod(0o600)
        manifest = gguf_manifest()
        arrive(place, manifest, CONTENTS)
        here = Path(place.snapshot(COMMIT), "m-00001-of-00002.gguf")
        here.parent.mkdir(parents=True)
        here.symlink_to(own)
        Path(place.incoming(manifest.key), here.name).unlink()
        store.publish(place, manifest, Asked())
        assert presence.state_of(place, manifest, FULL).present
        assert not here.is_symlink()
        assert (own.stat().st_nlink, stat.S_IMODE(own.stat().st_mode)) == (1, 0o600)
        removal.forget(place, manifest)
        assert own.read_bytes() == CONTENTS["m-00001-of-00002.gguf"]

    def test_a_mode_with_more_bits_is_corrected(self, place: Place, published: Manifest) -> None:
        Path(place.location(published)).chmod(0o2644)
        assert presence.state_of(place, published).crooked
        store.publish(place, published)
        assert not presence.state_of(place, published).crooked

    def test_files_without_a_digest(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        files = tuple(RepoFile(path, len(content)) for path, content in CONTENTS.items())
        manifest = replace(gguf_manifest(), files=files)
        arrive(place, manifest, CONTENTS)
        store.publish(place, manifest, Asked())
        read = counted(monkeypatch)
        assert presence.state_of(place, Asked()).present
        assert read == []
        assert presence.state_of(place, Asked(), FULL).present
        path = Path(place.snapshot(COMMIT), "m-00001-of-00002.gguf")
        path.write_bytes(b"x" * path.stat().st_size)
        assert not presence.state_of(place, Asked(), FULL).present

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"files": [], "models": {}}', "[" * 100_000])
    def test_a_note_that_makes_no_sense_is_no_note(self, place: Place, published: Manifest, text: str) -> None:
        Path(place.note(COMMIT)).write_text(text)
        assert read_note(place, COMMIT) == {"files": {}, "models": {}}
        assert presence.state_of(place, Asked("", "Q8_0")).manifest is None
        assert len(presence.state_of(place, published).unnoted) == 2

    def test_nonsense_in_a_note_is_survived(self, place: Place, published: Manifest) -> None:
        """Any value within the note is another one, of any kind."""
        text = Path(place.note(COMMIT)).read_text()
        known = set()

        @settings(deadline=None, max_examples=300)
        @given(st.data())
        def run(data: st.DataObject) -> None:
            note = json.loads(text)
            parent: t.Any = {"": note}
            key: t.Any = ""
            for _ in range(data.draw(st.sampled_from([1, 2, 3, 4, 5, 6, 6, 6, 7, 7]))):
                here = parent[key]
                if not isinstance(here, (dict, list)) or not here:
                    break
                parent, key = (
                    here,
                    data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here)))),
                )
            parent[key] = data.draw(JSON)
            Path(place.note(COMMIT)).write_text(json.dumps(note))
            for asked in (Asked("", "Q8_0"), Asked("", "Q8_0", COMMIT)):
                found = presence.state_of(place, asked)
                assert found.manifest is None or found.manifest.repo == REPO
                known.add(found.manifest is None)
            presence.state_of(place, published)
            store.reuse(place, gguf_manifest(OTHER), published.files)
            removal.unused(place.dest, set())
            removal.knows(place, published, Asked())
            removal.other_words(place, published, Asked())

        run()
        assert known == {True, False}

    @pytest.mark.parametrize("path", ["../../../../etc/passwd", "/etc/passwd", "a/../../b"])
    def test_a_note_that_leads_out_is_no_note(self, place: Place, published: Manifest, path: str) -> None:
        note = json.loads(Path(place.note(COMMIT)).read_text())
        note["models"][published.key]["manifest"]["files"][0]["path"] = path
        Path(place.note(COMMIT)).write_text(json.dumps(note))
        assert presence.state_of(place, Asked("", "Q8_0")).manifest is None


def test_links_of_a_killed_run_are_not_written_to(place: Place, published: Manifest) -> None:
    newer = gguf_manifest(OTHER, {**CONTENTS, "m-00002-of-00002.gguf": b"third" * 99})
    store.reuse(place, newer, newer.files)
    linked = Path(place.incoming(newer.key), "m-00001-of-00002.gguf")
    assert linked.stat().st_nlink == 2
    store.clear_way(place, newer, newer.files)
    assert not linked.exists()
    assert presence.state_of(place, published, FULL).present


@pytest.mark.usefixtures("published")
def test_what_changed_since_is_not_linked(place: Place) -> None:
    os.utime(Path(place.snapshot(COMMIT), "m-00001-of-00002.gguf"))
    newer = gguf_manifest(OTHER)
    assert [file.path for file in store.reuse(place, newer, newer.files)] == ["m-00002-of-00002.gguf"]


class TestNames:
    @pytest.mark.parametrize("repo", ["", "org", "org/", "/name", "../x", "org/..", "a/b/c", "org/na me", "org/\0"])
    def test_repositories(self, repo: str) -> None:
        with pytest.raises(BadInput, match="not the name of a repository"):
            Place("/models", repo)

    @pytest.mark.parametrize("commit", ["", ".", "..", "../x", "a/b", "a\0", "x" * 65])
    def test_commits(self, commit: str) -> None:
        place = Place("/models", REPO)
        for make in (place.snapshot, place.note):
            with pytest.raises(BadInput, match="not the name of a commit"):
                make(commit)

    @given(st.text(max_size=30))
    def test_nothing_leads_out(self, word: str) -> None:
        place = Place("/models", REPO)
        for make in (place.snapshot, place.note, place.ref, place.incoming):
            try:
                path = make(word)
            except BadInput:
                continue
            assert os.path.normpath(path).startswith(place.root + "/")


HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest
from ansible.module_utils.llmfleet.hub import place, repository_lock
with repository_lock.locked(place.Place(sys.argv[2], sys.argv[3]), 20):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(place: Place) -> t.Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends."""
    tests = str(Path(__file__).resolve().parents[1])
    argv = [sys.executable, "-c", HOLD, tests, place.dest, place.repo]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout
            assert other.stdout.readline() == "held\n"
            yield other
        finally:
            other.kill()


class TestLock:
    def test_another_process_is_named(self, place: Place) -> None:
        with holder(place) as other:
            said: list[str] = []
            with (
                pytest.raises(LlmfleetError, match=f"process {other.pid} is bringing files of org/model"),
                repository_lock.locked(place, 0.3, said.append),
            ):
                pass
            assert said == [f"waiting for process {other.pid}, which is bringing files of org/model"]
            assert other.stdin
            other.stdin.close()
            with repository_lock.locked(place, 20):
                pass

    def test_a_folder_that_goes_while_the_lock_is_opened(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        real, times = os.open, 0

        def open_after_removal(path: str, *args: t.Any, **more: t.Any) -> int:
            nonlocal times
            times += path == place.lock
            if path == place.lock and times < 3:
                shutil.rmtree(place.dest)
            return real(path, *args, **more)

        monkeypatch.setattr(os, "open", open_after_removal)
        with repository_lock.locked(place, 1):
            assert os.path.exists(place.lock)

    def test_a_folder_that_cannot_be_made(self, place: Place) -> None:
        os.symlink("nowhere", place.dest)
        with pytest.raises(FileNotFoundError), repository_lock.locked(place, 1):
            pass

    def test_a_killed_process_holds_nothing(self, place: Place) -> None:
        with holder(place) as other:
            other.kill()
            with repository_lock.locked(place, 20):
                pass


class TestRemoval:
    def test_nothing_is_left(self, place: Place, published: Manifest) -> None:
        removal.forget(place, published)
        assert not os.path.exists(place.dest)

    def test_what_others_need_stays(self, place: Place, published: Manifest) -> None:
        shared = gguf_manifest(contents={"m-00001-of-00002.gguf": CONTENTS["m-00001-of-00002.gguf"]}, quant="X")
        store.publish(place, shared, Asked("", "X"))
        removal.forget(place, published)
        assert presence.state_of(place, Asked("", "X"), FULL).present
        assert os.listdir(place.snapshot(COMMIT)) == ["m-00001-of-00002.gguf"]
        removal.forget(place, shared)
        assert not os.path.exists(place.dest)

    def test_files_of_others_stay(self, place: Place, published: Manifest) -> None:
        foreign = Path(place.snapshot(COMMIT), "notes.txt")
        foreign.write_text("mine")
        removal.forget(place, published)
        assert foreign.read_text() == "mine"

    def test_words(self, place: Place, published: Manifest) -> None:
        other = Asked("hf", "Q8_0")
        store.publish(place, published, other)
        assert removal.other_words(place, published, other) == [Asked("", "Q8_0").words]
        removal.forget(place, published, other)
        assert not removal.knows(place, published, other)
        assert presence.state_of(place, Asked("", "Q8_0")).present

    def test_unused(self, place: Place, published: Manifest) -> None:
        newer = gguf_manifest(OTHER, {**CONTENTS, "m-00002-of-00002.gguf": b"third" * 99})
        store.reuse(place, newer, newer.files)
        arrive(place, newer, {"m-00002-of-00002.gguf": b"third" * 99})
        store.publish(place, newer, Asked("", "Q8_0"))
        half = gguf_manifest("c" * 40, {"half.gguf": b"h"})
        arrive(place, half, {"half.gguf": b"h" * 5000})
        single = Path(place.dest, "old.gguf")
        single.write_bytes(b"o" * 5000)
        Path(place.dest, "old.gguf.verified").write_text("{}")
        Path(place.dest, ".new.gguf.partial").write_bytes(b"GGUFn")
        Path(place.dest, "mine.gguf").write_bytes(b"m")
        keep = {place.location(newer)}
        rows = {row.path: row for row in removal.unused(place.dest, keep)}
        assert set(rows) == {
            place.location(published),
            place.incoming(half.key),
            str(single),
            str(Path(place.dest, ".new.gguf.partial")),
        }
        # the first part is in the other snapshot too, so that only the second one makes room
        assert (
            rows[place.location(published)].size
            == Path(place.snapshot(COMMIT), "m-00002-of-00002.gguf").stat().st_blocks * 512
        )
        removal.remove(place.dest, rows.values())
        assert removal.unused(place.dest, keep) == []
        assert presence.state_of(place, newer, FULL).present
        assert sorted(os.listdir(place.dest)) == ["hub", "mine.gguf"]

    def test_what_is_on_its_way_stays(self, place: Place, published: Manifest) -> None:
        half = gguf_manifest("c" * 40, {"half.gguf": b"h"})
        arrive(place, half, {"half.gguf": b"h"})
        partial = Path(place.dest, ".new.gguf.partial")
        partial.write_bytes(b"GGUF")
        keep = {place.location(published)}
        with partial.open() as other, repository_lock.locked(place, 1):
            fcntl.flock(other, fcntl.LOCK_EX)
            assert removal.unused(place.dest, keep) == []
        assert len(removal.unused(place.dest, keep)) == 2
        assert len(removal.unused(place.dest, {*keep, half.key})) == 1

    def test_a_download_that_was_interrupted_is_a_folder(self, place: Place) -> None:
        partial = Path(place.dest, ".new.gguf.partial")
        (partial / ".journal").mkdir(parents=True)
        (partial / "new.gguf").write_bytes(b"n" * 5000)
        handle = os.open(partial, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert removal.unused(place.dest, set()) == []
        os.close(handle)
        assert removal.unused(place.dest, {str(Path(place.dest, "new.gguf"))}) == []
        rows = removal.unused(place.dest, set())
        assert [(row.path, row.size) for row in rows] == [(str(partial), 8192)]
        removal.remove(place.dest, rows)
        assert not partial.exists()

    def test_what_engines_are_given_in_any_way_stays(self, place: Place, published: Manifest) -> None:
        folder = place.snapshot(COMMIT)
        for path in (place.location(published), folder, f"{folder}/", place.root, f"{folder}/m-00002-of-00002.gguf"):
            assert removal.unused(place.dest, {path}) == [], path
        for path in (f"{folder}x", f"{folder}/m-00003-of-00003.gguf", place.own):
            assert removal.unused(place.dest, {path}) != [], path

    def test_what_engines_are_given_may_be_spelt_in_another_way(self, place: Place, published: Manifest) -> None:
        top = Path(place.dest).parent
        (top / "link").symlink_to(place.dest)
        for dest in (str(top / "link"), f"{top}//models", f"{place.dest}/"):
            assert removal.unused(dest, {place.location(published)}) == []
            assert len(removal.unused(dest, {""})) == 1
        assert removal.unused(place.dest, {Place(str(top / "link"), REPO).location(published)}) == []

    def test_a_part_of_what_is_wanted_stays(self, place: Place) -> None:
        """The path of a model that is not known yet is the folder of its repository."""
        half = gguf_manifest()
        arrive(place, half, {"m-00001-of-00002.gguf": b"f"})
        assert removal.unused(place.dest, {place.root}) == []
        assert [row.path for row in removal.unused(place.dest, set())] == [place.incoming(half.key)]

    def test_two_models_in_one_folder(self, place: Place) -> None:
        contents = {"config.json": b"{}", "model.safetensors": b"x" * 9}
        for more in ({}, {"code.py": b"1"}):
            files = tuple(repo_file(path, content) for path, content in {**contents, **more}.items())
            manifest = Manifest(REPO, COMMIT, SAFETENSORS, files)
            arrive(place, manifest, {**contents, **more})
            store.publish(place, manifest, Asked())
        removal.remove(place.dest, removal.unused(place.dest, set()))
        assert not os.path.exists(place.dest)

    def test_what_only_looks_like_ours_stays(self, tmp_path: Path) -> None:
        for folder in ("x", ".rsync.partial"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "file").write_text("mine")
        (tmp_path / "x.verified").write_text("{}")
        (tmp_path / ".download.partial").write_text("mine")
        os.mkfifo(tmp_path / ".pipe.partial")
        assert removal.unused(str(tmp_path), set()) == []

    def test_it_waits_for_who_is_bringing(
        self, place: Place, published: Manifest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(removal, "PATIENCE", 0.0)
        rows = removal.unused(place.dest, set())
        with repository_lock.locked(place, 1), pytest.raises(LlmfleetError, match=f"process {os.getpid()} is bringing"):
            removal.remove(place.dest, rows)
        assert presence.state_of(place, published, FULL).present
        removal.remove(place.dest, rows)
        assert not os.path.exists(place.dest)

    def test_no_store_is_empty(self, tmp_path: Path) -> None:
        assert removal.unused(str(tmp_path / "none"), set()) == []
