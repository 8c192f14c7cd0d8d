#!/usr/bin/python
"""Ansible module: test the API of a served model as its callers will use it, without changing anything."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llm_api_test
short_description: Test the API of a served model as its callers will use it
description:
  - Asks everything that the served task has, chat whole and streamed, in Chinese too, completions, responses,
    embeddings, rankings, and beside them the list of models, metrics and tokens. Where there is an API key, it proves
    that no path answers without it.
  - Fails when a check does, after all of them were made. Changes nothing.
  - Runs on the host of a service, or from any machine that reaches it (C(delegate_to: localhost)).
options:
  service:
    description:
      - The service as in C(llm_services), without its C(api_key). Says engine, task, name and address.
    type: dict
  url:
    description:
      - Base URL of the server, without C(/v1). Empty, it is that of O(service) on its host.
    type: str
    default: ""
  api_key:
    description: Key to send as bearer token.
    type: str
    default: ""
  ca_file:
    description: File with the certificates to trust instead of those of the system.
    type: path
    default: ""
  served_name:
    description: Name under which the model is served, where there is no O(service).
    type: str
    default: ""
  engine:
    description:
      - Engine that serves, where there is no O(service). Empty, only what any OpenAI-compatible server has is tested.
    type: str
    default: ""
  task:
    description: What the model is for, where there is no O(service).
    type: str
    choices: [generate, embed, rerank, score, classify]
    default: generate
  direct:
    description: Whether the engine itself is asked, and not a gateway that lets only its API through.
    type: bool
    default: true
  closed:
    description: Paths that must not answer even with the key, as behind a gateway. They are looked at only (GET).
    type: list
    elements: str
    default: []
  checks:
    description: The checks to make; empty, all that apply.
    type: list
    elements: str
    default: []
  max_tokens:
    description: Upper bound for the length of each reply.
    type: int
    default: 16
  timeout:
    description: Seconds to wait for each answer.
    type: int
    default: 120
attributes:
  check_mode:
    description: Tests all the same, since it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Test a service on its host
  llm_api_test:
    service: "{{ llm_services[0] }}"

- name: Test it from here, through the gateway
  llm_api_test:
    url: https://192.0.2.10:8443
    ca_file: /etc/llmfleet/gateway.pem
    api_key: "{{ vault_chat_key }}"
    served_name: chat
    direct: false
    closed: [/metrics, /tokenize, /docs]
  delegate_to: localhost
"""

RETURN = r"""
checks:
  description:
    - The checks that were made, each with C(name), C(ok) (null where this build does not offer what is checked),
      C(seconds), C(why), what it found or why it failed, and for a failed one C(fix).
    - A server that is not there, or refuses the key, is not asked for all the rest.
  returned: always
  type: list
  elements: dict
  sample:
    - {name: chat, ok: true, seconds: 0.031, why: "replied 'Hello there.'", fix: ""}
url:
  description: The address that was tested.
  returned: always
  type: str
  sample: http://127.0.0.1:8080
lan:
  description: The address for other machines, null where the service is not published or is not known.
  returned: always
  type: str
lines:
  description: The checks for people to read, a line each.
  returned: always
  type: list
  elements: str
seconds:
  description: What all checks took together.
  returned: always
  type: float
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.addresses import service_urls
from ansible.module_utils.llmfleet.api_calls import TASK_PATHS
from ansible.module_utils.llmfleet.api_checks import Subject
from ansible.module_utils.llmfleet.api_test import CHECKS, lines, run, summary
from ansible.module_utils.llmfleet.engines import ENGINES
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.http_client import Endpoint
from ansible.module_utils.llmfleet.services import parse

ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "service": {"type": "dict"},
    "url": {"type": "str", "default": ""},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "ca_file": {"type": "path", "default": ""},
    "served_name": {"type": "str", "default": ""},
    "engine": {"type": "str", "default": ""},
    "task": {"type": "str", "choices": list(TASK_PATHS), "default": "generate"},
    "direct": {"type": "bool", "default": True},
    "closed": {"type": "list", "elements": "str", "default": []},
    "checks": {"type": "list", "elements": "str", "default": []},
    "max_tokens": {"type": "int", "default": 16},
    "timeout": {"type": "int", "default": 120},
}


def subject_of(given: t.Mapping[str, t.Any]) -> tuple[Subject, str, str | None]:
    """Return what to test, its title, and the address for other machines. Raises BadInput."""
    engine, task, name, url, lan = (*(given[key] for key in ("engine", "task", "served_name", "url")), None)
    title, metrics = "API", "/metrics"
    if given["service"]:
        service = parse({**given["service"], "api_key": given["api_key"]})
        engine, task, name = service.engine, service.task, service.served_name
        urls = {way: found and found[: -len("/v1")] for way, found in service_urls(service).items()}
        url, lan, title = url or urls["host"] or "", urls["lan"], f"service {service.name}"
        # of several models each has its own
        metrics = f"/metrics?model={name}" if service.models else metrics
    if not url or not name:
        raise BadInput("give `service`, or `url` and `served_name`")
    if engine and engine not in ENGINES:
        raise BadInput(f"unknown engine `{engine}` (known: {', '.join(ENGINES)})")
    paths = ENGINES[engine or "vllm"].PATHS
    if task not in paths:
        raise BadInput(f"engine {engine} does not do `task: {task}`, only {', '.join(paths)}")
    unknown = sorted(set(given["checks"]) - {check.name for check in CHECKS})
    if unknown:
        raise BadInput(f"no check is called {', '.join(unknown)} (known: {', '.join(check.name for check in CHECKS)})")
    subject = Subject(
        Endpoint(url, given["api_key"], given["timeout"], given["ca_file"]),
        name,
        engine=engine,
        # a server of which nothing is known is asked for all that one of them has
        paths=tuple(paths[task]),
        health_path=ENGINES[engine].HEALTH_PATH if engine else "/health",
        has_key=bool(given["api_key"]),
        direct=given["direct"],
        closed=tuple(given["closed"]),
        max_tokens=given["max_tokens"],
        metrics_path=metrics,
    )
    return subject, title, lan


def main() -> None:
    """Make the checks and report; any that fails is a failed task with one sentence."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        subject, title, lan = subject_of(module.params)
    except (LlmfleetError, ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    checks = run(subject, module.params["checks"])
    result = {
        "checks": checks,
        "url": subject.endpoint.url,
        "lan": lan,
        "seconds": round(sum(check["seconds"] for check in checks), 3),
        "lines": lines(f"{title} at {subject.endpoint.url}", checks),
    }
    failed = summary(checks)
    if failed:
        module.fail_json(msg=f"{title} at {subject.endpoint.url}: {failed}", **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
