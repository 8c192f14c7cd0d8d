"""OpenPGP keys for tests: one made by GnuPG, and packets put together by hand, so that no test needs a program."""

from __future__ import annotations

import hashlib

GNUPG_KEY = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawGHoRYJKwYBBAHaRw8BAQdAhSStg9I4jGKWE/MNiFGHXDwd1bkz3bBThD+U
Pvc7SlS0I2xsbWZsZWV0IHRlc3Qga2V5IDxrZXlAZXhhbXBsZS5vcmc+iJAEExYI
ADgWIQRngkI1GB8uag7zDmIFhWco71IHeQUCawGHoQIbAwULCQgHAgYVCgkICwIE
FgIDAQIeAQIXgAAKCRAFhWco71IHeYKvAP4jwP84I8i4vUsOH9xnRHosBVuslP+K
a9nHU6orpkSfiQD5AW2k9GBIGSey8bSsIx55dP+f/872+5BluhI1tKPP/g8=
=82tk
-----END PGP PUBLIC KEY BLOCK-----
"""
GNUPG_FINGERPRINT = "67824235181F2E6A0EF30E6205856728EF520779"
"""What `gpg --list-keys --with-colons` of GnuPG 2.2.40 says of GNUPG_KEY."""


def body(seed: int = 1, version: int = 4) -> bytes:
    """Return the content of a public key packet that differs with ``seed``."""
    return bytes([version, 0, 0, 0, seed, 1]) + bytes([0, 16, 0x80, seed]) + b"\x00\x02\x03"


def packet(tag: int, content: bytes) -> bytes:
    """Return a packet in the new format, with the shortest length."""
    size = len(content)
    if size < 192:
        length = bytes([size])
    elif size < 8384:
        length = bytes([((size - 192) >> 8) + 192, (size - 192) & 255])
    else:
        length = b"\xff" + size.to_bytes(4, "big")
    return bytes([0xC0 | tag]) + length + content


def old_packet(tag: int, content: bytes, length_octets: int) -> bytes:
    """Return a packet in the old format, which GnuPG writes."""
    kind = {1: 0, 2: 1, 4: 2}[length_octets]
    return bytes([0x80 | tag << 2 | kind]) + len(content).to_bytes(length_octets, "big") + content


def key(seed: int = 1) -> bytes:
    """Return a key with a name, a signature and a subkey, as a repository's key has them."""
    parts = [(6, body(seed)), (13, b"Repository <key@example.org>"), (2, b"\x04\x13" + bytes(200))]
    return b"".join(packet(tag, content) for tag, content in [*parts, (14, body(seed + 100)), (2, b"\x04\x18")])


def print_of(seed: int = 1) -> str:
    """Return the fingerprint of ``key(seed)``."""
    content = body(seed)
    return hashlib.sha1(b"\x99" + len(content).to_bytes(2, "big") + content).hexdigest().upper()  # noqa: S324
