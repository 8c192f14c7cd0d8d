"""The types that a model's weights can be stored in, as llama.cpp's tools name them. Pure.

Numbers are `enum llama_ftype` of include/llama.h, bits per weight are those measured in tools/quantize/README.md
(Llama 3.1 8B) or follow from the block sizes, and what needs an importance matrix is `tensor_requires_imatrix` of
src/llama-quant.cpp, all of commit 0c1e57098.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput


@dataclass(frozen=True)
class WeightType:
    """One type: its name, its number in a GGUF header, and the bits that a weight takes on average."""

    name: str
    number: int
    bits: float
    converted: bool = False
    """Whether the converter writes it, so that no quantisation follows."""
    needs_imatrix: bool = False
    """Whether llama-quantize refuses it without an importance matrix."""

    @property
    def plain(self) -> bool:
        """Whether it is a floating-point type, that is not quantised."""
        return self.name in ("F32", "F16", "BF16")


_ROWS = (
    WeightType("F32", 0, 32, converted=True),
    WeightType("F16", 1, 16, converted=True),
    WeightType("BF16", 32, 16, converted=True),
    WeightType("Q8_0", 7, 8.5, converted=True),
    WeightType("Q6_K", 18, 6.57),
    WeightType("Q5_K_M", 17, 5.71),
    WeightType("Q5_K_S", 16, 5.58),
    WeightType("Q5_1", 9, 6.0),
    WeightType("Q5_0", 8, 5.5),
    WeightType("Q4_K_M", 15, 4.9),
    WeightType("Q4_K_S", 14, 4.67),
    WeightType("Q4_1", 3, 5.0),
    WeightType("Q4_0", 2, 4.5),
    WeightType("IQ4_NL", 25, 4.69),
    WeightType("IQ4_XS", 30, 4.46),
    WeightType("Q3_K_L", 13, 4.3),
    WeightType("Q3_K_M", 12, 4.0),
    WeightType("Q3_K_S", 11, 3.65),
    WeightType("IQ3_M", 27, 3.77),
    WeightType("IQ3_S", 26, 3.67),
    WeightType("IQ3_XS", 22, 3.5),
    WeightType("IQ3_XXS", 23, 3.26, needs_imatrix=True),
    WeightType("Q2_K", 10, 3.16),
    WeightType("Q2_K_S", 21, 2.97, needs_imatrix=True),
    WeightType("IQ2_M", 29, 2.93, needs_imatrix=True),
    WeightType("IQ2_S", 28, 2.75, needs_imatrix=True),
    WeightType("IQ2_XS", 20, 2.59, needs_imatrix=True),
    WeightType("IQ2_XXS", 19, 2.39, needs_imatrix=True),
    WeightType("IQ1_M", 31, 2.15, needs_imatrix=True),
    WeightType("IQ1_S", 24, 2.01, needs_imatrix=True),
    # for models that were trained with such weights
    WeightType("MXFP4_MOE", 38, 4.7),
    WeightType("TQ2_0", 37, 2.5, converted=True),
    WeightType("TQ1_0", 36, 2.2, converted=True),
    WeightType("Q2_0", 41, 2.7),
    WeightType("Q1_0", 40, 1.7),
)
TYPES = {row.name: row for row in _ROWS}
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "FP16": "F16", "FP32": "F32"}

KEEP = "keep"
"""Asks for no other type than the model has."""


def parse(text: str) -> WeightType | None:
    """Return the type called ``text`` in any case, None for `keep`; raises BadInput for another word."""
    name = text.strip().upper().replace("-", "_")
    if name == KEEP.upper():
        return None
    found = TYPES.get(_ALIASES.get(name, name))
    if found:
        return found
    close = difflib.get_close_matches(name, TYPES, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "Q4_K_M is a good first choice"
    raise BadInput(f"type {text!r} is none of {', '.join(TYPES)} and {KEEP}; {hint}")


def of_number(number: int | None) -> WeightType | None:
    """Return the type with this number in a GGUF header, None when it is not known here."""
    return next((row for row in _ROWS if row.number == number), None)


_SUFFIX = re.compile(rf"[-._](?:{'|'.join([*TYPES, *_ALIASES])})$", re.IGNORECASE)


def without_suffix(stem: str) -> str:
    """Return the name of a model's file without a type at its end: `Qwen3-8B` for `Qwen3-8B-Q4_K_M`."""
    return _SUFFIX.sub("", stem) or stem
