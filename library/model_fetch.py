#!/usr/bin/python
"""Bring a model's file to a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_fetch
short_description: Bring a model to a host and check it
description:
  - Brings a model of a hub (Hugging Face, its mirrors, ModelScope, a folder), downloads a GGUF file, uses what is on
    the host already, or generates the tiny model, which always answers with the same sentence.
  - Of a repository only the files of one model are taken, all at one commit. A download continues where an interrupted
    one stopped, and becomes visible only when every file is whole and its digest right.
  - What is there and was verified before is not read again, and no hub is asked about it.
  - Proxies and certificates are taken from the environment (C(https_proxy), C(no_proxy), C(SSL_CERT_FILE)), and so are
    C(HF_ENDPOINT), C(HF_TOKEN), C(HF_TOKEN_PATH) and C(MODELSCOPE_API_TOKEN).
options:
  model:
    description:
      - A model of a hub such as C(hf:ORG/NAME), C(ms:ORG/NAME) or C(ORG/NAME), which is the first source that has it;
        C(:QUANT) behind it chooses among GGUF files and C(@REVISION) a branch, tag or commit.
      - C(tiny), the absolute path of a GGUF file or of a folder in Hugging Face's format on the host, or an http or
        https URL of a GGUF file.
      - What is given by its path is checked, and never changed, copied or removed.
    type: str
    required: true
  sha256:
    description: Expected sha256 of the file. A URL needs one.
    type: str
    default: ""
  dest:
    description: Directory that downloaded and generated files are kept in.
    type: path
    default: /var/lib/llmfleet/models
  name:
    description:
      - Name of the file in O(dest), for a URL and for C(tiny). Empty means one made of the URL and its digest.
    type: str
    default: ""
  engine:
    description:
      - Engine that is to serve it, which decides where a repository has several formats. Empty takes what there is.
    type: str
    choices: ["", llama_server, vllm]
    default: ""
  quant_limit:
    description:
      - Bytes that the files may take where no quantisation is asked for; the best that fits is taken. 0 means that this
        is not known.
    type: int
    default: 0
  sources:
    description:
      - Where models of hubs come from, in this order. Words C(hf), C(hf-mirror), C(ms), an http or https URL of a hub
        that speaks as Hugging Face does, an absolute path of a folder, or mappings of C(name), C(kind) (C(hf), C(ms),
        C(folder)), C(url) or C(path) and C(token_file).
      - Left out means C([hf, hf-mirror, ms]), and no network at all in check mode.
    type: list
    elements: raw
  token:
    description: Token for Hugging Face and its mirrors. It goes to no host that they redirect to.
    type: str
  token_file:
    description: File on the host that holds the token.
    type: path
  manifest:
    description:
      - The files of the model, as a plan has settled them with M(hub_listing). No source is asked then what there is.
    type: dict
  trust_remote_code:
    description: Whether code that a repository brings is taken too.
    type: bool
    default: false
  update:
    description:
      - Whether to look if a branch or tag has moved. A model that is there is kept without asking otherwise.
    type: bool
    default: false
  verify:
    description:
      - C(quick) trusts files whose size and time are those that were noted when they were verified, C(full) reads all.
    type: str
    choices: [quick, full]
    default: quick
  connections:
    description: How many ranges are downloaded at the same time, at most.
    type: int
    default: 8
  timeout:
    description: Seconds without a byte after which a download counts as broken.
    type: int
    default: 30
  lock_timeout:
    description: Seconds to wait for another process that brings files of the same repository.
    type: int
    default: 3600
  peers:
    description:
      - Hosts that have the model or receive it too; for each the URLs that M(model_share) returned there. They are
        asked first. What they do not give comes from O(sources), where these are given.
    type: list
    elements: list
  archive:
    description: What M(model_share) returned under that name on the host that has the model. Goes with O(peers).
    type: dict
  log:
    description:
      - File that gets a line with files, bytes, speed and the time left every few seconds of a transfer from a hub.
        Left out it is C(.llmfleet/progress.log) in the folder of the repository, anew for each transfer.
    type: path
  state:
    description:
      - C(absent) removes what C(present) put into O(dest). A model of a hub that is asked for in other words too stays.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description:
      - Says what it would do. Nothing is downloaded, so a URL that does not answer is not noticed. A hub is asked only
        where O(sources) is given and O(manifest) is not.
  diff_mode:
    support: full
    description: Shows the files before and after.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Bring one quantisation of a model of Hugging Face, or of a mirror of it
  model_fetch:
    model: Qwen/Qwen3-8B-GGUF:Q4_K_M
    sources: [hf, hf-mirror]
  become: true
  register: __model

- name: Bring what vLLM needs of a gated model
  model_fetch:
    model: hf:meta-llama/Llama-3.1-8B-Instruct
    engine: vllm
    token_file: /etc/llmfleet/hf-token
  become: true

- name: Take a model from a disk that was carried there
  model_fetch:
    model: Qwen/Qwen3-8B-GGUF:Q4_K_M
    sources: [/mnt/usb/models]
  become: true

- name: Download a file from any server
  model_fetch:
    model: https://models.example.org/small-q4_k_m.gguf
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  become: true
"""

