#!/usr/bin/python
"""Write images of an engine to an archive, or load one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_archive
short_description: Write images to an archive, or load an archive
description:
  - Writes images of the host's docker engine to one compressed file, the way C(docker save) does, or loads such a file
    after having checked it. The engines of both sides may be of different releases.
  - The file is a plain C(.tar.gz) that C(docker load) reads. It consists of chunks that are compressed one by one, so
    that other hosts can fetch it in parts (see M(image_share) and M(image_receive)).
  - An archive that is there and holds these images is not written again, one whose images the engine has is not loaded
    again.
options:
  state:
    description:
      - C(written) makes sure that the archive is there, C(loaded) that the engine has what is in it, C(absent) that the
        archive and the files next to it are gone.
    type: str
    choices: [written, loaded, absent]
    default: written
  path:
    description:
      - The archive on the host. Notes about it are kept next to it (C(.json)). A file that was not written by this
        module is never replaced or removed.
    type: path
    required: true
  images:
    description:
      - Names of the images to write. A name without a tag means C(latest); one with a digest cannot be kept by an
        archive and is refused.
      - With C(loaded) the names that the archive must hold; it may hold others as well, and all are loaded.
    type: list
    elements: str
    default: []
  without_layers:
    description:
      - Layers (diff ids) to leave out, as every host that gets the archive has them. Only those are left out that have
        none but such layers below them, and only where the engine's image store is the classic one.
    type: list
    elements: str
    default: []
  level:
    description: Level of compression, from 1 (quick) to 9 (small).
    type: int
    default: 3
  chunk_mib:
    description: Size of a chunk before compression, in MiB.
    type: int
    default: 16
  checksum:
    description: Whether to write a file C(.sha256) next to the archive, in the format of sha256sum.
    type: bool
    default: false
  sha256:
    description:
      - With C(loaded), the sha256 of the archive. Empty takes the one in the file C(.sha256) next to it; without either
        nothing is loaded.
    type: str
    default: ''
  docker_cli:
    description: Docker client.
    type: path
    default: docker
  timeout:
    description: Seconds that writing or loading may take.
    type: int
    default: 3600
attributes:
  check_mode:
    support: full
    description: Says what it would do. An archive to load is read and checked.
  diff_mode:
    support: full
    description: Shows the images in the archive, or in the engine, before and after.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Write an image to an archive with a checksum
  image_archive:
    path: /srv/bundles/llama.tar.gz
    images: [llmfleet/llama.cpp:cpu-0123456789ab]
    checksum: true

- name: Load it on a host without a network
  image_archive:
    state: loaded
    path: /srv/bundles/llama.tar.gz
"""

RETURN = r"""
path:
  description: The archive.
  returned: success
  type: str
bytes:
  description: Its size; in check mode 0 while it is not there.
  returned: state is written or loaded
  type: int
sha256:
  description: Its digest; in check mode empty while it is not there.
  returned: state is written or loaded
  type: str
chunks:
  description: Its parts, in order; in check mode empty while it is not there.
  returned: state is written
  type: list
  elements: dict
  contains:
    bytes:
      description: Size.
      type: int
    sha256:
      description: Digest.
      type: str
    unpacked:
      description: Size without compression.
      type: int
    layer:
      description: The layer (diff id) that it is part of, empty when it holds something else.
      type: str
images:
  description: Its images.
  returned: state is written or loaded
  type: list
  elements: dict
  contains:
    reference:
      description: Name.
      type: str
    id:
      description: Id, as the engine that wrote it says it.
      type: str
    layers:
      description: Layers as diff ids, the lowest first.
      type: list
    settings:
      description: Short digest of what a container starts with.
      type: str
without_layers:
  description: Layers that the archive lacks.
  returned: state is written or loaded
  type: list
  elements: str
entries:
  description: Layers that have chunks of their own, and their names in the archive.
  returned: state is written
  type: dict
removed:
  description: Files removed.
  returned: state is absent
  type: list
  elements: str
seconds:
  description: Time the module took.
  returned: success
  type: float
"""

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import image_archive
from ansible.module_utils.llmfleet.archive_look import load, wanted_digest
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import find_program
from ansible.module_utils.llmfleet.image_engine import ImageEngine

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["written", "loaded", "absent"], "default": "written"},
    "path": {"type": "path", "required": True},
    "images": {"type": "list", "elements": "str", "default": []},
    "without_layers": {"type": "list", "elements": "str", "default": []},
    "level": {"type": "int", "default": 3},
    "chunk_mib": {"type": "int", "default": 16},
    "checksum": {"type": "bool", "default": False},
    "sha256": {"type": "str", "default": ""},
    "docker_cli": {"type": "path", "default": "docker"},
    "timeout": {"type": "int", "default": 3600},
}


def check(params: t.Mapping[str, t.Any]) -> None:
    """Raise BadInput for values that mean nothing."""
    if not os.path.isabs(params["path"]):
        raise BadInput(f"`path` must be an absolute path, not {params['path']!r}")
    if params["state"] == "written" and not params["images"]:
        raise BadInput("`images` names no image to write; give at least one")
    for name, least, most in (("level", 1, 9), ("chunk_mib", 1, 256), ("timeout", 1, 86400)):
        if not least <= params[name] <= most:
            raise BadInput(f"`{name}` must be from {least} to {most}, not {params[name]}")


def written(params: t.Mapping[str, t.Any], engine: ImageEngine, check_mode: bool) -> dict[str, t.Any]:
    """Make sure that the archive is there."""
    writer = image_archive.Writer(engine, params["path"], image_archive.wish(engine, params), params["checksum"])
    names = [image.reference for image in writer.wish.images]
    archive = writer.present()
    if archive:
        return {"changed": False, **archive.as_data(), "diff": {"before": names, "after": names}}
    before = image_archive.noted_names(params["path"])
    result = writer.planned() if check_mode else writer.write().as_data()
    return {"changed": True, **result, "diff": {"before": before, "after": names}}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    started = time.monotonic()
    engine = ImageEngine(Docker(module.run_command, find_program(params["docker_cli"])), params["timeout"])
    try:
        check(params)
        if params["state"] == "absent":
            removed = image_archive.remove(params["path"], module.check_mode)
            result = {"changed": bool(removed), "path": params["path"], "removed": removed}
            result["diff"] = {"before": removed, "after": []}
        elif params["state"] == "written":
            result = written(params, engine, module.check_mode)
        else:
            digest = wanted_digest(params["path"], params["sha256"])
            result = load(engine, params["path"], digest, params["images"], module.check_mode)
    except LlmfleetError as problem:
        module.fail_json(msg=f"archive {params['path']}: {problem}")
    except OSError as error:
        module.fail_json(msg=f"archive {error.filename or params['path']}: {error.strerror or error}")
    module.exit_json(**result, seconds=round(time.monotonic() - started, 2))


if __name__ == "__main__":
    main()
