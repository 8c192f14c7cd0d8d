"""What differs from host to host in a Compose file: variables with the deployed value as default. Pure.

Values that look like secrets are variables without one.
"""

from __future__ import annotations

import re
import typing as t

_SECRET = re.compile(r"(?i)(^|[-_])(hft|api[-_]?key|token|secret|password)$")
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_UNFIT = re.compile(r"[${}\x00-\x1f\x7f]")
"""What a default value in `${...}` or a line of an env file cannot hold."""


class Variables:
    """The variables of one service, in the order they were asked for."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.rows: list[str] = []

    def __call__(self, name: str, value: str, *why: str) -> str:
        """Return what stands for ``value`` in the Compose file; ``why`` are comments about it."""
        if _UNFIT.search(value):
            return literal(value)
        self.rows += [*(f"# {line}" for line in why), f"{self._prefix}_{name}={_env_value(value)}"]
        return f"${{{self._prefix}_{name}:-{value}}}"

    def hidden(self, name: str) -> str:
        """Return what stands for a value that must not be written down."""
        variable = f"{self._prefix}_{re.sub(r'[^A-Z0-9]+', '_', name.upper()).strip('_')}"
        row = f"{variable}="
        if row not in self.rows:
            self.rows += ["# Looks like a secret: the value of the deployed service was left out", row]
        return f"${{{variable}:?set it in .env}}"


def literal(text: str) -> str:
    """Return ``text`` so that Compose takes it as it is."""
    return text.replace("$", "$$")


def _env_value(value: str) -> str:
    if re.fullmatch(r"[\w./:@%+,=\[\]-]*", value):
        return value
    if "'" not in value:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def prefixes(names: t.Iterable[str]) -> dict[str, str]:
    """Return name of service -> beginning of its variables, all of them different."""
    found: dict[str, str] = {}
    for name in names:
        base = prefix = re.sub(r"^(?=\d)", "_", re.sub(r"[^A-Z0-9]", "_", name.upper()))
        count = 1
        while prefix in found.values():
            count += 1
            prefix = f"{base}_{count}"
        found[name] = prefix
    return found


def command(argv: t.Sequence[str], variables: Variables) -> list[str]:
    """Return ``argv`` for Compose, without values that look like secrets."""
    words: list[str] = []
    before = ""
    for word in argv:
        flag, equals, value = word.partition("=")
        if word.startswith("-") and equals and (_SECRET.search(flag) or _LOGIN.search(value)):
            words.append(f"{flag}={variables.hidden(flag)}")
        elif before.startswith("-") and not word.startswith("-") and (_SECRET.search(before) or _LOGIN.search(word)):
            words.append(variables.hidden(before))
        else:
            words.append(literal(word))
        before = word
    return words


def environment(env: t.Mapping[str, str], variables: Variables) -> dict[str, str]:
    """Return ``env`` for Compose, without values that look like secrets."""
    return {
        key: variables.hidden(key) if _SECRET.search(key) or _LOGIN.search(value) else literal(value)
        for key, value in sorted(env.items())
    }
