#!/usr/bin/python
"""Make a GGUF file of a model: convert, quantise, split or merge."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_tool_make
short_description: Make a GGUF file of a model by converting, quantising, splitting or merging it
description:
  - Makes sure that there is a GGUF file (or its parts) made of a model on the host.
  - Each step runs a tool of llama.cpp in a container without network and rights, which sees nothing but the model.
  - The result takes its place only when it is whole and of the type asked for. A note beside it (C(.made.json)) says
    what it was made of; with the same source and options nothing is made again, also by another image.
  - Files that this module did not make are never replaced or removed.
options:
  source:
    description:
      - Absolute path on the host of a folder in Hugging Face format, also one of a hub cache, or of a GGUF file (of a
        split one its first part).
    type: path
    required: true
  dest:
    description:
      - Absolute path of the result, ending in C(.gguf), or of a folder; in a folder it is called after source and type.
      - Of a split result, C(-00001-of-…) is added to the name.
    type: path
    default: /var/lib/llmfleet/models
  type:
    description:
      - Type of the weights, such as C(Q4_K_M), C(Q8_0), C(BF16). C(keep) leaves them as they are, for splitting,
        merging or a mere conversion.
    type: str
    default: Q4_K_M
  split_size:
    description: Size of the parts at most, such as C(10G) or C(500M). Empty makes one file.
    type: str
    default: ""
  imatrix:
    description: Path on the host of an importance matrix for the quantisation. The types below 3 bits need one.
    type: path
    default: ""
  allow_requantize:
    description: Whether a model that is quantised already may be quantised again, which costs quality.
    type: bool
    default: false
  options:
    description: More arguments of llama-quantize, one word each.
    type: list
    elements: str
    default: []
  threads:
    description: Threads of the quantisation, 0 for one per processor.
    type: int
    default: 0
  memory:
    description: Memory limit of the containers, such as C(16g). Empty sets none.
    type: str
    default: ""
  image:
    description:
      - Image with the tools, which is on the host. A folder in Hugging Face format needs one with the contents C(full).
    type: str
    required: true
  force:
    description: Whether to make the result again although it is there.
    type: bool
    default: false
  timeout:
    description: Seconds that one step may take.
    type: int
    default: 86400
  log_dir:
    description: Folder for the log of the tools, which can be followed while they run.
    type: path
    default: /var/lib/llmfleet/logs
  docker_cli:
    description: Docker client.
    type: path
    default: docker
attributes:
  check_mode:
    support: full
    description: Checks source, options and disk space, and says which steps would run.
  diff_mode:
    support: full
    description: Shows the files and what they are made of, before and after.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Convert and quantise a model from Hugging Face
  model_tool_make:
    source: /srv/hf/Qwen3-8B
    image: llmfleet/llama.cpp:cpu-full-0123456789ab
  become: true

- name: Split a GGUF file
  model_tool_make:
    source: /srv/models/big.gguf
    type: keep
    split_size: 20G
    image: llmfleet/llama.cpp:cpu-full-0123456789ab
  become: true
"""

RETURN = r"""
path:
  description: The file to load the model by, the first part of a split one. In check mode without C(-00001-of-…).
  returned: success
  type: str
  sample: /var/lib/llmfleet/models/Qwen3-8B-Q4_K_M.gguf
files:
  description: All files of the result; empty while it is not there.
  returned: success
  type: list
  elements: str
action:
  description: C(keep) or C(make).
  returned: success
  type: str
why:
  description: The reason of RV(action).
  returned: success
  type: str
  sample: it is not there
steps:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  sample: [convert to BF16, quantise to Q4_K_M]
needed_bytes:
  description: Disk space that making it takes, about.
  returned: success
  type: int
source:
  description: What the source is, with C(kind) (C(hf), C(gguf)), C(type), C(weight_count) and C(bytes).
  returned: success
  type: dict
gguf:
  description: What the header of the result says; empty while it is not there.
  returned: success
  type: dict
log:
  description: Log of the tools on the host, which can be followed while they run.
  returned: success
  type: str
seconds:
  description: Time the module took.
  returned: success
  type: float
"""

