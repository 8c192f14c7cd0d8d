"""The secret files of one service on its host: a folder for each specification, so that the one before keeps its own.

Edge code. Who may read them depends on what the service runs in, so that writes them.
"""

from __future__ import annotations

import os
import shutil

from ansible.module_utils.llmfleet.spec import Spec, identity


class SecretFiles:
    """What stands below ``directory``, which is the service's own."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def folder(self, spec: Spec) -> str:
        """Return the folder of what is made from ``spec``."""
        return f"{self.directory}/{identity(spec)}"

    def api_key(self, spec: Spec) -> str:
        """Return the API key of what is made from ``spec``, from the file that it was given; "" without one."""
        if "api_key" not in spec["secrets"]:
            return ""
        with open(f"{self.folder(spec)}/api_key", encoding="utf-8") as file:
            # the engine may have been given it more than once
            return file.readline().strip()

    def drop(self, spec: Spec) -> None:
        """Delete the files of ``spec``."""
        shutil.rmtree(self.folder(spec), ignore_errors=True)

    def keep_only(self, spec: Spec) -> None:
        """Delete the files of all specifications but ``spec``."""
        if os.path.isdir(self.directory):
            for name in os.listdir(self.directory):
                if name != identity(spec):
                    shutil.rmtree(f"{self.directory}/{name}", ignore_errors=True)

    def remove(self) -> None:
        """Delete all of them."""
        shutil.rmtree(self.directory, ignore_errors=True)
