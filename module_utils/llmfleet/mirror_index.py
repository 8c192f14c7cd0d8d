"""Indexes of package mirrors, apt's and yum's, read far enough to say whether a mirror serves the right thing. Pure.

Signatures are not looked at: the package manager checks them, with a key that is known by its fingerprint.
Formats: wiki.debian.org/DebianRepository/Format, github.com/rpm-software-management/createrepo_c.
"""

from __future__ import annotations

import bz2
import email.utils
import hashlib
import io
import lzma
import re
import typing as t
import xml.etree.ElementTree as ET
import zlib
from dataclasses import dataclass, field

from ansible.module_utils.llmfleet.errors import LlmfleetError

MAX_UNPACKED = 64 << 20
"""A longer index is not one of the repositories meant here, or is a bomb."""

DIGESTS = {"sha256": "sha256", "sha512": "sha512", "sha": "sha1", "sha1": "sha1"}


class Wrong(LlmfleetError):
    """What a candidate serves is not what is wanted; ``str(error)`` continues the sentence that its name begins."""


@dataclass(frozen=True)
class Listed:
    """A file as an index lists it; ``version`` is that of the package in it."""

    path: str
    size: int
    digest: str
    algorithm: str = "sha256"
    version: str = ""

    def matches(self, data: bytes) -> bool:
        """Whether ``data`` is this file; a digest of an unknown kind is taken for right."""
        name = DIGESTS.get(self.algorithm)
        # a listing is compared with its file; whether both can be trusted is for the package manager to say
        return not name or hashlib.new(name, data, usedforsecurity=False).hexdigest() == self.digest


@dataclass(frozen=True)
class Release:
    """A repository's own description of itself; times are seconds since 1970."""

    suite: str = ""
    codename: str = ""
    architectures: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    date: float | None = None
    valid_until: float | None = None
    files: dict[str, Listed] = field(default_factory=dict)


def is_page(content_type: str, data: bytes) -> bool:
    """Whether an answer is a web page: a login portal, a start page or an error told with status 200."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html")) or (
        "html" in content_type.lower() and (start[:1] == b"<" or not start)
    )


def _fields(text: str) -> dict[str, str]:
    """Return the fields of one deb822 paragraph, continuation lines joined by newlines."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            if name:
                fields[name] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def _time(text: str) -> float | None:
    try:
        parsed = email.utils.parsedate_tz(text)
        return float(email.utils.mktime_tz(parsed)) if parsed else None
    except (ValueError, OverflowError, IndexError):
        return None


def _number(text: str) -> int:
    # Python refuses to read numbers of thousands of digits
    return int(text) if text.isdecimal() and len(text) < 19 else 0


def parse_release(data: bytes) -> Release:
    """Return what an InRelease (signed) or Release file says. Raises Wrong."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    if text.lstrip().startswith("-----BEGIN PGP SIGNED MESSAGE-----"):
        # the signed text stands between the first empty line and the signature (RFC 9580 section 7)
        text = text.partition("\n\n")[2].partition("\n-----BEGIN PGP SIGNATURE-----")[0]
        text = re.sub(r"^- ", "", text, flags=re.MULTILINE)
    fields = _fields(text)
    files = {}
    for line in fields.get("SHA256", "").splitlines():
        words = line.split()
        if len(words) == 3:
            path = words[2].removeprefix("./")
            files[path] = Listed(path, _number(words[1]), words[0].lower())
    if not files:
        raise Wrong("has a Release file that lists no index with its SHA256")
    return Release(
        fields.get("Suite", ""),
        fields.get("Codename", ""),
        tuple(fields.get("Architectures", "").split()),
        tuple(fields.get("Components", "").split()),
        _time(fields.get("Date", "")),
        _time(fields.get("Valid-Until", "")),
        files,
    )


def package_index(release: Release, folder: str) -> Listed:
    """Return the package index to read: compressed ones first, since many mirrors hold no other. Raises Wrong."""
    for ending in (".gz", ".xz", ".bz2", ""):
        if f"{folder}Packages{ending}" in release.files:
            return release.files[f"{folder}Packages{ending}"]
    raise Wrong(f"lists no package index {folder}Packages in its Release file")


def unpack(path: str, data: bytes) -> bytes | None:
    """Return the content of an index file, None where Python's library lacks its compression. Raises Wrong."""
    try:
        if path.endswith(".gz"):
            content = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data, MAX_UNPACKED)
        elif path.endswith(".xz"):
            content = lzma.LZMADecompressor().decompress(data, MAX_UNPACKED)
        elif path.endswith(".bz2"):
            content = bz2.BZ2Decompressor().decompress(data, MAX_UNPACKED)
        else:
            content = data[:MAX_UNPACKED]
    except (zlib.error, lzma.LZMAError, OSError, EOFError):
        raise Wrong("has a package index that cannot be unpacked") from None
    if len(content) >= MAX_UNPACKED:
        raise Wrong(f"has a package index of more than {MAX_UNPACKED >> 20} MiB")
    return None if path.endswith((".zst", ".zck")) else content


