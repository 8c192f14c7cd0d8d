#!/usr/bin/python
"""Give the gateway's certificate: files of the host, or one that is made there once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_gateway_certificate
short_description: Give the gateway's certificate, made once on the host where none is given
description:
  - Returns the certificate and the private key that are in O(certificate_file) and O(private_key_file).
  - Without them, makes one that is signed by itself, with openssl in a container of O(image), and keeps it in
    O(directory). It is made anew when it lacks one of the names or ends within 60 days.
  - Its names are O(names), O(also), C(localhost), the host's name and its address towards other machines.
  - The private key is in the result; set C(no_log).
options:
  directory:
    description: Folder on the host that keeps the certificate that is made.
    type: path
    required: true
  image:
    description: An image with openssl. Needed to make a certificate.
    type: str
    default: ""
  names:
    description: Further host names and IP addresses that clients use.
    type: list
    elements: str
    default: []
  also:
    description: More of them, of which those that can be no name of a machine are left out.
    type: list
    elements: str
    default: []
  certificate_file:
    description: A certificate on the host, in PEM format with the intermediate ones behind it.
    type: path
    default: ""
  private_key_file:
    description: Its private key, in PEM format and without a pass phrase.
    type: path
    default: ""
  docker_cli:
    description: Name or path of the docker client.
    type: str
    default: docker
attributes:
  check_mode:
    support: full
    description: Says whether one would be made.
  diff_mode:
    support: none
    description: Private keys are nothing to show.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Provide the certificate
  llm_gateway_certificate:
    directory: /var/lib/llmfleet/gateway
    image: llmfleet/gateway:0123456789ab
    names: [llm.example.org]
  become: true
  no_log: true
  register: __certificate
"""

RETURN = r"""
action:
  description: C(keep), C(make) or C(given).
  returned: success
  type: str
why:
  description: Why one was made.
  returned: success
  type: str
names:
  description: What it is for; empty where it is given.
  returned: success
  type: list
  elements: str
path:
  description: The certificate on the host, for clients that are to trust it.
  returned: success
  type: str
address:
  description: The host's address towards other machines.
  returned: success
  type: str
certificate:
  description: The certificate; empty in check mode where there is none yet.
  returned: success
  type: str
private_key:
  description: Its private key.
  returned: success
  type: str
"""

import os
import socket
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import host_edge
from ansible.module_utils.llmfleet.addresses import lan_address
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gateway import certificate

ARGUMENT_SPEC = {
    "directory": {"type": "path", "required": True},
    "image": {"type": "str", "default": ""},
    "names": {"type": "list", "elements": "str", "default": []},
    "also": {"type": "list", "elements": "str", "default": []},
    "certificate_file": {"type": "path", "default": ""},
    "private_key_file": {"type": "path", "default": "", "no_log": False},
    "docker_cli": {"type": "str", "default": "docker"},
}

FILES = (("private_key.pem", 0o600), ("certificate.pem", 0o644), ("certificate.json", 0o644))
"""In the order they are written: the record comes last, so that what an interruption leaves is made anew."""

SANDBOX = (
    *("--network", "none", "--read-only", "--cap-drop", "ALL", "--user", "10001:10001"),
    # the private key is printed, and docker would keep that, in the journal for ever
    *("--log-driver", "none", "--entrypoint", "openssl"),
)


def given(certificate_file: str, private_key_file: str) -> dict[str, t.Any]:
    """Return the certificate that the user has put on the host."""
    if not (certificate_file and private_key_file):
        raise BadInput(
            "a certificate needs its private key: set llm_gateway_certificate_file and _private_key_file both"
        )
    texts = []
    for path in (certificate_file, private_key_file):
        text = host_edge.read_text(path)
        if "-----BEGIN " not in text:
            raise BadInput(f"{path} on this host is no readable PEM file; give the path of one")
        texts.append(text)
    return {"action": "given", "why": "", "names": [], "path": certificate_file, "changed": False, **_pair(*texts)}


def _pair(text: str, private_key: str) -> dict[str, str]:
    return {"certificate": text, "private_key": private_key}


def own(module: AnsibleModule) -> dict[str, t.Any]:
    """Return the certificate of the host's own, made when there is none that will do."""
    p = module.params
    there = [socket.gethostname(), "localhost", "127.0.0.1", "::1", lan_address(4)]
    wanted = certificate.names(p["names"], [*p["also"], *filter(None, there)])
    paths = [os.path.join(p["directory"], name) for name, _ in FILES]
    private_key, text, kept = map(host_edge.read_text, paths)
    why = certificate.why_new(kept, text, private_key, wanted, time.time())
    said = {"action": "make" if why else "keep", "why": why, "names": wanted, "path": paths[1], "changed": bool(why)}
    if why and not module.check_mode:
        text, private_key = make(module, wanted)
        record = certificate.record(wanted, time.time(), text, private_key)
        os.makedirs(p["directory"], mode=0o755, exist_ok=True)
        for path, (_, mode), content in zip(paths, FILES, (private_key, text, record)):
            write(path, mode, content)
    return {**said, **_pair(text, private_key)}


def make(module: AnsibleModule, wanted: list[str]) -> tuple[str, str]:
    """Return (certificate, private key), made in a container that has nothing of the host."""
    if not module.params["image"]:
        raise BadInput("`image` is needed to make a certificate")
    docker = Docker(module.run_command, host_edge.find_program(module.params["docker_cli"]) or "docker")
    argv = certificate.command(wanted)
    return certificate.split(docker.text("run", "--rm", *SANDBOX, module.params["image"], *argv[1:]))


def write(path: str, mode: int, content: str) -> None:
    """Replace a file, which nobody else reads before it has its mode."""
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
    os.chmod(temporary, mode)
    # atomic_move would give it the mode of any new file
    host_edge.move_into_place(os.replace, temporary, path)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    files = module.params["certificate_file"], module.params["private_key_file"]
    try:
        result = given(*files) if any(files) else own(module)
    except (LlmfleetError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(address=lan_address() or socket.gethostname(), **result)


if __name__ == "__main__":
    main()
