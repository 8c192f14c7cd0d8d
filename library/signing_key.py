#!/usr/bin/python
"""Bring the key that signs a package repository to a host, trusted by its fingerprint."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key
short_description: Bring a package repository's signing key to a host, trusted by its fingerprint
description:
  - Downloads an OpenPGP key and keeps it only when every primary key in it is one of those wanted, so that it does not
    matter who serves it. A mirror that adds a second key is refused like one that serves another.
  - What is written is put together from the packets understood; whether subkeys and signatures are right is checked
    by apt or rpm whenever they use the file.
  - A file that holds the right keys already is not downloaded again. Its form, mode and owner are put right.
  - Proxies and certificates are taken from the environment (C(https_proxy), C(no_proxy), C(SSL_CERT_FILE)).
options:
  dest:
    description: The file. Binary with the suffix C(.gpg) or C(.pgp), as apt expects it, otherwise text (armored).
    type: path
    required: true
  urls:
    description: Where the key is served, http or https; tried in this order.
    type: list
    elements: str
    default: []
  fingerprints:
    description: The keys wanted, as whole fingerprints; spaces, colons and case do not matter.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that one download may take in all.
    type: int
    default: 15
  ca_bundle:
    description: File with certificates to trust instead of the system's, such as those of a proxy that replaces them.
    type: path
    default: ""
  state:
    description: C(absent) removes the file.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode: {support: full, description: 'Downloads and judges the key, and writes nothing.'}
  diff_mode: {support: full, description: Shows the fingerprints and the mode before and after.}
author: [llmfleet contributors (@llmfleet)]
"""

EXAMPLES = r"""
- name: Trust the repository's key, whoever serves it
  signing_key:
    dest: /etc/apt/keyrings/example.asc
    urls:
      - https://mirror.example.org/linux/debian/gpg
      - https://download.example.com/linux/debian/gpg
    fingerprints:
      - 0123 4567 89AB CDEF 0123 4567 89AB CDEF 0123 4567
  become: true
"""

RETURN = r"""
fingerprints:
  description: The primary keys in the file; empty when it was removed.
  returned: success
  type: list
  elements: str
url: {description: 'What the key was downloaded from, empty when it was not.', returned: success, type: str}
refused:
  description: The URLs that did not serve a right key.
  returned: always, when anything was downloaded
  type: list
  elements: dict
  contains:
    url: {description: The URL., type: str}
    why: {description: The reason., type: str}
    fingerprints: {description: 'The keys it served, if it served any.', type: list, elements: str}
backup_file: {description: 'Copy of the file that was replaced, else empty.', returned: success, type: str}
"""

import os
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import move_into_place
from ansible.module_utils.llmfleet.key_source import LIMIT, Found, Wanted, check_url, search, tls
from ansible.module_utils.llmfleet.openpgp import BadKey, KeyFile, grouped, objection, parse_fingerprint, read

ARGUMENT_SPEC: dict[str, t.Any] = {
    "dest": {"type": "path", "required": True},
    "urls": {"type": "list", "elements": "str", "default": []},
    "fingerprints": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 15},
    "ca_bundle": {"type": "path", "default": ""},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
MODE = 0o644
BINARY = (".gpg", ".pgp")


def wanted(params: t.Mapping[str, t.Any]) -> Wanted:
    """Return the checked input of state present."""
    if not params["fingerprints"] or not params["urls"]:
        raise BadInput("`fingerprints` and `urls` must name at least one each; a key is trusted by nothing else")
    if params["timeout"] <= 0:
        raise BadInput(f"`timeout` must be at least 1 second, not {params['timeout']}")
    prints = [parse_fingerprint(text) for text in params["fingerprints"]]
    return Wanted([check_url(url) for url in params["urls"]], prints, params["timeout"], tls(params["ca_bundle"]))


def make_folder(folder: str) -> None:
    """Create ``folder`` so that apt's own user may look into it, whatever the umask of a hardened host says."""
    if os.path.isdir(folder):
        return
    if os.path.lexists(folder):
        raise BadInput(f"{folder} is not a folder; correct `dest`, or remove what is there")
    make_folder(os.path.dirname(folder))
    os.mkdir(folder)
    os.chmod(folder, 0o755)  # noqa: S103 -- public keys, read by another user


