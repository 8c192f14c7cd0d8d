"""A host's plan of the llama.cpp image, finished with what the machine that makes it says, and in words. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.image_need import BUILD, PULL
from ansible.module_utils.llmfleet.image_row import KEEP, PROVIDE, RECEIVE, REFUSE, called

Data = dict[str, t.Any]

FROM_ANSWER = ("image", "build_key", "tried", "image_id", "size_bytes", "base", "log", "cuda", "toolchain", "commit")
"""What a plan takes over from the module, whose other values are those that it was given."""

TOOLCHAINS = {"wheels": "from the package index", "packages": "of the distribution"}


def settle(row: Data, answer: Data | None, asked: str = "") -> Data:
    """Return a host's plan of the image: its row, completed with what the module said to the leader.

    ``asked`` identifies the inputs that it was made from, for those who come later. The ``action`` of the builder's own
    row becomes the module's (keep, pull, build), which all of a group have as ``making``. ``needed``: whether the role
    has work on behalf of the host. What only the module knows is empty where it was not asked.
    """
    made: Data = {"build_key": "", "tried": [], "image_id": "", "size_bytes": 0, "base": {}, "log": "", **row}
    made.update(asked=asked, cuda="", toolchain={}, commit="", making=KEEP if row["has"] else "")
    made["needed"] = row["action"] in (PROVIDE, RECEIVE)
    if not made["needed"] or row["has"] or not answer:
        return made
    if "image" not in answer:
        problem = _no_answer(row, answer)
        return {**made, "action": REFUSE, "needed": False, "why": problem, "problems": [*row["problems"], problem]}
    made.update({name: answer[name] for name in FROM_ANSWER if name in answer}, making=answer["action"])
    if row["action"] == PROVIDE:
        why = row["why"] if answer["action"] == BUILD and not row["tag"] else answer["why"]
        made.update(action=answer["action"], why=why)
        if answer["action"] == BUILD and row["coverage"]:
            made["why"] += f"; {row['coverage']}"
    return made


def _no_answer(row: Data, answer: Data) -> str:
    """Return why the machine that was to provide the image cannot, in one sentence."""
    builder = called(row["builder"])
    words = " ".join(str(answer.get("msg") or "the module gave no answer").split()).replace("Task failed: ", "")
    if answer.get("unreachable"):
        return (
            f"{builder}, which is to provide the image, is not reachable ({words}); mend that, or name another machine "
            "in llama_cpp_image_builder"
        )
    words = words if row["action"] == PROVIDE else f"{builder} cannot provide the image: {words}"
    if row["coverage"] and len(row["members"]) > 1:
        # which of them it is made difficult by
        words = f"{words.rstrip('.')} (one image is to serve {', '.join(row['members'])}: {row['coverage']})"
    return words


def lines(images: t.Mapping[str, Data]) -> list[str]:
    """Return a sentence per group of several hosts, or of native code, from the settled plans {host: plan}."""
    led = [image for host, image in images.items() if image["leader"] == host and image["needed"]]
    return [_line(image) for image in led if image["receivers"] or image["architectures"]]


def _line(image: Data) -> str:
    builder, parts = called(image["builder"]), []
    if image["architectures"] and image["making"] == BUILD:
        parts.append(f"{_toolkit(image)}, code {';'.join(image['architectures'])}: {image['coverage']}")
    verb = {KEEP: "has", PULL: "pulls"}.get(image["making"], "builds")
    sends = f" and sends it to {', '.join(image['receivers'])}" if image["receivers"] else ""
    parts.append(f"{builder} {verb} it{sends}")
    return f"image {image['image']}: {'; '.join(parts)}"


def _toolkit(image: Data) -> str:
    """Return the CUDA toolkit of a build, where it comes from, and what would do as well."""
    chosen, others = image["cuda"] or image["toolkits"][0], image["toolkits"]
    toolchain = image["toolchain"]
    place = TOOLCHAINS.get(toolchain.get("kind"), f"of {toolchain['image']}" if toolchain.get("image") else "")
    older = f" ({others[-1]} to {others[0]} would do)" if len(others) > 1 else ""
    return f"CUDA {' '.join(filter(None, [chosen, place]))}{older}"
