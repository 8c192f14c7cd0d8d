"""Provoke llama-server's failures for real: what it prints must be what the failure table recognises.

Rows about GPUs cannot be provoked without one; tests/unit/test_diagnosis.py holds their recorded lines.
"""

from __future__ import annotations

import subprocess

import pytest
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.engines.base import diagnose


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny):
    """A folder of models, each broken in its own way."""
    folder = tmp_path_factory.mktemp("broken")
    folder.chmod(0o755)
    whole = tiny.read_bytes()
    broken = {
        "unreadable.gguf": whole,
        "page.gguf": b"<!doctype html>" + bytes(2000),
        "empty.gguf": b"",
        "short-header.gguf": whole[:200],
        "short-data.gguf": whole[:-5000],
        "zzzzz.gguf": whole.replace(b"llama", b"zzzzz"),
        "v99.gguf": whole[:4] + (99).to_bytes(4, "little") + whole[8:],
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o000 if name == "unreadable.gguf" else 0o644)
    (folder / "tiny.gguf").write_bytes(whole)
    return folder


def serve(image, folder, *argv, memory="1g"):
    """Run llama-server until it ends and return (exit code, everything it printed)."""
    command = ["docker", "run", "--rm", "--user", "10001:10001", "--network", "none", "--memory", memory]
    command += ["--memory-swap", memory, "--volume", f"{folder}:/models:ro", image, *argv]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "/models/unreadable.gguf"], "may not read the model file"),
        (["--model", "/models/missing.gguf"], "is not there inside the container"),
        (["--model", "/models/page.gguf"], "not a GGUF (it begins with '<!do')"),
        (["--model", "/models/empty.gguf"], "truncated or corrupt"),
        (["--model", "/models/short-header.gguf"], "truncated or corrupt"),
        (["--model", "/models/short-data.gguf"], "truncated or corrupt"),
        (["--model", "/models/zzzzz.gguf"], "does not know the model architecture zzzzz"),
        (["--model", "/models/v99.gguf"], "has GGUF version 99"),
        (["--model", "/models/tiny.gguf", "--no-such-flag"], "does not know the argument --no-such-flag"),
        (["--model", "/models/tiny.gguf", "-c", "many"], "refuses the value of -c"),
        (["--model", "/models/tiny.gguf", "--device", "CUDA0"], "has no device CUDA0"),
        (["--model", "/models/tiny.gguf", "--draft", "4"], "was removed"),
        (["--model", "/models/tiny.gguf", "--host", "192.0.2.1", "--port", "8080"], "port 8080 is taken"),
    ],
)
def test_the_real_server_prints_what_the_table_recognises(image, files, argv, words):
    code, log = serve(image, files, *argv)
    assert code != 0
    found = diagnose(log, llama_server.FAILURES)
    assert found is not None, log
    assert words in found["cause"], log
