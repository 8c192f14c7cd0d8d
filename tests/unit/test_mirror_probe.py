"""The mirror_probe module against real servers on the loopback, good ones and all kinds of bad ones."""

from __future__ import annotations

import datetime
import email.utils
import gzip
import hashlib
import http.server
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import typing as t
import urllib.parse
from pathlib import Path

import mirror_probe
import pytest
from ansible.module_utils.llmfleet import mirror_check, mirror_race, registry_check
from ansible.module_utils.llmfleet.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
DAY = 86400
DEB = b"deb" * 50_000
VERSION = "5:26.1.5-1~debian.12~bookworm"
RPM_PATH = "Packages/docker-ce-26.1.5-1.el9.x86_64.rpm"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def apt_tree(age: float = 0, valid_for: float | None = None, suite: str = "bookworm", arch: str = "amd64") -> dict:
    """Return the files of an apt repository by path; the flat one lies in the folder flat."""
    files, now = {"pool/docker-ce.deb": DEB}, time.time()
    packages = (
        f"Package: docker-ce\nVersion: {VERSION}\nArchitecture: {arch}\nFilename: pool/docker-ce.deb\n"
        f"Size: {len(DEB)}\nSHA256: {sha256(DEB)}\n"
    ).encode()
    for folder, place in ((f"dists/{suite}/", f"stable/binary-{arch}/"), ("flat/", "")):
        packed = gzip.compress(packages)
        listing = f" {sha256(packages)} {len(packages)} {place}Packages\n"
        listing += f" {sha256(packed)} {len(packed)} {place}Packages.gz\n"
        until = f"Valid-Until: {email.utils.formatdate(now + valid_for)}\n" if valid_for is not None else ""
        text = f"Suite: {suite}\nArchitectures: {arch}\nDate: {email.utils.formatdate(now - age)}\n{until}"
        files[f"{folder}InRelease"] = f"{text}SHA256:\n{listing}".encode()
        files[f"{folder}{place}Packages.gz"] = packed
    files["flat/pool/docker-ce.deb"] = DEB
    return files


def yum_tree() -> dict[str, bytes]:
    """Return the files of a yum repository by path."""
    primary = gzip.compress(
        f'<metadata xmlns="urn:x"><package><name>docker-ce</name><arch>x86_64</arch>'
        f'<version epoch="3" ver="26.1.5" rel="1.el9"/><checksum type="sha256">{sha256(DEB)}</checksum>'
        f'<size package="{len(DEB)}"/><location href="{RPM_PATH}"/></package></metadata>'.encode()
    )
    repomd = (
        f'<repomd><revision>1795248000</revision><data type="primary"><checksum type="sha256">{sha256(primary)}'
        f'</checksum><location href="repodata/primary.xml.gz"/></data></repomd>'
    )
    return {"repodata/repomd.xml": repomd.encode(), "repodata/primary.xml.gz": primary, RPM_PATH: DEB}


LAYER = b"layer" * 9_000
MANIFEST = json.dumps(
    {"schemaVersion": 2, "layers": [{"digest": f"sha256:{sha256(LAYER)}", "size": len(LAYER)}, {"digest": "x"}]}
).encode()
IMAGE_INDEX = json.dumps(
    {
        "manifests": [
            {"digest": f"sha256:{sha256(b'other')}", "platform": {"os": "unknown", "architecture": "unknown"}},
            {"digest": f"sha256:{sha256(MANIFEST)}", "platform": {"os": "linux", "architecture": "amd64"}},
        ]
    }
).encode()
REGISTRY = {
    "library/hello/manifests/1": IMAGE_INDEX,
    f"library/hello/manifests/sha256:{sha256(MANIFEST)}": MANIFEST,
    f"library/hello/blobs/sha256:{sha256(LAYER)}": LAYER,
}
PAGE = b"<!DOCTYPE html><html><body>Welcome to the hotel</body></html>"