import json
import os
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import model_file, weight_types
from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.host_edge import JobLog, find_program
from ansible.module_utils.llmfleet.model_maker import make
from ansible.module_utils.llmfleet.model_order import Job, Order, check_room, prepare, why_make
from ansible.module_utils.llmfleet.tool_container import find_image

ARGUMENT_SPEC: dict[str, t.Any] = {
    "source": {"type": "path", "required": True},
    "dest": {"type": "path", "default": "/var/lib/llmfleet/models"},
    "type": {"type": "str", "default": "Q4_K_M"},
    "split_size": {"type": "str", "default": ""},
    "imatrix": {"type": "path", "default": ""},
    "allow_requantize": {"type": "bool", "default": False},
    "options": {"type": "list", "elements": "str", "default": []},
    "threads": {"type": "int", "default": 0},
    "memory": {"type": "str", "default": ""},
    "image": {"type": "str", "required": True},
    "force": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 86400},
    "log_dir": {"type": "path", "default": "/var/lib/llmfleet/logs"},
    "docker_cli": {"type": "path", "default": "docker"},
}


def order_of(params: t.Mapping[str, t.Any]) -> Order:
    """Return what is asked for; raises BadInput for what can be told from the options alone."""
    for name in ("source", "dest", "imatrix"):
        if params[name] and not os.path.isabs(params[name]):
            raise BadInput(f"{name} must be an absolute path on the host, not {params[name]!r}")
    for name in ("threads", "timeout"):
        if params[name] < (name == "timeout"):
            raise BadInput(f"{name} must not be {params[name]}; give a positive number")
    given = {name: params[name] for name in Order.__dataclass_fields__}
    return Order(**{**given, "type": weight_types.parse(params["type"]), "options": tuple(params["options"])})


def shown(job: Job, files: t.Sequence[str], recipe: t.Any) -> str:
    """Return a state for the diff."""
    lines = [f"{os.path.join(job.folder, name)}\n" for name in files]
    return "".join(lines) + (json.dumps(recipe, indent=2, sort_keys=True) + "\n" if files else "")


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params, started = module.params, time.monotonic()
    uid = RUN_UID if os.geteuid() == 0 else os.geteuid()
    try:
        order = order_of(params)
        job = prepare(order, uid)
        before = shown(job, sorted(job.note.files), job.note.recipe)
        why = why_make(job)
        log = JobLog(Path(params["log_dir"]) / f"model-{job.name}.log", params["timeout"])
        if why:
            check_room(job)
        if why and not module.check_mode:
            docker = Docker(module.run_command, find_program(params["docker_cli"]))
            find_image(docker, order.image)
            make(job, docker, log, uid)
        files = [os.path.join(job.folder, name) for name in job.files]
        header = model_file.read(files[0], any_mode=True).header.facts() if files else {}
    except LlmfleetError as error:
        module.fail_json(msg=f"model {params['source']}: {error}")
    except OSError as error:
        module.fail_json(msg=f"model {params['source']}: {error.filename or params['dest']}: {error.strerror or error}")
    module.exit_json(
        changed=bool(why),
        path=files[0] if files and not (why and module.check_mode) else job.shown,
        files=files,
        action="make" if why else "keep",
        why=why or "it was made of this source with these options before",
        steps=[step.name for step in job.plan.steps],
        needed_bytes=job.plan.needed_bytes,
        source={
            "kind": job.source.kind,
            "type": job.source.type.name if job.source.type else "",
            "weight_count": job.source.weight_count,
            "bytes": job.source.size,
        },
        gguf=header,
        log=str(log.path),
        seconds=round(time.monotonic() - started, 2),
        diff={"before": before, "after": shown(job, job.files or [f"{job.name}.gguf"], job.recipe)},
    )


if __name__ == "__main__":
    main()
