"""What a llama.cpp image is made of: variants, compiler flags, the Dockerfile and the build key.

The key is a digest of everything that was *asked for*, not of what answered on the day: a network that fails
later never causes a rebuild, and a changed pin, flag or template always does.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import asdict, dataclass

from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.cpu_level import CPU_LEVELS
from ansible.module_utils.llmfleet.errors import BadInput

REPOSITORY = "llmfleet/llama.cpp"
LABEL_STAGE = "io.llmfleet.stage"
LABEL_SOURCE = "io.llmfleet.source"
DEFAULT_REF = "0c1e57098bba43ac29e6e3b677cdceebdd22334f"
TOOLS = ("llama-server", "llama-cli", "llama-quantize", "llama-gguf-split")
RELEASE_OF = {DEFAULT_REF: "b11206"}
"""The published release that stands in for a commit; releases name themselves."""


@dataclass(frozen=True)
class Variant:
    """A back-end the image is built for: what the toolchain and CMake need on top of the common part."""

    packages: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    published_tag: str = ""  # `{release}` is the llama.cpp release
    published_for: tuple[str, ...] = ()  # architectures of the published image


VARIANTS = {"cpu": Variant(published_tag="server-{release}", published_for=("amd64", "arm64"))}

COMMON_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    # four tools share one copy of the libraries, found beside them
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    # the image may travel to another host than the one that builds it
    "-DGGML_NATIVE=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    # both would fetch from the network while building
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_ALL_WARNINGS=OFF",
)


@dataclass(frozen=True)
class BuildRequest:
    """Everything that was asked for; two equal requests are the same image."""

    ref: str
    pins: tuple[tuple[tuple[str, str], ...], ...]  # of each source candidate, in order
    cmake_flags: tuple[str, ...]
    cpu_level: str
    variant: str
    architecture: str
    base: str
    targets: tuple[str, ...] = TOOLS

    def key(self) -> str:
        """Return the build key."""
        asked = {
            **asdict(self),
            "template": TEMPLATE,
            "flags": self.flags(),
            "packages": self.packages(),
            "uid": RUN_UID,
        }
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def image(self, repository: str = REPOSITORY) -> str:
        """Return the reference the image is tagged with."""
        return f"{repository}:{self.variant}-{self.key()}"

    def flags(self) -> list[str]:
        """Return the CMake flags in full; what a user adds comes last and wins."""
        row = next(level for level in CPU_LEVELS if level.name == self.cpu_level)
        release = re.fullmatch(r"b(\d+)", self.ref)
        stamp = (
            f"-DLLAMA_BUILD_NUMBER={release[1] if release else 0}",
            f"-DLLAMA_BUILD_COMMIT={short_ref(self.ref)}",
        )
        return [*COMMON_FLAGS, *row.flags, *VARIANTS[self.variant].flags, *stamp, *self.cmake_flags]

    def packages(self) -> list[str]:
        """Return the packages of the build stage."""
        return ["ccache", "cmake", "g++", "ninja-build", *VARIANTS[self.variant].packages]


def is_commit(ref: str) -> bool:
    """Tell a full commit id from a branch or a tag."""
    return re.fullmatch(r"[0-9a-f]{40}", ref) is not None


def short_ref(ref: str) -> str:
    """Return a ref the way llama.cpp prints it."""
    return ref[:9] if is_commit(ref) else ref


def published_tag(variant: str, ref: str, arch: str) -> str:
    """Return the tag of the official image that fits, or "" when there is none for this ref and architecture."""
    row = VARIANTS[variant]
    release = RELEASE_OF.get(ref, ref)
    if not row.published_tag or arch not in row.published_for or not re.fullmatch(r"b\d+", release):
        return ""
    return row.published_tag.format(release=release)


# The source tree: folders that no target compiles and that would only slow the transfer to the engine.
PRUNED = frozenset(
    [
        *(".devops", ".git", ".github", "benches", "ci", "conversion", "docs", "examples", "gguf-py", "media"),
        *("models", "pocs", "requirements", "skills", "tests"),
    ]
)


# One template for both builders. The marked words become BuildKit mounts, or nothing for the legacy builder,
# which gets the same files by COPY into the toolchain stage. Neither reaches the final stage, which is made of
# nothing but the files gathered in /out. The old embedded BuildKit knows no here-documents and no `COPY --link`.
TEMPLATE = """\
ARG BASE
FROM ${BASE} AS toolchain
LABEL io.llmfleet.stage=toolchain
@site_copy@RUN @site_mounts@export APT_CONFIG=/run/llmfleet/apt.conf DEBIAN_FRONTEND=noninteractive \\
 && apt-get update && apt-get install -y --no-install-recommends @packages@

