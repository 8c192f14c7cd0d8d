"""What an image of ready-made packages is: where the official one is, and how one is built of packages. Pure.

One file of this folder a kind holds its RECIPE; `packaged.RECIPES` lists them.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.base_image import DEFAULT_BASE, new_enough
from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_template import PYTHON_FOLDER, SITE_FOLDER, TOOLS_FOLDER, TRIPLETS

LABEL_KEY = "io.llmfleet.packaged-key"
"""Image label: the identity of what the image was made from."""
LABEL_VERSION = "org.opencontainers.image.version"
STAGE = "io.llmfleet.stage"
_SITE = ("apt.conf", "sources.list", "ca.crt", "pip.conf")

Layout = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Recipe:
    """How the image of one kind is had. ``title`` is its name in sentences."""

    kind: str
    title: str
    version: str
    """Of the official image and, where it is built of PyPI, of the built one."""
    repositories: tuple[str, ...]
    """Repositories of the official image, in the order they are tried."""
    tag: str
    script: str
    """`sh` script that installs everything as root; it is called with APT_CONFIG set and these files beside it:
    ``files`` in /run/llmfleet-tools, wheels of this host in /run/python-wheels, pip's configuration in
    /run/llmfleet/pip.conf."""
    config: str
    """Last lines of the Dockerfile: ENV with the whole PATH, USER, ENTRYPOINT."""
    trial: tuple[str, ...]
    """Program and arguments that prove an image runs; tried without network and with a read-only root."""
    layouts: t.Mapping[str, Layout]
    """`official` and `built` -> what a user of the image must know of it, such as paths."""
    files: t.Mapping[str, str] = field(default_factory=dict)
    """Name -> content of what the script reads, such as requirements.txt."""
    packages: t.Mapping[str, str] = field(default_factory=dict)
    """Python package -> version of those that are installed; wheels of them on this host are handed in."""
    needs_room: bool = False
    """Whether it comes to gigabytes."""
    too_old: tuple[str, ...] = ()
    """Releases that lack what the script installs, or have it too new; DEFAULT_BASE is built on instead."""


_RUN = "export APT_CONFIG=/run/llmfleet/apt.conf && sh /run/llmfleet-tools/install.sh\n"

_WITH_BUILDKIT = f"ARG BASE\nFROM ${{BASE}}\nRUN @mounts@{_RUN}"

# Without mounts the host's files would stay in a layer, so the tree is copied out of a stage of its own.
_WITHOUT = f"""\
ARG BASE
FROM ${{BASE}} AS build
LABEL {STAGE}=build
COPY {SITE_FOLDER} /run/llmfleet
COPY {TOOLS_FOLDER} /run/llmfleet-tools
COPY {PYTHON_FOLDER} /run/python-wheels
RUN {_RUN}\
RUN rm -rf /run/* /var/cache/apt/* /root/.cache

FROM scratch
COPY --from=build / /
"""


class Buildable(t.Protocol):
    """An image that packaged.job can build: what it is made from, its identity and its Dockerfile."""

    @property
    def title(self) -> str:
        """Return its name in sentences."""

    @property
    def what(self) -> str:
        """Return what is built, for the reader of a plan."""

    @property
    def slug(self) -> str:
        """Return its name in paths."""

    @property
    def repository(self) -> str:
        """Return the repository of images that are built here."""

    @property
    def needs_room(self) -> bool:
        """Return whether it comes to gigabytes."""

    @property
    def packages(self) -> t.Mapping[str, str]:
        """Return the Python packages it takes with their versions, none without Python."""

    @property
    def trial(self) -> tuple[str, ...]:
        """Return the program and arguments that prove that it runs."""

    @property
    def architecture(self) -> str:
        """Return the processor's architecture as docker says it."""

    def key(self) -> str:
        """Return the identity of what the image is made from."""

    def image(self) -> str:
        """Return the reference the image is tagged with."""

    def labels(self) -> dict[str, str]:
        """Return the labels that say what the image is."""

    def check(self) -> None:
        """Raise BadInput for what cannot be built."""

    def base_of(self, host_base: str) -> str:
        """Return the distribution to build on."""

    def dockerfile(self, distribution: str, buildkit: bool) -> str:
        """Return the Dockerfile for BuildKit or for the legacy builder."""

    def scripts(self) -> dict[str, str]:
        """Return the files of the context's tools folder, name -> content."""


@dataclass(frozen=True)
class PackagedRequest:
    """An image that is built here; ``base_asked`` is ``distribution:codename`` or "" for the host's own."""

    recipe: Recipe
    architecture: str = "amd64"
    base_asked: str = ""

    @property
    def title(self) -> str:
        """Return its name in sentences."""
        return self.recipe.title

    @property
    def what(self) -> str:
        """Return why it is built, for the reader of a plan."""
        return f"{self.recipe.title} is built of packages"

    @property
    def slug(self) -> str:
        """Return its name in paths and image names."""
        return self.recipe.kind.replace("_", "-")

    @property
    def needs_room(self) -> bool:
        """Return whether it is a big one."""
        return self.recipe.needs_room

    @property
    def packages(self) -> t.Mapping[str, str]:
        """Return the Python packages it takes with their versions."""
        return self.recipe.packages

    @property
    def trial(self) -> tuple[str, ...]:
        """Return the program and arguments that prove that it runs."""
        return self.recipe.trial

    def key(self) -> str:
        """Return the identity of what the image is made from: 12 hexadecimal digits."""
        recipe = self.recipe
        asked = {
            "made": [recipe.script, recipe.config, dict(recipe.files)],
            "architecture": self.architecture,
            "base": self.base_asked,
            "uid": RUN_UID,
            "template": [_WITH_BUILDKIT, _WITHOUT],
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def repository(self) -> str:
        """Return the repository of images that are built here."""
        return f"llmfleet/{self.slug}"

    def image(self) -> str:
        """Return the reference the image is tagged with."""
        return f"{self.repository}:{self.key()}"

    def labels(self) -> dict[str, str]:
        """Return the labels that say what the image is."""
        # what comes of the distribution has the version that it has
        version = {LABEL_VERSION: self.recipe.version} if self.recipe.packages else {}
        return {LABEL_KEY: self.key(), **version, "org.opencontainers.image.title": self.recipe.title}

    def check(self) -> None:
        """Raise BadInput for what cannot be built."""
        if self.architecture not in TRIPLETS:
            raise BadInput(f"{self.title} is not built for {self.architecture}; give an image for it.")
        if self.base_asked.partition(":")[2] in self.recipe.too_old:
            raise BadInput(f"base {self.base_asked} is too old or too new for {self.title}; take {DEFAULT_BASE}.")

    def base_of(self, host_base: str) -> str:
        """Return the distribution to build on: asked for, or the host's own where that is new enough."""
        return self.base_asked or new_enough(host_base, self.recipe.too_old)

    def dockerfile(self, distribution: str, buildkit: bool) -> str:
        """Return the Dockerfile for BuildKit or for the legacy builder."""
        binds = ((TOOLS_FOLDER, "/run/llmfleet-tools"), (PYTHON_FOLDER, "/run/python-wheels"))
        text = _WITH_BUILDKIT.replace("@mounts@", mounts(distribution, binds)) if buildkit else _WITHOUT
        return text + self.recipe.config

    def scripts(self) -> dict[str, str]:
        """Return the files of the context's tools folder, name -> content."""
        return {"install.sh": self.recipe.script, **self.recipe.files}


def mounts(distribution: str, binds: t.Iterable[tuple[str, str]]) -> str:
    """Return BuildKit's mounts for one RUN: the host's own files, ``binds`` of the context, caches of packages.

    ``distribution`` names the cache of packages.
    """
    suite = re.sub(r"[^a-z0-9]+", "-", distribution)
    words = [f"--mount=type=secret,id={name},target=/run/llmfleet/{name}" for name in _SITE]
    words += [f"--mount=type=bind,source={source},target={target}" for source, target in binds]
    words += [f"--mount=type=cache,id=llmfleet-apt-{suite},target=/var/cache/apt,sharing=locked"]
    words += ["--mount=type=cache,id=llmfleet-pip,target=/root/.cache/pip"]
    return "".join(f"{word} " for word in words)
