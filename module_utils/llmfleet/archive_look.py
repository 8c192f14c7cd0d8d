"""Looking into an archive of images that came from somewhere: is it whole, and what does it hold? Edge code.

Format of what ``docker save`` writes: github.com/moby/moby, image/spec/v1.2.md (manifest.json); engines since 25 write
the same next to an OCI image layout.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tarfile
import typing as t
import zlib
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.image_archive import CHECKSUM, first_word
from ansible.module_utils.llmfleet.image_engine import ImageEngine, check_room, full_name
from ansible.module_utils.llmfleet.image_identity import Image, from_config

BLOCK = 1 << 20
LONGEST_DESCRIPTION = 1 << 20
"""Bytes up to which a file inside an archive may be the manifest or a configuration."""

GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Content:
    """What an archive holds: its images, those of their layers that it lacks, and its size without compression."""

    images: tuple[Image, ...]
    absent_layers: tuple[str, ...]
    unpacked: int


def wanted_digest(path: str, given: str) -> str:
    """Return the sha256 that the archive must have: ``given``, or what the file next to it says."""
    said = (given or first_word(path + CHECKSUM)).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", said):
        where = "`sha256`" if given else f"{path}{CHECKSUM}"
        state = "holds none" if given or os.path.exists(path + CHECKSUM) else "does not exist"
        raise BadInput(
            f"there is no sha256 to check {path} against: {where} {state}; bring the file along that was written with "
            "the archive, or give `sha256`"
        )
    return said


def look_into(path: str, sha256: str) -> Content:
    """Read an archive once: check its digest and return what it holds; raise LlmfleetError when it is not whole."""
    try:
        with open(path, "rb") as file:
            source = _Hashing(file)
            contents, problem = _Contents(), ""
            try:
                contents.read(source.unpacked())
            except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
                problem = str(error) or type(error).__name__
            found = source.drain()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; correct `path`") from None
    if found != sha256:
        raise LlmfleetError(
            f"{path} has the sha256 {found} instead of {sha256}: it was cut short or changed on its way; copy it again"
        )
    if not problem:
        try:
            return contents.described()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            problem = f"its manifest.json cannot be understood: {error}"
    raise BadInput(f"{path} is not an archive of images: {problem}; give one that `docker save` wrote")


def load(engine: ImageEngine, path: str, sha256: str, names: t.Sequence[str], check_mode: bool) -> dict[str, t.Any]:
    """Make sure that the engine has the images of a checked archive; return the module's result."""
    content = look_into(path, sha256)
    held = [image.reference for image in content.images]
    lacking = [name for name in map(full_name, names) if name not in held]
    if lacking:
        raise BadInput(
            f"it holds {', '.join(held)}, and not {', '.join(lacking)}; take another archive, or correct the name"
        )
    missing = engine.missing(content.images)
    changed = bool(missing)
    if changed and not check_mode and engine.name(missing):
        spared = engine.kept_layers(content.images)
        lacking = [layer for layer in content.absent_layers if layer not in spared]
        if lacking:
            raise LlmfleetError(
                f"it was written without {len(lacking)} layers that this host lacks, or that its engine's image store "
                "needs again; write it with all layers"
            )
        check_room([engine.room_for_load(content.unpacked)])
        engine.take(content.images, _blocks(path))
    before = [image.reference for image in content.images if image not in missing]
    return {
        "changed": changed,
        "path": path,
        "bytes": os.path.getsize(path),
        "sha256": sha256,
        "images": [image.as_data() for image in content.images],
        "without_layers": list(content.absent_layers),
        "diff": {"before": before, "after": held},
    }


def _blocks(path: str) -> t.Iterator[bytes]:
    with open(path, "rb") as file:
        while True:
            block = file.read(BLOCK)
            if not block:
                return
            yield block


class _Hashing:
    """Reads a file and hashes it on the way."""

    def __init__(self, file: t.BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def unpacked(self) -> t.Any:
        """Return what to read the tar archive from."""
        packed = self._file.read(len(GZIP)) == GZIP
        self._file.seek(0)
        return gzip.GzipFile(fileobj=t.cast("t.BinaryIO", self)) if packed else self

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        block = self._file.read(size)
        self._digest.update(block)
        return block

    def drain(self) -> str:
        """Read the rest and return the digest of all."""
        while self.read(BLOCK):
            pass
        return self._digest.hexdigest()


class _Contents:
    """The names in an archive, and its small files, which describe the rest."""

    def __init__(self) -> None:
        self._links: dict[str, str] = {}
        self._texts: dict[str, bytes] = {}
        self._unpacked = 0

    def read(self, stream: t.Any) -> None:
        """Go through the whole archive."""
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                self._unpacked += member.size
                target = os.path.join(os.path.dirname(member.name), member.linkname) if member.issym() else ""
                self._links[member.name] = os.path.normpath(target) if target else ""
                if member.isfile() and member.size <= LONGEST_DESCRIPTION:
                    content = archive.extractfile(member)
                    self._texts[member.name] = content.read() if content else b""

    def described(self) -> Content:
        """Return what manifest.json says."""
        if "manifest.json" not in self._texts:
            raise ValueError("it has no manifest.json")
        images: list[Image] = []
        absent: set[str] = set()
        for row in json.loads(self._texts["manifest.json"]):
            name = str(row["Config"])
            text = self._texts[name]
            digest = hashlib.sha256(text).hexdigest()
            if not row.get("RepoTags"):
                raise ValueError(f"its image {digest[:12]} has no name; write it by name, not by id")
            images += [from_config(tag, f"sha256:{digest}", json.loads(text)) for tag in row["RepoTags"]]
            absent |= {layer for layer, file in zip(images[-1].layers, row["Layers"]) if not self._has(file)}
        return Content(tuple(images), tuple(sorted(absent)), self._unpacked)

    def _has(self, name: str) -> bool:
        name = os.path.normpath(name)
        return (self._links[name] or name) in self._links if name in self._links else False
