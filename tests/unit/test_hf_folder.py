"""Folders in Hugging Face format: whole ones, hub caches with their links, and what users point at by mistake."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import typing as t
from pathlib import Path

import pytest
import tiny_hf
from ansible.module_utils.llmfleet import hf_folder, safetensors_header
from ansible.module_utils.llmfleet.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

UID = os.getuid() if os.getuid() else 10001


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf.write(tmp_path_factory.mktemp("hf") / "model", layers=1, dim=32, shards=2)


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def read(path: Path, target: str = "/in/model") -> hf_folder.HfFolder:
    return hf_folder.read(str(path), target, reader_uid=UID)


def test_what_a_folder_says(model: Path) -> None:
    found = read(model)
    assert found.architecture == "LlamaForCausalLM"
    assert found.native == "F32"
    assert found.weight_count == 37152
    assert found.size == sum(file.stat().st_size for file in model.glob("*.safetensors"))
    assert found.folders == ((str(model), "/in/model"),)


def test_the_fingerprint_follows_what_a_converter_reads(model: Path) -> None:
    before = read(model).fingerprint
    (model / "README.md").write_text("new words")
    (model / "model-Q4_K_M.gguf").write_bytes(b"our own result")
    (model / ".cache").mkdir()
    (model / ".cache/x").write_text("x")
    assert read(model).fingerprint == before
    weights = next(model.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert read(model).fingerprint != before


def test_a_hub_cache_shows_where_its_links_lead(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "models--org--tiny"
    blobs, snapshot = root / "blobs", root / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    elsewhere = tmp_path / "store"
    elsewhere.mkdir()
    for number, file in enumerate(sorted(model.iterdir())):
        if number == 0:  # a link by its full path, as some tools make them
            (elsewhere / "blob").write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(elsewhere / "blob")
        else:
            (blobs / f"b{number}").write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(f"../../blobs/b{number}")
    found = hf_folder.read(str(snapshot), f"/in{snapshot}", reader_uid=UID)
    assert found.fingerprint == read(model).fingerprint
    assert {shown: host for host, shown in found.folders} == {
        f"/in{snapshot}": str(snapshot),
        f"/in{blobs}": str(blobs),
        str(elsewhere): str(elsewhere),
    }


def remove(name: str) -> t.Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def put(name: str, text: str) -> t.Callable[[Path], None]:
    return lambda model: (model / name).write_text(text) and None


def cut(name: str) -> t.Callable[[Path], None]:
    return lambda model: os.truncate(model / name, (model / name).stat().st_size - 5)


SHARD = "model-00002-of-00002.safetensors"


def no_weights(model: Path) -> None:
    for file in model.glob("model*"):
        file.unlink()


def in_a_cache(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "snapshots").mkdir()


def one_down(model: Path) -> None:
    (model / "real").mkdir()
    (model / "config.json").rename(model / "real/config.json")


def dead_link(model: Path) -> None:
    (model / SHARD).unlink()
    (model / SHARD).symlink_to("../gone")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (remove("config.json"), "the folder has no config.json; name the folder of a whole model"),
        (one_down, "did you mean .*model/real"),
        (in_a_cache, "it is a hub cache, name the folder below .*snapshots"),
        (
            lambda model: (remove("config.json")(model), put("a.gguf", "x")(model)),
            "holds GGUF files; name the file itself",
        ),
        (lambda model: (remove("config.json")(model), put("adapter_config.json", "x")(model)), "a LoRA adapter"),
        (
            lambda model: (remove("config.json")(model), put("params.json", "x")(model)),
            "Mistral's or Meta's own format",
        ),
        (put("config.json", "{"), "config.json is no valid JSON"),
        (put("config.json", "[]"), "config.json is no JSON object"),
        (put("config.json", "version https://git-lfs.github.com/spec/v1\n"), "config.json is a git LFS pointer"),
        (put("config.json", "{}"), "names no `architectures`"),
        (remove(SHARD), rf"{SHARD} is missing \(1 of 2 weight files\); finish the download"),
        (dead_link, f"{SHARD} is a link to .*gone, which is not there"),
        (cut(SHARD), f"{SHARD} is cut off: it needs"),
        (put(SHARD, ""), f"{SHARD} is no safetensors file or is cut off"),
        (put(SHARD, "version https://git-lfs.github.com/spec/v1\noid"), f"{SHARD} is a git LFS pointer"),
        (put("model.safetensors.index.json", '{"weight_map": 3}'), "no usable `weight_map`"),
        (no_weights, "the folder has no weights"),
    ],
)
def test_a_mistake_is_named(model: Path, spoil: t.Callable[[Path], t.Any], sentence: str) -> None:
    spoil(model)
    with pytest.raises(BadInput, match=sentence):
        read(model)


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such folder"):
        read(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="neither a GGUF file nor a folder"):
        read(tmp_path / "file")


@pytest.mark.parametrize("name", ["config.json", SHARD])
def test_files_that_the_converter_may_not_read(model: Path, name: str) -> None:
    (model / name).chmod(0o600)
    with pytest.raises(BadInput, match=f"{name} has mode 0600, so the user 54321 may not read it"):
        hf_folder.read(str(model), "/in", reader_uid=54321)


def test_a_folder_that_the_converter_may_not_enter(model: Path) -> None:
    model.chmod(0o700)
    with pytest.raises(BadInput, match=r"may not be read by the user 54321; `chmod o\+rx`"):
        hf_folder.read(str(model), "/in", reader_uid=54321)


def test_the_old_format_is_estimated(model: Path) -> None:
    for file in model.glob("model*"):
        file.unlink()
    (model / "pytorch_model.bin").write_bytes(bytes(1000))
    (model / "training_args.bin").write_bytes(bytes(10))
    found = read(model)
    assert (found.size, found.weight_count, found.native) == (1000, 500, "F16")


def header(tensors: dict[str, t.Any]) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def test_the_commonest_type_counts(model: Path) -> None:
    for file in model.glob("model*"):
        file.unlink()
    rows = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F8_E4M3", "shape": [3, 3], "data_offsets": [8, 17]},
    }
    (model / "model.safetensors").write_bytes(header(rows) + bytes(17))
    assert (read(model).native, read(model).weight_count) == ("BF16", 11)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_counted_or_refused(data: bytes) -> None:
    try:
        counts = safetensors_header.count_weights(io.BytesIO(data), len(data))
    except BadInput:
        return
    assert all(isinstance(count, int) for count in counts.values())
