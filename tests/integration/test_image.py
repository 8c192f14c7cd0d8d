"""llama_cpp_image against the real engine.

The build path is walked with a tree of four trivial programs that compiles in seconds; what a real llama.cpp adds is
compile time. Both builders, the compiler cache, the failure report and the pull are the real ones.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import shutil
import ssl
import subprocess
import tarfile
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import base_image
from helpers import docker, free_port, run_module
from registry import installed, registry

CMAKE = """cmake_minimum_required(VERSION 3.14)
project(tiny CXX)
add_library(greet greet.cpp)
set_target_properties(greet PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
foreach(tool llama-server llama-cli llama-quantize llama-gguf-split)
  add_executable(${tool} main.cpp)
  target_link_libraries(${tool} PRIVATE greet)
endforeach()
"""
GREET = '#include <iostream>\nvoid greet() { std::cout << "tiny %s\\n"; }\n'
MAIN = "void greet();\nint main() { greet(); }\n"


def tree(folder: Path, version: str = "1", **changed: str) -> dict[str, str]:
    """Pack a source tree of four programs; return it as a source row."""
    files = {"CMakeLists.txt": CMAKE, "greet.cpp": GREET % version, "main.cpp": MAIN, "LICENSE": "none\n", **changed}
    root = folder / "tiny"
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name).write_text(text)
    path = folder / f"tiny-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(root, "tiny")
    return {"archive": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def ours() -> set[str]:
    """Return the images this project has built."""
    return set(docker("images", "-q", "--no-trunc", "--filter", "label=io.llmfleet.build-key").split())


@pytest.fixture
def work(tmp_path: Path) -> t.Iterator[Path]:
    """A work folder; the images a test has made go away with it."""
    before = ours()
    yield tmp_path / "work"
    for image in ours() - before:
        docker("rmi", "--force", image)


@pytest.fixture
def provide(work: Path, tmp_path: Path) -> t.Callable[..., dict[str, t.Any]]:
    """Run the module on the trivial tree, without a registry unless one is given."""
    row = tree(tmp_path)
    installed("debootstrap")  # which the role does; needed once, to make the base image

    def run(check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
        given = {"work_dir": str(work), "sources": [row], "registries": [], "base_images": [], **arguments}
        return run_module("llama_cpp_image", given, check=check)

    return run


def says(image: str, program: str = "llama-server") -> str:
    return docker("run", "--rm", "--network", "none", "--read-only", "--entrypoint", f"/app/{program}", image).strip()


def test_buildkit_builds_once_and_takes_compiled_objects_from_its_cache(provide, tmp_path):
    first = provide()
    assert not first.get("failed"), first
    assert (first["action"], first["changed"]) == ("build", True)
    assert {says(first["image"], name) for name in ("llama-server", "llama-cli", "llama-quantize")} == {"tiny 1"}

    started = time.monotonic()
    again = provide()
    assert (again["action"], again["changed"], again["image_id"]) == ("keep", False, first["image_id"])
    assert again["seconds"] < 1.0
    assert time.monotonic() - started < 5

    # a new value each time: otherwise BuildKit takes the whole step from its cache, and no compiler is asked
    touched = provide(cmake_flags=[f"-DUNUSED_FLAG={time.time_ns()}"])
    assert touched["image"] != first["image"]
    if touched["buildkit"] != "none":
        hits = re.search(r"Hits: +(\d+) / +(\d+)", Path(touched["log"]).read_text())
        assert hits
        assert hits[1] == hits[2] != "0"

    newer = provide(sources=[tree(tmp_path / "newer", "2")])
    assert says(newer["image"]) == "tiny 2"
    assert says(first["image"]) == "tiny 1"


def test_the_legacy_builder_makes_the_same_image(provide):
    result = provide(buildkit="none", cmake_flags=["-DLEGACY=1"])
    assert not result.get("failed"), result
    assert result["buildkit"] == "none"
    assert says(result["image"]) == "tiny 1"
    assert "Step 1/" in Path(result["log"]).read_text()


def test_the_image_holds_the_programs_and_nothing_of_the_host(provide, tmp_path, monkeypatch):
    marker = "-----BEGIN CERTIFICATE-----"
    monkeypatch.setenv("no_proxy", "secret-proxy-word.invalid")
    image = provide(cmake_flags=["-DINSPECTED=1"])["image"]
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/app/llama-server"]
    assert "Healthcheck" not in config
    packed = tmp_path / "image.tar"
    docker("save", "--output", str(packed), image)
    unpacked = tmp_path / "image"
    unpacked.mkdir()
    # Python's own way wants an argument that Debian 12's Python 3.11.2 does not know yet
    subprocess.run(["tar", "-x", "-f", packed, "-C", unpacked], check=True)
    names: set[str] = set()
    for layer in (path for path in unpacked.rglob("*") if path.is_file()):
        content = layer.read_bytes()
        assert marker.encode() not in content
        assert b"secret-proxy-word" not in content
        if tarfile.is_tarfile(layer):
            with tarfile.open(layer) as tar:
                names |= {member.name for member in tar.getmembers() if member.isreg()}
    folders = {name.split("/")[0] for name in names}
    assert folders <= {"app", "etc", "lib", "lib64", "usr"}
    assert {name for name in names if name.startswith("etc/")} == {"etc/passwd", "etc/group"}
    assert not [name for name in names if re.search(r"(apt|dpkg|/sh$|g\+\+)", name)]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"main.cpp": "int main() { return nothing; }\n"}, "error: 'nothing' was not declared in this scope"),
        ({"CMakeLists.txt": 'project(x)\nmessage(FATAL_ERROR "needs a better host")\n'}, "needs a better host"),
        ({"greet.cpp": "int other;\n"}, "undefined reference to `greet()'"),
    ],
)
def test_a_failed_build_gives_the_first_real_error(provide, tmp_path, changed, words):
    before = ours()
    result = provide(sources=[tree(tmp_path / "broken", "b", **changed)])
    assert result["failed"]
    assert words in result["msg"].replace("\u2018", "'").replace("\u2019", "'")
    assert Path(result["log"]).is_file()
    assert ours() == before


def test_the_next_candidate_is_used_when_one_fails(provide, tmp_path):
    good = tree(tmp_path / "good")
    rows = [
        {"git": f"http://127.0.0.1:{free_port()}/x.git"},
        {**good, "sha256": "0" * 64},
        {"sdist": "llama-cpp-python", "version": "0", "sha256": "0" * 64, "ref": "f" * 40},
        good,
    ]
    result = provide(sources=rows)
    assert result["action"] == "build", result
    assert [row["result"].split()[0] for row in result["tried"]] == ["carries", "127.0.0.1", good["archive"], "used"]


def test_git_delivers_a_tag_and_its_commit(provide, tmp_path):
    tree(tmp_path / "repo")
    repository = tmp_path / "repo" / "tiny"
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["tag", "b77"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    result = provide(sources=[{"git": str(repository)}], ref="b77", source="build")
    assert not result.get("failed"), result
    assert result["build_source"] == {"candidate": f"git {repository}", "commit": head}
    assert says(result["image"]) == "tiny 1"


@pytest.fixture
def inspected_mirror(tmp_path: Path) -> t.Iterator[tuple[str, Path]]:
    """An https server with a certificate that only its own CA vouches for; the URL and the CA's file."""
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    subject = ["-subj", "/CN=inspection", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
        check=True,
        capture_output=True,
    )
    empty = tmp_path / "mirror"
    empty.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory=str(empty))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", certificate
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("trusted", [True, False])
def test_the_hosts_ca_reaches_apt_in_the_build(provide, inspected_mirror, tmp_path, trusted):
    url, certificate = inspected_mirror
    base = provide(cmake_flags=[f"-DCA={trusted}"])["base"]["image"]
    site = tmp_path / "site"
    site.mkdir()
    (site / "apt.conf").write_text(base_image.apt_conf("", own_sources=True, own_ca=trusted))
    (site / "sources.list").write_text(base_image.sources_list([base_image.AptSource(url, "stable", ("main",))]))
    (site / "ca.crt").write_bytes(certificate.read_bytes())
    mounts = ["--volume", f"{site}:/run/llmfleet:ro", "--env", "APT_CONFIG=/run/llmfleet/apt.conf"]
    said = docker("run", "--rm", "--network", "host", *mounts, base, "sh", "-c", "apt-get update; true")
    # the mirror is empty: with the certificate accepted, that is what apt finds out
    assert ("404" in said) == trusted, said
    assert ("ertificate" in said) != trusted, said


