"""The image that the build stage starts from: pulled, or bootstrapped from the host's own distribution mirror.

All of it is about the build stage only; the finished image holds nothing of it but the libraries the tools need.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from ansible.module_utils.llmfleet.errors import BadInput

BASE_REPOSITORY = "llmfleet/base"
LABEL_BASE = "io.llmfleet.base"
DEFAULT_BASE = "debian:bookworm"
BOOTSTRAPPED = ("debian", "ubuntu")
"""Distributions that debootstrap can make; another host builds on a pulled DEFAULT_BASE."""

APT_TARGETS = "$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)"
"""What `apt-get indextargets --format` is asked for."""


def host_base(os_release: str) -> str:
    """Return ``distribution:codename`` of /etc/os-release, or DEFAULT_BASE when that cannot be bootstrapped."""
    found = dict(re.findall(r"^(ID|VERSION_CODENAME)=\"?([^\"\n]*)\"?$", os_release, re.MULTILINE))
    distribution, codename = found.get("ID", ""), found.get("VERSION_CODENAME", "")
    return f"{distribution}:{codename}" if distribution in BOOTSTRAPPED and codename else DEFAULT_BASE


def new_enough(host_base: str, too_old: t.Collection[str]) -> str:
    """Return ``host_base``, or DEFAULT_BASE where that is one of the releases ``too_old`` or cannot be bootstrapped."""
    distribution, _, codename = host_base.partition(":")
    return host_base if distribution in BOOTSTRAPPED and codename not in too_old else DEFAULT_BASE


def check_base(base: str) -> str:
    """Return ``base`` if it is written ``distribution:codename``."""
    if not re.fullmatch(r"[a-z]+:[a-z]+", base):
        raise BadInput(f"base {base!r} is not of the form distribution:codename; write for example {DEFAULT_BASE}.")
    return base


def base_references(candidates: t.Iterable[str], base: str) -> list[str]:
    """Return the image references to try, from rows such as ``docker.io/library/{base}``."""
    return [row.replace("{base}", base) for row in candidates]


def bootstrapped_name(base: str) -> str:
    """Return the name of the image this project bootstraps for ``base``."""
    return f"{BASE_REPOSITORY}:{base.replace(':', '-')}"


@dataclass(frozen=True)
class AptSource:
    """A suite of the distribution on its mirror, as the host uses it."""

    uri: str
    release: str
    components: tuple[str, ...]


def parse_targets(text: str, base: str) -> list[AptSource]:
    """Return the distribution's own suites for ``base`` among the lines of APT_TARGETS; third parties are left out."""
    distribution, codename = base.split(":")
    found: dict[tuple[str, str], list[str]] = {}
    for line in text.splitlines():
        uri, release, _codename, component, origin = [*line.split("|"), "", "", "", ""][:5]
        own = origin.lower() == distribution and re.fullmatch(rf"{codename}(-updates|-security)?(/.*)?", release)
        if own and component:
            components = found.setdefault((uri, release), [])
            if component not in components:
                components.append(component)
    return [AptSource(uri, release, tuple(components)) for (uri, release), components in found.items()]


def sibling_sources(text: str, base: str) -> list[AptSource]:
    """Return the suites of ``base`` on the mirror that carries another release of the same distribution for the host.

    ``text`` are the lines of APT_TARGETS. A mirror carries all current releases, and under the same names.
    """
    distribution, codename = base.split(":")
    rows = (line.split("|") for line in text.splitlines())
    own = {row[1] for row in rows if len(row) == 5 and row[4].lower() == distribution and row[1].isalpha()}
    if len(own) != 1:
        return []
    release = own.pop()
    found = parse_targets(text, f"{distribution}:{release}")
    return [replace(row, release=re.sub(rf"^{release}(?=$|[-/])", codename, row.release)) for row in found]


def mirror(sources: t.Sequence[AptSource], base: str) -> str:
    """Return the mirror that carries the release itself, "" when the host uses none."""
    codename = base.split(":")[1]
    return next((source.uri for source in sources if source.release == codename), "")


def sources_list(sources: t.Sequence[AptSource]) -> str:
    """Return the sources in apt's one-line form."""
    return "".join(f"deb {row.uri} {row.release} {' '.join(row.components)}\n" for row in sources)


CUDA_COMPONENTS = {"debian": ("contrib", "non-free"), "ubuntu": ("multiverse",)}
"""Where a distribution keeps its own CUDA toolkit; the last one holds the package itself."""


def with_components(sources: t.Sequence[AptSource], more: t.Sequence[str]) -> list[AptSource]:
    """Return the sources with the components ``more`` switched on."""
    return [replace(row, components=tuple(dict.fromkeys((*row.components, *more)))) for row in sources]


_PASSED_ON = re.compile(
    r"^Acquire::(?:https?::(?:Proxy|Verify-Peer|Verify-Host)(?:::\S+)?|Check-Valid-Until|Check-Date|Retries|ForceIPv4)"
    r' "[^"]*";$',
    re.MULTILINE,
)


def apt_conf(
    host_dump: str, own_sources: bool, own_ca: bool, keep_packages: bool = False, folder: str = "/run/llmfleet"
) -> str:
    """Return apt's configuration for the build: what `apt-config dump` says of proxies and checks, and our files."""
    lines = _PASSED_ON.findall(host_dump)
    # the sandbox user could not read the mounted files
    lines += ['APT::Sandbox::User "root";', 'Acquire::Retries "3";']
    # worth it where a cache mount holds them
    lines += [f'APT::Keep-Downloaded-Packages "{str(keep_packages).lower()}";']
    if own_sources:
        lines += [f'Dir::Etc::sourcelist "{folder}/sources.list";', 'Dir::Etc::sourceparts "-";']
    if own_ca:
        lines += [f'Acquire::https::CAInfo "{folder}/ca.crt";']
    return "\n".join(lines) + "\n"


def apt_proxies(host_dump: str) -> dict[str, str]:
    """Return the proxies apt uses, as environment variables for programs that know nothing of apt."""
    found = re.findall(r'^Acquire::(https?)::Proxy "([^"]+)";$', host_dump, re.MULTILINE | re.IGNORECASE)
    return {f"{scheme.lower()}_proxy": url for scheme, url in found if url != "DIRECT"}


def build_network(proxies: t.Iterable[str]) -> str:
    """Return the network for a build: the host's own when a proxy listens on its loopback address."""
    hosts = {urlsplit(url if "://" in url else f"//{url}").hostname or "" for url in proxies}
    return (
        "host" if any(host == "localhost" or host.startswith("127.") or host == "::1" for host in hosts) else "default"
    )


def debootstrap(base: str, uri: str, components: t.Sequence[str], folder: str) -> list[str]:
    """Return the command that bootstraps ``base`` into ``folder``."""
    codename = base.split(":")[1]
    return ["debootstrap", "--variant=minbase", f"--components={','.join(components) or 'main'}", codename, folder, uri]
