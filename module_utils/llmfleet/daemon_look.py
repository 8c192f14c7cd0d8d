"""What this host's docker daemon is told: its daemon.json, our record of that file, and its command line.

Edge code, shared by the modules host_info and docker_daemon_config; what it reads is taken apart by the pure
functions that come first.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import typing as t
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.llmfleet import daemon_keys, engine_process
from ansible.module_utils.llmfleet.engine_info import SYSTEMD_MARK
from ansible.module_utils.llmfleet.host_edge import read_text
from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run

DAEMON_JSON = "/etc/docker/daemon.json"
RECORD = "/var/lib/llmfleet/docker_daemon.json"
DEFAULTS_FILE = "/etc/default/docker"
RUN_DIR = "/var/run"
UNIT = "docker.service"
PROPERTIES = "ExecStart,FragmentPath,DropInPaths,Environment,EnvironmentFiles"


@dataclass(frozen=True)
class CommandLine:
    """The arguments of dockerd, the files (path, text) they may come from, and what else to name as their origin."""

    argv: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    origin: str = ""

    @property
    def config_file(self) -> str:
        """The daemon.json that it names, or "" for the usual one."""
        for word, following in zip(self.argv, (*self.argv[1:], "")):
            name, equals, value = word.partition("=")
            if name == "--config-file":
                return value if equals else following
        return ""

    def flags(self) -> dict[str, str]:
        """Return {key of daemon.json: "flag (file or process it was found in)"}."""
        found = daemon_keys.flags_of(list(self.argv))
        return {key: f"{flag} ({self.source(flag)})" for key, flag in found.items()}

    def source(self, flag: str) -> str:
        """Return the file that gives ``flag``: the first with its words, else the first with its name."""
        texts = [(path, _spaced(text)) for path, text in self.files]
        words = _spaced(flag)
        for wanted in (words, words.strip().partition(" ")[0].partition("=")[0]):
            for path, text in texts:
                if wanted in text:
                    return path
        return self.origin


def _spaced(text: str) -> str:
    """Return ``text`` without comments and quotes and with single spaces, also at both ends."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))
    return f" {' '.join(re.sub(chr(34) + '|' + chr(39), ' ', ' '.join(lines)).split())} "


def expand(words: str, variables: t.Mapping[str, str]) -> str:
    """Return ``words`` with $NAME and ${NAME} replaced; a name that is not set is nothing."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda name: variables.get(name.group(1) or name.group(2), ""), words)


def assignments(text: str) -> dict[str, str]:
    """Return the variables that a shell file such as /etc/default/docker sets."""
    found: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        with suppress(ValueError):  # a quote that spans lines: not what such a file holds
            for word in shlex.split(line, comments=True):
                name, equals, value = word.partition("=")
                if equals and name.isidentifier():
                    found[name] = expand(value, found)
    return found


def unit_properties(shown: str) -> dict[str, list[str]]:
    """Return the values of each property in the words of `systemctl show`, without the empty ones."""
    found: dict[str, list[str]] = {}
    for name, equals, value in (line.partition("=") for line in shown.splitlines()):
        if equals and value:
            found.setdefault(name, []).append(value)
    return found


def environment_files(properties: t.Mapping[str, t.Sequence[str]]) -> list[str]:
    """Return the paths in EnvironmentFiles, each given as `PATH (ignore_errors=yes)`."""
    return [value.rpartition(" (")[0] or value for value in properties.get("EnvironmentFiles", ())]


def unit_argv(properties: t.Mapping[str, t.Sequence[str]], variables: t.Mapping[str, str]) -> tuple[str, ...]:
    """Return the command line that ExecStart gives (`{ path=… ; argv[]=… ; ignore_errors=no ; … }`)."""
    found = re.search(r"argv\[\]=(.*?) ; ignore_errors=", " ".join(properties.get("ExecStart", ())))
    return tuple(expand(found.group(1), variables).split()) if found else ()


def daemon_pid() -> int:
    """Return the process id of this host's dockerd, or 0; without a pid file in the usual place it is looked for."""
    pid = engine_process.daemon_pid(RUN_DIR)
    if pid or not os.path.exists(os.path.join(RUN_DIR, "docker.sock")):
        return pid
    with suppress(OSError):
        ours = os.readlink("/proc/self/ns/pid")
        for folder in glob.glob("/proc/[0-9]*"):
            # those of containers, with an engine inside, have process numbers of their own
            if read_text(f"{folder}/comm") == "dockerd\n" and os.readlink(f"{folder}/ns/pid") == ours:
                return int(os.path.basename(folder))
    return 0


