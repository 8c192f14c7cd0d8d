"""Layers of an archive taken from an image that is there."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import random
import tarfile
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import chunk_folder
from ansible.module_utils.llmfleet.docker_cli import DockerError
from ansible.module_utils.llmfleet.image_chunks import Archive, Chunk
from ansible.module_utils.llmfleet.image_identity import Image
from ansible.module_utils.llmfleet.layer_borrow import Borrowed, candidates

MIB = 1 << 20
LAYERS = [random.Random(seed).randbytes(2 * MIB + seed) for seed in (1, 2)]
NAMES = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in LAYERS]
HOLDERS = dict.fromkeys(NAMES, "sha256:image")
ARCHIVE = Archive(
    "/x",
    "a" * 64,
    tuple(Chunk(9, "b" * 64, 9, name) for name in NAMES),
    (Image("a:1", NAMES[0], tuple(NAMES)),),
    (),
    ((NAMES[0], "one/layer.tar"), (NAMES[1], "blobs/two")),
)


class Engine:
    """Saves an image with these files."""

    def __init__(self, files: t.Sequence[bytes], problem: str = "") -> None:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for number, content in enumerate(files):
                info = tarfile.TarInfo(f"blobs/{number}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        self._saved = stream.getvalue()
        self._problem = problem

    @contextlib.contextmanager
    def save(self, _references: t.Sequence[str]) -> t.Iterator[Engine]:
        yield self

    def blocks(self) -> t.Iterator[bytes]:
        for start in range(0, len(self._saved), 65_000):
            yield self._saved[start : start + 65_000]
        if self._problem:
            raise DockerError(self._problem)


def borrow(folder: Path, engine: Engine) -> Borrowed:
    borrowed = Borrowed(ARCHIVE, str(folder))
    borrowed.take(t.cast("t.Any", engine), HOLDERS)
    return borrowed


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_layers_are_found_and_stand_in_the_archive_as_its_own(tmp_path: Path, pack: t.Callable[[bytes], bytes]) -> None:
    borrowed = borrow(tmp_path, Engine([b"small", bytes(MIB), *map(pack, LAYERS)]))
    assert borrowed.layers == set(NAMES)
    members = b"".join(member for name in NAMES for member in borrowed.members(name))
    with tarfile.open(fileobj=io.BytesIO(members), mode="r:gz") as archive:
        there = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        contents = {name: file.read() if file else b"" for name, file in there.items()}
    assert contents == {"one/layer.tar": LAYERS[0], "blobs/two": LAYERS[1]}
    borrowed.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_is_not_the_one_is_not_taken(tmp_path: Path) -> None:
    borrowed = borrow(tmp_path, Engine([LAYERS[0][:-1] + b"x", LAYERS[1]]))
    assert borrowed.layers == {NAMES[1]}
    assert [path.name for path in tmp_path.iterdir()] == [chunk_folder.BORROWED + NAMES[1].partition(":")[2]]
    assert all(chunk_folder.is_borrowed(path.name) for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "engine",
    [
        Engine([LAYERS[0]], "docker save failed: no such image"),
        Engine([LAYERS[0], gzip.compress(LAYERS[1])[:MIB]]),
        Engine([LAYERS[0], b"\x28\xb5\x2f\xfd" + bytes(MIB)]),
    ],
    ids=["error", "damaged", "zstd"],
)
def test_what_cannot_be_had_is_left_to_others(tmp_path: Path, engine: Engine) -> None:
    assert borrow(tmp_path, engine).layers == {NAMES[0]}
    assert len(list(tmp_path.iterdir())) == 1


def test_only_layers_with_chunks_and_a_name_are_worth_it() -> None:
    assert candidates(ARCHIVE, HOLDERS) == set(NAMES)
    assert candidates(ARCHIVE, {NAMES[0]: "x", "sha256:other": "y"}) == {NAMES[0]}
    assert candidates(Archive("/x", "a" * 64, ARCHIVE.chunks, ARCHIVE.images), HOLDERS) == set()
