"""Images of an engine as the transport sees them: which are there, saving and loading, the room it takes. Edge code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.engine_info import CONTAINERD_STORE, DEFAULT_ROOT
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import images_present, search_path
from ansible.module_utils.llmfleet.image_identity import Image, from_inspect, spared_layers

LOAD_COPIES = 2
"""How often the classic store keeps an unpacked image while it loads: the unpacked archive, and the layers."""

RESERVE = 64 << 20
"""Bytes left free on a file system, so that the engine can go on working there."""


def human(count: float) -> str:
    """Return a number of bytes for a message."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.0f} {units[0]}" if units[0] == "bytes" else f"{count:.1f} {units[0]}"


def check_room(needs: t.Sequence[tuple[str, int, str]]) -> None:
    """Raise LlmfleetError unless each (folder, bytes, what for) fits; folders on one file system share its room."""
    systems: dict[int, list[tuple[str, int, str]]] = {}
    for folder, count, purpose in needs:
        place = folder
        while not os.path.exists(place):
            place = os.path.dirname(place)
        systems.setdefault(os.stat(place).st_dev, []).append((place, count, purpose))
    for rows in systems.values():
        wanted = sum(count for _, count, _ in rows)
        place = rows[0][0]
        free = shutil.disk_usage(place).free
        if wanted and wanted + RESERVE > free:
            purposes = " and ".join(f"{human(count)} for {purpose}" for _, count, purpose in rows if count)
            raise LlmfleetError(
                f"{place} has {human(free)} free, too little: {purposes} are needed and {human(RESERVE)} must stay "
                "free; make room there (`docker image prune` removes images without a name), or choose another folder"
            )


class ImageEngine:
    """The engine behind ``docker``; ``timeout`` seconds is the longest a save or a load may take."""

    def __init__(self, docker: Docker, timeout: float) -> None:
        self.docker = docker
        self._timeout = timeout
        self._info: dict[str, t.Any] | None = None

    def _ask(self) -> dict[str, t.Any]:
        if self._info is None:
            if not self.docker.executable:
                raise DockerError("There is no docker client on this host; install docker first.")
            self._info = json.loads(self.docker.text("info", "--format", "{{json .}}"))
            errors = self._info.get("ServerErrors") if isinstance(self._info, dict) else None
            if errors:  # clients up to 20.10 exit with 0 when there is no engine
                raise DockerError(f"docker info failed: {' '.join(map(str, errors))}")
        return self._info

    @property
    def containerd_store(self) -> bool:
        """Whether images are in containerd's store; it takes no archive that lacks a layer."""
        return CONTAINERD_STORE in (self._ask().get("DriverStatus") or [])

    @property
    def root(self) -> str:
        """The folder that the engine keeps its images in."""
        return str(self._ask().get("DockerRootDir") or DEFAULT_ROOT)

    def images(self, references: t.Sequence[str]) -> list[Image]:
        """Return the images of these names; raise BadInput for names an archive cannot carry or the engine lacks."""
        named = list(dict.fromkeys(full_name(reference) for reference in references))
        present = images_present(self.docker, named)
        absent = [name for name in named if name not in present]
        if absent:
            raise BadInput(f"the engine has no image {', '.join(absent)}; pull or build it first, or correct its name")
        return [from_inspect(name, present[name]) for name in named]

    def size(self, images: t.Sequence[Image]) -> int:
        """Return the bytes that ``images`` take, layers that they share counted each time."""
        present = images_present(self.docker, [image.reference for image in images])
        return sum(int(row.get("Size") or 0) for row in present.values())

    def missing(self, images: t.Sequence[Image]) -> list[Image]:
        """Return those of ``images`` that the engine does not have under their names."""
        present = images_present(self.docker, [image.reference for image in images])
        return [
            image
            for image in images
            if image.reference not in present or not image.same(from_inspect(image.reference, present[image.reference]))
        ]

    def name(self, images: t.Sequence[Image]) -> list[Image]:
        """Give their names to ``images`` that the engine has under other ones; return those it does not have."""
        unknown = []
        for image in images:
            if self.known(image):
                self.docker.text("tag", image.id, image.reference)
            else:
                unknown.append(image)
        return unknown

    def known(self, image: Image) -> bool:
        """Whether the engine has the image under whatever name."""
        found = self.docker.inspect("image", image.id)
        return found is not None and image.same(from_inspect(image.reference, found))

    def stacks(self) -> dict[str, tuple[str, ...]]:
        """Return the layers of every image of the engine by its id."""
        ids = list(dict.fromkeys(self.docker.text("image", "ls", "--no-trunc", "--quiet").split()))
        if not ids:
            return {}
        # an image may be removed meanwhile: what is said of the others counts
        _rc, out, _err = self.docker.attempt("image", "inspect", *ids)
        rows = json.loads(out or "[]")
        return {str(row["Id"]): tuple((row.get("RootFS") or {}).get("Layers") or ()) for row in rows}

    def kept_layers(self, images: t.Sequence[Image]) -> set[str]:
        """Return the layers that an archive of ``images`` may lack; containerd's store takes whole ones only."""
        return set() if self.containerd_store else spared_layers(images, self.stacks().values())

    def room_for_load(self, unpacked: int) -> tuple[str, int, str]:
        """Return what ``check_room`` needs to know for loading ``unpacked`` bytes."""
        return self.root, LOAD_COPIES * unpacked, "loading the image"

    def save(self, references: t.Sequence[str]) -> _Stream:
        """Return the stream of ``docker save``, to be used in a with statement."""
        return _Stream([self.docker.executable, "save", *references], self._timeout)

    def load(self, blocks: t.Iterable[bytes]) -> None:
        """Give an archive to ``docker load``; raise DockerError when it does not take it."""
        with tempfile.TemporaryFile() as said:
            process = _start([self.docker.executable, "load"], said, stdin=subprocess.PIPE)
            assert process.stdin is not None  # noqa: S101 - for mypy
            late = threading.Timer(self._timeout, process.kill)
            late.start()
            try:
                with suppress(BrokenPipeError):  # it has ended, and says why
                    for block in blocks:
                        process.stdin.write(block)
                    process.stdin.close()
                rc = process.wait()
            finally:
                expired = not late.is_alive()
                late.cancel()
                # also when a block could not be had: an unfinished load changes nothing
                _end(process)
            if rc != 0:
                raise DockerError(f"docker load failed: {_words(said, expired, self._timeout)}")

    def take(self, images: t.Sequence[Image], blocks: t.Iterable[bytes]) -> None:
        """Load an archive of ``images`` and make sure that they are there afterwards."""
        self.load(blocks)
        wrong = self.name(self.missing(images))
        if wrong:
            names = ", ".join(image.reference for image in wrong)
            raise LlmfleetError(
                f"docker load took the archive, but {names} is not the image that was written; something replaced it "
                "meanwhile: run again"
            )


