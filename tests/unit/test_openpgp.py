"""Which keys a file holds, and which files are none."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.openpgp import (
    BEGIN,
    BadKey,
    KeyFile,
    armor,
    crc24,
    dearmor,
    fingerprint,
    grouped,
    objection,
    packets,
    parse_fingerprint,
    read,
)
from openpgp_keys import GNUPG_FINGERPRINT, GNUPG_KEY, body, key, old_packet, packet, print_of

ARMORED = GNUPG_KEY.encode()


def test_a_key_made_by_gnupg():
    found = read(ARMORED)
    assert found.fingerprints == [GNUPG_FINGERPRINT]
    assert [part.tag for part in found.packets] == [6, 13, 2]


def test_both_forms_are_the_same_key_and_armor_is_what_gnupg_writes():
    found = read(ARMORED)
    assert found.render(armored=True) == ARMORED
    assert read(found.render(armored=False)) == found


def test_the_fingerprint_of_a_version_6_key():
    # the sample key of RFC 9580, appendix A.3
    sample = "0663877fe31b00000020f94da7bb48d60a61e567706a6587d0331999bb9d891a08242ead84543df895a3"
    assert fingerprint(bytes.fromhex(sample)) == "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"


def test_the_fingerprint_of_a_version_5_key():
    content = body(version=5)
    expected = hashlib.sha256(b"\x9a\x00\x00\x00" + bytes([len(content)]) + content).hexdigest().upper()
    assert read(packet(6, content)).fingerprints == [expected]


def test_every_primary_key_counts_and_no_subkey():
    assert read(key(1) + key(2) + key(1)).fingerprints == [print_of(1), print_of(2)]


def test_several_armored_blocks_and_text_around_them():
    text = b"Our keys:\n" + armor(key(1)) + b"and\n" + armor(key(2)).replace(b"\n", b"\r\n")
    assert read(text).fingerprints == [print_of(1), print_of(2)]


def test_headers_of_the_armor_and_a_missing_checksum():
    lines = armor(key()).decode().splitlines()
    lines.insert(1, "Comment: https://example.org")
    without = [line for line in lines if not line.startswith("=")]
    assert len(without) == len(lines) - 1
    for form in (lines, without):
        assert read("\n".join(form).encode()).fingerprints == [print_of()]


@pytest.mark.parametrize("octets", [1, 2, 4])
def test_lengths_in_the_old_format(octets):
    assert read(old_packet(6, body(), octets)).fingerprints == [print_of()]


@pytest.mark.parametrize("size", [0, 191, 192, 193, 8383, 8384, 70000])
def test_lengths_in_the_new_format(size):
    content = bytes(size)
    assert [part.body for part in packets(packet(13, content) + packet(13, b"end"))] == [content, b"end"]


def test_a_keyrings_own_notes_are_dropped():
    ring = packet(10, b"PGP") + packet(6, body()) + packet(12, b"\x00\x00") + packet(21, bytes(9))
    assert read(ring).render(armored=False) == packet(6, body())


def test_a_packet_is_kept_as_it_stood():
    data = old_packet(6, body(), 4) + packet(13, b"name")
    assert read(data).render(armored=False) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "an empty file"),
        (b" \n", "an empty file"),
        (b"<!DOCTYPE html>\n<title>Log in</title>", "a web page"),
        (b"\n  <html lang=en>", "a web page"),
        (b"404: not found", "another kind"),
        (b"-----BEGIN CERTIFICATE-----\n\nAAAA\n", "another kind"),
        (b"\xff" * 9, "ends too early"),
        (key()[:-1], "ends too early"),
        (key() + b"\n", "damaged"),
        (key() + b"\xc6", "ends too early"),
        (packet(5, body()), "a secret key"),
        (key() + packet(7, body()), "a secret key"),
        (packet(13, b"name") + key(), "does not begin with a public key"),
        (packet(14, body()), "does not begin with a public key"),
        (packet(10, b"PGP"), "does not begin with a public key"),
        (key() + packet(8, key(2)), "type 8"),
        (key() + packet(60, b""), "type 60"),
        (b"\xc6\xe1" + body() + bytes(50), "in parts"),
        (b"\x9b" + body(), "unknown length"),
        (packet(6, body(version=3)), "version 3"),
        (packet(6, body(version=9)), "damaged key"),
        (packet(6, b"\x04"), "damaged key"),
        (ARMORED[:200], "ends too early"),
        (ARMORED + ARMORED[:90], "ends too early"),
        (ARMORED.replace(b"=82tk", b"=82tl"), "checksum"),
        (ARMORED.replace(b"mDME", b"mDMF"), "checksum"),
        (ARMORED.replace(b"mDME", b"m?ME"), "not base64"),
        (ARMORED.replace(b"\n\n", b"\n", 1), "blank line"),
        (armor(b""), "does not begin with a public key"),
        (armor(key() + packet(5, body())), "a secret key"),
    ],
)
def test_what_is_no_key_file(data, why):
    with pytest.raises(BadKey, match=why):
        read(data)


def test_a_block_in_the_name_of_a_binary_key_is_not_read_as_armor():
    data = packet(6, body(1)) + packet(13, b"\n" + armor(key(2)))
    assert read(data).fingerprints == [print_of(1)]


def test_the_checksum_of_nothing_and_of_text():
    # RFC 9580 gives the start value; the other is the usual check value of CRC-24/OPENPGP
    assert (crc24(b""), crc24(b"123456789")) == (0xB704CE, 0x21CF02)


def test_dearmor_undoes_armor():
    for size in range(100):
        assert dearmor(armor(bytes(range(size)))) == bytes(range(size))
    assert armor(b"").decode().startswith(BEGIN + "\n\n=")


@pytest.mark.parametrize(
    "text",
    [
        GNUPG_FINGERPRINT,
        GNUPG_FINGERPRINT.lower(),
        "6782 4235 181F 2E6A 0EF3  0E62 0585 6728 EF52 0779",
        ":".join(GNUPG_FINGERPRINT[at : at + 2] for at in range(0, 40, 2)),
        f" 0x{GNUPG_FINGERPRINT}\n",
    ],
)
def test_how_fingerprints_may_be_written(text):
    assert parse_fingerprint(text) == GNUPG_FINGERPRINT


@pytest.mark.parametrize("text", ["", "EF520779", GNUPG_FINGERPRINT[:-1], GNUPG_FINGERPRINT + "0", "G" * 40])
def test_parts_of_a_fingerprint_are_refused(text):
    with pytest.raises(BadInput, match="not a whole fingerprint"):
        parse_fingerprint(text)


def test_the_long_fingerprint_of_newer_keys():
    assert parse_fingerprint("ab" * 32) == "AB" * 32


def test_the_objection_names_both_sides():
    right, other = print_of(1), print_of(2)
    assert objection([right], [right]) == objection([right], [other, right]) == ""
    assert objection([other], [right]) == f"serves the key {grouped(other)}; wanted is {grouped(right)}"
    assert objection([right, other], [right]) == (
        f"serves, beside a right one, the key {grouped(other)}; wanted is {grouped(right)}"
    )


def test_the_order_of_keys_does_not_hide_one():
    found = read(key(2) + key(1))
    swapped: KeyFile = replace(found, packets=found.packets[5:] + found.packets[:5])
    assert objection(found.fingerprints, [print_of(1)])
    assert objection(swapped.fingerprints, [print_of(1)])
