"""What a container sees beside its model: where it is, and how a change of it is noticed."""

from __future__ import annotations

import pytest
import tiny_hf
from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.beside import look
from ansible.module_utils.llmfleet.engines import llama_server, vllm
from ansible.module_utils.llmfleet.engines.base import Mount
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.services import parse

RAW = {"name": "chat", "model": "/models/chat.gguf", "port": 8080}


def write(path, content="{{ messages }}"):
    path.write_text(content)
    path.chmod(0o644)
    return str(path)


def test_a_service_that_needs_nothing_has_nothing():
    assert look(llama_server, parse(RAW), {}, False).mounts == ()
    assert look(llama_server, parse(RAW), {}, False).fingerprints == {}


def test_a_file_is_mounted_and_its_content_is_known(tmp_path):
    path = write(tmp_path / "chat.jinja")
    service = parse({**RAW, "chat_template": path})
    first = look(llama_server, service, {}, False)
    assert first.mounts == (Mount(path, "/files/chat_template/own/chat.jinja"),)
    write(tmp_path / "chat.jinja", "{{ messages[0] }}")
    second = look(llama_server, service, {}, False)
    assert first.fingerprints.keys() == second.fingerprints.keys()
    assert first.fingerprints != second.fingerprints


def test_a_second_gguf_has_a_place_of_its_own(tmp_path):
    path = tmp_path / "small.gguf"
    with path.open("wb") as file:
        tiny_gguf.write(file, layers=1)
    path.chmod(0o644)
    found = look(llama_server, parse({**RAW, "draft_model": "o/r"}), {"draft_model": str(path)}, False)
    assert found.inside == {"draft_model": "/files/draft_model/own/small.gguf"}
    assert found.mounts == (Mount(str(path), "/files/draft_model/own/small.gguf"),)


def test_a_second_folder_of_links_brings_what_they_point_at(tmp_path):
    whole = tiny_hf.write(tmp_path / "blobs")
    folder = tmp_path / "snapshots" / "0123"
    folder.mkdir(parents=True)
    for file in whole.iterdir():
        (folder / file.name).symlink_to(f"../../blobs/{file.name}")
    service = parse({**RAW, "engine": "vllm", "model": "o/r", "draft_model": "o/small"})
    found = look(vllm, service, {"draft_model": str(folder)}, False)
    # not /blobs, where the model itself may have its own
    assert found.mounts == (
        Mount(str(folder), "/files/draft_model/own/0123"),
        Mount(str(whole), "/files/draft_model/blobs"),
    )


def test_an_adapter_may_be_a_folder(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    write(folder / "adapter_config.json", "{}")
    service = parse({**RAW, "engine": "vllm", "model": "o/r", "lora": [f"mine={folder}"]})
    first = look(vllm, service, {}, False)
    assert first.mounts == (Mount(str(folder), "/files/lora/mine/own/adapter"),)
    write(folder / "adapter_model.safetensors", "x")
    assert look(vllm, service, {}, False).fingerprints != first.fingerprints


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"service chat: /none\.jinja: there is no such file on this host"):
        look(llama_server, parse({**RAW, "chat_template": "/none.jinja"}), {}, False)
    service = parse({**RAW, "draft_model": "o/r"})
    with pytest.raises(BadInput, match="service chat: `more_paths` does not say where the model of `draft_model` is"):
        look(llama_server, service, {}, False)
    with pytest.raises(BadInput, match="service chat: draft_model o/r: there is no such file"):
        look(llama_server, service, {"draft_model": str(tmp_path / "none.gguf")}, False)
    # a plan on a new host, before the model has come
    foreseen = look(llama_server, service, {"draft_model": str(tmp_path / "none.gguf")}, True)
    assert (foreseen.inside, foreseen.mounts) == ({"draft_model": "/files/draft_model/own/none.gguf"}, ())


def test_what_the_engine_may_not_read_is_named(tmp_path):
    path = tmp_path / "chat.jinja"
    write(path)
    path.chmod(0o600)
    with pytest.raises(BadInput, match=r"the user 10001 that engines run as may not read it; `chmod o\+r` it"):
        look(llama_server, parse({**RAW, "chat_template": str(path)}), {}, False)
