"""The Dockerfile of a llama.cpp image: stages as text with marks, filled in from the request and the toolchain.

``@word@`` marks become BuildKit mounts, or nothing for the legacy builder, which gets the same files by COPY into the
toolchain stage. Neither reaches the final stage. The old embedded BuildKit (20.10) knows no here-documents, no
``COPY --link`` and no ``# syntax`` line without a registry. What an edit here changes is rebuilt everywhere.
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.image_scripts import CUDA_ROOT, CUDA_WHEELS, GATHER, STUBS
from ansible.module_utils.llmfleet.image_toolchain import Toolchain
from ansible.module_utils.llmfleet.image_variants import VARIANTS
from ansible.module_utils.llmfleet.python_scripts import CONVERTER, PYTHON, PYTHON_ROOT, TORCH

if t.TYPE_CHECKING:
    from ansible.module_utils.llmfleet.image_request import BuildRequest

CCACHE = "llmfleet-ccache"
"""Cache mount of the compilers; one for all back-ends, because most of llama.cpp is the same in each."""

TOOLS_FOLDER, WHEELS_FOLDER, SITE_FOLDER, PYTHON_FOLDER = "tools", "wheels", "site", "python-wheels"
"""Folders of the build context beside ``source``: our scripts, the CUDA wheels, the host's own apt, pip and CA files,
and wheels of Python packages that are on this host."""

_PRUNED = frozenset(
    [
        *(".devops", ".git", ".github", "benches", "ci", "conversion", "docs", "examples", "gguf-py", "media"),
        *("models", "pocs", "requirements", "skills", "tests"),
    ]
)
_PRUNED_BUT_FOR_FULL = frozenset({"conversion", "gguf-py", "requirements"})


def pruned(contents: str) -> frozenset[str]:
    """Return the folders of the source tree that this image has no use for; they would only slow the transfer."""
    return _PRUNED - _PRUNED_BUT_FOR_FULL if contents == "full" else _PRUNED


_TOOLCHAIN = """\
ARG BASE
FROM ${BASE} AS toolchain
LABEL io.llmfleet.stage=toolchain
@site_copy@RUN @site_mounts@export APT_CONFIG=/run/llmfleet/apt.conf DEBIAN_FRONTEND=noninteractive \\
 && @foreign_sources@apt-get update && apt-get install -y --no-install-recommends @packages@
"""

_WHEELS = """\
@wheels_copy@RUN @wheels_mounts@sh /run/cuda_wheels.sh /run/wheels @cuda_root@
"""

_STUB = """\
RUN mkdir -p @stubs@ && cp -L @stub@ @stubs@/libcuda.so.1
"""

_BUILD = """\

FROM toolchain AS build
LABEL io.llmfleet.stage=build
COPY source /src
ARG JOBS=2
RUN @cache_mount@export @ccache@ && ccache --zero-stats > /dev/null \\
 && @setup@cmake -S /src -B /build -G Ninja @launchers@ \\
    @flags@ \\
 && cmake --build /build --parallel "$JOBS" --target @targets@ \\
 && ccache --show-stats
COPY tools/gather.sh /run/gather.sh
RUN sh /run/gather.sh @gather@ @targets@
"""

# The libraries first: they stay the same over llama.cpp's commits, so that a new one moves the second layer only.
_FROM_SCRATCH = """\

FROM scratch
COPY --from=build /out/libs /
COPY --from=build /out/app /
"""

_CONFIG = """\
@environment@USER @uid@:@uid@
ENTRYPOINT ["/app/@entrypoint@"]
"""

_SITE = ("apt.conf", "sources.list", "ca.crt")

_PYTHON_PARTS = (
    (f"{TOOLS_FOLDER}/python.sh", "/run/python.sh"),
    ("source/requirements", "/run/requirements"),
    (PYTHON_FOLDER, "/run/python-wheels"),
)

_DRIVER_PLACES = ("/usr/lib/@triplet@", "/usr/lib64", "/usr/local/nvidia/lib64", "/usr/lib/wsl/lib")
"""Where container toolkits put the driver's libraries: searched even where none of them can run ldconfig."""

TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


# Python is a layer of its own, as the same for many commits. Its stage stands on the toolchain for apt and the CA only.
_WITH_PYTHON = """\

FROM toolchain AS python
LABEL io.llmfleet.stage=build
@python_copy@RUN @python_mounts@export APT_CONFIG=/run/llmfleet/apt.conf \\
 && sh /run/python.sh @torch@ /run/requirements /run/python-wheels
COPY tools/converter.sh /run/converter.sh
COPY source /src
RUN sh /run/converter.sh /src

FROM scratch
COPY --from=build /out/libs /
COPY --from=python /out/python /
COPY --from=build /out/app /
COPY --from=python /out/converter /
"""

_FINAL: t.Mapping[str, str] = {"full": _WITH_PYTHON}
"""The last stages of contents whose image is not made of the gathered files alone, by contents."""


def final_stage(contents: str) -> str:
    """Return the stage that becomes the image."""
    return _FINAL.get(contents, _FROM_SCRATCH) + _CONFIG


def parts(variant: str, contents: str) -> str:
    """Return all text that images of this kind are made from; it is part of their identity."""
    cuda = (_WHEELS, _STUB, CUDA_WHEELS) if variant == "cuda" else ()
    python = (PYTHON, CONVERTER, TORCH) if contents == "full" else ()
    return "".join((_TOOLCHAIN, *cuda, _BUILD, GATHER, *python, final_stage(contents), *_DRIVER_PLACES))


