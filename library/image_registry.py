#!/usr/bin/python
"""Push an image to a registry, or pull it from there under its own name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_registry
short_description: Pass an image on by way of a registry
description:
  - Pushes an image of the host's engine to a registry, or pulls it from there, checks that it is the right one, and
    gives it the name it has on the host that pushed it.
  - Leaves no second name behind on either side.
options:
  state:
    description: Whether the registry has the image, or this host's engine.
    type: str
    choices: [pushed, pulled]
    required: true
  image:
    description: Name of the image.
    type: str
    required: true
  registry:
    description:
      - The registry, as C(HOST:PORT), or with a path below which images are kept. The name of the image follows it; a
        registry that is part of that name is left out.
    type: str
    required: true
  id:
    description:
      - Id of the image. With C(pushed) it may be empty, which means what the engine has under the name.
    type: str
    default: ''
  layers:
    description:
      - Layers (diff ids) of the image, to know it by when the engines keep images differently (classic and containerd's
        store) and so give it different ids.
    type: list
    elements: str
    default: []
  settings:
    description: What M(image_registry) returned as RV(settings) where it pushed the image, to be surer when ids differ.
    type: str
    default: ''
  docker_cli:
    description: Docker client.
    type: path
    default: docker
  timeout:
    description: Seconds that the push or the pull may take.
    type: int
    default: 3600
attributes:
  check_mode:
    support: full
    description: Says whether it would push or pull.
  diff_mode:
    support: full
    description: Shows the image in the registry, or in the engine, before and after.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Push the image
  image_registry:
    state: pushed
    image: llmfleet/llama.cpp:cpu-0123456789ab
    registry: registry.example.org:5000
  register: __pushed

- name: Pull it on another host
  image_registry:
    state: pulled
    image: llmfleet/llama.cpp:cpu-0123456789ab
    registry: registry.example.org:5000
    id: "{{ hostvars['builder'].__pushed.id }}"
    layers: "{{ hostvars['builder'].__pushed.layers }}"
    settings: "{{ hostvars['builder'].__pushed.settings }}"
"""

RETURN = r"""
image:
  description: Name of the image on the host.
  returned: success
  type: str
name:
  description: Its name in the registry.
  returned: success
  type: str
  sample: registry.example.org:5000/llmfleet/llama.cpp:cpu-0123456789ab
id:
  description: Its id in this host's engine; in check mode the one asked for, while it is not there.
  returned: success
  type: str
layers:
  description: Its layers, as diff ids.
  returned: success
  type: list
  elements: str
settings:
  description: Short digest of what a container starts with.
  returned: success
  type: str
seconds:
  description: Time the module took.
  returned: success
  type: float
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.docker_cli import Docker, DockerError
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import find_program
from ansible.module_utils.llmfleet.image_identity import DIGEST, Image
from ansible.module_utils.llmfleet.image_registry import Remote, remote_name

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["pushed", "pulled"], "required": True},
    "image": {"type": "str", "required": True},
    "registry": {"type": "str", "required": True},
    "id": {"type": "str", "default": ""},
    "layers": {"type": "list", "elements": "str", "default": []},
    "settings": {"type": "str", "default": ""},
    "docker_cli": {"type": "path", "default": "docker"},
    "timeout": {"type": "int", "default": 3600},
}


def push(remote: Remote, identity: str, check_mode: bool) -> tuple[bool, Image]:
    """Return (changed, image) of pushing it."""
    image = remote.local(remote.image)
    if image is None:
        raise BadInput("the engine has no such image; pull or build it first, or correct its name")
    if identity and image.id != identity:
        raise BadInput(f"the engine has {image.id} under this name instead of {identity}; tag the right one")
    if remote.holds(image):
        return False, image
    if not check_mode:
        remote.push()
    return True, image


def pull(remote: Remote, wanted: Image, check_mode: bool) -> tuple[bool, Image]:
    """Return (changed, image) of pulling it."""
    found = remote.local(remote.image)
    if found and found.same(wanted):
        return False, found
    return True, wanted if check_mode else remote.pull(wanted)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    started = time.monotonic()
    try:
        docker = Docker(module.run_command, find_program(params["docker_cli"]))
        if not docker.executable:
            raise DockerError("There is no docker client on this host; install docker first.")
        if params["timeout"] < 1:
            raise BadInput(f"`timeout` must be at least 1 second, not {params['timeout']}")
        for digest in (*filter(None, [params["id"]]), *params["layers"]):
            if not DIGEST.fullmatch(digest):
                raise BadInput(f"{digest!r} is no id or layer (sha256:...)")
        remote = Remote(docker, params["image"], remote_name(params["image"], params["registry"]), params["timeout"])
        if params["state"] == "pushed":
            changed, image = push(remote, params["id"], module.check_mode)
        elif params["id"]:
            wanted = Image(params["image"], params["id"], tuple(params["layers"]), params["settings"])
            changed, image = pull(remote, wanted, module.check_mode)
        else:
            raise BadInput("`id` is empty; give the id of the image on the host that pushed it")
    except LlmfleetError as problem:
        module.fail_json(msg=f"image {params['image']}: {problem}")
    there = f"{remote.name} {image.id}"
    module.exit_json(
        changed=changed,
        image=params["image"],
        name=remote.name,
        id=image.id,
        layers=list(image.layers),
        settings=image.settings,
        seconds=round(time.monotonic() - started, 2),
        diff={"before": "" if changed else there, "after": there},
    )


if __name__ == "__main__":
    main()
