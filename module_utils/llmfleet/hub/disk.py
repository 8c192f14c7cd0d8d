"""What a transfer needs of a disk: room, and words for what goes wrong."""

from __future__ import annotations

import errno
import os
import shutil

from ansible.module_utils.llmfleet.hub.reply import TransferError


def room(folder: str, needed: int, reserve: int = 0) -> None:
    """Raise TransferError unless ``folder`` has room for so many bytes more, and ``reserve`` stay free then."""
    there = folder
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    free = shutil.disk_usage(there).free
    if needed and needed + reserve > free:
        stay = f", and {reserve} must stay free" if reserve else ""
        raise TransferError(
            f"{there} has {free} bytes free and the download needs {needed} more{stay}; "
            "make room, or choose another directory"
        )


def disk_error(error: OSError, folder: str) -> TransferError:
    """Return what a failed write means."""
    name = error.filename or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TransferError(f"the disk of {name} is full; make room, or choose another directory")
    return TransferError(f"cannot write {name}: {error.strerror or error}")
