"""Errors a user can act on."""

from __future__ import annotations


class LlmfleetError(ValueError):
    """Something the user can correct; ``str(error)`` is one clear sentence naming the thing, the cause and the fix."""


class BadInput(LlmfleetError):
    """A value in the inventory is wrong; nothing has been changed."""
