"""Headers of GGUF files that a server has: only the beginning of the file is transferred."""

from __future__ import annotations

import http.client
import time
import typing as t

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gguf.header import GgufHeader, check_start, read_header
from ansible.module_utils.llmfleet.gguf.parts import about_part, join, part_names
from ansible.module_utils.llmfleet.hub.reply import UNKNOWN, Broken, Reply, read_some

WINDOW = 1 << 24
"""Bytes asked for at once. Nearly every header ends within them, and the transfer ends where the header does."""

TIME_LIMIT = 300.0
"""Seconds for one header, also from a server that sends without end a byte now and then."""

_STEP = 1 << 16
_ATTEMPTS = 4
_LONGEST_PAUSE = 30.0
_NO_END = 1 << 62

OpenRange = t.Callable[[int, int], Reply]
"""Asks a server for the bytes from the first number up to (without) the second, as reply.Opener does for one file.

Raises Broken or OSError where another attempt may help, LlmfleetError where it would not.
"""


class RemoteFile:
    """Reads a file on a server front to back, as `read_header` does, in as few requests as can be.

    A broken transfer is taken up again where it broke. A server without ranges sends the file from its beginning, and
    what is not wanted of it is read and thrown away.
    """

    def __init__(
        self,
        open_range: OpenRange,
        *,
        time_limit: float = TIME_LIMIT,
        clock: t.Callable[[], float] = time.monotonic,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self._open_range = open_range
        self._time_limit = time_limit
        self._clock = clock
        self._sleep = sleep
        self._end = clock() + time_limit
        self._reply: Reply | None = None
        self._etag = ""
        self._size: int | None = None
        # where the open transfer is and where it ends; what is read next
        self._place = self._window_end = self._wanted = 0
        self._buffer = memoryview(bytearray(_STEP))
        self.transferred = 0
        """Bytes read from the server so far."""

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes of the whole file, UNKNOWN when the server does not say; asks the server unless it was read already."""
        if self._size is None:
            self._retry(self._connect)
        return t.cast("int", self._size)

    def seek(self, place: int) -> int:
        """Read on at ``place``."""
        self._wanted = place
        return place

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer only at the end of the file."""
        data = bytearray()
        while len(data) < count:
            got = self._retry(self._read_some, count - len(data))
            if not got:
                break
            data += got
        return bytes(data)

    def close(self) -> None:
        """End the transfer."""
        if self._reply is not None:
            self._reply.stream.close()
            self._reply = None

    def _retry(self, step: t.Callable[..., t.Any], *arguments: t.Any) -> t.Any:
        failures = 0
        while True:
            try:
                return step(*arguments)
            except (Broken, OSError, http.client.HTTPException) as error:
                self.close()
                failures += 1
                said = str(error) or type(error).__name__
                pause = getattr(error, "retry_after", 0.0) or 0.25 * 2**failures
            if failures == _ATTEMPTS:
                raise LlmfleetError(
                    f"the file's header cannot be read from the server: {said}; check the network, or choose another "
                    "source"
                )
            self._sleep(min(pause, _LONGEST_PAUSE))
            self._check_time()

    def _check_time(self) -> None:
        if self._clock() > self._end:
            raise LlmfleetError(
                f"the file's header did not arrive within {self._time_limit:g} seconds; check the network, or choose "
                "another source"
            )

    def _read_some(self, limit: int) -> bytes:
        if self._size is not None and self._size != UNKNOWN and self._wanted >= self._size:
            return b""
        if self._reply is None or not self._place <= self._wanted < self._window_end:
            self._connect()
        while self._place < self._wanted:
            if not self._receive(self._wanted - self._place):
                return b""
        count = self._receive(min(limit, self._window_end - self._place))
        self._wanted = self._place
        return bytes(self._buffer[:count])

    def _receive(self, limit: int) -> int:
        """Read up to ``limit`` bytes into the buffer and return how many came; 0 is the end of the file."""
        assert self._reply is not None  # noqa: S101 -- for the type checker; _read_some connects
        count = read_some(self._reply.stream, self._buffer[: max(0, min(_STEP, limit))])
        self._check_time()
        if not count and self._place < self._window_end < _NO_END:
            raise Broken("the connection was closed too early")
        self._place += count
        self.transferred += count
        return count

    def _connect(self) -> None:
        """Ask for the bytes from the wanted place on."""
        self.close()
        self._check_time()
        end = self._wanted + WINDOW
        if self._size is not None and self._size != UNKNOWN:
            end = min(end, self._size)
        reply = self._reply = self._open_range(self._wanted, end)
        if self._size not in (None, reply.total) or (self._etag and reply.etag and self._etag != reply.etag):
            raise LlmfleetError("the file on the server changed while its header was read; start again")
        # nothing can be asked of an empty file
        empty = reply.status == 416 and not self._wanted
        self._size = 0 if empty else reply.total
        self._etag = reply.etag
        file_end = _NO_END if self._size == UNKNOWN else self._size
        self._place = reply.start if reply.status == 206 else 0
        if self._place > self._wanted or (reply.status == 416 and self._size):
            raise Broken("the server sent another part of the file than was asked for")
        self._window_end = min(file_end, end) if reply.status == 206 else file_end


def read_remote(open_range: OpenRange, *, time_limit: float = TIME_LIMIT) -> GgufHeader:
    """Return the header of the GGUF file that ``open_range`` reads; some MB of it are transferred.

    ``time_limit`` is in seconds. Raises BadInput with a sentence about "the file" when an engine could not load it,
    LlmfleetError when the server does not deliver.
    """
    with RemoteFile(open_range, time_limit=time_limit) as file:
        if file.size == UNKNOWN:
            # most likely no model at all
            start = file.read(64)
            check_start(start, len(start))
            raise BadInput("the server does not say how large the file is; use another source")
        return read_header(t.cast("t.BinaryIO", file), file.size)


def read_remote_model(
    open_file: t.Callable[[str], OpenRange], first: str, *, time_limit: float = TIME_LIMIT
) -> GgufHeader:
    """Return the header of the model whose first (or only) file is ``first``, with the tensors of all its files.

    ``open_file`` returns what reads the file with a given path or address. ``time_limit`` is in seconds, for each file.
    Raises as `read_remote` does.
    """
    header = read_remote(open_file(first), time_limit=time_limit)
    if header.split_number:
        return join([header])
    names = part_names(first, header.split_count)
    headers = [header]
    for name in names[1:]:
        try:
            headers.append(read_remote(open_file(name), time_limit=time_limit))
        except BadInput as error:
            raise about_part(error, name, names) from None
    return join(headers)
