"""From a model as it is to the GGUF file that is wanted: which steps, with which commands, and how much disk. Pure.

The commands are those of llama.cpp's convert_hf_to_gguf.py, llama-quantize and llama-gguf-split (commit 0c1e57098).
Paths in them are paths inside the container of a step, where OUT is the only folder that can be written.
"""

from __future__ import annotations

import posixpath
import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet import weight_types
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.weight_types import WeightType

OUT = "/out"
SOURCE = "/in"
IMATRIX = "/imatrix.gguf"
CONVERTED, QUANTIZED, MERGED = "converted.gguf", "quantized.gguf", "merged.gguf"
PART = re.compile(r"-\d{5}-of-\d{5}$")

_SLACK = 1.05  # headers, vocabularies and tensors that stay larger than the rest
_OPTION_VALUES = re.compile(r"[\w./=:,+*\\()|\[\]^$-]{1,200}")
_OWNED = {
    "--imatrix": "imatrix",
    "--keep-split": "split_size",
    "--allow-requantize": "allow_requantize",
    "--dry-run": "check mode",
}


@dataclass(frozen=True)
class Source:
    """The model there is."""

    path: str
    kind: str
    """`hf` for a folder in Hugging Face format, `gguf` for a GGUF file."""
    size: int
    fingerprint: str
    weight_count: int
    type: WeightType | None
    """What most weights are stored as; None where that is not known."""
    inside: str
    """Its path in the container of a step."""
    parts: int = 1


@dataclass(frozen=True)
class Wish:
    """What is to become of it; ``type`` None keeps the weights as they are."""

    type: WeightType | None
    split_bytes: int = 0
    """Size of a part at most, 0 for one file."""
    imatrix: str = ""
    """Digest of an importance matrix, "" for none."""
    allow_requantize: bool = False
    options: tuple[str, ...] = ()
    """More arguments of llama-quantize."""


@dataclass(frozen=True)
class Step:
    """One command in a container."""

    name: str
    program: str
    """`convert`, or the name of a program of llama.cpp."""
    argv: tuple[str, ...]
    output: str
    """The file it makes in OUT; of a split, what its parts begin with."""
    removes: str = ""
    """A file of OUT that no later step needs."""


@dataclass(frozen=True)
class Plan:
    """How to get there."""

    steps: tuple[Step, ...]
    type: WeightType | None
    """The type that the result will say it has; None where the source does not say."""
    needed_bytes: int
    """Free disk needed where the result goes, about."""


def parse_split_size(text: str) -> int:
    """Return the bytes of a size such as `10G` or `500M`, in powers of 1000 as llama-gguf-split counts; 0 for ""."""
    if not text:
        return 0
    found = re.fullmatch(r"(\d{1,6})([MG])B?", text.strip(), re.IGNORECASE)
    if not found or not int(found[1]):
        raise BadInput(f"split_size {text!r} is no size; write a whole number of M or G, such as 10G")
    return int(found[1]) * 1000 ** (2 if found[2].upper() == "M" else 3)


def default_name(source: Source, wanted: WeightType | None) -> str:
    """Return the name of the result without `.gguf`."""
    path = source.path.rstrip("/")
    name = posixpath.basename(path)
    if source.kind == "hf":
        # a hub cache calls the folder by the commit: .../models--org--name/snapshots/<commit>
        hub = re.search(r"/models--[^/]+--([^/]+)/snapshots/[^/]+$", path)
        name = hub[1] if hub else name
    else:
        name = PART.sub("", re.sub(r"\.gguf$", "", name))
        if wanted is None:
            return name
        name = weight_types.without_suffix(name)
    wanted = wanted or source.type
    return f"{name}-{wanted.name}" if wanted else name


def check_options(options: t.Sequence[str]) -> None:
    """Raise BadInput for arguments of llama-quantize that something else sets or that are none."""
    for option in options:
        name = option.partition("=")[0]
        if name in _OWNED:
            raise BadInput(f"options: {name} is set by {_OWNED[name]}; take it out")
        if not _OPTION_VALUES.fullmatch(option):
            raise BadInput(f"options: {option!r} is no argument of llama-quantize; see `llama-quantize --help`")
    if options and not options[0].startswith("--"):
        raise BadInput(
            f"options: {options[0]!r} does not start with `--`; write for example --output-tensor-type, q8_0"
        )


