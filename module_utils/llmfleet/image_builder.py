"""Making a llama.cpp image on a host: unpack a source, build, try, and only then give it its name."""

from __future__ import annotations

import re
import shutil
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.llmfleet import base_image as base
from ansible.module_utils.llmfleet.build_host import BuildFailed, BuildHost
from ansible.module_utils.llmfleet.image_request import LABEL_STAGE, BuildRequest
from ansible.module_utils.llmfleet.image_source import KINDS, Source, SourceError
from ansible.module_utils.llmfleet.image_template import (
    SITE_FOLDER,
    TOOLS_FOLDER,
    dockerfile,
    pruned,
    scripts,
)
from ansible.module_utils.llmfleet.image_toolchain import Toolchain
from ansible.module_utils.llmfleet.source_fetch import Fetched, Fetcher, unpack

TOOLCHAIN_REPOSITORY = "llmfleet/toolchain"
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


def choose_source(
    host: BuildHost, fetcher: Fetcher, candidates: t.Sequence[Source], request: BuildRequest, into: Path
) -> Fetched:
    """Unpack the first candidate that delivers; what an earlier build left on this host comes first."""
    ref, drop = request.ref, pruned(request.contents)
    kept = [(source, fetcher.cached(source, ref)) for source in candidates]
    for source, found in kept:
        if found and _unpacked(host, source, found, into, drop):
            host.note(source.label(), "used, kept from an earlier build")
            return found
    for source in candidates:
        try:
            fetcher.probe(source)
            fetched = fetcher.fetch(source, ref)
        except SourceError as problem:
            host.note(source.label(), str(problem))
            continue
        if _unpacked(host, source, fetched, into, drop):
            host.note(source.label(), "used")
            return fetched
    raise SourceError(no_source(host.tried))


def _unpacked(host: BuildHost, source: Source, fetched: Fetched, into: Path, drop: t.Collection[str]) -> bool:
    try:
        unpack(fetched.path, into, drop)
    except SourceError as problem:
        host.note(source.label(), str(problem))
        shutil.rmtree(into, ignore_errors=True)
        fetched.path.unlink(missing_ok=True)
        return False
    return True


def no_source(tried: t.Sequence[t.Mapping[str, str]]) -> str:
    """Return the sentence for a host that no candidate delivers to."""
    rows = [row for row in tried if row["candidate"].startswith(KINDS)]
    reasons = "; ".join(f"{row['candidate']}: {row['result']}" for row in rows) or "the list is empty"
    return (
        f"No source of llama.cpp can be had on this host ({reasons}); add a reachable one to llama_cpp_image_sources."
    )


@dataclass(frozen=True)
class Settings:
    """How to build, as opposed to what: none of it is part of the build key.

    ``labels`` say where the parts came from; ``gpu`` are the words that give a container this host's GPUs, () when the
    image is not tried on one here.
    """

    buildkit: str  # buildx, embedded or none
    jobs: int
    ca_bundle: str
    labels: t.Mapping[str, str]
    gpu: tuple[str, ...] = ()


def build_image(host: BuildHost, request: BuildRequest, toolchain: Toolchain, context: Path, how: Settings) -> None:
    """Build ``context/source`` into the image of ``request`` with ``toolchain``."""
    buildkit = how.buildkit != "none"
    proxies = write_context(host, request, toolchain, context, how)
    candidate = f"{request.image()}-unverified"
    secrets = sorted((context / SITE_FOLDER).iterdir())
    argv = build_command(host.docker.executable, toolchain.base, how, *proxies, secrets)
    switch = {"DOCKER_BUILDKIT": "1" if buildkit else "0", "BUILDKIT_PROGRESS": "plain"}
    try:
        if not buildkit:
            # named, so that the next build finds the compilers; the rest of the legacy builder's leavings goes
            host.stream([*argv, "--target", "toolchain", "--tag", toolchain_name(toolchain), str(context)], switch)
        labels = {**request.labels(toolchain), **how.labels}
        named = ["--tag", candidate, *(w for name, value in labels.items() for w in ("--label", f"{name}={value}"))]
        if host.stream([*argv, *named, str(context)], switch) != 0:
            raise BuildFailed(f"The build of llama.cpp failed: {host.why()} (log: {host.log})")
    finally:
        if not buildkit:
            host.docker.attempt("image", "prune", "--force", "--filter", f"label={LABEL_STAGE}=build")
    try:
        verify(host, candidate, request.variant, request.programs()[0], how.gpu)
        host.docker.text("tag", candidate, request.image())
    finally:
        host.docker.attempt("rmi", candidate)


def write_context(
    host: BuildHost, request: BuildRequest, toolchain: Toolchain, context: Path, how: Settings
) -> tuple[list[str], str]:
    """Write everything beside the source into ``context``; return the proxies' names and the network to build in."""
    site, tools = context / SITE_FOLDER, context / TOOLS_FOLDER
    site.mkdir(exist_ok=True)
    tools.mkdir(exist_ok=True)
    # the packages of an SDK come from a repository that only its own image knows
    foreign = toolchain.kind == "image" and not toolchain.cuda
    sources = [] if foreign else host.apt_sources(toolchain.distribution)
    if toolchain.kind == "packages":
        sources = base.with_components(sources, base.CUDA_COMPONENTS[toolchain.distribution.split(":")[0]])
    around = write_site(host, site, sources, how)
    buildkit = how.buildkit != "none"
    for name, text in scripts(toolchain, request.contents).items():
        (tools / name).write_text(text, encoding="utf-8")
    (context / "Dockerfile").write_text(dockerfile(request, toolchain, buildkit), encoding="utf-8")
    return around


