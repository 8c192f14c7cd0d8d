"""What a service says about the work of its engine reaches the real llama-server, and does what it says."""

from __future__ import annotations

import io
import json
import math
import re
import struct
import subprocess
import typing as t
import urllib.request
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import gguf, tiny_gguf
from ansible.module_utils.llmfleet.engines import llama_server
from ansible.module_utils.llmfleet.service_fields import KEYS
from helpers import docker, free_port, run_module

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
PROMPT = [{"role": "user", "content": "Say hello."}]
SENTENCE = "Hello from llmfleet: this tiny model answers"


class Run:
    """Runs llm_service for one service of a test."""

    def __init__(self, name: str, image: str, model: Path, folder: Path) -> None:
        self.name, self.image, self.model, self.folder, self.port = name, image, model, folder, free_port()

    def __call__(self, *, model: Path | None = None, level: str = "token", **fields: t.Any) -> dict[str, t.Any]:
        model = model or self.model
        service = {"name": self.name, "model": str(model), "port": self.port, "context_length": 512}
        return run_module(
            "llm_service",
            {
                "service": {**service, "verify": {"level": level}, **fields},
                "image": self.image,
                "model_path": str(model),
                "more_paths": {key: fields[key] for key in ("draft_model", "mmproj") if key in fields},
                "directory": str(self.folder / "services"),
            },
        )

    def ask(self, path: str, **content: t.Any) -> t.Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps({"model": self.name, **content}).encode() if content else None,
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def chat(self, **content: t.Any) -> t.Any:
        return self.ask("/v1/chat/completions", messages=PROMPT, **content)

    def argv(self) -> list[str]:
        return list(json.loads(docker("container", "inspect", "-f", "{{json .Args}}", self.name)))


@pytest.fixture
def service(request, tmp_path, image, tiny):
    made = Run(f"test-options-{abs(hash(request.node.nodeid)) % 10**8}", image, tiny, tmp_path)
    tmp_path.chmod(0o755)
    yield made
    for suffix in ("", ".previous", ".next"):
        subprocess.run(["docker", "rm", "-f", made.name + suffix], capture_output=True, check=False)


def write(path: Path, content: str) -> str:
    path.write_text(content)
    path.chmod(0o644)
    return str(path)


def small(path: Path) -> str:
    """Write a model of the same vocabulary with one layer."""
    with path.open("wb") as file:
        tiny_gguf.write(file, layers=1)
    path.chmod(0o644)
    return str(path)


def failure(result: dict[str, t.Any]) -> str:
    return "\n".join([result["msg"], *result.get("log_tail", [])])


def in_parts(model: Path, folder: Path) -> Path:
    """Split a model into two files as llama-gguf-split does, and return the first, which has all that describes it."""
    content = model.read_bytes()
    tensors = gguf.read_header(io.BytesIO(content), len(content)).tensors
    rows = [_text(one.name) + struct.pack(f"<I{len(one.dims)}Q", len(one.dims), *one.dims) for one in tensors]
    keys_end = content.index(rows[0])
    # each row ends in its type and its place
    start = _padded(keys_end + sum(len(row) + 12 for row in rows))
    half = len(tensors) // 2
    for number, part in enumerate((range(half), range(half, len(tensors)))):
        split = [
            ("split.no", 2, "H", number),
            ("split.count", 2, "H", 2),
            ("split.tensors.count", 5, "i", len(tensors)),
        ]
        pairs = [_text(key) + struct.pack(f"<I{kind}", code, value) for key, code, kind, value in split]
        count = struct.unpack_from("<Q", content, 16)[0] if number == 0 else 0
        out = struct.pack("<4sIQQ", b"GGUF", 3, len(part), count + len(pairs))
        out += (content[24:keys_end] if number == 0 else b"") + b"".join(pairs)
        data = b""
        for place in part:
            out += rows[place] + struct.pack("<IQ", 0, len(data))
            length = 4 * math.prod(tensors[place].dims)
            offset = start + sum(_padded(4 * math.prod(one.dims)) for one in tensors[:place])
            data += content[offset : offset + length].ljust(_padded(length), b"\0")
        file = folder / f"split-{number + 1:05d}-of-00002.gguf"
        file.write_bytes(out.ljust(_padded(len(out)), b"\0") + data)
        file.chmod(0o644)
    return folder / "split-00001-of-00002.gguf"


