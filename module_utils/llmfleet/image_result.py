"""What the llama_cpp_image module says of an image: from its labels where it is there, else from what was asked."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import image_request
from ansible.module_utils.llmfleet.image_choice import Choice
from ansible.module_utils.llmfleet.image_request import BuildRequest
from ansible.module_utils.llmfleet.toolchain_choice import Chosen

Data = dict[str, t.Any]


def describe(
    choice: Choice, images: t.Sequence[t.Mapping[str, t.Any]], request: BuildRequest, pruned: t.Sequence[str]
) -> Data:
    """Return the module's result for ``choice``, as far as it is about the image.

    ``images`` are the rows of image_look; in check mode the chosen one may be missing among them.
    """
    image = next((row for row in images if choice.image in row["references"]), None)
    labels = image["labels"] if image else {}
    revision = labels.get(image_request.LABEL_REVISION, request.ref)
    code = labels.get(image_request.LABEL_ARCHITECTURES, "").split(";") if image else request.architectures
    before: Data = {"image": choice.image if choice.action == "keep" else None}
    after: Data = {"image": choice.image}
    if pruned:
        before["older"], after["older"] = list(pruned), []
    return {
        "action": choice.action,
        "image": choice.image,
        "why": choice.why,
        "image_id": image["id"] if image else "",
        "size_bytes": image["size_bytes"] if image else 0,
        "layers": image["layers"] if image else [],
        "variant": request.variant,
        "contents": request.contents,
        "recipe": request.recipe(),
        "build_key": request.key(),
        "commit": revision if image_request.is_commit(revision) else "",
        "cpu_level": labels.get(image_request.LABEL_CPU_LEVEL, request.cpu_level),
        "cuda": labels.get(image_request.LABEL_CUDA, ""),
        "architectures": [entry for entry in code if entry],
        "diff": {"before": before, "after": after},
    }


def toolchain(chosen: Chosen) -> Data:
    """Return what the result holds of the compilers."""
    row = chosen.toolchain
    return {
        "toolchain": {"kind": row.kind, "image": row.base, "distribution": row.distribution, "how": chosen.how},
        "cuda": row.cuda,
        "base": {"kind": chosen.how, "image": row.base},
    }
