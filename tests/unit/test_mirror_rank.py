"""Indexes of mirrors, the ranking, and how long a choice is kept."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma

import pytest
from ansible.module_utils.llmfleet import mirror_index as index
from ansible.module_utils.llmfleet import mirror_rank as ranking
from ansible.module_utils.llmfleet.mirror_index import Listed, Wrong
from ansible.module_utils.llmfleet.mirror_rank import Measured, Sample

DAY = 86400
NOW = 1_800_000_000.0
DIGEST = "ab" * 32

RELEASE = f"""Origin: Docker
Suite: stable
Codename: bookworm
Date: Sat, 21 Nov 2026 08:00:00 UTC
Valid-Until: Sat, 28 Nov 2026 08:00:00 UTC
Architectures: amd64 arm64
Components: stable test
MD5Sum:
 0123 12 stable/binary-amd64/Packages
SHA256:
 {DIGEST.upper()} 120 stable/binary-amd64/Packages
 {DIGEST} 34 ./stable/binary-amd64/Packages.gz
"""
SIGNED = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA512

{RELEASE.replace("Origin", "- -Origin")}-----BEGIN PGP SIGNATURE-----

SHA256: not/part of/the text
-----END PGP SIGNATURE-----
"""


@pytest.mark.parametrize("text", [RELEASE, SIGNED, SIGNED.replace("\n", "\r\n")])
def test_a_release_is_read_signed_or_not(text):
    release = index.parse_release(text.encode())
    assert (release.suite, release.codename) == ("stable", "bookworm")
    assert (release.architectures, release.components) == (("amd64", "arm64"), ("stable", "test"))
    assert (release.date, release.valid_until) == (1795248000.0, 1795248000.0 + 7 * DAY)
    assert release.files["stable/binary-amd64/Packages.gz"] == Listed("stable/binary-amd64/Packages.gz", 34, DIGEST)
    assert release.files["stable/binary-amd64/Packages"].digest == DIGEST


@pytest.mark.parametrize("text", ["", "hello", "Suite: x\nMD5Sum:\n 01 2 Packages\n", "\x00\xff: SHA256"])
def test_what_lists_no_index_is_no_release(text):
    with pytest.raises(Wrong, match="lists no index"):
        index.parse_release(text.encode("latin-1"))


@pytest.mark.parametrize("date", ["", "yesterday", "Sat, 21 Nov 99999999999 08:00:00 UTC"])
def test_a_date_that_is_none_is_unknown(date):
    assert index.parse_release(f"Date: {date}\nSHA256:\n 01 2 Packages\n".encode()).date is None


def test_a_compressed_index_is_preferred_and_a_missing_one_named():
    release = index.parse_release(RELEASE.encode())
    assert index.package_index(release, "stable/binary-amd64/").path.endswith("Packages.gz")
    with pytest.raises(Wrong, match="no package index edge/binary-amd64/Packages"):
        index.package_index(release, "edge/binary-amd64/")


@pytest.mark.parametrize(
    ("path", "pack"), [("P.gz", gzip.compress), ("P.xz", lzma.compress), ("P.bz2", bz2.compress), ("P", bytes)]
)
def test_an_index_is_unpacked_within_limits(path, pack, monkeypatch):
    assert index.unpack(path, pack(b"x" * 999)) == b"x" * 999
    monkeypatch.setattr(index, "MAX_UNPACKED", 1000)
    with pytest.raises(Wrong, match="more than"):
        index.unpack(path, pack(b"x" * 100_000))


@pytest.mark.parametrize("path", ["P.gz", "P.xz", "P.bz2"])
def test_a_broken_index_is_an_error(path):
    with pytest.raises(Wrong, match="cannot be unpacked"):
        index.unpack(path, b"<html>")


def test_a_compression_that_python_lacks_is_no_error():
    assert index.unpack("primary.xml.zst", b"\x28\xb5\x2f\xfd") is None


def stanza(version: str, arch: str = "amd64", name: str = "docker-ce") -> str:
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nDescription: it\n is: one\n"
        f"Filename: ./pool/{name}_{version}_{arch}.deb\nSize: 99\nSHA256: {DIGEST}\n"
    )


PACKAGES = "\n".join(
    [
        stanza("5:26.1.5-1~debian.12~bookworm"),
        stanza("5:27.0.1~rc1-1"),
        stanza("5:9.9.9-1"),
        stanza("5:28.0.0-1", "arm64"),
        stanza("99:1", name="docker-ce-cli"),
    ]
).encode()


