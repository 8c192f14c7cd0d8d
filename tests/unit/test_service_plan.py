"""Where each service will compute, how its container gets there, and why."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.closing_report import closing_report
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.memory.shape import Layer, Shape
from ansible.module_utils.llmfleet.memory.terms import Need, Verdict
from ansible.module_utils.llmfleet.memory_room import MemoryRoom
from ansible.module_utils.llmfleet.service_plan import plan_service
from ansible.module_utils.llmfleet.services import parse
from facts import gpu, host, nvidia

CPU_IMAGE = {"action": "build", "image": "llmfleet/llama.cpp:cpu-0", "variant": "cpu", "why": "no registry answers"}
CUDA_IMAGE = {**CPU_IMAGE, "image": "llmfleet/llama.cpp:cuda-0", "variant": "cuda", "architectures": ["86-real"]}
VENV = {"action": "build", "image": "/opt/v", "variant": "cpu", "why": "vllm_venv_variant is cpu"}
IN_VENV = {"engine": "vllm", "model": "o/r", "runtime": "venv", "device": "gpu"}
MODEL = {"action": "generate", "path": "/m/tiny.gguf", "gguf": {"context_length": 4096}}
WITH_3090 = nvidia("580.95.05", "13.0", gpu("NVIDIA GeForce RTX 3090", "8.6"))
TOOLKIT = {"action": "none", "state": "present", "cdi": False}


def of_bus(vendor, loaded=True):
    """Return a GPU as the PCI bus tells it."""
    return {"vendor": vendor, "name": f"{vendor} GPU 1002:1", "usable": False, "driver_loaded": loaded}


def other(vendor, loaded=True):
    return {"verdict": "none", "reason": "no NVIDIA GPU on the PCI bus", "gpus": [of_bus(vendor, loaded)]}


def plan(found=None, planned=CUDA_IMAGE, toolkit=TOOLKIT, **fields):
    service = parse({"name": "chat", "model": "tiny", "port": 8080, **fields})
    facts = host("distro", gpu=found or {})
    return plan_service(service, facts, toolkit, planned, MODEL, MemoryRoom(facts))


def test_a_gpu_image_on_a_host_with_a_gpu_is_a_service_on_the_gpu():
    row = plan(WITH_3090)
    assert (row["device"], row["gpus"]) == ("GPU: NVIDIA GeForce RTX 3090", "nvidia")
    assert row["why"] == "all layers; 1 NVIDIA GPU with driver 580.95.05"


def test_equal_gpus_are_counted():
    two = gpu("Tesla P40", "6.1")
    row = plan(nvidia("580", "13.0", two, two, gpu("NVIDIA GeForce RTX 3090", "8.6")))
    assert row["device"] == "GPU: 2x Tesla P40, NVIDIA GeForce RTX 3090"


def test_device_lists_are_used_where_the_toolkit_sets_them_up():
    assert plan(WITH_3090, toolkit={**TOOLKIT, "cdi": True})["gpus"] == "nvidia_cdi"


def test_planned_layers_are_said():
    assert plan(WITH_3090, gpu_layers=20)["why"].startswith("20 layers on the GPU, the others on the CPU; 1 NVIDIA GPU")


@pytest.mark.parametrize(
    ("gpus", "image", "fields", "gives", "why"),
    [
        (None, CPU_IMAGE, {}, "", "no NVIDIA GPU on the PCI bus"),
        (WITH_3090, CPU_IMAGE, {}, "", "1 NVIDIA GPU with driver 580.95.05; the image is for the CPU"),
        (WITH_3090, CPU_IMAGE, {"device": "cpu"}, "", "`device` is cpu"),
        # the programs of our image do not start without the driver's libraries
        (WITH_3090, CUDA_IMAGE, {"device": "cpu"}, "nvidia", "`device` is cpu"),
        (WITH_3090, CUDA_IMAGE, {"device": "cpu", "image": "example/server:1"}, "", "`device` is cpu"),
        (WITH_3090, CUDA_IMAGE, {"image": "ghcr.io/ggml-org/llama.cpp:server"}, "", "names no GPU back-end"),
    ],
)
def test_on_the_cpu_the_reason_is_given(gpus, image, fields, gives, why):
    row = plan(gpus, image, **fields)
    assert (row["device"], row["gpus"]) == ("CPU", gives)
    assert why in row["why"]


@pytest.mark.parametrize(
    ("gpus", "fields", "gives"),
    [
        (WITH_3090, {"image": "ghcr.io/ggml-org/llama.cpp:server-cuda13-b11206"}, "nvidia"),
        (WITH_3090, {"image": "example/server:1", "device": "gpu"}, "nvidia"),
        (WITH_3090, {"image": "ghcr.io/ggml-org/llama.cpp:server-vulkan"}, "nvidia"),
        (other("amd"), {"image": "ghcr.io/ggml-org/llama.cpp:server-vulkan"}, "amd"),
        (other("amd"), {"image": "ghcr.io/ggml-org/llama.cpp:server-rocm"}, "amd"),
        (other("intel"), {"image": "ghcr.io/ggml-org/llama.cpp:server-intel"}, "intel"),
        (other("moore_threads"), {"image": "ghcr.io/ggml-org/llama.cpp:server-musa"}, "moore_threads"),
    ],
)
def test_a_given_image_finds_its_gpu(gpus, fields, gives):
    row = plan(gpus, **fields)
    assert row["gpus"] == gives
    assert row["device"].startswith("GPU: ")


@pytest.mark.parametrize(
    ("gpus", "image", "toolkit", "fields", "words"),
    [
        (None, CUDA_IMAGE, TOOLKIT, {}, ["for NVIDIA GPUs", "no NVIDIA GPU on the PCI bus", "image_variant: cpu"]),
        (
            {**WITH_3090, "verdict": "no_driver", "reason": "the driver is not loaded", "gpus": [of_bus("nvidia")]},
            CUDA_IMAGE,
            TOOLKIT,
            {},
            ["none that can be used (the driver is not loaded)"],
        ),
        (other("amd", loaded=False), {**CUDA_IMAGE, "variant": "rocm"}, TOOLKIT, {}, ["for AMD GPUs"]),
        (WITH_3090, CUDA_IMAGE, TOOLKIT, {"image": "x/y:server-rocm"}, ["for AMD GPUs", "name an image for the CPU"]),
        (WITH_3090, CPU_IMAGE, TOOLKIT, {"device": "gpu"}, ["`device` is gpu", "cpu-0 is for the CPU", "`image`"]),
        (
            WITH_3090,
            VENV,
            {},
            IN_VENV,
            ["`device` is gpu", "environment /opt/v is for the CPU", "set vllm_venv_variant"],
        ),
        (
            None,
            {**VENV, "variant": "cuda"},
            {},
            IN_VENV,
            ["for NVIDIA GPUs", "or set vllm_venv_variant: cpu and leave"],
        ),
        (WITH_3090, CUDA_IMAGE, {"state": "absent"}, {}, ["nvidia_container_toolkit_state is absent"]),
        (WITH_3090, CPU_IMAGE, TOOLKIT, {"verify": {"level": "device"}}, ["`verify.level: device`", "for the CPU"]),
        (WITH_3090, CUDA_IMAGE, TOOLKIT, {"args": ["--log-disable"]}, ["`args` holds --log-disable"]),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(gpus, image, toolkit, fields, words):
    with pytest.raises(BadInput) as refusal:
        plan(gpus, image, toolkit, **fields)
    sentence = str(refusal.value)
    assert sentence.startswith("service chat: ")
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


def test_a_refused_image_is_complained_of_once():
    row = plan(None, {**CUDA_IMAGE, "action": "refuse", "image": "", "why": "driver 470 is too old"})
    assert (row["device"], row["gpus"], row["why"]) == ("", "", "driver 470 is too old")


def test_a_service_that_does_not_run_has_no_device():
    assert plan(WITH_3090, state="stopped")["device"] == ""


UUIDS = [f"GPU-{number}1111111-aaaa-4444-8888-000000000000" for number in range(3)]
THREE = nvidia(
    "580", "13.0", *({**gpu("Tesla P40", "6.1"), "index": index, "uuid": UUIDS[index]} for index in range(3))
)
VLLM_IMAGE = {"action": "pull", "image": "docker.io/vllm/vllm-openai:v1", "variant": "cuda"}


def test_a_service_gets_the_gpus_that_it_names_by_what_does_not_change():
    row = plan(THREE, gpus=[2, UUIDS[0]])
    assert (row["device"], row["gpu_ids"]) == ("GPU 0, 2: 2x Tesla P40", [UUIDS[0], UUIDS[2]])
    assert plan(THREE)["gpu_ids"] == []


@pytest.mark.parametrize(
    ("host_gpus", "image", "fields", "words"),
    [
        (THREE, CUDA_IMAGE, {"gpus": ["3"]}, ["names 3, and", f"0 (Tesla P40, {UUIDS[0]}"]),
        (THREE, CPU_IMAGE, {"gpus": ["0"]}, ["`gpus` chooses GPUs, and it would run on the CPU", "is for the CPU"]),
        (None, CPU_IMAGE, {"gpus": ["0"]}, ["would run on the CPU: no NVIDIA GPU on the PCI bus"]),
        (
            THREE,
            VLLM_IMAGE,
            {"engine": "vllm", "model": "org/m", "gpus": ["0"], "tensor_parallel": 2},
            ["`tensor_parallel` 2 needs more GPUs than there are: it gets 1 GPU; name more in `gpus`, or lower it"],
        ),
        (
            THREE,
            VLLM_IMAGE,
            {"engine": "vllm", "model": "org/m", "tensor_parallel": 4},
            ["`tensor_parallel` 4 needs more GPUs than there are: it gets 3 GPUs; lower it"],
        ),
        (
            THREE,
            VLLM_IMAGE,
            {"engine": "vllm", "model": "org/m", "tensor_parallel": 2, "pipeline_parallel": 2},
            ["`tensor_parallel` 2 times `pipeline_parallel` 2 needs more GPUs"],
        ),
        (THREE, CUDA_IMAGE, {"tensor_split": "1,1,1,1"}, ["`tensor_split` 1,1,1,1 needs more GPUs"]),
        (THREE, CUDA_IMAGE, {"gpus": ["2"], "main_gpu": 1}, ["`main_gpu` 1 (counted from 0) needs more GPUs"]),
    ],
)
def test_gpus_that_are_not_there_are_refused(host_gpus, image, fields, words):
    with pytest.raises(BadInput) as refusal:
        plan(host_gpus, image, **fields)
    for word in words:
        assert word in str(refusal.value)


def test_gpus_of_other_vendors_are_handed_over_one_by_one():
    two = {**other("amd"), "gpus": [{**of_bus("amd"), "pci_address": f"0000:0{place}:00.0"} for place in (3, 9)]}
    row = plan(two, image="ghcr.io/ggml-org/llama.cpp:server-rocm", gpus=["09:00.0"])
    assert (row["gpus"], row["gpu_ids"], row["device"][:5]) == ("amd", ["0000:09:00.0"], "GPU 1")


MIB = 1 << 20
LAYER = Layer(heads=32, kv_heads=8, key_length=128, value_length=128, weights=110 * MIB, ff=12288, work=3 * 12288)


def with_cards(sizes, layers=36, used=0, image=CUDA_IMAGE, **fields):
    """Return the row of a service on cards of ``sizes`` GiB; ``used``: bytes that another has taken of the first."""
    cards = [
        gpu("L4", "8.9", index=n, uuid=UUIDS[n], memory_total_bytes=int(size * 1024) * MIB)
        for n, size in enumerate(sizes)
    ]
    form = "safetensors" if fields.get("engine") == "vllm" else "gguf"
    shape = Shape(form, "qwen3", (LAYER,) * layers, 40960, 4096, 151_936, input_bytes=330 * MIB, output_bytes=480 * MIB)
    model = {"action": "keep", "path": "/m/x", "gguf": {}, "shape": shape.as_data()}
    facts = host("distro", gpu=nvidia("580", "13.0", *cards), machine={"memory_bytes": 64 << 30})
    memory = MemoryRoom(facts)
    memory.take(Verdict(True, needs={"GPU 0": Need(weights=used)}))
    service = parse({"name": "chat", "model": "org/m", "port": 8080, **fields})
    return plan_service(service, facts, TOOLKIT, image, model, memory)


@pytest.mark.parametrize(
    ("sizes", "more", "card"),
    [
        ((24, 24), {}, "0"),
        # the first is another service's
        ((24, 24), {"used": 20 << 30}, "1"),
        ((4, 24), {}, "1"),
        # neither holds it alone
        ((6, 6), {"layers": 60}, ""),
        ((24,), {}, ""),
        ((24, 24), {"gpus": ["1"]}, ""),
        ((24, 24), {"tensor_split": "1,1"}, ""),
        ((24, 24), {"engine": "vllm", "image": VLLM_IMAGE, "tensor_parallel": 2}, "0"),
        # it takes no more than it needs by itself
        ((24, 24), {"engine": "vllm", "image": VLLM_IMAGE}, ""),
    ],
)
def test_where_one_card_does_the_plan_says_so(sizes, more, card):
    hint = f"it fits GPU {card} alone, and a single card is often faster than several over PCIe (`gpus: [{card}]`)"
    why = with_cards(sizes, **more)["why"]
    assert hint in why if card else "single card" not in why


@pytest.mark.parametrize("proof", ["33/33 layers on CUDA0 (NVIDIA H200)", None])
def test_the_report_names_the_device_that_was_proven(proof):
    result = {
        "action": "keep",
        "why": "nothing differs",
        "service": {"name": "chat", "port": 8080},
        "urls": {"host": "http://127.0.0.1:8080/v1", "lan": None},
        "verification": {"levels": {"token": 0.2}, "device": proof},
    }
    assert ("  on the GPU    33/33 layers on CUDA0" in closing_report([result], "gpu1")) is (proof is not None)


def shaped(size, layers=4):
    layer = Layer(heads=8, kv_heads=8, key_length=64, value_length=64, weights=size // layers, ff=1024, work=1024)
    shape = Shape("gguf", "llama", (layer,) * layers, context_length=4096, embedding_length=512, vocab_size=1000)
    return {**MODEL, "action": "keep", "path": f"/m/{size}.gguf", "shape": shape.as_data(), "total_size": size}


def test_models_beside_the_first_have_paths_and_take_memory():
    facts = host("distro", machine={"memory_bytes": 16 << 30})
    service = parse({"name": "chat", "model": "o/r", "port": 8080, "draft_model": "o/s", "mmproj": "o/r/mmproj.gguf"})
    more = {"draft_model": shaped(1 << 30), "mmproj": {**MODEL, "path": "/m/eyes.gguf", "total_size": 2 << 30}}
    memory = MemoryRoom(facts)
    row = plan_service(service, facts, TOOLKIT, CPU_IMAGE, shaped(4 << 30), memory, more=more)
    assert row["more_paths"] == {"draft_model": f"/m/{1 << 30}.gguf", "mmproj": "/m/eyes.gguf"}
    alone = MemoryRoom(facts)
    plan_service(
        parse({"name": "chat", "model": "o/r", "port": 8080}), facts, TOOLKIT, CPU_IMAGE, shaped(4 << 30), alone
    )
    both, one = memory.room([]), alone.room([])
    assert both is not None
    assert one is not None
    assert both.ram_used - one.ram_used > 3 << 30


def test_a_draft_that_does_not_fit_is_refused_by_its_name():
    facts = host("distro", machine={"memory_bytes": 8 << 30})
    service = parse({"name": "chat", "model": "o/r", "port": 8080, "draft_model": "o/large"})
    more = {"draft_model": shaped(9 << 30)}
    with pytest.raises(BadInput, match="service chat: o/large does not fit"):
        plan_service(service, facts, TOOLKIT, CPU_IMAGE, shaped(1 << 30), MemoryRoom(facts), more=more)
    row = plan_service(service, facts, TOOLKIT, CPU_IMAGE, shaped(1 << 30), MemoryRoom(facts), warn=True, more=more)
    assert "o/large does not fit" in row["warning"]


def test_of_several_models_the_largest_have_to_fit_together():
    facts = host("distro", machine={"memory_bytes": 16 << 30})
    raw = {"name": "desk", "port": 8080, "models": {"a": "o/a", "b": "o/b", "c": "o/c"}}
    more = {"models/a": shaped(1 << 30), "models/b": shaped(9 << 30), "models/c": shaped(8 << 30)}
    memory = MemoryRoom(facts)
    row = plan_service(parse(raw), facts, TOOLKIT, CPU_IMAGE, {}, memory, more=more)
    assert row["model"] == "a: o/a (keep); b: o/b (keep); c: o/c (keep)"
    assert (row["model_path"], row["more_paths"]["models/c"]) == ("", f"/m/{8 << 30}.gguf")
    assert "1 of 3 models in memory at once; o/b fits" in row["why"]
    left = memory.room([])
    assert left is not None
    assert 9 << 30 < left.ram_used < 11 << 30
    # the two largest do not fit together
    both = parse({**raw, "models_loaded": 2})
    with pytest.raises(BadInput, match="service desk: o/c does not fit"):
        plan_service(both, facts, TOOLKIT, CPU_IMAGE, {}, MemoryRoom(facts), more=more)
    warned = plan_service(both, facts, TOOLKIT, CPU_IMAGE, {}, MemoryRoom(facts), warn=True, more=more)
    assert "o/c does not fit" in warned["warning"]
    too_long = parse({**raw, "context_length": 9999})
    trained = {**more, "models/a": {**more["models/a"], "gguf": {"context_length": 1000}}}
    with pytest.raises(BadInput, match="`context_length` 9999 is more than the 1000 tokens that o/a was trained for"):
        plan_service(too_long, facts, TOOLKIT, CPU_IMAGE, {}, MemoryRoom(facts), more=trained)
