"""Models in several files: their names, and their headers taken together."""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gguf.header import GgufHeader, read_header

_PART = re.compile(r"(?P<stem>.*-)(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def part_names(first: str, count: int) -> list[str]:
    """Return the paths (or addresses) of all ``count`` files of the model whose first file is ``first``.

    Raises BadInput when the first part is not called as engines expect: `…-00001-of-0000N.gguf`.
    """
    if count == 1:
        return [first]
    found = _PART.fullmatch(first)
    if not found or int(found["number"]) != 1 or int(found["count"]) != count:
        raise BadInput(
            f"the file is the first of {count} parts, and engines find the others only when it is called "
            f"...-00001-of-{count:05d}.gguf; give the parts their names back"
        )
    return [f"{found['stem']}{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]


def join(headers: t.Sequence[GgufHeader]) -> GgufHeader:
    """Return one header for the model whose parts have these, first part first: its sizes and tensors are of all.

    Raises BadInput when they are not the parts of one model, in order and complete.
    """
    first = headers[0]
    if first.split_number:
        raise BadInput(
            f"the file is part {first.split_number + 1} of a model in {first.split_count} files; "
            f"name the first part (...-00001-of-{first.split_count:05d}.gguf)"
        )
    told = [(header.split_number, header.split_count) for header in headers]
    if told != [(number, len(headers)) for number in range(len(headers))]:
        said = ", ".join(f"{number + 1} of {count}" for number, count in told[:8])
        raise BadInput(f"the files are not the {first.split_count} parts of one model: they say {said}; get them again")
    if len(headers) == 1:
        return first
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    announced = first.split_tensor_count or len(tensors)
    if announced != len(tensors) or len({tensor.name for tensor in tensors}) != len(tensors):
        raise BadInput(
            f"the files are parts of different models: they have {len(tensors)} tensors together and the first says "
            f"{announced}; get them again"
        )
    # a part with a tensor of unknown type does not know its size
    needed = [header.needed_size for header in headers]
    return dataclasses.replace(
        first,
        tensor_count=len(tensors),
        needed_size=sum(needed) if all(needed) else 0,
        weight_count=sum(header.weight_count for header in headers),
        tensors=tensors,
    )


def read_model(paths: t.Sequence[str]) -> GgufHeader:
    """Return the header of the model in these files, the first part first; raises BadInput and OSError."""
    headers = []
    for path in paths:
        with open(path, "rb") as stream:
            try:
                headers.append(read_header(stream, os.fstat(stream.fileno()).st_size))
            except BadInput as error:
                raise about_part(error, path, paths) from None
    return join(headers)


def about_part(error: BadInput, path: str, paths: t.Sequence[str]) -> BadInput:
    """Return ``error`` with the name of the part that it is about, where there are several."""
    return BadInput(f"part {os.path.basename(path)}: {error}") if len(paths) > 1 else error
