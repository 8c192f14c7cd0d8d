"""An archive of images as a list of chunks that can be fetched, checked and left out one by one.

Each chunk is a gzip member of its own (RFC 1952 section 2.2: members follow one another), so that several processors
compress at once, and the file as a whole is a plain .tar.gz that ``docker load`` reads. A chunk never mixes a layer
with anything else: without the chunks of a layer the rest is still a tar archive.
"""

from __future__ import annotations

import re
import typing as t
import zlib
from dataclasses import dataclass

from ansible.module_utils.llmfleet import image_identity
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_identity import DIGEST, Image
from ansible.module_utils.llmfleet.tar_walk import Event, TarWalk

SEPARATE = 1 << 20
"""Bytes from which on an entry gets chunks of its own; below that nothing would be gained by leaving it out."""

MOST_CHUNKS = 1_000_000
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Chunk:
    """A piece of the archive: its size in bytes as it is and ``unpacked``, and the layer that it is part of or ""."""

    size: int
    sha256: str
    unpacked: int
    layer: str = ""

    def as_data(self) -> dict[str, t.Any]:
        """Return what a module's result holds of it."""
        return {"bytes": self.size, "sha256": self.sha256, "unpacked": self.unpacked, "layer": self.layer}


@dataclass(frozen=True)
class Archive:
    """A written archive: where it is on the host that wrote it, what it consists of, and what is in it.

    ``without_layers``: layers that were left out, so that it is good only for hosts that have them. ``entries``: layers
    that have chunks of their own, and their names in the archive.
    """

    path: str
    sha256: str
    chunks: tuple[Chunk, ...]
    images: tuple[Image, ...]
    without_layers: tuple[str, ...] = ()
    entries: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(chunk.size for chunk in self.chunks)

    def as_data(self) -> dict[str, t.Any]:
        """Return what a module's result holds of it."""
        return {
            "path": self.path,
            "bytes": self.size,
            "sha256": self.sha256,
            "chunks": [chunk.as_data() for chunk in self.chunks],
            "images": [image.as_data() for image in self.images],
            "without_layers": list(self.without_layers),
            "entries": dict(self.entries),
        }

    def references(self) -> str:
        """Return the names of its images for a message."""
        return ", ".join(image.reference for image in self.images)


def from_data(data: t.Mapping[str, t.Any]) -> Archive:
    """Return the archive that the result of writing it describes; other keys are ignored, BadInput when it is none."""
    if not isinstance(data, dict) or not isinstance(data.get("chunks"), list):
        raise BadInput("`archive` is not the result of image_archive with state written; give what it returned")
    if not _HEX.fullmatch(str(data.get("sha256"))):
        raise BadInput("`archive` lacks its sha256; give what image_archive with state written returned")
    chunks = tuple(_chunk(number, row) for number, row in enumerate(data["chunks"]))
    images = tuple(image_identity.from_data(row) for row in data.get("images") or ())
    if not chunks or len(chunks) > MOST_CHUNKS or not images:
        raise BadInput(f"`archive` has {len(chunks)} chunks and {len(images)} images; it was not written completely")
    without = tuple(map(str, data.get("without_layers") or ()))
    entries = data.get("entries") or {}
    if not isinstance(entries, dict):
        raise BadInput("`entries` of `archive` is not what image_archive returned; give that")
    names = tuple((str(layer), str(name)) for layer, name in entries.items())
    return Archive(str(data.get("path", "")), str(data["sha256"]), chunks, images, without, names)


def _chunk(number: int, row: t.Any) -> Chunk:
    try:
        chunk = Chunk(int(row["bytes"]), str(row["sha256"]), int(row.get("unpacked", 0)), str(row.get("layer", "")))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput(f"chunk {number} of `archive` lacks bytes or sha256; give what image_archive returned") from None
    sound = chunk.size > 0 and chunk.unpacked >= 0 and _HEX.fullmatch(chunk.sha256)
    if not sound or (chunk.layer and not DIGEST.fullmatch(chunk.layer)):
        raise BadInput(f"chunk {number} of `archive` has no sound size or digest; give what image_archive returned")
    return chunk


def spared_chunks(archive: Archive, spared: t.Collection[str]) -> frozenset[int]:
    """Return the numbers of the chunks that hold nothing but ``spared`` layers."""
    return frozenset(number for number, chunk in enumerate(archive.chunks) if chunk.layer and chunk.layer in spared)


def compress(raw: bytes, level: int) -> bytes:
    """Return ``raw`` as one gzip member without a time or a name: equal content gives equal chunks."""
    machine = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return machine.compress(raw) + machine.flush()


class Cut(t.NamedTuple):
    """A raw chunk of entry ``entry`` (0: of what is between large entries); or, without data, the end of an entry."""

    entry: int
    data: bytes = b""
    digest: str = ""
    name: str = ""


class Cutter:
    """Cuts a tar stream into raw chunks of ``size`` bytes at most, never across the border of a large entry."""

    def __init__(self, size: int, separate: int = SEPARATE) -> None:
        self._walk = TarWalk(separate)
        self._size = size
        self._pending = bytearray()
        self._entries = 0
        self._entry = 0

    def feed(self, piece: bytes) -> t.Iterator[Cut]:
        """Take the next bytes of the stream and yield what is complete."""
        for event in self._walk.feed(piece):
            yield from self._handle(event)

    def finish(self) -> t.Iterator[Cut]:
        """Yield what is left at the end of the stream."""
        for event in self._walk.finish():
            yield from self._handle(event)
        yield from self._flush()

    def _handle(self, event: Event) -> t.Iterator[Cut]:
        if event.kind == "begin":
            yield from self._flush()
            self._entries += 1
            self._entry = self._entries
        elif event.kind == "end":
            yield from self._flush()
            yield Cut(self._entry, digest=event.digest, name=event.name)
            self._entry = 0
        else:
            self._pending += event.data
            while len(self._pending) >= self._size:
                raw = bytes(self._pending[: self._size])
                del self._pending[: self._size]
                yield Cut(self._entry, raw)

    def _flush(self) -> t.Iterator[Cut]:
        if self._pending:
            raw = bytes(self._pending)
            self._pending.clear()
            yield Cut(self._entry, raw)
