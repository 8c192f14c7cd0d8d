"""Which llama.cpp image a host gets: the one it has, a published one, or one built here, and why."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.llama_image import BuildRequest, published_tag
from ansible.module_utils.llmfleet.registries import join_reference, split_reference


@dataclass(frozen=True)
class Published:
    """Where the official image may be pulled from."""

    registries: tuple[str, ...]
    repository: str
    tag: str = ""
    digest: str = ""

    def references(self, request: BuildRequest) -> list[str]:
        """Return what to pull for ``request``, from each registry; empty when no published image fits it."""
        tag = self.tag or published_tag(request.variant, request.ref, request.architecture)
        if not tag and not self.digest:
            return []
        return [join_reference(registry, self.repository, tag, self.digest) for registry in self.registries]


@dataclass(frozen=True)
class Choice:
    """keep, pull or build; ``image`` is what services are started from afterwards."""

    action: str
    image: str
    why: str


def unfit(published: Published, request: BuildRequest) -> str:
    """Return why no published image can stand in for ``request``, "" when one can."""
    if request.cmake_flags:
        return "extra CMake flags can only be honoured by building"
    if not published.references(request):
        return f"no published image is known for ref {request.ref[:12]} on {request.architecture}"
    return ""


def acceptable(source: str, published: Published, request: BuildRequest) -> list[str]:
    """Return the images that make any work needless when the host has one of them, best first."""
    pulled = [] if unfit(published, request) else published.references(request)
    return {"build": [request.image()], "pull": pulled, "auto": [request.image(), *pulled]}[source]


def keep(present: t.Collection[str], images: t.Sequence[str]) -> Choice | None:
    """Return the choice to keep an image the host has."""
    for image in images:
        if image in present:
            return Choice("keep", image, "it is on this host, made from the same inputs")
    return None


def choose(
    source: str, published: Published, request: BuildRequest, problem: t.Callable[[str], str]
) -> tuple[Choice, list[dict[str, str]]]:
    """Return (choice, what was tried) for a host without the image; ``problem`` tells why a registry cannot be used."""
    if source == "build":
        return Choice("build", request.image(), "source is build"), []
    reason = unfit(published, request)
    if source == "pull" and reason:
        raise BadInput(f"source is pull, but {reason}; set tag to a published one, or source to auto or build.")
    tried: list[dict[str, str]] = []
    for reference in [] if reason else published.references(request):
        registry = split_reference(reference)[0]
        failure = problem(registry)
        if not failure:
            return Choice("pull", reference, f"{registry} answers and its image fits this host"), tried
        tried.append({"candidate": reference, "result": failure})
    reason = reason or "no registry of the published image answers"
    if source == "pull":
        said = "; ".join(f"{row['candidate']}: {row['result']}" for row in tried)
        raise BadInput(
            f"source is pull, but {reason} ({said}); name one that does in registries, or set source to auto."
        )
    return Choice("build", request.image(), reason), tried
