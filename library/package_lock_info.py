#!/usr/bin/python
"""Tell whether the package manager of a host is busy, and with what."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_lock_info
short_description: Tell who holds the lock of a host's package manager
description:
  - Looks whether apt, dpkg, dnf or rpm is locked and by which process, such as C(unattended-upgrade) on a host that
    has just started. It never takes the lock itself.
  - Needs root to be sure, since only root may see the files that others have open.
options:
  root:
    description: The tree whose lock files are looked at.
    type: path
    default: /
attributes:
  check_mode: {support: full, description: Changes nothing.}
  diff_mode: {support: none, description: Changes nothing.}
author: [llmfleet contributors (@llmfleet)]
"""

EXAMPLES = r"""
- name: Wait until the package manager is free
  package_lock_info:
  become: true
  register: __lock
  until: not __lock['held']
  retries: 60
  delay: 10
"""

RETURN = r"""
held: {description: Whether somebody holds the lock., returned: success, type: bool}
path: {description: 'The lock file, empty when none is held.', returned: success, type: str}
pid: {description: 'The process that holds it, else 0.', returned: success, type: int}
process:
  description: The name of that process; of the script where an interpreter runs one.
  returned: success
  type: str
  sample: unattended-upgrade
running_s: {description: Seconds since that process started., returned: success, type: int}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import package_lock

ARGUMENT_SPEC: dict[str, t.Any] = {"root": {"type": "path", "default": "/"}}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(changed=False, **package_lock.look(module.params["root"]))


if __name__ == "__main__":
    main()
