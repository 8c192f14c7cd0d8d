#!/usr/bin/python
"""Let other hosts fetch a model from this one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_share
short_description: Let other hosts fetch a model from this host
description:
  - Starts a small server in the background that gives the chunks of one model, and nothing else, to hosts that know a
    random token. It ends by itself when nobody has asked for I(idle_timeout) seconds.
  - The host that has the model makes the record of its chunks once (I(archive) in the result), which reads the model
    and checks it on the way. A host that receives the model is given that record (I(archive)) and passes on what has
    arrived, while it is arriving, so that not all hosts ask the first one. Start its share before M(model_fetch).
  - A server that is running for the same model is kept, with its token.
  - What is sent is not encrypted; every chunk is checked by the receiver against the record, which comes by way of
    Ansible, and every file against the digest that the hub told.
  - Needs nothing but Python on the host.
options:
  state:
    description:
      - C(stopped) ends the server. Without I(manifest) it does that for every model below I(dest).
    type: str
    choices: [started, stopped]
    default: started
  manifest:
    description: The files of the model, as M(model_fetch) returned them or the plan made them.
    type: dict
    default: {}
  archive:
    description: What this module returned as C(archive) on the host that has the model, to share what arrives here.
    type: dict
    default: {}
  dest:
    description: Where models are kept; the same as that of M(model_fetch).
    type: path
    default: /var/lib/llmfleet/models
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
    description: Starts and ends nothing and reads no model; then there are no port and no urls.
  diff_mode:
    support: full
    description: Shows whether a server runs before and after.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Share the model on the host that has it
  model_share:
    manifest: "{{ __fetched.manifest }}"
  register: __share

- name: Share on a receiving host what arrives there
  model_share:
    manifest: "{{ hostvars['first'].__fetched.manifest }}"
    archive: "{{ hostvars['first'].__share.archive }}"
  register: __share

- name: Stop all sharing of models
  model_share:
    state: stopped
"""

RETURN = r"""
archive:
  description: The chunks of the model, for receiving hosts; empty in check mode while there is no record of them.
  returned: state is started
  type: dict
  contains:
    key:
      description: What identifies the content of the model.
      type: str
    chunk_bytes:
      description: Size of the chunks; the last one of a file may be smaller.
      type: int
    files:
      description: Path, size and the sha256 of each chunk of every file.
      type: list
      elements: dict
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
  description: The repositories whose models were shared until now.
  returned: state is stopped
  type: list
  elements: str
"""

import glob
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import image_share
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import model_chunks
from ansible.module_utils.llmfleet.hub.manifest import Manifest, manifest_from
from ansible.module_utils.llmfleet.hub.model_chunks import Record
from ansible.module_utils.llmfleet.hub.place import Place
from ansible.module_utils.llmfleet.image_share import Share

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "manifest": {"type": "dict", "default": {}},
    "archive": {"type": "dict", "default": {}},
    "dest": {"type": "path", "default": "/var/lib/llmfleet/models"},
    "bind": {"type": "str", "default": ""},
    "port": {"type": "int", "default": 0},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "idle_timeout": {"type": "int", "default": 600},
}


def check(params: t.Mapping[str, t.Any]) -> None:
    """Raise BadInput for values that mean nothing."""
    if not os.path.isabs(params["dest"]):
        raise BadInput(f"`dest` must be an absolute path, not {params['dest']!r}")
    if params["state"] == "started" and not params["manifest"]:
        raise BadInput("nothing to share: give the `manifest` that model_fetch returned")
    image_share.check_listening(params["bind"], params["port"], params["addresses"], params["idle_timeout"])


def share_of(place: Place, manifest: Manifest) -> Share:
    """Return the share of a model."""
    return Share(
        state=model_chunks.state_path(place, manifest.key),
        record=model_chunks.record_path(place, manifest.key),
        incoming=place.incoming(manifest.key),
        snapshot=place.snapshot(manifest.commit),
    )


def record_of(
    params: t.Mapping[str, t.Any], place: Place, manifest: Manifest, kept: Record | None, make: bool
) -> Record | None:
    """Return the record of the model's chunks, made where it has to be; None where it may not be made."""
    if params["archive"]:
        return model_chunks.record_from(params["archive"], manifest)
    folder = place.snapshot(manifest.commit)
    model_chunks.check_sizes(manifest, folder)
    return kept or (model_chunks.make(manifest, folder) if make else None)


def start(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Make sure that a server runs, and that it knows the chunks by the same numbers as those who will ask it."""
    manifest = manifest_from(params["manifest"])
    place = Place(params["dest"], manifest.repo)
    share = share_of(place, manifest)
    kept = model_chunks.load(place, manifest)
    record = record_of(params, place, manifest, kept, make=not check_mode)
    noted = share.running() if record == kept else None
    before = "shared" if noted else "not shared"
    if not noted and not check_mode and record:
        share.stop()
        model_chunks.save(place, record)
        noted = share.start(params["bind"], params["port"], params["idle_timeout"])
    said = noted or {"port": 0, "token": "", "pid": 0, "bind": params["bind"]}
    addresses = image_share.reachable_at(said["bind"], params["addresses"])
    return {
        "changed": before != "shared",
        "archive": record.as_data() if record else {},
        **{key: said[key] for key in ("port", "token", "pid")},
        "addresses": addresses,
        "urls": image_share.urls(said, addresses) if noted else [],
        "diff": {"before": before, "after": "shared"},
    }


def stop(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Make sure that no server runs."""
    if params["manifest"]:
        manifest = manifest_from(params["manifest"])
        shares = [share_of(Place(params["dest"], manifest.repo), manifest)]
    else:
        pattern = os.path.join(
            glob.escape(params["dest"]), "hub", "models--*", ".llmfleet", "share", "*" + model_chunks.STATE
        )
        shares = [Share(state=path, record="") for path in sorted(glob.glob(pattern))]
    stopped = []
    for share in shares:
        if share.running():
            folder = os.path.dirname(os.path.dirname(os.path.dirname(share.state)))
            stopped.append(os.path.basename(folder)[len("models--") :].replace("--", "/"))
        if not check_mode:
            share.stop()
    state = {"before": "shared" if stopped else "not shared", "after": "not shared"}
    return {"changed": bool(stopped), "stopped": stopped, "diff": state}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    what = params["manifest"].get("repo") or params["dest"]
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
