"""Each row of the failure tables recognises the line it stands for."""

from __future__ import annotations

import re
from pathlib import Path

import failure_lines
import pytest
from ansible.module_utils.llmfleet.container_failures import DOCKER_FAILURES, EXIT_CODES, explain_death
from ansible.module_utils.llmfleet.engines import ENGINES, llama_server, vllm
from ansible.module_utils.llmfleet.engines.base import diagnose, phase_of
from ansible.module_utils.llmfleet.watch import docker_refused
from failure_lines import LOGS, PROVOKED

INTEGRATION = Path(__file__).resolve().parents[1] / "integration"
END = {
    "llama_server": "E srv  llama_server: exiting due to model loading error",
    "vllm": "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
}
"""The general line that follows the cause."""
LINES = [("llama_server", *line) for line in failure_lines.LLAMA_SERVER]
LINES += [("vllm", *line) for line in failure_lines.VLLM]


def first_row(log, failures):
    """Return the row of the table that explains ``log``."""
    return next(row for row in failures if any(re.search(row.pattern, line) for line in log.splitlines()))


@pytest.mark.parametrize(("engine", "line", "words"), [row[:3] for row in LINES])
def test_the_whole_table_gives_the_most_precise_row(engine, line, words):
    found = diagnose(f"something before\n{line}\n{END[engine]}", ENGINES[engine].FAILURES)
    assert found is not None
    assert words in found["cause"]
    assert found["evidence"] == line.strip()
    assert found["fix"]


@pytest.mark.parametrize("name", failure_lines.VLLM_LOGS)
def test_a_real_log_of_vllm_is_explained(name):
    log = (LOGS / "vllm" / f"{name}.log").read_text()
    found = diagnose(log, vllm.FAILURES)
    assert found is not None
    assert failure_lines.VLLM_LOGS[name] in found["cause"], found
    # the words of the engine, and not a line of its program that the trace shows
    assert not found["evidence"].startswith("raise ")


def test_every_log_has_its_test():
    assert {path.stem for path in (LOGS / "vllm").glob("*.log")} == set(failure_lines.VLLM_LOGS)


def logs_of(engine):
    logs = [line for name, line, *_ in LINES if name == engine]
    return logs + [path.read_text() for path in sorted((LOGS / engine).glob("*.log"))]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_row_of_the_table_is_the_first_for_some_line(engine):
    hit = [first_row(log, ENGINES[engine].FAILURES) for log in logs_of(engine)]
    assert [row.pattern for row in ENGINES[engine].FAILURES if row not in hit] == []


@pytest.mark.parametrize(("engine", "words"), [row[::2] for row in LINES if row[3] == PROVOKED])
def test_what_is_said_to_be_provoked_is(engine, words):
    files = {"llama_server": ["test_failures.py", "test_llm_service.py"], "vllm": ["test_vllm.py"]}[engine]
    assert any(words in (INTEGRATION / file).read_text() for file in files), words


def test_every_log_of_vllm_is_provoked():
    text = (INTEGRATION / "test_vllm_failures.py").read_text()
    assert [name for name in failure_lines.VLLM_LOGS if f'"{name}"' not in text] == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Bind for 127.0.0.1:8080 failed: port is already allocated.", "port is taken"),
        ("listen tcp4 127.0.0.1:8080: bind: address already in use", "port is taken"),
        ('could not select device driver "" with capabilities: [[gpu]]', "GPUs"),
        ('could not select device driver "cdi" with capabilities: []', "GPUs"),
        (
            "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all: unknown.",
            "does not find nvidia.com/gpu=all in",
        ),
        (
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver to "
            "a newer version, or use an earlier cuda container: unknown",
            "asks for CUDA 13.0",
        ),
        (
            "nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open shared "
            "object file: no such file or directory: unknown",
            "load library failed: libnvidia-ml.so.1: cannot open shared object file: no such file or directory",
        ),
        (
            'error gathering device information while adding custom device "/dev/kfd": no such file or directory',
            "/dev/kfd does not exist",
        ),
        ("invalid mount config: bind source path does not exist: /nowhere/m.gguf", "/nowhere/m.gguf"),
        ("exec /app/llama-server: exec format error", "another processor"),
        ("write /var/lib/docker/x: no space left on device", "disk"),
        ("Error: No such image: img:1", "image is not on this host"),
        ("Error response from daemon: Minimum memory limit allowed is 6MB", "smaller than docker allows"),
        ("something new", "docker refuses"),
    ],
)
def test_dockers_own_refusals(said, words):
    assert words in docker_refused(said).diagnosis["cause"]


def test_dockers_table_has_no_row_without_a_case():
    (mark,) = test_dockers_own_refusals.pytestmark
    hit = [row for row in DOCKER_FAILURES for said, _ in mark.args[1] if re.search(row.pattern, said)]
    assert [row.pattern for row in DOCKER_FAILURES if row not in hit] == []


def test_a_memory_kill_is_explained_before_the_log():
    found = explain_death({"OOMKilled": True, "ExitCode": 137}, "loading model", llama_server, "64m")
    assert "memory limit (64m)" in found["cause"]


def test_an_unknown_death_keeps_the_last_line():
    found = explain_death({"ExitCode": 3}, "first\nlast words\n", llama_server, "")
    assert found["evidence"] == "last words"
    assert "exit code 3" in found["cause"]


@pytest.mark.parametrize("code", EXIT_CODES)
def test_a_silent_death_is_explained_by_its_exit_code(code):
    found = explain_death({"ExitCode": code}, "last words\n", llama_server, "")
    assert found["cause"], found["fix"] == EXIT_CODES[code]
    assert found["evidence"] == f"exit code {code}; last words"


def test_the_log_says_more_than_the_exit_code():
    assert (
        "does not know the argument"
        in explain_death({"ExitCode": 137}, "error: invalid argument: -x", llama_server, "")["cause"]
    )


def test_phases_follow_the_log():
    assert phase_of("", llama_server.PHASES).name == "starting"
    assert phase_of("srv load_model: loading model '/models/m.gguf'", llama_server.PHASES).name == "loading model"
