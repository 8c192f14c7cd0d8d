"""What to do with a service's containers, decided from what is there.

A roll-out creates ``<name>.next`` (nothing is disturbed if that fails), renames the running container to
``<name>.previous`` and stops it, gives the new one its name and starts it. ``.previous`` goes once the new one
is verified. Whatever an interruption leaves behind, the names tell how far it came.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.spec import Spec, changes

PREVIOUS = ".previous"
NEXT = ".next"


@dataclass(frozen=True)
class Seen:
    """A container as found: its stored specification (None: foreign or unreadable) and whether it runs."""

    spec: Spec | None
    status: str

    @property
    def alive(self) -> bool:
        """Running and not in a restart loop."""
        return self.status == "running"


@dataclass(frozen=True)
class Decision:
    """``action`` with the reason a user reads. Actions:

    keep: equal and alive, verify only; start: equal, not alive; create: nothing there; replace: hand over;
    finish: an interrupted hand-over whose new container is the wanted one; restore: put .previous back as it is;
    stop; remove; none.
    """

    action: str
    why: str

    @property
    def changes(self) -> bool:
        """Whether carrying it out changes the host (verification alone does not)."""
        return self.action not in ("keep", "none")


def _same(spec: Spec | None, wanted: Spec) -> bool:
    return spec is not None and not changes(spec, wanted)


def decide(state: str, current: Seen | None, previous: Seen | None, wanted: Spec | None) -> Decision:
    """Return what brings the service to ``state``; ``wanted`` is its specification (None unless started)."""
    if state == "absent":
        there = current or previous
        return Decision("remove", "state is absent") if there else Decision("none", "there is no such container")
    if state == "stopped":
        if previous:
            return Decision("stop", "an interrupted roll-out is undone first")
        if current is None:
            return Decision("none", "there is no such container")
        # "created" never ran; "exited" and "dead" have ended
        ended = current.status in ("exited", "created", "dead")
        return Decision("none", "it is stopped") if ended else Decision("stop", f"it is {current.status}")
    if wanted is None:
        raise ValueError("a started service needs a specification")
    if previous:
        return _recover(current, previous, wanted)
    if current is None:
        return Decision("create", "there is no such container yet")
    if not _same(current.spec, wanted):
        return Decision("replace", "; ".join(changes(current.spec, wanted)) or "its specification cannot be read")
    if not current.alive:
        return Decision("start", f"it is {current.status}")
    return Decision("keep", "nothing differs")


def _recover(current: Seen | None, previous: Seen, wanted: Spec) -> Decision:
    interrupted = "a former roll-out was interrupted"
    if current and _same(current.spec, wanted):
        return Decision("finish", f"{interrupted} before the new container was verified")
    if _same(previous.spec, wanted):
        return Decision("restore", f"{interrupted}; the previous container is the wanted one")
    return Decision("replace", f"{interrupted}; " + "; ".join(changes(previous.spec, wanted)))


def describe(container: t.Mapping[str, t.Any] | None, spec: Spec | None) -> Seen | None:
    """Return ``docker inspect`` output as Seen."""
    return None if container is None else Seen(spec, container["State"]["Status"])
