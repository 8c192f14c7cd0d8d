"""Writing daemon.json and the record of it, and asking dockerd what it thinks. Edge of docker_daemon_config."""

from __future__ import annotations

import json
import os
import tempfile
import typing as t
from contextlib import suppress

from ansible.module_utils.llmfleet import daemon_json, daemon_look
from ansible.module_utils.llmfleet.daemon_keys import check, conflicts, masked
from ansible.module_utils.llmfleet.daemon_leaves import Config
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.timed_run import timed_run

PATIENCE_S = 20


def make_folder(folder: str) -> None:
    """Make ``folder`` readable for all, whatever the umask."""
    if not os.path.isdir(folder):
        os.makedirs(folder)
        os.chmod(folder, 0o755)  # noqa: S103 - as the packages make /etc/docker


def write_temporary(folder: str, text: str) -> str:
    """Return the path of a new file in ``folder`` with ``text``, which is on the disk when this returns."""
    handle, path = tempfile.mkstemp(prefix=".llmfleet-", suffix=".json", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.remove(path)
        raise
    return path


def read_record(path: str) -> Config:
    """Return the record, without what is pending no more; {} when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return daemon_look.still_pending(daemon_json.parse(file.read(), path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LlmfleetError(f"{path}: {error.strerror}; run this task with become") from error


def write_record(path: str, record: Config) -> None:
    """Write the record for root alone, since what stood in daemon.json may hold a proxy's password; {} removes it."""
    if not record:
        with suppress(FileNotFoundError):
            os.remove(path)
        return
    make_folder(os.path.dirname(path))
    os.replace(write_temporary(os.path.dirname(path), json.dumps(record, indent=4) + "\n"), path)


def release_asked(cli: str, dockerd: str) -> tuple[str, bool]:
    """Return (version of the engine, whether it answered): the running one's, else that of the program."""
    running = timed_run([cli, "version", "--format", "{{.Server.Version}}"], PATIENCE_S)
    if running.rc == 0 and running.out.strip():
        return running.out.strip(), True
    said = timed_run([dockerd, "--version"], PATIENCE_S).out if dockerd else ""
    return said.partition("version ")[2].partition(",")[0].strip(), False


def can_validate(dockerd: str) -> bool:
    """Whether ``dockerd`` can check a file: from 23.0 on."""
    return bool(dockerd) and "--validate" in timed_run([dockerd, "--help"], PATIENCE_S).out


def refuse_bad(
    config: Config, temporary: str, path: str, dockerd: str, version: str, flags: t.Mapping[str, str]
) -> None:
    """Raise BadInput when ``config``, written to ``temporary`` to become ``path``, is one that dockerd would refuse."""
    able = can_validate(dockerd)
    problems = check(config, version, names=not able, flags=flags)
    problems += conflicts(config, flags, path)
    if able and not problems:
        answer = timed_run([dockerd, "--validate", "--config-file", temporary], PATIENCE_S)
        if answer.rc is None:
            raise LlmfleetError(f"{dockerd} --validate gave no answer within {PATIENCE_S} s; nothing was written")
        if answer.rc != 0:
            said = answer.said.replace(temporary, path)
            problems = check(config, version, flags=flags) or [f"dockerd says: {said}"]
    if problems:
        raise BadInput(
            f"{path} would stop the docker engine from starting: {masked('; '.join(problems))}; nothing was written"
        )
