#!/usr/bin/python
"""Lay options into the docker daemon's daemon.json, and take them out again."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_daemon_config
short_description: Lay options into the docker daemon's daemon.json, and take them out again
description:
  - Writes the options of each contributor into C(daemon.json) and remembers what stood there before. Everything else
    in the file stays as it is. Mappings are merged; entries of C(insecure-registries) and C(labels) are added to
    those of others; any other list is replaced.
  - A contributor that is mentioned has exactly the options given; its former ones are taken back. One that is not
    mentioned keeps what it has. When nothing of ours is left in a file that this module made, it is removed.
  - A file that is not correct JSON is refused and never written. The new file is tried with C(dockerd --validate)
    where that exists, else against a table of keys and types, and compared with the daemon's command line.
  - Does not touch the running engine. What it needs stands in RV(action) and, until M(docker_daemon_apply) has done
    it, in the record.
options:
  contributions:
    description: Contributor to its options, with the keys of C(daemon.json). A null counts as not given.
    type: dict
    required: true
  path:
    description: The file. Of a link, the target is written.
    type: path
    default: /etc/docker/daemon.json
  record_path:
    description: Where this module remembers what it put into the file.
    type: path
    default: /var/lib/llmfleet/docker_daemon.json
  dockerd:
    description: The daemon that shall read the file. Empty looks for it.
    type: str
    default: ""
  cli:
    description: The docker client to ask for the engine's version.
    type: str
    default: docker
  engine_version:
    description: Version of the engine that shall read the file. Empty asks.
    type: str
    default: ""
  flags:
    description: Key of C(daemon.json) to the flag of the daemon's command line that sets it too. Not given, looks.
    type: dict
attributes:
  check_mode: {support: full, description: Checks the new file all the same and writes nothing.}
  diff_mode: {support: full, description: 'Shows the file before and after, without passwords in URLs.'}
author: [llmfleet contributors (@llmfleet)]
"""

EXAMPLES = r"""
- name: Configure the docker daemon
  docker_daemon_config:
    contributions:
      docker_engine:
        registry-mirrors: [https://mirror.example.org]
        log-opts: {max-size: 50m, max-file: "3"}
      nvidia_container_toolkit:
        runtimes: {nvidia: {path: nvidia-container-runtime, args: []}}
  become: true

- name: Take the toolkit's options back
  docker_daemon_config:
    contributions: {nvidia_container_toolkit: {}}
  become: true
"""

RETURN = r"""
action:
  description: What the running engine needs, C(none), C(reload) or C(restart), an earlier change included.
  returned: success
  type: str
changes: {description: 'What changed in the file, a line each.', returned: success, type: list, elements: str}
backup_file: {description: 'The copy of the file before the change, else empty.', returned: success, type: str}
empty_first:
  description: Keys that went, with the values to reload them with before the file is reloaded as it is.
  returned: success
  type: dict
config: {description: 'The content of the file, without passwords in URLs.', returned: success, type: dict}
"""

import json
import os
import re
import typing as t
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import daemon_file, daemon_json, daemon_look
from ansible.module_utils.llmfleet.daemon_keys import NONE, RELOAD, Action, greater, masked, needed_action
from ansible.module_utils.llmfleet.daemon_leaves import same
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import find_program, move_into_place

ARGUMENT_SPEC: dict[str, t.Any] = {
    "contributions": {"type": "dict", "required": True},
    "path": {"type": "path", "default": "/etc/docker/daemon.json"},
    "record_path": {"type": "path", "default": "/var/lib/llmfleet/docker_daemon.json"},
    "dockerd": {"type": "str", "default": ""},
    "cli": {"type": "str", "default": "docker"},
    "engine_version": {"type": "str", "default": ""},
    "flags": {"type": "dict"},
}


def pending(
    record: t.Mapping[str, t.Any], action: Action, config: t.Mapping[str, t.Any], backup: str
) -> dict[str, t.Any]:
    """Return what is to be applied now that ``action`` joins what was not applied yet; {} for nothing."""
    earlier = record.get("pending") or {}
    kind = greater(action.kind, earlier.get("action", NONE))
    if kind == NONE:
        return {}
    empty_first = {**earlier.get("empty_first", {}), **action.empty_first} if kind == RELOAD else {}
    # the engine still runs with the file before the first of these changes; what a run that ended noted stays too
    origin = {key: value for key, value in earlier.items() if key != "swap"} or {
        "backup_file": backup,
        "created": not backup,
        # what becomes true again when the engine does not take the change and the file goes back
        "record_before": {key: value for key, value in record.items() if key != "pending"},
    }
    return {
        **origin,
        "action": kind,
        "empty_first": {key: value for key, value in empty_first.items() if key not in config},
    }


