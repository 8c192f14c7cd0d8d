"""What the nvidia_container_toolkit role will do, from facts and inputs alone."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.module_utils.llmfleet.toolkit_plan import OWNER, PACKAGES, plan, row

OFFICIAL = {"name": "official", "url": "https://nvidia.example/libnvidia-container"}
# one slash too many, as users write it
GIVEN = {"name": "near", "url": "http://mirrors.test/good/libnvidia-container/"}
MIRROR = {**GIVEN, "url": "http://mirrors.test/good/libnvidia-container"}
PLACE = {
    "official": "https://nvidia.example/libnvidia-container/stable/deb/amd64",
    "near": "http://mirrors.test/good/libnvidia-container/stable/deb/amd64",
}
INPUTS: dict[str, t.Any] = {
    "state": "present",
    "version": "",
    "allow_downgrade": False,
    "mirrors": [OFFICIAL, GIVEN],
    "mirror": "",
    "default_runtime": False,
    "cdi": "auto",
    "self_test": True,
    "test_image": {"registry": "docker.io", "name": "nvidia/cuda", "tag": "", "digest": ""},
}
CARD = {"vendor": "nvidia", "usable": True}
PROBE = {
    "ranked": [
        {"name": "near", "url": PLACE["near"], "bytes_per_second": 2_500_000},
        {"name": "official", "url": PLACE["official"], "bytes_per_second": 900_000},
    ],
    "rejected": [],
}


def facts(**parts: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return host_info's answer for a Debian host with one GPU and nothing installed, with ``parts`` laid over it."""
    base: dict[str, dict[str, t.Any]] = {
        "platform": {"os_family": "Debian", "distribution": "Debian GNU/Linux", "architecture": "x86_64"},
        "gpu": {"verdict": "gpu", "reason": "1 NVIDIA GPU", "driver_version": "570.86.10", "gpus": [CARD]},
        "docker": {
            "reachable": False,
            "problem": "nothing_there",
            "desktop": False,
            "server_version": "",
            "started_at": None,
            "runtimes": [],
            "containers_running": None,
        },
        "packages": {"installed": {}, "held": []},
        "apt_sources": {"nvidia": [], "docker": []},
        "toolkit": {"ctk": "", "hook": "", "hook_changed_at": None, "cdi_specs": []},
        "daemon": {"record": {}},
    }
    return {name: {**values, **parts.get(name, {})} for name, values in base.items()}


def engine(version: str = "26.1.5", **more: t.Any) -> dict[str, t.Any]:
    running = {"reachable": True, "problem": "", "server_version": version, "started_at": 1000.0}
    return {**running, "runtimes": ["io.containerd.runc.v2", "runc"], "containers_running": 0, **more}


def installed(version: str = "1.18.0-1", hook_changed_at: float = 500.0, **odd: str) -> dict[str, t.Any]:
    """Return the parts of the facts that tell an installed toolkit."""
    versions = {**dict.fromkeys(PACKAGES, version), **odd}
    hook = "/usr/bin/nvidia-container-runtime-hook"
    return {
        "packages": {"installed": versions},
        "toolkit": {"ctk": "/usr/bin/nvidia-ctk", "hook": hook, "hook_changed_at": hook_changed_at},
    }


def made(parts: dict[str, t.Any] | None = None, probe: dict[str, t.Any] | None = None, **inputs: t.Any) -> t.Any:
    return plan(facts(**(parts or {})), {**INPUTS, **inputs}, probe)


def test_a_bare_host_with_a_gpu_asks_for_a_probe_first():
    first = made()
    assert (first["action"], first["version"], first["needed"]) == ("install", "1.20.0-1", True)
    assert first["packages"] == dict.fromkeys(PACKAGES, "1.20.0-1")
    assert first["probe"] == {
        "kind": "apt_flat",
        "candidates": [{"name": name, "url": PLACE[name]} for name in ("official", "near")],
        "package": "nvidia-container-toolkit",
        "architecture": "amd64",
    }


