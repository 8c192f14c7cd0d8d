"""The files of a model while their chunks arrive from other hosts: what is here, noted for the next run and for others.

Two kinds of notes are kept: the journal that the server of this host follows (chunk_in_place.py), and those by which
Transfer goes on when the rest has to come from outside (journal.py). Edge code.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet import chunk_in_place
from ansible.module_utils.llmfleet.chunk_ask import Asker
from ansible.module_utils.llmfleet.chunk_peer import Peer
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub import journal
from ansible.module_utils.llmfleet.hub.digest import expected, words
from ansible.module_utils.llmfleet.hub.manifest import Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.model_chunks import Piece, Record, sha256_at
from ansible.module_utils.llmfleet.hub.part import JOURNALS
from ansible.module_utils.llmfleet.hub.place import Place, make_folder


class Arrival:
    """The files ``wanted`` of a model in its incoming folder; the others are whole, there or in the snapshot."""

    def __init__(self, record: Record, place: Place, manifest: Manifest, wanted: t.Sequence[RepoFile]) -> None:
        self.record = record
        self.pieces = record.pieces()
        self.folder = place.incoming(manifest.key)
        self.here: set[int] = set()
        self.bytes = 0
        """Of wanted files that are here."""
        self.changed = threading.Condition()
        self.found: dict[str, str] = {}
        """Digests of whole files."""
        self._repo = manifest.repo
        self._snapshot = place.snapshot(manifest.commit)
        self._wanted = {file.path: file for file in wanted}
        self._handles: dict[str, int] = {}
        self._journals: dict[str, journal.Journal] = {}
        self._note_path = os.path.join(self.folder, chunk_in_place.JOURNAL)
        self._note = -1

    def __enter__(self) -> Arrival:
        make_folder(os.path.join(self.folder, chunk_in_place.CHUNKS))
        make_folder(os.path.join(self.folder, JOURNALS))
        try:
            for file in self._wanted.values():
                self._open(file)
            self._read_note()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for handle in [*self._handles.values(), *([self._note] if self._note >= 0 else [])]:
            os.close(handle)
        for notes in self._journals.values():
            notes.close()
        self._handles, self._journals, self._note = {}, {}, -1

    def path(self, name: str) -> str:
        """Return where a file arrives."""
        return os.path.join(self.folder, name)

    def missing(self) -> list[tuple[int, Piece]]:
        """Return the chunks to bring, with their numbers."""
        return [(n, piece) for n, piece in enumerate(self.pieces) if n not in self.here and piece.path in self._wanted]

    # ---------------------------------------------------------------- what an earlier run left

    def _open(self, file: RepoFile) -> None:
        path = self.path(file.path)
        make_folder(os.path.dirname(path))
        with suppress(FileNotFoundError):
            if os.lstat(path).st_nlink > 1 or os.path.islink(path):
                os.unlink(path)  # a file of another snapshot: writing here would change it
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._handles[file.path] = handle
        notes = self._journals[file.path] = journal.Journal(
            os.path.join(self.folder, JOURNALS), file.path, expected(file)
        )
        notes.read()
        if os.fstat(handle).st_size != file.size or notes.size != file.size:
            os.ftruncate(handle, 0)
            os.ftruncate(handle, file.size)
            notes.begin(file.size)

    def _read_note(self) -> None:
        """Take over what is noted as here, and chunks of which Transfer had brought all bytes."""
        noted = chunk_in_place.Journal(self.folder, self.record.name)
        sound = noted.refresh()
        for number, piece in enumerate(self.pieces):
            wanted = piece.path in self._wanted
            if wanted and self._covered(piece) and (number in noted.here or self._is_right(piece)):
                self.here.add(number)
                self.bytes += piece.size
        if sound and (noted.here, noted.never) == self._noted():
            self._note = os.open(self._note_path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            os.ftruncate(self._note, sound)  # behind it there is a line that was torn
        else:
            self._write_note()

    def _noted(self) -> tuple[set[int], set[int]]:
        """Return which chunks are to be noted as here, and which as never to come."""
        sizes = {file.path: file.size for file in self.record.files if file.path not in self._wanted}
        whole = {name for name, size in sizes.items() if self._is_whole(name, size)}
        others = {number for number, piece in enumerate(self.pieces) if piece.path in sizes}
        here = {number for number in others if self.pieces[number].path in whole}
        return self.here | here, others - here

    def _is_whole(self, name: str, size: int) -> bool:
        for folder in (self.folder, self._snapshot):
            with suppress(OSError):
                return os.stat(os.path.join(folder, name)).st_size == size
        return False

    def _covered(self, piece: Piece) -> bool:
        return self._journals[piece.path].have.reach(piece.offset) >= piece.offset + piece.size

    def _is_right(self, piece: Piece) -> bool:
        return sha256_at(self.path(piece.path), piece.offset, piece.size) == piece.sha256

    def _write_note(self) -> None:
        """Write the journal anew, under another inode, so that who follows it begins at its beginning."""
        here, never = self._noted()
        lines = [chunk_in_place.MARK + self.record.name.encode()]
        lines += [*(b"%d" % number for number in sorted(here)), *(b"-%d" % number for number in sorted(never))]
        fresh = self._note_path + ".new"
        with open(fresh, "wb") as file:
            file.write(b"\n".join(lines) + b"\n")
        os.replace(fresh, self._note_path)
        if self._note >= 0:
            os.close(self._note)
        self._note = os.open(self._note_path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    # ---------------------------------------------------------------- what arrives

    def write(self, name: str, block: memoryview, offset: int) -> None:
        """Write a part of a chunk."""
        while block:
            count = os.pwrite(self._handles[name], block, offset)
            block, offset = block[count:], offset + count

    def mark(self, number: int) -> None:
        """Note that a chunk is here and right."""
        piece = self.pieces[number]
        with self.changed:
            self._journals[piece.path].add(piece.offset, piece.offset + piece.size)
            os.write(self._note, b"%d\n" % number)
            self.here.add(number)
            self.bytes += piece.size
            self.changed.notify_all()

    # ---------------------------------------------------------------- at the end

    def settle(self, pending: t.Sequence[RepoFile], last: bool) -> list[RepoFile]:
        """Note which of the files ``pending`` are whole; return those of which chunks have to come again.

        Raises LlmfleetError when a file is not what the hub told although all its chunks are what the record tells.
        """
        damaged: list[RepoFile] = []
        hopeless: list[RepoFile] = []
        for file in pending:
            name = file.path
            if not expected(file) or self.found[name] == expected(file):
                self._journals[name].add_verified(os.fstat(self._handles[name]).st_mtime_ns)
                continue
            numbers = {number for number, piece in enumerate(self.pieces) if piece.path == name}
            wrong = {number for number in numbers if not self._is_right(self.pieces[number])}
            self._forget(file, wrong or numbers)
            (damaged if wrong and not last else hopeless).append(file)
        if hopeless:
            file = hopeless[0]
            raise LlmfleetError(
                f"{file.path} of {self._repo} arrived with {words(self.found[file.path])} instead of "
                f"{words(expected(file))}, so it is not used; run model_fetch with `verify: full` on the host that "
                "shares it, then start again"
            )
        return damaged

    def _forget(self, file: RepoFile, numbers: t.Collection[int]) -> None:
        """Take back that chunks of a file are here."""
        self.bytes -= sum(self.pieces[number].size for number in self.here.intersection(numbers))
        self.here.difference_update(numbers)
        notes = self._journals[file.path]
        notes.begin(file.size)
        for number in sorted(self.here):
            piece = self.pieces[number]
            if piece.path == file.path:
                notes.add(piece.offset, piece.offset + piece.size)
        self._write_note()


class InPlaceFetcher(Asker):
    """Fetches chunks into the files that they are part of."""

    def __init__(
        self,
        peers: t.Sequence[Peer],
        folder: str,
        timeout: float,
        connections: int,
        sleep: t.Callable[[float], None],
        arrival: Arrival,
    ) -> None:
        super().__init__(peers, folder, timeout, connections, sleep)
        self._arrival = arrival

    def _keep(self, number: int, chunk: Piece, blocks: t.Iterable[memoryview]) -> bool:
        digest, offset = hashlib.sha256(), chunk.offset
        for block in blocks:
            digest.update(block)
            self._arrival.write(chunk.path, block, offset)
            offset += len(block)
        right = digest.hexdigest() == chunk.sha256
        if right:
            self._arrival.mark(number)
        return right

    def busy(self, seconds: float) -> bool:
        """Wait for the end, ``seconds`` at most; return whether there is more to do."""
        until = time.monotonic() + seconds
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        return not self._problem and any(worker.is_alive() for worker in self._workers)

    def check(self) -> None:
        """Raise what went wrong."""
        if self._problem:
            raise self._problem