RETURN = r"""
path:
  description:
    - What an engine is given, the model's GGUF file or its folder; of a hub's model that is not known yet the folder of
      its repository.
  returned: success
  type: str
  sample: /var/lib/llmfleet/models/tiny.gguf
files:
  description: All files of the model; empty when it is not there.
  returned: success
  type: list
  elements: str
action:
  description:
    - What was done, or would be done in check mode, one of C(keep), C(generate), C(download), C(receive) (from other
      hosts), C(link) (its files were there, of another commit or asked for in other words), C(verify) (files were found
      right and noted), C(repair) (some were missing, damaged, or had the wrong mode), C(remove) and C(missing) (check
      mode without sources, and it is not there).
  returned: success
  type: str
  sample: keep
why:
  description: The reason of RV(action).
  returned: success
  type: str
  sample: it was verified before
fingerprint:
  description: Identity of the content, read from size, beginning and end; empty when the model is not there.
  returned: success
  type: str
size:
  description: Size of what is at RV(path) in bytes, which of a folder says nothing; 0 when the model is not there.
  returned: success
  type: int
total_size:
  description: Size of all files of the model in bytes; 0 when it is not there.
  returned: success
  type: int
format:
  description: C(gguf) or C(safetensors); empty when that is not known.
  returned: success
  type: str
  sample: gguf
gguf:
  description: What the GGUF header says; empty when the model is not there or is no GGUF file.
  returned: success
  type: dict
  sample: {architecture: llama, name: llmfleet tiny, context_length: 4096, block_count: 2}
shape:
  description: What plans of memory need to know about the model; empty when the model is not there or not understood.
  returned: success
  type: dict
manifest:
  description: Of a hub's model its repository, commit, files with digests, quantisation and why it was chosen.
  returned: success
  type: dict
source:
  description: Where files came from in this run, or the source that listed the model; empty for what was on the host.
  returned: success
  type: str
  sample: hf-mirror
bytes_fetched:
  description: Bytes that came over the network, or from a folder, in this run.
  returned: success
  type: int
seconds:
  description: How long that took.
  returned: success
  type: float
log:
  description: File that tells of the transfer; empty when there was none.
  returned: success
  type: str
tried:
  description: What sources said that were asked before the one that answered, as C(source) and C(said).
  returned: success
  type: list
  elements: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet.errors import LlmfleetError
from ansible.module_utils.llmfleet.hub.fetch import run

ARGUMENT_SPEC = {
    "model": {"type": "str", "required": True},
    "sha256": {"type": "str", "default": ""},
    "dest": {"type": "path", "default": "/var/lib/llmfleet/models"},
    "name": {"type": "str", "default": ""},
    "engine": {"type": "str", "choices": ["", "llama_server", "vllm"], "default": ""},
    "quant_limit": {"type": "int", "default": 0},
    "sources": {"type": "list", "elements": "raw"},
    "token": {"type": "str", "no_log": True},
    "token_file": {"type": "path"},
    "manifest": {"type": "dict"},
    "trust_remote_code": {"type": "bool", "default": False},
    "update": {"type": "bool", "default": False},
    "verify": {"type": "str", "choices": ["quick", "full"], "default": "quick"},
    "connections": {"type": "int", "default": 8},
    "timeout": {"type": "int", "default": 30},
    "lock_timeout": {"type": "int", "default": 3600},
    # the URLs hold tokens
    "peers": {"type": "list", "elements": "list", "no_log": True},
    "archive": {"type": "dict"},
    "log": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = run(module.params, os.environ, module.check_mode)
    except LlmfleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
