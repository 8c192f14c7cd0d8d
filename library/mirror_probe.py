#!/usr/bin/python
"""Find out which of several mirrors to use."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mirror_probe
short_description: Find out which mirrors answer, how fast, and whether they serve the right thing
description:
  - Asks all candidates at once, from this host, and ranks those that can be used. Fresh ones come first, then those
    that lag behind, then slow ones, each by speed. Candidates that are nearly as fast as the best keep their order.
  - A package repository is right when its Release file (or repomd.xml) can be read, names the suite and the
    architecture, has not expired, and lists the package index that is there, and when the index has O(package).
    A registry must answer like one, and have O(image).
  - No signature is checked, since apt and dnf do that. This module says where to go, not whom to trust.
  - Proxies are taken from the environment (C(http_proxy), C(https_proxy), C(no_proxy)). The docker engine has its own.
options:
  kind:
    description:
      - What the candidates are mirrors of. The URL of an C(apt) candidate is the folder with C(dists), of C(apt_flat)
        the one with C(Release), of C(yum) the one with C(repodata), of C(registry) and C(hub) the one with C(v2), and
        of C(url) a file.
      - A C(hub) is a mirror of Docker Hub, where an image like C(hello:1) is C(library/hello:1).
    type: str
    choices: [apt, apt_flat, yum, registry, hub, url]
    required: true
  candidates:
    description:
      - The mirrors, the preferred ones first.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What the candidate is called. Empty means the host of its URL.
        type: str
        default: ""
      url:
        description:
          - An http or https URL without user and password.
        type: str
        required: true
  suite:
    description:
      - Suite of an C(apt) repository, for example C(bookworm).
    type: str
    default: ""
  component:
    description:
      - Component of an C(apt) repository.
    type: str
    default: stable
  architecture:
    description:
      - Architecture as the repository names it, for example C(amd64) for apt and C(x86_64) for yum. C(apt) needs it.
        Elsewhere empty means any.
    type: str
    default: ""
  package:
    description:
      - Package that must be there, and on which the speed is measured. Empty means any.
    type: str
    default: ""
  image:
    description:
      - Image that a registry must deliver without a login, for example C(library/hello:1). Empty means that it need
        only answer.
    type: str
    default: ""
  sha256:
    description:
      - Digest of the file at a C(url). It is compared when the file is not longer than O(sample_bytes).
    type: str
    default: ""
  timeout:
    description:
      - Seconds that all checks of one candidate may take together.
    type: float
    default: 8
  sample_bytes:
    description:
      - How many bytes are read to measure the speed.
    type: int
    default: 1048576
  min_bytes_per_second:
    description:
      - Slower candidates are used last.
    type: int
    default: 4096
  max_age:
    description:
      - Seconds for which a result is used again. 0 means that the mirrors are always asked.
    type: int
    default: 86400
  cache_path:
    description:
      - File that results are kept in. Results without any usable mirror are not kept.
    type: path
    default: /var/lib/llmfleet/mirror_probe.json
  ca_bundle:
    description:
      - File with the certificates to trust. Empty means the host's.
    type: path
    default: ""
attributes:
  check_mode:
    support: full
    description: Asks the mirrors all the same, and keeps no result.
  diff_mode:
    support: none
    description: There is nothing to show.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Choose a mirror of Docker's packages
  mirror_probe:
    kind: apt
    suite: bookworm
    architecture: amd64
    package: docker-ce
    candidates:
      - {name: docker, url: https://download.docker.com/linux/debian}
      - {name: aliyun, url: https://mirrors.aliyun.com/docker-ce/linux/debian}
  become: true
  register: __probe

- name: Keep the mirrors of Docker Hub that deliver
  mirror_probe:
    kind: hub
    image: library/busybox:1.37
    candidates:
      - {name: lan, url: "http://192.0.2.7:5000"}
      - {url: https://docker.m.daocloud.io}
  become: true
"""

RETURN = r"""
ranked:
  description: The candidates that can be used, best first.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Name of the candidate., type: str, sample: aliyun}
    url: {description: Its URL as given., type: str}
    bytes_per_second: {description: Its speed; 0 where there was nothing to measure it on., type: int}
    seconds: {description: How long its checks took., type: float}
    released: {description: Seconds since 1970 when its index was made; null when it does not say., type: int}
    stale: {description: Whether its index is more than 14 days behind the newest one., type: bool}
    slow: {description: Whether it is below the wanted speed or was too slow to be checked in full., type: bool}
    package_version: {description: Newest version of O(package) there; empty when not known., type: str}
rejected:
  description: The candidates that cannot be used.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Name of the candidate., type: str}
    url: {description: Its URL as given., type: str}
    why: {description: The reason., type: str, sample: answers with a web page instead of a package index}
best:
  description: Name and URL of the first of RV(ranked); empty when none can be used.
  returned: success
  type: dict
from_cache:
  description: Whether the result is one that was kept.
  returned: success
  type: bool
measured_at:
  description: When the mirrors were asked, in seconds since 1970.
  returned: success
  type: float
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import mirror_edge, mirror_race
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.host_edge import read_text

ARGUMENT_SPEC: dict[str, t.Any] = {
    "kind": {"type": "str", "choices": ["apt", "apt_flat", "yum", "registry", "hub", "url"], "required": True},
    "candidates": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {"name": {"type": "str", "default": ""}, "url": {"type": "str", "required": True}},
    },
    "suite": {"type": "str", "default": ""},
    "component": {"type": "str", "default": "stable"},
    "architecture": {"type": "str", "default": ""},
    "package": {"type": "str", "default": ""},
    "image": {"type": "str", "default": ""},
    "sha256": {"type": "str", "default": ""},
    "timeout": {"type": "float", "default": 8},
    "sample_bytes": {"type": "int", "default": 1 << 20},
    "min_bytes_per_second": {"type": "int", "default": 4096},
    "max_age": {"type": "int", "default": 86400},
    "cache_path": {"type": "path", "default": "/var/lib/llmfleet/mirror_probe.json"},
    "ca_bundle": {"type": "path", "default": ""},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    path = module.params["cache_path"]
    try:
        race = mirror_race.prepare(module.params)
    except BadInput as error:
        module.fail_json(msg=str(error))
    choice = race.remembered(read_text(path))
    from_cache = choice is not None
    if choice is None:
        choice = race.run()
        if choice["ranked"] and not module.check_mode:
            try:
                mirror_edge.write_cache(path, race.remember(read_text(path), choice))
            except OSError as error:
                module.warn(f"the choice of mirrors cannot be kept in {path}: {error.strerror or error}")
    choice = {key: choice[key] for key in ("ranked", "rejected", "measured_at")}
    best = {key: choice["ranked"][0][key] for key in ("name", "url")} if choice["ranked"] else {}
    module.exit_json(changed=False, best=best, from_cache=from_cache, **choice)


if __name__ == "__main__":
    main()
