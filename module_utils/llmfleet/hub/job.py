"""What is to be done about one model of a hub on one host, and doing it: look, list, choose, bring, verify, publish."""

from __future__ import annotations

import os
import shutil
import time
import typing as t
from contextlib import nullcontext, suppress
from dataclasses import replace

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import choice, client, content, removal, repository_lock, sources, store
from ansible.module_utils.llmfleet.hub.departure import Departure
from ansible.module_utils.llmfleet.hub.manifest import Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.opener import HubOpener
from ansible.module_utils.llmfleet.hub.place import Place, make_folder, models
from ansible.module_utils.llmfleet.hub.presence import FULL, State, state_of
from ansible.module_utils.llmfleet.hub.progress import Log
from ansible.module_utils.llmfleet.hub.source_web import Web
from ansible.module_utils.llmfleet.hub.transfer import Transfer
from ansible.module_utils.llmfleet.hub.wanted import Done, Wanted


class Job:
    """Brings one model of a hub; a ``dry_run`` changes nothing."""

    def __init__(self, wanted: Wanted, dry_run: bool = False, web: Web | None = None) -> None:
        self._wanted = wanted
        self._dry_run = dry_run
        self._web = web or Web(wanted.timeout)
        self._place = Place(wanted.dest, wanted.ref.repo)
        self._tried: list[dict[str, str]] = []
        self._unasked = ""
        given = wanted.manifest
        if given is not None and given.repo.lower() != wanted.ref.repo.lower():
            raise BadInput(f"`manifest` is of the repository {given.repo}; plan again")
        if given is not None:
            # a hub may spell the name in its own way
            self._place = Place(wanted.dest, given.repo)
        self.log = "" if dry_run else wanted.log or os.path.join(self._place.own, "progress.log")
        """File that tells how far a transfer is, "" for none."""

    @property
    def place(self) -> Place:
        return self._place

    def present(self) -> Done:
        """Bring the model, whole and verified."""
        wanted = self._wanted
        state = state_of(self._place, wanted.manifest or wanted.asked, wanted.verify)
        may_ask = wanted.sources is not None or not self._dry_run
        moves = wanted.update and not wanted.ref.pinned and wanted.manifest is None
        manifest = state.manifest
        if manifest is None or (moves and may_ask):
            if not may_ask:
                return Done(True, "missing", "it is not there", before=f"{self._place.root}: it is not there\n")
            manifest = self._choose(manifest)
            state = state_of(self._place, manifest, wanted.verify)
        if state.present:
            return self._keep(manifest, state)
        if self._dry_run:
            return self._done(manifest, state, self._action(manifest, state, linked=0))
        with repository_lock.locked(self._place, wanted.lock_timeout, self._say):
            # another process may have brought it meanwhile
            state = state_of(self._place, manifest, wanted.verify)
            return self._keep(manifest, state, locked=True) if state.present else self._bring(manifest, state)

    def absent(self) -> Done:
        """Remove the model, at all commits that were fetched for these words, unless it is wanted in others too."""
        return Departure(self._wanted, self._place, self._dry_run, self._say).done()

    # --- finding out --------------------------------------------------------------------------------------------------

    def _sources(self) -> list[sources.Source]:
        wanted = self._wanted
        return sources.for_model(
            sources.parse_sources(wanted.sources, wanted.environ), wanted.ref.source, wanted.ref.shown
        )

    def _choose(self, there: Manifest | None) -> Manifest:
        """Return the files that a source has for these words; ``there``: those that were brought before, if any."""
        wanted = self._wanted
        try:
            found, _, self._tried = client.first_that_answers(
                self._sources(), wanted.ref.repo, wanted.ref.revision, self._web
            )
        except BadInput:
            raise
        except LlmfleetError as error:
            if there is None:
                raise
            self._unasked = f"; whether it has moved is not known: {error}"
            return there
        manifest = choice.choose(
            found, wanted.ref, wanted.engine, wanted.quant_limit, trust_remote_code=wanted.trust_remote_code
        )
        return with_digest(manifest, wanted.ref.sha256)

    def _keep(self, manifest: Manifest, state: State, locked: bool = False) -> Done:
        """Leave the files and set right what is around them: the note, links of other tools, the words."""
        asked = self._wanted.asked
        known = removal.knows(self._place, manifest, asked)
        if not state.unnoted and not state.crooked and known:
            why = "every file was read and is right" if self._wanted.verify == FULL else "it was verified before"
            return Done(False, "keep", why + self._unasked, manifest, True, manifest.source, tried=self._tried)
        if not self._dry_run:
            lock = repository_lock.locked(self._place, self._wanted.lock_timeout, self._say)
            with nullcontext() if locked else lock:
                store.clear_way(self._place, manifest, ())
                store.publish(self._place, manifest, asked)
        note = f"{self._place.note(manifest.commit)}: {asked.words}\n"
        action, why = "verify", "its files are there and are the right ones"
        if state.crooked and not state.unnoted:
            action, why = "repair", f"{state.crooked[0].path} is a link or has another mode than 0644"
        elif not state.unnoted:
            action, why = "link", "it is there already, asked for in other words"
        return Done(True, action, why, manifest, True, manifest.source, tried=self._tried, after=note)

    def _action(self, manifest: Manifest, state: State, linked: int) -> str:
        if state.damaged or (state.missing and len(state.missing) < len(manifest.files) and self._was_whole(manifest)):
            return "repair"
        if linked == len(state.wanted):
            return "link"
        return "receive" if self._wanted.peers and self._wanted.archive else "download"

    def _was_whole(self, manifest: Manifest) -> bool:
        return any(one.key == manifest.key and one.commit == manifest.commit for one in models(self._place))

    def _done(self, manifest: Manifest, state: State, action: str, **more: t.Any) -> Done:
        folder = self._place.snapshot(manifest.commit)
        lines = {**{file.path: "it is not there" for file in state.missing}, **state.why}
        before = "".join(f"{folder}/{path}: {said}\n" for path, said in lines.items())
        after = "".join(f"{folder}/{file.path}: {file.digest}\n" for file in state.wanted)
        source = more.pop("source", manifest.source)
        return Done(
            True,
            action,
            _why(manifest, state),
            manifest,
            source=source,
            before=before,
            after=after,
            tried=self._tried,
            **more,
        )

    # --- bringing -----------------------------------------------------------------------------------------------------

    def _bring(self, manifest: Manifest, state: State) -> Done:
        place = self._place
        self._begin(manifest)
        for row in self._tried:
            self._say(f"{row['source']}: {row['said']}")
        store.clear_way(place, manifest, state.wanted)
        linked = store.reuse(place, manifest, state.missing)
        missing = [file for file in state.wanted if file not in linked]
        begun = time.monotonic()
        fetched, came_from = self._fetch(manifest, missing)
        seconds = round(time.monotonic() - begun, 1)
        self._check(manifest)
        done = self._done(
            manifest,
            state,
            self._action(manifest, state, len(linked)),
            bytes_fetched=fetched,
            seconds=seconds,
            source=came_from,
        )
        store.publish(place, manifest, self._wanted.asked)
        return replace(done, is_there=True)

    def _begin(self, manifest: Manifest) -> None:
        """Make the incoming folder; what lies there of another commit is no use where digests are not known."""
        folder = self._place.incoming(manifest.key)
        mark = os.path.join(folder, ".commit")
        with suppress(OSError, ValueError), open(mark, encoding="ascii") as stream:
            if stream.read().strip() != manifest.commit and not all(f.sha256 or f.blob_id for f in manifest.files):
                shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        with open(mark, "w", encoding="ascii") as stream:
            stream.write(manifest.commit)
        if not self._wanted.log:
            # of this transfer alone
            with suppress(FileNotFoundError):
                os.unlink(self.log)

    def _fetch(self, manifest: Manifest, missing: list[RepoFile]) -> tuple[int, str]:
        """Bring files into the incoming folder; return how many bytes came and the names of where from."""
        wanted = self._wanted
        if not missing:
            return 0, manifest.source
        if wanted.peers and wanted.archive:
            try:
                return self._receive(manifest, missing)
            except LlmfleetError as error:
                if not wanted.sources:
                    raise
                self._say(f"{error}; the rest comes from outside")
        transfer = Transfer(
            missing,
            self._place.incoming(manifest.key),
            HubOpener(manifest, self._sources(), self._web),
            connections=wanted.connections,
            timeout=wanted.timeout,
            log=self.log,
            check_start=content.check_start,
            pause=wanted.pause,
        )
        stats = transfer.run()
        return stats.bytes_fetched, ", ".join(stats.sources) or manifest.source

    def _receive(self, manifest: Manifest, missing: list[RepoFile]) -> tuple[int, str]:
        from ansible.module_utils.llmfleet.hub import swarm

        wanted = self._wanted
        paths = {file.path for file in missing}
        stats = swarm.receive(
            manifest,
            wanted.archive,
            wanted.peers,
            self._place,
            paths=paths,
            connections=wanted.connections,
            timeout=wanted.timeout,
            log=self.log,
        )
        return stats.fetched, ", ".join(stats.peers)

    def _check(self, manifest: Manifest) -> None:
        """Raise LlmfleetError when what arrived is what the hub has, and still no model."""
        incoming, folder = self._place.incoming(manifest.key), self._place.snapshot(manifest.commit)
        for file in manifest.files:
            path = os.path.join(incoming, file.path)
            path = path if os.path.exists(path) else os.path.join(folder, file.path)
            try:
                content.check(path, file.path)
            except BadInput as error:
                shutil.rmtree(incoming, ignore_errors=True)
                raise LlmfleetError(
                    f"{file.path} of {manifest.repo} is what {manifest.source or 'the source'} has, and no engine can "
                    f"load it: {error}; take another repository or revision"
                ) from None

    def _say(self, text: str) -> None:
        Log(self.log).line(text)


def _why(manifest: Manifest, state: State) -> str:
    if state.damaged:
        path, said = next(iter(state.why.items()))
        more = f" and {len(state.damaged) - 1} more" if len(state.damaged) > 1 else ""
        return f"{path}: {said}{more}"
    if len(state.missing) < len(manifest.files):
        return f"{len(state.missing)} of {len(manifest.files)} files are not there"
    return "it is not there"


def with_digest(manifest: Manifest, sha256: str) -> Manifest:
    """Return the manifest with the digest that the user expects of its one file, where the source told none."""
    if not sha256 or len(manifest.files) != 1 or manifest.files[0].sha256:
        return manifest
    return replace(manifest, files=(replace(manifest.files[0], sha256=sha256),))
