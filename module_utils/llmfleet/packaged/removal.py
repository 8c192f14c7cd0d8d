"""Taking images away that were built or pulled here: older ones after a build, and all that was made. Edge code."""

from __future__ import annotations

import json
import os
import shutil
import typing as t
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.host_edge import images_present
from ansible.module_utils.llmfleet.image_prune import Image, take_all_away, take_away


@dataclass(frozen=True)
class Leavings:
    """What images of the name ``slug`` leave on a host; those built there are in ``repository``.

    ``caches`` are folders, relative to the work folder, that containers keep things in.
    """

    slug: str
    repository: str
    caches: tuple[str, ...] = ()

    @property
    def record(self) -> str:
        """Return the file in the work folder that holds the names of what was pulled."""
        return f"pulled_{self.slug}_images.json"

    def pulled(self, work: Path) -> list[str]:
        """Return the names of images that were pulled here."""
        try:
            return [str(name) for name in json.loads((work / self.record).read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def remember(self, work: Path, reference: str) -> None:
        """Note that ``reference`` was pulled, so that it can be taken away again."""
        new = work / f"{self.record}.new"
        new.write_text(json.dumps(sorted({*self.pulled(work), reference})), encoding="utf-8")
        os.replace(new, work / self.record)

    def prune(self, docker: Docker, kept: str) -> list[str]:
        """Take the images that were built here but ``kept`` away, unless containers use them; return what went."""
        gone = []
        for identity, all_names in self._built(docker).items():
            names = [name for name in all_names if name != kept]
            if names and not take_away(docker, Image(identity, tuple(names)), check_mode=False):
                gone += names
        return gone

    def _built(self, docker: Docker) -> dict[str, list[str]]:
        """Return image id -> names that this project gave."""
        line = "{{.ID}} {{.Repository}}:{{.Tag}}"
        found: dict[str, list[str]] = {}
        for row in docker.text("images", "--no-trunc", "--format", line, self.repository).splitlines():
            identity, name = row.split(" ", 1)
            if "<none>" not in name:
                found.setdefault(identity, []).append(name)
        return found

    def remove(self, docker: Docker, work: Path, check_mode: bool) -> dict[str, t.Any]:
        """Remove what was built and pulled, the logs and the caches; images in use are left, named."""
        images = self._built(docker) if docker.executable else {}
        found = images_present(docker, self.pulled(work), lenient=True)
        for name, image in found.items():
            images.setdefault(str(image["Id"]), []).append(name)
        removed, in_use = take_all_away(docker, images, check_mode)
        caches = [work / cache for cache in self.caches]
        # what a container still uses could not be found again without the record
        record = [] if set(found) - set(removed) else [work / self.record]
        for path in filter(Path.exists, [*record, *caches, *sorted((work / "logs").glob(f"{self.slug}-*.log"))]):
            removed.append(str(path))
            if not check_mode:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for folder in (work / "cache", work / "logs"):
            if not check_mode:
                with suppress(OSError):  # not empty, or never there
                    folder.rmdir()
        return {"changed": bool(removed), "action": "remove", "removed": removed, "in_use": in_use}
