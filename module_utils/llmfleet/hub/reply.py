"""What a place that files come from says, and how it says no: the edge between a transfer and its sources."""

from __future__ import annotations

import http.client
import re
import time
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub.manifest import RepoFile

UNKNOWN = -1
"""Size of a file, or end of a range, that nobody told."""

READ = 1 << 20


class TransferError(LlmfleetError):
    """A file could not be brought."""


class Broken(Exception):
    """An attempt failed in a way that another one may mend; ``str()`` is what happened, without a full stop.

    ``retry_after``: seconds after which the source wants to be asked again, as its answer said (0: it did not say).
    ``slow``: nothing, or next to nothing, came for the time limit.
    """

    def __init__(self, said: str, retry_after: float = 0.0, slow: bool = False) -> None:
        super().__init__(said)
        self.retry_after = retry_after
        self.slow = slow


class Stream(t.Protocol):
    """The bytes of an answer: an ``http.client.HTTPResponse`` or any binary file that is not read beyond its end.

    ``readinto`` gives 0 at the end. A socket's time limit must be set by who opened it: it is what notices a stall.
    """

    def readinto(self, buffer: memoryview) -> int | None: ...

    def close(self) -> None: ...


class Headers(t.Protocol):
    """Headers of an answer: those of ``http.client``, or a mapping."""

    def get(self, name: str, default: t.Any = ..., /) -> t.Any:
        """Return a header's value."""


@dataclass
class Reply:
    """An answer with bytes of one file."""

    status: int
    """206: what was asked for; 200: the file from its beginning, whatever was asked; 416: no such range."""
    headers: Headers
    """Looked at: Content-Type, ETag, Accept-Ranges. Names are found as they are spelt here."""
    total: int
    """Size of the whole file in bytes, UNKNOWN when the answer does not say."""
    stream: Stream
    start: int = 0
    """Where in the file the bytes begin, for status 206."""
    source: str = ""
    """Name of where it comes from, for messages."""
    etag: str = field(init=False)
    """The strong validator, "" when there is none."""

    def __post_init__(self) -> None:
        etag = self.headers.get("ETag", "") or ""
        self.etag = "" if etag.startswith("W/") else etag


class Opener(t.Protocol):
    """Opens a range of a file wherever it is; called by several threads at once.

    Beside being called it may have a method ``next_source(file, said) -> bool``: called when the bytes of ``file`` were
    wrong or the attempts are used up, it turns to another source for this file and returns True, or False when there
    is none left (or no such method: the same).
    """

    def __call__(self, file: RepoFile, start: int, end: int, /) -> Reply:
        """Return an answer that begins at ``start`` (or at 0 with status 200).

        ``end`` is exclusive; UNKNOWN means as far as it goes (asked only with ``start`` 0, of a file whose size is
        UNKNOWN). With ``start`` 0 and ``end`` the file's size no Range header is needed.

        Raises Broken where it is worth another attempt (the connection broke, 408, 429, 5xx: with ``retry_after``), and
        LlmfleetError where it is not (401, 403, 404, a certificate: one sentence). An expired link to a CDN is the
        opener's own matter: it resolves once more before it says anything.
        """


def reply_of(response: t.Any, source: str = "") -> Reply:
    """Return the Reply of an ``http.client``/``urllib`` response with status 200, 206 or 416.

    Raises Broken when a 206 does not say where it begins.
    """
    headers = response.headers
    found = re.match(r"bytes (?:(\d{1,19})-\d{1,19}|\*)/(\d{1,19}|\*)$", headers.get("Content-Range", "") or "")
    length = headers.get("Content-Length", "") or ""
    total = UNKNOWN
    if found and response.status in (206, 416):
        total = int(found.group(2)) if found.group(2) != "*" else UNKNOWN
    elif response.status == 200 and re.fullmatch(r"\d{1,19}", length):
        total = int(length)
    if response.status == 206 and not (found and found.group(1)):
        response.close()
        raise Broken("the server sent a part of the file and did not say which")
    start = int(found.group(1)) if found and found.group(1) else 0
    return Reply(response.status, headers, total, response, start, source)


def file_reply(stream: Stream, size: int, start: int, source: str = "") -> Reply:
    """Return the Reply of a local file that is open at ``start``."""
    return Reply(206, {}, size, stream, start, source)


def read_all(stream: t.Any, most: int, seconds: float) -> bytes:
    """Return what ``stream`` gives to its end, or the first ``most`` + 1 bytes; raise Broken when it takes longer."""
    data, buffer = bytearray(), memoryview(bytearray(1 << 16))
    until = time.monotonic() + seconds
    while len(data) <= most:
        count = read_some(stream, buffer)
        if not count:
            break
        data += buffer[:count]
        if time.monotonic() > until:
            raise Broken(f"after {seconds:g} seconds only {len(data)} bytes had come")
    return bytes(data)


def read_some(stream: t.Any, buffer: memoryview) -> int:
    """Read what has arrived, at least one byte unless it is the end, into ``buffer``; return how many bytes.

    ``readinto`` of http.client waits until the buffer is full, which would hide a trickle for long.
    """
    if isinstance(stream, http.client.HTTPResponse):
        # `length`: None without Content-Length, and with chunks, which only its own methods take apart
        if stream.length is not None and stream.fp is not None:
            wanted = buffer[: stream.length]
            count: int = stream.fp.readinto1(wanted) if len(wanted) else 0
            stream.length -= count
            return count
        block = stream.read1(len(buffer))
        buffer[: len(block)] = block
        return len(block)
    return t.cast("int", stream.readinto(buffer) or 0)
