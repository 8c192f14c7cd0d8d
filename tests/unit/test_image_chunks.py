"""Archives in chunks: cut at the borders of large entries, put together again, left out without harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import typing as t

import pytest
from ansible.module_utils.llmfleet import image_chunks
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_chunks import Cutter, compress
from ansible.module_utils.llmfleet.tar_walk import Event, TarWalk
from hypothesis import given, settings
from hypothesis import strategies as st

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
LARGE = 2000


def tar(entries: t.Sequence[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT, links: bool = False) -> bytes:
    """Return a tar archive; names longer than 100 characters and odd times need extension headers."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mtime = 1.5 if kind == tarfile.PAX_FORMAT else 1  # type: ignore[assignment]
            archive.addfile(info, io.BytesIO(content))
            if links:
                link = tarfile.TarInfo(f"{name}.link")
                link.type, link.linkname = tarfile.SYMTYPE, name
                archive.addfile(link)
    return stream.getvalue()


def walk(data: bytes, step: int, large: int = LARGE) -> list[Event]:
    walker = TarWalk(large)
    events = [event for start in range(0, len(data), step) for event in walker.feed(data[start : start + step])]
    return [*events, *walker.finish()]


def cuts(data: bytes, step: int, size: int) -> list[image_chunks.Cut]:
    cutter = Cutter(size, LARGE)
    found = [cut for start in range(0, len(data), step) for cut in cutter.feed(data[start : start + step])]
    return [*found, *cutter.finish()]


names = st.text(alphabet="abcdefgh/.é", min_size=1, max_size=150).filter(lambda name: name.strip("/.") != "")
contents = st.binary(max_size=64).flatmap(lambda seed: st.integers(0, 70).map(lambda times: seed * times))
archives = st.lists(st.tuples(names, contents), max_size=6)
kinds = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


@settings(deadline=None, max_examples=40)
@given(archives, kinds, st.booleans(), st.integers(1, 5000))
def test_a_walk_loses_nothing_and_finds_every_large_entry(
    entries: list[tuple[str, bytes]], kind: int, links: bool, step: int
) -> None:
    data = tar(entries, kind, links)
    events = walk(data, step)
    assert b"".join(event.data for event in events) == data
    large = [f"sha256:{hashlib.sha256(content).hexdigest()}" for _, content in entries if len(content) >= LARGE]
    assert [event.digest for event in events if event.kind == "end"] == large
    assert [event.kind for event in events if event.kind in ("begin", "end")] == ["begin", "end"] * len(large)


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=3000), st.integers(1, 700))
def test_a_stream_of_another_kind_passes_unharmed(data: bytes, step: int) -> None:
    assert b"".join(event.data for event in walk(data, step)) == data


@settings(deadline=None, max_examples=40)
@given(archives, st.integers(1, 3000), st.integers(1, 3000))
def test_an_archive_cut_anywhere_passes_unharmed(entries: list[tuple[str, bytes]], step: int, end: int) -> None:
    data = tar(entries)[:end]
    assert b"".join(event.data for event in walk(data, step)) == data


@pytest.mark.parametrize("kind", FORMATS.values())
@pytest.mark.parametrize("name", ["a" * 64 + "/layer.tar", "blobs/sha256/" + "b" * 64, "x" * 90 + "/" + "y" * 90])
def test_the_name_of_a_large_entry_is_right_or_unknown(kind: int, name: str) -> None:
    (end,) = [event for event in walk(tar([(name, bytes(LARGE))], kind), 700) if event.kind == "end"]
    assert end.name == name or (end.name == "" and len(name) > 100)
    assert end.name == name or kind != tarfile.USTAR_FORMAT


def test_a_size_beyond_octal_digits_is_read_in_both_notations() -> None:
    """Entries of 8 GiB and more: only their headers are made here."""
    size = 9 << 30
    for kind in ("gnu", "pax"):
        info = tarfile.TarInfo("layer.tar")
        info.size = size
        head = info.tobuf(FORMATS[kind])
        walker = TarWalk(LARGE)
        events = [*walker.feed(head), *walker.feed(bytes(1 << 16))]
        assert [event.kind for event in events] == ["begin", "data", "data"], kind
        assert walker._content == size - (1 << 16), kind


