"""One GGUF file from a URL, brought as files of hubs are: in parallel, resumed, proven by its digest. Edge code."""

from __future__ import annotations

import time
import typing as t
import urllib.request
from dataclasses import dataclass

from ansible.module_utils.llmfleet import gguf
from ansible.module_utils.llmfleet.hub.manifest import RepoFile
from ansible.module_utils.llmfleet.hub.reply import UNKNOWN
from ansible.module_utils.llmfleet.hub.transfer import Transfer, kept
from ansible.module_utils.llmfleet.hub.web import UrlOpener

CONNECTIONS = 4
"""To one server that is nobody's content network."""


@dataclass(frozen=True)
class UrlDownload:
    """The file at ``url``, as ``folder``/``name``; ``timeout``: seconds without a byte."""

    url: str
    name: str
    sha256: str
    folder: str
    timeout: float

    @property
    def _file(self) -> RepoFile:
        return RepoFile(self.name, UNKNOWN, self.sha256)

    def kept(self) -> int:
        """Return how many bytes an interrupted run has left."""
        return kept([self._file], self.folder)

    def run(self, finish: t.Callable[[], None]) -> None:
        """Bring the whole, verified file and call ``finish`` while nobody else may. Raises LlmfleetError."""
        opener = UrlOpener({self.name: self.url}, self.timeout, urllib.request.build_opener().open, time.time)
        transfer = Transfer(
            [self._file],
            self.folder,
            opener,
            connections=CONNECTIONS,
            timeout=self.timeout,
            check_start=lambda _, head, size: gguf.check_start(head, size),
            again=0,
        )
        transfer.run(finish)
