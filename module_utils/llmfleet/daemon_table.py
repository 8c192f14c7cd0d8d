"""What is known of each key of daemon.json: its type, the engines that read it, and whether a reload applies it.

Types and releases: the fields and flags of moby's ``daemon/config`` and ``cmd/dockerd`` from 20.10 to 29.7; a key that
has a field but no flag (``default-init``, ``resolv-conf``) is refused by dockerd and therefore not listed.
Reload: ``daemon/reload*.go`` of the same releases, measured with a running container on 20.10.24, 26.1.5 and 28.5.2.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

Release = tuple[int, int]

EVER: Release = (0, 0)
STILL: Release = (999, 0)
NEWEST: Release = (29, 7)
"""The newest release whose keys were read; of a later one nothing can be said to be unknown."""

UNKNOWN: t.Any = object()
"""Default of a key whose default depends on the host."""

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false, without quotes"),
    "int": ((int,), "a whole number, without quotes"),
    "size": ((int, str), "a size such as 64M"),
    "str": ((str,), "a text in quotes"),
    "list": ((list,), "a list of texts"),
    "pools": ((list,), "a list of mappings with base and size"),
    "map": ((dict,), "a mapping of texts in quotes"),
    "object": ((dict,), "a mapping"),
}
"""Kind -> (types that JSON gives, words)."""


@dataclass(frozen=True)
class Row:
    """A key. ``default`` is what an absent key means; ``resets`` says that a reload itself returns to it."""

    kind: str
    since: Release = EVER
    until: Release = STILL
    reload_until: Release = EVER  # the last release in which a reload applies it
    default: t.Any = UNKNOWN
    resets: bool = False


def _live(kind: str, default: t.Any = UNKNOWN, **more: t.Any) -> Row:
    return Row(kind, default=default, **{"reload_until": STILL, **more})


TABLE: dict[str, Row] = {
    # applied by a reload
    "debug": _live("bool", False),
    "labels": _live("list", []),
    "live-restore": _live("bool", False),
    "registry-mirrors": _live("list", []),
    "insecure-registries": _live("list", []),
    "runtimes": _live("object", {}),
    "default-runtime": _live("str", "runc"),
    "default-shm-size": _live("size", "64M"),
    "default-ipc-mode": _live("str", "private"),
    "shutdown-timeout": _live("int", 15),
    "default-stop-timeout": _live("int", 10, since=(29, 7)),
    "max-concurrent-downloads": _live("int", 3, resets=True),
    "max-concurrent-uploads": _live("int", 5, resets=True),
    "max-download-attempts": _live("int", 5, resets=True),
    "network-diagnostic-port": _live("int", 0, resets=True),
    "authorization-plugins": _live("list", [], resets=True),
    "nri-opts": _live("object", since=(29, 2), resets=True),
    "features": _live("object", {}, resets=True),
    "allow-nondistributable-artifacts": _live("list", [], reload_until=(28, 99)),
    # measured: a reload applies these in 20.10 and 26.1; in 28.5 no longer the second one
    "userland-proxy": _live("bool", True, reload_until=(26, 1)),
    "default-cgroupns-mode": _live("str", reload_until=(26, 1)),
    # read when the daemon starts
    "data-root": Row("str", default="/var/lib/docker"),
    "storage-driver": Row("str"),
    "storage-opts": Row("list", default=[]),
    "log-driver": Row("str", default="json-file"),
    "log-opts": Row("map", default={}),
    "exec-opts": Row("list", default=[]),
    "default-ulimits": Row("object", default={}),
    "default-address-pools": Row("pools", default=[]),
    "builder": Row("object", default={}),
    "proxies": Row("map", default={}, since=(23, 0)),
    "hosts": Row("list"),
    "containerd": Row("str"),
    "experimental": Row("bool", default=False),
    "init": Row("bool", default=False),
    "no-new-privileges": Row("bool", default=False),
    "selinux-enabled": Row("bool", default=False),
    "raw-logs": Row("bool", default=False),
    "rootless": Row("bool"),
    "cri-containerd": Row("bool", default=False),
    "tls": Row("bool"),
    "tlsverify": Row("bool"),
    "tlscacert": Row("str"),
    "tlscert": Row("str"),
    "tlskey": Row("str"),
    "log-level": Row("str", default="info"),
    "log-format": Row("str", since=(25, 0)),
    "metrics-addr": Row("str", default=""),
    "group": Row("str", default="docker"),
    "pidfile": Row("str"),
    "exec-root": Row("str"),
    "cgroup-parent": Row("str", default=""),
    "userns-remap": Row("str", default=""),
    "seccomp-profile": Row("str"),
    "init-path": Row("str"),
    "cpu-rt-period": Row("int"),
    "cpu-rt-runtime": Row("int"),
    "containerd-namespace": Row("str"),
    "cdi-spec-dirs": Row("list", since=(25, 0)),
    "node-generic-resources": Row("list", default=[]),
    "swarm-default-advertise-addr": Row("str", default=""),
    "min-api-version": Row("str", since=(29, 0)),
    # network
    "dns": Row("list", default=[]),
    "dns-opts": Row("list", default=[]),
    "dns-search": Row("list", default=[]),
    "bridge": Row("str", default=""),
    "bip": Row("str", default=""),
    "bip6": Row("str", default="", since=(28, 0)),
    "fixed-cidr": Row("str", default=""),
    "fixed-cidr-v6": Row("str", default=""),
    "default-gateway": Row("str", default=""),
    "default-gateway-v6": Row("str", default=""),
    "mtu": Row("int"),
    "network-control-plane-mtu": Row("int"),
    "default-network-opts": Row("object", default={}, since=(24, 0)),
    "ip": Row("str"),
    "ipv6": Row("bool", default=False),
    "icc": Row("bool", default=True),
    "iptables": Row("bool", default=True),
    "ip6tables": Row("bool"),
    "ip-forward": Row("bool", default=True),
    "ip-forward-no-drop": Row("bool", default=False, since=(28, 0)),
    "ip-masq": Row("bool", default=True),
    "allow-direct-routing": Row("bool", default=False, since=(28, 2)),
    "bridge-accept-fwmark": Row("str", default="", since=(29, 0)),
    "firewall-backend": Row("str", since=(29, 0)),
    "userland-proxy-path": Row("str"),
    "host-gateway-ip": Row("str"),
    "host-gateway-ips": Row("list", since=(28, 0)),
    # gone; dockerd ignores the first
    "deprecated-key-path": Row("str"),
    "graph": Row("str", until=(23, 0)),
    "cluster-store": Row("str", until=(23, 0)),
    "cluster-store-opts": Row("map", until=(23, 0)),
    "cluster-advertise": Row("str", until=(23, 0)),
    "oom-score-adjust": Row("int", until=(25, 0)),
    # measured: 28.5 refuses it
    "api-cors-header": Row("str", until=(27, 99)),
}

FEATURES: dict[str, Row] = {"buildkit": _live("bool", resets=True)}
"""Entries of ``features`` that a reload applies; dockerd reads the others when it starts."""

CDI_BY_DEFAULT: Release = (28, 3)
"""From this release on, features.cdi is on unless it is switched off."""

INSTEAD = {
    "graph": "data-root",
    "default-init": "init",
    "http-proxy": "proxies.http-proxy",
    "https-proxy": "proxies.https-proxy",
    "no-proxy": "proxies.no-proxy",
    "storage-opt": "storage-opts",
    "default-address-pool": "default-address-pools",
    "host": "hosts",
}
"""Names that look right but are not read, with the key to use. A flag's name alone passes dockerd's own check."""

# names of flags that differ from their key's
FLAG_KEYS = {
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "cluster-store-opt": "cluster-store-opts",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "graph": "data-root",
    "host": "hosts",
    "http-proxy": "proxies.http-proxy",
    "https-proxy": "proxies.https-proxy",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "no-proxy": "proxies.no-proxy",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
SHORT_FLAGS = {
    "D": "debug",
    "G": "group",
    "H": "host",
    "b": "bridge",
    "g": "graph",
    "h": "help",
    "l": "log-level",
    "p": "pidfile",
    "r": "restart",
    "s": "storage-driver",
    "v": "version",
}
NO_KEY_FLAGS = ("help", "restart", "validate", "version")
"""Flags without a value that say nothing about daemon.json."""
