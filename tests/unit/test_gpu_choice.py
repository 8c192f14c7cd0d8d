"""The GPUs that a service names, among those of a host."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.gpu_choice import choose, ids_of, number

UUIDS = (
    "GPU-11111111-aaaa-4444-8888-000000000000",
    "GPU-11111111-bbbb-4444-8888-000000000001",
    "GPU-22222222-cccc-4444-8888-000000000002",
)
MIG = "MIG-33333333-dddd-5555-8888-000000000003"


def nvidia(index, **more):
    address = f"0000:{index + 1:02x}:00.0"
    return {"vendor": "nvidia", "name": "L4", "index": index, "uuid": UUIDS[index], "pci_address": address, **more}


def of_bus(vendor, address):
    return {"vendor": vendor, "name": f"{vendor} GPU", "index": None, "uuid": None, "pci_address": address}


THREE = [nvidia(0), nvidia(1), nvidia(2)]


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        (["1"], UUIDS[1:2]),
        ([UUIDS[2]], UUIDS[2:]),
        ([UUIDS[2].lower()], UUIDS[2:]),
        (["22222222-CCCC"], UUIDS[2:]),
        (["GPU-11111111-b"], UUIDS[1:2]),
        (["0000:02:00.0"], UUIDS[1:2]),
        (["02:00.0"], UUIDS[1:2]),
        # as nvidia-smi writes it
        (["00000000:02:00.0"], UUIDS[1:2]),
        # in the order of the host, so that another order of words is no change
        (["2", "0"], (UUIDS[0], UUIDS[2])),
    ],
)
def test_a_gpu_has_several_names(asked, ids):
    assert ids_of(choose("service chat", asked, THREE)) == ids


def test_no_word_means_all_of_them():
    assert choose("service chat", [], THREE) == THREE


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["3"], ["names 3, and", "0 (L4, GPU-11111111-aaaa", "2 (L4, GPU-22222222", "0000:03:00.0)"]),
        (["1111"], ["names 1111, and the GPUs"]),
        (["11111111"], ["which is more than one GPU"]),
        (["0", "0000:01:00.0"], ["names one GPU twice: 0 and 0000:01:00.0"]),
    ],
)
def test_what_names_no_gpu_is_refused_with_those_there_are(asked, words):
    with pytest.raises(BadInput) as refusal:
        choose("service chat", asked, THREE)
    assert str(refusal.value).startswith("service chat: `gpus` names ")
    for word in words:
        assert word in str(refusal.value)


def test_without_any_gpu_the_sentence_says_so():
    with pytest.raises(BadInput, match="can use here are: none"):
        choose("service chat", ["0"], [])


def test_a_slice_is_a_gpu_of_its_own():
    device = {"index": 1, "uuid": MIG, "profile": "1g.12gb", "memory_total_bytes": 12 << 30}
    sliced = nvidia(0, memory_total_bytes=96 << 30, mig_devices=[{**device, "index": 0, "uuid": None}, device])
    (chosen,) = choose("service chat", [MIG], [sliced, nvidia(1)])
    assert (chosen["index"], chosen["name"], chosen["memory_total_bytes"]) == ("0:1", "L4 MIG 1g.12gb", 12 << 30)
    assert ids_of([chosen]) == (MIG,)
    assert choose("service chat", ["0:1"], [sliced]) == [chosen]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], ["is cut into slices (MIG)", "name in `gpus` which", "there are: 0:0 (L4 MIG 1g.12gb, ", "; 1 (L4, "]),
        (["0"], ["names 0, and the GPUs that this service can use here are: 0:0 (L4 MIG"]),
        (["0:0", "1"], ["names a slice of a GPU (MIG) and more"]),
        (["0:0", "0:1"], ["names a slice of a GPU (MIG) and more"]),
    ],
)
def test_one_slice_is_all_that_an_engine_uses(asked, words):
    device = {"profile": "1g.12gb", "memory_total_bytes": 12 << 30}
    slices = [{**device, "index": index, "uuid": f"{MIG[:-1]}{index}"} for index in range(2)]
    host = [nvidia(0, mig_devices=slices), nvidia(1)]
    with pytest.raises(BadInput) as refusal:
        choose("service chat", asked, host)
    for word in words:
        assert word in str(refusal.value)
    assert [gpu["index"] for gpu in choose("service chat", ["1"], host)] == [1]


@pytest.mark.parametrize(
    ("vendor", "ids"), [("amd", "0000:03:00.0"), ("intel", "0000:03:00.0"), ("moore_threads", "1")]
)
def test_gpus_without_a_number_are_counted_by_vendor(vendor, ids):
    gpus = number([nvidia(0), of_bus(vendor, "0000:01:00.0"), of_bus(vendor, "0000:03:00.0")])
    assert [gpu["index"] for gpu in gpus] == [0, 0, 1]
    assert ids_of(choose("service chat", ["1"], gpus[1:])) == (ids,)


def test_gpus_of_two_vendors_are_no_choice():
    with pytest.raises(BadInput, match="GPUs of different vendors"):
        choose("service chat", ["01:00.0", "09:00.0"], number([nvidia(0), of_bus("amd", "0000:09:00.0")]))
