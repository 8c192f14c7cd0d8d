"""The words that schemas for editors are made of: refusals, choices, templates, headings. Pure."""

from __future__ import annotations

import re
import typing as t

Schema = dict[str, t.Any]

TEMPLATE = r"\{[{%]"
_SPELLED = {"api": "API", "args": "arguments", "dtype": "data type", "env": "environment", "gpu": "GPU", "kv": "KV"}


def refusals(words: t.Mapping[str, str], end: str) -> list[Schema]:
    """Return one refusal for each reason in ``words``."""
    reasons = sorted(set(words.values()))
    said = {why: [word for word, reason in words.items() if reason == why] for why in reasons}
    return [not_(f"(?:{spelled(said[why])}){end}", f"It may not be given here: {why}.") for why in reasons]


def owned(owned: t.Mapping[str, str], end: str) -> list[Schema]:
    """Return one refusal for each key that says what the words of ``owned`` would say."""
    keys = {key: [word for word, said in owned.items() if said == key] for key in owned.values()}
    return [not_(f"(?:{spelled(words)}){end}", f"Say it with `{key}`.") for key, words in keys.items()]


def spelled(words: t.Iterable[str]) -> str:
    """Return an expression for the words; re.escape would escape `-`, which not every dialect allows.

    Engines read `_` in long flags as `-`, and what follows a point as a member of what the flag takes.
    """
    said = []
    for word in words:
        text = re.sub(r"[.^$*+?{}\[\]\\|()]", r"\\\g<0>", word)
        said.append(f"--{text[2:].replace('-', '[-_]')}(?:[.][^=]*)?" if word.startswith("--") else text)
    return "|".join(said)


def not_(pattern: str, why: str) -> Schema:
    """Return that a text does not begin with ``pattern``, and what editors say of one that does."""
    return {"pattern": f"^(?!{pattern})", "patternErrorMessage": why}


def one_of(values: t.Sequence[t.Any], why: str = "") -> Schema:
    """Return that a value is one of ``values``, null, or a template."""
    said = {"enum": [*(value for value in values if value is not None), None], **({"errorMessage": why} if why else {})}
    return {"anyOf": [said, {"type": "string", "pattern": TEMPLATE}]}


def template(words: str) -> Schema:
    """Return that a text is a template, and what editors say of another."""
    return {"pattern": TEMPLATE, "patternErrorMessage": f"It must be {words}, or a template."}


def any_case(pattern: str) -> str:
    """Return a pattern (without sets of characters) that takes letters of both cases."""
    return re.sub(
        r"\\.|[A-Za-z]", lambda at: at[0] if at[0][0] == "\\" else f"[{at[0].upper()}{at[0].lower()}]", pattern
    )


def ref(name: str) -> Schema:
    """Return a reference to one of the `$defs`."""
    return {"$ref": f"#/$defs/{name}"}


def title(name: str) -> str:
    """Return the name of a key as a heading."""
    text = " ".join(_SPELLED.get(word, word) for word in name.split("_"))
    return text[0].upper() + text[1:] if name != "model_sha256" else "sha256 of the model"
