"""The parts of a transfer: ranges, journals, digests, who fetches what, progress in words."""

from __future__ import annotations

import hashlib
import io
import threading
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub import part as parts
from ansible.module_utils.llmfleet.hub.desk import Desk
from ansible.module_utils.llmfleet.hub.digest import digest_of, expected, words
from ansible.module_utils.llmfleet.hub.follow import Follower
from ansible.module_utils.llmfleet.hub.journal import Journal, Ranges
from ansible.module_utils.llmfleet.hub.manifest import RepoFile
from ansible.module_utils.llmfleet.hub.part import Part
from ansible.module_utils.llmfleet.hub.progress import Meter, State
from ansible.module_utils.llmfleet.hub.reply import Broken, Reply, reply_of
from ansible.module_utils.llmfleet.hub.web import range_headers, retry_after
from hypothesis import given
from hypothesis import strategies as st

END = 60
RANGES = st.lists(st.tuples(st.integers(0, END), st.integers(0, END)).map(lambda pair: (min(pair), max(pair))))
BIG = 1 << 30


class TestRanges:
    @given(RANGES)
    def test_are_what_a_set_of_bytes_is(self, ranges: list[tuple[int, int]]) -> None:
        found, have = Ranges(), set[int]()
        for start, end in ranges:
            new = set(range(start, end)) - have
            have |= new
            assert found.add(start, end) == len(new)
        assert found.total == len(have)
        assert [byte for start, end in found.items for byte in range(start, end)] == sorted(have)
        assert all(a[1] < b[0] for a, b in zip(found.items, found.items[1:]))
        missing = {byte for start, end in found.gaps(END) for byte in range(start, end)}
        assert missing == set(range(END)) - have
        for byte in range(END):
            assert found.reach(byte) == next(after for after in range(byte, END + 1) if after not in have)


class TestJournal:
    @given(RANGES, st.integers(0, 400))
    def test_a_torn_journal_promises_nothing_that_is_not_there(
        self, tmp_path_factory: pytest.TempPathFactory, ranges: list[tuple[int, int]], torn: int
    ) -> None:
        folder = str(tmp_path_factory.getbasetemp())
        journal = Journal(folder, "a/b", "sha256:1")
        journal.begin(END)
        written = Ranges()
        for start, end in ranges:
            journal.add(start, end)
            written.add(start, end)
        journal.close()
        path = Path(journal._path)
        path.write_bytes(path.read_bytes()[:-torn] if torn else path.read_bytes())
        again = Journal(folder, "a/b", "sha256:1")
        again.read()
        for start, end in again.have.items:
            assert written.reach(start) >= end
        if not torn:
            assert again.have.items == written.items

    def test_a_line_behind_a_torn_one_counts(self, tmp_path: Path) -> None:
        journal = Journal(str(tmp_path), "a", "sha256:1")
        journal.begin(100)
        journal.add(0, 10)
        journal.close()
        with open(journal._path, "ab") as file:
            file.write(b"10 2")
        again = Journal(str(tmp_path), "a", "sha256:1")
        again.read()
        again.add(50, 60)
        again.close()
        last = Journal(str(tmp_path), "a", "sha256:1")
        last.read()
        assert last.have.items == [(0, 10), (50, 60)]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b"{}\n",
            b"[]\n",
            b'{"path": "a"}\n',
            b"\xff\xfe\n1 2\n",
            b"1 2\n",
            b'{"path": "a", "size": "x"}\n',
        ],
    )
    def test_nonsense_is_nothing(self, tmp_path: Path, content: bytes) -> None:
        journal = Journal(str(tmp_path), "a", "sha256:1")
        Path(journal._path).write_bytes(content)
        journal.read()
        assert (journal.have.items, journal.verified, journal.size) == ([], 0, -1)

    def test_lines_that_cannot_be_are_left_out(self, tmp_path: Path) -> None:
        journal = Journal(str(tmp_path), "a", "sha256:1")
        journal.begin(100)
        journal.close()
        with open(journal._path, "ab") as file:
            file.write(b"0 101\n9 3\n-1 5\nx y\n1 2 3\nverified x\n7 7\n" + "٣ ٤\n".encode() + b"20 30\n")
        again = Journal(str(tmp_path), "a", "sha256:1")
        again.read()
        assert (again.have.items, again.verified) == ([(20, 30)], 0)

    @pytest.mark.parametrize(("path", "digest"), [("b", "sha256:1"), ("a", "sha256:2"), ("a", "")])
    def test_of_another_file_it_is_not_believed(self, tmp_path: Path, path: str, digest: str) -> None:
        journal = Journal(str(tmp_path), "a", "sha256:1")
        journal.begin(100)
        journal.add(0, 10)
        journal.close()
        other = Journal(str(tmp_path), path, digest)
        other.read()
        assert other.have.items == []


