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
      C(other)."
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
disk_free_bytes:
  description:
    - Free bytes where the engine keeps its images, or would keep them once installed; null when that place is not on
      this host.
  returned: success
  type: int
"""

import os
import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.engine_info import (
    CLIENT_DIRS,
    DAEMON_DIRS,
    DEFAULT_ROOT,
    Client,
    Engine,
    choose_cli,
    client_version,
    read_client,
    summarise,
)
from ansible.module_utils.llmfleet.timed_run import TimedRunner, timed_run

ARGUMENT_SPEC: dict[str, t.Any] = {"timeout": {"type": "int", "default": 20}}
SYSTEMD_MARK = "/run/systemd/system"


def find_clients() -> list[str]:
    """Return the docker clients of this host, in the order of the PATH, each once."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), *CLIENT_DIRS]
    found: dict[str, str] = {}
    for place in filter(os.path.isabs, places):
        path = os.path.join(place, "docker")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def ask(paths: list[str], seconds: int, run: TimedRunner = timed_run) -> tuple[list[Client], str]:
    """Return (the clients with what they say, the engine's API version), with as few processes as can be."""
    clients: list[Client] = []
    for path in paths:
        answer = run([path, "info", "--format", "{{json .}}"], seconds)
        client = read_client(path, answer.rc, answer.out, answer.err)
        if not client.buildx and not client.version:
            said = run([path, "--version"], seconds)
            client = Client(path, client.reachable, client.info, client.error, client_version(said.out))
        clients.append(client)
        if answer.timed_out or (client.reachable and client.buildx):
            break
    cli = choose_cli(clients)
    if cli is None or not cli.reachable:
        return clients, ""
    return clients, run([cli.path, "version", "--format", "{{.Server.APIVersion}}"], seconds).out.strip()


def free_bytes(engine: Engine) -> int | None:
    """Return the bytes free where ``engine`` keeps its images, or where one yet to come will keep them."""
    path = engine.root_dir
    if not engine.reachable:
        path = DEFAULT_ROOT
        while not os.path.exists(path):
            path = os.path.dirname(path)
    elif engine.name != os.uname().nodename:
        return None  # DOCKER_HOST, a context or a virtual machine: its disk is not ours
    try:
        stat = os.statvfs(path)
    except OSError:
        return None
    return stat.f_bavail * stat.f_frsize


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    clients, api_version = ask(find_clients(), module.params["timeout"])
    places = os.pathsep.join([os.environ.get("PATH", ""), *DAEMON_DIRS])
    engine = summarise(clients, shutil.which("dockerd", path=places) or "", api_version)
    module.exit_json(
        changed=False,
        init="systemd" if os.path.isdir(SYSTEMD_MARK) else "other",
        disk_free_bytes=free_bytes(engine),
        **engine.as_result(),
    )


if __name__ == "__main__":
    main()
