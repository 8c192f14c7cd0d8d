"""OpenPGP key files: which primary keys one holds, and the same keys in the form that apt and rpm read.

The packets are those of RFC 9580, section 4, the armor of section 6, the fingerprints of section 5.5.4 (version 5 is
GnuPG's, draft-koch-librepgp). No signature is checked: whether a subkey is really bound to its key is what apt and rpm
verify when they use the file (gpgv 2.2 says "Bad public key" to one that a mirror appended).
A fingerprint covers all of a primary key, so a wrong one cannot hide behind a right one; what could hide is a packet
that we overlook and apt does not. Hence everything that has no place in a key file is refused, and what gets written is
put together from the packets that were understood.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import typing as t
from dataclasses import dataclass

from ansible.module_utils.llmfleet.errors import BadInput, LlmfleetError

SIGNATURE, PUBLIC_KEY, PUBLIC_SUBKEY, USER_ID, USER_ATTRIBUTE = 2, 6, 14, 13, 17
KEPT = (SIGNATURE, PUBLIC_KEY, PUBLIC_SUBKEY, USER_ID, USER_ATTRIBUTE)
SECRET = (5, 7)
# marker, a keyring's own notes on trust, padding: nothing that another program needs
DROPPED = (10, 12, 21)

BEGIN, END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
_BLOCK = re.compile(f"^{BEGIN}[ \t]*\n(.*?)^{END}", re.MULTILINE | re.DOTALL)
_WEB_PAGE = re.compile(rb"<(!doctype|html|head|body)\b", re.IGNORECASE)
_CRC24_START, _CRC24_POLYNOMIAL = 0xB704CE, 0x1864CFB


class BadKey(LlmfleetError):
    """These bytes are no usable key file; the sentence begins with what they are instead."""


@dataclass(frozen=True)
class Packet:
    """One packet: its type, its content, and all of it as it stood in the file."""

    tag: int
    body: bytes
    raw: bytes


@dataclass(frozen=True)
class KeyFile:
    """The packets of a key file that matter."""

    packets: tuple[Packet, ...]

    @property
    def fingerprints(self) -> list[str]:
        """The primary keys' fingerprints, each once, in the file's order."""
        return list(dict.fromkeys(fingerprint(packet.body) for packet in self.packets if packet.tag == PUBLIC_KEY))

    def render(self, armored: bool) -> bytes:
        """Return the file's content, as text or binary; apt tells the two apart by the file's suffix alone."""
        data = b"".join(packet.raw for packet in self.packets)
        return armor(data) if armored else data


def parse_fingerprint(text: str) -> str:
    """Return a fingerprint as upper-case hexadecimal digits; raise BadInput when ``text`` is no whole one."""
    found = re.sub(r"[\s:]", "", text).upper()
    found = found[2:] if found.startswith("0X") else found
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", found):
        raise BadInput(
            f"{text!r} is not a whole fingerprint; give all 40 hexadecimal digits (64 of a version 6 key), "
            "since a key that fits a part of them is easily made"
        )
    return found


def grouped(found: str) -> str:
    """Return a fingerprint the way people compare it, in groups of four digits."""
    return " ".join(found[start : start + 4] for start in range(0, len(found), 4))


def fingerprint(body: bytes) -> str:
    """Return the fingerprint of the public key whose packet has this ``body``."""
    version = body[0] if len(body) > 6 else 0
    if version == 4 and len(body) <= 0xFFFF:
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()  # noqa: S324 -- RFC 9580
    if version in (5, 6):
        mark = b"\x9a" if version == 5 else b"\x9b"
        return hashlib.sha256(mark + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    if version in (2, 3):
        raise BadKey(f"a key of version {version}, whose fingerprint can be forged")
    raise BadKey("a damaged key")


def objection(found: t.Sequence[str], wanted: t.Sequence[str]) -> str:
    """Return why a file with the keys ``found`` must not be trusted as one of the keys ``wanted``, or ""."""
    strangers = [grouped(key) for key in found if key not in wanted]
    if not strangers:
        return ""
    beside = ", beside a right one," if len(strangers) < len(found) else ""
    return f"serves{beside} the key {' and '.join(strangers)}; wanted is {' or '.join(map(grouped, wanted))}"


def read(data: bytes) -> KeyFile:
    """Return the keys in ``data``, armored or binary; raise BadKey when it is not a file of public keys alone."""
    if not data.strip():
        raise BadKey("an empty file")
    armored = data[0] < 0x80  # every packet begins with the highest bit set
    if armored and BEGIN.encode() not in data:
        raise BadKey("a web page" if _WEB_PAGE.search(data[:4096]) else "a file of another kind")
    kept = []
    for packet in packets(dearmor(data) if armored else data):
        if packet.tag in SECRET:
            raise BadKey("a secret key")
        if packet.tag not in KEPT + DROPPED:
            raise BadKey(f"a file with an OpenPGP packet of type {packet.tag}, which has no place among public keys")
        if packet.tag in KEPT:
            kept.append(packet)
    if not kept or kept[0].tag != PUBLIC_KEY:
        raise BadKey("a file that does not begin with a public key")
    found = KeyFile(tuple(kept))
    _ = found.fingerprints  # a key that has none is refused here
    return found


def packets(data: bytes) -> t.Iterator[Packet]:
    """Yield the packets of binary ``data``."""
    position = 0
    while position < len(data):
        tag, head, length = _header(data[position : position + 6])
        start, end = position + head, position + head + length
        if end > len(data):
            raise BadKey("a key file that ends too early")
        yield Packet(tag, data[start:end], data[position:end])
        position = end


def _header(head: bytes) -> tuple[int, int, int]:
    """Return (type, length of the header, length of the body) of the packet that begins with ``head``."""
    first = head[0]
    if first < 0x80:
        raise BadKey("a damaged key file")
    if first & 0x40:
        tag, octet = first & 0x3F, head[1] if len(head) > 1 else 0
        if 224 <= octet < 255:
            raise BadKey("a key file with packets in parts, which only encrypted data may have")
        begin, size = (2, 4) if octet == 255 else (1, 2 if octet >= 192 else 1)
    else:
        tag, kind = first >> 2 & 0x0F, first & 3
        if kind == 3:
            raise BadKey("a key file with a packet of unknown length")
        octet, begin, size = 0, 1, 1 << kind
    digits = head[begin : begin + size]
    if len(digits) < size:
        raise BadKey("a key file that ends too early")
    length = int.from_bytes(digits, "big")
    if 192 <= octet < 224:
        length += 192 - (192 << 8)
    return tag, begin + size, length


def crc24(data: bytes) -> int:
    """Return the checksum of armored ``data``."""
    crc = _CRC24_START
    for octet in data:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= _CRC24_POLYNOMIAL
    return crc


def dearmor(data: bytes) -> bytes:
    """Return the binary content of all armored key blocks in ``data``; text around them does not matter."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    blocks = _BLOCK.findall(text)
    if len(blocks) != text.count(BEGIN):
        raise BadKey("a key file that ends too early")
    return b"".join(_unpack(block) for block in blocks)


def _unpack(block: str) -> bytes:
    lines = [line.strip() for line in block.splitlines()]
    if "" not in lines:
        raise BadKey("a damaged key file (no blank line ends its header)")
    content = [line for line in lines[lines.index("") + 1 :] if line]
    checksum = content.pop()[1:] if content and content[-1].startswith("=") else ""
    try:
        found = base64.b64decode("".join(content), validate=True)
        expected = base64.b64decode(checksum, validate=True)
    except (binascii.Error, ValueError):
        raise BadKey("a damaged key file (not base64)") from None
    # newer files may leave it out
    if checksum and expected != crc24(found).to_bytes(3, "big"):
        raise BadKey("a damaged key file (its checksum does not fit)")
    return found


def armor(data: bytes) -> bytes:
    """Return ``data`` as an armored key block, byte for byte what GnuPG writes."""
    text = base64.b64encode(data).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    checksum = "=" + base64.b64encode(crc24(data).to_bytes(3, "big")).decode()
    return "\n".join([BEGIN, "", *lines, checksum, END, ""]).encode()
