"""What a host's services may take of its memory, one after the other."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.memory.terms import RAM, Need, Verdict
from ansible.module_utils.llmfleet.memory_room import MemoryRoom, ask_of, limit_of
from ansible.module_utils.llmfleet.services import parse
from facts import gpu, host

GIB = 1 << 30
CARD = gpu("RTX", "8.6", index=1, memory_total_bytes=24 * GIB)


def service(**fields):
    return parse({"name": "chat", "model": "tiny", "port": 8080, **fields})


def room_of(*gpus, **facts):
    return MemoryRoom(host("distro", **facts)).room(gpus)


def test_on_the_cpu_there_is_ram():
    room = room_of()
    assert (room.devices, room.ram_total, room.ram_used) == ((), 32 * GIB, 0)


def test_a_gpu_is_called_by_its_index_and_has_what_the_driver_says():
    room = room_of(CARD, {**CARD, "index": 0, "memory_total_bytes": None, "memory_mib": 8192})
    assert [(one.name, one.total) for one in room.devices] == [("GPU 1", 24 * GIB), ("GPU 0", 8 * GIB)]
    assert room.ram_total == 32 * GIB
    assert [one.name for one in room_of(CARD, {**CARD, "index": None}).devices] == ["GPU 0", "GPU 1"]


@pytest.mark.parametrize(
    ("gpus", "facts"),
    [([{**CARD, "memory_total_bytes": None}], {}), ([], {"machine": {"memory_bytes": 0}})],
)
def test_of_what_is_not_known_nothing_is_said(gpus, facts):
    assert room_of(*gpus, **facts) is None


def test_unified_memory_is_one_pool():
    assert room_of({**CARD, "unified_memory": True}).unified
    assert not room_of(CARD).unified


def test_what_one_service_takes_the_next_does_not_have():
    memory = MemoryRoom(host("distro"))
    memory.take(Verdict(True, needs={"GPU 1": Need(weights=5 * GIB, kv=GIB), RAM: Need(overhead=GIB)}))
    memory.take(Verdict(True, needs={"GPU 1": Need(compute=GIB)}))
    room = memory.room([CARD])
    assert (room.devices[0].used_by_others, room.devices[0].room, room.ram_used) == (7 * GIB, 17 * GIB, GIB)


@pytest.mark.parametrize(
    ("memory", "limit"), [("", 0), ("512m", 512 << 20), ("8g", 8 << 30), ("100k", 102400), ("7b", 7)]
)
def test_the_limit_of_a_container_is_read_as_docker_does(memory, limit):
    assert limit_of(service(memory=memory)) == limit


def test_what_the_user_set_is_asked_and_the_rest_left_open():
    ask = ask_of(service(context_length=2048, parallel=3, gpu_layers=7, cache_ram=0, args=["--swa-full"], memory="1g"))
    assert (ask.engine, ask.context_length, ask.parallel, ask.gpu_layers) == ("llama_server", 2048, 3, 7)
    assert (ask.args, ask.memory, ask.cache_type) == (("--cache-ram", "0", "--swa-full"), GIB, "")


def test_other_models_of_a_service_are_no_memory_of_its_own():
    said = ask_of(service(draft_model="/models/small.gguf", mmproj="/models/eyes.gguf", flash_attention=False)).args
    assert said == ("--flash-attn", "off")
