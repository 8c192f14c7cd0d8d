#!/usr/bin/python
"""Tell what docker engine a host has and whether it answers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine_info
short_description: Tell what docker engine a host has and whether it answers
description:
  - Asks every C(docker) client on the PATH, in C(/usr/bin) and in C(/usr/local/bin) for the engine it is set up for
    (C(DOCKER_HOST) and contexts count), and finds the client that can build with BuildKit.
  - An engine that does not answer is a result, not a failure of this module.
options:
  timeout:
    description:
      - Seconds to wait for an answer of the engine.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Look at the docker engine
  docker_engine_info:
  become: true
  register: __engine

- name: Stop when it does not answer
  ansible.builtin.fail:
    msg: "{{ __engine['error'] }}"
  when: not __engine['reachable']
"""

RETURN = r"""
reachable:
  description: Whether an engine answers.
  returned: success
  type: bool
error:
  description: One sentence with cause and fix when no engine answers, else empty.
  returned: success
  type: str
  sample: the docker engine (/usr/sbin/dockerd) is installed but not running; start its service
problem:
  description:
    - "The kind of problem when no engine answers, else empty: C(nothing_there), C(no_client), C(not_running),
      C(elsewhere) (DOCKER_HOST or a context points to another engine), C(no_permission), C(no_answer), C(not_docker),
      C(desktop_off) (under WSL: Docker Desktop does not run, or does not serve this distribution), C(other)."
  returned: success
  type: str
cli:
  description: Path of the client for everyday commands, or empty.
  returned: success
  type: str
build_cli:
  description: Path of the client to build images with, or empty.
  returned: success
  type: str
buildkit:
  description:
    - "How I(build_cli) offers BuildKit: C(buildx), C(embedded) (set DOCKER_BUILDKIT=1) or C(none) (legacy builder,
      set DOCKER_BUILDKIT=0)."
  returned: success
  type: str
dockerd:
  description: Path of the daemon on this host, or empty.
  returned: success
  type: str
init:
  description: C(systemd) when that is what runs this host, else C(other).
  returned: success
  type: str
name:
  description: Name of the machine the engine runs on, or empty.
  returned: success
  type: str
server_version:
  description: Version of the engine, or empty.
  returned: success
  type: str
api_version:
  description: Newest API version of the engine, or empty.
  returned: success
  type: str
root_dir:
  description: Where the engine keeps images and containers, or empty.
  returned: success
  type: str
storage_driver:
  description: Storage driver, or empty.
  returned: success
  type: str
architecture:
  description: Machine architecture of the engine, or empty.
  returned: success
  type: str
  sample: x86_64
memory_limit:
  description: Whether the engine can limit a container's memory; null when unknown.
  returned: success
  type: bool
cgroup_version:
  description: C(1), C(2) or empty.
  returned: success
  type: str
containers_running:
  description: How many containers run; null when unknown.
  returned: success
  type: int
registry_mirrors:
  description: The mirrors the engine is configured with.
  returned: success
  type: list
  elements: str
desktop:
  description: Whether the engine is Docker Desktop's.
  returned: success
  type: bool
containerd_store:
  description: Whether the engine keeps images in containerd's store.
  returned: success
  type: bool
live_restore:
  description: Whether containers outlive a restart of the engine as it runs now.
  returned: success
  type: bool
runtimes:
  description: Names of the container runtimes the engine knows.
  returned: success
  type: list
  elements: str
default_runtime:
  description: The one that containers get without asking, or empty.
  returned: success
  type: str
cdi_devices:
  description: The CDI devices the engine has found; older engines do not tell.
  returned: success
  type: list
  elements: str
started_at:
  description: When the engine's process began, in seconds since the epoch; null when it does not run on this host.
  returned: success
  type: float
disk_free_bytes:
  description:
    - Free bytes where the engine keeps its images, or would keep them once installed; null when that place is not on
      this host.
  returned: success
  type: int
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import engine_look

ARGUMENT_SPEC: dict[str, t.Any] = {"timeout": {"type": "int", "default": 20}}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(changed=False, **engine_look.look(module.params["timeout"]))


if __name__ == "__main__":
    main()