def write_site(
    host: BuildHost, site: Path, sources: t.Sequence[base.AptSource], how: Settings
) -> tuple[list[str], str]:
    """Write the host's own apt and CA files into ``site``; return the proxies' names and the network to build in."""
    dump = host.apt_dump()
    ca = Path(how.ca_bundle).read_bytes() if how.ca_bundle else b""
    buildkit = how.buildkit != "none"
    (site / "apt.conf").write_text(base.apt_conf(dump, bool(sources), bool(ca), buildkit), encoding="utf-8")
    (site / "sources.list").write_text(base.sources_list(sources), encoding="utf-8")
    (site / "ca.crt").write_bytes(ca)
    proxies = proxy_names(host.environment)
    addresses = (*(host.environment[name] for name in proxies), *base.apt_proxies(dump).values())
    return proxies, base.build_network(addresses)


def toolchain_name(toolchain: Toolchain) -> str:
    """Return the name that the legacy builder's compilers are kept under."""
    stem = toolchain.distribution.replace(":", "-")
    return f"{TOOLCHAIN_REPOSITORY}:{stem}" + (f"-cuda{toolchain.cuda}" if toolchain.cuda else "")


def proxy_names(environment: t.Mapping[str, str]) -> list[str]:
    """Return the proxy variables that are set, in both spellings programs look for."""
    return [name for lower in PROXIES for name in (lower, lower.upper()) if environment.get(name)]


def build_command(
    docker: str,
    first: str,
    how: Settings,
    proxies: t.Sequence[str],
    network: str,
    secrets: t.Sequence[Path],
) -> list[str]:
    """Return the ``docker build`` command on the image ``first``, without what it makes and from what."""
    argv = [docker, "build", "--build-arg", f"BASE={first}", "--build-arg", f"JOBS={how.jobs}"]
    argv += ["--network", network] if network != "default" else []
    # named without a value, docker takes it from its environment: a password in it shows in no process list
    argv += [word for name in proxies for word in ("--build-arg", name)]
    if how.buildkit != "none":
        argv += [word for file in secrets for word in ("--secret", f"id={file.name},src={file}")]
    return argv + (["--load"] if how.buildkit == "buildx" else [])


DEVICES = {"cuda": "CUDA", "rocm": "ROCm", "musa": "MUSA", "intel": "SYCL", "vulkan": "Vulkan"}
"""What the devices of a back-end are called by --list-devices, before their number."""

DRIVER_OUTSIDE = ("cuda", "musa")
"""Back-ends whose driver library joins the image when a container starts: without a GPU nothing in it can run."""


def verify(
    host: BuildHost,
    image: str,
    variant: str = "cpu",
    program: str = "llama-server",
    gpu: t.Sequence[str] = (),
) -> str:
    """Return what ``program`` in ``image`` says; raise BuildFailed when it does not run here.

    With ``gpu`` (docker's words for the GPUs of this host) it has to find one. An image that cannot run without a
    GPU is not run where there is none: its files were tried while it was built.
    """
    if variant in DRIVER_OUTSIDE and not gpu:
        return ""
    question = "--list-devices" if gpu else "--version"
    sandbox = ("--network", "none", "--read-only", "--cap-drop", "ALL", "--entrypoint", f"/app/{program}")
    rc, out, err = host.docker.attempt("run", "--rm", *gpu, *sandbox, image, question)
    said = " ".join((out + err).split())
    if rc == 0 and gpu and not re.search(rf"^\s*{DEVICES[variant]}\d+: ", out + err, re.MULTILINE):
        raise BuildFailed(
            f"{program} in {image} runs, but finds no GPU on this host ({said[-300:] or 'it said nothing'}); "
            "see with nvidia-smi whether the driver works, and with docker info whether the engine gives GPUs out."
        )
    if rc == 0:
        return said
    why = " ".join((err or out).split())[-300:] or "it said nothing"
    if rc == 132:  # SIGILL
        why = "it uses instructions that this processor does not have; choose a lower cpu_level"
    raise BuildFailed(f"{program} in {image} does not run on this host (exit status {rc}): {why}.")


def pull_image(
    host: BuildHost,
    reference: str,
    variant: str = "cpu",
    program: str = "llama-server",
    gpu: t.Sequence[str] = (),
) -> None:
    """Pull ``reference`` and try it; an image that does not run here is not kept."""
    if host.stream([host.docker.executable, "pull", reference], {}) != 0:
        raise BuildFailed(f"The pull of {reference} failed: {host.why()} (log: {host.log})")
    try:
        verify(host, reference, variant, program, gpu)
    except BuildFailed:
        host.docker.attempt("rmi", reference)
        raise
