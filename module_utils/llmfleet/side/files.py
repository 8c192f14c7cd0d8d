"""The files of a helper on the host: put in place for a running container to see, and put back when it does not work.

The container sees the folder, so that a file that is replaced is seen at once. What was accepted last is kept beside
it until the new content has proved itself. Edge code.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import typing as t
from pathlib import Path

from ansible.module_utils.llmfleet.side.parts import File
from ansible.module_utils.llmfleet.spec import digest

Files = t.Mapping[str, File]


class FileKeeper:
    """The files below ``home``, which become ``wanted`` and belong to ``owner`` (user, group)."""

    def __init__(self, home: Path, wanted: Files, owner: tuple[int, int]) -> None:
        self.home, self.wanted, self._owner = home, wanted, owner
        self.folder, self._previous = home / "files", home / "files.previous"
        self._record = home / "record.json"
        self.known = self._read_record()
        self.salt = str(self.known.get("salt") or secrets.token_hex(8))
        present = read(self.folder)
        self.before = self._digests(present)
        self.after = self._digests(wanted)
        self.differs = sorted(path for path in {*present, *wanted} if present.get(path) != wanted.get(path))

    @property
    def proven(self) -> bool:
        """Whether a container has been accepted with the files as they are to be."""
        return not self.differs and self.known.get("files") == self.after

    def why(self) -> str:
        """Return what is to be done about the files, "" for nothing."""
        if self.differs:
            return f"files: {', '.join(self.differs)}"
        return "" if self.proven else "files: a former change was not verified"

    def forward(self) -> None:
        """Put the wanted files in place; what was accepted last is kept until `accept`."""
        if not self.differs or read(self.folder) == self.wanted:
            return
        if self.folder.exists() and not self._previous.exists():
            aside = self.home / "files.aside"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(self.folder, aside)
            aside.rename(self._previous)
        self.write(self.folder, self.wanted)

    def back(self) -> bool:
        """Put what was accepted last back; return whether there was anything."""
        if not self._previous.exists():
            return False
        self.write(self.folder, read(self._previous))
        shutil.rmtree(self._previous)
        return True

    def accept(self, listens: t.Sequence[str]) -> None:
        """Note that a container works with the files as they are, on the addresses ``listens``."""
        shutil.rmtree(self._previous, ignore_errors=True)
        new = {"salt": self.salt, "files": self._digests(read(self.folder)), "listens": list(listens)}
        if new != self.known:
            part = self.home / "record.json.part"
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump(new, file)
            part.replace(self._record)

    def make_folder(self) -> None:
        """Make the folder, which may stay empty for now."""
        self._make(self.folder)

    def write(self, folder: Path, files: Files) -> None:
        """Make ``files`` all that is in ``folder``, one file after the other, each of them at once."""
        self._make(folder)
        for path, file in files.items():
            for parent in reversed(Path(path).parents[:-1]):
                self._make(folder / parent)
            part = self.home / "file.part"
            part.unlink(missing_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as stream:
                os.fchown(stream.fileno(), *self._owner)
                os.fchmod(stream.fileno(), file.mode)
                stream.write(file.content)
            part.replace(folder / path)
        for there in read(folder):
            if there not in files:
                (folder / there).unlink()

    def _make(self, folder: Path) -> None:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.chown(folder, *self._owner)

    def _digests(self, files: Files) -> dict[str, str]:
        salted = {path: digest(f"{row.mode:o} {row.content.hex()}", self.salt) for path, row in files.items()}
        return dict(sorted(salted.items()))

    def _read_record(self) -> dict[str, t.Any]:
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def read(folder: Path) -> dict[str, File]:
    """Return path -> file of everything below ``folder``."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): File(path.read_bytes(), path.stat().st_mode & 0o777) for path in paths}