def adapter(path: Path) -> str:
    """Write a LoRA adapter for the tiny model that changes nothing: its second matrix is zero."""
    texts = [("general.type", "adapter"), ("general.architecture", "llama"), ("adapter.type", "lora")]
    pairs = [_text(key) + struct.pack("<I", 8) + _text(value) for key, value in texts]
    pairs.append(_text("adapter.lora.alpha") + struct.pack("<If", 6, 1.0))
    tensors = [("blk.0.attn_q.weight.lora_a", (64, 4)), ("blk.0.attn_q.weight.lora_b", (4, 64))]
    out = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs)
    for number, (name, dims) in enumerate(tensors):
        out += _text(name) + struct.pack("<IQQIQ", 2, *dims, 0, number * 1024)
    path.write_bytes(out.ljust(_padded(len(out)), b"\0") + bytes(2048))
    path.chmod(0o644)
    return str(path)


def _padded(length: int) -> int:
    return -(-length // 32) * 32


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def test_the_real_server_takes_every_field(service, tmp_path):
    """All fields of the table that go together, in one start; a flag that does not exist would end it."""
    fields: dict[str, t.Any] = {
        "split_mode": "layer",
        "tensor_split": "3,1",
        "main_gpu": 0,
        "cpu_moe_layers": 999,
        "threads": 2,
        "threads_batch": 2,
        "batch_size": 256,
        "ubatch_size": 128,
        "flash_attention": True,
        "prefix_caching": True,
        "cache_ram": 0,
        "cache_type": "f32",
        "load_mode": "none",
        "numa": "distribute",
        "max_tokens": 7,
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0.05,
        "repetition_penalty": 1.0,
        "seed": 42,
        "jinja": True,
        "chat_template": write(tmp_path / "chat.jinja", TEMPLATE),
        "reasoning_format": "none",
        "reasoning_budget": 0,
        "grammar": 'root ::= "Hello" [^\\n]*',
        "draft_model": small(tmp_path / "draft.gguf"),
        "draft_tokens": 4,
        "lora": [f"mine={adapter(tmp_path / 'adapter.gguf')}"],
        "log_level": "debug",
        "cpus": 1.5,
    }
    own = {name for name, option in llama_server.OPTIONS.items() if option.own}
    # these need a model that is made for it, and are tested below
    assert set(llama_server.OPTIONS) - own - set(fields) == {"task", "pooling", "mmproj"}
    assert set(fields) <= set(KEYS)

    launched = service(**fields)
    assert not launched.get("failed"), failure(launched)
    same = service(**fields)
    assert not same["changed"], same["why"]

    props = service.ask("/props")
    assert props["chat_template"] == TEMPLATE
    params = props["default_generation_settings"]["params"]
    assert (params["temperature"], params["top_k"], params["seed"]) == (0, 20, 42)
    assert math.isclose(params["top_p"], 0.9, rel_tol=1e-5)
    reply = service.chat()
    assert reply["usage"]["completion_tokens"] == 7
    assert reply["choices"][0]["message"]["content"].startswith("Hello")
    assert reply["timings"]["draft_n"] > 0
    assert docker("container", "inspect", "-f", "{{.HostConfig.NanoCpus}}", service.name).strip() == "1500000000"

    # the adapter is loaded, and a file that changed is a new specification though its path is the same
    assert [row["path"] for row in service.ask("/lora-adapters")] == ["/files/lora/mine/own/adapter.gguf"]
    write(tmp_path / "chat.jinja", TEMPLATE + "!")
    changed = service(**fields)
    assert (changed["action"], changed["why"].partition(":")[0]) == ("replace", "files"), changed
    assert service.ask("/props")["chat_template"] == TEMPLATE + "!"


def test_embeddings_are_vectors_of_whole_texts(service):
    launched = service(task="embed", pooling="mean", context_length=2048, level="model")
    assert not launched.get("failed"), failure(launched)
    # more tokens than the 512 that the server computes at once unless told so
    reply = service.ask("/v1/embeddings", input=["hello", "hello world " * 100])
    assert reply["usage"]["prompt_tokens"] > 600
    rows = reply["data"]
    assert [len(row["embedding"]) for row in rows] == [64, 64]
    assert all(math.isclose(math.hypot(*row["embedding"]), 1.0, rel_tol=1e-3) for row in rows)
    assert rows[0]["embedding"] != rows[1]["embedding"]
    argv = service.argv()
    assert [argv[argv.index(flag) + 1] for flag in ("--batch-size", "--ubatch-size")] == ["2048", "2048"]
    label = json.loads(
        docker("container", "inspect", "-f", '{{index .Config.Labels "io.llmfleet.spec"}}', service.name)
    )
    assert label["task"] == "embed"


def test_documents_are_put_in_order(service):
    launched = service(task="rerank", level="model")
    assert not launched.get("failed"), failure(launched)
    rows = service.ask("/v1/rerank", query="hello", documents=["hello there", "good bye"])["results"]
    scores = [row["relevance_score"] for row in rows]
    assert sorted(row["index"] for row in rows) == [0, 1]
    assert all(math.isfinite(score) for score in scores)
    assert scores == sorted(scores, reverse=True)


def test_a_template_and_a_grammar_may_stand_in_the_inventory(service):
    launched = service(chat_template="chatml", grammar='root ::= "42"', level="model")
    assert not launched.get("failed"), failure(launched)
    assert "<|im_start|>" in service.ask("/props")["chat_template"]
    assert service.chat()["choices"][0]["message"]["content"] == "42"
    changed = service(chat_template=TEMPLATE, jinja=True)
    assert changed.get("action") == "replace", changed
    assert service.ask("/props")["chat_template"] == TEMPLATE
    assert service.chat()["choices"][0]["message"]["content"].startswith(SENTENCE[:5])


def test_a_model_in_parts_is_served_with_a_draft_in_parts(service, tmp_path):
    """Parts find each other by name, wherever the container sees them."""
    first = in_parts(service.model, tmp_path)
    launched = service(model=first, draft_model=str(first), draft_tokens=4)
    assert not launched.get("failed"), failure(launched)
    assert service.chat(max_tokens=8)["timings"]["draft_n"] > 0


def test_what_the_model_needs_beside_it_has_to_be_there(service, tmp_path):
    for fields, words in (
        ({"draft_model": str(tmp_path / "none.gguf")}, "draft_model"),
        ({"chat_template": str(tmp_path / "none.jinja")}, "there is no such file on this host"),
        ({"lora": [str(tmp_path / "none.gguf")]}, "there is no such file on this host"),
    ):
        refused = service(**fields)
        assert refused["failed"]
        assert words in refused["msg"]
        assert "\n" not in refused["msg"]
    secret = tmp_path / "secret.jinja"
    write(secret, TEMPLATE)
    secret.chmod(0o600)
    assert "`chmod o+r` it" in service(chat_template=str(secret))["msg"]
    assert not docker("ps", "--all", "--quiet", "--filter", f"name={service.name}")


@pytest.mark.parametrize("flags", [sorted(llama_server.OWNED_FLAGS)], ids=["owned"])
def test_flags_that_are_refused_in_favour_of_a_field_exist(image, flags):
    """A flag nobody has would make the refusal puzzling; short forms of old builds may be missing."""
    shown = docker("run", "--rm", image, "--help")
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", shown))
    gone = {"-hfd", "-hfrd", "--hf-repo-draft"}
    assert {flag for flag in flags if flag not in known} <= gone


def test_flags_that_were_removed_are_none_of_the_real_server(image):
    removed = [
        flag for flag, why in llama_server.REFUSED_FLAGS.items() if "was removed" in why or "no such flag" in why
    ]
    assert len(removed) > 10
    for flag in removed:
        argv = ["docker", "run", "--rm", "--network", "none", image, "--model", "/none.gguf", flag, "1"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        said = done.stdout + done.stderr
        assert "invalid argument" in said or "has been removed" in said, (flag, said)
