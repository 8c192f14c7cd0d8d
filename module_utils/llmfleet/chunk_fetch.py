"""Fetching the chunks of an archive from other hosts into a folder, each under its sha256. Edge code."""

from __future__ import annotations

import hashlib
import os
import threading
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet.chunk_ask import Asker
from ansible.module_utils.llmfleet.chunk_folder import PARTIAL
from ansible.module_utils.llmfleet.image_chunks import Chunk


class Fetcher(Asker):
    """Fetches chunks into ``folder``, where `read` waits for them."""

    def path(self, chunk: Chunk) -> str:
        """Return where a checked chunk lies."""
        return os.path.join(self._folder, chunk.sha256)

    def start(self, wanted: t.Sequence[tuple[int, Chunk]]) -> None:
        """Begin to bring the chunks, given with their numbers, in this order."""
        for _number, chunk in wanted:
            with suppress(FileNotFoundError):
                os.unlink(self.path(chunk))  # what is there is damaged
        super().start(wanted)

    def read(self, chunk: Chunk) -> bytes:
        """Return a chunk once it is here; raise LlmfleetError when it cannot be had."""
        with self._arrived:
            while not os.path.exists(self.path(chunk)):
                if self._problem:
                    raise self._problem
                self._arrived.wait()
        with open(self.path(chunk), "rb") as file:
            return file.read()

    def _keep(self, number: int, chunk: Chunk, blocks: t.Iterable[memoryview]) -> bool:
        """Write a chunk as it arrives; it gets its name when its digest is right."""
        del number
        partial = f"{self.path(chunk)}.{threading.get_ident()}{PARTIAL}"
        digest = hashlib.sha256()
        try:
            with open(partial, "wb") as file:
                for block in blocks:
                    digest.update(block)
                    file.write(block)
            right = digest.hexdigest() == chunk.sha256
            if right:
                os.replace(partial, self.path(chunk))
            return right
        finally:
            with suppress(OSError):
                os.unlink(partial)
