#!/usr/bin/python
"""Bring a model's file to a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_fetch
short_description: Bring a model's GGUF file to a host and check it
description:
  - Uses a file that is on the host already, downloads one, or generates the tiny model, which always answers
    with the same sentence.
  - A download continues where an interrupted one stopped, and is used only when its sha256 is the expected one.
  - What is there and was verified before is not read again.
  - Proxies and certificates are taken from the environment (C(https_proxy), C(no_proxy), C(SSL_CERT_FILE)).
options:
  model:
    description:
      - C(tiny), the absolute path of a GGUF file on the host, or an http or https URL of one.
      - A file given by its path is checked, and never changed, copied or removed.
    type: str
    required: true
  sha256:
    description:
      - Expected sha256 of the file. A URL needs one.
    type: str
    default: ""
  dest:
    description:
      - Directory that downloaded and generated files are kept in.
    type: path
    default: /var/lib/llmfleet/models
  name:
    description:
      - Name of the file in O(dest). Empty means one made of the URL and its digest.
    type: str
    default: ""
  timeout:
    description:
      - Seconds without a byte after which a download counts as broken.
    type: int
    default: 30
  state:
    description:
      - C(absent) removes what C(present) put into O(dest).
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Says what it would do. Nothing is downloaded, so a URL that does not answer is not noticed.
  diff_mode:
    support: full
    description: Shows the file before and after.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Generate the tiny model
  model_fetch:
    model: tiny
  become: true

- name: Download a model
  model_fetch:
    model: https://models.example.org/small-q4_k_m.gguf
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  become: true
  register: __model

- name: Check a file that is there already
  model_fetch:
    model: /srv/models/small-q4_k_m.gguf
"""

RETURN = r"""
path:
  description: The model's file on the host.
  returned: success
  type: str
  sample: /var/lib/llmfleet/models/tiny.gguf
files:
  description: All files of the model, more than one when it is split; empty when it is not there.
  returned: success
  type: list
  elements: str
action:
  description:
    - What was done, or would be done in check mode, one of C(keep), C(generate), C(download), C(verify) (the
      file's sha256 was found right and noted), C(repair) (its mode was set right) and C(remove).
  returned: success
  type: str
  sample: keep
why:
  description: The reason of RV(action).
  returned: success
  type: str
  sample: it was verified before
fingerprint:
  description: Identity of the content, read from size, beginning and end; empty when the model is not there.
  returned: success
  type: str
size:
  description: Size of the file RV(path) in bytes; 0 when the model is not there.
  returned: success
  type: int
total_size:
  description: Size of all files of the model in bytes; 0 when it is not there.
  returned: success
  type: int
gguf:
  description: What the file's header says; empty when the model is not there.
  returned: success
  type: dict
  sample: {architecture: llama, name: llmfleet tiny, context_length: 4096, block_count: 2}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.model_ref import parse
from ansible.module_utils.llmfleet.model_store import Store

ARGUMENT_SPEC = {
    "model": {"type": "str", "required": True},
    "sha256": {"type": "str", "default": ""},
    "dest": {"type": "path", "default": "/var/lib/llmfleet/models"},
    "name": {"type": "str", "default": ""},
    "timeout": {"type": "int", "default": 30},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    try:
        ref = parse(params["model"], params["sha256"], params["name"])
        if not os.path.isabs(params["dest"]):
            raise BadInput(f"`dest` must be an absolute path, not {params['dest']!r}")
        if params["timeout"] <= 0:
            raise BadInput(f"`timeout` must be at least 1 second, not {params['timeout']}")
    except BadInput as error:
        module.fail_json(msg=str(error))
    store = Store(ref, params["dest"], params["timeout"], dry_run=module.check_mode)
    try:
        outcome = store.present() if params["state"] == "present" else store.absent()
    except LlmfleetError as error:
        module.fail_json(msg=f"model {ref.shown}: {error}")
    except OSError as error:
        module.fail_json(msg=f"model {ref.shown}: {error.filename or params['dest']}: {error.strerror or error}")
    found = outcome.found
    module.exit_json(
        changed=outcome.changed,
        path=store.path,
        files=list(found.files) if found else [],
        action=outcome.action,
        why=outcome.why,
        fingerprint=found.fingerprint if found else "",
        # where `path` exists exit_json measures it itself and calls that `size`
        size=found.size if found else 0,
        total_size=found.size if found else 0,
        gguf=found.header.facts() if found else {},
        diff={"before": outcome.before, "after": outcome.after},
    )


if __name__ == "__main__":
    main()
