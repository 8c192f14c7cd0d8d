"""Who gets an image from whom, so that the host that has it sends few copies."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet.errors import BadInput

FAN_OUT = 2


def spread(builder: str, receivers: t.Sequence[str], fan_out: int = FAN_OUT) -> dict[str, list[str]]:
    """Return for each receiver the hosts it asks, in order: its parent, the parent's parent, ... the builder last.

    The hosts form a tree in which each passes every chunk on to ``fan_out`` others while it still receives; hosts
    that come early in ``receivers`` stand near the builder. With a fan-out of 1 it is a chain. As long as all hosts
    do their part the builder sends ``fan_out`` copies, however many receivers there are.
    """
    if fan_out < 1:
        raise BadInput(f"a host must pass an image on to at least one other, not {fan_out}")
    names = [builder, *dict.fromkeys(name for name in receivers if name != builder)]
    peers: dict[str, list[str]] = {}
    for place, name in enumerate(names[1:], start=1):
        parent = names[(place - 1) // fan_out]
        peers[name] = [parent, *peers.get(parent, [])]
    return peers