def write(module: AnsibleModule, path: str, content: bytes) -> None:
    make_folder(os.path.dirname(path))
    temporary = os.path.join(module.tmpdir, "signing_key")
    with open(temporary, "wb") as file:
        file.write(content)
    move_into_place(module.atomic_move, temporary, path)


def shown(prints: t.Sequence[str], mode: int) -> str:
    """Return the text that stands for a file in the diff."""
    return "".join(f"{line}\n" for line in [*map(grouped, prints), f"mode {mode:04o}"])


def there_already(path: str, want: Wanted) -> tuple[bytes | None, str, Found]:
    """Return (content of ``path``, the diff's text for it, its keys when they are wanted ones)."""
    if not os.path.lexists(path):
        return None, "", Found()
    mode = stat.S_IMODE(os.stat(path).st_mode)
    with open(path, "rb") as file:
        content = file.read(LIMIT + 1)
    try:
        keys = read(content)
    except BadKey as error:
        return content, f"{error}\nmode {mode:04o}\n", Found()
    strange = objection(keys.fingerprints, want.fingerprints)
    return content, shown(keys.fingerprints, mode), Found() if strange else Found(keys)


def report_refusals(module: AnsibleModule, path: str, found: Found) -> None:
    """Warn of wrong keys that were served; fail when nothing else was."""
    wrong = [item for item in found.refused if item["fingerprints"]]
    if found.keys is None:
        reasons = "; ".join(f"{item['url']} {item['why']}" for item in found.refused)
        fix = "choose another mirror, or correct the host's network, proxy and certificates"
        if wrong:
            fix = "choose another mirror, or add the fingerprint once the repository's owner confirms it as new"
        module.fail_json(msg=f"no URL serves the signing key {path}: {reasons}; {fix}", refused=found.refused)
    for item in wrong:
        module.warn(f"{item['url']} {item['why']}; the signing key was taken from {found.url} instead")


def present(module: AnsibleModule, path: str, want: Wanted) -> dict[str, t.Any]:
    """Make ``path`` a file of wanted keys only, readable for everybody."""
    content, before, found = there_already(path, want)
    found = found if found.keys else search(want)
    report_refusals(module, path, found)
    keys = t.cast("KeyFile", found.keys)
    # apt goes by the name it is given, and rpm takes nothing but text
    right, backup = keys.render(armored=not module.params["dest"].endswith(BINARY)), ""
    changed = content != right
    if changed and not module.check_mode:
        backup = module.backup_local(path) if content is not None else ""
        write(module, path, right)
    changed = module.set_mode_if_different(path, MODE, changed)
    if os.geteuid() == 0:
        changed = module.set_owner_if_different(path, "root", changed)
        changed = module.set_group_if_different(path, "root", changed)
    diff = {"before": before, "after": shown(keys.fingerprints, MODE)}
    result = {"url": found.url, "refused": found.refused, "backup_file": backup, "diff": diff}
    return {"changed": changed, "fingerprints": keys.fingerprints, **result}


def absent(module: AnsibleModule, path: str) -> dict[str, t.Any]:
    """Remove the file."""
    there = os.path.lexists(path)
    if there and not module.check_mode:
        os.remove(path)
    diff = {"before": f"{path}\n" if there else "", "after": ""}
    return {"changed": there, "fingerprints": [], "url": "", "refused": [], "backup_file": "", "diff": diff}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    path = module.params["dest"]
    try:
        if not os.path.isabs(path) or os.path.isdir(path):
            raise BadInput(f"`dest` must be the absolute path of a file, not {path!r}")
        if module.params["state"] == "absent":
            result = absent(module, path)
        else:
            # a link that somebody made stays one
            result = present(module, os.path.realpath(path), wanted(module.params))
    except LlmfleetError as error:
        module.fail_json(msg=f"signing key: {error}")
    except PermissionError as error:
        module.fail_json(msg=f"signing key {error.filename or path}: permission denied; run this task with become")
    except OSError as error:
        module.fail_json(msg=f"signing key {error.filename or path}: {error.strerror or error}; put that right first")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
