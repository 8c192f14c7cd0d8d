#!/usr/bin/python
"""Ask a model one prompt in a container that goes away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_tool_run
short_description: Ask a model one prompt, without a service
description:
  - Loads a GGUF file with llama-completion in a container without network and rights, lets it answer one prompt, and
    returns the text. Nothing stays on the host.
  - Returns the command for an interactive session too.
options:
  model:
    description: Absolute path of a GGUF file on the host, of a split one its first part.
    type: path
    required: true
  prompt:
    description: What to ask.
    type: str
    required: true
  system:
    description: System prompt. It needs O(chat).
    type: str
    default: ""
  chat:
    description:
      - Whether the prompt is a question for the model's chat template. Otherwise the model goes on where it ends.
    type: bool
    default: true
  max_tokens:
    description: Upper bound for the length of the answer.
    type: int
    default: 256
  context_length:
    description: Tokens of prompt and answer together. 0 takes what the model was trained for.
    type: int
    default: 0
  threads:
    description: CPU threads. 0 leaves it to the program.
    type: int
    default: 0
  temperature:
    description: How freely tokens are chosen, 0 for always the most likely. -1 takes the program's default.
    type: float
    default: -1
  seed:
    description: Seed of the choice. -1 takes another one each time.
    type: int
    default: -1
  gpus:
    description:
      - How the container gets the GPUs of the host, which then hold all layers; that they do is checked. Empty, it gets
        none and runs on the CPU.
      - C(nvidia) is the hook of the NVIDIA container toolkit, C(nvidia_cdi) its device list, in place of which the hook
        is taken where the docker engine has device lists off. The others are the vendors' own ways, untried.
    type: str
    choices: ["", nvidia, nvidia_cdi, amd, intel, moore_threads]
    default: ""
  memory:
    description: Memory limit of the container, such as C(16g). Empty sets none.
    type: str
    default: ""
  image:
    description: Image with llama-completion that is on the host, with the contents C(light) or C(full).
    type: str
    required: true
  timeout:
    description: Seconds that loading and answering may take.
    type: int
    default: 600
  docker_cli:
    description: Docker client.
    type: path
    default: docker
attributes:
  check_mode:
    support: full
    description: Checks the model and the options and returns the command; the model is not asked.
  diff_mode:
    support: none
    description: It changes nothing.
author:
  - llmfleet contributors (@llmfleet)
"""

EXAMPLES = r"""
- name: Ask a model
  model_tool_run:
    model: /srv/models/small-q4_k_m.gguf
    prompt: Why is the sky blue?
    image: llmfleet/llama.cpp:cpu-light-0123456789ab
  register: __answer
"""

RETURN = r"""
text:
  description: The answer; empty in check mode.
  returned: success
  type: str
ended:
  description: Whether the model came to an end by itself, before RV(text) reached the longest length allowed.
  returned: success
  type: bool
device:
  description: What it ran on, C(CPU) or a count of layers and the GPU; empty in check mode.
  returned: success
  type: str
  sample: 33/33 layers on CUDA0 (NVIDIA H200)
tokens_per_second:
  description: Speed of C(prompt) and C(generation), as far as the program says it.
  returned: success
  type: dict
  sample: {prompt: 238.5, generation: 21.3}
command:
  description: Command for a session of one's own with this model, to run on the host.
  returned: success
  type: str
gguf:
  description: What the header of the model says.
  returned: success
  type: dict
seconds:
  description: Time the module took.
  returned: success
  type: float
"""

import os
import tempfile
import time
import typing as t
from dataclasses import replace

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llmfleet import model_file, tool_prompt
from ansible.module_utils.llmfleet.constants import RUN_UID
from ansible.module_utils.llmfleet.docker_cli import Docker
from ansible.module_utils.llmfleet.engines.base import Mount
from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError
from ansible.module_utils.llmfleet.gpu_access import PLANNED, docker_words
from ansible.module_utils.llmfleet.gpu_way import device_groups, settle
from ansible.module_utils.llmfleet.host_edge import find_program
from ansible.module_utils.llmfleet.image_request import LABEL_VARIANT
from ansible.module_utils.llmfleet.timed_run import Answer, timed_run
from ansible.module_utils.llmfleet.tool_container import Sandbox, explain, find_image, run_argv

TRIES = 20
"""How often to ask a model that is faster than the program prints; see ``tool_prompt.whole``."""