class Handler(http.server.BaseHTTPRequestHandler):
    """/<fault>/<path> of one of the trees."""

    server: Server

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        _, fault, wanted = path.split("/", 2)
        self.server.asked.append((fault, wanted, dict(self.headers)))
        if fault == "hang" or (fault == "stall" and wanted.endswith(".deb")):
            self.server.over.wait(30)
        elif fault == "drip":
            self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 0.3)
        elif fault == "silent":
            self.close_connection = True
        elif fault == "garbage":
            self.wfile.write(b"220 mail.example.org ESMTP\r\n")
            self.close_connection = True
        elif fault == "html":
            self.answer(200, PAGE, Content_Type="text/html")
        elif fault == "loop":
            self.answer(302, b"", Location=self.path)
        elif fault == "ftp":
            self.answer(302, b"", Location="ftp://127.0.0.1/x")
        elif fault in ("moved", "moved308"):
            self.answer(308 if fault == "moved308" else 302, b"", Location=self.server.url(f"good/{wanted}"))
        elif fault == "forbidden":
            self.answer(403, b"no")
        elif fault in self.server.registries:
            self.registry(fault, wanted.removeprefix("v2/"))
        else:
            self.tree(fault, wanted)

    def tree(self, fault: str, wanted: str) -> None:
        tree = self.server.trees.get(fault, self.server.trees["good"])
        body = tree.get(wanted)
        if fault == "unsigned" and wanted.endswith("/InRelease"):
            body = None
        elif wanted.endswith("/Release"):
            body = tree.get(wanted[: -len("Release")] + "InRelease")
        if body is None:
            self.answer(404, PAGE, Content_Type="text/html")
        elif fault == "slow":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.drip(body, 0.05, 50)
        elif fault == "otherindex" and "Packages" in wanted:
            self.answer(200, gzip.compress(b"Package: other\n"))
        elif fault == "encoded" and "Packages" in wanted:
            self.answer(200, gzip.compress(body), Content_Encoding="gzip")
        elif fault == "longer" and wanted.endswith((".deb", ".rpm")):
            self.answer(200, body + b"!")
        elif fault == "othersame" and wanted.endswith((".deb", ".rpm")):
            self.answer(200, body[::-1])
        elif fault == "pagefile" and wanted.endswith((".deb", ".rpm")):
            self.answer(200, PAGE, Content_Type="text/html")
        elif fault == "cut" and wanted.endswith((".deb", ".rpm")):
            self.answer(200, body[: len(body) // 2], length=len(body))
            self.close_connection = True
        else:
            self.answer(200, body)

    def registry(self, kind: str, wanted: str) -> None:
        api = {"Docker_Distribution_Api_Version": "registry/2.0"}
        authority = f"http://127.0.0.1:{self.server.server_port}"
        if wanted == "token":
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            good = query == {"scope": ["repository:library/hello:pull"], "service": ["here"]}
            self.answer(200 if good else 400, b'{"token": "s3cret"}')
        elif kind == "bearer" and self.headers.get("Authorization") != "Bearer s3cret":
            challenge = f'Bearer realm="{authority}/bearer/token",service="here"'
            self.answer(401, b'{"errors": []}', WWW_Authenticate=challenge)
        elif kind == "basic" and wanted:
            self.answer(401, b"{}", WWW_Authenticate='Basic realm="nexus"')
        elif wanted == "":
            self.answer(200, b"{}" if kind != "website" else b"hello", **(api if kind == "plain" else {}))
        elif kind == "bearer" and "/blobs/" in wanted:
            self.answer(307, b"", Location=f"{authority}/storage/v2/{wanted}")
        elif kind == "tampered" and "/sha256:" in wanted:
            self.answer(200, REGISTRY[wanted].replace(b"2", b"3", 1))
        else:
            self.answer(200 if wanted in REGISTRY else 404, REGISTRY.get(wanted, b"{}"))

    def answer(self, status: int, body: bytes, /, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, data: bytes, pause: float, block: int = 1) -> None:
        for start in range(0, len(data), block):
            self.wfile.write(data[start : start + block])
            self.wfile.flush()
            if self.server.over.wait(pause):
                return

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    registries = ("plain", "bearer", "basic", "website", "json", "tampered", "storage")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.over = threading.Event()
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.trees = {
            "good": apt_tree(),
            "old": apt_tree(age=400 * DAY),
            "expired": apt_tree(age=9 * DAY, valid_for=-2 * DAY),
            "othersuite": {**apt_tree(), "dists/bookworm/InRelease": apt_tree(suite="trixie")["flat/InRelease"]},
            "otherarch": {**apt_tree(), "dists/bookworm/InRelease": apt_tree(arch="arm64")["flat/InRelease"]},
            "yum": yum_tree(),
            "yumother": {**yum_tree(), "repodata/primary.xml.gz": gzip.compress(b"<metadata/>")},
            "files": {"tool.tar.gz": DEB, "index": PAGE, "empty.bin": b""},
        }

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of these tests."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


WANTED = {
    "apt": {"suite": "bookworm", "architecture": "amd64", "package": "docker-ce"},
    "apt_flat": {"architecture": "amd64", "package": "docker-ce"},
    "yum": {"architecture": "x86_64", "package": "docker-ce"},
}


def params(kind: str, urls: t.Mapping[str, str], **more: t.Any) -> dict[str, t.Any]:
    defaults = {name: option.get("default") for name, option in mirror_probe.ARGUMENT_SPEC.items()}
    rows = [{"name": name, "url": url} for name, url in urls.items()]
    return {**defaults, "kind": kind, "candidates": rows, "timeout": 2, **WANTED.get(kind, {}), **more}


def race(kind: str, urls: t.Mapping[str, str], **more: t.Any) -> tuple[list[str], dict[str, str], dict[str, t.Any]]:
    """Return (names ranked, reasons by name, all)."""
    choice = mirror_race.prepare(params(kind, urls, **more)).run()
    return (
        [row["name"] for row in choice["ranked"]],
        {row["name"]: row["why"] for row in choice["rejected"]},
        choice,
    )


def why(server: Server, kind: str, path: str, **more: t.Any) -> str:
    """Return the reason why a candidate is rejected, "" when it is not."""
    return race(kind, {"x": server.url(path)}, **more)[1].get("x", "")


def test_a_good_mirror_is_used_and_described(server):
    before = time.time()
    ranked, rejected, choice = race("apt", {"good": server.url("good/")})
    assert (ranked, rejected) == (["good"], {})
    row = choice["ranked"][0]
    assert row["url"] == server.url("good")
    assert row["bytes_per_second"] > 10_000
    assert 0 < row["seconds"] < 2
    assert abs(row["released"] - before) < 5
    assert (row["stale"], row["slow"], row["package_version"]) == (False, False, VERSION)
    assert before - 1 < choice["measured_at"] < time.time() + 1
    assert server.asked[0][2]["User-Agent"] == "llmfleet"


@pytest.mark.parametrize("path", ["unsigned", "moved", "moved308", "encoded"])
def test_unusual_but_right_mirrors_are_used(server, path):
    assert why(server, "apt", path) == ""


def test_without_a_package_any_one_will_do(server):
    _, rejected, choice = race("apt", {"good": server.url("good")}, package="")
    assert not rejected
    assert choice["ranked"][0]["bytes_per_second"] > 0
    assert choice["ranked"][0]["package_version"] == ""


REASONS = {
    "hang": "no answer within 5 s",
    "drip": "no answer within 5 s",
    "silent": "closes the connection without an answer",
    "garbage": "does not speak HTTP",
    "html": "answers with a web page instead of a package index",
    "loop": "redirects in a circle, or to where it should not",
    "ftp": "cannot be reached (unknown url type: ftp)",
    "forbidden": "answers HTTP 403 for its suite bookworm",
    "files": "has no suite bookworm (HTTP 404)",
    "othersuite": "answers with the suite trixie",
    "otherarch": "has no packages for amd64",
    "otherindex": "has a package index that is not the one its Release lists",
    "longer": "has a docker-ce package of 150001 bytes where its index says 150000",
    "othersame": "has a docker-ce package that is not the one its index lists",
    "pagefile": "answers with a web page instead of a docker-ce package",
    "cut": "breaks off in the middle of a file",
    "stall": "stopped answering within 5 s",
}


def test_bad_mirrors_do_not_keep_a_good_one_from_being_used(server):
    faults = {name: server.url(name) for name in REASONS}
    with socket.socket() as closed:
        # nobody listens there, and nobody else gets it meanwhile
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        started = time.monotonic()
        ranked, rejected, _ = race("apt", {"dead": dead, **faults, "good": server.url("good")}, timeout=5)
    # one after the other those that hang would take 15 s
    assert time.monotonic() - started < 10
    assert ranked == ["good"]
    assert rejected == {"dead": "refuses the connection", **REASONS}


def test_an_expired_index_is_refused_and_an_old_one_comes_last(server):
    assert why(server, "apt", "expired").startswith("has an index that expired on 20")
    ranked, _, choice = race("apt", {"old": server.url("old"), "good": server.url("good")})
    assert ranked == ["good", "old"]
    assert [row["stale"] for row in choice["ranked"]] == [False, True]


def test_a_missing_package_or_component_is_named(server):
    assert why(server, "apt", "good", package="podman") == "has no package podman for amd64"
    assert "no package index edge/binary-amd64/Packages" in why(server, "apt", "good", component="edge")


def test_a_slow_mirror_is_used_last_when_it_could_be_checked(server):
    # 1 kB/s: the small index arrives in time, the package does not
    ranked, rejected, choice = race("apt", {"slow": server.url("slow"), "old": server.url("old")}, timeout=4)
    assert (ranked, rejected) == (["old", "slow"], {})
    assert choice["ranked"][1]["slow"] is True
    assert 300 < choice["ranked"][1]["bytes_per_second"] < 2000


def test_a_mirror_too_slow_to_be_checked_is_refused(server):
    # its Release arrives soon, its index would take 100 s
    server.trees["slow"] = {**apt_tree(), "dists/bookworm/stable/binary-amd64/Packages.gz": b"x" * 99_999}
    assert why(server, "apt", "slow", timeout=2).startswith("is too slow to be checked (")


def test_time_that_runs_out_over_a_quick_transfer_leaves_a_mirror_usable(server):
    # the index is what takes so long, at a speed that is not too low
    server.trees["slow"] = {**apt_tree(), "dists/bookworm/stable/binary-amd64/Packages.gz": b"x" * 99_999}
    ranked, rejected, choice = race("apt", {"slow": server.url("slow")}, timeout=1.5, min_bytes_per_second=100)
    assert (ranked, rejected) == (["slow"], {})
    assert choice["ranked"][0]["slow"] is True


def test_the_sample_is_no_longer_than_asked(server):
    _, rejected, choice = race("apt", {"cut": server.url("cut")}, sample_bytes=1000)
    assert not rejected, "what comes after the sample is not looked at"
    assert choice["ranked"][0]["bytes_per_second"] > 0


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("good/flat", ""),
        ("html", "answers with a web page instead of a package index"),
        ("good", "has no Release file (HTTP 404)"),
        ("longer/flat", "has a docker-ce package of 150001 bytes where its index says 150000"),
    ],
)
def test_flat_repositories(server, path, reason):
    assert why(server, "apt_flat", path) == reason


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("yum", ""),
        ("html", "answers with a web page instead of a package index"),
        ("good", "has no repomd.xml (HTTP 404)"),
        ("yumother", "has a package index that is not the one its repomd.xml lists"),
    ],
)
def test_yum_repositories(server, path, reason):
    assert why(server, "yum", path) == reason


