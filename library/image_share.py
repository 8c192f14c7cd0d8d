#!/usr/bin/python
"""Let other hosts fetch the chunks of an archive of images from this one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_share
short_description: Let other hosts fetch an archive of images from this host
description:
  - Starts a small server in the background that gives the chunks of one archive, and nothing else, to hosts that know a
    random token. It ends by itself when nobody has asked for I(idle_timeout) seconds.
  - The host that wrote the archive shares the file (I(path)). A host that receives it shares what has arrived
    (I(archive)), while it is arriving, so that not all hosts ask the first one.
  - A server that is running for the same archive is kept, with its token.
  - What is sent is not encrypted; every chunk is checked by the receiver against what came with the archive's digest by
    way of Ansible. Where others must not see an image, pass it on by a registry with TLS or by way of the controller.
  - Needs nothing but Python on the host. Run as root; the folder of chunks is root's only.
options:
  state:
    description:
      - C(stopped) ends the server, and removes the chunks of an image that has been loaded. With neither I(path) nor
        I(archive) it does that for every archive in I(directory).
    type: str
    choices: [started, stopped]
    default: started
  path:
    description: The archive to share, which M(image_archive) wrote on this host.
    type: path
    default: ''
  archive:
    description: What M(image_archive) returned on the host that wrote the archive, to share what M(image_receive) gets.
    type: dict
    default: {}
  directory:
    description: Where chunks are kept; the same as that of M(image_receive).
    type: path
    default: /var/lib/llmfleet/transfers
  bind:
    description: Address to listen on. Empty is every address.
    type: str
    default: ''
  port:
    description: Port to listen on. 0 takes a free one; choose one where a firewall lets only that pass.
    type: int
    default: 0
  addresses:
    description: Addresses of this host that others should try first, such as the one Ansible reaches it at.
    type: list
    elements: str
    default: []
  idle_timeout:
    description: Seconds without a request after which the server ends.
    type: int
    default: 600
attributes:
  check_mode:
    support: full
    description: Starts and ends nothing; then there are no port and no urls.
  diff_mode:
    support: full
    description: Shows whether a server runs before and after.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Write the archive
  image_archive:
    path: /var/lib/llmfleet/archives/llama.tar.gz
    images: [llmfleet/llama.cpp:cpu-0123456789ab]
  register: __archive

- name: Share it
  image_share:
    path: "{{ __archive.path }}"
  register: __share

- name: Share on a receiving host what arrives there
  image_share:
    archive: "{{ hostvars['builder'].__archive }}"

- name: Stop all sharing of received chunks
  image_share:
    state: stopped
"""

RETURN = r"""
urls:
  description: What other hosts fetch chunks from, one for each address; they hold the token.
  returned: state is started
  type: list
  elements: str
  sample: [http://192.0.2.7:40123/Zm9vYmFyYmF6cXV4]
addresses:
  description: Addresses that other hosts may reach this one at.
  returned: state is started
  type: list
  elements: str
port:
  description: Port of the server, 0 in check mode while none runs.
  returned: state is started
  type: int
token:
  description: The secret part of the urls.
  returned: state is started
  type: str
pid:
  description: Process of the server, 0 in check mode while none runs.
  returned: state is started
  type: int
stopped:
  description: What was shared until now.
  returned: state is stopped
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import image_chunks, image_share
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.image_share import Share

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "path": {"type": "path", "default": ""},
    "archive": {"type": "dict", "default": {}},
    "directory": {"type": "path", "default": "/var/lib/llmfleet/transfers"},
    "bind": {"type": "str", "default": ""},
    "port": {"type": "int", "default": 0},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "idle_timeout": {"type": "int", "default": 600},
}


def shares(params: t.Mapping[str, t.Any], make: bool) -> list[Share]:
    """Return what the arguments mean; ``make`` the folder for chunks where there is none."""
    if params["path"] and params["archive"]:
        raise BadInput("give `path` on the host that wrote the archive, `archive` on one that receives it, not both")
    if params["path"]:
        return [Share.of_file(params["path"])]
    if params["archive"]:
        archive = image_chunks.from_data(params["archive"])
        place = image_share.prepare_folder if make else image_share.folder_of
        return [Share.of_folder(place(params["directory"], archive))]
    if params["state"] == "started":
        raise BadInput("nothing to share: give `path` or `archive`")
    return [Share.of_folder(folder) for folder in image_share.folders(params["directory"])]


def check(params: t.Mapping[str, t.Any]) -> None:
    """Raise BadInput for values that mean nothing."""
    for name in ("path", "directory"):
        if params[name] and not os.path.isabs(params[name]):
            raise BadInput(f"`{name}` must be an absolute path, not {params[name]!r}")
    image_share.check_listening(params["bind"], params["port"], params["addresses"], params["idle_timeout"])


def start(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Make sure that a server runs."""
    share = shares(params, make=not check_mode)[0]
    noted = share.running()
    before = "shared" if noted else "not shared"
    if not noted and not check_mode:
        noted = share.start(params["bind"], params["port"], params["idle_timeout"])
    said = noted or {"port": 0, "token": "", "pid": 0, "bind": params["bind"]}
    addresses = image_share.reachable_at(said["bind"], params["addresses"])
    return {
        "changed": before != "shared",
        **{key: said[key] for key in ("port", "token", "pid")},
        "addresses": addresses,
        "urls": image_share.urls(said, addresses) if noted else [],
        "diff": {"before": before, "after": "shared"},
    }


def stop(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Make sure that no server runs."""
    stopped = []
    for share in shares(params, make=False):
        if share.running():
            stopped.append(share.file or share.folder)
        if not check_mode:
            share.stop()
            if share.folder:
                image_share.tidy(share.folder)
    state = {"before": "shared" if stopped else "not shared", "after": "not shared"}
    return {"changed": bool(stopped), "stopped": stopped, "diff": state}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    what = params["path"] or params["directory"]
    try:
        check(params)
        result = (start if params["state"] == "started" else stop)(params, module.check_mode)
    except LlmfleetError as problem:
        module.fail_json(msg=f"sharing {what}: {problem}")
    except OSError as error:
        module.fail_json(msg=f"sharing {error.filename or what}: {error.strerror or error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
