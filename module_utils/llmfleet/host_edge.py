"""Small pieces of edge code for modules that make images: programs, the log, the lock and the engine's images."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
import typing as t
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.errors import LlmfleetError

LOCK = ".llama_cpp_image.lock"
"""The file in the work folder that a run holds while it makes or removes images."""

SYSTEM_DIRS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def find_program(name: str) -> str:
    """Return the path of a program, "" when there is none; the PATH of a module often lacks the sbin folders."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(SYSTEM_DIRS)) or ""


def read_text(path: str) -> str:
    """Return the content of a small text file, "" when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def move_into_place(move: t.Callable[[str, str], t.Any], temporary: str, path: str) -> None:
    """Replace ``path`` by means of AnsibleModule.atomic_move, which raises mere Exceptions; raise what can be told."""
    try:
        move(temporary, path)
    except OSError:
        raise
    except Exception as error:
        why = getattr(error.__cause__, "strerror", None) or error
        raise LlmfleetError(
            f"{path} cannot be replaced: {why}; see whether it is a mount of its own or immutable (lsattr), undo that"
        ) from error


def images_present(docker: Docker, references: t.Sequence[str], lenient: bool = False) -> dict[str, dict[str, t.Any]]:
    """Return those of ``references`` that the engine has, with one call. ``lenient`` takes no engine for no image."""
    if not references or (lenient and not docker.executable):
        return {}
    if not docker.executable:
        raise DockerError("There is no docker client on this host; install docker first.")
    rc, out, err = docker.attempt("image", "inspect", *references)
    if rc != 0 and "no such" not in err.lower():
        if lenient:
            return {}
        raise DockerError(f"docker image inspect failed: {' '.join((err or out).split())}")
    found = {}
    for image in json.loads(out or "[]"):
        for name in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())):
            if name in references:
                found[name] = image
    return found


class JobLog:
    """The log of a build: what commands say is written to it as they say it."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self.written = False

    def name(self) -> str:
        """Return the path of the log, "" when nothing was written."""
        return str(self.path) if self.written else ""

    def stream(self, argv: t.Sequence[str], env: t.Mapping[str, str]) -> int:
        """Run ``argv`` with its output going to the log; return its exit status, 124 when it took too long."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = "ab" if self.written else "wb"
        self.written = True
        with open(self.path, mode, buffering=0) as log:
            log.write(f"{time.strftime('%F %T')} running {os.path.basename(argv[0])} {argv[1]}\n".encode())
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C", "PATH": search_path(), **env},
                start_new_session=True,
            )
            try:
                return process.wait(timeout=self.seconds)
            except subprocess.TimeoutExpired:
                log.write(f"error: stopped because it took longer than {self.seconds:g} s\n".encode())
                return 124
            finally:
                # also when interrupted: a build that nobody waits for would go on for minutes
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def search_path() -> str:
    """Return the PATH with the system's folders at its end."""
    return os.pathsep.join(dict.fromkeys([*os.environ.get("PATH", "").split(os.pathsep), *SYSTEM_DIRS]))


@contextmanager
def exclusive(work: Path) -> t.Iterator[None]:
    """Let one run at a time make images on this host; a second one waits."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / LOCK, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def unless_busy(work: Path) -> t.Iterator[bool]:
    """Hold the lock of `exclusive` where nobody has it; tell whether that is so."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / LOCK, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
