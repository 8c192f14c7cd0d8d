#!/usr/bin/python
"""Ansible module: the services of a host as a Compose file."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: compose_export
short_description: Write the services of a host as a Compose file
description:
  - Writes C(compose.yml) and C(.env.example) for containers of M(llm_service), so that they can be run elsewhere or
    without Ansible. The containers themselves are only looked at.
  - No secret is written. The files name those that must be made, and how.
  - A file that was changed since the last export is kept as a copy before it is replaced. C(.env) is never touched.
options:
  dest:
    description: Folder on the host to write to.
    type: path
    default: /var/lib/llmfleet/compose
  services:
    description: Names of the services to export. Empty exports all that are deployed on the host.
    type: list
    elements: str
    default: []
  docker_cli:
    description: The docker client to use.
    type: str
    default: docker
attributes:
  check_mode:
    description: Says what would be written.
    support: full
  diff_mode:
    description: Shows each file before and after.
    support: full
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Export all services of the host
  compose_export:
  become: true

- name: Export one of them
  compose_export:
    dest: /srv/compose/chat
    services: [chat]
  become: true
"""

RETURN = r"""
services:
  description: The services that were exported.
  returned: success
  type: list
  elements: str
files:
  description: Paths of the files, whether they were written now or are as they should be.
  returned: success
  type: list
  elements: str
written:
  description: Those of C(files) that were written, or would be in check mode.
  returned: success
  type: list
  elements: str
backups:
  description: Copies of files that were changed by hand and are replaced now.
  returned: success
  type: list
  elements: str
secrets:
  description: Files that must be made before the services start, as C(.env.example) says.
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: Name of the service.
      type: str
    name:
      description: Name of the secret.
      type: str
    file:
      description: Its file, below C(dest) unless C(.env) names another one.
      type: str
without_healthcheck:
  description: Services whose image holds no program that could ask whether they are ready.
  returned: success
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import compose_export, compose_health, spec
from ansible.module_utils.llmfleet.constants import LABEL_SERVICE
from ansible.module_utils.llmfleet.daemon_file import make_folder
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines.base import SECRETS_DIR
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import move_into_place
from ansible.module_utils.llmfleet.wanted import find_own

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "dest": {"type": "path", "default": "/var/lib/llmfleet/compose"},
    "services": {"type": "list", "elements": "str", "default": []},
    "docker_cli": {"type": "str", "default": "docker"},
}
MODE = 0o644


def look(docker: Docker, container: dict[str, t.Any]) -> compose_health.Deployed:
    """Return the service of ``container`` (``docker inspect`` form); raises LlmfleetError."""
    try:
        found = spec.stored(container)
    except ValueError:
        found = None
    if found is None:
        name = container["Name"].lstrip("/")
        raise LlmfleetError(f"container {name} has no readable specification; deploy the service again")
    image = docker.inspect("image", container["Image"])
    beginning = f"{SECRETS_DIR}/"
    mounts = {mount["Destination"]: mount.get("Source", "") for mount in container.get("Mounts") or ()}
    secrets = {target[len(beginning) :]: source for target, source in mounts.items() if target.startswith(beginning)}
    return compose_health.Deployed(found, (image or {}).get("Config") or {}, secrets)


def find(docker: Docker, names: t.Sequence[str]) -> list[compose_health.Deployed]:
    """Return the services of this host, those called ``names`` or all; raises LlmfleetError."""
    form = f'{{{{ .Label "{LABEL_SERVICE}" }}}}'
    listed = docker.text("ps", "--all", "--filter", f"label={LABEL_SERVICE}", "--format", form)
    # one whose roll-out was interrupted has a container of another name only
    containers = {name: find_own(docker, name) for name in sorted(set(listed.split()))}
    there = [name for name, container in containers.items() if container]
    missing = sorted(set(names) - set(there))
    if missing:
        known = f"there are {', '.join(there)}" if there else "there is none"
        raise BadInput(f"service {missing[0]} is not deployed on this host ({known}); correct `services`, or deploy it")
    return [look(docker, t.cast("dict[str, t.Any]", containers[name])) for name in there if name in (names or there)]


def read(path: str) -> tuple[str | None, bool]:
    """Return (text of a file, None when there is none; whether an export wrote all of it); raises LlmfleetError."""
    if not os.path.lexists(path):
        return None, False
    if os.path.islink(path) or not os.path.isfile(path):
        raise LlmfleetError(f"{path} is not a regular file; move it away, or give another `dest`")
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        text = file.read()
    return text, compose_export.untouched(text)


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Replace ``path`` at once."""
    temporary = os.path.join(module.tmpdir, "compose_export")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(temporary, MODE)
    # the mode of what is replaced would be kept
    if os.path.exists(path):
        os.chmod(path, MODE)
    move_into_place(module.atomic_move, temporary, path)
    os.chmod(path, MODE)


def run(module: AnsibleModule) -> dict[str, t.Any]:
    """Look, compare, write unless in check mode; return the result."""
    dest, docker = module.params["dest"], Docker(module.run_command, module.params["docker_cli"])
    if not os.path.isabs(dest):
        raise BadInput(f"`dest` must be an absolute path, not {dest!r}")
    if module.get_bin_path(docker.executable) is None:
        raise LlmfleetError(f"there is no docker client {docker.executable} on this host; deploy the services first")
    found = find(docker, module.params["services"])
    result: dict[str, t.Any] = {"changed": False, "services": [deployed.spec["name"] for deployed in found]}
    result.update(files=[], written=[], backups=[], secrets=[], without_healthcheck=[], diff=[])
    if not found:
        return result
    export = compose_export.export(found)
    result.update(secrets=export.secrets, without_healthcheck=export.unprobed)
    states = {name: read(os.path.join(dest, name)) for name in export.files}
    if not module.check_mode:
        make_folder(dest)
    for name, text in export.files.items():
        path = os.path.join(dest, name)
        before, own = states[name]
        result["files"].append(path)
        if before == text:
            continue
        result["changed"] = True
        result["written"].append(path)
        result["diff"].append({"before_header": path, "after_header": path, "before": before or "", "after": text})
        if module.check_mode:
            continue
        if before is not None and not own:
            result["backups"].append(module.backup_local(path))
        write(module, path, text)
    return result


def main() -> None:
    """Export, or say why not."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = run(module)
    except LlmfleetError as error:
        module.fail_json(msg=f"exporting the services: {error}")
    except OSError as error:
        where = error.filename or module.params["dest"]
        module.fail_json(msg=f"exporting the services: {where}: {error.strerror or error}; see `dest`, or use become")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