def plan(source: Source, wish: Wish, name: str) -> Plan:
    """Return the steps that make ``name`` (without `.gguf`) of ``source``; raises BadInput when there is no way."""
    wanted = wish.type
    if wanted and wanted.needs_imatrix and not wish.imatrix:
        raise BadInput(
            f"{wanted.name} needs an importance matrix; give one in imatrix, or take a type that needs none, such as "
            "Q2_K or Q3_K_S"
        )
    check_options(wish.options)
    steps, result, sizes = _convert(source, wish) if source.kind == "hf" else _quantize_or_merge(source, wish)
    if wish.split_bytes and not steps and source.size <= wish.split_bytes:
        raise BadInput("there is nothing to do: the whole model fits into one part; take a smaller split_size")
    if wish.split_bytes:
        steps.append(_split(steps[-1].output if steps else "", source, wish, name))
        sizes.append(sizes[-1] if sizes else source.size)
    if not steps:
        raise BadInput(
            "there is nothing to do: it is one GGUF file and is to keep its type; give another type, or a split_size"
        )
    # at any time there is the input of a step beside its result
    needed = max(sum(sizes[place : place + 2]) for place in range(len(sizes)))
    return Plan(tuple(steps), result, int(needed * _SLACK))


def _split(made: str, source: Source, wish: Wish, name: str) -> Step:
    size = f"{wish.split_bytes // 1000**2}M"
    return Step(
        name=f"split into parts of {size} at most",
        program="llama-gguf-split",
        argv=("--split", "--split-max-size", size, f"{OUT}/{made}" if made else source.inside, f"{OUT}/{name}"),
        output=name,
        removes=made,
    )


def _convert(source: Source, wish: Wish) -> tuple[list[Step], WeightType | None, list[int]]:
    native = source.type or weight_types.TYPES["BF16"]
    wanted = wish.type or native
    # floats of 32 bits gain nothing over 16 when they are quantised right away
    first = wanted if wanted.converted else native if native.bits == 16 else weight_types.TYPES["BF16"]
    converted = Step(
        f"convert to {first.name}",
        "convert",
        (source.inside, "--outtype", first.name.lower(), "--outfile", f"{OUT}/{CONVERTED}"),
        CONVERTED,
    )
    sizes = [_size(source, first)]
    if wanted is first:
        if wish.options:
            raise BadInput(
                f"options are for llama-quantize, and {wanted.name} is written by the converter; take them out"
            )
        return [converted], wanted, sizes
    return [converted, _quantize(CONVERTED, source, wanted, wish)], wanted, [*sizes, _size(source, wanted)]


def _quantize_or_merge(source: Source, wish: Wish) -> tuple[list[Step], WeightType | None, list[int]]:
    wanted = wish.type
    if wanted is None or wanted == source.type:
        if wish.options:
            raise BadInput("options are for llama-quantize, and the type stays as it is; take them out")
        if source.parts == 1:
            return [], source.type, []
        merged = Step("merge", "llama-gguf-split", ("--merge", source.inside, f"{OUT}/{MERGED}"), MERGED)
        return [merged], source.type, [source.size]
    if source.type and not source.type.plain and not wish.allow_requantize:
        raise BadInput(
            f"the model is {source.type.name} already, and quantising it a second time costs much quality; start from "
            "an F16 or BF16 file or from the Hugging Face folder, or set allow_requantize"
        )
    return [_quantize("", source, wanted, wish)], wanted, [_size(source, wanted)]


def _quantize(made: str, source: Source, wanted: WeightType, wish: Wish) -> Step:
    return Step(
        name=f"quantise to {wanted.name}",
        program="llama-quantize",
        argv=(
            *(("--imatrix", IMATRIX) if wish.imatrix else ()),
            *(("--allow-requantize",) if wish.allow_requantize else ()),
            *wish.options,
            f"{OUT}/{made}" if made else source.inside,
            f"{OUT}/{QUANTIZED}",
            wanted.name,
        ),
        output=QUANTIZED,
        removes=made,
    )


def _size(source: Source, wanted: WeightType) -> int:
    return int(source.weight_count * wanted.bits / 8)
