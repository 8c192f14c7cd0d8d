#!/usr/bin/python
"""Tell what a GGUF model is, from its header alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gguf_info
short_description: Tell what a GGUF model is, from its header alone
description:
  - Reads the header of a file on the host, or of one on a server, of which some megabytes are transferred at most.
  - A model in several files is described as a whole when its first file is given.
  - Says what is wrong with a file that no engine could load, such as one that is cut off.
  - Proxies and certificates are taken from the environment (C(https_proxy), C(no_proxy), C(SSL_CERT_FILE)).
options:
  path:
    description:
      - Path of a GGUF file on the host, of the first one when there are several. Either O(path) or O(url).
    type: path
    default: ""
  url:
    description:
      - An http or https URL of a GGUF file. Either O(path) or O(url).
    type: str
    default: ""
  token:
    description:
      - Token for the server of O(url), which is sent to no other, and over plain http only within a private network.
      - Without one and without O(token_file), a hub gets the token which the environment has for it (C(HF_TOKEN) or
        C(HF_TOKEN_PATH)).
    type: str
    default: ""
  token_file:
    description:
      - File on the host that holds the token.
    type: path
    default: ""
  timeout:
    description:
      - Seconds without a byte after which a connection counts as broken.
    type: int
    default: 30
  time_limit:
    description:
      - Seconds that the header of one file may take in all.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Look at a model on the host
  gguf_info:
    path: /srv/models/small-q4_k_m.gguf
  register: __model

- name: Say how long a context it was trained for
  ansible.builtin.debug:
    msg: "{{ __model['name'] }}: {{ __model['context_length'] }} tokens"

- name: Look at a model on a server without downloading it
  gguf_info:
    url: https://models.example.org/large-q8_0-00001-of-00003.gguf
    token_file: /root/.config/models-token
"""

RETURN = r"""
architecture:
  description: Name of the architecture as llama.cpp knows it.
  returned: success
  type: str
  sample: qwen3
name:
  description: What the model is called in its header.
  returned: success
  type: str
version:
  description: Version of the GGUF format.
  returned: success
  type: int
layers:
  description: How many layers it has.
  returned: success
  type: int
context_length:
  description: Tokens it was trained for.
  returned: success
  type: int
embedding_length:
  description: Length of the vector that stands for a token.
  returned: success
  type: int
feed_forward_length:
  description: Width of the feed-forward part; a list where layers differ.
  returned: success
  type: raw
vocabulary_size:
  description: How many tokens it knows.
  returned: success
  type: int
heads:
  description: Attention heads; a list where layers differ.
  returned: success
  type: raw
kv_heads:
  description: Heads of keys and values; a list where layers differ. 0 stands for a layer that keeps none.
  returned: success
  type: raw
key_length:
  description: Length of one head's key.
  returned: success
  type: int
value_length:
  description: Length of one head's value.
  returned: success
  type: int
sliding_window:
  description: Tokens that layers with a sliding window look back; 0 without one.
  returned: success
  type: int
sliding_window_pattern:
  description:
    - Which layers have a sliding window, as the header has it. A number N means all but each Nth; a list has 1 for each
      layer with one. 0 where only the architecture tells.
  returned: success
  type: raw
mla:
  description: Whether it keeps one latent vector per token instead of keys and values (multi-head latent attention).
  returned: success
  type: bool
kv_lora_rank:
  description: Length of that vector.
  returned: success
  type: int
layer_kind:
  description: >-
    C(attention), C(recurrent) when its layers keep a state of fixed size however long the context is, or C(hybrid).
  returned: success
  type: str
  sample: attention
experts:
  description: The experts of each layer, all 0 in a model without.
  returned: success
  type: dict
  contains:
    count: {description: How many there are., type: int}
    used: {description: How many of them work on one token., type: int}
    shared: {description: How many more work on every token., type: int}
embedding_model:
  description: Whether it makes embeddings or ranks texts instead of writing them.
  returned: success
  type: bool
quant:
  description: The type that most of the weights have, as users call it.
  returned: success
  type: str
  sample: Q4_K_M
quantisation:
  description: Every type that tensors have, the one with the most bytes first.
  returned: success
  type: list
  elements: dict
  contains:
    type: {description: 'Type of the tensors, such as Q6_K.', type: str}
    tensors: {description: How many have it., type: int}
    weights: {description: Numbers in them., type: int}
    bytes: {description: Bytes they take., type: int}
weight_count:
  description: Numbers in all tensors.
  returned: success
  type: int
tensor_count:
  description: How many tensors there are.
  returned: success
  type: int
tensor_bytes:
  description: Bytes of all tensors.
  returned: success
  type: int
split_count:
  description: How many files the model has.
  returned: success
  type: int
files:
  description: Paths or addresses of all its files.
  returned: success
  type: list
  elements: str
size:
  description: Bytes of all its files.
  returned: success
  type: int
needed_size:
  description: Bytes that its files need to be whole; 0 when they have tensors of a type that is not known here.
  returned: success
  type: int
chat_template:
  description: Whether it brings a chat template.
  returned: success
  type: bool
tokenizer:
  description: 'Kind of its tokenizer: C(gpt2) for byte-pair encoding, C(llama) for SentencePiece and others.'
  returned: success
  type: str
shape:
  description: What a memory plan needs to know of the model; empty when its architecture is not known here.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import gguf_look
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError

ARGUMENT_SPEC = {
    "path": {"type": "path", "default": ""},
    "url": {"type": "str", "default": ""},
    "token": {"type": "str", "default": "", "no_log": True},
    "token_file": {"type": "path", "default": "", "no_log": False},
    "timeout": {"type": "int", "default": 30},
    "time_limit": {"type": "int", "default": 300},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = dict(module.params)
    path, url = options.pop("path"), options.pop("url")
    try:
        if bool(path) == bool(url):
            raise BadInput("either `path` or `url` says which file to look at")
        if min(options["timeout"], options["time_limit"]) < 1:
            raise BadInput("`timeout` and `time_limit` must be at least 1 second")
        facts = gguf_look.look_at_path(path) if path else gguf_look.look_at_url(url, **options)
    except LlmfleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