def daemon_mark() -> str:
    """Return what tells the dockerd that runs here from those before and after it, "" when none runs."""
    pid = daemon_pid()
    # the start in ticks since boot, field 22 as counted behind the name (proc_pid_stat(5)): no clock can be set wrong
    ticks = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[19:20] if pid else []
    return " ".join([*ticks, str(pid), read_text("/proc/sys/kernel/random/boot_id").strip()]) if ticks else ""


def still_pending(record: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the ``record`` of docker_daemon_config without what is pending once another dockerd runs than then.

    That one has read the file when it started, as after a restart by hand or a reboot. What an interrupted run of
    docker_daemon_apply left, containers to start or a file to swap, stays to be done.
    """
    pending = record.get("pending") or {}
    noted = pending.get("daemon")
    if not noted or pending.get("containers") or pending.get("swap") or daemon_mark() in ("", noted):
        return dict(record)
    return {key: value for key, value in record.items() if key != "pending"}


def command_line(seconds: float = 20.0, run: TimedRunner = timed_run) -> CommandLine:
    """Return the command line of the running dockerd, or that with which the host would start it."""
    pid = daemon_pid()
    running = tuple(filter(None, read_text(f"/proc/{pid}/cmdline").split("\0"))) if pid else ()
    if not os.path.isdir(SYSTEMD_MARK):
        text = read_text(DEFAULTS_FILE)
        options = assignments(text).get("DOCKER_OPTS", "").split()
        return CommandLine(
            running or ("dockerd", *options), ((DEFAULTS_FILE, text),), f"process {pid}" if running else DEFAULTS_FILE
        )
    shown = unit_properties(run(["systemctl", "show", UNIT, f"--property={PROPERTIES}"], seconds).out)
    sources = environment_files(shown)
    variables: dict[str, str] = {}
    for text in (*shown.get("Environment", ()), *map(read_text, sources)):
        variables.update(assignments(text))
    fragment = "".join(shown.get("FragmentPath", ()))
    # the last drop-in has the last word
    drop_ins = " ".join(shown.get("DropInPaths", ())).split()[::-1]
    paths = [path for path in (*drop_ins, *sources, fragment) if path]
    return CommandLine(
        running or unit_argv(shown, variables),
        tuple((path, read_text(path)) for path in paths),
        f"process {pid}" if running else fragment,
    )


def daemon_flags(seconds: float = 20.0) -> dict[str, str]:
    """Return {key of daemon.json: "flag (where it was found)"} of what dockerd's command line sets already."""
    return command_line(seconds).flags()


def read_daemon_json(path: str) -> tuple[str | None, str]:
    """Return (text of daemon.json or None when there is none, why it cannot be read or "")."""
    try:
        return Path(path).read_text(encoding="utf-8"), ""
    except FileNotFoundError:
        return None, ""
    except UnicodeDecodeError:
        return None, f"{path} is not UTF-8 text, which docker insists on; correct it by hand"
    except OSError as problem:
        return None, f"{path} cannot be read: {problem.strerror}; correct that by hand"


def read_record(path: str) -> dict[str, t.Any]:
    """Return what docker_daemon_config wrote down of its work on daemon.json, {} when there is nothing."""
    with suppress(OSError, ValueError):
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return still_pending(found) if isinstance(found, dict) else {}
    return {}


def look(seconds: float = 20.0) -> dict[str, t.Any]:
    """Return `daemon` of host_info: {path, text, error, record, flags}, without the passwords of proxies."""
    told = command_line(seconds)
    path = told.config_file or DAEMON_JSON
    text, error = read_daemon_json(path)
    found = {"path": path, "text": text, "error": error, "record": read_record(RECORD), "flags": told.flags()}
    return t.cast("dict[str, t.Any]", daemon_keys.masked(found))
