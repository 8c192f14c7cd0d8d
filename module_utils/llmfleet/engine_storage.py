"""What the plan warns of where an engine keeps its images elsewhere: what is not seen any more, mirrors not read."""

from __future__ import annotations

import typing as t

from ansible.module_utils.llmfleet import engine_info

Data = t.Mapping[str, t.Any]

HOSTS_TOML_SINCE = (28, 0)
"""The release that reads hosts.toml: 28.5 for builds, and for pulls with the containerd store; 26.1 never."""

STORE = "containerd-snapshotter"
"""The feature that keeps images and containers in containerd's store instead of the engine's own."""

STORE_BY_DEFAULT_SINCE = (29, 0)


def _store_to_come(docker: Data, options: Data, changed: t.Collection[str]) -> bool:
    """Return whether images are in containerd's store once our ``options`` hold."""
    features = options.get("features")
    asked = features.get(STORE) if isinstance(features, dict) else None
    if asked is not None:
        return bool(asked)
    # from then on, what a host has that says nothing depends on what it had before
    off = (engine_info.release(str(docker["server_version"] or "")) or STORE_BY_DEFAULT_SINCE) < STORE_BY_DEFAULT_SINCE
    return bool(docker["containerd_store"]) and not (off and f"features.{STORE}" in changed)


def hidden(docker: Data, options: Data, changed: t.Collection[str]) -> list[str]:
    """Return what is not seen any more once our ``options`` hold; ``changed``: the keys of daemon.json that change."""
    said = []
    before, after = docker["root_dir"], options.get("data-root", "")
    if before and after and before.rstrip("/") != after.rstrip("/"):
        said.append(
            f"images and containers in {before} are not seen any more once data-root is {after}; they stay on the disk"
        )
    # docs.docker.com/engine/storage/containerd
    if docker["reachable"] and _store_to_come(docker, options, changed) != docker["containerd_store"]:
        said.append(
            f"the engine changes its image store (features.{STORE}): the images and containers it has are not seen any "
            "more until that is changed back; they stay on the disk"
        )
    return said


def unread(docker: Data, options: Data, changed: t.Collection[str], registry_hosts: Data) -> list[str]:
    """Return why the engine that runs will not read the mirrors of other registries then, if so."""
    version = str(docker["server_version"] or "")
    reads = (engine_info.release(version) or HOSTS_TOML_SINCE) >= HOSTS_TOML_SINCE
    store = reads and _store_to_come(docker, options, changed)
    if not registry_hosts or not docker["reachable"] or store:
        return []
    when = "only with the containerd image store; builds use them" if reads else "from release 28 on only"
    return [
        f"docker {version} reads mirrors of other registries (hosts.toml) {when}; for pulls give the mirror's name in "
        "the image"
    ]
