"""Who holds the lock of apt, dpkg, dnf or rpm: looked up, never taken.

The locks are the kernel's (fcntl), so a lock file that is there means nothing; /proc/locks says who holds which inode.
dnf 4 instead writes its process id into a file, which counts while that process lives. The paths: apt-get(8), dpkg's
frontend lock (doc/frontend.txt), dnf's lock.py, libdnf5's transaction.cpp, rpm's %_rpmlock_path.
"""

from __future__ import annotations

import glob
import os
import re
import typing as t
from contextlib import suppress
from dataclasses import asdict, dataclass

from ansible.module_utils.llmfleet.host_edge import read_text

# whoever runs dpkg holds the frontend lock all the time, so it comes first: it names unattended-upgrade, not its dpkg
KERNEL_LOCKS = (
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/lock",
    "var/cache/apt/archives/lock",
    "var/lib/apt/lists/lock",
    "run/dnf/rpmtransaction.lock",
    "var/lib/rpm/.rpm.lock",
    "usr/lib/sysimage/rpm/.rpm.lock",
)
PID_FILES = ("var/lib/dnf/*_lock.pid", "var/cache/dnf/*_lock.pid", "run/yum.pid")
_LINE = re.compile(r"\d+: (?:POSIX|FLOCK)\s+\S+\s+WRITE (?P<pid>\d+) (?P<device>[0-9a-f]+:[0-9a-f]+):(?P<inode>\d+) ")
_INTERPRETER = re.compile(r"(python|perl|sh|bash|dash)[\d.]*")


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock; ``running_s`` counts from its start."""

    held: bool = False
    path: str = ""
    pid: int = 0
    process: str = ""
    running_s: int = 0


def holders(proc_locks: str, inode: int, device: str) -> list[tuple[int, bool]]:
    """Return (process, whether the device fits too) of those that hold a write lock on ``inode``, fitting ones first.

    The kernel prints the device of the whole file system (hex), which on btrfs and overlayfs is not what stat says: one
    that does not fit leaves open whether it is the same file.
    """
    # a line of one that waits has an arrow, "1: -> POSIX ...", and does not match
    lines = [found for found in map(_LINE.match, proc_locks.splitlines()) if found and int(found["inode"]) == inode]
    found = [(int(line["pid"]), line["device"] == device) for line in lines if int(line["pid"]) > 0]
    return sorted(found, key=lambda entry: not entry[1])


def program(cmdline: str, comm: str) -> str:
    """Return the name people know a process by: that of the script where an interpreter runs one."""
    words = [word for word in cmdline.split("\0") if word]
    if not words:
        return comm.strip()
    name = os.path.basename(words[0])
    if _INTERPRETER.fullmatch(name):
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        # `sh -c` and `python -c` carry their text where a script's name would be
        return os.path.basename(script) if script and "-c" not in words[1:3] else comm.strip() or name
    return name


def look(root: str = "/", proc: str = "/proc") -> dict[str, t.Any]:
    """Return who holds the package manager's lock in the tree ``root``: held, path, pid, process, running_s."""
    locks = read_text(os.path.join(proc, "locks"))
    for name in KERNEL_LOCKS:
        path = os.path.join(root, name)
        with suppress(OSError):
            status = os.stat(path)
            device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
            for pid, fits in holders(locks, status.st_ino, device):
                if _has_open(proc, pid, status, fits):
                    return asdict(_holder(path, pid, proc))
    for pattern in PID_FILES:
        for path in sorted(glob.glob(os.path.join(glob.escape(root), pattern))):
            text = read_text(path).strip()
            if text.isdigit() and os.path.isdir(os.path.join(proc, text)):
                return asdict(_holder(path, int(text), proc))
    return asdict(Holder())


def _has_open(proc: str, pid: int, status: os.stat_result, fits: bool) -> bool:
    """Whether the process has the very file open; ``fits`` where we may not look, as root in a container may not."""
    try:
        with os.scandir(os.path.join(proc, str(pid), "fd")) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.stat(entry.path), status):
                        return True
    except PermissionError:
        return fits
    except OSError:
        pass  # it has ended, and its lock with it
    return False


def _holder(path: str, pid: int, proc: str) -> Holder:
    place = os.path.join(proc, str(pid))
    name = program(read_text(os.path.join(place, "cmdline")), read_text(os.path.join(place, "comm")))
    running = 0
    with suppress(OSError, ValueError, IndexError):
        # the fields after the name, which may hold anything; proc(5): starttime is the 22nd of all
        started = int(read_text(os.path.join(place, "stat")).rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        running = max(0, int(float(read_text(os.path.join(proc, "uptime")).split()[0]) - started))
    return Holder(True, path, pid, name, running)