@settings(deadline=None, max_examples=40)
@given(archives, kinds, st.integers(50, 5000), st.integers(100, 4000))
def test_chunks_hold_the_archive_and_never_mix_entries(
    entries: list[tuple[str, bytes]], kind: int, step: int, size: int
) -> None:
    data = tar(entries, kind)
    found = cuts(data, step, size)
    assert b"".join(cut.data for cut in found) == data
    assert all(len(cut.data) <= size for cut in found)
    assert gzip.decompress(b"".join(compress(cut.data, 1) for cut in found if cut.data)) == data
    by_entry: dict[int, bytes] = {}
    for cut in found:
        by_entry[cut.entry] = by_entry.get(cut.entry, b"") + cut.data
    large = [content for _, content in entries if len(content) >= LARGE]
    assert [content in by_entry[number] for number, content in enumerate(large, start=1)] == [True] * len(large)


@settings(deadline=None, max_examples=40)
@given(archives, st.integers(100, 4000), st.data())
def test_an_archive_without_some_of_its_large_entries_is_an_archive(
    entries: list[tuple[str, bytes]], size: int, data: st.DataObject
) -> None:
    """What a host that has a layer already gives to `docker load`."""
    found = cuts(tar(entries), 512, size)
    ends = [cut.entry for cut in found if cut.digest]
    dropped = set(data.draw(st.lists(st.sampled_from(ends), unique=True))) if ends else set()
    rest = b"".join(compress(cut.data, 1) for cut in found if cut.data and cut.entry not in dropped)
    number, expected = 0, []
    for name, content in entries:
        number += len(content) >= LARGE
        if len(content) < LARGE or number not in dropped:
            expected.append((name, content))
    with tarfile.open(fileobj=io.BytesIO(rest), mode="r:gz") as archive:
        members = archive.getmembers()
        there = [(member.name.rstrip("/"), archive.extractfile(member)) for member in members]
        found_there = [(name, file.read() if file else b"") for name, file in there]
    assert found_there == [(name.rstrip("/"), content) for name, content in expected]


def test_equal_content_gives_equal_chunks() -> None:
    assert compress(b"x" * 1000, 3) == compress(b"x" * 1000, 3)


DIGEST = "sha256:" + "a" * 64
ROW = {"bytes": 3, "sha256": "b" * 64, "unpacked": 9, "layer": DIGEST}
IMAGE = {"reference": "a:1", "id": DIGEST, "layers": [DIGEST], "settings": "0123"}
RECORD: dict[str, t.Any] = {
    "path": "/x",
    "sha256": "c" * 64,
    "chunks": [ROW],
    "images": [IMAGE],
    "without_layers": [],
    "entries": {DIGEST: "a/layer.tar"},
}


def test_a_result_can_be_handed_on_as_it_is() -> None:
    archive = image_chunks.from_data({**RECORD, "changed": True, "diff": {}})
    assert archive.as_data() == {**RECORD, "bytes": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chunks": None}, "is not the result of image_archive"),
        ({"chunks": []}, "has 0 chunks"),
        ({"images": []}, "0 images"),
        ({"sha256": "12"}, "lacks its sha256"),
        ({"chunks": [{**ROW, "sha256": "../../etc/passwd"}]}, "chunk 0 of `archive` has no sound size or digest"),
        ({"chunks": [{**ROW, "bytes": 0}]}, "chunk 0 of `archive` has no sound size or digest"),
        ({"chunks": [{**ROW, "layer": "x"}]}, "chunk 0 of `archive` has no sound size or digest"),
        ({"chunks": [ROW, {}]}, "chunk 1 of `archive` lacks bytes or sha256"),
        ({"chunks": [ROW, "x"]}, "chunk 1 of `archive` lacks bytes or sha256"),
        ({"images": [{"reference": "a:1"}]}, "lacks reference, id or layers"),
        ({"images": [{**IMAGE, "id": "12"}]}, "is not a digest"),
        ({"images": ["a"]}, "lacks reference, id or layers"),
        ({"entries": ["a"]}, "`entries` of `archive` is not what image_archive returned"),
    ],
)
def test_what_is_no_archive_is_refused(change: dict[str, t.Any], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        image_chunks.from_data({**RECORD, **change})
    assert words in str(caught.value)


def test_something_else_than_a_mapping_is_refused() -> None:
    with pytest.raises(BadInput):
        image_chunks.from_data(t.cast("dict[str, t.Any]", []))
