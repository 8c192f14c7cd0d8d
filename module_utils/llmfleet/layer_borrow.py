"""Layers that this host's engine has already, for an archive whose chunks of them are not fetched. Edge code.

An engine of the classic store needs no more than to have them. One of containerd's store takes whole archives only, so
it gets them from itself: ``docker save`` of an image that has the layer, of which that one file is kept.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import typing as t
import zlib
from contextlib import suppress

from ansible.module_utils.llmfleet.chunk_folder import BORROWED
from ansible.module_utils.llmfleet.docker_cli import DockerError
from ansible.module_utils.llmfleet.image_chunks import SEPARATE, Archive, compress
from ansible.module_utils.llmfleet.image_engine import ImageEngine

BLOCK = 1 << 20
GZIP = b"\x1f\x8b"
STORED = 0
"""zlib's level without compression: the engine is on this host."""

Holders = t.Mapping[str, str]


def candidates(archive: Archive, holders: Holders) -> set[str]:
    """Return the layers worth looking for; ``holders``: layer -> id of an image of the engine that has it."""
    named = {layer for layer, name in archive.entries if name}
    return {chunk.layer for chunk in archive.chunks if chunk.layer in named and chunk.layer in holders}


class Borrowed:
    """Layers taken from the engine into files of ``folder``, each checked by its diff id."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self._names = dict(archive.entries)
        self._folder = folder
        self.layers: set[str] = set()

    def take(self, engine: ImageEngine, holders: Holders) -> None:
        """Get what can be had; what an image does not give is fetched from other hosts."""
        wanted = {layer: holders[layer] for layer in holders if layer in self._names}
        for image in dict.fromkeys(wanted.values()):
            sought = {layer for layer, holder in wanted.items() if holder == image}
            with suppress(DockerError, OSError, tarfile.TarError, EOFError, zlib.error), engine.save([image]) as stream:
                self._search(stream.blocks(), sought)

    def _search(self, blocks: t.Iterable[bytes], sought: set[str]) -> None:
        with tarfile.open(fileobj=t.cast("t.BinaryIO", _Readable(blocks)), mode="r|") as saved:
            for member in saved:
                content = saved.extractfile(member) if member.isfile() and member.size >= SEPARATE else None
                if content:
                    self._keep(content, sought)
                if sought <= self.layers:
                    return

    def _keep(self, content: t.IO[bytes], sought: set[str]) -> None:
        """Write a file of the saved image down, unpacked, and keep it if it is a layer that is sought."""
        partial = os.path.join(self._folder, f"{BORROWED}partial")
        digest = hashlib.sha256()
        try:
            with open(partial, "wb") as file:
                for block in _unpacked(content):
                    digest.update(block)
                    file.write(block)
            layer = f"sha256:{digest.hexdigest()}"
            if layer in sought:
                os.replace(partial, self._path(layer))
                self.layers.add(layer)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)

    def _path(self, layer: str) -> str:
        return os.path.join(self._folder, BORROWED + layer.partition(":")[2])

    def members(self, layer: str) -> t.Iterator[bytes]:
        """Yield a layer as gzip members, header included, to stand where its chunks would."""
        size = os.path.getsize(self._path(layer))
        info = tarfile.TarInfo(self._names[layer])
        info.size, info.mode = size, 0o644
        yield compress(info.tobuf(tarfile.USTAR_FORMAT if size < 8 << 30 else tarfile.GNU_FORMAT), STORED)
        with open(self._path(layer), "rb") as file:
            while True:
                block = file.read(BLOCK)
                if not block:
                    break
                yield compress(block, STORED)
        yield compress(bytes(-size % tarfile.BLOCKSIZE), STORED)

    def drop(self) -> None:
        """Remove the files."""
        for layer in self.layers:
            with suppress(FileNotFoundError):
                os.unlink(self._path(layer))


class _Readable:
    """Blocks as a file that tarfile reads."""

    def __init__(self, blocks: t.Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._left = b""

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end."""
        parts = [self._left]
        count = len(self._left)
        while count < size:
            block = next(self._blocks, b"")
            if not block:
                break
            parts.append(block)
            count += len(block)
        data = b"".join(parts)
        self._left = data[size:]
        return data[:size]


def _unpacked(content: t.IO[bytes]) -> t.Iterator[bytes]:
    """Yield a layer's content; containerd's store keeps those of pulled images as they came, mostly as gzip."""
    source: t.Any = _Again(content.read(len(GZIP)), content)
    if source.begin == GZIP:
        source = gzip.GzipFile(fileobj=source)
    while True:
        block = source.read(BLOCK)
        if not block:
            return
        yield block


class _Again:
    """A stream with its beginning put back."""

    def __init__(self, begin: bytes, rest: t.IO[bytes]) -> None:
        self.begin = begin
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        if self.begin:
            data, self.begin = self.begin, b""
            return data
        return self._rest.read(size)
