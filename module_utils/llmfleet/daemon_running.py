"""Whether a running docker engine has what its daemon.json says, and what a restart of it may cost.

``docker info`` shows some keys only; of the others the daemon's own words ("Reloaded configuration") must do. What a
key's value looks like there was read on engines 20.10, 26.1 and 28.5.
"""

from __future__ import annotations

import ipaddress
import json
import os.path
import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.daemon_keys import masked
from ansible.module_utils.llmfleet.engine_info import release

Json = t.Mapping[str, t.Any]
Pair = t.Optional[tuple[t.Any, t.Any]]

ALLOWED, REFUSE, LIVE_RESTORE_ONLY = "allowed", "refuse", "live-restore-only"
LOST, AS_IT_IS, TURN_ON_FIRST, TURN_OFF_LAST = "", "as it is", "turn on first", "turn off last"
"""What becomes of running containers at a restart, and what live-restore has to do with it."""

# with these changed, the new daemon does not find the containers of the old one, live-restore or not
LOSES_CONTAINERS = (
    *("containerd", "containerd-namespace", "data-root", "exec-root", "storage-driver", "storage-opts"),
    *("userns-remap", "features.containerd-snapshotter"),
)
# a daemon that finds running containers keeps its networks as they are ("network configuration will not take affect")
NEEDS_EMPTY_NETWORKS = (
    *("bip", "bip6", "bridge", "default-address-pools", "default-gateway", "default-gateway-v6", "firewall-backend"),
    *("fixed-cidr", "fixed-cidr-v6", "icc", "ip6tables", "iptables", "ipv6", "mtu", "userland-proxy"),
)


@dataclass(frozen=True)
class Difference:
    """A key whose running value is not the one of the file."""

    key: str
    wanted: t.Any
    running: t.Any

    def __str__(self) -> str:
        return f"{self.key} is {json.dumps(self.running)} instead of {json.dumps(self.wanted)}"


def _list(value: t.Any) -> list[str]:
    return sorted({str(item) for item in value or ()})


def _mirrors(value: t.Any, info: Json) -> Pair:
    # the engine adds the slash; the order is that in which they are asked
    running = (info.get("RegistryConfig") or {}).get("Mirrors") or ()
    return [str(url).rstrip("/") for url in value or ()], [str(url).rstrip("/") for url in running]


def _registry(entry: str) -> str:
    """Return an entry of insecure-registries as the engine shows it: without scheme, a network by its first address."""
    name = re.sub(r"^https?://", "", str(entry))
    try:
        return str(ipaddress.ip_network(name, strict=False)) if "/" in name else name
    except ValueError:
        return name


def _insecure(value: t.Any, info: Json) -> Pair:
    registries = info.get("RegistryConfig") or {}
    known = registries.get("IndexConfigs") or {}
    running = {name for name, index in known.items() if not index.get("Secure")}
    running |= set(registries.get("InsecureRegistryCIDRs") or ())
    builtin = {"127.0.0.0/8", "::1/128"}
    return _list({_registry(entry) for entry in value or ()} - builtin), _list(running - builtin)


def _runtimes(value: t.Any, info: Json) -> Pair:
    def essence(runtimes: Json) -> dict[str, t.Any]:
        return {
            name: [one.get("path") or one.get("runtimeType") or "", list(one.get("runtimeArgs") or ())]
            for name, one in runtimes.items()
            if name != "runc" and not name.startswith("io.containerd.")
        }

    return essence(value or {}), essence(info.get("Runtimes") or {})


def _data_root(value: t.Any, info: Json) -> Pair:
    # a remapped user gets a folder of its own below it
    running = re.sub(r"/\d+\.\d+$", "", str(info.get("DockerRootDir") or ""))
    return os.path.realpath(str(value)), os.path.realpath(running) if running else ""


def _cgroup_driver(value: t.Any, info: Json) -> Pair:
    wanted = [str(option).partition("=")[2] for option in value or () if str(option).startswith("native.cgroupdriver=")]
    return (wanted[-1], info.get("CgroupDriver")) if wanted else None


def _pools(value: t.Any, info: Json) -> Pair:
    wanted = [[str(pool.get("base")), pool.get("size")] for pool in value or ()]
    return wanted, [[pool.get("Base"), pool.get("Size")] for pool in info.get("DefaultAddressPools") or ()]


def _proxies(value: t.Any, info: Json) -> Pair:
    shown = {"http-proxy": "HttpProxy", "https-proxy": "HttpsProxy", "no-proxy": "NoProxy"}
    keys = [key for key in shown if (value or {}).get(key)]

    def plain(text: t.Any) -> str:
        # the engine masks user and password in its answer
        return re.sub(r"(://)[^/\s]*@", r"\1", str(text or ""))

    return {key: plain(value[key]) for key in keys}, {key: plain(info.get(shown[key])) for key in keys}


def _cdi_dirs(value: t.Any, info: Json) -> Pair:
    # not shown while CDI is off
    running = info.get("CDISpecDirs")
    return ([str(path) for path in value or ()], list(running)) if running else None


