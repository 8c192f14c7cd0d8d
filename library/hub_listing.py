#!/usr/bin/python
"""Ask hubs what a repository holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_listing
short_description: Ask hubs what a repository holds
description:
  - Asks sources in their order for a repository of models; the first that has it answers.
  - Tells its files with their digests, which types of weights there are, and, read from the header of one GGUF file or
    from config.json, what a plan of memory needs to know. Some MB are transferred at most, and nothing is changed.
  - Runs on the controller or on a host, whichever reaches the hub.
  - Proxies and certificates are taken from the environment (C(https_proxy), C(no_proxy), C(SSL_CERT_FILE)), and so are
    C(HF_ENDPOINT), C(HF_TOKEN), C(HF_TOKEN_PATH) and C(MODELSCOPE_API_TOKEN).
options:
  model:
    description:
      - A model of a hub such as C(hf:ORG/NAME), C(ms:ORG/NAME) or C(ORG/NAME), or with C(:QUANT) and C(@REVISION).
    type: str
    required: true
  sha256:
    description:
      - Expected sha256 of the model's one file.
    type: str
    default: ""
  engine:
    description:
      - Engine that is to serve it, which decides where a repository has several formats. Empty takes what there is.
    type: str
    choices: ["", llama_server, vllm]
    default: ""
  sources:
    description:
      - Where to ask, in this order; see M(model_fetch). Left out means C([hf, hf-mirror, ms]).
    type: list
    elements: raw
  token:
    description:
      - Token for Hugging Face and its mirrors. It goes to no host that they redirect to.
    type: str
  token_file:
    description:
      - File that holds the token.
    type: path
  timeout:
    description:
      - Seconds without a byte after which an answer is no longer waited for.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Changes nothing anyway, and asks in check mode too.
  diff_mode:
    support: none
    description: Nothing changes.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: What is there of a model
  hub_listing:
    model: Qwen/Qwen3-8B-GGUF
    sources: [hf, hf-mirror]
  delegate_to: localhost
  register: __listing
"""

RETURN = r"""
listing:
  description: Repository, commit and files, each with path, size and digest.
  returned: success
  type: dict
source:
  description: Name of the source that answered.
  returned: success
  type: str
  sample: hf-mirror
formats:
  description: Which of C(gguf) and C(safetensors) the repository holds.
  returned: success
  type: list
  elements: str
candidates:
  description: The types of weights to choose from, the best first; empty without GGUF files.
  returned: success
  type: list
  elements: dict
  sample: [{quant: Q4_K_M, files: [Qwen3-8B-Q4_K_M.gguf], size: 5027783488}]
shape:
  description: What memory plans need to know, with the weights of RV(shape_quant); empty where it is not understood.
  returned: success
  type: dict
shape_quant:
  description: The type of weights that RV(shape) was read from.
  returned: success
  type: str
config:
  description: What config.json says; empty where there is none.
  returned: success
  type: dict
why:
  description: Why RV(shape) is empty.
  returned: success
  type: str
tried:
  description: What sources said that were asked before, as C(source) and C(said).
  returned: success
  type: list
  elements: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.hub.fetch import refuse_tokens, with_token
from ansible.module_utils.llmfleet.hub.lookup import look
from ansible.module_utils.llmfleet.model_words import parse

ARGUMENT_SPEC = {
    "model": {"type": "str", "required": True},
    "sha256": {"type": "str", "default": ""},
    "engine": {"type": "str", "choices": ["", "llama_server", "vllm"], "default": ""},
    "sources": {"type": "list", "elements": "raw"},
    "token": {"type": "str", "no_log": True},
    "token_file": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC, mutually_exclusive=[("token", "token_file")], supports_check_mode=True
    )
    params = module.params
    # behind it an address may hold a signature
    shown = params["model"].partition("?")[0]
    try:
        ref = parse(params["model"], params["sha256"])
        if ref.kind != "hub":
            raise BadInput(f"model {ref.shown}: it is no model of a hub, so there is nothing to list")
        if params["timeout"] < 1:
            raise BadInput(f"`timeout` must be at least 1 second, not {params['timeout']}")
        refuse_tokens(params["sources"])
        environ = with_token(os.environ, params["token"], params["token_file"])
        result = look(ref, params["sources"], environ, params["engine"], params["timeout"])
    except LlmfleetError as error:
        said = str(error)
        module.fail_json(msg=said if said.startswith(("model ", "`")) else f"model {shown}: {said}")
    except OSError as error:
        module.fail_json(msg=f"model {shown}: {error.filename or 'network'}: {error.strerror or error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
