"""What of a model is here while it arrives: the notes that a server follows, torn at any byte, and what it gives."""

from __future__ import annotations

import os
import tempfile
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import chunk_in_place
from ansible.module_utils.llmfleet.chunk_in_place import InPlace, Journal
from hypothesis import given, settings
from hypothesis import strategies as st

NAME = "0123456789abcdef"
FIRST = chunk_in_place.MARK + NAME.encode() + b"\n"
RECORD = {"name": NAME, "chunk_bytes": 4, "files": [{"path": "a", "size": 10}, {"path": "d/b", "size": 4}]}


def write(folder: Path, content: bytes) -> None:
    path = folder / chunk_in_place.JOURNAL
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)


@given(st.lists(st.integers(0, 50), max_size=6), st.integers(1, 20))
def test_chunks_cover_every_byte_once(sizes: list[int], step: int) -> None:
    files = [{"path": str(number), "size": size} for number, size in enumerate(sizes)]
    places = chunk_in_place.places({"chunk_bytes": step, "files": files})
    covered = [(path, offset + at) for path, offset, size in places for at in range(size)]
    assert covered == [(str(number), at) for number, size in enumerate(sizes) for at in range(size)]
    assert all(0 < size <= step for _, _, size in places)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-40, 40), max_size=12), st.data())
def test_a_journal_cut_at_any_byte_says_nothing_wrong(numbers: list[int], data: t.Any) -> None:
    """Followed from any byte to the end, it says what its whole lines say, and never more."""
    lines = [b"%d\n" % number for number in numbers]
    content = FIRST + b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, content[:cut])
        journal = Journal(name, NAME)
        sound = journal.refresh()
        whole = content[:cut].rpartition(b"\n")[0].split(b"\n")[1:] if cut >= len(FIRST) else []
        assert journal.here == {int(line) for line in whole if not line.startswith(b"-")}
        assert journal.never == {-int(line) for line in whole if line.startswith(b"-")}
        assert content[:sound].endswith(b"\n") or not sound
        with (folder / chunk_in_place.JOURNAL).open("ab") as file:
            file.write(content[cut:])
        assert journal.refresh() == len(content)
        assert journal.here == {number for number in numbers if number >= 0}
        assert journal.never == {-number for number in numbers if number < 0}


@pytest.mark.parametrize("first", [b"", b"chunks of other\n", b"rubbish\n", FIRST[:-1], b"\x00" * 40 + b"\n"])
def test_another_journal_is_none(tmp_path: Path, first: bytes) -> None:
    write(tmp_path, first + b"1\n")
    journal = Journal(str(tmp_path), NAME)
    assert (journal.refresh(), journal.here) == (0, set())


def test_a_journal_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    write(tmp_path, FIRST + b"1\n2\n")
    journal = Journal(str(tmp_path), NAME)
    journal.refresh()
    assert journal.here == {1, 2}
    fresh = tmp_path / "fresh"
    fresh.write_bytes(FIRST + b"2\n3\n4\n")
    os.replace(fresh, tmp_path / chunk_in_place.JOURNAL)
    journal.refresh()
    assert journal.here == {2, 3, 4}
    os.unlink(tmp_path / chunk_in_place.JOURNAL)
    assert journal.refresh() == 0
    assert journal.here == {2, 3, 4}  # the files were moved; what was here is there now


@pytest.mark.parametrize("line", [b"x", b"1 2", b"--", b"1x", b"\x001", "²".encode()])
def test_a_line_that_makes_no_sense_is_none(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, FIRST + line + b"\n2\n")
    journal = Journal(str(tmp_path), NAME)
    assert journal.refresh() == len(FIRST) + len(line) + 3
    assert journal.here == {2}


class Folders(t.NamedTuple):
    incoming: Path
    snapshot: Path
    chunks: InPlace


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    incoming, snapshot = tmp_path / "in", tmp_path / "snapshot"
    return Folders(incoming, snapshot, InPlace(RECORD, str(incoming), str(snapshot)))


def put(folder: Path, path: str, size: int) -> Path:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(bytes(size))
    return target


def test_nothing_is_here_at_first(folders: Folders) -> None:
    assert [folders.chunks.find(number) for number in range(4)] == [None] * 4
    assert folders.chunks.progress() == 0


def test_what_arrived_is_given_and_what_only_lies_there_is_not(folders: Folders) -> None:
    path = put(folders.incoming, "a", 10)
    write(folders.incoming, FIRST + b"2\n")
    assert folders.chunks.find(2) == (str(path), 8, 2)
    assert folders.chunks.find(0) is None
    assert folders.chunks.progress() > 0


def test_what_will_not_come_is_said(folders: Folders) -> None:
    write(folders.incoming, FIRST + b"-3\n")
    with pytest.raises(LookupError):
        folders.chunks.find(3)
    published = put(folders.snapshot, "d/b", 4)
    assert folders.chunks.find(3) == (str(published), 0, 4)


def test_what_is_published_is_given_without_notes(folders: Folders) -> None:
    path = put(folders.snapshot, "a", 10)
    assert [folders.chunks.find(number) for number in range(3)] == [
        (str(path), 4 * n, min(4, 10 - 4 * n)) for n in range(3)
    ]
    put(folders.snapshot, "a", 9)
    assert folders.chunks.find(0) is None


def test_a_damaged_file_that_is_fetched_again_is_not_given_from_where_it_is_damaged(folders: Folders) -> None:
    put(folders.snapshot, "a", 10)
    path = put(folders.incoming, "a", 10)
    write(folders.incoming, FIRST + b"1\n")
    assert folders.chunks.find(0) is None
    assert folders.chunks.find(1) == (str(path), 4, 4)


def test_a_file_that_moves_to_where_it_is_published_stays_here(folders: Folders) -> None:
    path = put(folders.incoming, "a", 10)
    write(folders.incoming, FIRST + b"0\n1\n2\n")
    assert folders.chunks.find(0)
    folders.snapshot.mkdir()
    os.replace(path, folders.snapshot / "a")
    assert folders.chunks.find(0) == (str(folders.snapshot / "a"), 0, 4)