def test_the_probe_orders_the_mirrors_and_the_plan_says_why():
    plan_ = made(probe=PROBE)
    assert plan_["probe"] == {}
    assert plan_["mirrors"] == [MIRROR, OFFICIAL]
    assert row(plan_) == (
        "install",
        "1.20.0-1",
        "1 NVIDIA GPU, no container toolkit; 1.20.0-1 from near (2.5 MB/s, best of 2 usable of 2 mirrors)",
    )


def test_no_usable_mirror_is_a_problem_that_names_each():
    rejected = [{"name": "official", "why": "no answer within 8 s"}, {"name": "near", "why": "answers with a web page"}]
    plan_ = made(probe={"ranked": [], "rejected": rejected})
    assert plan_["action"] == "refuse"
    (problem,) = plan_["problems"]
    assert "official: no answer within 8 s; near: answers with a web page" in problem
    assert plan_["contributions"] == {}
    assert not plan_["needed"]


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        ("near", [MIRROR]),
        (GIVEN["url"], [MIRROR]),
        ("http://x.test/nv", [{"name": "http://x.test/nv", "url": "http://x.test/nv"}]),
    ],
)
def test_one_mirror_by_name_or_address(mirror, expected):
    assert made(mirror=mirror)["mirrors"] == expected


def test_an_unknown_mirror_is_refused():
    assert "is none of official, near" in made(mirror="far")["problems"][0]


@pytest.mark.parametrize(
    ("parts", "warns"),
    [
        ({"gpu": {"verdict": "none", "reason": "no NVIDIA GPU on the PCI bus"}}, False),
        (
            {"gpu": {"verdict": "no_driver", "reason": "a GPU is there, but its driver is not; install the driver"}},
            True,
        ),
        ({"docker": {"desktop": True, "reachable": True}}, False),
        ({"docker": {"problem": "desktop_off"}}, False),
        ({"docker": {"problem": "elsewhere"}}, False),
    ],
)
def test_hosts_that_are_left_alone(parts, warns):
    plan_ = made(parts)
    assert plan_["action"] == "skip"
    assert plan_["why"]
    assert bool(plan_["warnings"]) is warns
    # an owner that says nothing keeps the keys it has: a driver that is lost for a while must not change daemon.json
    assert plan_["contributions"] == {}
    assert plan_["problems"] == []
    assert [plan_[key] for key in ("needed", "self_test", "restart")] == [False] * 3


@pytest.mark.parametrize(
    ("version", "parts", "action", "target"),
    [
        ("", installed(), "none", "1.18.0-1"),
        ("1.18.0", installed(), "none", "1.18.0-1"),
        ("1.18.0-1", installed(), "none", "1.18.0-1"),
        ("1.20.0", installed(), "upgrade", "1.20.0-1"),
        ("1.18.0-2", installed(), "upgrade", "1.18.0-2"),
        ("1.18.0", installed("1.18.0~rc.2-1"), "upgrade", "1.18.0-1"),
        ("1.18.0", installed(**{"libnvidia-container1": "1.17.8-1"}), "upgrade", "1.18.0-1"),
        ("", {"toolkit": {"hook": "/usr/local/bin/nvidia-container-runtime-hook"}}, "none", ""),
        ("1.17.8", {}, "install", "1.17.8-1"),
    ],
)
def test_versions(version, parts, action, target):
    plan_ = made(parts, version=version)
    assert (plan_["action"], plan_["version"]) == (action, target), plan_["why"]


def test_a_downgrade_only_when_allowed():
    refused = made(installed(), version="1.17.8")
    assert refused["action"] == "refuse"
    assert "nvidia_container_toolkit_allow_downgrade" in refused["problems"][0]
    allowed = made(installed(), version="1.17.8", allow_downgrade=True)
    assert (allowed["action"], allowed["version"]) == ("downgrade", "1.17.8-1")


