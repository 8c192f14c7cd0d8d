"""Receiving an image from other hosts: chunks into a folder, from there into the engine. Edge code."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import typing as t
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet import chunk_folder, image_chunks
from ansible.module_utils.llmfleet.chunk_fetch import Fetcher
from ansible.module_utils.llmfleet.docker_cli import DockerError
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.image_chunks import Archive, Chunk, spared_chunks
from ansible.module_utils.llmfleet.image_engine import ImageEngine, check_room
from ansible.module_utils.llmfleet.image_share import Share, folder_of, folders, prepare_folder
from ansible.module_utils.llmfleet.layer_borrow import Borrowed, candidates

Wanted = t.List[t.Tuple[int, Chunk]]  # noqa: UP006 - evaluated, and Python 3.8 cannot otherwise


@dataclass
class Outcome:
    """What receiving did, or would do: bytes fetched, kept from an earlier run, and not needed as layers are there."""

    changed: bool
    fetched: int = 0
    kept: int = 0
    spared: int = 0
    peers: dict[str, int] = field(default_factory=dict)


class Reception:
    """Brings the images of ``archive`` to this host's engine; ``directory`` keeps what is not complete."""

    def __init__(self, archive: Archive, directory: str, engine: ImageEngine) -> None:
        self._archive = archive
        self._directory = directory
        self._engine = engine
        self._folder = folder_of(directory, archive)

    def needed(self) -> bool:
        """Whether the engine lacks an image, or only its name."""
        return bool(self._engine.missing(self._archive.images))

    def named(self) -> bool:
        """Give names to images that the engine has under other ones; return whether nothing else was missing."""
        return not self._engine.name(self._engine.missing(self._archive.images))

    def plan(self) -> Outcome:
        """Return what receiving would fetch."""
        layers = self._kept_layers() | (candidates(self._archive, self._holders()) if self._whole else set())
        wanted, outcome = self._wanted(spared_chunks(self._archive, layers))
        outcome.fetched = sum(chunk.size for _, chunk in wanted)
        return outcome

    def receive(self, fetcher: Fetcher) -> Outcome:
        """Fetch, load and check; ``fetcher`` works in the folder that ``prepare`` returned."""
        borrowed = Borrowed(self._archive, self._folder)
        with self._alone():
            self._adopt()
            kept = self._kept_layers()
            try:
                if self._whole:
                    self._borrow(borrowed)
                outcome = self._transfer(fetcher, kept, borrowed)
            except DockerError:
                if not kept or kept <= self._kept_layers():
                    raise
                # somebody has removed the image meanwhile whose layers were to be used
                outcome = self._transfer(fetcher, set(), borrowed)
            finally:
                borrowed.drop()
        self.finish()
        outcome.fetched = sum(peer.got for peer in fetcher.peers)
        outcome.peers = {peer.name: peer.got for peer in fetcher.peers if peer.got}
        return outcome

    def prepare(self) -> str:
        """Make the folder for the chunks and return it."""
        return prepare_folder(self._directory, self._archive)

    def finish(self) -> None:
        """Remove the chunks, at once or, while other hosts still get them from here, when that ends."""
        for folder in folders(self._directory):
            if folder != self._folder and (not self._superseded(folder) or _in_use(folder)):
                continue
            if Share.of_folder(folder).running():
                with open(os.path.join(folder, chunk_folder.LOADED), "w", encoding="utf-8"):
                    pass
            else:
                chunk_folder.clear(folder)

    def refuse(self) -> None:
        """Tell hosts that ask this one that it will have no more chunks: it has the image and receives none."""
        if os.path.isdir(self._folder):
            self._skip(frozenset(range(len(self._archive.chunks))))
            self.finish()

    def _superseded(self, folder: str) -> bool:
        """Whether a folder was for other content of the same images."""
        try:
            with open(os.path.join(folder, chunk_folder.RECORD), encoding="utf-8") as file:
                other = image_chunks.from_data(json.load(file))
        except (OSError, ValueError):
            return False
        names = {image.reference for image in self._archive.images}
        return all(image.reference in names for image in other.images)

    @contextmanager
    def _alone(self) -> t.Iterator[None]:
        with open(os.path.join(self._folder, chunk_folder.LOCK), "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LlmfleetError("another run is receiving it; wait for it and start again") from None
            yield

    def _adopt(self) -> None:
        """Drop what was begun, and take over chunks that an archive with the same content has left here."""
        for name in os.listdir(self._folder):
            begun = chunk_folder.is_chunk(name) and name.endswith(chunk_folder.PARTIAL)
            if begun or chunk_folder.is_borrowed(name):
                os.unlink(os.path.join(self._folder, name))
        wanted = {chunk.sha256 for chunk in self._archive.chunks}
        for folder in folders(self._directory):
            for name in wanted.intersection(os.listdir(folder)) if folder != self._folder else ():
                with suppress(OSError):
                    os.link(os.path.join(folder, name), os.path.join(self._folder, name))

    @property
    def _whole(self) -> bool:
        """Whether the engine takes archives only with all their layers."""
        return self._engine.containerd_store

    def _kept_layers(self) -> set[str]:
        kept = self._engine.kept_layers(self._archive.images)
        lacking = [layer for layer in self._archive.without_layers if layer not in kept]
        if lacking:
            raise LlmfleetError(
                f"the archive was written without {len(lacking)} layers that this host lacks, or that its engine's "
                "image store needs again; write it with all layers"
            )
        return kept

    def _holders(self) -> dict[str, str]:
        return {layer: image for image, layers in self._engine.stacks().items() for layer in layers}

    def _borrow(self, borrowed: Borrowed) -> None:
        holders = self._holders()
        sought = candidates(self._archive, holders)
        unpacked = sum(chunk.unpacked for chunk in self._archive.chunks if chunk.layer in sought)
        check_room([(self._folder, unpacked, "layers that are here already")])
        borrowed.take(self._engine, {layer: holders[layer] for layer in sought})

    def _wanted(self, spared: frozenset[int]) -> tuple[Wanted, Outcome]:
        """Return the chunks to fetch, and what of the others was kept and spared."""
        wanted, outcome = [], Outcome(changed=True)
        for number, chunk in enumerate(self._archive.chunks):
            if number in spared:
                outcome.spared += chunk.size
            elif self._kept(chunk):
                outcome.kept += chunk.size
            else:
                wanted.append((number, chunk))
        return wanted, outcome

    def _kept(self, chunk: Chunk) -> bool:
        """Whether an earlier run left the chunk: whole, which a power cut makes doubtful whatever its name says."""
        try:
            with open(os.path.join(self._folder, chunk.sha256), "rb") as file:
                return hashlib.sha256(file.read()).hexdigest() == chunk.sha256
        except FileNotFoundError:
            return False

    def _transfer(self, fetcher: Fetcher, kept: set[str], borrowed: Borrowed) -> Outcome:
        """Fetch and load at the same time: the engine unpacks what is here while the rest is on its way."""
        spared = spared_chunks(self._archive, kept | borrowed.layers)
        self._skip(spared)
        wanted, outcome = self._wanted(spared)
        outcome.fetched = sum(chunk.size for _, chunk in wanted)
        unpacked = sum(chunk.unpacked for chunk in self._archive.chunks if chunk.layer not in kept)
        check_room([(self._folder, outcome.fetched, "its chunks"), self._engine.room_for_load(unpacked)])
        fetcher.start(wanted)
        try:
            self._engine.take(self._archive.images, self._blocks(fetcher, spared, borrowed))
        finally:
            fetcher.stop()
        return outcome

    def _blocks(self, fetcher: Fetcher, spared: t.Collection[int], borrowed: Borrowed) -> t.Iterator[bytes]:
        left = set(borrowed.layers)
        for number, chunk in enumerate(self._archive.chunks):
            if chunk.layer in left:
                left.remove(chunk.layer)
                yield from borrowed.members(chunk.layer)
            elif number not in spared:
                yield fetcher.read(chunk)

    def _skip(self, numbers: frozenset[int]) -> None:
        path = os.path.join(self._folder, chunk_folder.SKIPPED)
        with open(path + chunk_folder.PARTIAL, "w", encoding="utf-8") as file:
            json.dump(sorted(numbers), file)
        os.replace(path + chunk_folder.PARTIAL, path)


def _in_use(folder: str) -> bool:
    """Whether another run is receiving into a folder."""
    try:
        with open(os.path.join(folder, chunk_folder.LOCK), encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
