"""The files of models on one host: what is there, what is missing, and how it gets there."""

from __future__ import annotations

import io
import os
import shutil
import stat
import typing as t
from contextlib import suppress
from dataclasses import dataclass

from ansible.module_utils.llmfleet import gguf, model_file, tiny_gguf
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.model_ref import ModelRef

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.hub.url_download import UrlDownload


@dataclass(frozen=True)
class Outcome:
    """What was done about a model, or would be done in a dry run."""

    changed: bool
    action: str
    why: str
    found: model_file.ModelFile | None = None
    """The model, unless it is not there."""
    before: str = ""
    after: str = ""


class Store:
    """The place of one model on the host; a ``dry_run`` changes nothing and downloads nothing."""

    def __init__(
        self,
        ref: ModelRef,
        folder: str,
        timeout: float,
        dry_run: bool = False,
    ) -> None:
        self._ref = ref
        self._folder = folder
        self._timeout = timeout
        self._dry_run = dry_run
        self.path = ref.location(folder)
        self._note = os.path.join(folder, ref.file_name + ".verified")
        self._partial = os.path.join(folder, f".{ref.file_name}.partial")

    def present(self) -> Outcome:
        """Bring the model to its place."""
        if self._ref.kind == "path":
            return self._check_own_file()
        self._refuse_folder()
        action = "generate" if self._ref.kind == "tiny" else "download"
        if os.path.isfile(self.path):
            digest, noted = self._digest()
            if digest == self._ref.sha256:
                return self._keep(noted)
            why = f"the file there has the sha256 {digest}"
        else:
            left = self._url().kept() if action == "download" else 0
            why = f"{left} bytes are there from an interrupted run" if left else "it is not there"
        before, after = f"{self.path}: {why}\n", f"{self.path}: sha256 {self._ref.sha256}\n"
        return Outcome(True, action, why, self._bring(action), before, after)

    def absent(self) -> Outcome:
        """Remove what ``present`` put into the store; a user's own file stays."""
        own = self._ref.kind == "path"
        there = [path for path in (self.path, self._note, self._partial) if os.path.lexists(path)]
        if own:
            there = [path for path in there if path != self.path]
        if not own:
            self._refuse_folder()
        if there and not self._dry_run:
            for path in there:
                shutil.rmtree(path) if path == self._partial and os.path.isdir(path) else os.unlink(path)
            with suppress(OSError):
                # others' files are in it, or it is where a file system is mounted
                os.rmdir(self._folder)
        before = "".join(f"{path}\n" for path in there)
        if own:
            return Outcome(bool(there), "keep", "a file given by its path is never removed", before=before)
        if there:
            return Outcome(True, "remove", "it is no longer wanted", before=before)
        return Outcome(False, "keep", "it is not there")

    def _refuse_folder(self) -> None:
        if os.path.isdir(self.path):
            raise BadInput(f"{self.path} is a directory where the model's file belongs; move it away")

    def _check_own_file(self) -> Outcome:
        found = model_file.read(self.path)
        if not self._ref.sha256:
            return Outcome(False, "keep", "it is on the host", found)
        digest, noted = self._digest()
        if digest != self._ref.sha256:
            raise BadInput(
                f"the file has the sha256 {digest} instead of the expected {self._ref.sha256}; correct either"
            )
        return self._keep(noted)

    def _keep(self, noted: bool) -> Outcome:
        """Leave the file as it is and set right what is around it: the note, and the mode of a file of ours."""
        found = model_file.read(self.path, any_mode=self._ref.kind != "path")
        wrong_mode = self._ref.kind != "path" and stat.S_IMODE(os.stat(self.path).st_mode) != 0o644
        if wrong_mode and not self._dry_run:
            os.chmod(self.path, 0o644)
        if not noted:
            self._take_note()
            return Outcome(True, "verify", "its sha256 is the expected one", found, after=f"{self._note}\n")
        if wrong_mode:
            return Outcome(True, "repair", "its mode was not 0644", found, after=f"{self.path}: mode 0644\n")
        return Outcome(False, "keep", "it was verified before", found)

    def _digest(self) -> tuple[str, bool]:
        """Return the file's sha256 and whether it was noted, so that the file need not be read."""
        if model_file.is_noted(self.path, self._ref.sha256, self._note):
            return self._ref.sha256, True
        return model_file.digest_of(self.path), False

    def _take_note(self) -> None:
        if not self._dry_run:
            self._make_folder()
            model_file.write_note(self.path, self._ref.sha256, self._note)

    def _make_folder(self) -> None:
        if not os.path.isdir(self._folder):
            os.makedirs(self._folder)
            os.chmod(self._folder, 0o755)  # noqa: S103 -- engines, which are not root, read the models

    def _bring(self, action: str) -> model_file.ModelFile | None:
        if self._dry_run:
            # later tasks of a dry run can plan with what would be generated, not with what would be downloaded
            return self._preview() if action == "generate" else None
        self._make_folder()
        if action == "generate":
            self._generate()
        else:
            self._download()
        return model_file.read(self.path)

    def _url(self) -> UrlDownload:
        # most runs find the file in its place; loading this takes longer than they do
        from ansible.module_utils.llmfleet.hub.url_download import UrlDownload

        return UrlDownload(self._ref.model, self._ref.file_name, self._ref.sha256, self._partial, self._timeout)

    def _download(self) -> None:
        """Download into a folder of its own, which an interrupted run leaves behind and the next one continues."""
        if os.path.isfile(self._partial):
            os.unlink(self._partial)  # of a version of this module that kept partial files there

        def finish() -> None:
            try:
                self._put(os.path.join(self._partial, self._ref.file_name))
            finally:
                shutil.rmtree(self._partial)

        self._url().run(finish)

    def _preview(self) -> model_file.ModelFile:
        content = io.BytesIO()
        tiny_gguf.write(content)
        return model_file.describe(content, content.tell(), self.path)

    def _generate(self) -> None:
        if os.path.isdir(self._partial):
            shutil.rmtree(self._partial)  # of an interrupted download under the same name
        with open(self._partial, "wb") as stream:
            tiny_gguf.write(stream)
        os.chmod(self._partial, 0o644)
        self._put(self._partial)

    def _put(self, partial: str) -> None:
        """Move the complete file to its place, once it has proved to be a model."""
        try:
            with open(partial, "rb") as stream:
                header = gguf.read_header(stream, os.path.getsize(partial))
            if header.split_count > 1:
                raise BadInput(
                    "the file is one part of a split model, which has to be on the host and be given by its path"
                )
        except BadInput:
            os.unlink(partial)
            raise
        os.replace(partial, self.path)
        self._take_note()
