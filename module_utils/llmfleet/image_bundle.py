"""Images as a file: what stands beside the file, and which images are there, read and judged. Pure.

Beside ``llm.tar.gz`` stand ``llm.tar.gz.sha256``, as sha256sum(1) writes it, and ``llm.tar.gz.json``, which says what
the archive holds, so that nobody has to unpack gigabytes to find out.
"""

from __future__ import annotations

import json
import re
import typing as t

from ansible.module_utils.llmfleet import image_identity
from ansible.module_utils.llmfleet.image_identity import Image

Content = dict[str, t.Any]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"\\?([0-9a-fA-F]{64})( [ *](?P<name>.+))?$")
"""A line of sha256sum(1): the digest, alone or followed by the name of the file; a backslash when that is escaped."""


def digest(text: str, name: str) -> str:
    """Return the digest that ``text`` gives for the file ``name``, "" when it gives none.

    A file of several lines has one for each file; a line with a single digest belongs to whatever stands beside it.
    """
    lines = [match for match in map(_LINE.match, text.splitlines()) if match]
    named = [line for line in lines if (line["name"] or "").rpartition("/")[2] == name]
    # renamed after it was written
    chosen = named or (lines if len(lines) == 1 else [])
    return chosen[0][1].lower() if chosen else ""


def content(text: str) -> Content:
    """Return {images, sha256} that ``text`` says, {} when it is not what llmfleet writes."""
    try:
        said = json.loads(text)
        images = [image_identity.from_data(row).as_data() for row in said["images"]]
        found = _DIGEST.fullmatch(said["sha256"])
    except (ValueError, KeyError, TypeError):  # among them BadInput and what JSON cannot be
        return {}
    return {"images": images, "sha256": said["sha256"]} if images and found else {}


def judge(path: str, there: bool, digest_text: str, content_text: str) -> Content:
    """Return what is known of the archive at ``path`` before it is read, to load it.

    ``there`` says whether it exists; ``digest_text`` and ``content_text`` are those of the files beside it, "" for
    none. The result is {sha256, images, problem}. ``images`` is empty when nobody wrote down what it holds, or when
    that belongs to another archive; ``problem`` is a sentence, "" when the file can be loaded.
    """
    name = path.rpartition("/")[2]
    wanted = digest(digest_text, name)
    problem = ""
    if not there:
        problem = f"there is no file {path} on this machine; correct image_bundle_path"
    elif not digest_text.strip():
        problem = (
            f"{path}.sha256 is missing; copy it along with the archive, or make it where that was written: "
            f"sha256sum {name} >{name}.sha256"
        )
    elif not wanted:
        problem = f"{path}.sha256 has no digest of {name} as sha256sum writes it; copy it again"
    known = content(content_text)
    return {
        "sha256": wanted,
        "images": known["images"] if known.get("sha256") == wanted else [],
        "problem": f"image_bundle: {problem}" if problem else "",
    }


def found(inspected: str, names: t.Sequence[str]) -> list[dict[str, t.Any]]:
    """Return the images ``names`` as ``docker image inspect names...`` describes them; those it lacks are left out."""
    by_name = {}
    for row in json.loads(inspected or "[]"):
        for reference in (*(row.get("RepoTags") or ()), *(row.get("RepoDigests") or ())):
            by_name[reference] = row
    images = []
    for name in names:
        # docker takes a name without a tag for `latest`
        reference = next((one for one in (name, f"{name}:latest") if one in by_name), "")
        if reference:
            images.append(image_identity.from_inspect(reference, by_name[reference]).as_data())
    return images


def lacking(images: t.Sequence[t.Any], inspected: str) -> list[str]:
    """Return the names of those ``images`` of an archive that the engine lacks, whichever way it keeps them."""
    wanted = [image_identity.from_data(row) for row in images]
    there = _by_reference(found(inspected, [image.reference for image in wanted]))
    return [
        image.reference for image in wanted if image.reference not in there or not image.same(there[image.reference])
    ]


def same(images: t.Sequence[t.Any], others: t.Sequence[t.Any]) -> bool:
    """Whether two hosts, or a host and an archive, have the same images under the same names."""
    one, other = _by_reference(images), _by_reference(others)
    return one.keys() == other.keys() and all(image.same(other[name]) for name, image in one.items())


def _by_reference(images: t.Sequence[t.Any]) -> dict[str, Image]:
    return {image.reference: image for image in map(image_identity.from_data, images)}
