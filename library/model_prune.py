#!/usr/bin/python
"""Remove models that no service of a host uses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_prune
short_description: Remove models that no service of a host uses
description:
  - Removes from a store what M(model_fetch) brought there and nobody names any more, such as models of hubs, older
    commits of them, downloaded and generated files, and what has arrived of a model that nobody wants now.
  - Files that somebody else put there stay, and so do those that were given to services by their path.
  - Waits a minute for a M(model_fetch) that is bringing files of the same repository, and fails when it goes on.
options:
  dest:
    description: Directory that models are kept in; the same as that of M(model_fetch).
    type: path
    default: /var/lib/llmfleet/models
  keep:
    description:
      - Paths that engines are given (C(path) of M(model_fetch)). What is needed for them stays, of a folder all of it.
    type: list
    elements: path
    required: true
attributes:
  check_mode:
    support: full
    description: Lists what would go.
  diff_mode:
    support: full
    description: Shows the paths that go.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Remove the models that nobody uses
  model_prune:
    keep:
      - /var/lib/llmfleet/models/tiny.gguf
  become: true
"""

RETURN = r"""
removed:
  description: What was removed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The model's file or folder, or the folder of one that never arrived whole.
      type: str
    size:
      description: Bytes that this makes free.
      type: int
freed:
  description: Bytes that are free now, or would be.
  returned: success
  type: int
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub import removal

ARGUMENT_SPEC: dict[str, t.Any] = {
    "dest": {"type": "path", "default": "/var/lib/llmfleet/models"},
    "keep": {"type": "list", "elements": "path", "required": True},
}


def with_content(paths: t.Iterable[str], dest: str) -> list[str]:
    """Return ``paths`` and the files in those that are folders of the store."""
    found = []
    for path in paths:
        found.append(path)
        if path.startswith(dest.rstrip("/") + "/"):
            found += [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    return found


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    dest = module.params["dest"]
    try:
        if not os.path.isabs(dest):
            raise BadInput(f"`dest` must be an absolute path, not {dest!r}")
        rows = removal.unused(dest, with_content(module.params["keep"], dest))
        if rows and not module.check_mode:
            removal.remove(dest, rows)
    except LlmfleetError as problem:
        module.fail_json(msg=f"removing models from {dest}: {problem}")
    except OSError as error:
        module.fail_json(msg=f"removing models: {error.filename or dest}: {error.strerror or error}")
    module.exit_json(
        changed=bool(rows),
        removed=[{"path": row.path, "size": row.size} for row in rows],
        freed=sum(row.size for row in rows),
        diff={"before": "".join(f"{row.path}\n" for row in rows), "after": ""},
    )


if __name__ == "__main__":
    main()