def test_the_newest_package_for_the_machine_is_found():
    assert index.newest_deb(PACKAGES, "docker-ce", "amd64") == Listed(
        "pool/docker-ce_5:27.0.1~rc1-1_amd64.deb", 99, DIGEST, "sha256", "5:27.0.1~rc1-1"
    )
    assert index.newest_deb(PACKAGES, "docker-ce", "").version == "5:28.0.0-1"
    assert index.newest_deb(PACKAGES, "", "amd64").version == "99:1"


@pytest.mark.parametrize(
    ("name", "architecture", "words"),
    [("podman", "amd64", "has no package podman for amd64"), ("", "s390x", "has no package for s390x")],
)
def test_a_missing_package_is_named(name, architecture, words):
    with pytest.raises(Wrong, match=f"^{words}$"):
        index.newest_deb(PACKAGES, name, architecture)


def test_versions_are_ordered_as_dpkg_orders_them():
    ordered = ["1.0~~", "1.0~rc1", "1.0~rc2", "1.0", "1.0-1", "1.0-1.1", "1.0a", "1.0+b1", "1.2", "1.10", "1:0.1"]
    shuffled = ordered[1::2] + ordered[::2]
    assert sorted(shuffled, key=index.version_key) == ordered
    assert index.version_key("1" * 5000)  # no traceback for what no package is called


PRIMARY = f"""<?xml version="1.0"?><metadata xmlns="http://linux.duke.edu/metadata/common">
<package type="rpm"><name>docker-ce</name><arch>x86_64</arch><version epoch="3" ver="26.1.5" rel="1.el9"/>
<checksum type="sha256" pkgid="YES">{DIGEST}</checksum><size package="77"/><location href="Packages/a.rpm"/></package>
<package type="rpm"><name>docker-ce</name><arch>aarch64</arch><version epoch="0" ver="99" rel="1"/>
<location href="Packages/b.rpm"/></package></metadata>""".encode()
REPOMD = f"""<?xml version="1.0"?><repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1795248000</revision>
<data type="other"><checksum type="sha256">00</checksum><location href="repodata/other.xml.gz"/></data>
<data type="primary"><checksum type="sha">{DIGEST}</checksum><location href="repodata/primary.xml.gz"/>
<timestamp>1795248005</timestamp><size>12</size></data></repomd>""".encode()


def test_yum_metadata_is_read():
    release = index.parse_repomd(REPOMD)
    assert release.date == 1795248005.0
    assert release.files["primary"] == Listed("repodata/primary.xml.gz", 12, DIGEST, "sha")
    assert index.newest_rpm(PRIMARY, "docker-ce", "x86_64") == Listed(
        "Packages/a.rpm", 77, DIGEST, "sha256", "3:26.1.5-1.el9"
    )
    assert index.newest_rpm(PRIMARY, "docker-ce", "aarch64").version == "99-1"
    with pytest.raises(Wrong, match="has no package podman for x86_64"):
        index.newest_rpm(PRIMARY, "podman", "x86_64")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<repomd>",
        b"<repomd/>",
        b'<?xml version="1.0" encoding="nonsense"?><repomd/>',
        b'<!DOCTYPE x [<!ENTITY a "b">]><repomd><data type="primary">&a;</data></repomd>',
    ],
)
def test_broken_yum_metadata_is_an_error(data):
    with pytest.raises(Wrong, match=r"repomd\.xml"):
        index.parse_repomd(data)


def test_digests_are_compared_by_their_kind():
    assert Listed("p", 1, hashlib.sha1(b"x", usedforsecurity=False).hexdigest(), "sha").matches(b"x")
    assert not Listed("p", 1, DIGEST).matches(b"x")
    assert Listed("p", 1, "", "").matches(b"x")


@pytest.mark.parametrize(
    ("kind", "body", "page"),
    [
        ("text/html", b"<center>login</center>", True),
        ("", b"\n <!DOCTYPE HTML>", True),
        ("text/plain", b"<html lang=en>", True),
        ("text/html", b"", True),
        ("text/html; charset=utf-8", b"Suite: stable", False),
        ("text/xml", b"<?xml version='1.0'?><repomd/>", False),
    ],
)
def test_a_web_page_is_recognised(kind, body, page):
    assert index.is_page(kind, body) is page