def _features(value: t.Any, info: Json) -> Pair:
    version = release(str(info.get("ServerVersion") or "")) or (0, 0)
    status = dict(tuple(row) for row in info.get("DriverStatus") or () if len(row) == 2)
    shown = {}
    if version >= (25, 0):
        shown["cdi"] = bool(info.get("CDISpecDirs"))
    if version >= (24, 0):
        shown["containerd-snapshotter"] = "snapshotter" in str(status.get("driver-type", ""))
    wanted = {key: bool((value or {})[key]) for key in shown if key in (value or {})}
    return wanted, {key: shown[key] for key in wanted}


def _plain(name: str, kind: type = str) -> t.Callable[[t.Any, Json], Pair]:
    def read(value: t.Any, info: Json) -> Pair:
        return (kind(value), kind(info[name])) if info.get(name) is not None else None

    return read


READERS: dict[str, t.Callable[[t.Any, Json], Pair]] = {
    "cdi-spec-dirs": _cdi_dirs,
    "data-root": _data_root,
    "debug": _plain("Debug", bool),
    "default-address-pools": _pools,
    "default-runtime": _plain("DefaultRuntime"),
    "exec-opts": _cgroup_driver,
    "experimental": _plain("ExperimentalBuild", bool),
    "features": _features,
    "insecure-registries": _insecure,
    "labels": lambda value, info: (_list(value), _list(info.get("Labels"))),
    "live-restore": _plain("LiveRestoreEnabled", bool),
    "log-driver": _plain("LoggingDriver"),
    "proxies": _proxies,
    "registry-mirrors": _mirrors,
    "runtimes": _runtimes,
    "storage-driver": _plain("Driver"),
}
"""Per key that ``docker info`` shows: (value in the file, info) -> (wanted, running) in one form, None: not shown."""


def compare(config: Json, info: Json) -> list[Difference]:
    """Return the keys of ``config`` that the engine answering ``info`` runs with another value."""
    # the containerd store names its drivers otherwise (overlayfs for overlay2)
    skipped = {"storage-driver"} if (config.get("features") or {}).get("containerd-snapshotter") else set()
    found = []
    for key in config:
        reader = READERS.get(key)
        pair = reader(config[key], info) if reader and key not in skipped and config[key] is not None else None
        if pair and pair[0] != pair[1]:
            found.append(Difference(key, *pair))
    return found


def split(found: t.Sequence[Difference], changed: t.Collection[str]) -> tuple[list[Difference], list[Difference]]:
    """Return the differences that our change made (its failure), and those that somebody else made."""
    tops = {key.partition(".")[0] for key in changed}
    return [one for one in found if one.key in tops], [one for one in found if one.key not in tops]


def with_empty(config: Json, empty_first: Json) -> dict[str, t.Any]:
    """Return ``config`` with the values that clear removed keys: a reload keeps what a file no longer mentions."""
    interim = dict(config)
    for key, value in empty_first.items():
        if key.startswith("features."):
            name = key.partition(".")[2]
            interim["features"] = {name: value, **(interim.get("features") or {})}
        else:
            interim.setdefault(key, value)
    return interim


def reload_refused(log: str) -> str:
    """Return the daemon's words when its ``log`` says that it did not take a configuration, else ""."""
    pattern = r"unable to configure the Docker daemon|Error reconfiguring the daemon|Error validating authorization"
    for line in log.splitlines():
        if re.search(pattern, line):
            said = re.search(r'msg="((?:[^"\\]|\\.)*)"(?: error="((?:[^"\\]|\\.)*)")?', line)
            words = ": ".join(filter(None, said.groups())) if said else line.strip()
            return str(masked(words.replace('\\"', '"')))
    return ""


def reload_confirmed(log: str) -> bool:
    """Whether the daemon said that it has taken its configuration (it does at log level info)."""
    return "Reloaded configuration" in log


def loses(changed: t.Collection[str]) -> bool:
    """Whether a daemon restarted for the ``changed`` keys does not find the containers of the one before."""
    return any(key in LOSES_CONTAINERS for key in changed)


def carried(live: bool, config: Json, changed: t.Collection[str]) -> str:
    """Return how containers outlive a restart into ``config`` of an engine that has live-restore on (``live``) or not.

    It has to be on while the engine restarts; before and after that, a reload can turn it on and off.
    """
    wanted = bool(config.get("live-restore"))
    if loses(changed) or not (live or wanted):
        return LOST
    if not live:
        return TURN_ON_FIRST
    return TURN_OFF_LAST if "live-restore" in changed and not wanted else AS_IT_IS


def refusal(policy: str, running: t.Sequence[str], kept: bool, because: str, lost: bool = False) -> str:
    """Return why ``policy`` forbids a restart that ``running`` containers do or do not outlive (``kept``), or "".

    ``lost``: live-restore would not help them either.
    """
    names = f"{', '.join(running[:5])}{' and others' if len(running) > 5 else ''}"
    if policy == REFUSE:
        cost = f" ({len(running)} running: {names})" if running else ""
        return (
            f"the docker engine must be restarted for {because}, and restart_policy is {REFUSE}; nothing was applied; "
            f"allow it, or restart docker yourself when its containers{cost} may stop"
        )
    if policy == LIVE_RESTORE_ONLY and running and not kept:
        first = "" if lost else " turn on live-restore first (a reload is enough for that),"
        return (
            f"the docker engine must be restarted for {because}, which would stop {len(running)} running "
            f"container{'s' if len(running) > 1 else ''} ({names}); nothing was applied; stop them first,"
            f"{first} or set restart_policy to {ALLOWED}"
        )
    return ""