class TestDigest:
    def test_of_every_kind(self) -> None:
        content = b"what is up, doc?"
        git = RepoFile("a", len(content), blob_id="BD9DBF5AAE1A3862DD1526723246B20206E5FC37")
        assert digest_of(io.BytesIO(content), git, len(content)) == expected(git)
        sha256 = hashlib.sha256(content).hexdigest()
        known, unknown = RepoFile("a", len(content), sha256, git.blob_id), RepoFile("a", len(content))
        assert digest_of(io.BytesIO(content), known, len(content)) == expected(known) == f"sha256:{sha256}"
        assert digest_of(io.BytesIO(content), unknown, len(content)) == f"sha256:{sha256}"
        assert expected(unknown) == ""
        assert words(expected(git)).startswith("git blob id bd9d")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def desk_of(tmp_path: Path, *sizes: int, **options: t.Any) -> Desk:
    (tmp_path / parts.JOURNALS).mkdir()
    files = [RepoFile(f"f{number}", size, "0" * 64) for number, size in enumerate(sizes)]

    def opener(_file: RepoFile, _start: int, _end: int) -> Reply:
        raise AssertionError

    given: dict[str, t.Any] = {"connections": 4, "attempts": 4, "pause": 1.0, "again": 1, "clock": Clock(), **options}
    return Desk([Part(file, str(tmp_path)) for file in files], opener, **given)


def take(desk: Desk) -> parts.Lease:
    lease = desk._find(desk.clock())
    assert lease
    lease.part.open()
    desk.note(lease, [], lease.position)
    return lease


class TestDesk:
    def test_ranges_are_handed_out_from_the_front(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path, BIG, 10)
        leases = [take(desk) for _ in range(17)]
        assert [(lease.start, lease.end) for lease in leases[:2]] == [(0, parts.LEASE), (parts.LEASE, 2 * parts.LEASE)]
        assert leases[15].end == BIG
        assert (leases[16].part.file.path, leases[16].end) == ("f1", 10)

    def test_small_files_are_shared_too(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path, 5 * parts.BLOCK)
        assert take(desk).end == parts.BLOCK

    def test_the_slowest_one_is_helped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        desk = desk_of(tmp_path, 2 * parts.LEASE)
        monkeypatch.setattr(desk, "_connections", 0.25)  # shares that make two leases of it
        slow, quick = take(desk), take(desk)
        desk.clock.now += 10  # type: ignore[attr-defined]
        desk.note(slow, [(0, parts.BLOCK)], parts.BLOCK)
        desk.note(quick, [(parts.LEASE, 2 * parts.LEASE - 10)], 2 * parts.LEASE - 10)
        helper = take(desk)
        assert helper.end == parts.LEASE
        assert slow.end == helper.start > slow.firm
        assert 2 * (helper.end - helper.start) == pytest.approx(parts.LEASE - 2 * parts.BLOCK)

    def test_what_is_firm_is_not_taken(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path, parts.BLOCK)
        lease = take(desk)
        desk.clock.now += 1000  # type: ignore[attr-defined]
        assert desk._find(desk.clock()) is None
        assert lease.end == parts.BLOCK

    def test_pauses_grow_until_it_is_given_up(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path, 100)
        pauses = []
        for attempt in range(4):
            lease = take(desk)
            if attempt == 3:
                with pytest.raises(LlmfleetError, match="f0: busy"):
                    desk.broke(lease, Broken("busy"))
                break
            desk.broke(lease, Broken("busy"))
            desk.release(lease)
            assert desk._find(desk.clock()) is None
            pauses.append(lease.part.not_before - desk.clock())
            desk.clock.now = lease.part.not_before  # type: ignore[attr-defined]
        assert pauses == [2, 4, 8]

    def test_bytes_gained_give_new_patience(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path, 100, attempts=2)
        for position in range(0, 50, 10):
            lease = take(desk)
            desk.note(lease, [(position, position + 10)], position + 10)
            desk.broke(lease, Broken("cut"))
            desk.release(lease)
            assert lease.part.not_before - desk.clock() == 1
            desk.clock.now = lease.part.not_before  # type: ignore[attr-defined]

    def test_a_few_bytes_now_and_then_do_not(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path, 100, attempts=1)
        lease = take(desk)
        desk.note(lease, [(0, 10)], 10)
        with pytest.raises(LlmfleetError, match="trickle"):
            desk.broke(lease, Broken("trickle", slow=True))

    def test_a_source_that_wants_time_gets_it_from_all(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path, BIG)
        lease = take(desk)
        desk.broke(lease, Broken("busy", retry_after=40))
        desk.release(lease)
        assert desk._not_before == desk.clock() + 40
        desk.clock.now += 40  # type: ignore[attr-defined]
        with pytest.raises(LlmfleetError, match="asked again only after 301 seconds"):
            desk.broke(take(desk), Broken("busy", retry_after=301))

    def test_who_waits_is_woken(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path, 10)
        take(desk)
        got: list[parts.Lease | None] = []
        waiting = threading.Thread(target=lambda: got.append(desk.next()))
        waiting.start()
        desk.fail(LlmfleetError("over"))
        waiting.join(10)
        assert got == [None]


