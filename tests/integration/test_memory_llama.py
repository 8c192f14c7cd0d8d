"""What the memory plan says llama-server takes, against what a real one says in its log, for many architectures."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf_models
import pytest
from ansible.module_utils.llmfleet import gguf
from ansible.module_utils.llmfleet.memory import llama
from ansible.module_utils.llmfleet.memory.llama_run import run_of
from ansible.module_utils.llmfleet.memory.shape import from_gguf
from ansible.module_utils.llmfleet.memory.terms import RAM, Ask

MIB = 1 << 20
BOUND = 0.05
"""By how much a figure may be off."""

BUFFERS = {
    "weights": r"load_tensors: +\S+ model buffer size = +([\d.]+) MiB",
    "kv": r" (?:KV|RS) buffer size = +([\d.]+) MiB",
    "compute": r" compute buffer size = +([\d.]+) MiB",
    "output": r" output buffer size = +([\d.]+) MiB",
}
# (model, tokens of one request, requests at the same time, further arguments)
CASES: list[tuple[str, int, int, tuple[str, ...]]] = [
    *((name, 4096, 1, ()) for name in gguf_models.MODELS),
    ("llama", 4096, 4, ()),
    ("llama", 3000, 1, ("--flash-attn", "off")),
    ("qwen3", 8192, 1, ("--cache-type-k", "q8_0", "--cache-type-v", "q8_0")),
    ("gemma3", 2048, 3, ("--kv-unified", "--ubatch-size", "256")),
    ("gpt-oss", 8192, 1, ("--swa-full",)),
    ("deepseek2", 2048, 1, ("--flash-attn", "off")),
    ("mamba", 1024, 4, ()),
    ("qwen3next", 4096, 4, ()),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all models; the engine runs as another user."""
    folder = tmp_path_factory.mktemp("models")
    folder.chmod(0o755)
    for name, make in gguf_models.MODELS.items():
        gguf_models.write(make(), folder / f"{name}.gguf")
        (folder / f"{name}.gguf").chmod(0o644)
    return folder


def _measured(image: str, folder: Path, number: int) -> dict[str, float]:
    """Return the MiB of each kind of buffer that a real server allocates, by its log."""
    model, context, parallel, args = CASES[number]
    name = f"llmfleet-memory-{folder.parent.name}-{number}"
    argv = [
        *("docker", "run", "--rm", "--name", name, "--network", "none", "--volume", f"{folder}:/m:ro"),
        *("--entrypoint", "/app/llama-server", image, "--model", f"/m/{model}.gguf", "--log-verbosity", "4"),
        *("--fit", "off", "--no-warmup", "--ctx-size", str(context * parallel), "--parallel", str(parallel), *args),
    ]
    log = ""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as run:
        assert run.stdout
        for line in run.stdout:
            log += line
            # the last line of the construction
            if "sched_reserve: graph" in line:
                break
        subprocess.run(["docker", "kill", name], capture_output=True, check=False)
    found = {kind: sum(map(float, re.findall(pattern, log))) for kind, pattern in BUFFERS.items()}
    assert found["compute"], f"{CASES[number]}: the server did not come up:\n{log[-3000:]}"
    return found


def _planned(folder: Path, number: int) -> dict[str, float]:
    model, context, parallel, args = CASES[number]
    shape = from_gguf(gguf.read_model([str(folder / f"{model}.gguf")]))
    run = run_of(Ask("llama_server", parallel=parallel, args=args), context, "f16")
    need = llama.needs(shape, run, 0, {})[RAM]
    figures = {"weights": need.weights, "kv": need.kv, "compute": need.compute, "output": llama.output(shape, run)}
    return {kind: bytes_ / MIB for kind, bytes_ in figures.items()}


def test_planned_buffers_are_those_of_a_real_server(image: str, models: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        measured = list(pool.map(lambda number: _measured(image, models, number), range(len(CASES))))
    wrong = []
    rows = [
        "| model | tokens x requests, arguments | " + " | ".join(f"{kind} (MiB)" for kind in BUFFERS) + " |",
        "|---" * (2 + len(BUFFERS)) + "|",
    ]
    for number, (model, context, parallel, args) in enumerate(CASES):
        planned = _planned(models, number)
        cells = []
        for kind, real in measured[number].items():
            # the log has two digits after the point
            off = 0.0 if abs(planned[kind] - real) <= 0.02 else (planned[kind] - real) / max(real, 0.01)
            cells.append(f"{planned[kind]:.2f} / {real:.2f} ({off:+.1%})")
            if abs(off) > BOUND:
                wrong.append((model, context, parallel, args, kind, planned[kind], real))
        rows.append(f"| {model} | {' '.join((f'{context} x {parallel}', *args))} | " + " | ".join(cells) + " |")
    print("\n" + "\n".join(rows))
    assert not wrong
