"""The steps of a build on its host: the context, the room it needs, and the trial of what was made."""

from __future__ import annotations

import urllib.error
from types import SimpleNamespace

import pytest
from ansible.module_utils.llmfleet import base_image, image_builder
from ansible.module_utils.llmfleet.build_host import (
    DOCKER_NEEDS,
    GIB,
    SDK_NEEDS,
    BuildFailed,
    BuildHost,
    build_context,
    disk_problem,
)
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF, BuildRequest
from ansible.module_utils.llmfleet.image_toolchain import Toolchain

TARGETS = "http://mirror.example/debian/|bookworm|bookworm|main|Debian\n"
CUDA = BuildRequest(
    ref=DEFAULT_REF,
    pins=(),
    cmake_flags=(),
    cpu_level="x86-64-v3",
    variant="cuda",
    architectures=("86-real",),
    toolkits=("11.8.0",),
)


class Engine:
    """Answers ``docker run`` with what a test says and remembers how it was asked."""

    executable = "docker"

    def __init__(self, rc: int = 0, out: str = "", err: str = "") -> None:
        self.answer = (rc, out, err)
        self.calls: list[tuple[str, ...]] = []

    def attempt(self, *args):
        self.calls.append(args)
        return self.answer


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A builder whose apt has a mirror of Debian 12, and whose network answers as a test says."""
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")

    def run(argv, **_options):
        return 0, TARGETS if "indextargets" in argv else "", ""

    def make(engine=None, opener=None):
        return BuildHost(
            docker=engine or Engine(),
            run=run,
            stream=lambda _argv, _env: 0,
            opener=opener,
            work=tmp_path,
            log=tmp_path / "log",
            info={},
            environment={},
        )

    return make


def test_the_context_has_one_name_and_is_gone_afterwards_also_after_a_crash(tmp_path):
    with build_context(tmp_path) as first:
        (first / "left").write_text("by a run that was killed")
        (first / "deep").mkdir()
        survivor = first
    assert not survivor.exists()
    survivor.mkdir()
    (survivor / "left").write_text("x")
    with build_context(tmp_path) as again:
        assert again == survivor
        assert list(again.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_toolkit_needs_more_room():
    free = 8 * GIB
    assert disk_problem("/docker", free, "/work", free, shared=True, docker_needs=DOCKER_NEEDS) == ""
    assert "/docker" in disk_problem("/docker", free, "/work", free, shared=True, docker_needs=SDK_NEEDS)


def test_the_mirror_is_asked_for_the_component_that_has_cuda(host):
    asked = []

    def opener(request, **_options):
        asked.append((request.get_method(), request.full_url))
        return SimpleNamespace(close=lambda: None)

    assert host(opener=opener).cuda_package_problem("debian:bookworm", "amd64") == ""
    assert asked == [("HEAD", "http://mirror.example/debian/dists/bookworm/non-free/binary-amd64/Release")]


def test_a_mirror_without_cuda_or_no_mirror_at_all_is_said(host):
    def opener(request, **_options):
        raise urllib.error.HTTPError(request.full_url, 404, "Not Found", {}, None)

    said = host(opener=opener).cuda_package_problem("debian:bookworm", "amd64")
    assert "http://mirror.example/debian/ does not deliver non-free (HTTP Error 404" in said
    assert (
        host(opener=opener).cuda_package_problem("ubuntu:noble", "amd64")
        == "this host's apt has no mirror of ubuntu:noble"
    )


def context_of(host, toolchain, tmp_path, request=CUDA):
    context = tmp_path / "context"
    context.mkdir()
    how = image_builder.Settings("embedded", 2, "", {})
    image_builder.write_context(host, request, toolchain, context, how)
    return context


def test_the_distributions_toolkit_switches_its_components_on(host, tmp_path):
    context = context_of(host(), Toolchain("packages", "b", "debian:bookworm", "11.8.0"), tmp_path)
    assert (context / "site" / "sources.list").read_text() == (
        "deb http://mirror.example/debian/ bookworm main contrib non-free\n"
    )
    assert "nvidia-cuda-toolkit" in (context / "Dockerfile").read_text()


def test_an_sdk_image_keeps_its_own_package_sources(host, tmp_path):
    """Its packages are in a repository of the vendor, which the host's mirrors lack."""
    toolchain = Toolchain("image", "registry.example/sdk:1", "debian:bookworm")
    request = BuildRequest(ref=DEFAULT_REF, pins=(), cmake_flags=(), cpu_level="x86-64-v3", variant="musa")
    context = context_of(host(), toolchain, tmp_path, request)
    assert (context / "site" / "sources.list").read_text() == ""
    assert "sourceparts" not in (context / "site" / "apt.conf").read_text()