def measured(name: str, rate: float, seconds: float = 1.0, **more: object) -> Measured:
    return Measured(name, f"http://{name}", Sample(int(rate), 1.0 if rate else 0), seconds, **more)  # type: ignore[arg-type]


def names(*rows: Measured) -> list[str]:
    return [row["name"] for row in ranking.rank(rows, NOW)]


def test_the_fastest_wins_and_near_ones_keep_their_order():
    assert names(measured("a", 10), measured("b", 100), measured("c", 80), measured("d", 130)) == ["b", "d", "c", "a"]
    assert names(measured("a", 98), measured("b", 130), measured("c", 99)) == ["a", "b", "c"]


def test_differences_below_the_noise_do_not_count():
    quick, quicker = Sample(1000, 0.05), Sample(1000, 0.001)
    assert names(Measured("a", "u", quick, 1), Measured("b", "u", quicker, 1)) == ["a", "b"]


def test_without_anything_to_measure_the_quicker_answer_wins():
    assert names(measured("a", 0, 3.0), measured("b", 0, 0.5), measured("c", 0, 0.2)) == ["c", "b", "a"]


def test_stale_comes_after_fresh_and_slow_last():
    fresh, old = NOW - DAY, NOW - 400 * DAY
    rows = (
        measured("both", 1, released=old, slow=True),
        measured("slow", 1, released=fresh, slow=True),
        measured("stale", 900, released=old),
        measured("undated", 10),
        measured("fresh", 10, released=fresh),
    )
    assert names(*rows) == ["undated", "fresh", "stale", "slow", "both"]
    assert [row["stale"] for row in ranking.rank(rows, NOW)] == [False, False, True, False, True]


def test_an_old_index_is_not_stale_when_none_is_newer_and_a_future_one_proves_nothing():
    alone = [measured("a", 1, released=NOW - 400 * DAY), measured("b", 1, released=NOW - 410 * DAY)]
    assert not any(row["stale"] for row in ranking.rank(alone, NOW))
    assert not any(row["stale"] for row in ranking.rank([*alone, measured("c", 1, released=NOW + 2 * DAY)], NOW))


@pytest.mark.parametrize(
    ("size", "seconds", "slow"), [(1000, 2.0, True), (1000, 0.9, False), (9000, 2.0, False), (0, 9.0, False)]
)
def test_slow_needs_time_to_tell(size, seconds, slow):
    assert Sample(size, seconds).is_slow(4096) is slow


def choice(at: float = NOW) -> dict:
    return {
        "measured_at": at,
        "ranked": [{"name": "a", "url": "u"}],
        "rejected": [{"name": "b", "url": "u", "why": "x"}],
    }


def test_a_choice_is_kept_as_long_as_asked():
    text = ranking.with_choice("", "k", choice())
    assert ranking.cached(text, "k", NOW + 99, 100) == choice()
    assert ranking.cached(text, "k", NOW + 100, 100) is None
    assert ranking.cached(text, "k", NOW, 0) is None
    assert ranking.cached(text, "k", NOW - 1, 100) is None, "made with a clock that was ahead"
    assert ranking.cached(text, "other", NOW, 100) is None


def test_other_choices_stay_and_forgotten_ones_go():
    text = ranking.with_choice("", "old", choice(NOW - 31 * DAY))
    text = ranking.with_choice(text, "recent", choice(NOW - DAY))
    entries = json.loads(ranking.with_choice(text, "k", choice()))["entries"]
    assert sorted(entries) == ["k", "recent"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"version": 0, "entries": {}}',
        '{"version": 1, "entries": []}',
        '{"version": 1, "entries": {"k": 1}}',
        '{"version": 1, "entries": {"k": {"measured_at": "x", "ranked": [], "rejected": []}}}',
        '{"version": 1, "entries": {"k": {"measured_at": 1800000000, "ranked": [], "rejected": []}}}',
        '{"version": 1, "entries": {"k": {"measured_at": 1800000000, "ranked": [{"name": 1}], "rejected": []}}}',
    ],
)
def test_a_cache_that_cannot_be_read_is_none(text):
    assert ranking.cached(text, "k", NOW, 100) is None
    assert ranking.cached(ranking.with_choice(text, "k", choice()), "k", NOW, 100) == choice()


def test_the_key_depends_on_every_input():
    assert ranking.cache_key({"a": 1, "b": [2]}) == ranking.cache_key({"b": [2], "a": 1})
    assert ranking.cache_key({"a": 1}) != ranking.cache_key({"a": 2})