ARGUMENT_SPEC: dict[str, t.Any] = {
    "model": {"type": "path", "required": True},
    "prompt": {"type": "str", "required": True},
    "system": {"type": "str", "default": ""},
    "chat": {"type": "bool", "default": True},
    "max_tokens": {"type": "int", "default": 256},
    "context_length": {"type": "int", "default": 0},
    "threads": {"type": "int", "default": 0},
    "temperature": {"type": "float", "default": -1},
    "seed": {"type": "int", "default": -1},
    "gpus": {"type": "str", "choices": ["", *PLANNED], "default": ""},
    "memory": {"type": "str", "default": ""},
    "image": {"type": "str", "required": True},
    "timeout": {"type": "int", "default": 600},
    "docker_cli": {"type": "path", "default": "docker"},
}


def ask_of(params: t.Mapping[str, t.Any]) -> tool_prompt.Ask:
    """Return what is asked; raises BadInput for options that make no sense."""
    if not os.path.isabs(params["model"]):
        raise BadInput("model must be the absolute path of a GGUF file on the host")
    names = [name for name in tool_prompt.Ask.__dataclass_fields__ if name != "gpu"]
    ask = tool_prompt.Ask(**{name: params[name] for name in names}, gpu=bool(params["gpus"]))
    tool_prompt.check(ask)
    return ask


def answer(docker: Docker, sandbox: Sandbox, ask: tool_prompt.Ask, model: str, timeout: int) -> Answer:
    """Return what llama-completion says; the prompt reaches it in a file, which no process list shows."""
    with tempfile.TemporaryDirectory() as folder:
        mounts = list(sandbox.mounts)
        for target, text in ((tool_prompt.PROMPT, ask.prompt), (tool_prompt.SYSTEM, ask.system)):
            path = os.path.join(folder, os.path.basename(target))
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            # others read it in the container; here nobody gets as far as to it
            os.chmod(path, 0o644)
            mounts.append(Mount(path, target))
        asking = replace(sandbox, mounts=tuple(mounts))
        argv = run_argv(asking, "llama-completion", tool_prompt.argv(ask, model))
        for _ in range(TRIES):
            try:
                said = timed_run([docker.executable, *argv], timeout)
            finally:
                # the end of the client is not that of the container
                docker.attempt("rm", "--force", sandbox.name)
            if said.timed_out:
                raise LlmfleetError(f"no answer in {timeout} s; raise timeout, or lower max_tokens")
            if said.rc:
                raise LlmfleetError(explain(said.rc, f"{said.out}\n{said.err}"))
            if tool_prompt.whole(said.out):
                return said
    raise LlmfleetError(f"llama-completion ended {TRIES} times before it had printed the answer; try again")


def sandbox_of(params: t.Mapping[str, t.Any], docker: Docker, files: t.Sequence[str], uid: int) -> Sandbox:
    """Return the container that sees the model's ``files`` and the GPUs that were asked for."""
    access = settle(docker, params["gpus"])
    groups = [word for group in device_groups(access) for word in ("--group-add", str(group))]
    mounts = [Mount(os.path.realpath(file), f"{tool_prompt.MODELS}/{os.path.basename(file)}") for file in files]
    return Sandbox(
        name=f"llmfleet-run-{os.getpid()}",
        image=params["image"],
        user=f"{uid}:{uid}",
        mounts=tuple(mounts),
        device_args=(*docker_words(access), *groups) if access else (),
        memory=params["memory"],
    )


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params, started = module.params, time.monotonic()
    uid = RUN_UID if os.geteuid() == 0 else os.geteuid()
    said, device = Answer(0), ""
    try:
        ask = ask_of(params)
        docker = Docker(module.run_command, find_program(params["docker_cli"]))
        found = model_file.read(params["model"], any_mode=uid != RUN_UID)
        model = os.path.basename(params["model"])
        if not module.check_mode:
            image = find_image(docker, params["image"])
        sandbox = sandbox_of(params, docker, found.files, uid)
        if not module.check_mode:
            said = answer(docker, sandbox, ask, model, params["timeout"])
            device = tool_prompt.device(ask, said.err, (image["Config"].get("Labels") or {}).get(LABEL_VARIANT, ""))
    except LlmfleetError as error:
        module.fail_json(msg=f"model {params['model']}: {error}")
    except OSError as error:
        module.fail_json(msg=f"model {params['model']}: {error.filename or ''}: {error.strerror or error}")
    words = run_argv(replace(sandbox, name=""), "llama-cli", tool_prompt.interactive(ask, model), terminal=True)
    module.exit_json(
        changed=False,
        text=tool_prompt.reply(said.out),
        ended=tool_prompt.ended(said.out),
        device=device,
        tokens_per_second=tool_prompt.speeds(said.err),
        command=tool_prompt.command("docker", words),
        gguf=found.header.facts(),
        seconds=round(time.monotonic() - started, 2),
    )


if __name__ == "__main__":
    main()