def place(
    module: AnsibleModule, real: str, temporary: str | None, record: dict[str, t.Any], old: dict[str, t.Any]
) -> None:
    """Bring the file into place, or remove it. The record goes first: a file without it would count as the user's."""
    record_path = module.params["record_path"]
    daemon_file.write_record(record_path, record)
    try:
        if temporary is None:
            os.remove(real)
        else:
            new = not os.path.exists(real)
            move_into_place(module.atomic_move, temporary, real)
            if new:
                os.chmod(real, 0o644)
    except (LlmfleetError, OSError):
        daemon_file.write_record(record_path, old)
        raise


def converge(module: AnsibleModule) -> dict[str, t.Any]:
    """Read, merge, check and write; return the result."""
    params = module.params
    path, real = params["path"], os.path.realpath(params["path"])
    for owner, options in params["contributions"].items():
        if not isinstance(options, dict):
            raise BadInput(f"`contributions.{owner}` must be a mapping of daemon.json's keys, not {options!r}")
    text, error = daemon_look.read_daemon_json(real)
    if error:
        raise LlmfleetError(error)
    record = daemon_file.read_record(params["record_path"])
    before = daemon_json.parse(daemon_json.settled(text or "", record), path)
    merged = daemon_json.merge(before, params["contributions"], record)
    waiting = record.get("pending") or {}
    result = {
        "changed": not same(merged.config, before),
        "action": waiting.get("action", NONE),
        "changes": list(merged.changes),
        "backup_file": "",
        "empty_first": waiting.get("empty_first", {}),
        "config": masked(merged.config),
    }
    if not result["changed"]:
        if merged.record != record and not module.check_mode:
            daemon_file.write_record(params["record_path"], merged.record)
        return result
    gone = not merged.config and bool(record.get("created")) and "owned" not in merged.record
    after = "" if gone else daemon_json.render(merged.config, text or "")
    result["diff"] = {
        "before": masked(text or ""),
        "after": masked(after),
        "before_header": path,
        "after_header": f"{path} (removed)" if gone else path,
    }
    dockerd = params["dockerd"] or find_program("dockerd")
    version, running = daemon_file.release_asked(params["cli"], dockerd)
    version, running = params["engine_version"] or version, running or bool(daemon_look.daemon_pid())
    flags = daemon_look.daemon_flags() if params["flags"] is None else params["flags"]
    # an engine that does not run reads the file when it starts
    action = needed_action(before, merged.config, version) if running else Action()
    if not module.check_mode:
        daemon_file.make_folder(os.path.dirname(real))
    temporary = daemon_file.write_temporary(module.tmpdir if module.check_mode else os.path.dirname(real), after)
    try:
        daemon_file.refuse_bad(merged.config, temporary, path, dockerd, version, flags)
        if not module.check_mode and text is not None:
            result["backup_file"] = module.backup_local(real)
        todo = pending(record, action, merged.config, result["backup_file"])
        result.update(action=todo.get("action", NONE), empty_first=todo.get("empty_first", {}))
        if not module.check_mode:
            notes = {"created": (text is None or bool(record.get("created"))) and not gone, "pending": todo}
            rest = {key: value for key, value in merged.record.items() if key not in notes}
            new = {**rest, **{key: value for key, value in notes.items() if value}}
            place(module, real, None if gone else temporary, new, record)
            mark = daemon_look.daemon_mark() if todo else ""
            if mark:
                # after the file, so that a daemon which starts just between the two is not taken for one that read it
                daemon_file.write_record(params["record_path"], {**new, "pending": {**todo, "daemon": mark}})
    finally:
        with suppress(FileNotFoundError):
            os.remove(temporary)
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    # the arguments come back with the result; a proxy's user and password shall not
    given = json.dumps(module.params["contributions"], ensure_ascii=False)
    module.no_log_values.update(re.findall(r"://([^/\s\"]+@)", given))
    try:
        result = converge(module)
    except LlmfleetError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        where = error.filename or "the disk"
        module.fail_json(
            msg=f"{module.params['path']} was not changed: {where}: {error.strerror}; correct that, run again"
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
