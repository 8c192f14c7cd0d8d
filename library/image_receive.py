#!/usr/bin/python
"""Get images from other hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_receive
short_description: Get images from other hosts
description:
  - Fetches the chunks of an archive from hosts that share it (M(image_share)), checks each by its sha256, loads the
    archive and checks that the engine has the images then.
  - Does nothing when the engine has the images. Layers that it has already are not fetched. An engine with containerd's
    image store, which takes whole archives only, is given them from its own images.
  - What has arrived is kept when the transfer breaks or the module is killed, and the next run goes on from there.
  - When a host that is asked fails, stalls or gives wrong data, the next one in I(peers) is asked.
options:
  archive:
    description: What M(image_archive) returned on the host that wrote the archive.
    type: dict
    required: true
  peers:
    description:
      - Hosts to fetch from, in the order in which they are asked. Each is a list of the urls that M(image_share)
        returned there.
    type: list
    elements: list
    required: true
  directory:
    description: Where chunks are kept until they are loaded.
    type: path
    default: /var/lib/llmfleet/transfers
  connections:
    description: How many chunks are fetched at a time.
    type: int
    default: 2
  timeout:
    description: Seconds without progress after which a host counts as stalled and the next one is asked.
    type: int
    default: 15
  load_timeout:
    description: Seconds that loading may take.
    type: int
    default: 3600
  docker_cli:
    description: Docker client.
    type: path
    default: docker
attributes:
  check_mode:
    support: full
    description: Says how much would be fetched. No other host is asked.
  diff_mode:
    support: full
    description: Shows the images before and after.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Get the image, from a neighbour or from the host that built it
  image_receive:
    archive: "{{ hostvars['builder'].__archive }}"
    peers:
      - "{{ hostvars['neighbour'].__share.urls }}"
      - "{{ hostvars['builder'].__share.urls }}"
"""

RETURN = r"""
bytes:
  description: Bytes fetched; in check mode bytes to fetch.
  returned: success
  type: int
kept:
  description: Bytes that an interrupted run had fetched before.
  returned: success
  type: int
spared:
  description: Bytes that were not fetched, as their layers are there.
  returned: success
  type: int
from:
  description: Bytes by the host (address and port) that gave them.
  returned: success
  type: dict
  sample: {192.0.2.7:40123: 123456789}
images:
  description: The images of the archive.
  returned: success
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
from ansible.module_utils.llmfleet import image_chunks
from ansible.module_utils.llmfleet.chunk_fetch import Fetcher
from ansible.module_utils.llmfleet.chunk_peer import parse_peers
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import find_program
from ansible.module_utils.llmfleet.image_engine import ImageEngine
from ansible.module_utils.llmfleet.image_receive import Outcome, Reception

ARGUMENT_SPEC: dict[str, t.Any] = {
    "archive": {"type": "dict", "required": True},
    "peers": {"type": "list", "elements": "list", "required": True},
    "directory": {"type": "path", "default": "/var/lib/llmfleet/transfers"},
    "connections": {"type": "int", "default": 2},
    "timeout": {"type": "int", "default": 15},
    "load_timeout": {"type": "int", "default": 3600},
    "docker_cli": {"type": "path", "default": "docker"},
}


def check(params: t.Mapping[str, t.Any]) -> None:
    """Raise BadInput for values that mean nothing."""
    if not os.path.isabs(params["directory"]):
        raise BadInput(f"`directory` must be an absolute path, not {params['directory']!r}")
    for name, most in (("connections", 16), ("timeout", 3600), ("load_timeout", 86400)):
        if not 1 <= params[name] <= most:
            raise BadInput(f"`{name}` must be from 1 to {most}, not {params[name]}")


def run(params: t.Mapping[str, t.Any], reception: Reception, check_mode: bool) -> Outcome:
    """Make sure that the engine has the images."""
    peers = parse_peers(params["peers"])
    if not reception.needed():
        if not check_mode:
            reception.refuse()
        return Outcome(changed=False)
    if check_mode:
        return reception.plan()
    if reception.named():
        reception.refuse()
        return Outcome(changed=True)
    return reception.receive(Fetcher(peers, reception.prepare(), params["timeout"], params["connections"]))


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    started = time.monotonic()
    engine = ImageEngine(Docker(module.run_command, find_program(params["docker_cli"])), params["load_timeout"])
    names: list[str] = []
    try:
        check(params)
        archive = image_chunks.from_data(params["archive"])
        names = [image.reference for image in archive.images]
        outcome = run(params, Reception(archive, params["directory"], engine), module.check_mode)
    except LlmfleetError as problem:
        module.fail_json(msg=f"receiving {', '.join(names) or 'an archive'}: {problem}")
    except OSError as error:
        module.fail_json(msg=f"receiving: {error.filename or params['directory']}: {error.strerror or error}")
    result = {
        "bytes": outcome.fetched,
        "kept": outcome.kept,
        "spared": outcome.spared,
        "from": outcome.peers,
        "images": names,
        "seconds": round(time.monotonic() - started, 2),
        "diff": {"before": [] if outcome.changed else names, "after": names},
    }
    module.exit_json(changed=outcome.changed, **result)


if __name__ == "__main__":
    main()