@pytest.mark.parametrize(
    ("inputs", "parts", "words"),
    [
        ({"version": "latest"}, {}, "is not a version such as 1.20.0"),
        ({"version": "1.20.0"}, {"toolkit": {"hook": "/usr/local/bin/hook"}}, "belongs to no known package"),
        ({}, {"platform": {"os_family": "suse", "distribution": "SLES"}}, "this is SLES"),
        ({}, {"platform": {"architecture": "riscv64"}}, "architecture riscv64"),
        ({"cdi": "true"}, {"docker": engine("20.10.24+dfsg1")}, "docker 20.10.24+dfsg1 knows no CDI"),
    ],
)
def test_refusals_are_one_sentence(inputs, parts, words):
    plan_ = made(parts, **inputs)
    assert plan_["action"] == "refuse"
    assert words in plan_["problems"][0]
    assert plan_["why"] == plan_["problems"][0]


def test_a_held_package_is_not_changed():
    parts = installed()
    parts["packages"]["held"] = ["libnvidia-container1"]
    assert "apt-mark unhold" in made(parts, version="1.20.0")["problems"][0]
    assert made(parts)["action"] == "none"


def test_packages_of_different_versions_are_named():
    parts = installed(**{"libnvidia-container1": "1.17.8-1"})
    assert (
        "libnvidia-container1 1.17.8-1 does not match nvidia-container-toolkit 1.18.0-1" in made(parts)["warnings"][0]
    )
    assert made(installed())["warnings"] == []


def test_what_a_removal_and_apt_must_know():
    own = "/etc/apt/sources.list.d/nvidia-container-toolkit.sources"
    other = "/etc/apt/sources.list.d/libnvidia-container.list"
    parts = installed("1.17.8-1")
    del parts["packages"]["installed"]["nvidia-container-toolkit-base"]
    plan_ = made({**parts, "apt_sources": {"nvidia": [own, other]}}, version="1.20.0")
    assert plan_["adds"] == ["nvidia-container-toolkit-base"]
    assert plan_["conflicts"] == [other]


def test_the_rhel_family_has_its_own_layout():
    plan_ = made({"platform": {"os_family": "RedHat", "architecture": "aarch64"}})
    assert plan_["repo"] == {"kind": "yum", "path": "stable/rpm/aarch64", "architecture": "aarch64"}
    assert plan_["probe"]["candidates"][1]["url"] == "http://mirrors.test/good/libnvidia-container/stable/rpm/aarch64"


@pytest.mark.parametrize(
    ("parts", "restart"),
    [
        ({}, False),  # no engine yet: the one to come finds the hooks
        ({"docker": {"problem": "not_running"}}, False),
        ({"docker": engine()}, True),
        ({"docker": engine(started_at=None)}, False),  # it does not run on this host
        ({"docker": engine(), **installed(hook_changed_at=500.0)}, False),
        # an earlier run was interrupted between packages and restart
        ({"docker": engine(), **installed(hook_changed_at=1500.0)}, True),
        # an upgrade put a new file in the same place after the engine had learnt it
        ({"docker": engine(runtimes=["nvidia", "runc"]), **installed(hook_changed_at=1500.0)}, False),
        ({"docker": engine(), "toolkit": {"hook": "/opt/hook", "hook_changed_at": None}}, False),
    ],
)
def test_the_engine_is_restarted_only_to_find_the_hooks(parts, restart):
    plan_ = made(parts)
    assert plan_["restart"] is restart
    assert bool(plan_["restart_why"]) is restart


def test_an_upgrade_needs_no_restart_and_warns_of_running_containers():
    docker = engine(runtimes=["nvidia", "runc"], containers_running=2)
    plan_ = made({"docker": docker, **installed()}, version="1.20.0")
    assert (plan_["action"], plan_["restart"]) == ("upgrade", False)
    assert "NVML: Unknown Error" in plan_["warnings"][0]


