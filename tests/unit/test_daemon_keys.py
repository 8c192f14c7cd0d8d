"""What each key of daemon.json needs and allows, engine by engine."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.daemon_keys import check, conflicts, flags_of, masked, needed_action
from ansible.module_utils.llmfleet.daemon_table import FLAG_KEYS, INSTEAD, KINDS, TABLE, UNKNOWN

OLD, MIDDLE, NEW = "20.10.24+dfsg1", "5:26.1.5-1~debian.12~bookworm", "28.5.2"
ENGINES = (OLD, MIDDLE, NEW, "29.7.2", "31.0.0", "")
UNIT = "-H fd:// (/lib/systemd/system/docker.service)"


# what was measured with a running container on 20.10.24, 26.1.5 and 28.5.2
RELOADED = {
    "debug": True,
    "labels": ["a=b"],
    "live-restore": True,
    "registry-mirrors": ["http://m.test"],
    "insecure-registries": ["10.9.9.9:5000"],
    "runtimes": {"nvidia": {"path": "/usr/bin/runc"}},
    "default-runtime": "nvidia",
    "max-concurrent-downloads": 7,
    "shutdown-timeout": 99,
    "default-shm-size": "96M",
}
RESTARTED = {
    "log-driver": "local",
    "log-opts": {"max-size": "1m"},
    "data-root": "/var/lib/docker2",
    "exec-opts": ["native.cgroupdriver=systemd"],
    "storage-driver": "vfs",
    "default-address-pools": [{"base": "10.77.0.0/16", "size": 24}],
    "bip": "10.88.0.1/24",
    "dns": ["9.9.9.9"],
    "mtu": 1400,
    "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 1024, "Soft": 1024}},
    "init": True,
    "no-new-privileges": True,
    "experimental": True,
    "proxies": {"http-proxy": "http://p.invalid:1"},
    "icc": False,
    "metrics-addr": "127.0.0.1:9323",
    "no-such-key": 1,
}


@pytest.mark.parametrize("version", ENGINES)
@pytest.mark.parametrize(("key", "value"), RELOADED.items())
def test_keys_that_a_reload_applies(key, value, version):
    added = needed_action({}, {key: value}, version)
    assert (added.kind, dict(added.keys), dict(added.empty_first)) == ("reload", {key: "reload"}, {})


@pytest.mark.parametrize("version", ENGINES)
@pytest.mark.parametrize(("key", "value"), RESTARTED.items())
def test_keys_that_need_a_restart(key, value, version):
    assert needed_action({}, {key: value}, version).keys == {key: "restart"}
    removed = needed_action({key: value}, {}, version)
    assert (removed.kind, dict(removed.empty_first)) == ("restart", {})


@pytest.mark.parametrize(
    ("key", "value", "kinds"),
    [
        ("userland-proxy", False, ("reload", "reload", "restart", "restart", "restart", "restart")),
        ("default-cgroupns-mode", "private", ("reload", "reload", "restart", "restart", "restart", "restart")),
    ],
)
def test_keys_whose_reload_depends_on_the_engine(key, value, kinds):
    assert tuple(needed_action({}, {key: value}, version).kind for version in ENGINES) == kinds


def test_features_each_have_their_own_need():
    before = {"features": {"buildkit": True}}
    assert needed_action(before, {"features": {"buildkit": False}}, NEW).keys == {"features.buildkit": "reload"}
    assert needed_action(before, {}, NEW).kind == "reload"
    both = needed_action(before, {"features": {"buildkit": True, "cdi": True}}, MIDDLE)
    assert dict(both.keys) == {"features.cdi": "restart"}
    assert needed_action({}, {"features": {"containerd-snapshotter": True}}, "29.0.0").kind == "restart"
    assert needed_action({}, {"features": {"cdi": True}}, NEW).kind == "none", "on by default from 28.3 on"
    assert needed_action({}, {"features": {"cdi": False}}, NEW).kind == "restart"
    assert needed_action({"features": None}, {}, NEW).kind == "none"


def test_a_key_that_goes_is_emptied_before_the_reload():
    before = {**RELOADED, "live-restore": True}
    action = needed_action(before, {}, MIDDLE)
    assert action.kind == "reload"
    assert action.empty_first == {
        "debug": False,
        "labels": [],
        "live-restore": False,
        "registry-mirrors": [],
        "insecure-registries": [],
        "runtimes": {},
        "default-runtime": "runc",
        "shutdown-timeout": 15,
        "default-shm-size": "64M",
    }, "max-concurrent-downloads returns to its default by itself"
    restart = needed_action({**before, "dns": ["1.1.1.1"]}, {}, MIDDLE)
    assert (restart.kind, dict(restart.empty_first)) == ("restart", {})
    assert needed_action({"default-cgroupns-mode": "private"}, {}, OLD).kind == "restart", "its default is the host's"


@pytest.mark.parametrize("key", ["log-driver", "data-root", "debug", "registry-mirrors", "icc", "shutdown-timeout"])
def test_the_default_in_words_needs_nothing(key):
    assert needed_action({}, {key: TABLE[key].default}, OLD).kind == "none"


def test_the_table_is_sound():
    for key, row in TABLE.items():
        types, _ = KINDS[row.kind]
        assert row.default is UNKNOWN or isinstance(row.default, types), key
        # what a reload can set, it must be able to unset, or the key says that it cannot
        assert row.since <= row.until, key
    assert {key.partition(".")[0] for key in FLAG_KEYS.values()} <= set(TABLE)
    assert {key.partition(".")[0] for key in INSTEAD.values()} <= set(TABLE)
    assert not set(INSTEAD) & {key for key, row in TABLE.items() if row.until == (999, 0)}


@pytest.mark.parametrize("version", ENGINES)
def test_a_good_configuration(version):
    good = {**RELOADED, **RESTARTED, "builder": {"gc": {"enabled": True, "defaultReservedSpace": "50GB"}}}
    good.update({"deprecated-key-path": "x", "bridge": None, "default-shm-size": 67108864})
    del good["no-such-key"]
    if version == OLD:
        del good["proxies"]
    assert check(good, version) == []


@pytest.mark.parametrize(
    ("config", "version", "said"),
    [
        (
            {"registry-mirror": []},
            OLD,
            "`registry-mirror` is not a key that docker 20.10 reads; write `registry-mirrors`",
        ),
        ({"http-proxy": "x"}, NEW, "`http-proxy` is not a key that docker 28.5 reads; write `proxies.http-proxy`"),
        ({"zzz": 1}, "", "`zzz` is not a key that docker reads; remove it"),
        ({"default-init": "x"}, OLD, "`default-init` is not a key that docker 20.10 reads; write `init`"),
        (
            {"proxies": {}},
            OLD,
            "`proxies` needs docker 23.0, the engine is 20.10; remove it or upgrade the engine",
        ),
        ({"graph": "/d"}, MIDDLE, "docker 26.1 no longer reads `graph`; write `data-root`"),
        ({"cluster-store": "x"}, NEW, "docker 28.5 no longer reads `cluster-store`; remove it"),
        ({"api-cors-header": "*"}, NEW, "docker 28.5 no longer reads `api-cors-header`; remove it"),
        ({"debug": "true"}, NEW, "`debug` must be true or false, without quotes, not 'true'"),
        ({"mtu": True}, NEW, "`mtu` must be a whole number, without quotes, not True"),
        ({"max-concurrent-downloads": "3"}, NEW, "`max-concurrent-downloads` must be a whole number"),
        ({"dns": "1.1.1.1"}, NEW, "`dns` must be a list of texts, not '1.1.1.1'"),
        ({"labels": [1]}, NEW, "`labels` must be a list of texts, not [1]"),
        ({"log-opts": {"max-file": 3}}, NEW, "`log-opts.max-file` must be a text in quotes, not 3"),
        ({"default-address-pools": ["x"]}, NEW, "`default-address-pools` must be a list of mappings"),
        ({"runtimes": []}, NEW, "`runtimes` must be a mapping, not []"),
        ({"registry-mirrors": ["m.test"]}, NEW, "the mirror m.test is not an address that docker can use; write it as"),
        ({"registry-mirrors": ["ftp://m.test"]}, NEW, "the mirror ftp://m.test is not an address"),
        ({"registry-mirrors": ["https://[m"]}, NEW, "the mirror https://[m is no URL"),
        (
            {"registry-mirrors": ["https://me:hidden@m.test"]},
            NEW,
            "the mirror https://m.test is given with a user name",
        ),
        ({"registry-mirrors": ["https://m.test/?a=1"]}, NEW, "the mirror https://m.test/ is given with a query"),
        ({"registry-mirrors": ["https://m.test/hub"]}, OLD, "the mirror https://m.test/hub has a path, which docker"),
        ({"labels": ["a"]}, NEW, "the label a must have the form name=value"),
        ({"labels": ["a=1", "a=2"]}, NEW, "the label a is given twice, as 1 and as 2; keep one"),
        ({"log-opts": {"max-size": "big"}}, NEW, "`log-opts.max-size` must be a size such as 50m, not big"),
        ({"log-opts": {"max-size": "0"}}, NEW, "`log-opts.max-size` must be a size such as 50m, not 0"),
        ({"log-opts": {"max-file": "0"}}, NEW, "`log-opts.max-file` must be a whole number from 1 on, not 0"),
        (
            {"log-driver": "journald", "log-opts": {"max-size": "1m"}},
            NEW,
            "`log-opts.max-size` is for the log drivers json-file and local, not for journald; remove it",
        ),
        ({"data-root": "data"}, NEW, "`data-root` must be an absolute path, not 'data'"),
        ({"default-runtime": "nvidia"}, NEW, "`default-runtime` is nvidia, but `runtimes` has no such entry"),
        ({"runtimes": {"nvidia": {}}}, NEW, "`runtimes.nvidia` must be a mapping with either `path` or `runtimeType`"),
        ({"runtimes": {"runc": {"path": "/x"}}}, NEW, "`runtimes.runc` is docker's own and cannot be set"),
        ({"exec-opts": ["native.cgroupdriver=x"]}, NEW, "`exec-opts` holds native.cgroupdriver=x; write native"),
        ({"exec-opts": ["systemd"]}, NEW, "`exec-opts` holds systemd; write native.cgroupdriver=systemd or"),
        ({"proxies": None}, NEW, "`proxies` must be a mapping of texts in quotes, not None"),
        ({"default-shm-size": None}, NEW, "`default-shm-size` must be a size such as 64M, not None"),
        ({"dns": ["one.one"]}, NEW, "`dns` holds one.one, which is no IP address"),
        ({"default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]}, NEW, "`default-address-pools` holds"),
        ({"default-address-pools": [{"base": "ten", "size": 24}]}, NEW, "`default-address-pools` holds"),
        ({"default-ulimits": {"nofile": 1024}}, NEW, "`default-ulimits.nofile` needs Name: nofile"),
        (
            {"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 2, "Hard": 1}}},
            NEW,
            "`default-ulimits.nofile` has a soft limit (2) above its hard limit (1)",
        ),
        ({"proxies": {"http_proxy": "x"}}, NEW, "`proxies.http_proxy` is not a key that docker reads"),
        ({"builder": {"gc": {"defaultKeepStorage": "much"}}}, NEW, "`builder.gc.defaultKeepStorage` must be a size"),
        (
            {"builder": {"gc": True}},
            NEW,
            "`builder.gc` must be a mapping such as {enabled: true, defaultKeepStorage: 20GB}",
        ),
        ({"default-shm-size": "big"}, NEW, "`default-shm-size` must be a size such as 20GB, not big"),
        ({"features": {"cdi": "true"}}, NEW, "`features.cdi` must be true or false, without quotes, not 'true'"),
        ({"log-level": "loud"}, NEW, "`log-level` must be one of debug, info, warn, error and fatal, not loud"),
    ],
)
def test_what_is_wrong_is_said(config, version, said):
    problems = check(config, version)
    assert len(problems) == 1
    assert problems[0].startswith(said)
    assert "hidden" not in problems[0]


@pytest.mark.parametrize(
    ("config", "version"),
    [
        ({"registry-mirrors": ["https://m.test/hub"]}, MIDDLE),
        ({"registry-mirrors": ["https://m.test/"]}, OLD),
        ({"default-runtime": "io.containerd.runc.v2"}, OLD),
        ({"default-ulimits": {"core": {"name": "core", "soft": -1, "hard": -1}}}, NEW),
        ({"builder": {"gc": {"defaultMaxUsedSpace": "80%", "policy": [{"keepStorage": "10GB"}]}}}, NEW),
        ({"log-driver": "splunk", "log-opts": {"tag": "x"}}, NEW),
        # openEuler's engine has this one
        ({"exec-opts": ["native.umask=normal", "native.cgroupdriver = systemd"]}, OLD),
        # a release whose keys nobody has read yet
        ({"brand-new": True, "graph": "/d"}, "30.1.0"),
    ],
)
def test_what_is_right_is_let_through(config, version):
    assert check(config, version) == []


def test_names_can_be_left_to_dockerd_and_runtimes_to_flags():
    assert check({"zzz": 1, "mtu": "x"}, NEW, names=False) == ["`mtu` must be a whole number, without quotes, not 'x'"]
    assert check({"default-runtime": "kata"}, NEW, flags={"runtimes": "--add-runtime kata=/x"}) == []


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        (
            ["/usr/bin/dockerd", "-H", "fd://", "--containerd=/run/containerd/containerd.sock"],
            {"hosts": "-H fd://", "containerd": "--containerd=/run/containerd/containerd.sock"},
        ),
        (["dockerd", "-Hunix://x", "--host", "tcp://1:2"], {"hosts": "-Hunix://x --host tcp://1:2"}),
        (["dockerd", "-g", "/data"], {"data-root": "-g /data"}),
        (
            ["dockerd", "--data-root", "/data", "--live-restore"],
            {"data-root": "--data-root /data", "live-restore": "--live-restore"},
        ),
        # a switch takes no word after it
        (
            ["dockerd", "-D", "--iptables=false", "--tlsverify", "stray"],
            {"debug": "-D", "iptables": "--iptables=false", "tlsverify": "--tlsverify"},
        ),
        (
            ["--log-driver", "local", "--log-opt", "max-size=1m", "--log-opt=max-file=2"],
            {"log-driver": "--log-driver local", "log-opts": "--log-opt max-size=1m --log-opt=max-file=2"},
        ),
        (
            ["--registry-mirror=https://m", "--dns", "1.1.1.1"],
            {"registry-mirrors": "--registry-mirror=https://m", "dns": "--dns 1.1.1.1"},
        ),
        (["--exec-opt", "native.cgroupdriver=systemd"], {"exec-opts": "--exec-opt native.cgroupdriver=systemd"}),
        (["--http-proxy=http://me:hidden@p:1"], {"proxies.http-proxy": "--http-proxy=http://********@p:1"}),
        (
            ["--add-runtime", "x=/x", "--config-file", "/c"],
            {"runtimes": "--add-runtime x=/x", "config-file": "--config-file /c"},
        ),
        (["dockerd", "--validate", "-v", "-r", "--", "--dns", "x"], {}),
        (["--some-new-flag", "value", "--other"], {"some-new-flag": "--some-new-flag value", "other": "--other"}),
        ([], {}),
    ],
)
def test_flags_of(argv, flags):
    assert flags_of(argv) == flags


def test_conflicts_with_flags():
    found = conflicts({"hosts": ["fd://"], "dns": []}, {"hosts": UNIT, "containerd": "--containerd=/x (unit)"})
    assert found == [
        f"`hosts` is set in /etc/docker/daemon.json and by the flag {UNIT}, and dockerd does not start with both; "
        "remove the key, or the flag with a drop-in of the docker unit"
    ]
    assert conflicts({"runtimes": {"a": {}}}, {"runtimes": "--add-runtime b=/b"}) == [], "dockerd joins these"
    assert conflicts({"proxies": {"no-proxy": "x"}}, {"proxies.http-proxy": "--http-proxy=x"}) == []
    assert len(conflicts({"proxies": {"http-proxy": "x"}}, {"proxies.http-proxy": "--http-proxy=x"})) == 1
    assert len(conflicts({"host-gateway-ips": ["1.1.1.1"]}, {"host-gateway-ip": "--host-gateway-ip 1.1.1.1"})) == 1


def test_a_daemon_that_reads_another_file():
    flags = flags_of(["--config-file", "/other.json"])
    assert conflicts({}, flags) == [
        "dockerd is started with --config-file /other.json and never reads /etc/docker/daemon.json; remove that flag"
    ]
    assert conflicts({}, flags, "/other.json") == []
    assert conflicts({}, {"config-file": "--config-file=/etc/docker/daemon.json (unit)"}) == []


def test_masked():
    assert masked({"a": ["http://u:p@h:1/x", "https://h"], "b": 1}) == {
        "a": ["http://********@h:1/x", "https://h"],
        "b": 1,
    }
    # a password may hold these as they are (Go's net/url takes the last @)
    assert masked('{"p": "http://u:p@s\'s@h:1", "m": "c@d"}') == '{"p": "http://********@h:1", "m": "c@d"}'
