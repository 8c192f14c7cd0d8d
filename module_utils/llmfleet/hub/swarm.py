"""Receiving a model from other hosts of the fleet: chunk by chunk, in place, passed on while it arrives. Edge code.

Chunks go straight to where they belong in the folder of a model that is arriving; each is checked against the record
that the sharing host made, and each file as a whole against the digest that the hub told. What has arrived survives
the process, and is given to other hosts at once when model_share runs here.
"""

from __future__ import annotations

import threading
import time
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.chunk_peer import parse_peers
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub import model_chunks
from ansible.module_utils.llmfleet.hub.arrival import Arrival, InPlaceFetcher
from ansible.module_utils.llmfleet.hub.digest import Digest
from ansible.module_utils.llmfleet.hub.disk import room
from ansible.module_utils.llmfleet.hub.manifest import Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.model_chunks import Piece
from ansible.module_utils.llmfleet.hub.place import Place
from ansible.module_utils.llmfleet.hub.progress import Log, Meter, State

READ = 1 << 20
TICK = 1.0
ROUNDS = 2
"""How often what turns out to be damaged at the end is brought: once, and once again."""

MOST_CONNECTIONS = 4
"""More would not be faster within a network, and every chunk would be whole, and passed on, later."""

RESERVE = 256 << 20
"""Bytes that must stay free on the disk."""


class Follower:
    """Takes the digests of whole files in order behind the chunks, while the system has their content in memory."""

    def __init__(self, arrival: Arrival, wanted: t.Sequence[RepoFile]) -> None:
        self._arrival = arrival
        self._wanted = {file.path: file for file in wanted}
        self._stopped = False
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wait(self) -> None:
        """Wait until every digest is taken; raise what went wrong."""
        self._thread.join()
        if self._problem:
            raise self._problem

    def stop(self) -> None:
        """End as soon as possible."""
        with self._arrival.changed:
            self._stopped = True
            self._arrival.changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            digests = {file.path: Digest(file, file.size) for file in self._wanted.values()}
            buffer = memoryview(bytearray(READ))
            for number, piece in enumerate(self._arrival.pieces):
                if piece.path in digests:
                    if not self._is_here(number):
                        return
                    self._take(piece, digests[piece.path], buffer)
            self._arrival.found = {path: digest.found for path, digest in digests.items()}
        except BaseException as problem:  # noqa: BLE001 - handed to the thread that waits
            self._problem = problem

    def _is_here(self, number: int) -> bool:
        with self._arrival.changed:
            while number not in self._arrival.here and not self._stopped:
                self._arrival.changed.wait()
        return not self._stopped

    def _take(self, piece: Piece, digest: Digest, buffer: memoryview) -> None:
        with open(self._arrival.path(piece.path), "rb", buffering=0) as file:
            file.seek(piece.offset)
            left = piece.size
            while left > 0 and not self._stopped:
                count = file.readinto(buffer[: min(left, len(buffer))])
                if not count:
                    return
                digest.update(buffer[:count])
                left -= count


class Teller:
    """Tells how far it has come."""

    def __init__(
        self,
        arrival: Arrival,
        wanted: t.Sequence[RepoFile],
        progress: t.Callable[[State], None] | None,
        log: Log,
        interval: float,
    ) -> None:
        self._arrival = arrival
        self._size = sum(file.size for file in wanted)
        self._wanted = wanted
        self._progress = progress
        self._log = log
        self._interval = interval
        self._meter = Meter()
        self._kept = arrival.bytes
        self._next = time.monotonic() + interval

    def tell(self, last: bool = False) -> None:
        """Tell it when it is time, or at the end."""
        now = time.monotonic()
        speed = self._meter.speed(self._arrival.bytes - self._kept, now)
        if now < self._next and not last:
            return
        self._next = now + self._interval
        under_way = list(dict.fromkeys(piece.path for _, piece in self._arrival.missing()))
        done = len(self._wanted) - len(under_way)
        name = under_way[0] if under_way else ""
        state = State(len(self._wanted), done, self._size, self._arrival.bytes, speed, name)
        self._log.line(str(state))
        if self._progress:
            self._progress(state)


@dataclass
class Stats:
    """What receiving did: bytes fetched and kept from earlier runs, and how many each host (address:port) gave."""

    fetched: int = 0
    kept: int = 0
    seconds: float = 0.0
    peers: dict[str, int] = field(default_factory=dict)


def receive(
    manifest: Manifest,
    archive: t.Mapping[str, t.Any],
    peers: t.Sequence[t.Sequence[str]],
    place: Place,
    *,
    paths: t.Collection[str] | None = None,
    connections: int = MOST_CONNECTIONS,
    timeout: float = 15.0,
    progress: t.Callable[[State], None] | None = None,
    log: str = "",
    interval: float = 5.0,
    sleep: t.Callable[[float], None] = time.sleep,
) -> Stats:
    """Bring the files of ``manifest`` whole and verified into ``place.incoming(manifest.key)``, for store.publish.

    ``archive``: what model_share returned under that name on the host that has the model; ``peers``: for each host to
    be asked, in order, the urls that model_share returned there; ``paths``: only these files, the others being whole in
    the incoming folder or the snapshot; ``connections``: at the same time, MOST_CONNECTIONS at most; ``progress``,
    ``log`` and ``interval`` as Transfer has them.

    The caller holds the repository's lock. Raises BadInput when ``archive`` or ``peers`` are none or of another model,
    LlmfleetError when no host gives the rest, the disk is full or a file has not the digest that the hub told. What
    has arrived is kept in all these cases, and noted so that Transfer brings only the rest from outside.
    """
    begun = time.monotonic()
    record = model_chunks.record_from(archive, manifest)
    asked = parse_peers(peers)
    folder = place.incoming(manifest.key)
    wanted = [file for file in manifest.files if paths is None or file.path in paths]
    stats = Stats()
    try:
        with Arrival(record, place, manifest, wanted) as arrival:
            stats.kept = arrival.bytes
            room(folder, sum(piece.size for _, piece in arrival.missing()), RESERVE)
            pending = wanted
            teller = Teller(arrival, wanted, progress, Log(log), interval)
            for left in reversed(range(ROUNDS)):
                if not pending:
                    break
                fetcher = InPlaceFetcher(asked, folder, timeout, min(connections, MOST_CONNECTIONS), sleep, arrival)
                _bring(fetcher, arrival, pending, teller)
                pending = arrival.settle(pending, last=not left)
    except OSError as error:
        raise LlmfleetError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}; what has arrived is kept"
        ) from error
    finally:
        stats.fetched = sum(peer.got for peer in asked)
        stats.seconds = time.monotonic() - begun
    stats.peers = {peer.name: peer.got for peer in asked if peer.got}
    return stats


def _bring(fetcher: InPlaceFetcher, arrival: Arrival, pending: t.Sequence[RepoFile], teller: Teller) -> None:
    """Fetch what is missing, and take the digests of whole files behind it."""
    follower = Follower(arrival, pending)
    missing: list[tuple[int, Piece]] = arrival.missing()
    follower.start()
    try:
        fetcher.start(missing)
        while fetcher.busy(TICK):
            teller.tell()
        fetcher.check()
        follower.wait()
        teller.tell(last=True)
    finally:
        follower.stop()
        fetcher.stop()
