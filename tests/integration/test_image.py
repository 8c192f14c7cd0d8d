"""llama_cpp_image against the real engine.

The build path is walked with a tree of trivial programs that compiles in seconds; what a real llama.cpp adds is
compile time. Both builders, the compiler cache, the failure report and the pull are the real ones.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import tarfile
import threading
import time
import typing as t
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import base_image, image_look, image_prune
from ansible.module_utils.llmfleet.docker_cli import Docker
from helpers import docker, free_port, run_module
from registry import installed, registry
from tiny_source import tree


def names() -> set[str]:
    """Return the names of this project's images."""
    return set(docker("images", "--format", "{{.Repository}}:{{.Tag}}", "llmfleet/llama.cpp").split())


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder."""
    return tmp_path / "work"


@pytest.fixture
def provide(work: Path, tmp_path: Path) -> t.Iterator[t.Callable[..., dict[str, t.Any]]]:
    """Run the module on the trivial tree, without a registry unless one is given; what it builds goes away again."""
    row = tree(tmp_path)
    installed("debootstrap")  # which the role does; needed once, to make the base image
    built = set()

    def run(check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
        given = {"work_dir": str(work), "sources": [row], "registries": [], "base_images": [], **arguments}
        result = run_module("llama_cpp_image", given, check=check)
        if result.get("action") == "build":
            built.add(result["image"])
        return result

    yield run
    # by name: other tests have images on the same engine
    for name in built & names():
        docker("rmi", "--force", name)


def says(image: str, program: str = "llama-server") -> str:
    return docker("run", "--rm", "--network", "none", "--read-only", "--entrypoint", f"/app/{program}", image).strip()


def test_buildkit_builds_once_and_takes_compiled_objects_from_its_cache(provide, tmp_path):
    # a new value each time: otherwise BuildKit takes the whole step from its cache, and no compiler is asked
    flag = f"-DUNUSED_FLAG={time.time_ns()}"
    first = provide(cmake_flags=[flag])
    assert not first.get("failed"), first
    assert (first["action"], first["changed"]) == ("build", True)
    assert says(first["image"]) == "tiny 1"

    again = provide(cmake_flags=[flag])
    assert (again["action"], again["changed"], again["image_id"]) == ("keep", False, first["image_id"])
    assert again["seconds"] < first["seconds"] / 4

    touched = provide(cmake_flags=[f"{flag}0"])
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
    broken = {"sources": [tree(tmp_path / "broken", "b", **changed)]}
    image = provide(True, **broken)["image"]
    result = provide(**broken)
    assert result["failed"]
    assert words in result["msg"].replace("\u2018", "'").replace("\u2019", "'")
    assert Path(result["log"]).is_file()
    assert not {image, f"{image}-unverified"} & names()


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


def git(repository: Path, *words: str) -> str:
    """Return what ``git words`` says in a repository."""
    own = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    return subprocess.run([*own, *words], check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, version: str) -> tuple[Path, str]:
    """Commit a state of the source tree to the repository in ``folder``; return it and the commit."""
    tree(folder, version)
    repository = folder / "tiny"
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", version)
    return repository, git(repository, "rev-parse", "HEAD")


def test_git_delivers_a_tag_and_its_commit(provide, tmp_path):
    repository, head = commit(tmp_path / "repo", "1")
    git(repository, "tag", "b77")
    result = provide(sources=[{"git": str(repository)}], ref="b77", source="build")
    assert not result.get("failed"), result
    assert result["build_source"] == {"candidate": f"git {repository}", "commit": head}
    assert says(result["image"]) == "tiny 1"


def latest(**arguments: t.Any) -> dict[str, t.Any]:
    """Return what llama_cpp_ref says, as arguments of llama_cpp_image."""
    said = run_module("llama_cpp_ref", arguments)
    assert said.get("ref"), said
    return {"ref": said["ref"], "sources": said["sources"], "source": "build"}


def test_latest_builds_only_when_it_has_moved_and_then_from_the_compilers_cache(provide, tmp_path):
    # a version that no earlier run has compiled
    stamp = f"{time.time_ns()}"
    repository, head = commit(tmp_path / "repo", stamp)
    rows = [{"git": f"file://{tmp_path}/no-such"}, {"git": f"file://{repository}"}]
    first = provide(**latest(sources=rows))
    assert not first.get("failed"), first
    assert (first["action"], first["commit"], says(first["image"])) == ("build", head, f"tiny {stamp}")

    unchanged = latest(sources=rows)
    assert provide(True, **unchanged)["changed"] is False
    again = provide(**unchanged)
    assert (again["action"], again["changed"], again["image_id"]) == ("keep", False, first["image_id"])

    _repository, newer = commit(tmp_path / "repo", f"{stamp}b")
    moved = latest(sources=rows)
    assert moved["ref"] == newer
    assert provide(True, **moved)["action"] == "build"
    second = provide(**moved)
    assert (second["action"], second["commit"], says(second["image"])) == ("build", newer, f"tiny {stamp}b")
    # what a roll-back goes to
    assert says(first["image"]) == f"tiny {stamp}"
    # the libraries did not change, so the new image shares that layer
    assert second["layers"][0] == first["layers"][0]
    assert second["layers"][-1] != first["layers"][-1]
    if second["buildkit"] != "none":
        hits = re.search(r"Hits: +(\d+) / +(\d+)", Path(second["log"]).read_text())
        assert hits
        assert 0 < int(hits[1]) < int(hits[2])


def test_latest_without_git_is_the_newest_release_of_the_index(provide, tmp_path):
    project = tmp_path / "index" / "tiny-llama"
    project.mkdir(parents=True)
    links = []
    for version in ("1.9", "1.10"):
        row = tree(tmp_path / version, version)
        name = f"tiny_llama-{version}.tar.gz"
        shutil.copy(row["archive"], project / name)
        links.append(f'<a href="{name}#sha256={row["sha256"]}">{name}</a>')
    (project / "index.html").write_text("\n".join(links))
    with serving(tmp_path / "index") as url:
        rows = [{"git": f"file://{tmp_path}/no-such"}, {"sdist": "tiny-llama"}]
        given = latest(sources=rows, pypi_index=url)
        assert given["ref"] == "tiny-llama-1.10"
        result = provide(**given, pypi_index=url)
        assert not result.get("failed"), result
        assert (result["action"], says(result["image"])) == ("build", "tiny 1.10")
        assert provide(**latest(sources=rows, pypi_index=url))["action"] == "keep"


def test_an_image_for_older_processors_is_kept_on_a_better_one(provide):
    low = provide(cpu_level_planned="x86-64" if os.uname().machine == "x86_64" else "armv8-a")
    assert low["action"] == "build", low
    kept = provide()
    assert (kept["action"], kept["image"], kept["cpu_level"]) == ("keep", low["image"], low["cpu_level"])
    assert kept["build_key"] != low["build_key"]


@pytest.fixture
def old_images() -> t.Iterator[list[str]]:
    """Five images of a variant of their own, the newest first; the oldest one is used by a container."""
    variant = f"test{time.time_ns() % 10**6}"
    names = []
    for number in range(5):
        names.insert(0, f"llmfleet/llama.cpp:{variant}-{number:012x}")
        labels = f'LABEL io.llmfleet.variant={variant} io.llmfleet.contents=server number={number}\nCMD ["/none"]'
        command = ["docker", "build", "--quiet", "--tag", names[0], "-"]
        subprocess.run(command, check=True, input=f"FROM scratch\n{labels}\n", text=True, capture_output=True)
    docker("create", "--name", variant, names[-1])
    docker("tag", names[2], f"{variant}/own:1")
    yield names
    docker("rm", variant)
    for name in docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        if name in names or name.startswith(variant):
            docker("rmi", name)


def test_older_images_go_from_the_real_engine(old_images, tmp_path):
    def run(argv: list[str], **_options: t.Any) -> tuple[int, str, str]:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    variant = old_images[0].partition(":")[2].partition("-")[0]
    client = Docker(run)
    for check_mode in (True, False):
        rows = image_look.read(docker("image", "inspect", *old_images))
        old = image_prune.older(rows, old_images[0], (variant, "server"), 1, {})
        gone, stays = image_prune.prune(client, tmp_path, old, check_mode)
        assert (gone, stays) == (old_images[2:4], {old_images[4]: [variant]})
        left = docker(
            "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"label=io.llmfleet.variant={variant}"
        )
        expected = {old_images[0], old_images[1], old_images[4], f"{variant}/own:1"}
        assert set(left.split()) == (expected if not check_mode else {*old_images, f"{variant}/own:1"})


@contextmanager
def serving(folder: Path, certificate: tuple[Path, Path] | None = None) -> t.Iterator[str]:
    """Serve ``folder`` on loopback, over https with (certificate, key); give the URL."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory=str(folder))
    )
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
    with serving(empty, (certificate, key)) as url:
        yield url, certificate


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
