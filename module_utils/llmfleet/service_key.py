"""What one key of a service may hold, as data: checked by services, shown by service_schema."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """What one key may hold. The value that it has when it is left out is allowed always, whatever the bounds say.

    ``about`` is Markdown for those who write it: a sentence or two, with units and what 0 or an empty text means.
    """

    kind: t.Any
    words: str
    """The type, in a sentence."""
    about: str
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    hint: str = ""
    """What to say to a number out of bounds beside the bounds."""
    pattern: str = ""
    """Of the whole text (of a list: of each item), in what the regular expressions of Python and ECMAScript have in
    common."""
    must: str = ""
    """What is said of a text that does not match."""
    secret: bool = False
    """Whether no message may show the value."""
