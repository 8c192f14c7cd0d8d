"""Who holds the package manager's lock: with locks that real processes hold, and with a /proc made for the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import package_lock_info
import pytest
from ansible.module_utils.llmfleet.package_lock import KERNEL_LOCKS, holders, look, program
from ansible.module_utils.testing import patch_module_args

FREE = {"held": False, "path": "", "pid": 0, "process": "", "running_s": 0}
LOCKS = """\
1: FLOCK  ADVISORY  WRITE 50 fe:00:99 0 EOF
2: POSIX  ADVISORY  WRITE 812 00:2f:4711 0 EOF
2: -> POSIX  ADVISORY  WRITE 900 00:2f:4711 0 EOF
3: POSIX  ADVISORY  READ  44 fe:00:4711 0 EOF
4: POSIX  ADVISORY  WRITE 813 fe:00:4711 0 EOF
5: OFDLCK ADVISORY  WRITE -1 fe:00:4711 0 EOF
6: LEASE  ACTIVE    WRITE 45 fe:00:4711 0 EOF
"""
HOLD = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"


def test_holders_are_those_who_have_a_write_lock():
    assert holders(LOCKS, 4711, "00:2f") == [(812, True), (813, False)]
    assert holders(LOCKS, 99, "fe:00") == [(50, True)]
    assert holders(LOCKS, 471, "fe:00") == holders("", 4711, "fe:00") == []


def test_a_fitting_device_comes_first():
    assert holders(LOCKS, 4711, "fe:00") == [(813, True), (812, False)]
    assert holders(LOCKS, 4711, "08:01") == [(812, False), (813, False)]


@pytest.mark.parametrize(
    ("words", "comm", "name"),
    [
        (
            ["/usr/bin/python3", "/usr/bin/unattended-upgrade", "--download-only"],
            "unattended-upgr",
            "unattended-upgrade",
        ),
        (["/usr/bin/python3", "-u", "/usr/bin/unattended-upgrade"], "unattended-upgr", "unattended-upgrade"),
        (["/bin/sh", "/usr/lib/apt/apt.systemd.daily", "install"], "apt.systemd.dai", "apt.systemd.daily"),
        (["/usr/bin/python3.11", "-c", "import apt"], "python3", "python3"),
        (["python3"], "python3", "python3"),
        (["/usr/bin/apt-get", "-y", "upgrade"], "apt-get", "apt-get"),
        (["/usr/libexec/packagekitd"], "packagekitd", "packagekitd"),
        ([], "kworker/0:1\n", "kworker/0:1"),
        ([], "", ""),
    ],
)
def test_the_name_people_know_a_process_by(words, comm, name):
    assert program("".join(f"{word}\0" for word in words), comm) == name


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in KERNEL_LOCKS:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.fixture
def hold(tmp_path: Path) -> t.Iterator[t.Callable[[Path, str], int]]:
    """Start a process of a given name that locks a file; return its number."""
    started: list[subprocess.Popen[bytes]] = []

    def start(path: Path, name: str) -> int:
        script = tmp_path / name
        script.write_text(HOLD)
        process = subprocess.Popen(
            [sys.executable, str(script), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout
        process.stdout.readline()
        return process.pid

    yield start
    for process in started:
        process.communicate(b"\n")


def run(capsys: pytest.CaptureFixture[str], **args: object) -> dict[str, t.Any]:
    with patch_module_args(args), pytest.raises(SystemExit):
        package_lock_info.main()
    result: dict[str, t.Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize("check_mode", [False, True])
def test_lock_files_alone_lock_nothing(capsys, tree, check_mode):
    result = run(capsys, root=str(tree), _ansible_check_mode=check_mode)
    assert {name: result[name] for name in FREE} == FREE
    assert result["changed"] is False


def test_a_host_without_a_package_manager(tmp_path):
    assert look(str(tmp_path)) == FREE


@pytest.mark.parametrize("name", KERNEL_LOCKS)
def test_a_lock_that_a_process_holds(capsys, tree, hold, name):
    pid = hold(tree / name, "unattended-upgrade")
    result = run(capsys, root=str(tree))
    assert (result["held"], result["path"], result["pid"]) == (True, str(tree / name), pid)
    assert result["process"] == "unattended-upgrade"
    assert 0 <= result["running_s"] < 60


def test_the_frontend_is_named_before_its_dpkg(tree, hold):
    hold(tree / "var/lib/dpkg/lock", "dpkg")
    pid = hold(tree / "var/lib/dpkg/lock-frontend", "unattended-upgrade")
    assert look(str(tree))["pid"] == pid


def test_it_is_free_again(tree):
    script = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX)"
    subprocess.run([sys.executable, "-c", script, str(tree / KERNEL_LOCKS[0])], check=True)
    assert look(str(tree)) == FREE


def fake_process(proc: Path, pid: int, words: str, opened: t.Sequence[Path] = ()) -> None:
    place = proc / str(pid)
    (place / "fd").mkdir(parents=True)
    for number, path in enumerate(opened):
        (place / "fd" / str(number)).symlink_to(path)
    (place / "comm").write_text(f"{words.split()[0]}\n")
    (place / "cmdline").write_text(words.replace(" ", "\0") + "\0")
    ticks = 500 * os.sysconf("SC_CLK_TCK")
    (place / "stat").write_text(f"{pid} (odd) name) S 1 {' '.join(['0'] * 17)} {ticks} 0 0\n")
    (proc / "uptime").write_text("620.50 1000.00\n")


def test_the_same_inode_on_another_file_system_is_another_file(tree, tmp_path):
    lock = tree / KERNEL_LOCKS[0]
    proc = tmp_path / "proc"
    fake_process(proc, 70, "postgres")
    (proc / "locks").write_text(f"1: POSIX  ADVISORY  WRITE 70 fe:00:{lock.stat().st_ino} 0 EOF\n")
    assert look(str(tree), str(proc)) == FREE


def test_a_device_number_that_does_not_fit_is_no_obstacle(tree, tmp_path):
    lock = tree / KERNEL_LOCKS[0]
    proc = tmp_path / "proc"
    fake_process(proc, 71, "/usr/bin/apt-get upgrade", [tmp_path / "elsewhere", lock])
    (proc / "locks").write_text(f"1: POSIX  ADVISORY  WRITE 71 00:ff:{lock.stat().st_ino} 0 EOF\n")
    assert look(str(tree), str(proc)) == {
        "held": True,
        "path": str(lock),
        "pid": 71,
        "process": "apt-get",
        "running_s": 120,
    }


@pytest.mark.parametrize("fits", [True, False])
def test_without_the_right_to_look_the_device_decides(tree, tmp_path, monkeypatch, fits):
    lock = tree / KERNEL_LOCKS[0]
    status = lock.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}" if fits else "00:ff"
    proc = tmp_path / "proc"
    fake_process(proc, 74, "/usr/bin/apt-get upgrade", [lock])
    (proc / "locks").write_text(f"1: POSIX  ADVISORY  WRITE 74 {device}:{status.st_ino} 0 EOF\n")
    real = os.stat

    def refuse(path: str, **options: t.Any) -> os.stat_result:
        if "/fd/" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert look(str(tree), str(proc))["held"] is fits


@pytest.mark.parametrize(("text", "held"), [("72\n", True), ("73\n", False), ("", False), ("garbage", False)])
@pytest.mark.parametrize("name", ["var/lib/dnf/rpmdb_lock.pid", "var/cache/dnf/metadata_lock.pid"])
def test_dnf_4_writes_its_process_id(tmp_path, name, text, held):
    proc = tmp_path / "proc"
    fake_process(proc, 72, "/usr/bin/python3 /usr/bin/dnf -y update")
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = look(str(tmp_path), str(proc))
    assert found["held"] is held
    assert (found["path"], found["process"]) == ((str(path), "dnf") if held else ("", ""))


def test_broken_input(capsys):
    result = run(capsys, root=["/"], folder="/")
    assert result["failed"]
    assert "folder" in result["msg"]
