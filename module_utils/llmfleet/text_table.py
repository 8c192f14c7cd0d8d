"""Tables for terminals: columns of equal width also where a text takes two places a character. Pure."""

from __future__ import annotations

import typing as t
import unicodedata


def width(text: str) -> int:
    """Return how many places ``text`` takes on a terminal (Unicode Standard Annex 11)."""
    return sum(
        0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def aligned(rows: t.Sequence[t.Sequence[t.Any]]) -> str:
    """Return ``rows``, all of the same length, as lines with their columns aligned."""
    if not rows:
        return ""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(width(row[column]) for row in texts) for column in range(len(texts[0]))]
    lines = ("  ".join(cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths)) for row in texts)
    return "\n".join(line.rstrip() for line in lines)


def without_empty(rows: t.Sequence[t.Sequence[str]]) -> list[list[str]]:
    """Return ``rows``, the first of which is the head, without the columns that say nothing."""
    used = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    return [[row[column] for column in used] for row in rows]
