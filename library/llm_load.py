#!/usr/bin/python
"""Ansible module: put a short load on an OpenAI-compatible endpoint and measure what callers get."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llm_load
short_description: Measure what several callers at once get from an endpoint
description:
  - Sends streamed chat completions over several connections at once for a few seconds, and tells how long callers wait
    for the first token and how fast the tokens come, to one of them and to all.
  - It changes nothing, but other callers notice the load. For models that generate text only.
  - Fails when a request is refused or breaks off. One that is still answered when the time is over is none of these.
options:
  url:
    description: Base URL of the server, without C(/v1).
    type: str
    required: true
  api_key:
    description: Key to send as bearer token.
    type: str
    default: ""
  served_name:
    description: Name under which the model is served.
    type: str
    required: true
  streams:
    description: How many callers ask at once.
    type: int
    default: 4
  requests:
    description: How many requests all of them send together; 0 sends two for each of O(streams).
    type: int
    default: 0
  seconds:
    description: When to stop at the latest.
    type: float
    default: 10
  max_tokens:
    description: Length of each answer.
    type: int
    default: 32
  prompt:
    description: What is asked, a number before it, so that no answer comes out of the engine's prompt cache.
    type: str
    default: Tell a short story.
attributes:
  check_mode:
    description: Measures all the same, since it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Measure with eight callers for up to 20 seconds
  llm_load:
    url: http://127.0.0.1:8080
    served_name: chat
    api_key: "{{ vault_chat_key }}"
    streams: 8
    requests: 64
    seconds: 20
"""

RETURN = r"""
load:
  description: What was measured. Times are in seconds.
  returned: always
  type: dict
  contains:
    streams: {description: As it was asked for., type: int}
    requests: {description: How many requests were sent., type: int}
    answered: {description: How many were answered whole., type: int}
    unfinished: {description: How many were being answered when the time was over., type: int}
    errors: {description: "What went wrong, and how often.", type: dict}
    tokens: {description: How many tokens came., type: int}
    seconds: {description: From the first request to the last token., type: float}
    first_token_p50: {description: Median wait for the first token., type: float}
    first_token_p95: {description: Wait that 95 of 100 requests do not exceed., type: float}
    tokens_per_second: {description: "Speed of one stream after its first token, median.", type: float}
    total_tokens_per_second: {description: All tokens over C(seconds)., type: float}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.llm_load_run import PROMPT, Load, failed, run

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "url": {"type": "str", "required": True},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "served_name": {"type": "str", "required": True},
    "streams": {"type": "int", "default": Load.streams},
    "requests": {"type": "int", "default": Load.requests},
    "seconds": {"type": "float", "default": 10},
    "max_tokens": {"type": "int", "default": Load.max_tokens},
    "prompt": {"type": "str", "default": PROMPT},
}
LIMITS = {"streams": (1, 1024), "requests": (0, 100_000), "seconds": (0.1, 3600), "max_tokens": (1, 100_000)}


def check(given: t.Mapping[str, t.Any]) -> None:
    """Raise BadInput for a number that no load can be made of."""
    for name, (least, most) in LIMITS.items():
        if not least <= given[name] <= most:
            raise BadInput(f"`{name}` must be between {least} and {most}, not {given[name]:g}")


def main() -> None:
    """Measure and report; requests that fail are a failed task with one sentence."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    given = dict(module.params)
    try:
        check(given)
        load = Load(**{name: given[name] for name in Load.__dataclass_fields__})
        result = run(given["url"], given["api_key"], given["served_name"], load)
    except ValueError as error:
        module.fail_json(msg=str(error))
    problem = failed(result)
    if problem:
        module.fail_json(msg=f"{given['url']}: {problem}", load=result)
    module.exit_json(changed=False, load=result)


if __name__ == "__main__":
    main()
