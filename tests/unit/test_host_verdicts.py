"""What speaks against a host, and what its owner is told."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.host_verdicts import verdicts
from facts import NOW, host

GIB = 1024**3
NEEDS = {"image_bytes": 3 * GIB, "now": NOW, "gpu": False}
NO_DRIVER = {
    "verdict": "no_driver",
    "reason": "an NVIDIA GPU (10de:2204 at 0000:01:00.0) is there, but its driver is not",
}


def judged(facts, **needs):
    found = verdicts(facts, {**NEEDS, **needs})
    return found["problems"], found["warnings"]


def with_gpu(version):
    return {"verdict": "gpu", "reason": "1 NVIDIA GPU", "driver_version": version, "problems": []}


@pytest.mark.parametrize("engine", ["", "distro", "ce"])
def test_nothing_speaks_against_a_good_host(engine):
    assert judged(host(engine)) == ([], [])


def test_a_missing_driver_is_a_problem_only_where_a_gpu_is_needed():
    facts = host(gpu=NO_DRIVER)
    assert judged(facts) == ([], [NO_DRIVER["reason"]])
    assert judged(facts, gpu=True) == ([f"a GPU is needed: {NO_DRIVER['reason']}"], [])


def test_no_gpu_at_all():
    assert judged(host()) == ([], [])
    assert judged(host(), gpu=True) == (["a GPU is needed: no NVIDIA GPU on the PCI bus"], [])


@pytest.mark.parametrize(
    ("version", "old"), [("418.226.00", True), ("450.80.02", False), ("580.95.05", False), (None, False)]
)
def test_an_old_driver(version, old):
    problems, warnings = judged(host(gpu=with_gpu(version)), gpu=True)
    assert problems == []
    assert len(warnings) == old
    if old:
        assert "NVIDIA driver 418.226.00 is older than 450" in warnings[0]


def test_under_wsl_the_driver_is_windows():
    facts = host(gpu=with_gpu("418.226.00"), platform={"wsl": True})
    assert judged(facts)[1][0].endswith("update the driver in Windows")


def disks(*rooms):
    facts = host()
    facts["disks"] = [{"path": path, "free_bytes": free, "total_bytes": 100 * GIB} for path, free in rooms]
    return facts


def test_two_folders_on_one_full_disk_are_one_problem():
    problems, _ = judged(disks(("/var/lib/docker", GIB), ("/var/lib/containerd", GIB)))
    assert problems == [
        "1.0 of 100.0 GiB are free for /var/lib/docker and /var/lib/containerd, and images need 3.0 GiB; make room "
        "(docker system prune removes what no container uses), or choose a folder on a larger disk "
        "(docker_engine_data_root and `root` in /etc/containerd/config.toml)"
    ]


def test_either_disk_of_an_engine_to_come_must_have_room():
    for small in ("/var/lib/docker", "/var/lib/containerd"):
        rooms = {"/var/lib/docker": 9 * GIB, "/var/lib/containerd": 9 * GIB, small: 2 * GIB}
        problems, _ = judged(disks(*rooms.items()))
        assert len(problems) == 1
        assert f"free for {small}," in problems[0]


@pytest.mark.parametrize(("store", "small"), [(False, "/data/docker"), (True, "/var/lib/containerd")])
def test_of_a_running_engine_only_the_disk_with_the_images_counts(store, small):
    rooms = {"/data/docker": 9 * GIB, "/var/lib/containerd": 9 * GIB, small: 2 * GIB}
    facts = disks(*rooms.items())
    facts["docker"].update(reachable=True, root_dir="/data/docker", containerd_store=store)
    assert [small in problem for problem in judged(facts)[0]] == [True]
    facts["docker"]["containerd_store"] = not store
    assert judged(facts)[0] == []


def test_room_does_not_matter_where_no_image_is_needed():
    assert judged(disks(("/var/lib/docker", 1)), image_bytes=0) == ([], [])


@pytest.mark.parametrize(
    ("ahead", "problem", "words"),
    [
        (299, False, ""),
        (-299, False, ""),
        (600, False, "10 minutes ahead of"),
        (-3 * 3600, False, "3 hours behind"),
        (-26 * 3600, True, "26 hours behind"),
    ],
)
def test_the_clock(ahead, problem, words):
    problems, warnings = judged(host(clock={"epoch": NOW + ahead}))
    assert (len(problems), len(warnings)) == (int(problem), int(bool(words) and not problem))
    assert words in "".join(problems + warnings)


@pytest.mark.parametrize(
    ("cgroups", "version", "warned"),
    [("1", "29.7.2", True), ("1", "28.5.2", False), ("2", "29.7.2", False), ("1", "", False)],
)
def test_control_groups(cgroups, version, warned):
    facts = host("ce", platform={"cgroup_version": cgroups}, docker={"server_version": version})
    problems, warnings = judged(facts)
    assert problems == []
    assert [f"docker {version} " in warning for warning in warnings] == [True] * warned


def test_whoever_holds_the_package_lock_is_named():
    lock = {"held": True, "path": "/var/lib/dpkg/lock-frontend", "pid": 812, "process": "unattended-upgrade"}
    assert judged(host(package_lock=lock)) == (
        [],
        [
            "unattended-upgrade (process 812) holds the package lock /var/lib/dpkg/lock-frontend; installing waits "
            "until it is done"
        ],
    )


def test_what_is_wrong_with_one_gpu_of_several_is_a_warning():
    lost = {"cause": "the GPU at 0000:3b:00.0 has fallen off the bus", "fix": "reset or reboot the host"}
    _, warnings = judged(host(gpu={**with_gpu("570.86.10"), "problems": [lost]}))
    assert warnings == ["the GPU at 0000:3b:00.0 has fallen off the bus; reset or reboot the host"]
