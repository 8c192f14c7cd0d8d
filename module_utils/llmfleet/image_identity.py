"""Whether an image on one host is the one meant on another, though their engines keep images differently.

The classic store names an image by the digest of its configuration, containerd's store by that of its manifest. Layers
(their diff ids) and the settings that a container starts with are the same in both.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

SETTINGS = ("User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal")
"""What of an image's configuration decides how its containers run."""


@dataclass(frozen=True)
class Image:
    """An image: ``id`` as its engine says it, ``layers`` as diff ids from the lowest, ``settings`` a digest or ""."""

    reference: str
    id: str
    layers: tuple[str, ...]
    settings: str = ""

    def same(self, other: Image) -> bool:
        """Whether both have the same content, whatever engine tells of them."""
        if self.id == other.id:
            return True
        alike = not (self.settings and other.settings) or self.settings == other.settings
        return bool(self.layers) and self.layers == other.layers and alike

    def as_data(self) -> dict[str, t.Any]:
        """Return what a module's result holds of it."""
        return {"reference": self.reference, "id": self.id, "layers": list(self.layers), "settings": self.settings}


def from_data(data: t.Any) -> Image:
    """Return an image from a module's result; raise BadInput when it is none."""
    try:
        image = Image(
            str(data["reference"]), str(data["id"]), tuple(map(str, data["layers"])), str(data.get("settings", ""))
        )
    except (KeyError, TypeError, AttributeError):
        raise BadInput(
            "an entry of the archive's images lacks reference, id or layers; give what it was written with"
        ) from None
    for digest in (image.id, *image.layers):
        if not DIGEST.fullmatch(digest):
            raise BadInput(f"{image.reference}: {digest!r} is not a digest (sha256:...); give what it was written with")
    return image


def from_inspect(reference: str, data: t.Mapping[str, t.Any]) -> Image:
    """Return the image that ``docker image inspect`` describes."""
    layers = (data.get("RootFS") or {}).get("Layers") or ()
    settings = settings_of(data.get("Architecture", ""), data.get("Os", ""), data.get("Config") or {})
    return Image(reference, str(data["Id"]), tuple(layers), settings)


def from_config(reference: str, identity: str, config: t.Mapping[str, t.Any]) -> Image:
    """Return the image that a configuration inside an archive describes (OCI image specification, config.md)."""
    layers = (config.get("rootfs") or {}).get("diff_ids") or ()
    settings = settings_of(config.get("architecture", ""), config.get("os", ""), config.get("config") or {})
    return Image(reference, identity, tuple(layers), settings)


def settings_of(architecture: str, system: str, config: t.Mapping[str, t.Any]) -> str:
    """Return a short digest of how containers run; engines differ in whether they say null, empty or nothing."""
    kept = {name: config[name] for name in SETTINGS if config.get(name)}
    text = json.dumps([architecture, system, kept], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def shared_prefix(layers: t.Sequence[str], others: t.Iterable[t.Sequence[str]]) -> int:
    """Return how many of the lowest ``layers`` some other image has in the same places.

    An engine takes a layer from another image only where everything below it is the same (its chain id).
    """
    longest = 0
    for other in others:
        count = 0
        for mine, theirs in zip(layers, other):
            if mine != theirs:
                break
            count += 1
        longest = max(longest, count)
    return longest


def spared_layers(images: t.Sequence[Image], others: t.Iterable[t.Sequence[str]]) -> set[str]:
    """Return the layers that need not be sent to an engine of the classic store that has images of ``others``."""
    have = [tuple(other) for other in others]
    spared: set[str] = set()
    needed: set[str] = set()
    for image in images:
        count = shared_prefix(image.layers, have)
        spared.update(image.layers[:count])
        needed.update(image.layers[count:])
    return spared - needed


def droppable_layers(images: t.Sequence[Image], without: t.Collection[str]) -> set[str]:
    """Return those of ``without`` that an archive may lack: only layers with nothing else below them."""
    spared: set[str] = set()
    needed: set[str] = set()
    for image in images:
        count = 0
        while count < len(image.layers) and image.layers[count] in without:
            count += 1
        spared.update(image.layers[:count])
        needed.update(image.layers[count:])
    return spared - needed
