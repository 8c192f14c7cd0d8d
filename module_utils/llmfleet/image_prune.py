"""Taking older llama.cpp images away, but for some that a roll-back can go to and those that containers use.

What is old is decided on data; `prune` at the end does it. Edge code.
"""

from __future__ import annotations

import re
import typing as t
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.llmfleet import pulled_images
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.image_request import LABEL_CONTENTS, LABEL_VARIANT, REPOSITORY
from ansible.module_utils.llmfleet.pulled_images import Family

OURS = f"{REPOSITORY}:"
SOURCES_FOLDER = Path("sources", "llama.cpp")
KEPT_SOURCES = ("git-*.tar", "sdist-*.tar.gz", "archive-*.tar.gz")


@dataclass(frozen=True)
class Image:
    """An image that may go: ``names`` are those of its references that this project gave or pulled."""

    identity: str
    names: tuple[str, ...]


def family(image: t.Mapping[str, t.Any], pulled: t.Mapping[str, Family]) -> tuple[Family | None, tuple[str, ...]]:
    """Return (family, names) of a row of image_look as far as it is ours; (None, ()) for an image of somebody else."""
    references = image["references"]
    own = tuple(name for name in references if name.startswith(OURS))
    if own:
        # the tag says it too, and is all that images of the first releases have
        tag = re.fullmatch(r"([a-z]+)(?:-([a-z]+))?-[0-9a-f]{12}", own[0][len(OURS) :])
        labels = image["labels"]
        variant = labels.get(LABEL_VARIANT) or (tag[1] if tag else "")
        contents = labels.get(LABEL_CONTENTS) or (tag[2] if tag and tag[2] else "server")
        return (variant, contents), own
    names = tuple(name for name in references if name in pulled)
    return (pulled[names[0]], names) if names else (None, ())


def older(
    images: t.Sequence[t.Mapping[str, t.Any]],
    chosen: str,
    wanted: Family,
    keep: int,
    pulled: t.Mapping[str, Family],
) -> list[Image]:
    """Return the images of the family ``wanted`` beyond the ``keep`` newest ones and the chosen one, oldest last."""
    found = []
    for image in sorted(images, key=lambda row: (row["created"], row["id"]), reverse=True):
        kind, names = family(image, pulled)
        if kind == wanted and chosen not in image["references"]:
            found.append(Image(image["id"], names))
    return found[keep:]


def users(docker: Docker, identity: str) -> list[str]:
    """Return the names of the containers, running or not, that were made from an image or from one built on it."""
    return docker.text("ps", "--all", "--filter", f"ancestor={identity}", "--format", "{{.Names}}").split()


def take_away(docker: Docker, image: Image, check_mode: bool) -> list[str]:
    """Remove the names of ``image``, and with the last name the image; return why not: containers, or docker's words.

    By name and not by id: an image that someone has tagged under a name of his own keeps that one.
    """
    found = users(docker, image.identity)
    if found or check_mode:
        return found
    rc, _out, said = docker.attempt("rmi", *image.names)
    return [" ".join(said.split())] if rc != 0 else []


def take_all_away(
    docker: Docker, images: t.Mapping[str, t.Sequence[str]], check_mode: bool
) -> tuple[list[str], dict[str, list[str]]]:
    """Remove ``images`` (id -> names); return (the names that went, first name -> why the image stays)."""
    removed: list[str] = []
    in_use: dict[str, list[str]] = {}
    for identity, names in images.items():
        reasons = take_away(docker, Image(identity, tuple(names)), check_mode)
        if reasons:
            in_use[names[0]] = reasons
        else:
            removed += names
    return removed, in_use


def prune(
    docker: Docker, work: Path, images: t.Sequence[Image], check_mode: bool
) -> tuple[list[str], dict[str, t.Any]]:
    """Remove ``images`` and their logs; return (what went, name -> why it stays)."""
    gone: list[str] = []
    stays: dict[str, t.Any] = {}
    for image in images:
        reasons = take_away(docker, image, check_mode)
        if reasons:
            stays[image.names[0]] = reasons
            continue
        gone += image.names
        if not check_mode:
            for name in image.names:
                with suppress(FileNotFoundError):
                    (work / "logs" / f"llama_cpp-{name.rpartition('-')[2]}.log").unlink()
    if gone and not check_mode:
        pulled_images.forget(work, gone)
    return gone, stays


def prune_sources(work: Path, keep: int) -> list[str]:
    """Remove the source archives but for the one used last and ``keep`` more; return their paths."""
    folder = work / SOURCES_FOLDER
    found = [path for pattern in KEPT_SOURCES for path in folder.glob(pattern)]
    found.sort(key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    for path in found[keep + 1 :]:
        path.unlink()
    return [str(path) for path in found[keep + 1 :]]
