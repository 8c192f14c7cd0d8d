"""Each row of the failure tables recognises the line it stands for."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.engines.base import diagnose, phase_of
from ansible.module_utils.llmfleet.container_failures import DOCKER_FAILURES, EXIT_CODES, explain_death
from ansible.module_utils.llmfleet.watch import docker_refused

# what real servers printed, one line a row, in the order of FAILURES
LLAMA_SERVER_LINES = [
    ("E gguf_init_from_file: failed to open GGUF file '/models/m.gguf' (Permission denied)", "may not read"),
    ("E gguf_init_from_file: failed to open GGUF file '/models/m.gguf' (No such file or directory)", "is not there"),
    ("gguf_init_from_reader: invalid magic characters: '<!do', expected 'GGUF'", "begins with '<!do'"),
    ("gguf_init_from_reader: failed to read magic", "truncated or corrupt"),
    ("llama_model_load: error loading model: unknown model architecture: 'zzzzz'", "architecture zzzzz"),
    ("this GGUF file is version 99 but this software only supports up to version 3", "version 99"),
    ("error loading model: illegal split file idx: 1 (file: m)", "index 1"),
    ("failed to load GGUF split from /models/a-00002-of-00002.gguf", "a-00002-of-00002.gguf"),
    ("error: invalid argument: --no-such-flag", "does not know the argument --no-such-flag"),
    ("the argument has been removed. use --spec-draft-n-max", "was removed"),
    ('error while handling argument "--device": invalid device: CUDA0', "no device CUDA0"),
    ('error while handling argument "-c": stoi', "refuses the value of -c (stoi)"),
    ("couldn't bind HTTP server socket, hostname: 0.0.0.0, port: 8080", "port 8080 is taken"),
    ("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory", "GPU has too little"),
    ("E failed to allocate buffer for kv cache", "context does not fit"),
    ("alloc_tensor_range: unable to allocate CPU buffer of size 1", "model does not fit"),
    ("CUDA error: no kernel image is available for execution on the device", "no code"),
    ("failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version", "driver is too old"),
    ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", "was given no GPU"),
    ("failed to initialize CUDA: system has unsupported display driver / cuda driver combination", "do not match"),
    ("ggml_cuda_init: failed to initialize ROCm: out of memory", "ROCm did not start: out of memory"),
    ("llama-server: error while loading shared libraries: libcuda.so.1: cannot open", "lacks libcuda.so.1"),
    ("Illegal instruction (core dumped)", "another processor"),
    ("error: something else", "something else"),
    ("E srv main: exiting due to model loading error", "could not load"),
]


def test_every_row_has_a_line():
    assert len(LLAMA_SERVER_LINES) == len(llama_server.FAILURES)


@pytest.mark.parametrize(("position", "line", "words"), [(i, *row) for i, row in enumerate(LLAMA_SERVER_LINES)])
def test_the_row_recognises_its_line(position, line, words):
    found = diagnose(f"something before\n{line}\nsomething after", [llama_server.FAILURES[position]])
    assert found is not None
    assert words in found["cause"]
    assert found["evidence"] == line
    assert found["fix"]


@pytest.mark.parametrize(("line", "words"), LLAMA_SERVER_LINES)
def test_the_whole_table_gives_the_most_precise_row(line, words):
    log = f"{line}\nE srv main: exiting due to model loading error"
    found = diagnose(log, llama_server.FAILURES)
    assert found is not None
    assert words in found["cause"]


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
    assert len(DOCKER_FAILURES) == 11


def test_a_memory_kill_is_explained_before_the_log():
    found = explain_death({"OOMKilled": True, "ExitCode": 137}, "loading model", llama_server, "64m")
    assert "memory limit (64m)" in found["cause"]


def test_an_unknown_death_keeps_the_last_line():
    found = explain_death({"ExitCode": 3}, "first\nlast words\n", llama_server, "")
    assert found["evidence"] == "last words"
    assert "exit code 3" in found["cause"]


def test_phases_follow_the_log():
    assert phase_of("", llama_server.PHASES).name == "starting"
    assert phase_of("srv load_model: loading model '/models/m.gguf'", llama_server.PHASES).name == "loading model"
