"""Finding the line of a build log that says why the build failed."""

from __future__ import annotations

import re
import typing as t

_PREFIX = re.compile(r"^(#\d+ (\d+\.\d+ )?|\x1b\[[0-9;]*m)+")
_KNOWN = (
    (
        re.compile(r"no space left on device", re.IGNORECASE),
        "the disk is full; free some space where docker keeps images",
    ),
    (
        re.compile(
            r"Killed signal terminated program|died due to signal 9|cannot allocate memory|virtual memory exhausted",
            re.IGNORECASE,
        ),
        "memory ran out while compiling; build with fewer jobs or on a host with more memory",
    ),
    (
        re.compile(r"nvcc fatal\s*: Unsupported gpu architecture"),
        "this CUDA toolkit does not compile for that GPU, older ones for old and newer ones for new GPUs do; "
        "leave the choice to the plan, or name toolkits that have it",
    ),
    (
        re.compile(r"unsupported GNU version! gcc versions later than"),
        "this CUDA toolkit is too old for the compiler of the distribution; build on an older base",
    ),
)
"""Failures with one cause and one remedy, wherever in the log they stand."""

# what a program says when it fails, from the surest sign to the vaguest; the first line of the surest kind is the cause
_SIGNS = (
    re.compile(r"(^|\s|:)(fatal )?error: (?!failed to solve|process )|^CMake Error|^E: |undefined reference to|^ld: "),
    re.compile(r"^fatal: (?!not a git repository)|: not found$|: command not found|^ninja: error|^collect2: error"),
    re.compile(r"^ERROR[: ]|failed to solve|executor failed running|returned a non-zero code|^error:|denied|^Error "),
)


def clean(line: str) -> str:
    """Return a line of a log without the builder's step number, time and colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", _PREFIX.sub("", line)).rstrip()


def first_error(lines: t.Iterable[str]) -> str:
    """Return the first real error of a build log on one line, else its last words."""
    text = [clean(line) for line in lines]
    for pattern, advice in _KNOWN:
        for line in text:
            if pattern.search(line):
                return f"{line.strip()} ({advice})"
    for sign in _SIGNS:
        for number, line in enumerate(text):
            if sign.search(line):
                return _with_message(text, number)
    return next((line.strip() for line in reversed(text) if line.strip()), "the builder said nothing")


def _with_message(text: t.Sequence[str], number: int) -> str:
    """Return the line; a CMake error carries its message in the indented lines below it."""
    line = text[number].strip()
    if not line.startswith("CMake Error"):
        return line
    message: list[str] = []
    for following in text[number + 1 : number + 12]:
        if following.strip() and not following.startswith(" "):
            break
        if not following.strip() and message:
            break
        message += following.split()
    return " ".join([line, *message])