def newest_deb(content: bytes, name: str, architecture: str) -> Listed:
    """Return the newest package ``name`` of a Packages file, any of its packages without a name. Raises Wrong."""
    found = []
    for paragraph in content.decode("utf-8", "replace").split("\n\n"):
        if name and f"Package: {name}\n" not in paragraph:
            continue
        fields = _fields(paragraph)
        of_this_machine = not architecture or fields.get("Architecture") in (architecture, "all")
        if of_this_machine and fields.get("Package", "") == (name or fields.get("Package")) and "Filename" in fields:
            found.append(
                Listed(
                    fields["Filename"].removeprefix("./"),
                    _number(fields.get("Size", "")),
                    fields.get("SHA256", "").lower(),
                    "sha256" if "SHA256" in fields else "",
                    fields.get("Version", ""),
                )
            )
    return _newest(found, name, architecture)


def _newest(found: t.Sequence[Listed], name: str, architecture: str) -> Listed:
    if not found:
        raise Wrong(" ".join(filter(None, ("has no package", name, architecture and f"for {architecture}"))))
    return max(found, key=lambda listed: version_key(listed.version))


def version_key(version: str) -> t.Any:
    """Return a sort key for package versions as dpkg orders them (deb-version(7)); rpm's order is the same for ours."""
    epoch, _, rest = version.rpartition(":")
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return _number(epoch), _part_key(upstream), _part_key(revision)


def _part_key(part: str) -> list[tuple[list[int], int]]:
    # pairs of other characters and a number; ~ comes before the end, letters before all else
    return [
        ([-1 if c == "~" else ord(c) + (0 if c.isalpha() else 256) for c in text] + [0], _number(number))
        for text, number in re.findall(r"([^0-9]*)([0-9]*)", part)
    ]


def _xml(data: bytes, what: str) -> ET.Element:
    # no repository has a document type in its metadata, and entities are what bombs are made of
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise Wrong(f"has a {what} that cannot be read")
    try:
        root = ET.parse(io.BytesIO(data)).getroot()  # noqa: S314 - see above
    except (ET.ParseError, LookupError, ValueError):
        raise Wrong(f"has a {what} that cannot be read") from None
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    return root


def parse_repomd(data: bytes) -> Release:
    """Return what a repomd.xml says; ``files`` holds the list of packages under ``primary``. Raises Wrong."""
    root = _xml(data, "repomd.xml")
    times = [root.findtext("revision") or "", *(node.text or "" for node in root.iter("timestamp"))]
    # a revision may be any text; as a time it stands in seconds since 1970
    seconds = [float(text) for text in times if re.fullmatch(r"1[0-9]{9}(\.[0-9]+)?", text)]
    for node in root.findall("data"):
        location, checksum = node.find("location"), node.find("checksum")
        if node.get("type") == "primary" and location is not None and checksum is not None:
            listed = Listed(
                location.get("href", ""),
                _number(node.findtext("size") or ""),
                (checksum.text or "").strip().lower(),
                checksum.get("type", ""),
            )
            return Release(date=max(seconds, default=None), files={"primary": listed})
    raise Wrong("lists no packages in its repomd.xml")


def newest_rpm(content: bytes, name: str, architecture: str) -> Listed:
    """Return the newest package ``name`` of a primary.xml, any of its packages without a name. Raises Wrong."""
    found = []
    for node in _xml(content, "list of packages").findall("package"):
        location, version = node.find("location"), node.find("version")
        size, checksum = node.find("size"), node.find("checksum")
        of_this_machine = not architecture or node.findtext("arch") in (architecture, "noarch")
        if (
            location is None
            or version is None
            or not of_this_machine
            or node.findtext("name") != (name or node.findtext("name"))
        ):
            continue
        epoch = version.get("epoch", "0")
        number = f"{version.get('ver', '')}-{version.get('rel', '')}"
        length = size.get("package", "") if size is not None else ""
        found.append(
            Listed(
                location.get("href", ""),
                _number(length),
                (checksum.text or "").lower() if checksum is not None else "",
                checksum.get("type", "") if checksum is not None else "",
                number if epoch == "0" else f"{epoch}:{number}",
            )
        )
    return _newest(found, name, architecture)