def test_the_context_has_the_scripts_that_the_dockerfile_names(host, tmp_path):
    context = context_of(host(), Toolchain("wheels", "b", "debian:bookworm", "13.0.2"), tmp_path)
    assert sorted(path.name for path in (context / "tools").iterdir()) == ["cuda_wheels.sh", "gather.sh"]


def test_components_are_added_once():
    row = base_image.AptSource("u", "r", ("main", "non-free"))
    assert base_image.with_components([row], ("contrib", "non-free"))[0].components == ("main", "non-free", "contrib")


GPU = ("--gpus", "all")
LISTED = "Available devices:\n  CUDA0: NVIDIA H200 (143156 MiB, 142000 MiB free)\n"


def test_a_cpu_image_says_its_version(host):
    engine = Engine(0, "version: 0 (0c1e57098)\n")
    assert "0c1e57098" in image_builder.verify(host(engine), "i")
    assert engine.calls[0][-1] == "--version"


def test_a_cuda_image_is_not_started_where_there_is_no_gpu(host):
    engine = Engine(127)
    assert image_builder.verify(host(engine), "i", "cuda") == ""
    assert engine.calls == []


def test_a_cuda_image_has_to_find_the_gpu_where_there_is_one(host):
    engine = Engine(0, LISTED)
    assert "H200" in image_builder.verify(host(engine), "i", "cuda", "llama-cli", GPU)
    asked = engine.calls[0]
    assert asked[:4] == ("run", "--rm", *GPU)
    assert asked[-3:] == ("/app/llama-cli", "i", "--list-devices")


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("cuda", "Available devices:\n  (none)\n"),
        ("cuda", "Available devices:\n  Vulkan0: llvmpipe (1 MiB, 1 MiB free)\n"),
        ("vulkan", LISTED),
    ],
)
def test_an_image_that_falls_back_to_the_processor_is_refused(host, variant, said):
    with pytest.raises(BuildFailed, match="runs, but finds no GPU on this host"):
        image_builder.verify(host(Engine(0, said)), "i", variant, "llama-server", GPU)


@pytest.mark.parametrize(
    ("rc", "err", "words"),
    [
        (132, "", "choose a lower cpu_level"),
        (127, "libcuda.so.1: cannot open shared object file", "libcuda.so.1"),
        (1, "", "it said nothing"),
    ],
)
def test_an_image_that_does_not_run_says_why(host, rc, err, words):
    with pytest.raises(BuildFailed, match=rf"exit status {rc}.*{words}"):
        image_builder.verify(host(Engine(rc, "", err)), "i", "cuda", "llama-server", GPU)


MIXED = (
    "http://mirror.example/debian/|bookworm|bookworm|main|Debian\n"
    "http://mirror.example/debian/|bookworm-updates|bookworm-updates|main|Debian\n"
    "http://security.example/debian-security/|bookworm-security|bookworm-security|main|Debian\n"
    "https://download.docker.com/linux/debian/|bookworm|bookworm|stable|Docker\n"
)


def test_another_release_is_on_the_same_mirror():
    found = base_image.sibling_sources(MIXED, "debian:trixie")
    assert base_image.sources_list(found) == (
        "deb http://mirror.example/debian/ trixie main\n"
        "deb http://mirror.example/debian/ trixie-updates main\n"
        "deb http://security.example/debian-security/ trixie-security main\n"
    )


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        (MIXED, "ubuntu:noble"),
        ("", "debian:trixie"),
        (MIXED + "http://m.example/debian/|sid|sid|main|Debian\n", "debian:trixie"),
    ],
)
def test_no_mirror_is_guessed(listed, wanted):
    """Another distribution is not on it, and of two releases none is the host's for certain."""
    assert base_image.sibling_sources(listed, wanted) == []
