"""What host_info reads of a host, against folders that look like one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import facts
import pytest
from ansible.module_utils.llmfleet import host_look
from ansible.module_utils.llmfleet.timed_run import Answer

ROOT = Path(__file__).resolve().parents[2]


def write(root: Path, path: str, text: str = "", mode: int = 0o644) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def test_dpkgs_words():
    shown = "docker-ce\t5:26.1.5-1\thi \ncontainerd\t\tun \nrunc\t1.1.5\trc \ncontainerd.io\t1.7.24-1\tiF \n"
    assert host_look.read_dpkg(shown) == {
        "installed": {"docker-ce": "5:26.1.5-1", "containerd.io": "1.7.24-1"},
        "held": ["docker-ce"],
    }


@pytest.mark.parametrize("locks", ["docker-ce-3:26.1.5-1.el9.*\n", '[[packages]]\nname = "docker-ce"\n'])
def test_rpms_words(locks):
    shown = "docker-ce\t3\t26.1.5-1.el9\ncontainerd.io\t0\t1.7.24-3.1.el9\npackage runc is not installed\n"
    assert host_look.read_rpm(shown, locks) == {
        "installed": {"docker-ce": "3:26.1.5-1.el9", "containerd.io": "1.7.24-3.1.el9"},
        "held": ["docker-ce"],
    }


def test_a_lock_on_one_package_is_none_on_another_whose_name_it_begins_with():
    assert host_look.read_rpm("docker-ce\t3\t26\n", "docker-ce-cli-1:26.1.5-1.el9.*\n")["held"] == []


def test_packages_are_asked_for_once(tmp_path):
    asked = []

    def run(argv, _seconds):
        asked.append(argv)
        return Answer(1, "docker-ce\t1\tii \n", "dpkg-query: no packages found matching runc")

    assert host_look.packages("apt", 5, str(tmp_path), run)["installed"] == {"docker-ce": "1"}
    assert host_look.packages("", 5, str(tmp_path), run) == {"installed": {}, "held": []}
    assert [argv[0] for argv in asked] == ["dpkg-query"]
    assert "nvidia-container-toolkit-base" in asked[0]
    # on Debian that is a program which shows icons
    assert "docker" not in asked[0]


def test_a_real_database_of_dpkg(tmp_path):
    package = "Package: {}\nStatus: {} ok {}\nVersion: {}\nArchitecture: all\nMaintainer: x\nDescription: x\n\n"
    status = package.format("docker-ce", "hold", "installed", "5:1-1") + package.format(
        "runc", "install", "installed", "2"
    )
    write(tmp_path, "var/lib/dpkg/status", status + package.format("containerd", "deinstall", "config-files", "3"))
    (tmp_path / "var/lib/dpkg/info").mkdir()
    found = host_look.packages("apt", 5, str(tmp_path))
    assert found == {"installed": {"docker-ce": "5:1-1", "runc": "2"}, "held": ["docker-ce"]}


DEB822 = "Types: deb\nURIs: {}\nSuites: noble\nComponents: stable\nSigned-By: /etc/apt/keyrings/docker.asc\n"


@pytest.mark.parametrize(
    ("name", "text", "docker", "nvidia"),
    [
        ("docker.list", "deb [arch=amd64] https://download.docker.com/linux/ubuntu noble stable\n", True, False),
        ("docker.sources", DEB822.format("https://mirrors.aliyun.com/docker-ce/linux/debian"), True, False),
        ("volc.sources", DEB822.format("https://mirrors.volces.com/docker/linux/debian/"), True, False),
        ("off.sources", "Enabled: no\n" + DEB822.format("https://download.docker.com/linux/debian"), False, False),
        ("comment.list", "# deb https://download.docker.com/linux/debian bookworm stable\n", False, False),
        ("other.list", "deb http://deb.example/debian bookworm main\n", False, False),
        ("nv.list", "deb https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n", False, True),
        ("docker.list.save", "deb https://download.docker.com/linux/debian bookworm stable\n", False, False),
    ],
)
def test_package_sources(tmp_path, name, text, docker, nvidia):
    file = str(write(tmp_path, f"etc/apt/sources.list.d/{name}", text))
    found = host_look.apt_sources(str(tmp_path))
    assert found == {"docker": [file] * docker, "nvidia": [file] * nvidia}


def test_one_entry_that_is_on_counts_though_another_is_off(tmp_path):
    entry = DEB822.format("https://download.docker.com/linux/debian")
    write(tmp_path, "etc/apt/sources.list.d/docker.sources", f"Enabled: no\n{entry}\n{entry}")
    assert len(host_look.apt_sources(str(tmp_path))["docker"]) == 1


def test_a_platform(tmp_path):
    write(tmp_path, "usr/lib/os-release", 'ID="rocky"\nID_LIKE="rhel"\nVERSION_ID="9.5"\n')
    write(tmp_path, "proc/sys/kernel/osrelease", "5.15.167.4-microsoft-standard-WSL2\n")
    write(tmp_path, "sys/fs/cgroup/cgroup.controllers")
    for program in ("apt-get", "dnf"):
        write(tmp_path, f"usr/bin/{program}", mode=0o755)
    found = host_look.platform(str(tmp_path))
    assert (found["os_family"], found["package_manager"], found["cgroup_version"]) == ("RedHat", "dnf", "2")
    assert (found["wsl"], found["kernel"]) == (True, "5.15.167.4-microsoft-standard-WSL2")


@pytest.mark.parametrize("mark", host_look.WSL_MARKS)
def test_wsl_by_its_files(tmp_path, mark):
    write(tmp_path, "proc/sys/kernel/osrelease", "6.6.0-custom\n")
    assert not host_look.platform(str(tmp_path))["wsl"]
    write(tmp_path, mark)
    assert host_look.platform(str(tmp_path))["wsl"]


def test_an_empty_host(tmp_path):
    root = str(tmp_path)
    assert host_look.toolkit(root) == {"ctk": "", "hook": "", "hook_changed_at": None, "cdi_specs": []}
    assert host_look.apt_sources(root) == {"docker": [], "nvidia": []}
    assert host_look.platform(root)["package_manager"] == ""
    assert host_look.platform(root)["cgroup_version"] == "1"


def test_the_toolkit(tmp_path):
    began = time.time()
    hook = write(tmp_path, "usr/bin/nvidia-container-runtime-hook", mode=0o755)
    ctk = write(tmp_path, "usr/bin/nvidia-ctk", mode=0o755)
    specs = [write(tmp_path, path) for path in ("etc/cdi/own.json", "var/run/cdi/nvidia.yaml")]
    write(tmp_path, "etc/cdi/nvidia.yaml.bak")
    found = host_look.toolkit(str(tmp_path))
    assert (found["ctk"], found["hook"], found["cdi_specs"]) == (str(ctk), str(hook), [str(spec) for spec in specs])
    assert began - 1 < found["hook_changed_at"] < time.time() + 1


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('version = 3\nroot = "/data/containerd"\n[grpc]\n', "/data/containerd"),
        ("root = '/data/containerd' # moved\n", "/data/containerd"),
        ('[plugins."x"]\n  root = "/no"\n', "/var/lib/containerd"),
        ('#root = "/no"\n', "/var/lib/containerd"),
        (None, "/var/lib/containerd"),
    ],
)
def test_containerds_root(tmp_path, text, path):
    if text is not None:
        write(tmp_path, "etc/containerd/config.toml", text)
    assert host_look.containerd_root(str(tmp_path)) == path


def test_room_is_measured_where_the_folders_will_be(tmp_path):
    (tmp_path / "var/lib").mkdir(parents=True)
    engine, containerd = host_look.disks("/var/lib/docker", str(tmp_path))
    assert (engine["path"], containerd["path"]) == ("/var/lib/docker", "/var/lib/containerd")
    assert 0 < engine["free_bytes"] < engine["total_bytes"]
    assert {**engine, "path": ""} == {**containerd, "path": ""}


def test_the_disk_of_another_machine_is_not_measured(tmp_path):
    docker = {"reachable": True, "disk_free_bytes": None, "root_dir": "/var/lib/docker", "cli": "/nonexistent/docker"}
    found = host_look.look({"package_manager": ""}, docker, 5, str(tmp_path))
    assert found["disks"] == []
    assert abs(found["clock"]["epoch"] - time.time()) < 5


CPUINFO = "processor : 0\nflags : fpu {}\n\nprocessor : 1\nflags : fpu avx avx2 bmi2 fma f16c sse4_2\n"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="levels are those of the machine that runs the test")
@pytest.mark.parametrize(
    ("flags", "level"),
    [("avx avx2 bmi2 fma f16c sse4_2", "x86-64-v3"), ("sse4_2", "x86-64-v2"), ("mmx", "x86-64")],
)
def test_the_processor_level_is_what_every_core_has(tmp_path, flags, level):
    write(tmp_path, "proc/cpuinfo", CPUINFO.format(flags))
    write(tmp_path, "proc/meminfo", "MemFree:  1 kB\nMemTotal:       16384 kB\n")
    machine = host_look.machine(str(tmp_path))
    assert machine["cpu_level"] == level
    assert machine["memory_bytes"] == 16 * 1024**2
    assert machine["cpus"] >= 1


def test_when_an_image_was_made_here_last(tmp_path):
    assert host_look.machine(str(tmp_path))["built_at"] is None
    for name, when in (("llama_cpp-1", 1000), ("llama_cpp-2", 3000), ("other", 9000)):
        os.utime(write(tmp_path, f"var/lib/llmfleet/logs/{name}.log"), (when, when))
    assert host_look.machine(str(tmp_path))["built_at"] == 3000


def test_an_architecture_that_no_image_is_built_for_has_no_level(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    assert host_look.machine(str(tmp_path))["cpu_level"] == ""
    assert host_look.machine(str(tmp_path))["memory_bytes"] == 0


def test_the_module_says_what_plans_are_made_from():
    """The facts that other tests decide upon have no key that the module does not return."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/run_module.py"), "host_info", "{}"],
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said["changed"] is False
    for part, values in facts.BARE.items():
        if isinstance(values, dict):
            assert values.keys() <= said[part].keys(), part
    for disk in said["disks"]:
        assert disk.keys() == facts.BARE["disks"][0].keys()


def test_only_those_hosts_toml_files_count_that_are_ours(tmp_path):
    for registry, first_line in (("ghcr.io", "# Written by llmfleet; changes are overwritten."), ("quay.io", "# mine")):
        folder = tmp_path / "etc/docker/certs.d" / registry
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(
            f'{first_line}\nserver = "https://{registry}"\n\n[host."https://a.invalid"]\n[host."https://b.invalid"]\n'
        )
    assert host_look.registry_hosts(str(tmp_path)) == {"ghcr.io": ["https://a.invalid", "https://b.invalid"]}