@pytest.fixture(scope="session")
def lan_registry(image: str, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """A registry that has this project's image where the published one lies."""
    with registry(tmp_path_factory.mktemp("registry")) as name:
        pushed = f"{name}/ggml-org/llama.cpp:server-b11206"
        docker("tag", image, pushed)
        docker("push", pushed)
        docker("rmi", pushed)
        yield name


@pytest.fixture
def forget(lan_registry: str) -> t.Iterator[str]:
    """The registry, with the pulled image gone afterwards."""
    yield lan_registry
    for name in docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        if name.startswith(lan_registry):
            docker("rmi", name)


@pytest.mark.parametrize("source", ["auto", "pull"])
def test_the_published_image_is_pulled_where_a_registry_answers(provide, forget, source):
    dead = f"127.0.0.1:{free_port()}"
    wanted = {"registries": [dead, forget], "source": source}
    planned = provide(check=True, **wanted)
    assert (planned["action"], planned["changed"]) == ("pull", True)
    assert planned["tried"] == [
        {"candidate": f"{dead}/ggml-org/llama.cpp:server-b11206", "result": "Connection refused"}
    ]
    result = provide(**wanted)
    assert not result.get("failed"), result
    assert (result["action"], result["image"]) == ("pull", f"{forget}/ggml-org/llama.cpp:server-b11206")
    assert "version" in docker("run", "--rm", "--network", "none", result["image"], "--version")
    again = provide(**wanted)
    assert (again["action"], again["changed"], again["image"]) == ("keep", False, result["image"])


def test_without_a_registry_auto_plans_a_build_and_pull_is_refused(provide):
    dead = f"127.0.0.1:{free_port()}"
    planned = provide(check=True, registries=[dead])
    assert (planned["action"], planned["why"]) == ("build", "no registry of the published image answers")
    refused = provide(source="pull", registries=[dead])
    assert refused["failed"]
    assert "Connection refused" in refused["msg"]


def test_a_tag_that_is_not_there_becomes_a_build(provide, forget):
    result = provide(registries=[forget], tag="server-no-such", cmake_flags=[])
    assert not result.get("failed"), result
    assert (result["action"], result["why"]) == ("build", "the pull of the published image failed")
    assert "manifest" in json.dumps(result["tried"])


def test_removal_leaves_what_a_container_uses(provide, work, forget):
    result = provide(registries=[forget], source="pull")
    name = "llmfleet-test-user"
    docker("create", "--name", name, result["image"])
    try:
        planned = run_module("llama_cpp_image", {"state": "absent", "work_dir": str(work)}, check=True)
        assert name in json.dumps(planned["in_use"])
        assert str(work / "sources" / "llama_cpp_pulled") in planned["removed"]
    finally:
        docker("rm", name)
    shutil.rmtree(work)
