"""Provoke llama-server's failures for real: what it prints must be what the failure table recognises.

Rows about GPUs cannot be provoked without one; tests/unit/failure_lines.py holds their recorded lines.
"""

from __future__ import annotations

import struct
import subprocess

import pytest
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.engines.base import diagnose

TINY = ("--model", "/models/tiny.gguf")


def split(whole: bytes, number: int) -> bytes:
    """Return a GGUF that says it is one of two parts."""
    inserted = b""
    for name, value in (("no", number), ("count", 2)):
        key = f"split.{name}".encode()
        inserted += struct.pack("<Q", len(key)) + key + struct.pack("<IH", 2, value)
    key = b"split.tensors.count"
    inserted += struct.pack("<Q", len(key)) + key + struct.pack("<Ii", 5, 1000)
    # the tensors behind stay where 32 divides their place
    padding = b"x" * (-(len(inserted) + 8 + 1 + 4 + 8) % 32)
    inserted += struct.pack("<Q", 1) + b"p" + struct.pack("<IQ", 8, len(padding)) + padding
    (pairs,) = struct.unpack_from("<Q", whole, 16)
    return whole[:16] + struct.pack("<Q", pairs + 4) + inserted + whole[24:]


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
        "second-00002-of-00002.gguf": split(whole, 1),
        "lone-00001-of-00002.gguf": split(whole, 0),
        "renamed.gguf": split(whole, 0),
        "tensor.gguf": whole.replace(b"output_norm", b"output_zzzz"),
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o000 if name == "unreadable.gguf" else 0o644)
    (folder / "tiny.gguf").write_bytes(whole)
    return folder


def serve(image, folder, *argv, limit=-1):
    """Run llama-server until it ends and return (exit code, what it printed); ``limit``: bytes it may allocate."""
    command = ["docker", "run", "--rm", "--user", "10001:10001", "--network", "none", "--memory", "1g"]
    command += ["--memory-swap", "1g", "--ulimit", f"data={limit}", "--volume", f"{folder}:/models:ro", image, *argv]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "/models/second-00002-of-00002.gguf"], "(index 1), not its first part"),
        (["--model", "/models/lone-00001-of-00002.gguf"], "missing or renamed (/models/lone-00002-of-00002.gguf"),
        (["--model", "/models/renamed.gguf"], "missing or renamed (/models/renamed.gguf"),
        (["--model", "/models/tensor.gguf"], "could not load the model"),
        ([*TINY, "--lora", "/models/tiny.gguf"], "LoRA adapter /models/tiny.gguf cannot be loaded"),
        ([*TINY, "--mmproj", "/models/tiny.gguf"], "projector /models/tiny.gguf cannot be loaded"),
        ([*TINY, "--model-draft", "/models/tensor.gguf"], "draft model /models/tensor.gguf cannot be loaded"),
        ([*TINY, "--chat-template", "{{ bad"], "chat template has an error"),
        ([*TINY, "--cache-type-v", "q8_0", "--flash-attn", "off"], "needs flash attention"),
        ([*TINY, "--cache-type-k", "q8_0"], "heads (16 numbers) cannot be kept in a cache of type q8_0"),
        ([*TINY, "--grammar", "root ::= ("], "grammar has an error"),
        ([*TINY, "--ssl-key-file", "/models/page.gguf", "--ssl-cert-file", "/models/page.gguf"], "does no TLS"),
        (["--model", "/models/unreadable.gguf"], "may not read the model file"),
        (["--model", "/models/missing.gguf"], "is not there inside the container"),
        (["--model", "/models/page.gguf"], "not a GGUF (it begins with '<!do')"),
        (["--model", "/models/empty.gguf"], "truncated or corrupt"),
        (["--model", "/models/short-header.gguf"], "truncated or corrupt"),
        (["--model", "/models/short-data.gguf"], "truncated or corrupt"),
        (["--model", "/models/zzzzz.gguf"], "does not know the model architecture zzzzz"),
        (["--model", "/models/v99.gguf"], "has GGUF version 99"),
        ([*TINY, "--no-such-flag"], "does not know the argument --no-such-flag"),
        ([*TINY, "-c", "many"], "refuses the value of -c"),
        ([*TINY, "--device", "CUDA0"], "has no device CUDA0"),
        ([*TINY, "--draft", "4"], "was removed"),
        ([*TINY, "--host", "192.0.2.1", "--port", "8080"], "port 8080 is taken"),
    ],
)
def test_the_real_server_prints_what_the_table_recognises(image, files, argv, words):
    code, log = serve(image, files, *argv)
    assert code != 0
    found = diagnose(log, llama_server.FAILURES)
    assert found is not None, log
    assert words in found["cause"], log


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([*TINY, "--ctx-size", "4000000"], "the context does not fit into memory"),
        (["--model", "/models/big.gguf", "--load-mode", "none"], "the model does not fit into memory"),
    ],
)
def test_memory_that_is_refused_is_told_apart(image, files, big_model, argv, words):
    (files / "big.gguf").write_bytes(big_model.read_bytes())
    code, log = serve(image, files, *argv, "--fit", "off", limit=100 << 20)
    assert code != 0
    found = diagnose(log, llama_server.FAILURES)
    assert found is not None, log
    assert words in found["cause"], log
