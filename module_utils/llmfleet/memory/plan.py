"""Whether a model fits a host, with which settings, and what would make it fit. Pure.

Only lasting facts enter (what a device has, what other services of the plan take), never what is free at the moment:
a second run must come to the same plan while the service runs.
"""

from __future__ import annotations

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory import llama_judge
from ansible.module_utils.llmfleet.memory.shape import Shape
from ansible.module_utils.llmfleet.memory.terms import RAM, Ask, DeviceRoom, Need, Room, Verdict, gib

__all__ = ["RAM", "Ask", "DeviceRoom", "Need", "Room", "Verdict", "gib", "judge"]


def judge(shape: Shape, ask: Ask, room: Room) -> Verdict:
    """Return whether the model of ``shape`` fits into ``room`` as asked; what the user set is checked, never changed.

    Raises BadInput for an engine without a memory plan, and for settings that no amount of memory would make work.
    """
    if ask.engine == "llama_server":
        return llama_judge.judge(shape, ask, room)
    if ask.engine == "vllm":
        from ansible.module_utils.llmfleet.memory import vllm

        return vllm.judge(shape, ask, room)
    raise BadInput(f"there is no memory plan for the engine {ask.engine!r}; known: llama_server, vllm")