class TestFollower:
    def test_a_file_that_begins_anew_while_it_is_read_is_no_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk = desk_of(tmp_path, 10)
        part = desk.parts[0]
        part.open()
        part.note(0, 5)
        follower = Follower(desk, iter([part]), str(tmp_path), False)

        def begin_anew(*_: t.Any) -> int:
            part.clear()
            return 0

        monkeypatch.setattr("os.preadv", begin_anew)
        follower._follow(part)
        assert desk.problem is None
        monkeypatch.setattr("os.preadv", lambda *_: 0)
        part.note(0, 5)
        with pytest.raises(OSError, match="became shorter"):
            follower._follow(part)
        part.close()


class Response:
    def __init__(self, status: int, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def close(self) -> None:
        pass


class TestReply:
    @pytest.mark.parametrize(
        ("response", "total", "start"),
        [
            (Response(206, Content_Range="bytes 5-9/20", Content_Length="5"), 20, 5),
            (Response(206, Content_Range="bytes 5-9/*"), -1, 5),
            (Response(200, Content_Length="20"), 20, 0),
            (Response(200), -1, 0),
            (Response(200, Content_Length="²"), -1, 0),
            (Response(200, Content_Length="9" * 5000), -1, 0),
            (Response(416, Content_Range="bytes */20", Content_Length="3"), 20, 0),
            (Response(416), -1, 0),
        ],
    )
    def test_reads_headers(self, response: Response, total: int, start: int) -> None:
        reply = reply_of(response)
        assert (reply.total, reply.start) == (total, start)

    @pytest.mark.parametrize("said", ["", "bytes */20", "bytes 5-", "items 5-9/20", f"bytes {'9' * 5000}-1/2"])
    def test_a_part_of_who_knows_what(self, said: str) -> None:
        with pytest.raises(Broken, match="did not say which"):
            reply_of(Response(206, Content_Range=said))

    def test_weak_validators_are_none(self) -> None:
        assert reply_of(Response(200, ETag='W/"1"')).etag == ""
        assert reply_of(Response(200, ETag='"1"')).etag == '"1"'

    @pytest.mark.parametrize(
        ("said", "seconds"),
        [
            ("", 0),
            ("7", 7),
            ("-3", 0),
            ("soon", 0),
            ("Thu, 01 Jan 1970 00:01:40 GMT", 90),
            ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
            ("9" * 400, 0),
        ],
    )
    def test_retry_after(self, said: str, seconds: float) -> None:
        assert retry_after({"Retry-After": said}, now=10.0) == seconds

    @pytest.mark.parametrize(
        ("start", "end", "asked"),
        [(0, 20, None), (0, -1, None), (0, 10, "bytes=0-9"), (5, 20, "bytes=5-19"), (5, -1, "bytes=5-")],
    )
    def test_ranges_are_asked_for_where_needed(self, start: int, end: int, asked: str | None) -> None:
        assert range_headers(RepoFile("a", 20), start, end).get("Range") == asked


class TestProgress:
    @pytest.mark.parametrize(
        ("state", "words"),
        [
            (
                State(3, 1, 4_000_000_000, 1_000_000_000, 50_000_000, "a.gguf"),
                "file 2 of 3 (a.gguf): 1.0 GB of 4.0 GB, 25 %, 50.0 MB/s, 1 min 0 s left",
            ),
            (State(1, 1, 999, 999, 0.0), "file 1 of 1: 999 bytes of 999 bytes, 100 %, 0 bytes/s"),
            (State(1, 0, 0, 0, 0.0), "file 1 of 1: 0 bytes of 0 bytes, 100 %, 0 bytes/s"),
            (
                State(2, 0, 400_000_000_000, 1_000, 10_000_000),
                "file 1 of 2: 1.0 kB of 400 GB, 0 %, 10.0 MB/s, 11 h 6 min left",
            ),
        ],
    )
    def test_in_words(self, state: State, words: str) -> None:
        assert str(state) == words

    def test_speed_is_of_late(self) -> None:
        meter = Meter()
        assert meter.speed(0, 0.0) == 0
        assert meter.speed(1000, 10.0) == 100
        for second in range(20, 100, 10):
            meter.speed(1000, float(second))
        assert meter.speed(1000, 100.0) == 0
