"""GGUF headers over a network: little is transferred, and a bad server ends in a sentence."""

from __future__ import annotations

import io
import struct
import typing as t

import pytest
from ansible.module_utils.llmfleet import gguf
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gguf.remote import WINDOW, RemoteFile, read_remote, read_remote_model
from ansible.module_utils.llmfleet.hub.reply import UNKNOWN, Broken, Reply
from gguf_bytes import ARCHITECTURE, header, number, padded, part, tensor, text, tiny, words
from hypothesis import given, settings
from hypothesis import strategies as st

TINY = tiny()
VOCABULARY = words("tokenizer.ggml.tokens", *(f"word{number}" for number in range(200_000)))
LARGE = 40_000_000_000
LARGE_START = padded(header(ARCHITECTURE, VOCABULARY, tensors=(tensor((LARGE // 4, 1), 0),)))


class Body:
    """Bytes of an answer: ``data`` from ``start`` on, then zeros up to ``end``."""

    def __init__(self, data: bytes, start: int, end: int, step: int = 1 << 30) -> None:
        self._data = data
        self._place = start
        self._end = end
        self._step = step
        self.closed = False

    def readinto(self, buffer: memoryview) -> int:
        assert not self.closed
        count = min(len(buffer), self._end - self._place, self._step)
        piece = self._data[self._place : self._place + count]
        buffer[:count] = piece + bytes(count - len(piece))
        self._place += count
        return count

    def close(self) -> None:
        self.closed = True


class Server:
    """Answers as servers do; ``answers`` replace the first ones: an error to raise, or bytes after which one ends."""

    def __init__(
        self,
        data: bytes,
        size: int = -1,
        *,
        answers: t.Sequence[t.Any] = (),
        ranges: bool = True,
        tells_size: bool = True,
        step: int = 1 << 30,
    ) -> None:
        self._data = data
        self._size = len(data) if size < 0 else size
        self._answers = list(answers)
        self._ranges = ranges
        self._tells_size = tells_size
        self._step = step
        self.asked: list[tuple[int, int]] = []
        self.bodies: list[Body] = []

    def __call__(self, start: int, end: int) -> Reply:
        self.asked.append((start, end))
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        if not self._ranges:
            start, end = 0, self._size
        end = min(end, self._size)
        if isinstance(answer, int):
            end = min(end, start + answer)
        body = Body(self._data, start, end, self._step)
        self.bodies.append(body)
        total = self._size if self._tells_size else UNKNOWN
        return Reply(206 if self._ranges else 200, {}, total, body, start if self._ranges else 0)


def remote(server: Server, **arguments: t.Any) -> RemoteFile:
    return RemoteFile(server, sleep=lambda _: None, **arguments)


def local(data: bytes) -> gguf.GgufHeader:
    return gguf.read_header(io.BytesIO(data), len(data))


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "none"])
@pytest.mark.parametrize("step", [1 << 30, 1000])
def test_reads_what_a_local_file_has(ranges: bool, step: int) -> None:
    server = Server(TINY, ranges=ranges, step=step)
    assert read_remote(server) == local(TINY)
    assert len(server.asked) == 1
    assert all(body.closed for body in server.bodies)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "none"])
def test_of_a_large_file_a_few_megabytes_are_read_in_one_request(ranges: bool) -> None:
    server = Server(LARGE_START, len(LARGE_START) + LARGE, ranges=ranges)
    with remote(server) as file:
        found = gguf.read_header(t.cast(t.BinaryIO, file), file.size)
        assert file.transferred < len(LARGE_START) + (2 << 20)
    assert found.needed_size == len(LARGE_START) + LARGE
    assert found.array_lengths["tokenizer.ggml.tokens"] == 200_000
    assert server.asked == [(0, WINDOW)]


def test_a_header_beyond_the_first_window() -> None:
    many = [words(f"tokenizer.ggml.list{place}", *["x" * 4000] * 1000) for place in range(5)]
    data = padded(header(ARCHITECTURE, *many, tensors=(tensor((8,), 0),))) + bytes(32)
    assert len(data) > WINDOW
    server = Server(data)
    pauses: list[float] = []
    with RemoteFile(server, sleep=pauses.append) as file:
        assert gguf.read_header(t.cast(t.BinaryIO, file), file.size) == local(data)
    assert server.asked == [(0, WINDOW), (WINDOW, len(data))]
    assert not pauses, "the end of a window is no failure"


def test_a_cut_off_file_is_noticed_by_its_size() -> None:
    with pytest.raises(BadInput, match=f"cut off: its tensors need {len(TINY)} bytes and it has {len(TINY) - 9}"):
        read_remote(Server(TINY[:-9]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30_000), max_size=8), st.booleans())
