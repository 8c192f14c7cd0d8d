"""What nvidia-smi's CSV and lists say."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.gpu_smi import (
    QUERY,
    parse_list,
    parse_query,
    place_of,
    refused,
    unified,
    value_or_none,
)
from gpu_answers import INFOROM, LISTING, LOST, NO_CONTACT, REFUSED, UUIDS, row


@pytest.mark.parametrize(
    "text",
    [
        *("[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", "[GPU is lost]", "[GPU requires reset]", "ERR!", " "),
        *("Unknown Error", "Requested functionality has been deprecated", "[Nicht unterstützt]", "[不支持]", None),
    ],
)
def test_unknown_values_are_none(text):
    assert value_or_none(text) is None


def test_values_stay():
    assert value_or_none(" NVIDIA L4 ") == "NVIDIA L4"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[N/A]", True),
        ("N/A", True),
        ("[Not Supported]", True),
        ("24576", False),
        ("24576 MiB", False),
        ("[Unknown Error]", None),
        ("[Insufficient Permissions]", None),
        ("ERR!", None),
        ("", None),
        (None, None),
    ],
)
def test_memory_that_is_not_applicable_is_the_hosts(text, answer):
    assert unified(text) is answer


def test_rows_are_read_and_other_lines_kept_apart():
    rows, remarks = parse_query(f"{row()}\n{INFOROM}\n{row(1)}")
    assert [(gpu.index, gpu.name, gpu.memory_mib, version) for gpu, version in rows] == [
        (0, "NVIDIA GeForce RTX 3090", 24576, "570.86.10"),
        (1, "NVIDIA GeForce RTX 3090", 24576, "570.86.10"),
    ]
    assert [(gpu.compute_capability, gpu.capability_source) for gpu, _ in rows] == [("8.6", "nvidia-smi")] * 2
    assert remarks == [INFOROM]


def test_rows_of_an_old_driver():
    rows, remarks = parse_query(row(driver="470.182.03", capability=None), with_capability=False)
    assert [(gpu.memory_mib, gpu.compute_capability, version) for gpu, version in rows] == [(24576, None, "470.182.03")]
    assert remarks == []


@pytest.mark.parametrize(("old", "capability"), [(False, "8.6"), (True, None)])
def test_a_comma_in_the_name_moves_no_field(old, capability):
    text = row(name="Odd, Card", memory="1024", driver="470.1", capability=capability)
    ((gpu, version),), _ = parse_query(text, with_capability=not old)
    assert (gpu.name, gpu.memory_mib, version) == ("Odd, Card", 1024, "470.1")


def test_sixteen_gpus():
    rows, remarks = parse_query("".join(row(index, "NVIDIA H200", "143771", capability="9.0") for index in range(16)))
    assert [gpu.index for gpu, _ in rows] == list(range(16))
    assert len({gpu.uuid for gpu, _ in rows}) == 16
    assert remarks == []


@pytest.mark.parametrize(
    ("memory", "unified_memory", "remarked"),
    [("[N/A]", True, False), ("[Unknown Error]", None, True), ("ERR!", None, True), ("24.576", False, False)],
)
def test_memory_that_is_no_number(memory, unified_memory, remarked):
    ((gpu, version),), remarks = parse_query(row(memory=memory))
    assert (gpu.memory_mib, gpu.memory_total_bytes, version) == (None, None, "570.86.10")
    assert gpu.unified_memory is unified_memory
    assert bool(remarks) is remarked


@pytest.mark.parametrize("capability", ["[N/A]", "8,6x", "ERR!"])
def test_a_capability_that_is_none(capability):
    ((gpu, _),), _ = parse_query(row(capability=capability))
    assert (gpu.compute_capability, gpu.capability_source) == (None, None)


def test_a_lost_gpu_is_no_row():
    rows, remarks = parse_query("0, [GPU is lost], [GPU is lost], [GPU is lost], 570.86.10, [GPU is lost]\n")
    assert rows == []
    assert len(remarks) == 1


CHIP = "54d0709b-558d-5a59-9c65-0c5fc14a21a4"


def test_gpus_built_into_a_chip_have_uuids_without_a_prefix():
    rows, remarks = parse_query(f"0, {CHIP}, NVIDIA Thor, [N/A], 580.00, 11.0\n")
    assert [(gpu.uuid, gpu.unified_memory, gpu.compute_capability) for gpu, _ in rows] == [(CHIP, True, "11.0")]
    assert remarks == []
    assert parse_list(f"GPU 0: Orin (nvgpu) (UUID: {CHIP})\n") == {CHIP: {}}


@pytest.mark.parametrize("uuid", ["[Unknown Error]", "[N/A]", "GPU-", "Tesla P40", f"{CHIP}-1"])
def test_what_is_no_uuid_is_no_row(uuid):
    rows, remarks = parse_query(f"0, {uuid}, NVIDIA L4, 23034, 570.86.10, 8.9\n")
    assert (rows, len(remarks)) == ([], 1)


@pytest.mark.parametrize(
    ("out", "err", "answer"),
    [
        (REFUSED, "", True),
        ("", REFUSED, True),
        (f"{INFOROM}\n{REFUSED}", "", True),
        ('Das Feld "compute_cap" ist unbekannt.\n', "", True),
        (row(), "", False),
        (f"WARNING: compute_cap is about to be renamed\n{row()}", "", False),
        (NO_CONTACT, "", False),
        (LOST, "", False),
        ("", "", False),
    ],
)
def test_refused(out, err, answer):
    assert refused(out, err) is answer


def test_the_field_that_old_drivers_refuse_is_asked():
    assert "compute_cap" in QUERY[0]


def test_the_list_names_mig_devices():
    assert parse_list(LISTING) == {
        UUIDS[0]: {
            0: ("3g.40gb", "MIG-11111111-2222-5333-8444-555555555555"),
            1: ("1g.10gb+me", "MIG-66666666-7777-5888-8999-aaaaaaaaaaaa"),
        },
        UUIDS[1]: {},
    }


def test_mig_devices_of_a_driver_before_470():
    text = f"GPU 0: A100-SXM4-40GB (UUID: {UUIDS[0]})\n  MIG 3g.20gb Device 0: (UUID: MIG-{UUIDS[0]}/1/0)\n"
    assert parse_list(text) == {UUIDS[0]: {0: ("3g.20gb", f"MIG-{UUIDS[0]}/1/0")}}


@pytest.mark.parametrize(
    ("bus_id", "place"),
    [
        ("00000000:01:00.0", "0000:01:00.0"),
        ("0000:4F:00.0", "0000:4f:00.0"),
        ("0000000F:01:00.0", "000f:01:00.0"),
        ("00010000:C1:00.0", "10000:c1:00.0"),
        ("[N/A]", None),
        ("", None),
        (None, None),
    ],
)
def test_places_are_written_as_linux_does(bus_id, place):
    assert place_of(bus_id) == place
