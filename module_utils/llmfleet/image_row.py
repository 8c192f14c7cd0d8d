"""A host's row in the plan of a fleet's llama.cpp images: its fields, and what it says of the host alone. Pure."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import image_need
from ansible.module_utils.llmfleet.image_need import AUTO, CUDA

Data = dict[str, t.Any]

KEEP, PROVIDE, RECEIVE, NONE, REFUSE = "keep", "provide", "receive", "none", "refuse"

LOCALHOST = "localhost"
"""How Ansible names the controller when a task is delegated to it."""

FROM_NEED = ("wanted", "source", "variant", "variant_why", "contents", "ref", "tag", "published_why")
EMPTY: Data = {
    "action": NONE,
    "wanted": image_need.NONE,
    "source": AUTO,
    "why": "",
    "image": "",
    "variant": "",
    "variant_why": "",
    "contents": "",
    "ref": "",
    "tag": "",
    "published_why": "",
    "architectures": [],
    "toolkits": [],
    "cpu_level": "",
    "gpu_access": "",
    "coverage": "",
    "builder": "",
    "has": False,
    "leader": "",
    "members": [],
    "receivers": [],
    "answer": {},
    "warnings": [],
    "problems": [],
}
"""A row. ``members`` are the hosts of its group, ``builder`` the machine that provides the image for all of them, which
``has`` it already or pulls or builds it, ``receivers`` those it is sent to, and ``leader`` the member on whose behalf
what is done once for the group is done: the builder itself, when it is a member. ``coverage`` says in words what bounds
the native code of the group, ``tag`` is that of the published image that suits, and ``published_why`` why none does.
``answer``, in the leader's row, is what the builder has said to this (image_rounds)."""


def first_row(need: Data) -> Data:
    """Return the row of a host that does not depend on others, with an empty action where it lacks the image."""
    row: Data = {**EMPTY, **{name: need[name] for name in FROM_NEED}}
    row.update(warnings=list(need["warnings"]), problems=list(need["problems"]))
    if need["wanted"] == image_need.NONE:
        return {**row, "action": NONE, "why": "no service needs one", "problems": [], "warnings": []}
    if need["problems"]:
        return {**row, "action": REFUSE, "why": need["problems"][0]}
    # with a known ref all that suit are equal: the one that was there first stays (they come newest first), so that
    # what was made for others since then restarts nobody
    for image in reversed(need["images"]) if need["ref"] else need["images"]:
        reference = image_need.suitable(need, image)
        if reference:
            row.update(action=KEEP, image=reference, why=_keep_why(need, reference))
            row["warnings"] += latest_warning(need)
            return row
    return {**row, "action": ""}


def _keep_why(need: Data, reference: str) -> str:
    if reference in need["references"]:
        return "it is on this host, as published"
    if not need["ref"]:
        return "it is on this host"
    covers = ", with native code for its GPUs" if need["variant"] == CUDA else ""
    return f"it is on this host, made from the same inputs{covers}"


def latest_warning(need: Data) -> list[str]:
    """Return the warning, one or none, for a host whose image may not be what `latest` is today."""
    if need["ref"]:
        return []
    return [f"it is not known what llama_cpp_image_ref `latest` is today: {need['ref_why']}; the image there is kept"]


def called(builder: str) -> str:
    """Return a builder in words."""
    return "the controller" if builder == LOCALHOST else builder
