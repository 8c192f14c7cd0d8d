"""Making a llama.cpp image on a host: unpack a source, build, try, and only then give it its name."""

from __future__ import annotations

import shutil
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.llmfleet import base_image as base
from ansible.module_utils.llmfleet.build_host import BuildFailed, BuildHost
from ansible.module_utils.llmfleet.constants import LABEL_BUILD_KEY
from ansible.module_utils.llmfleet.image_source import KINDS, Source, SourceError
from ansible.module_utils.llmfleet.llama_image import LABEL_STAGE, BuildRequest, dockerfile
from ansible.module_utils.llmfleet.source_fetch import Fetched, Fetcher, unpack

TOOLCHAIN_REPOSITORY = "llmfleet/toolchain"
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


def choose_source(host: BuildHost, fetcher: Fetcher, candidates: t.Sequence[Source], ref: str, into: Path) -> Fetched:
    """Unpack the first candidate that delivers; what an earlier build left on this host comes first."""
    kept = [(source, fetcher.cached(source, ref)) for source in candidates]
    for source, found in kept:
        if found and _unpacked(host, source, found, into):
            host.note(source.label(), "used, kept from an earlier build")
            return found
    for source in candidates:
        try:
            fetcher.probe(source)
            fetched = fetcher.fetch(source, ref)
        except SourceError as problem:
            host.note(source.label(), str(problem))
            continue
        if _unpacked(host, source, fetched, into):
            host.note(source.label(), "used")
            return fetched
    raise SourceError(no_source(host.tried))


def _unpacked(host: BuildHost, source: Source, fetched: Fetched, into: Path) -> bool:
    try:
        unpack(fetched.path, into)
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
    """How to build, as opposed to what: none of it is part of the build key."""

    base: str  # image reference
    buildkit: str  # buildx, embedded or none
    jobs: int
    ca_bundle: str
    labels: t.Mapping[str, str]


def build_image(host: BuildHost, request: BuildRequest, context: Path, how: Settings) -> None:
    """Build ``context/source`` into the image of ``request``."""
    site = context / "site"
    site.mkdir(exist_ok=True)
    sources, dump = host.apt_sources(request.base), host.apt_dump()
    ca = Path(how.ca_bundle).read_bytes() if how.ca_bundle else b""
    (site / "apt.conf").write_text(
        base.apt_conf(dump, bool(sources), bool(ca), how.buildkit != "none"), encoding="utf-8"
    )
    (site / "sources.list").write_text(base.sources_list(sources), encoding="utf-8")
    (site / "ca.crt").write_bytes(ca)
    (context / "Dockerfile").write_text(dockerfile(request, how.buildkit != "none"), encoding="utf-8")

    proxies = proxy_names(host.environment)
    network = base.build_network([*(host.environment[name] for name in proxies), *base.apt_proxies(dump).values()])
    candidate = f"{request.image()}-unverified"
    argv = build_command(host.docker.executable, how, proxies, network, sorted(site.iterdir()))
    switch = {"DOCKER_BUILDKIT": "0" if how.buildkit == "none" else "1", "BUILDKIT_PROGRESS": "plain"}
    try:
        if how.buildkit == "none":
            # named, so that the next build finds the compilers; the rest of the legacy builder's leavings goes
            toolchain = f"{TOOLCHAIN_REPOSITORY}:{request.base.replace(':', '-')}"
            host.stream([*argv, "--target", "toolchain", "--tag", toolchain, str(context)], switch)
        labels = {LABEL_BUILD_KEY: request.key(), **how.labels}
        named = ["--tag", candidate, *(w for name, value in labels.items() for w in ("--label", f"{name}={value}"))]
        if host.stream([*argv, *named, str(context)], switch) != 0:
            raise BuildFailed(f"The build of llama.cpp failed: {host.why()} (log: {host.log})")
    finally:
        if how.buildkit == "none":
            host.docker.attempt("image", "prune", "--force", "--filter", f"label={LABEL_STAGE}=build")
    try:
        verify(host, candidate)
        host.docker.text("tag", candidate, request.image())
    finally:
        host.docker.attempt("rmi", candidate)


def proxy_names(environment: t.Mapping[str, str]) -> list[str]:
    """Return the proxy variables that are set, in both spellings programs look for."""
    return [name for lower in PROXIES for name in (lower, lower.upper()) if environment.get(name)]


def build_command(
    docker: str,
    how: Settings,
    proxies: t.Sequence[str],
    network: str,
    secrets: t.Sequence[Path],
) -> list[str]:
    """Return the ``docker build`` command without what it makes and from what."""
    argv = [docker, "build", "--build-arg", f"BASE={how.base}", "--build-arg", f"JOBS={how.jobs}"]
    argv += ["--network", network] if network != "default" else []
    # named without a value, docker takes it from its environment: a password in it shows in no process list
    argv += [word for name in proxies for word in ("--build-arg", name)]
    if how.buildkit != "none":
        argv += [word for file in secrets for word in ("--secret", f"id={file.name},src={file}")]
    return argv + (["--load"] if how.buildkit == "buildx" else [])


def verify(host: BuildHost, image: str) -> str:
    """Return what the server in ``image`` says of its version; raise BuildFailed when it does not run here."""
    sandbox = ("--network", "none", "--read-only", "--cap-drop", "ALL", "--entrypoint", "/app/llama-server")
    rc, out, err = host.docker.attempt("run", "--rm", *sandbox, image, "--version")
    if rc == 0:
        return " ".join((out + err).split())
    said = " ".join((err or out).split())[-300:] or "it said nothing"
    # 132 is SIGILL
    why = "it uses instructions that this processor does not have; choose a lower cpu_level" if rc == 132 else said
    raise BuildFailed(f"llama-server in {image} does not run on this host (exit status {rc}): {why}.")


def pull_image(host: BuildHost, reference: str) -> None:
    """Pull ``reference`` and try it; an image that does not run here is not kept."""
    if host.stream([host.docker.executable, "pull", reference], {}) != 0:
        raise BuildFailed(f"The pull of {reference} failed: {host.why()} (log: {host.log})")
    try:
        verify(host, reference)
    except BuildFailed:
        host.docker.attempt("rmi", reference)
        raise
