"""Asking other hosts for chunks: the first that has them, and the next when it fails. Edge code.

Speaks what chunk_server.py describes.
"""

from __future__ import annotations

import http.client
import threading
import time
import typing as t
import urllib.parse
from contextlib import suppress

from ansible.module_utils.llmfleet.chunk_peer import Peer
from ansible.module_utils.llmfleet.chunk_server import LONGEST_WAIT
from ansible.module_utils.llmfleet.errors import LlmfleetError

READ = 1 << 20
CONNECT_SECONDS = 5.0
SLOWEST = 16 << 10
"""Bytes per second below which a peer counts as stalled."""

ROUNDS = 4
"""How often all peers are asked in a row without one new chunk before the transfer is given up."""

STRIKES = 2
"""Wrong chunks after which a peer is not asked any more."""

BROKEN = "the connection was closed too early"


class Chunk(t.Protocol):
    """What is known beforehand of a chunk."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def sha256(self) -> str:
        """Hexadecimal digest."""


class _PeerError(Exception):
    """A peer did not give the chunk; ``rest``: seconds for which others are asked first."""

    def __init__(self, said: str, rest: float = 0.0) -> None:
        super().__init__(said)
        self.rest = rest


class Asker:
    """Brings chunks from ``peers`` into ``folder``; how they lie there is for a subclass to say (``_keep``).

    ``timeout``: seconds without progress after which a peer counts as stalled.
    """

    def __init__(
        self,
        peers: t.Sequence[Peer],
        folder: str,
        timeout: float,
        connections: int,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self.peers = peers
        self._folder = folder
        self._timeout = timeout
        self._connections = connections
        self._sleep = sleep
        self._lock = threading.Lock()
        self._arrived = threading.Condition()
        self._workers: list[threading.Thread] = []
        self._gained = 0
        self._problem: BaseException | None = None
        self._local = threading.local()

    def _keep(self, number: int, chunk: t.Any, blocks: t.Iterable[memoryview]) -> bool:
        """Write a chunk as it arrives; return whether its digest is right. Raises OSError when it cannot be written."""
        raise NotImplementedError

    def start(self, wanted: t.Sequence[tuple[int, t.Any]]) -> None:
        """Begin to bring the chunks, given with their numbers, in this order."""
        left = iter(list(wanted))
        self._problem = None
        self._workers = [
            threading.Thread(target=self._work, args=(left,), daemon=True) for _ in range(self._connections)
        ]
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """Leave what is not here yet, and wait until nobody writes into the folder any more."""
        self._fail(LlmfleetError("the transfer was stopped"))
        for worker in self._workers:
            worker.join()

    def _fail(self, problem: BaseException) -> None:
        with self._arrived:
            self._problem = self._problem or problem
            self._arrived.notify_all()

    def _work(self, left: t.Iterator[tuple[int, t.Any]]) -> None:
        self._local.open = {}
        self._local.buffer = memoryview(bytearray(READ))
        try:
            while not self._problem:
                with self._lock:
                    number, chunk = next(left, (-1, None))
                if chunk is None:
                    return
                self._one(number, chunk)
        except BaseException as problem:  # noqa: BLE001 - handed to the thread that waits
            self._fail(problem)
        finally:
            for connection in self._local.open.values():
                connection.close()

    def _one(self, number: int, chunk: Chunk) -> None:
        rounds, gained = 0, self._gained
        while not self._problem:
            now = time.monotonic()
            usable = [peer for peer in self.peers if peer.strikes < STRIKES]
            for peer in [peer for peer in usable if peer.rests_until <= now] or usable:
                if self._ask_patiently(peer, number, chunk):
                    return
            rounds = rounds + 1 if gained == self._gained else 1
            gained = self._gained
            if rounds >= ROUNDS or not usable:
                said = "; ".join(f"{peer.name}: {peer.said or 'not asked'}" for peer in self.peers)
                raise LlmfleetError(
                    f"no host gives chunk {number} ({said}); what has arrived is kept, and the next run goes on from it"
                )
            self._sleep(0.25 * 2**rounds)

    def _ask_patiently(self, peer: Peer, number: int, chunk: Chunk) -> bool:
        """Ask a peer, again while it is still receiving the chunk itself; return whether it gave the chunk."""
        while not self._problem:
            try:
                if self._ask(peer, number, chunk):
                    return True
            except _PeerError as error:
                with peer.lock:
                    peer.said = str(error)
                    peer.rests_until = time.monotonic() + error.rest
                return False
        return False

    def _ask(self, peer: Peer, number: int, chunk: Chunk) -> bool:
        """Ask once; False when the chunk is on its way to the peer, _PeerError when another peer is to be asked."""
        wait = max(1, min(LONGEST_WAIT, int(self._timeout / 3)))
        response = self._response(peer, f"/{number}?wait={wait}", wait)
        if response.status == 200:
            if response.length != chunk.size:
                self._drop(peer)
                said = f"it has another archive, with a chunk {number} of {response.length} bytes"
                # a header may have been cut off
                raise _PeerError(said if response.length else BROKEN, rest=self._timeout)
            self._store(peer, number, chunk, response)
            return True
        here = response.headers.get("X-Bytes", "")
        with suppress(OSError, http.client.HTTPException):
            response.read()
        if response.status == 503 and here.isdigit():
            if peer.moves(int(here), self._timeout):
                return False
            raise _PeerError("it is still receiving, and got nothing new meanwhile", rest=self._timeout)
        if response.status == 404:
            raise _PeerError(f"it will not have chunk {number}")
        if response.status == 403:
            raise _PeerError("it does not take the token; its share was started anew", rest=60)
        raise _PeerError(f"it answers HTTP {response.status}", rest=self._timeout)

    def _bad(self, peer: Peer, said: str) -> _PeerError:
        with peer.lock:
            peer.strikes += 1
        self._drop(peer)
        return _PeerError(said)

    def _response(self, peer: Peer, path: str, wait: float) -> http.client.HTTPResponse:
        """Return the answer of a peer, over the connection that is open or a new one."""
        said = ""
        for fresh in (False, True):
            connection = self._local.open.get(id(peer))
            if connection is None and not fresh:
                continue  # nothing open that could have been closed meanwhile
            try:
                if connection is None:
                    connection = self._connect(peer)
                connection.sock.settimeout(wait + self._timeout)
                connection.request("GET", self._prefix(peer) + path)
                response = connection.getresponse()
                connection.sock and connection.sock.settimeout(self._timeout)
                return t.cast("http.client.HTTPResponse", response)
            except (OSError, http.client.HTTPException) as error:
                self._drop(peer)
                said = _words(error)
        raise _PeerError(said, rest=2 * self._timeout)

    def _prefix(self, peer: Peer) -> str:
        return urllib.parse.urlsplit(peer.good_url).path

    def _connect(self, peer: Peer) -> http.client.HTTPConnection:
        """Connect to the first address of a peer that answers."""
        problem: Exception = OSError("no address")
        for url in dict.fromkeys([*filter(None, [peer.good_url]), *peer.urls]):
            parts = urllib.parse.urlsplit(url)
            connection = http.client.HTTPConnection(
                parts.hostname or "", parts.port, timeout=min(CONNECT_SECONDS, self._timeout)
            )
            try:
                connection.connect()
            except OSError as error:
                problem = error
                continue
            peer.good_url = url
            self._local.open[id(peer)] = connection
            return connection
        raise problem

    def _drop(self, peer: Peer) -> None:
        connection = self._local.open.pop(id(peer), None)
        if connection:
            connection.close()

    def _store(self, peer: Peer, number: int, chunk: Chunk, response: http.client.HTTPResponse) -> None:
        """Keep a chunk when its digest is right."""
        try:
            right = self._keep(number, chunk, self._blocks(peer, response, chunk.size))
        except OSError as error:
            raise LlmfleetError(
                f"{self._folder} cannot be written: {error.strerror or error}; what has arrived is kept"
            ) from error
        if not right:
            raise self._bad(peer, f"its chunk {number} does not have the right digest")
        with self._lock:
            self._gained += 1
            peer.got += chunk.size
            peer.said = ""
        with self._arrived:
            self._arrived.notify_all()

    def _blocks(self, peer: Peer, response: http.client.HTTPResponse, size: int) -> t.Iterator[memoryview]:
        """Yield what arrives, each block valid until the next; raise _PeerError when it ends early or trickles."""
        since, count, left = time.monotonic(), 0, size
        while left:
            try:
                # not response.read1, whose every block is memory that the system has to clear first
                got = response.fp.readinto1(self._local.buffer[: min(left, READ)])
            except (OSError, http.client.HTTPException) as error:
                self._drop(peer)
                raise _PeerError(_words(error), rest=self._timeout) from None
            if not got:
                break
            yield self._local.buffer[:got]
            if self._problem:
                self._drop(peer)
                raise _PeerError("the transfer was stopped")
            left -= got
            count += got
            passed = time.monotonic() - since
            if passed > self._timeout:
                if count < SLOWEST * passed:
                    self._drop(peer)
                    raise _PeerError(f"it gives only {count / passed:.0f} bytes/s", rest=4 * self._timeout)
                since, count = time.monotonic(), 0
        response.close()  # or the connection could not be used again
        if left:
            self._drop(peer)
            raise _PeerError(BROKEN, rest=1)


def _words(error: Exception) -> str:
    if isinstance(error, (TimeoutError, OSError)) and "timed out" in str(error):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
