"""Starting, finding and ending the processes that serve chunks of archives and models to other hosts. Edge code."""

from __future__ import annotations

import inspect
import ipaddress
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import typing as t
from contextlib import suppress
from dataclasses import dataclass

from ansible.module_utils.llmfleet import chunk_archive, chunk_folder, chunk_in_place, chunk_server
from ansible.module_utils.llmfleet.addresses import lan_address
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.image_archive import SIDECAR, read_sidecar
from ansible.module_utils.llmfleet.image_chunks import Archive

FILE_STATE = ".share.json"
START_SECONDS = 20
END_SECONDS = 2

_PROGRAM = """
import json, sys, types
sources, settings = json.load(sys.stdin)
for name, source in sources:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
module.main(settings)
"""
_PROGRAM_PARTS = (chunk_folder, chunk_archive, chunk_in_place, chunk_server)
"""Modules, each after those that it imports; the last one has main."""


def folder_of(directory: str, archive: Archive) -> str:
    """Return the folder in which a host collects the chunks of ``archive``."""
    return os.path.join(directory, archive.sha256[:16])


def prepare_folder(directory: str, archive: Archive) -> str:
    """Make the folder for the chunks of ``archive``, for root's eyes only, and return it."""
    folder = folder_of(directory, archive)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    record = os.path.join(folder, chunk_folder.RECORD)
    if not os.path.exists(record):
        with open(record + chunk_folder.PARTIAL, "w", encoding="utf-8") as file:
            json.dump(archive.as_data(), file)
        os.replace(record + chunk_folder.PARTIAL, record)
    return folder


@dataclass(frozen=True)
class Share:
    """What is or will be shared: one archive file, the folder in which its chunks arrive, or the files of a model.

    Those of a model lie in ``snapshot``, and until all have arrived in ``incoming``.
    """

    state: str
    record: str
    file: str = ""
    folder: str = ""
    incoming: str = ""
    snapshot: str = ""

    @classmethod
    def of_file(cls, path: str) -> Share:
        """Return the share of a written archive."""
        return cls(path + FILE_STATE, path + SIDECAR, file=path)

    @classmethod
    def of_folder(cls, folder: str) -> Share:
        """Return the share of the chunks in a folder."""
        return cls(os.path.join(folder, chunk_folder.STATE), os.path.join(folder, chunk_folder.RECORD), folder=folder)

    def running(self) -> dict[str, t.Any] | None:
        """Return the notes of the process that serves it, None when there is none."""
        try:
            with open(self.state, encoding="utf-8") as file:
                noted = t.cast("dict[str, t.Any]", json.load(file))
            alive = bool(noted["started"]) and chunk_server.start_time(int(noted["pid"])) == noted["started"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return noted if alive else None

    def start(self, bind: str, port: int, idle_timeout: int) -> dict[str, t.Any]:
        """Start serving and return the notes of the process."""
        if self.file and not read_sidecar(self.file):
            raise BadInput(
                f"{self.file} is not an archive that image_archive wrote, or was changed since; write it (again) first"
            )
        settings = {
            "bind": bind, "port": port, "idle_timeout": idle_timeout, "token": secrets.token_urlsafe(24),
            "state": self.state, "record": self.record, "file": self.file, "folder": self.folder,
            "incoming": self.incoming, "snapshot": self.snapshot,
        }  # fmt: skip
        said = self._run(settings)
        if said.get("error"):
            where = f"{bind or 'every address'}, port {port or 'any'}"
            raise LlmfleetError(f"chunks cannot be served on {where}: {said['error']}; choose another `bind` or `port`")
        noted = self.running()
        if not noted:
            raise LlmfleetError(
                "the process that serves the chunks ended at once; see whether the host kills processes"
            )
        return noted

    @staticmethod
    def _run(settings: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        # sources, as the files they came from are gone with the module; all by stdin, as arguments are public
        argv = [sys.executable or "python3", "-I", "-c", _PROGRAM]
        sources = [[module.__name__, inspect.getsource(module)] for module in _PROGRAM_PARTS]
        try:
            done = subprocess.run(
                argv,
                input=json.dumps([sources, settings]),
                capture_output=True,
                text=True,
                timeout=START_SECONDS,
                check=False,
            )
            return t.cast("dict[str, t.Any]", json.loads(done.stdout))
        except subprocess.TimeoutExpired:
            raise LlmfleetError(f"the process that serves the chunks did not start within {START_SECONDS} s") from None
        except ValueError:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise LlmfleetError(f"the process that serves the chunks did not start: {last}") from None

    def stop(self) -> bool:
        """End the process; return whether there was one."""
        noted = self.running()
        with suppress(FileNotFoundError):
            os.unlink(self.state)
        if not noted:
            return False
        pid = int(noted["pid"])
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(pid, kind)
            until = time.monotonic() + END_SECONDS
            while time.monotonic() < until:
                if chunk_server.start_time(pid) != noted["started"] or _is_dead(pid):
                    return True
                time.sleep(0.02)
        raise LlmfleetError(f"process {pid}, which serves chunks, cannot be ended; look at it with ps")


def _is_dead(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to notice."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return True


def reachable_at(bind: str, given: t.Sequence[str]) -> list[str]:
    """Return addresses at which others may reach this host, the ``given`` ones first."""
    if bind and not ipaddress.ip_address(bind).is_unspecified:
        return [bind]
    versions = [4, 6] if bind in ("", "::") else [4]
    found = (lan_address(version) for version in versions)
    return list(dict.fromkeys([*given, *(address for address in found if address)]))


def check_listening(bind: str, port: int, addresses: t.Sequence[str], idle_timeout: int) -> None:
    """Raise BadInput for values that mean nothing to a server."""
    if not 0 <= port <= 65535:
        raise BadInput(f"`port` must be from 0 to 65535, not {port}")
    if not 1 <= idle_timeout <= 86400:
        raise BadInput(f"`idle_timeout` must be from 1 to 86400 seconds, not {idle_timeout}")
    check_addresses([*filter(None, [bind]), *addresses])


def check_addresses(addresses: t.Sequence[str]) -> None:
    """Raise BadInput unless all are IP addresses."""
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise BadInput(f"{address!r} is no IP address; give one of this host, such as 192.0.2.7") from None


def urls(noted: t.Mapping[str, t.Any], addresses: t.Sequence[str]) -> list[str]:
    """Return what other hosts are told."""
    hosts = [f"[{address}]" if ":" in address else address for address in addresses]
    return [f"http://{host}:{noted['port']}/{noted['token']}" for host in hosts]


def folders(directory: str) -> list[str]:
    """Return the folders of chunks in ``directory``."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    paths = [os.path.join(directory, name) for name in names]
    return [path for path in paths if os.path.isfile(os.path.join(path, chunk_folder.RECORD))]


def tidy(folder: str) -> None:
    """Remove the chunks of an image that has been loaded; what was not finished is kept for the next run."""
    if os.path.exists(os.path.join(folder, chunk_folder.LOADED)):
        chunk_folder.clear(folder)
