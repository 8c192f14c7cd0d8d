"""The sentences that refuse a key of a service, and what each key may hold by itself."""

from __future__ import annotations

import difflib
import re
import sys
import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.service_key import Key

_READABLE = 20
"""Words that a sentence can list."""


def close(word: str, known: t.Iterable[str]) -> str:
    """Return a hint at the one of ``known`` that was meant, "" where none is near."""
    word, known = word.lower(), list(known)
    begun = [name for name in known if len(word) > 2 and name.startswith(word)]
    found = begun if len(begun) == 1 else difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean `{found[0]}`?)" if found else ""


def nearest(word: str, known: t.Iterable[str]) -> str:
    """Return a hint at the one of ``known`` that was meant, or all of them where they can be read."""
    known = list(known)
    listed = f"known: {', '.join(known)}" if len(known) <= _READABLE else "docs/services.md lists all keys"
    return close(word, known) or f" ({listed})"


def shown(value: t.Any) -> str:
    """Return a value as a message may show it: what is inside of lists and mappings may be secret."""
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value)


def check(condition: bool, where: str, problem: str) -> None:
    """Raise BadInput with the sentence unless ``condition`` holds."""
    if not condition:
        raise BadInput(f"{where}: {problem}")


def check_choice(name: str, said: str, choices: t.Sequence[str], where: str) -> None:
    """Raise BadInput unless ``said`` is one of ``choices``."""
    check(said in choices, where, f"`{name}` must be one of {', '.join(choices)}, not {said!r}{close(said, choices)}")


def check_bounds(where: str, given: t.Any, unset: t.Any, keys: t.Mapping[str, Key], prefix: str = "") -> None:
    """Check what each key may hold by itself; ``unset`` has the values of keys that are left out."""
    for name, key in keys.items():
        said = getattr(given, name, None)
        if said is None or said == getattr(unset, name, None):
            continue
        if key.choices:
            check_choice(prefix + name, said, key.choices, where)
        if key.pattern:
            for text in (item[0] if isinstance(item, tuple) else item for item in _items(said)):
                check_text(prefix + name, key, text, where)
        if key.minimum is not None:
            _check_number(prefix + name, key, said, where)


def _items(said: t.Any) -> tuple[t.Any, ...]:
    return tuple(said) if isinstance(said, (tuple, dict)) else (said,)


def check_text(name: str, key: Key, said: str, where: str) -> None:
    """Raise BadInput for a text that does not match the pattern of ``key``."""
    found = "" if key.secret else f", not {said!r}"
    check(re.fullmatch(key.pattern, said) is not None, where, f"`{name}` {key.must}{found}")


def _check_number(name: str, key: Key, said: float, where: str) -> None:
    words = f"must be at least {key.minimum}, not {said}" if key.minimum else f"may not be negative: {said}"
    if key.maximum is not None:
        words = f"must be between {key.minimum} and {key.maximum}, not {said}"
    above = key.maximum is not None and not said <= key.maximum
    check(said >= (key.minimum or 0) and not above, where, f"`{name}` {words}{f' ({key.hint})' if key.hint else ''}")
    check(abs(said) <= sys.float_info.max, where, f"`{name}` must be a finite number, not {said}")
