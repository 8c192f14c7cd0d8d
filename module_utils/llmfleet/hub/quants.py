"""How the names of GGUF files tell the type of their weights, and which type is the better one. Pure.

Publishers spell types in many ways: `Qwen3-8B-Q4_K_M.gguf`, `qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf`,
`Llama-3.1-8B.Q4_K_M.gguf`, `UD-Q4_K_XL/…-UD-Q4_K_XL-00001-of-00003.gguf`, `BF16/…`, `gpt-oss-20b-mxfp4.gguf`,
`…-q4.gguf`.
"""

from __future__ import annotations

import re

from ansible.module_utils.llmfleet.weight_types import TYPES

_TAIL = r"(?:_(?:K|XXS|XXL|XS|XL|S|M|L|P|NL|KSS|KS|KT|KL|MOE|R\d|\d{1,2}))"
_TYPE = re.compile(
    rf"(?:^|(?<=[-._/+ ]))((?:UD-)?(?:I?Q\d{_TAIL}*|TQ\d_\d|BF16|FP?16|FP?32|FP8|MXFP4(?:_MOE)?|NVFP4))"
    r"(?=$|[-.+ ]|_[A-Za-z]{3})",
    re.IGNORECASE,
)

_SAME = {"FP16": "F16", "FP32": "F32", "MXFP4_MOE": "MXFP4", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "Q3_K": "Q3_K_M"}
"""Spellings of one type, as weight_types has them for llama.cpp's own tools."""

_WORTH = {
    # At the same size the old block types lose more than the newer ones (perplexities in llama.cpp's
    # tools/quantize/README.md): they stand below the neighbour whose bits they share.
    "Q5_1": 5.56,
    "Q5_0": 5.4,
    "Q4_1": 4.6,
    "Q4_0": 4.3,
    # only the size is in the name
    "Q8": 8.4,
    "Q6": 6.4,
    "Q5": 5.4,
    "Q4": 4.4,
    "Q3": 3.4,
    "Q2": 2.4,
    "MXFP4": 4.7,
    "NVFP4": 4.6,
    "FP8": 8.4,
}
BEST = 8.6
"""Worth up to which a type is taken unasked: Q8_0, which is not told apart from the original in use."""

_LARGER = {"XXL": 0.25, "XL": 0.2, "L": 0.1, "P": 0.1}
"""Publishers' own types with larger input and output layers: so much above the type they start from, in bits."""


def named_in(path: str) -> str:
    """Return the type that a GGUF file's path names, as it spells it; "" when it names none.

    The last one in the file's name counts, else that of the folder it lies in.
    """
    stem = path[: -len(".gguf")] if path.lower().endswith(".gguf") else path
    folder, _, name = stem.rpartition("/")
    for part in (name, folder.rpartition("/")[2]):
        found = _TYPE.findall(part)
        if found:
            return str(found[-1])
    return ""


def same(one: str, other: str) -> bool:
    """Return whether two names mean one type: `q4_k_m` and `Q4_K_M`, `fp16` and `F16`."""
    return canonical(one) == canonical(other)


def canonical(name: str) -> str:
    """Return the one spelling that all spellings of a type share."""
    word = name.strip().upper().replace("-", "_")
    prefix = "UD_" if word.startswith("UD_") else ""
    word = word[len(prefix) :]
    return prefix + _SAME.get(word, word)


def worth(name: str) -> float:
    """Return how much of the original a type keeps, in bits per weight: more is better, 0 is not known.

    Bits per weight are those of weight_types, which says where they come from.
    """
    word = canonical(name)
    # dynamic types give important layers more, so that they beat the plain ones of their name
    dynamic = 0.05 if word.startswith("UD_") else 0.0
    word = word[3:] if dynamic else word
    if word in _WORTH:
        return _WORTH[word] + dynamic
    if word in TYPES:
        return TYPES[word].bits + dynamic
    start, _, tail = word.rpartition("_")
    if tail in _LARGER:
        # Q3_K_XL is a larger Q3_K_L, UD-Q3_K_XL a better Q3_K_M
        larger = (f"{start}_L",) if tail != "L" and not dynamic else ()
        steps = (*larger, f"{start}_M", start, f"{start}_S", f"{start[:2]}_0")
        base = next((TYPES[row].bits for row in steps if row in TYPES), 0.0)
        return base + _LARGER[tail] + dynamic if base else 0.0
    # Q4_0_4_8, Q4_K_R4: the same weights in another order
    repacked = re.fullmatch(r"(I?Q\d_(?:0|1|K|NL|K_[SML]))_(?:R\d|\d_\d)", word)
    return worth(repacked.group(1)) + dynamic if repacked else 0.0
