"""Bytes of a model's files from the sources that have it, file by file from another one where the first fails. Edge."""

from __future__ import annotations

import threading
import typing as t

from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub import folder, listing, web
from ansible.module_utils.llmfleet.hub.client import ATTEMPTS, BRANCHES, file_url
from ansible.module_utils.llmfleet.hub.manifest import Listing, Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.refusal import refused
from ansible.module_utils.llmfleet.hub.reply import UNKNOWN, Broken, Reply, TransferError, reply_of
from ansible.module_utils.llmfleet.hub.source_web import Unreachable, Web
from ansible.module_utils.llmfleet.hub.sources import FOLDER, HF, MS, Source


class HubOpener:
    """Opens ranges of a model's files at the source that listed it and, file by file, at others when that one fails.

    What a hub redirects to is remembered until it is refused there, as links to CDNs expire.
    """

    def __init__(self, manifest: Manifest | Listing, sources: t.Sequence[Source], web_: Web) -> None:
        first = [source for source in sources if source.name == manifest.source]
        self._sources = [*first, *(source for source in sources if source not in first)]
        self._kind = first[0].kind if first else MS if manifest.source == MS else HF
        self._what = manifest
        self._web = web_
        self._lock = threading.Lock()
        self._at: dict[str, int] = {}
        self._links: dict[tuple[str, str], str] = {}
        self._by_branch: set[str] = set()
        self._dead: dict[str, str] = {}
        """Source that is given up → why."""
        self._failures: dict[str, int] = {}
        """Source → how often it could not be reached before it gave a byte; below 0: it gave some."""

    def next_source(self, file: RepoFile, said: str) -> bool:
        """Turn to another source for ``file``; False when there is none left."""
        del said
        with self._lock:
            at = self._at.get(file.path, 0) + 1
            self._at[file.path] = min(at, len(self._sources))
            return at < len(self._sources)

    def __call__(self, file: RepoFile, start: int, end: int) -> Reply:
        """Open a range; see reply.Opener."""
        if not self._sources:
            raise TransferError("there is no source to fetch it from; name one in `sources`")
        at = min(self._at.get(file.path, 0), len(self._sources) - 1)
        source = self._sources[at]
        if source.kind == FOLDER:
            return folder.open_range(source, self._what, file, start)
        return self._open(source, file, start, end)

    def _revision(self, source: Source) -> str:
        if source.kind != self._kind or source.name in self._by_branch:
            return self._what.asked or BRANCHES[source.kind]
        return listing.revision_to_ask(self._what.commit, self._what.asked, BRANCHES[source.kind])

    def _open(self, source: Source, file: RepoFile, start: int, end: int) -> Reply:
        headers = web.range_headers(file, start, end)
        for _ in range(3):
            link = self._links.get((source.name, file.path), "")
            url = link or file_url(source, self._what.repo, self._revision(source), file.path)
            response, final = self._get(source, file, url, headers)
            status = response.status
            if status in (200, 206, 416):
                if final != url:
                    self._links[source.name, file.path] = final
                reply = Reply(416, response.headers, UNKNOWN, response) if status == 416 else reply_of(response)
                reply.source = source.name
                self._failures[source.name] = -1
                return reply
            with response:
                self._links.pop((source.name, file.path), None)
                if status not in web.TRANSIENT and (link or final != url):
                    # where the hub redirected to it is refused: such links expire, and the hub makes others
                    continue
                if status in web.TRANSIENT:
                    raise Broken(
                        f"{source.name} answers HTTP {status}", web.retry_after(response.headers, self._web.now())
                    )
                if status == 404 and source.kind == MS and source.name not in self._by_branch:
                    # not every installation knows commits; the digest tells whether it is the same file
                    self._by_branch.add(source.name)
                    continue
                raise self._refusal(source, file, response)
        raise TransferError(f"{source.name} refuses the links to {file.path} that it gives; try again later")

    def _get(self, source: Source, file: RepoFile, url: str, headers: t.Mapping[str, str]) -> tuple[t.Any, str]:
        if source.name in self._dead:
            raise TransferError(self._dead[source.name])
        try:
            return self._web.get(source, url, headers, self._web.timeout)
        except LlmfleetError as error:
            raise TransferError(f"{source.name}: {error}") from None
        except Unreachable as error:
            said = f"{source.name} {error.words(source, self._web.timeout)}"
            self._links.pop((source.name, file.path), None)
            with self._lock:
                failures = self._failures.get(source.name, 0)
                self._failures[source.name] = failures + (failures >= 0)
            # a source that never gave a byte is given up sooner, for all files, than one that did
            if failures >= ATTEMPTS - 1:
                self._dead[source.name] = said
                raise TransferError(said) from None
            raise Broken(said) from None

    def _refusal(self, source: Source, file: RepoFile, response: t.Any) -> TransferError:
        code = response.headers.get("X-Error-Code", "") or ""
        if response.status == 404 and code in ("", "EntryNotFound"):
            return TransferError(f"{source.name} no longer has {file.path} of {self._what.repo}; ask for it again")
        said = refused(source, self._what.repo, self._revision(source), response.status, response.headers)
        return TransferError(f"{source.name}: {said}")