class _Stream:
    """The output of a docker command; an error status is raised when all of it has been read."""

    def __init__(self, argv: t.Sequence[str], timeout: float) -> None:
        self._argv = list(argv)
        self._timeout = timeout

    def __enter__(self) -> _Stream:
        self._said = tempfile.TemporaryFile()
        self._process = _start(self._argv, self._said, stdout=subprocess.PIPE)
        self._late = threading.Timer(self._timeout, self._process.kill)
        self._late.start()
        return self

    def blocks(self, size: int = 1 << 20) -> t.Iterator[bytes]:
        """Yield the output; raise DockerError at its end when the command failed."""
        assert self._process.stdout is not None  # noqa: S101 - for mypy
        while True:
            block = self._process.stdout.read(size)
            if not block:
                break
            yield block
        if self._process.wait() != 0:
            expired = not self._late.is_alive()
            raise DockerError(f"docker {self._argv[1]} failed: {_words(self._said, expired, self._timeout)}")

    def __exit__(self, *_: object) -> None:
        self._late.cancel()
        _end(self._process)
        self._said.close()


def _start(argv: t.Sequence[str], said: t.IO[bytes], **pipes: int) -> subprocess.Popen[bytes]:
    streams: dict[str, t.Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said, **pipes}
    environment = {**os.environ, "LC_ALL": "C", "PATH": search_path()}
    return subprocess.Popen(list(argv), env=environment, start_new_session=True, **streams)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            with suppress(OSError):
                stream.close()


def _words(said: t.IO[bytes], expired: bool, seconds: float) -> str:
    if expired:
        return f"it took longer than {seconds:g} s and was stopped; raise `timeout`"
    said.seek(0)
    return " ".join(said.read().decode("utf-8", "replace").split()) or "it said nothing"


def full_name(reference: str) -> str:
    """Return a name with its tag; raise BadInput for one with a digest."""
    if "@" in reference:
        raise BadInput(
            f"{reference} is named by its digest, which an archive cannot carry; give it a tag (`docker tag`) and name "
            "that"
        )
    last = reference.rpartition("/")[2]
    return reference if ":" in last else f"{reference}:latest"
