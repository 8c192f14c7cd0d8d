#!/usr/bin/python
"""Say which llama.cpp the ref `latest` means now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llama_cpp_ref
short_description: Resolve the newest llama.cpp to an exact ref
description:
  - Asks the git candidates for the commit at their head, in order; the first that answers decides. Where none does,
    the newest release of a source distribution on the package index counts.
  - Nothing is downloaded. The answer is exact, so M(llama_cpp_image) builds only when it has changed.
  - Where nothing answers the module does not fail. It returns an empty RV(ref) and the reason in RV(why).
options:
  ref:
    description: C(latest), or a ref that is returned as it stands.
    type: str
    default: latest
  sources:
    description:
      - Candidates as in M(llama_cpp_image). Of an C(sdist) only the name counts, its version being what is asked for.
        Rows that hold one version for good (C(archive), C(git) with C(ref)) cannot tell what is newest.
      - Without it, two git mirrors and the llama-cpp-python sdist are asked.
    type: list
    elements: dict
  current:
    description:
      - Ref in use, such as the revision label of the image that services run. A commit stays when no git source
        answers, because the newest release may be older than it.
    type: str
    default: ''
  pypi_index:
    description: Package index. Empty takes the one the host's pip is set up with.
    type: str
    default: ''
  pypi_index_fallback:
    description: Package index for hosts that have no pip to ask.
    type: str
    default: ''
  ca_bundle:
    description: CA certificates to trust. Empty takes the host's.
    type: path
    default: ''
  timeout:
    description: Seconds one candidate may take to answer.
    type: int
    default: 15
attributes:
  check_mode:
    support: full
    description: It only asks, in either mode.
  diff_mode:
    support: none
    description: It changes nothing.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Find out what latest means now
  llama_cpp_ref:
  register: __newest

- name: Build it
  llama_cpp_image:
    ref: "{{ __newest['ref'] }}"
    sources: "{{ __newest['sources'] }}"
  when: __newest['ref'] | length > 0
"""

RETURN = r"""
ref:
  description: A commit, or C(NAME-VERSION) of a source release whose commit is not known. Empty when nothing answered.
  returned: success
  type: str
  sample: 0c1e57098bba43ac29e6e3b677cdceebdd22334f
sources:
  description: The candidates that deliver exactly RV(ref), pinned, for M(llama_cpp_image).
  returned: success
  type: list
  elements: dict
from:
  description: Candidate that answered. Empty when none did, or when RV(ref) is what was given.
  returned: success
  type: str
  sample: git https://github.com/ggml-org/llama.cpp.git
why:
  description: Where RV(ref) comes from, or why there is none and what to do.
  returned: success
  type: str
tried:
  description: Candidates in the order they were asked, with the result of each.
  returned: success
  type: list
  elements: dict
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.image_source import DEFAULT_SOURCES, for_ref, parse_sources
from ansible.module_utils.llmfleet.latest_ref import LATEST, Latest, Questions, resolve
from ansible.module_utils.llmfleet.source_host import make_fetcher

ARGUMENT_SPEC: dict[str, t.Any] = {
    "ref": {"type": "str", "default": LATEST},
    "sources": {"type": "list", "elements": "dict"},
    "current": {"type": "str", "default": ""},
    "pypi_index": {"type": "str", "default": ""},
    "pypi_index_fallback": {"type": "str", "default": ""},
    "ca_bundle": {"type": "path", "default": ""},
    "timeout": {"type": "int", "default": 15},
}
FIX = "name a candidate that answers in llama_cpp_image_sources, or a commit in llama_cpp_image_ref"


def find(params: t.Mapping[str, t.Any], note: t.Callable[[str, str], None]) -> Latest:
    """Return what the ref means; raise LlmfleetError for parameters that make no sense."""
    if params["timeout"] < 1:
        raise BadInput(f"timeout must be at least 1 second, not {params['timeout']}.")
    candidates = parse_sources(list(DEFAULT_SOURCES) if params["sources"] is None else params["sources"])
    if params["ref"] != LATEST:
        usable, _passed = for_ref(candidates, params["ref"])
        return Latest(params["ref"], tuple(usable), "", "it is the ref asked for")
    # the folder is for downloads, of which there are none here
    fetcher = make_fetcher(params, Path("/nonexistent"), params["timeout"], params["timeout"])
    return resolve(candidates, Questions(fetcher), params["current"], note)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    tried: list[dict[str, str]] = []
    try:
        found = find(module.params, lambda candidate, result: tried.append({"candidate": candidate, "result": result}))
    except LlmfleetError as problem:
        module.fail_json(msg=str(problem))
    said = "; ".join(f"{row['candidate']}: {row['result']}" for row in tried) or "the list of sources is empty"
    module.exit_json(
        changed=False,
        ref=found.ref,
        sources=[source.row() for source in found.sources],
        **{"from": found.origin},
        why=found.why if found.ref else f"{found.why} ({said}); {FIX}",
        tried=tried,
    )


if __name__ == "__main__":
    main()