def scripts(toolchain: Toolchain, contents: str = "server") -> dict[str, str]:
    """Return the files of the context's tools folder, name -> content."""
    return {
        "gather.sh": GATHER,
        **({"cuda_wheels.sh": CUDA_WHEELS} if toolchain.kind == "wheels" else {}),
        **({"python.sh": PYTHON, "converter.sh": CONVERTER} if contents == "full" else {}),
    }


def dockerfile(request: BuildRequest, toolchain: Toolchain, buildkit: bool) -> str:
    """Return the Dockerfile of ``request`` for BuildKit or for the legacy builder."""
    template = _TOOLCHAIN
    if toolchain.kind == "wheels":
        template += _WHEELS
    if toolchain.stub():
        template += _STUB
    template += _BUILD + final_stage(request.contents)
    marks = {**_content_marks(request, toolchain), **_builder_marks(toolchain, buildkit)}
    return re.sub(r"@(\w+)@", lambda mark: marks[mark[1]], template)


def _content_marks(request: BuildRequest, toolchain: Toolchain) -> dict[str, str]:
    row = VARIANTS[request.variant]
    languages = {"cuda": ("CUDA",), "rocm": ("HIP",)}.get(request.variant, ())
    folders = (*toolchain.libraries(), *row.libraries)
    gather = ["--uid", str(RUN_UID)]
    gather += ["--driver", "yes"] if request.variant != "cpu" else []
    gather += ["--sdk", ":".join(folders)] if folders else []
    gather += [word for pattern in row.loaded for word in ("--load", f"'{pattern}'")]
    gather += [word for path in row.data for word in ("--data", path)]
    return {
        "packages": " ".join(request.packages(toolchain)),
        "launchers": " ".join(f"-DCMAKE_{name}_COMPILER_LAUNCHER=ccache" for name in ("C", "CXX", *languages)),
        "flags": " ".join(_quote(flag) for flag in request.flags(toolchain)),
        "targets": " ".join(request.programs()),
        "entrypoint": request.programs()[0],
        "setup": f"{row.setup} " if row.setup else "",
        "gather": " ".join(gather),
        "environment": _environment(request),
        "uid": str(RUN_UID),
        "cuda_root": CUDA_ROOT,
        "stub": toolchain.stub(),
        "stubs": STUBS,
        "torch": TORCH,
    }


def _environment(request: BuildRequest) -> str:
    path = f"/app:{PYTHON_ROOT}/bin" if request.contents == "full" else "/app"
    names = {"PATH": path, **dict(VARIANTS[request.variant].environment)}
    if request.variant == "cuda":
        triplet = TRIPLETS[request.architecture]
        names["LD_LIBRARY_PATH"] = ":".join(place.replace("@triplet@", triplet) for place in _DRIVER_PLACES)
    return "".join(f"ENV {name}={value}\n" for name, value in names.items())


def _builder_marks(toolchain: Toolchain, buildkit: bool) -> dict[str, str]:
    # a foreign repository of an SDK image may be out of reach, and nothing is taken from it
    foreign = "rm -f /etc/apt/sources.list.d/cuda* && " if toolchain.kind == "image" and toolchain.cuda else ""
    if not buildkit:
        return {
            "foreign_sources": foreign,
            "site_copy": f"COPY {SITE_FOLDER} /run/llmfleet\n",
            "site_mounts": "",
            "wheels_copy": f"COPY {TOOLS_FOLDER}/cuda_wheels.sh /run/\nCOPY {WHEELS_FOLDER} /run/wheels\n",
            "wheels_mounts": "",
            "python_copy": "".join(f"COPY {source} {target}\n" for source, target in _PYTHON_PARTS),
            "python_mounts": "",
            "cache_mount": "",
            "ccache": "CCACHE_DISABLE=1",  # it would only fill the layer
        }
    suite = re.sub(r"[^a-z0-9]+", "-", toolchain.distribution)
    apt_cache = f"--mount=type=cache,id=llmfleet-apt-{suite},target=/var/cache/apt,sharing=locked "
    script = f"{TOOLS_FOLDER}/cuda_wheels.sh"
    return {
        "foreign_sources": foreign,
        "site_copy": "",
        "site_mounts": _secrets(_SITE) + apt_cache,
        "wheels_copy": "",
        "wheels_mounts": _bind(WHEELS_FOLDER, "/run/wheels") + _bind(script, "/run/cuda_wheels.sh"),
        "python_copy": "",
        "python_mounts": _secrets((*_SITE, "pip.conf"))
        + apt_cache
        + "--mount=type=cache,id=llmfleet-pip,target=/root/.cache/pip "
        + "".join(_bind(source, target) for source, target in _PYTHON_PARTS),
        "cache_mount": f"--mount=type=cache,id={CCACHE},target=/ccache ",
        # by content: a toolchain stage made anew has the same compilers with other dates
        "ccache": "CCACHE_DIR=/ccache CCACHE_MAXSIZE=8G CCACHE_COMPILERCHECK=content",
    }


def _secrets(names: t.Iterable[str]) -> str:
    # secrets are not part of a layer's identity: another mirror or CA does not repeat the step
    return "".join(f"--mount=type=secret,id={name},target=/run/llmfleet/{name} " for name in names)


def _bind(source: str, target: str) -> str:
    return f"--mount=type=bind,source={source},target={target} "


def _quote(flag: str) -> str:
    return flag if re.fullmatch(r"[\w./:=+,-]+", flag) else "'" + flag.replace("'", "'\\''") + "'"
