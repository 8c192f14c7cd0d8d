"""Which llama.cpp image a host gets: the one it has, a published one, or one built here, and why."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.cpu_level import CPU_LEVELS
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_request import (
    LABEL_ARCHITECTURES,
    LABEL_CPU_LEVEL,
    LABEL_CUDA,
    LABEL_RECIPE,
    REPOSITORY,
    BuildRequest,
)
from ansible.module_utils.llmfleet.registries import join_reference, split_reference

Image = t.Mapping[str, t.Any]
"""A row of image_look: references, id, created, labels and more."""


@dataclass(frozen=True)
class Published:
    """Where the official image may be pulled from; without tag and digest there is none that fits, ``why`` not."""

    registries: tuple[str, ...]
    repository: str
    tag: str = ""
    digest: str = ""
    why: str = ""

    def references(self) -> list[str]:
        """Return what to pull, from each registry; empty when no published image fits."""
        if not self.tag and not self.digest:
            return []
        return [join_reference(registry, self.repository, self.tag, self.digest) for registry in self.registries]


@dataclass(frozen=True)
class Choice:
    """keep, pull or build; ``image`` is what services are started from afterwards."""

    action: str
    image: str
    why: str


def unfit(published: Published, request: BuildRequest) -> str:
    """Return why no published image can stand in for ``request``, "" when one can."""
    if request.cmake_flags or request.fa_all_quants:
        return "extra CMake flags can only be honoured by building"
    if not published.tag and not published.digest:
        return published.why or f"no published image is known for ref {request.ref[:12]} on {request.architecture}"
    return "" if published.registries else "no registry of the published image is named"


def covers(
    labels: t.Mapping[str, str],
    recipe: str,
    architectures: t.Iterable[str],
    toolkits: t.Collection[str],
    cpu_level: str,
) -> bool:
    """Whether an image with ``labels`` is made by ``recipe`` and runs wherever one made for the rest would.

    ``architectures`` are those of CMake ("86-real"), ``toolkits`` the CUDA versions that the drivers take (none with
    a variant that is not CUDA), ``cpu_level`` is what the processors prove.
    """
    return (
        labels.get(LABEL_RECIPE) == recipe
        and _has_code(labels.get(LABEL_ARCHITECTURES, "").split(";"), architectures)
        and (not toolkits or _minor(labels.get(LABEL_CUDA, "")) in map(_minor, toolkits))
        and _level_distance(labels.get(LABEL_CPU_LEVEL, ""), cpu_level) is not None
    )


def _has_code(present: t.Collection[str], wanted: t.Iterable[str]) -> bool:
    """Whether there is native code for each GPU; code for GPUs to come is there or not, whatever it was made from."""
    future = any(entry.endswith("-virtual") for entry in present)
    return all(entry in present or (entry.endswith("-virtual") and future) for entry in wanted)


def _minor(version: str) -> tuple[str, ...]:
    # a patch of CUDA runs on the same drivers and compiles for the same GPUs
    return tuple(version.split(".")[:2])


def _level_distance(built: str, proven: str) -> int | None:
    """Return how many levels below ``proven`` code was built for, None when it does not run there."""
    names = [level.name for level in CPU_LEVELS]
    if built not in names or proven not in names:
        return None
    rows = CPU_LEVELS[names.index(built)], CPU_LEVELS[names.index(proven)]
    distance = names.index(built) - names.index(proven)
    return distance if distance >= 0 and rows[0].architecture == rows[1].architecture else None


def covering(images: t.Sequence[Image], request: BuildRequest) -> str:
    """Return the reference of the image that covers ``request``, the closest one of several, "" when none does."""
    found = []
    for image in images:
        labels = image["labels"]
        own = [name for name in image["references"] if name.startswith(f"{REPOSITORY}:")]
        if own and covers(labels, request.recipe(), request.architectures, request.toolkits, request.cpu_level):
            distance = _level_distance(labels[LABEL_CPU_LEVEL], request.cpu_level) or 0
            found.append((-distance, image["created"], own[0]))
    return max(found)[2] if found else ""


def keep(source: str, published: Published, request: BuildRequest, images: t.Sequence[Image]) -> Choice | None:
    """Return the choice to keep one of the ``images`` of a host, which makes any work needless."""
    present = {name for image in images for name in image["references"]}
    if source != "pull":
        if request.image() in present:
            return Choice("keep", request.image(), "it is on this host, made from the same inputs")
        other = covering(images, request)
        if other:
            return Choice("keep", other, "it is on this host, made from the same inputs, and covers what is needed")
    if source != "build" and not unfit(published, request):
        for reference in published.references():
            if reference in present:
                return Choice("keep", reference, "it is on this host, as published")
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
    for reference in [] if reason else published.references():
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
