"""What a running engine shows of its configuration, in the words of engines 20.10, 26.1 and 28.5."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.daemon_running import (
    ALLOWED,
    AS_IT_IS,
    LIVE_RESTORE_ONLY,
    LOST,
    REFUSE,
    TURN_OFF_LAST,
    TURN_ON_FIRST,
    carried,
    compare,
    loses,
    refusal,
    reload_confirmed,
    reload_refused,
    split,
    with_empty,
)

INFO = {
    "ServerVersion": "26.1.5+dfsg1",
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"]],
    "Debug": False,
    "LoggingDriver": "json-file",
    "CgroupDriver": "systemd",
    "RegistryConfig": {
        "InsecureRegistryCIDRs": ["127.0.0.0/8", "10.1.0.0/16"],
        "IndexConfigs": {"docker.io": {"Secure": True}, "lan:5000": {"Secure": False}},
        "Mirrors": ["https://one.test/", "https://two.test/"],
    },
    "DockerRootDir": "/data/docker",
    "HttpProxy": "http://xxxxx:xxxxx@proxy:3128",
    "HttpsProxy": "",
    "NoProxy": "localhost",
    "Labels": ["b=2", "a=1"],
    "ExperimentalBuild": False,
    "Runtimes": {
        "io.containerd.runc.v2": {"path": "runc"},
        "runc": {"path": "runc", "status": {"org.opencontainers.runtime-spec.features": "{}"}},
        "nvidia": {"path": "nvidia-container-runtime"},
    },
    "DefaultRuntime": "nvidia",
    "LiveRestoreEnabled": False,
    "DefaultAddressPools": [{"Base": "10.77.0.0/16", "Size": 24}],
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
}
RUNS_WITH = {
    "registry-mirrors": ["https://one.test", "https://two.test/"],
    "insecure-registries": ["lan:5000", "10.1.2.3/16", "127.0.0.0/8"],
    "debug": False,
    "labels": ["a=1", "b=2"],
    "live-restore": False,
    "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}},
    "default-runtime": "nvidia",
    "log-driver": "json-file",
    "data-root": "/data/docker/",
    "exec-opts": ["native.cgroupdriver=systemd"],
    "storage-driver": "overlay2",
    "default-address-pools": [{"base": "10.77.0.0/16", "size": 24}],
    "experimental": False,
    "proxies": {"http-proxy": "http://me:secret@proxy:3128", "no-proxy": "localhost"},
    "features": {"cdi": True, "containerd-snapshotter": False, "buildkit": True},
    "cdi-spec-dirs": ["/etc/cdi", "/var/run/cdi"],
}


def test_an_engine_that_runs_with_its_file():
    assert compare(RUNS_WITH, INFO) == []


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("registry-mirrors", ["https://two.test"], 'is ["https://one.test", "https://two.test"] instead of '),
        ("registry-mirrors", [], 'is ["https://one.test", "https://two.test"] instead of []'),
        ("insecure-registries", [], 'is ["10.1.0.0/16", "lan:5000"] instead of []'),
        ("insecure-registries", ["http://new:5000"], 'instead of ["new:5000"]'),
        ("debug", True, "is false instead of true"),
        ("labels", ["a=1"], 'is ["a=1", "b=2"] instead of ["a=1"]'),
        ("live-restore", True, "is false instead of true"),
        ("runtimes", {}, 'is {"nvidia": ["nvidia-container-runtime", []]} instead of {}'),
        ("runtimes", {"nvidia": {"path": "nvidia-container-runtime", "runtimeArgs": ["-v"]}}, '["-v"]'),
        ("default-runtime", "runc", 'is "nvidia" instead of "runc"'),
        ("log-driver", "local", 'is "json-file" instead of "local"'),
        ("data-root", "/var/lib/docker", 'is "/data/docker" instead of "/var/lib/docker"'),
        ("exec-opts", ["native.cgroupdriver=cgroupfs"], 'is "systemd" instead of "cgroupfs"'),
        ("storage-driver", "vfs", 'is "overlay2" instead of "vfs"'),
        ("default-address-pools", [], 'is [["10.77.0.0/16", 24]] instead of []'),
        ("experimental", True, "is false instead of true"),
        ("proxies", {"https-proxy": "http://me:secret@p:1"}, 'is {"https-proxy": ""} instead of '),
        ("features", {"cdi": False}, 'is {"cdi": true} instead of {"cdi": false}'),
        ("features", {"containerd-snapshotter": True}, "instead of"),
        ("cdi-spec-dirs", ["/etc/cdi"], 'instead of ["/etc/cdi"]'),
    ],
)
def test_an_engine_that_runs_with_something_else(key, value, sentence):
    (found,) = compare({**RUNS_WITH, key: value}, INFO) if key != "features" else compare({key: value}, INFO)
    assert found.key == key
    assert str(found).startswith(key)
    assert sentence in str(found)
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("config", "info"),
    [
        ({"max-concurrent-downloads": 3, "dns": ["9.9.9.9"], "bip": "10.9.0.1/24"}, INFO),  # not shown
        ({"exec-opts": ["other=x"]}, INFO),
        ({"features": {"cdi": True}}, {"ServerVersion": "20.10.24", "CDISpecDirs": None}),  # nothing of it is known
        ({"cdi-spec-dirs": ["/x"]}, {**INFO, "CDISpecDirs": []}),
        ({"labels": None, "proxies": None}, INFO),
        ({"log-driver": "local"}, {}),
        ({"data-root": "/data/docker"}, {"DockerRootDir": "/data/docker/100000.100000"}),
        # the containerd store: overlayfs is its name for overlay2
        (
            {"features": {"containerd-snapshotter": True}, "storage-driver": "overlay2"},
            {**INFO, "Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]},
        ),
        # a value that is the default and not shown by old engines
        ({"default-address-pools": []}, {"DefaultAddressPools": None}),
    ],
)
def test_what_is_no_difference(config, info):
    assert compare(config, info) == []


def test_only_our_own_change_is_judged():
    ours, others = split(compare({"features": {"cdi": False}, "log-driver": "local"}, INFO), ["features.cdi"])
    assert [one.key for one in ours] == ["features"]
    assert [one.key for one in others] == ["log-driver"]


@pytest.mark.parametrize(
    ("config", "empty", "interim"),
    [
        ({"a": 1}, {"labels": []}, {"a": 1, "labels": []}),
        ({"labels": ["x"]}, {"labels": []}, {"labels": ["x"]}),
        ({}, {"features.buildkit": True}, {"features": {"buildkit": True}}),
        (
            {"features": {"cdi": True}},
            {"features.buildkit": True, "features.cdi": False},
            {"features": {"cdi": True, "buildkit": True}},
        ),
    ],
)
def test_with_empty(config, empty, interim):
    assert with_empty(config, empty) == interim


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            'time="x" level=error msg="unable to configure the Docker daemon with file /etc/docker/daemon.json: '
            'the following directives are specified both as a flag and in the configuration file: hosts"',
            "unable to configure the Docker daemon with file /etc/docker/daemon.json: "
            "the following directives are specified both as a flag and in the configuration file: hosts",
        ),
        (
            'level=error msg="Error reconfiguring the daemon" error="no \\"x\\""',
            'Error reconfiguring the daemon: no "x"',
        ),
        ('level=error msg="Error validating authorization plugin: no such plugin"', "no such plugin"),
        ('level=error msg="Handler for GET /x returned error: no such container"', ""),
        ('level=info msg="Reloaded configuration: {}"', ""),
        ("unable to configure the Docker daemon: http://me:secret@proxy", "proxy"),
    ],
)
def test_reload_refused(line, words):
    found = reload_refused(f"level=info msg=hello\n{line}\n")
    assert words in found
    assert bool(found) is bool(words)
    assert "secret" not in found


def test_reload_confirmed():
    assert reload_confirmed('level=info msg="Reloaded configuration: {}"')
    assert not reload_confirmed('level=info msg="Got signal to reload configuration"')


@pytest.mark.parametrize(
    ("live", "config", "changed", "how"),
    [
        (True, {"live-restore": True}, ["log-driver"], AS_IT_IS),
        (True, {}, ["log-driver"], AS_IT_IS),  # given as a flag
        (True, {}, ["live-restore", "log-driver"], TURN_OFF_LAST),
        (True, {"live-restore": False}, ["live-restore"], TURN_OFF_LAST),
        (False, {"live-restore": True}, ["log-driver"], TURN_ON_FIRST),
        (False, {}, ["log-driver"], LOST),
        (True, {"live-restore": True}, ["data-root"], LOST),
        (True, {"live-restore": True}, ["features.containerd-snapshotter"], LOST),
        (True, {"live-restore": True}, ["features.cdi"], AS_IT_IS),
    ],
)
def test_how_containers_outlive_a_restart(live, config, changed, how):
    assert carried(live, config, changed) == how


@pytest.mark.parametrize(
    ("policy", "running", "kept", "words"),
    [
        (ALLOWED, ["chat"], False, ""),
        (LIVE_RESTORE_ONLY, [], False, ""),
        (LIVE_RESTORE_ONLY, ["chat"], True, ""),
        (LIVE_RESTORE_ONLY, ["chat"], False, "stop 1 running container (chat); nothing was applied"),
        (LIVE_RESTORE_ONLY, list("abcdefg"), False, "stop 7 running containers (a, b, c, d, e and others)"),
        (REFUSE, [], False, "restart_policy is refuse"),
        (REFUSE, ["chat"], True, "(1 running: chat)"),
    ],
)
def test_refusal(policy, running, kept, words):
    found = refusal(policy, running, kept, "log-driver")
    assert words in found
    assert bool(found) is bool(words)


def test_a_refusal_offers_live_restore_only_where_it_helps():
    assert "turn on live-restore first" in refusal(LIVE_RESTORE_ONLY, ["chat"], False, "log-driver")
    lost = refusal(LIVE_RESTORE_ONLY, ["chat"], False, "data-root", lost=loses(["data-root"]))
    assert "live-restore first" not in lost
    assert "stop them first, or set restart_policy to allowed" in lost
