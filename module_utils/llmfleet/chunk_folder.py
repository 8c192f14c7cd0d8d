"""The folder of the chunks of one archive: what the files in it are called, and its removal.

Part of the program that chunk_server.py is: standard library only, nothing of Ansible; only what Python 3.8 has too.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

RECORD = "archive.json"
SKIPPED = "skipped.json"
LOADED = "loaded"
LOCK = "lock"
STATE = "share.json"
PARTIAL = ".part"
BORROWED = "layer-"

_NAME = re.compile(r"[0-9a-f]{64}(\.\w+\.part)?")
_LAYER = re.compile(BORROWED + r"([0-9a-f]{64}|partial)")


def is_chunk(name: str) -> bool:
    """Whether a file in a folder of chunks is a chunk, or the beginning of one."""
    return bool(_NAME.fullmatch(name))


def is_borrowed(name: str) -> bool:
    """Whether a file in a folder of chunks is a layer that the engine of this host gave."""
    return bool(_LAYER.fullmatch(name))


def clear(folder: str) -> None:
    """Remove a folder of chunks; files that are none of ours are left, and so is the folder then."""
    ours = [name for name in os.listdir(folder) if is_chunk(name) or is_borrowed(name)]
    for name in (*ours, SKIPPED, LOADED, STATE, LOCK, RECORD):
        with suppress(OSError):
            os.unlink(os.path.join(folder, name))
    with suppress(OSError):
        os.rmdir(folder)
