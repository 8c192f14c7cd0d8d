#!/usr/bin/python
"""Ansible module: verify an OpenAI-compatible endpoint without changing anything."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llm_health
short_description: Verify that an OpenAI-compatible endpoint really answers
description:
  - Climbs the verification levels C(http) (the health path answers), C(model) (the served name is listed) and
    C(token) (a prompt is answered with at least one token, a text with a vector, and so on by O(task)), and stops at
    O(level).
  - Works against llama-server, vLLM and anything that speaks the same protocol. Changes nothing.
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
  task:
    description: What the model is for.
    type: str
    choices: [generate, embed, rerank, score, classify]
    default: generate
  level:
    description: The highest level to verify.
    type: str
    choices: [http, model, token]
    default: token
  health_path:
    description: Path of the health endpoint.
    type: str
    default: /health
  prompt:
    description: What to ask at level C(token).
    type: str
    default: Say hello in one short sentence.
  max_tokens:
    description: Upper bound for the length of the reply.
    type: int
    default: 64
  answer:
    description: Text that the reply must contain (level C(answer)).
    type: str
    default: ""
  min_tokens_per_second:
    description: Floor for the generation speed (level C(speed)); 0 sets none.
    type: float
    default: 0
  max_first_token_seconds:
    description: Ceiling for the time to the first token in seconds (level C(speed)); 0 sets none.
    type: float
    default: 0
  timeout:
    description: Seconds to go on asking an endpoint that is not ready yet; 0 asks once.
    type: int
    default: 0
attributes:
  check_mode:
    description: Verifies all the same, since it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Ask the service a question
  llm_health:
    url: http://127.0.0.1:8080
    served_name: chat
    api_key: "{{ vault_chat_key }}"

- name: Wait up to five minutes for a server that somebody else starts
  llm_health:
    url: http://192.0.2.10:8000
    served_name: qwen3
    timeout: 300
"""

RETURN = r"""
verification:
  description:
    - The levels that were reached with the seconds each took, the reply, C(first_token_seconds), C(tokens_per_second),
      and for other tasks than C(generate) the C(proof), what was answered, in words.
  returned: always
  type: dict
  sample:
    levels: {http: 0.002, model: 0.004, token: 0.021}
    reply: Hello there.
    completion_tokens: 3
    first_token_seconds: 0.012
    tokens_per_second: 310.5
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.api_calls import TASK_PATHS
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.services import Verify
from ansible.module_utils.llmfleet.verify import FailedError, NotYetError, Report, advance

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "url": {"type": "str", "required": True},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "served_name": {"type": "str", "required": True},
    "task": {"type": "str", "choices": list(TASK_PATHS), "default": "generate"},
    "level": {"type": "str", "choices": ["http", "model", "token"], "default": "token"},
    "health_path": {"type": "str", "default": "/health"},
    "prompt": {"type": "str", "default": Verify.prompt},
    "max_tokens": {"type": "int", "default": Verify.max_tokens},
    "answer": {"type": "str", "default": ""},
    "min_tokens_per_second": {"type": "float", "default": 0},
    "max_first_token_seconds": {"type": "float", "default": 0},
    "timeout": {"type": "int", "default": 0},
}
POLL_SECONDS = 0.25


def main() -> None:
    """Verify and report; an endpoint that fails is a failed task with one sentence."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    given = dict(module.params)
    verify = Verify(**{field: given[field] for field in Verify.__dataclass_fields__})
    report, begun = Report(), time.monotonic()
    try:
        endpoint = Endpoint(given["url"], given["api_key"])
    except ValueError as error:
        module.fail_json(msg=str(error), verification=report.as_dict())
    while True:
        try:
            path, name, task = given["health_path"], given["served_name"], given["task"]
            advance(endpoint, path, name, verify, report, begun, task=task)
            module.exit_json(changed=False, verification=report.as_dict())
        except FailedError as error:
            module.fail_json(msg=str(error), verification=report.as_dict())
        except NotYetError as error:
            if time.monotonic() - begun >= verify.timeout:
                module.fail_json(msg=str(error), verification=report.as_dict())
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
