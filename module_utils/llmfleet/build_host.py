"""The host an image is built on, as the steps of a build see it: programs, apt, registries and the log."""

from __future__ import annotations

import os
import shutil
import tempfile
import typing as t
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.llmfleet import base_image as base
from ansible.module_utils.llmfleet import registries
from ansible.module_utils.llmfleet.build_log import first_error
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import LlmfleetError

Runner = t.Callable[..., "tuple[int, str, str]"]
Stream = t.Callable[[t.Sequence[str], t.Mapping[str, str]], int]
"""Runs a command with its output going to the log; returns its exit status."""

GIB = 1 << 30
DOCKER_NEEDS, WORK_NEEDS = 3 * GIB, 1 * GIB
CONTEXT = ".build-context"
SDK_NEEDS = 12 * GIB
"""For the engine, where a GPU toolkit (as an image 9 GB) is needed to compile."""


class BuildFailed(LlmfleetError):
    """A step of the build, or the image it made, failed."""


@dataclass
class BuildHost:
    """Everything that touches the host; ``tried`` collects what was attempted and why it was not used."""

    docker: Docker
    run: Runner
    stream: Stream
    opener: t.Callable[..., t.Any]
    work: Path
    log: Path
    info: t.Mapping[str, t.Any]  # `docker info`
    environment: t.Mapping[str, str]
    tried: list[dict[str, str]] = field(default_factory=list)

    def note(self, candidate: str, result: str) -> None:
        """Remember an attempt."""
        self.tried.append({"candidate": candidate, "result": result})

    def why(self) -> str:
        """Return what the log says went wrong."""
        with open(self.log, encoding="utf-8", errors="replace") as lines:
            return first_error(lines)

    def must(self, argv: t.Sequence[str], what: str, env: t.Mapping[str, str] | None = None) -> None:
        """Run a step of the build, or raise BuildFailed with its own words."""
        program = argv[0]
        if not shutil.which(program):
            raise BuildFailed(f"{program} is not installed on this host, and {what} needs it; install it.")
        if self.stream(argv, env or {}) != 0:
            raise BuildFailed(f"{what} failed: {self.why()} (log: {self.log})")

    def ask(self, *argv: str) -> str:
        """Return what a program says, "" when it is not there or fails."""
        if not shutil.which(argv[0]):
            return ""
        rc, out, _err = self.run(list(argv), environ_update={"LC_ALL": "C"})
        return out if rc == 0 else ""

    def apt_sources(self, wanted: str) -> list[base.AptSource]:
        """Return the host's own mirrors of ``wanted``, a base such as debian:bookworm."""
        listed = self.ask("apt-get", "indextargets", "--format", base.APT_TARGETS, "Created-By: Packages")
        return base.parse_targets(listed, wanted) or base.sibling_sources(listed, wanted)

    def apt_dump(self) -> str:
        """Return apt's configuration, "" on a host without apt."""
        return self.ask("apt-config", "dump")

    def registry_problem(self, registry: str) -> str:
        """Return "" when ``registry`` answers, else why not."""
        insecure = registries.insecure_registries(self.info)
        urls = registries.api_urls(registry, insecure, registries.hub_mirrors(self.info))
        return registries.probe(urls, self.opener)

    def cuda_package_problem(self, wanted: str, architecture: str) -> str:
        """Return "" when the mirror of ``wanted`` has the component with the distribution's CUDA toolkit."""
        distribution, codename = wanted.split(":")
        uri = base.mirror(self.apt_sources(wanted), wanted)
        if not uri:
            return f"this host's apt has no mirror of {wanted}"
        component = base.CUDA_COMPONENTS[distribution][-1]
        url = f"{uri.rstrip('/')}/dists/{codename}/{component}/binary-{architecture}/Release"
        try:
            self.opener(urllib.request.Request(url, method="HEAD"), timeout=10).close()  # noqa: S310 - from apt
        except (OSError, ValueError) as exc:
            return f"the mirror {uri} does not deliver {component} ({exc})"
        return ""

    def find_base(self, wanted: str, references: t.Sequence[str]) -> tuple[str, str]:
        """Return (``present``, ``pull`` or ``bootstrap``, reference) of the base image; changes nothing."""
        own = base.bootstrapped_name(wanted)
        for reference in (*references, own):
            if self.docker.executable and self.docker.inspect("image", reference):
                return "present", reference
        for reference in references:
            reason = self.registry_problem(registries.split_reference(reference)[0])
            if not reason:
                return "pull", reference
            self.note(f"base {reference}", reason)
        return "bootstrap", own

    def make_base(self, wanted: str, references: t.Sequence[str]) -> tuple[str, str]:
        """Return (kind, reference) of the base image, which is there afterwards."""
        kind, reference = self.find_base(wanted, references)
        if kind == "pull" and self.stream([self.docker.executable, "pull", reference], {}) != 0:
            self.note(f"base {reference}", self.why())
            kind, reference = "bootstrap", base.bootstrapped_name(wanted)
        if kind == "bootstrap":
            self._bootstrap(wanted, reference)
        return kind, reference

    def _bootstrap(self, wanted: str, reference: str) -> None:
        sources = self.apt_sources(wanted)
        uri = base.mirror(sources, wanted)
        if not uri:
            raise BuildFailed(
                f"There is no base image for {wanted}: no registry answers and this host's apt has no mirror of it; "
                "set base to the host's own distribution, or base_images to one that can be pulled."
            )
        components = next(source.components for source in sources if source.uri == uri)
        proxies = base.apt_proxies(self.apt_dump())
        with workplace(self.work, "base-") as folder:
            tree, packed = folder / "root", folder / "root.tar"
            self.must(base.debootstrap(wanted, uri, components, str(tree)), f"debootstrap of {wanted}", proxies)
            skipped = ("./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*_*", "./dev/*")
            drop = [f"--exclude={pattern}" for pattern in skipped]
            self.must(["tar", "-C", str(tree), "-cf", str(packed), *drop, "."], "packing the base image")
            label = f"LABEL {base.LABEL_BASE}={wanted}"
            self.must([self.docker.executable, "import", "--change", label, str(packed), reference], "docker import")


def disk_problem(
    docker_root: str,
    docker_free: int | None,
    work_dir: str,
    work_free: int,
    shared: bool,
    docker_needs: int = DOCKER_NEEDS,
) -> str:
    """Return a sentence when there is too little space to build, "" when there is enough.

    ``shared`` says that both places are on one file system; ``docker_free`` None that the engine's disk is not here.
    """
    needs = [(docker_root, docker_free, docker_needs + (WORK_NEEDS if shared else 0))]
    if not shared:
        needs.append((work_dir, work_free, WORK_NEEDS))
    for place, free, need in needs:
        if free is not None and free < need:
            return (
                f"Building an image needs {need / GIB:.1f} GiB of disk at {place}, but {free / GIB:.1f} GiB are free; "
                "free some space there, or move it to a larger disk."
            )
    return ""


@contextmanager
def workplace(work: Path, prefix: str) -> t.Iterator[Path]:
    """Give a scratch folder on the disk of ``work`` that goes away afterwards."""
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{prefix}", dir=os.fspath(work)) as folder:
        yield Path(folder)


@contextmanager
def build_context(work: Path) -> t.Iterator[Path]:
    """Give the folder that an image is built from; it goes away afterwards, and so does one that a crash has left.

    It has the same name each time: BuildKit then asks only for the files it has not seen yet, and the CUDA wheels are
    half a gigabyte. One run at a time makes images on a host, so nobody shares it.
    """
    folder = work / CONTEXT
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