def test_a_transfer_that_breaks_goes_on_where_it_broke(cuts: list[int], ranges: bool) -> None:
    server = Server(LARGE_START[:120_000] + TINY, answers=cuts, ranges=ranges)
    file = remote(server)
    wanted = LARGE_START[:100_000]
    if ranges:
        assert file.read(100_000) == wanted
        assert file.transferred <= 120_000 + (1 << 16) * len(server.asked)
        assert server.asked[0][0] == 0
        assert [start for start, _ in server.asked] == sorted({start for start, _ in server.asked})
    else:
        # the beginning comes again and again, and each time is as good as the last
        failures = len([cut for cut in cuts if cut < 100_000])
        if failures < 4:
            assert file.read(100_000) == wanted
    file.close()


@pytest.mark.parametrize(
    "answer",
    [Broken("the server answers HTTP 503 Busy", 1.0), ConnectionResetError("reset"), TimeoutError("slow")],
    ids=["busy", "reset", "timeout"],
)
def test_an_error_that_passes_is_waited_for_and_one_that_stays_is_said(answer: Exception) -> None:
    pauses: list[float] = []
    server = Server(TINY, answers=[answer] * 3)
    with RemoteFile(server, sleep=pauses.append) as file:
        assert file.size == len(TINY)
    assert len(pauses) == 3
    if isinstance(answer, Broken):
        assert pauses == [1.0, 1.0, 1.0]
    with pytest.raises(LlmfleetError, match=f"cannot be read from the server: {answer}"):
        _ = remote(Server(TINY, answers=[answer] * 4)).size


def test_a_refusal_is_not_asked_again() -> None:
    server = Server(TINY, answers=[LlmfleetError("the server answers HTTP 404")] * 2)
    with pytest.raises(LlmfleetError, match="HTTP 404"):
        read_remote(server)
    assert len(server.asked) == 1


def test_a_server_that_sends_a_byte_now_and_then_is_given_up() -> None:
    seconds = iter(range(10_000))
    server = Server(TINY, step=1)
    file = remote(server, time_limit=100, clock=lambda: next(seconds))
    with pytest.raises(LlmfleetError, match="did not arrive within 100 seconds"):
        gguf.read_header(t.cast(t.BinaryIO, file), file.size)
    assert file.transferred < 100


def test_a_file_that_changes_meanwhile_is_noticed() -> None:
    replies = [
        Reply(206, {"ETag": '"a"'}, 100_000_000, Body(TINY, 0, 1000), 0),
        Reply(206, {"ETag": '"b"'}, 100_000_000, Body(TINY, 1000, 2000), 1000),
    ]
    file = RemoteFile(lambda *_: replies.pop(0), sleep=lambda _: None)
    with pytest.raises(LlmfleetError, match="changed while its header was read"):
        file.read(5000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><p>Log in" + bytes(100), "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n" + bytes(99), "git LFS pointer"),
        (TINY, "does not say how large the file is"),
        (b"", "the file is empty"),
    ],
    ids=["page", "pointer", "model", "nothing"],
)
def test_without_a_size_the_beginning_says_what_it_is(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_remote(Server(data, ranges=False, tells_size=False))


def test_an_empty_file_has_no_range() -> None:
    with pytest.raises(BadInput, match="the file is empty"):
        read_remote(lambda *_: Reply(416, {}, UNKNOWN, Body(b"", 0, 0)))


def test_a_hostile_server_costs_little() -> None:
    """Texts without end: reading stops at the longest header there can be."""
    texts = (struct.pack("<Q", 1 << 24) + bytes(1 << 24)) * 9
    file = remote(Server(header(text("l") + struct.pack("<IIQ", 9, 8, 1000)) + texts, 1 << 50))
    with pytest.raises(BadInput, match=f"longer than {1 << 27} bytes"):
        gguf.read_header(t.cast(t.BinaryIO, file), file.size)
    assert file.transferred <= 1 << 27


def test_all_parts_of_a_split_model_are_read() -> None:
    parts = {
        f"/q/m-0000{place + 1}-of-00003.gguf": part(place, 3, *names)
        for place, names in enumerate((("a",), ("b", "c"), ("d",)))
    }
    asked = []

    def open_file(path: str) -> t.Callable[[int, int], Reply]:
        asked.append(path)
        return Server(parts[path])

    found = read_remote_model(open_file, "/q/m-00001-of-00003.gguf")
    assert asked == list(parts)
    assert [one.name for one in found.tensors] == ["a", "b", "c", "d"]

    with pytest.raises(BadInput, match="part 2 of a model in 3 files"):
        read_remote_model(open_file, "/q/m-00002-of-00003.gguf")
    parts["/q/m-00002-of-00003.gguf"] = b"<html>"
    with pytest.raises(BadInput, match=r"part m-00002-of-00003\.gguf: the file is a web page"):
        read_remote_model(open_file, "/q/m-00001-of-00003.gguf")


def test_one_file_is_one_part() -> None:
    data = padded(header(ARCHITECTURE, number("llama.block_count", 3), tensors=(tensor((8,), 0),))) + bytes(32)
    assert read_remote_model(lambda _: Server(data), "/m.gguf").block_count == 3