@pytest.mark.parametrize(
    ("version", "choice", "cdi", "features"),
    [
        ("", "auto", True, None),
        ("20.10.24+dfsg1", "auto", False, None),
        ("26.1.5+dfsg1", "auto", False, None),
        ("28.3.0", "auto", True, None),
        ("29.2.1", "auto", True, None),
        ("26.1.5", "true", True, {"cdi": True}),
        ("29.2.1", "true", True, {"cdi": True}),
        ("29.2.1", "false", False, None),
        ("", "true", True, {"cdi": True}),
    ],
)
def test_cdi(version, choice, cdi, features):
    parts = {"docker": engine(version)} if version else {}
    plan_ = made({**parts, **installed()}, cdi=choice)
    assert plan_["cdi"] is cdi
    assert plan_["daemon_options"].get("features") == features
    # the device list is looked after; nothing else is to do
    assert plan_["needed"] is cdi


def test_a_device_list_that_the_toolkit_refreshes_needs_nothing():
    parts = installed()
    parts["toolkit"]["cdi_specs"] = ["/var/run/cdi/nvidia.yaml"]
    assert not made({"docker": engine("29.0.0"), **parts})["needed"]


def nvidia_ctk(config: dict[str, t.Any], set_as_default: bool) -> str:
    """`nvidia-ctk runtime configure --runtime=docker`, as its source says (pkg/config/engine/docker)."""
    runtimes = {**config.get("runtimes", {}), "nvidia": {"path": "nvidia-container-runtime", "args": []}}
    return json.dumps({**config, "runtimes": runtimes, **({"default-runtime": "nvidia"} if set_as_default else {})})


@pytest.mark.parametrize("set_as_default", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"log-driver": "local", "features": {"buildkit": True}},
        {"runtimes": {"kata": {"path": "/opt/kata"}, "nvidia": {"path": "/old", "args": ["-x"]}}},
    ],
)
def test_the_keys_are_those_of_nvidia_ctk(config, set_as_default):
    options = made(installed(), default_runtime=set_as_default)["daemon_options"]
    runtimes = {**config.get("runtimes", {}), **options["runtimes"]}
    assert {**config, **options, "runtimes": runtimes} == json.loads(nvidia_ctk(config, set_as_default))


def test_the_contribution_is_a_copy_under_the_roles_name():
    plan_ = made(installed())
    assert plan_["contributions"] == {OWNER: plan_["daemon_options"]}
    plan_["daemon_options"]["runtimes"]["nvidia"]["path"] = "changed"
    assert made(installed())["daemon_options"]["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"


@pytest.mark.parametrize(("parts", "action"), [(installed(), "remove"), ({}, "none")])
def test_absent_takes_the_keys_back(parts, action):
    plan_ = made(parts, state="absent")
    assert (plan_["action"], plan_["needed"]) == (action, action == "remove")
    assert plan_["contributions"] == {OWNER: {}}
    assert not plan_["self_test"]


def test_the_test_image_follows_the_driver_and_the_inputs():
    assert made()["test_image"] == "docker.io/nvidia/cuda:12.8.1-base-ubuntu24.04"
    assert made()["gpus"] == 1
    image = {"registry": "m.example/docker.io", "name": "nvidia/cuda", "tag": "12.9.1-base-ubuntu22.04", "digest": ""}
    assert made(test_image=image)["test_image"] == "m.example/docker.io/nvidia/cuda:12.9.1-base-ubuntu22.04"
    pinned = {**image, "digest": "sha256:abc"}
    assert made(test_image=pinned)["test_image"] == "m.example/docker.io/nvidia/cuda@sha256:abc"
    assert not made(self_test=False)["self_test"]


def test_a_driver_older_than_all_images_leaves_the_test_out_and_says_so():
    plan_ = made({"gpu": {"driver_version": "390.157"}})
    assert not plan_["self_test"]
    assert "driver 390.157 is older" in plan_["warnings"][0]


def test_a_runtime_that_somebody_else_set_up_stays_as_it_is():
    known = {"docker": {**engine(), "runtimes": ["nvidia", "runc"]}, **installed()}
    assert made(known)["contributions"] == {}
    owned = {"record": {"owned": [{"path": ["runtimes", "nvidia", "path"], "owners": ["nvidia_container_toolkit"]}]}}
    assert "nvidia_container_toolkit" in made({**known, "daemon": owned})["contributions"]