def test_a_yum_repository_is_described(server):
    _, _, choice = race("yum", {"yum": server.url("yum")})
    assert (choice["ranked"][0]["released"], choice["ranked"][0]["package_version"]) == (1795248000, "3:26.1.5-1.el9")
    assert why(server, "yum", "yum", package="podman") == "has no package podman for x86_64"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("plain", ""),
        ("json", ""),
        ("bearer", ""),
        ("basic", ""),
        ("website", "does not answer like a registry"),
        ("html", "answers with a web page instead of a registry"),
        ("forbidden", "answers HTTP 403 instead of a registry's 200 or 401"),
    ],
)
def test_registries(server, path, reason):
    assert why(server, "registry", path) == reason


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("plain", ""),
        ("bearer", ""),
        ("basic", "gives hello:1 only after a login (HTTP 401)"),
        ("tampered", "has a manifest of hello:1 that does not have its digest"),
    ],
)
def test_mirrors_of_docker_hub_must_deliver(server, path, reason):
    assert why(server, "hub", path, image="hello:1", architecture="x86_64") == reason


def test_an_image_that_is_not_there_is_named(server):
    assert why(server, "hub", "plain", image="hello:2") == "does not have hello:2 (HTTP 404)"
    assert why(server, "registry", "plain", image="hello:1") == "does not have hello:1 (HTTP 404)"
    said = why(server, "registry", "plain", image="library/hello:1", architecture="s390x")
    assert said == "has library/hello:1 not for s390x"


