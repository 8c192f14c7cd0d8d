"""Values of daemon.json with which dockerd does not start, or does not do what they say.

``dockerd --validate`` knows a part of these only, and engines before 23.0 have no such flag. Each rule returns a
sentence, or "" for a good value. Types have been checked before. Source: the Validate functions of moby 20.10 to 29.7.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
import urllib.parse

Config = t.Mapping[str, t.Any]
Release = tuple[int, int]

_SIZE = re.compile(r"\d+(\.\d+)? ?([kKmMgGtTpP])?[iI]?[bB]?")
_ROTATING = ("json-file", "local")
_LEVELS = ("panic", "fatal", "error", "warn", "info", "debug", "trace")
# engines before 25.0 refuse a mirror with a path
_MIRROR_PATHS: Release = (25, 0)


def _mirror(url: str, release: Release) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return f"the mirror {url} is no URL; write it as https://mirror.example.org"
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"the mirror {url} is not an address that docker can use; write it as https://mirror.example.org"
    if parts.username is not None:
        return f"the mirror {shown} is given with a user name, which docker refuses; remove it"
    if parts.query or parts.fragment:
        return f"the mirror {shown} is given with a query or fragment, which docker refuses; remove it"
    if parts.path.strip("/") and release < _MIRROR_PATHS:
        return f"the mirror {shown} has a path, which docker refuses before 25.0; use one at the root of its host"
    return ""


def _mirrors(config: Config, release: Release) -> t.Iterator[str]:
    for url in config.get("registry-mirrors") or ():
        yield _mirror(url, release)


def _labels(config: Config, _: Release) -> t.Iterator[str]:
    seen: dict[str, str] = {}
    for label in config.get("labels") or ():
        name, equals, value = label.partition("=")
        if not equals or not name:
            yield f"the label {label} must have the form name=value"
        elif seen.setdefault(name, value) != value:
            yield f"the label {name} is given twice, as {seen[name]} and as {value}; keep one"


def _logs(config: Config, _: Release) -> t.Iterator[str]:
    driver, options = config.get("log-driver") or "json-file", config.get("log-opts") or {}
    size, count = options.get("max-size"), options.get("max-file")
    for name in ("max-size", "max-file"):
        if name in options and driver not in _ROTATING and "/" not in driver and driver != "none":
            yield f"`log-opts.{name}` is for the log drivers json-file and local, not for {driver}; remove it"
    if size is not None and (not _SIZE.fullmatch(size) or not re.search("[1-9]", size)):
        yield f"`log-opts.max-size` must be a size such as 50m, not {size}"
    if count is not None and not re.fullmatch("0*[1-9][0-9]*", count):
        yield f"`log-opts.max-file` must be a whole number from 1 on, not {count}"


def _paths(config: Config, _: Release) -> t.Iterator[str]:
    root = config.get("data-root")
    if root is not None and not root.startswith("/"):
        yield f"`data-root` must be an absolute path, not {root!r}"


def _runtimes(config: Config, _: Release) -> t.Iterator[str]:
    runtimes = config.get("runtimes") or {}
    for name, runtime in runtimes.items():
        if not isinstance(runtime, dict) or bool(runtime.get("path")) == bool(runtime.get("runtimeType")):
            yield f"`runtimes.{name}` must be a mapping with either `path` or `runtimeType`"
    if "runc" in runtimes:
        yield "`runtimes.runc` is docker's own and cannot be set; give that runtime another name"
    chosen = config.get("default-runtime") or "runc"
    # a containerd shim, named or given by its path, needs no entry
    if chosen not in runtimes and chosen != "runc" and not chosen.startswith(("io.containerd.", "/")):
        yield f"`default-runtime` is {chosen}, but `runtimes` has no such entry; add it, or choose runc"


def _exec_opts(config: Config, _: Release) -> t.Iterator[str]:
    for option in config.get("exec-opts") or ():
        name, equals, value = (part.strip() for part in option.partition("="))
        # distributions' own engines know more options than this one
        if not equals or (name.lower() == "native.cgroupdriver" and value not in ("cgroupfs", "systemd")):
            yield f"`exec-opts` holds {option}; write native.cgroupdriver=systemd or native.cgroupdriver=cgroupfs"


def _addresses(config: Config, _: Release) -> t.Iterator[str]:
    for key in ("dns", "host-gateway-ips"):
        for address in config.get(key) or ():
            try:
                ipaddress.ip_address(address)
            except ValueError:
                yield f"`{key}` holds {address}, which is no IP address"


def _pools(config: Config, _: Release) -> t.Iterator[str]:
    for pool in config.get("default-address-pools") or ():
        try:
            network = ipaddress.ip_network(pool.get("base", ""), strict=False)
            size = pool.get("size")
            good = isinstance(size, int) and network.prefixlen <= size <= network.max_prefixlen
        except ValueError:
            good = False
        if not good:
            yield (
                f"`default-address-pools` holds {pool}; each needs `base`, a network such as 172.30.0.0/16, "
                "and `size`, the length of the prefixes to cut from it, such as 24"
            )


def _ulimits(config: Config, _: Release) -> t.Iterator[str]:
    for name, limit in (config.get("default-ulimits") or {}).items():
        # dockerd does not mind the case of these names
        entry = {key.lower(): value for key, value in limit.items()} if isinstance(limit, dict) else {}
        soft, hard = entry.get("soft"), entry.get("hard")
        if not isinstance(soft, int) or not isinstance(hard, int) or not entry.get("name"):
            yield f"`default-ulimits.{name}` needs Name: {name}, and Soft and Hard as whole numbers"
        elif (soft > hard != -1) or (soft == -1 != hard):
            yield f"`default-ulimits.{name}` has a soft limit ({soft}) above its hard limit ({hard})"


def _proxies(config: Config, _: Release) -> t.Iterator[str]:
    for name in config.get("proxies") or {}:
        if name not in ("http-proxy", "https-proxy", "no-proxy"):
            yield f"`proxies.{name}` is not a key that docker reads; there are http-proxy, https-proxy and no-proxy"


def _sizes(config: Config, _: Release) -> t.Iterator[str]:
    builder = config.get("builder") or {}
    gc = builder.get("gc") or {}
    if not isinstance(gc, dict):
        yield f"`builder.gc` must be a mapping such as {{enabled: true, defaultKeepStorage: 20GB}}, not {gc!r}"
        gc = {}
    named = {
        "default-shm-size": config.get("default-shm-size"),
        **{
            f"builder.gc.{key}": value for key, value in gc.items() if re.fullmatch("(?i)default.*(space|storage)", key)
        },
    }
    for name, value in named.items():
        # BuildKit takes a share of the disk too
        share = name.startswith("builder") and isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?%", value)
        if isinstance(value, str) and value and not _SIZE.fullmatch(value) and not share:
            yield f"`{name}` must be a size such as 20GB, not {value}"


def _switches(config: Config, _: Release) -> t.Iterator[str]:
    for name, value in (config.get("features") or {}).items():
        if not isinstance(value, bool):
            yield f"`features.{name}` must be true or false, without quotes, not {value!r}"
    level = config.get("log-level")
    if level and level.lower() not in _LEVELS:
        yield f"`log-level` must be one of debug, info, warn, error and fatal, not {level}"


_RULES = (
    _mirrors,
    _labels,
    _logs,
    _paths,
    _runtimes,
    _exec_opts,
    _addresses,
    _pools,
    _ulimits,
    _proxies,
    _sizes,
    _switches,
)


def value_problems(config: Config, release: Release) -> list[str]:
    """Return a sentence for each bad value of ``config``, for an engine of ``release``."""
    return [problem for rule in _RULES for problem in rule(config, release) if problem]
