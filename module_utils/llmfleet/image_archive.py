"""Writing an archive of images: ``docker save``, cut into chunks, compressed by several threads. Edge code."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import typing as t
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet import image_chunks
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import read_text
from ansible.module_utils.llmfleet.image_chunks import Archive, Chunk, Cutter, compress
from ansible.module_utils.llmfleet.image_engine import ImageEngine, check_room
from ansible.module_utils.llmfleet.image_identity import Image, droppable_layers

SIDECAR = ".json"
CHECKSUM = ".sha256"
PARTIAL = ".part"
MOST_COMPRESSORS = 8
FORMAT = 1
"""Raised when archives or the notes about them change in a way that those there have to be written again."""


@dataclass(frozen=True)
class Wish:
    """How an archive is to be written: chunks of ``chunk`` bytes before compression, zlib's ``level``."""

    images: tuple[Image, ...]
    without: tuple[str, ...]
    level: int
    chunk: int

    def key(self) -> dict[str, t.Any]:
        """Return what makes an archive that is there the one asked for."""
        images = [[image.reference, image.id] for image in self.images]
        how = {"format": FORMAT, "level": self.level, "chunk": self.chunk}
        return {"images": images, "without": list(self.without), **how}


def read_sidecar(path: str) -> dict[str, t.Any]:
    """Return what was noted about the archive at ``path``, {} without such notes or when the file is not that one."""
    try:
        with open(path + SIDECAR, encoding="utf-8") as file:
            noted = json.load(file)
        found = os.stat(path)
        unchanged = noted["mtime_ns"] == found.st_mtime_ns and noted["archive"]["bytes"] == found.st_size
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return noted if unchanged else {}


def first_word(path: str) -> str:
    """Return what a file begins with, such as the digest in one of sha256sum's; "" when there is none."""
    return next(iter(read_text(path).split()), "")


def is_ours(path: str) -> bool:
    """Whether the file at ``path`` was written here, or nothing is there."""
    return not os.path.lexists(path) or os.path.exists(path + SIDECAR)


def wish(engine: ImageEngine, params: t.Mapping[str, t.Any]) -> Wish:
    """Return what the module's arguments ask for."""
    images = engine.images(params["images"])
    # an archive in which containerd's store packs layers as they came cannot be told apart by their digests
    without = tuple(sorted(droppable_layers(images, params["without_layers"])))
    without = () if without and engine.containerd_store else without
    return Wish(tuple(images), without, params["level"], params["chunk_mib"] << 20)


def noted_names(path: str) -> list[str]:
    """Return the names of the images in an archive that is there."""
    return [str(row["reference"]) for row in (read_sidecar(path).get("archive") or {}).get("images", ())]


class Writer:
    """Writes one archive to ``path``; notes about it go next to it, so that it is not written a second time."""

    def __init__(self, engine: ImageEngine, path: str, wish: Wish, checksum: bool) -> None:
        self.wish = wish
        self._engine = engine
        self._path = path
        self._checksum = checksum

    def present(self) -> Archive | None:
        """Return the archive when it is there, whole and of the wanted images."""
        noted = read_sidecar(self._path)
        if noted.get("key") != self.wish.key():
            return None
        if self._checksum and first_word(self._path + CHECKSUM) != noted["archive"]["sha256"]:
            return None
        return image_chunks.from_data({**noted["archive"], "path": self._path})

    def planned(self) -> dict[str, t.Any]:
        """Return what can be said of an archive that is not there yet."""
        without = list(self.wish.without)
        images = [image.as_data() for image in self.wish.images]
        nothing = {"bytes": 0, "sha256": "", "chunks": [], "entries": {}}
        return {"path": self._path, "images": images, "without_layers": without, **nothing}

    def write(self) -> Archive:
        """Write the archive."""
        if not is_ours(self._path):
            raise BadInput(
                f"{self._path} was not written by this module and is kept; remove it, or choose another path"
            )
        folder = os.path.dirname(self._path)
        if not os.path.isdir(folder):
            os.makedirs(folder)
            # whatever the umask is: a user who logs in fetches the archive from here
            os.chmod(folder, 0o755)  # noqa: S103
        with open(self._path + PARTIAL, "a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LlmfleetError(f"another run is writing {self._path}; wait for it and start again") from None
            try:
                file.truncate(0)
                # compressed it is smaller, by how much is not known before
                check_room([(folder, self._engine.size(self.wish.images), "the archive")])
                archive = self._fill(file)
                self._finish(file, archive)
            except BaseException as error:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path + PARTIAL)
                if isinstance(error, OSError):
                    raise LlmfleetError(
                        f"{self._path} cannot be written: {error.strerror or error}; what was begun is removed"
                    ) from error
                raise
        return archive

    def _fill(self, file: t.BinaryIO) -> Archive:
        wish = self.wish
        references = [image.reference for image in wish.images]
        layers = {layer for image in wish.images for layer in image.layers}
        sink = _Sink(file, layers, droppable_layers(wish.images, wish.without))
        with _Compressors(wish.level) as compressors, self._engine.save(references) as stream:
            cutter = Cutter(wish.chunk)
            for block in stream.blocks():
                for cut in cutter.feed(block):
                    sink.take(compressors.give(cut))
            for cut in cutter.finish():
                sink.take(compressors.give(cut))
            sink.take(compressors.give(None))
        if {image.reference: image.id for image in self._engine.images(references)} != {
            image.reference: image.id for image in wish.images
        }:
            raise LlmfleetError(f"{', '.join(references)} changed while it was written; run again")
        return sink.archive(self._path, wish)

    def _finish(self, file: t.BinaryIO, archive: Archive) -> None:
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
        notes = {"key": self.wish.key(), "mtime_ns": os.fstat(file.fileno()).st_mtime_ns, "archive": archive.as_data()}
        # the notes first: a file without notes counts as somebody else's
        _replace(self._path + SIDECAR, json.dumps(notes) + "\n")
        os.replace(self._path + PARTIAL, self._path)
        if self._checksum:
            _replace(self._path + CHECKSUM, f"{archive.sha256}  {os.path.basename(self._path)}\n")