def test_a_layer_tells_the_speed_and_the_token_stays_with_the_registry(server):
    _, _, choice = race("hub", {"hub": server.url("bearer")}, image="hello:1")
    assert choice["ranked"][0]["bytes_per_second"] > 10_000
    stored = [headers for fault, _, headers in server.asked if fault == "storage"]
    assert stored
    assert "Authorization" not in stored[0]


def test_a_broken_token_server_is_named(server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = f"127.0.0.1:{closed.getsockname()[1]}"

    def refuse(self: Handler, _kind: str, _wanted: str) -> None:
        self.answer(401, b"{}", WWW_Authenticate=f'Bearer realm="http://{place}/token"')

    monkeypatch.setattr(Handler, "registry", refuse)
    said = why(server, "hub", "plain", image="hello:1")
    assert said == f"sends to the token server {place}, which refuses the connection"


@pytest.mark.parametrize(
    ("image", "kind", "parts"),
    [
        ("hello", "hub", ("library/hello", "latest")),
        ("docker.io/me/hello:1", "hub", ("me/hello", "1")),
        ("docker.io/library/hello:1", "registry", ("docker.io/library/hello", "1")),
        ("a/b@sha256:12", "registry", ("a/b", "sha256:12")),
        ("a/b:1@sha256:12", "registry", ("a/b", "sha256:12")),
    ],
)
def test_images_are_split_as_the_protocol_names_them(image, kind, parts):
    assert registry_check.split_image(image, kind) == parts


@pytest.mark.parametrize(
    ("path", "more", "reason"),
    [
        ("files/tool.tar.gz", {}, ""),
        ("files/tool.tar.gz", {"sha256": sha256(DEB).upper()}, ""),
        ("files/tool.tar.gz", {"sha256": "0" * 64}, "has another file than the one with the wanted sha256"),
        ("files/tool.tar.gz", {"sha256": "0" * 64, "sample_bytes": 100}, ""),
        ("files/index", {}, ""),
        ("files/empty.bin", {}, "answers with an empty file"),
        ("files/none.bin", {}, "has no such file (HTTP 404)"),
        ("html/tool.tar.gz", {}, "answers with a web page instead of a file"),
        ("forbidden/tool.tar.gz", {}, "answers HTTP 403"),
    ],
)
def test_plain_files(server, path, more, reason):
    assert why(server, "url", path, **more) == reason


def test_a_proxy_is_used_and_named(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url("")[:-1])
    monkeypatch.setenv("no_proxy", "")
    # a name that only the proxy could know
    assert race("apt", {"far": "http://mirror.invalid/good"})[0] == ["far"]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("http_proxy", f"http://me:secret@{place}")
    said = race("apt", {"far": "http://mirror.invalid/good"})[1]["far"]
    assert said == f"refuses the connection (through the proxy http://{place})"


def test_a_name_that_does_not_resolve(server, monkeypatch):
    def unknown(*_: object, **__: object) -> t.NoReturn:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert why(server, "apt", "good") == "has a name that does not resolve"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that signs itself; return (certificate, key)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, secret


def test_certificates_are_checked_against_the_bundle(server, tmp_path):
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url("good").replace("http:", "https:")
    assert race("apt", {"tls": url})[1]["tls"].startswith("has a certificate that is not trusted (self")
    assert race("apt", {"tls": url}, ca_bundle=str(cert))[0] == ["tls"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidates": []}, "name at least one"),
        ({"candidates": [{"name": "", "url": "ftp://h/x"}]}, "not an http or https URL"),
        ({"candidates": [{"name": "", "url": "http://h:x/"}]}, "not an http or https URL"),
        ({"candidates": [{"name": "", "url": "http://h/a b"}]}, "not an http or https URL"),
        ({"candidates": [{"name": "", "url": "https://me:secret@h/x"}]}, "has a user or password"),
        ({"suite": ""}, "need `suite`"),
        ({"architecture": ""}, "need `suite`"),
        ({"sha256": "12"}, "64 hexadecimal"),
        ({"timeout": 0}, "`timeout` must be more than 0"),
        ({"ca_bundle": "/nonexistent/ca.pem"}, "not a file"),
        ({"ca_bundle": __file__}, "no certificates"),
    ],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(BadInput, match=words) as caught:
        mirror_race.prepare({**params("apt", {"x": "http://h/"}), **change})
    assert "secret" not in str(caught.value)


def test_a_candidate_without_a_name_is_called_by_its_host(server):
    given = {**params("apt", {}), "candidates": [{"name": "", "url": server.url("good")}]}
    assert mirror_race.prepare(given).run()["ranked"][0]["name"] == f"127.0.0.1:{server.server_port}"


def run_module(*flags: str, before: str = "", **args: t.Any) -> dict[str, t.Any]:
    """Run the module in a process of its own."""
    command = [sys.executable, str(ROOT / "tests/run_module.py"), "mirror_probe", json.dumps(args), *flags]
    if before:
        starter = (
            f"import runpy, sys; {before}; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        command = [command[0], "-c", starter, *command[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    answer: dict[str, t.Any] = json.loads(done.stdout)
    return answer


def asked(server: Server) -> int:
    return len(server.asked)


def test_the_module_keeps_a_choice(server, tmp_path):
    rows = [{"name": "html", "url": server.url("html")}, {"name": "good", "url": server.url("good")}]
    args = {"kind": "apt", "candidates": rows, **WANTED["apt"], "cache_path": str(tmp_path / "new/probe.json")}
    first = run_module("--check", **args)
    assert (first["changed"], first["from_cache"]) == (False, False)
    assert first["best"] == {"name": "good", "url": server.url("good")}
    assert [row["name"] for row in first["rejected"]] == ["html"]
    assert not (tmp_path / "new").exists(), "check mode keeps nothing"
    second = run_module(**args)
    count = asked(server)
    third = run_module(**args)
    assert (second["from_cache"], third["from_cache"], asked(server)) == (False, True, count)
    kept = ("best", "ranked", "rejected", "measured_at", "changed")
    assert {key: third[key] for key in kept} == {key: second[key] for key in kept}
    assert os.stat(tmp_path / "new/probe.json").st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["probe.json"]
    assert run_module(**{**args, "package": ""})["from_cache"] is False
    assert run_module(**{**args, "max_age": 0})["from_cache"] is False
    (tmp_path / "new/probe.json").write_text("{broken")
    assert run_module(**args)["from_cache"] is False
    assert run_module(**args)["from_cache"] is True


def test_a_race_without_a_winner_is_no_error_and_is_not_kept(server, tmp_path):
    args = {"kind": "registry", "candidates": [{"url": server.url("html")}], "cache_path": str(tmp_path / "p.json")}
    result = run_module(**args)
    assert (result["ranked"], result["best"], len(result["rejected"])) == ([], {}, 1)
    assert not (tmp_path / "p.json").exists()


def test_a_cache_that_cannot_be_written_is_a_warning(server, tmp_path):
    (tmp_path / "file").write_text("")
    args = {"kind": "registry", "candidates": [{"url": server.url("plain")}], "cache_path": str(tmp_path / "file/p")}
    result = run_module(**args)
    assert result["best"]
    assert "cannot be kept" in str(result["warnings"])


def test_bad_input_fails_with_a_sentence():
    result = run_module(kind="apt", candidates=[{"url": "http://h/"}])
    assert result["failed"] is True
    assert result["msg"].startswith("candidates of the kind `apt` need `suite`")


# the real one cannot be made to hang here; others than the candidate's name must go on working
HANGING_LOOKUP = (
    "import socket, time; real = socket.getaddrinfo; socket.getaddrinfo = lambda host, *rest, **options: "
    "time.sleep(60) if host == 'mirror.invalid' else real(host, *rest, **options)"
)


@pytest.mark.parametrize(("fault", "before"), [("drip", ""), ("hang", HANGING_LOOKUP)])
def test_nothing_holds_the_module_beyond_its_time(server, tmp_path, fault, before):
    url = "http://mirror.invalid/" if before else server.url(fault)
    args = {"kind": "registry", "candidates": [{"url": url}], "cache_path": str(tmp_path / "p.json")}
    started = time.monotonic()
    result = run_module(**args, timeout=0.5, before=before)
    assert time.monotonic() - started < 20, "neither a server that drips nor a name server that hangs"
    assert result["rejected"][0]["why"] == "no answer within 0.5 s"


def test_the_documented_kinds_are_those_there_are():
    assert mirror_probe.ARGUMENT_SPEC["kind"]["choices"] == list(mirror_check.KINDS)