FROM toolchain AS build
LABEL io.llmfleet.stage=build
COPY source /src
ARG JOBS=2
RUN @cache_mount@export @ccache@ && ccache --zero-stats > /dev/null \\
 && cmake -S /src -B /build -G Ninja \\
    -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \\
    @flags@ \\
 && cmake --build /build --parallel "$JOBS" --target @targets@ \\
 && ccache --show-stats
RUN mkdir -p /out/app /out/etc /out/tmp && chmod 1777 /out/tmp \\
 && echo 'llama:x:@uid@:@uid@::/tmp:/app/llama-server' > /out/etc/passwd && echo 'llama:x:@uid@:' > /out/etc/group \\
 && cd /build/bin && cp @targets@ /out/app/ \\
 && for lib in $(ldd @targets@ | grep -oE '/[^ :]+' | sort -u); do \\
      case "$lib" in \\
        /build/*) cp -L "$lib" /out/app/ ;; \\
        *) mkdir -p "/out$(dirname "$lib")" && cp -L "$lib" "/out$lib" ;; \\
      esac || exit 1; \\
    done \\
 && strip /out/app/* && find /src -maxdepth 1 -name 'LICENSE*' -type f -exec cp {} /out/app/ ';'

FROM scratch
COPY --from=build /out /
ENV PATH=/app
USER @uid@:@uid@
ENTRYPOINT ["/app/llama-server"]
"""

_SITE = ("apt.conf", "sources.list", "ca.crt")


def _secrets(names: t.Iterable[str]) -> str:
    # secrets are not part of a layer's identity: another mirror or CA does not repeat the step
    return "".join(f"--mount=type=secret,id={name},target=/run/llmfleet/{name} " for name in names)


def dockerfile(request: BuildRequest, buildkit: bool) -> str:
    """Return the Dockerfile of ``request`` for BuildKit or for the legacy builder."""
    suite = re.sub(r"[^a-z0-9]+", "-", request.base)
    marks = {
        "packages": " ".join(request.packages()),
        "flags": " ".join(_quote(flag) for flag in request.flags()),
        "targets": " ".join(request.targets),
        "uid": str(RUN_UID),
        "site_copy": "" if buildkit else "COPY site /run/llmfleet\n",
        "site_mounts": "",
        "cache_mount": "",
        "ccache": "CCACHE_DISABLE=1",  # it would only fill the layer
    }
    if buildkit:
        apt_cache = f"--mount=type=cache,id=llmfleet-apt-{suite},target=/var/cache/apt,sharing=locked "
        marks["site_mounts"] = _secrets(_SITE) + apt_cache
        marks["cache_mount"] = f"--mount=type=cache,id=llmfleet-ccache-{request.variant},target=/ccache "
        marks["ccache"] = "CCACHE_DIR=/ccache CCACHE_MAXSIZE=4G"
    return re.sub(r"@(\w+)@", lambda mark: marks[mark[1]], TEMPLATE)


def _quote(flag: str) -> str:
    return flag if re.fullmatch(r"[\w./:=+,-]+", flag) else "'" + flag.replace("'", "'\\''") + "'"


def check_request(request: BuildRequest) -> None:
    """Refuse what cannot be built, before anything changes."""
    if not re.fullmatch(r"[\w][\w./-]{0,199}", request.ref) or ".." in request.ref:
        raise BadInput(
            f"ref {request.ref!r} is not a commit, tag or branch name; write one like {DEFAULT_REF[:12]} in full."
        )
    for flag in request.cmake_flags:
        if not re.fullmatch(r"-D\w+(:\w+)?=[^\r\n]*", flag):
            raise BadInput(f"cmake_flags: {flag!r} is not of the form -DNAME=VALUE.")
    if "llama-server" not in request.targets:
        raise BadInput("targets must contain llama-server, which is what the image starts.")
    for target in request.targets:
        if not re.fullmatch(r"llama-[a-z0-9-]+", target):
            raise BadInput(f"targets: {target!r} is not the name of a llama.cpp tool, such as llama-quantize.")


def jobs(cpus: int, memory_bytes: int) -> int:
    """Return how many compilers to run at once: one per CPU, each with 1.5 GiB of memory to itself."""
    return max(1, min(cpus, memory_bytes // (3 << 29)))
