"""Read the header of a safetensors file: how many weights of which type, and whether the file is whole. Pure.

The layout is that of the safetensors project: 8 bytes of length, JSON of that length, then the tensors' bytes.
"""

from __future__ import annotations

import json
import struct
import typing as t
from collections import Counter

from ansible.module_utils.llmfleet.errors import BadInput

# the format's own limit is 100 MB
_MAX_HEADER = 1 << 27


def count_weights(stream: t.BinaryIO, size: int) -> dict[str, int]:
    """Return how many weights of each type (as BF16) a file of ``size`` bytes has.

    Raises BadInput with a sentence that goes on after the file's name.
    """
    length = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))[0]
    if not 2 <= length <= min(_MAX_HEADER, size):
        raise BadInput("is no safetensors file or is cut off; download it again")
    counts: Counter[str] = Counter()
    end = 0
    try:
        for tensor, row in json.loads(stream.read(length)).items():
            if tensor == "__metadata__":
                continue
            weights = 1
            for extent in row["shape"]:
                weights *= int(extent)
            counts[str(row["dtype"])] += weights
            end = max(end, int(row["data_offsets"][1]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise BadInput("has a damaged header; download it again") from None
    if 8 + length + end > size:
        raise BadInput(f"is cut off: it needs {8 + length + end} bytes and has {size}; finish the download")
    return dict(counts)