class _Compressors:
    """Compresses cuts in threads (zlib lets them run side by side) and gives them back in order."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._count = max(1, min(len(os.sched_getaffinity(0)), MOST_COMPRESSORS))
        self._waiting: deque[tuple[image_chunks.Cut, Future[bytes] | None]] = deque()

    def __enter__(self) -> _Compressors:
        self._pool = ThreadPoolExecutor(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def give(self, cut: image_chunks.Cut | None) -> t.Iterator[tuple[image_chunks.Cut, bytes]]:
        """Take a cut and yield what is ready; with None all that is left."""
        if cut is not None:
            job = self._pool.submit(compress, cut.data, self._level) if cut.data else None
            self._waiting.append((cut, job))
        # twice as many as processors: they never wait, and memory stays bounded
        while self._waiting and (cut is None or len(self._waiting) > 2 * self._count):
            done, job = self._waiting.popleft()
            yield done._replace(data=b""), job.result() if job else b""


@dataclass
class _Row:
    entry: int
    size: int
    sha256: str
    unpacked: int


@dataclass
class _Sink:
    """The file, its digest and its chunks; a layer that is not wanted is taken back when its end tells which it was."""

    file: t.BinaryIO
    layers: t.Collection[str]
    unwanted: t.Collection[str]
    rows: list[_Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _layers: dict[int, str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _begin: tuple[int, int, t.Any] = (0, 0, None)
    _digest: t.Any = field(default_factory=hashlib.sha256)

    def take(self, ready: t.Iterable[tuple[image_chunks.Cut, bytes]]) -> None:
        """Write what is compressed."""
        for cut, data in ready:
            if cut.digest:
                self._end(cut)
            elif data:
                if not self.rows or self.rows[-1].entry != cut.entry:
                    self._begin = (len(self.rows), self.file.tell(), self._digest.copy())
                self.file.write(data)
                self._digest.update(data)
                unpacked = int.from_bytes(data[-4:], "little")  # a gzip member ends with it
                self.rows.append(_Row(cut.entry, len(data), hashlib.sha256(data).hexdigest(), unpacked))

    def _end(self, cut: image_chunks.Cut) -> None:
        if cut.digest not in self.unwanted:
            if cut.digest in self.layers:
                self._layers[cut.entry] = cut.digest
                # the same content twice under two names: neither of them says enough
                self._names[cut.digest] = cut.name if self._names.get(cut.digest, cut.name) == cut.name else ""
            return
        count, place, digest = self._begin
        del self.rows[count:]
        self.file.seek(place)
        self.file.truncate()
        self._digest = digest
        self.left_out.append(cut.digest)

    def archive(self, path: str, wish: Wish) -> Archive:
        """Return what was written."""
        chunks = tuple(Chunk(row.size, row.sha256, row.unpacked, self._layers.get(row.entry, "")) for row in self.rows)
        names = tuple((layer, name) for layer, name in sorted(self._names.items()) if name)
        return Archive(path, self._digest.hexdigest(), chunks, wish.images, tuple(sorted(set(self.left_out))), names)


def _replace(path: str, text: str) -> None:
    """Write a small file at once or not at all."""
    with open(path + PARTIAL, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path + PARTIAL, 0o644)
    os.replace(path + PARTIAL, path)


def remove(path: str, check_mode: bool) -> list[str]:
    """Remove an archive written here and what lies next to it; return what there was to remove."""
    if not is_ours(path):
        raise BadInput(f"{path} was not written by this module and is kept; remove it yourself, or correct `path`")
    there = [name for name in (path, path + CHECKSUM, path + SIDECAR, path + PARTIAL) if os.path.lexists(name)]
    for name in () if check_mode else there:
        os.unlink(name)
    return there
