"""Which toolchain a builder compiles with: the order, what answers, what fails later, and the words of a refusal."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from ansible.module_utils.llmfleet import toolchain_choice as choice
from ansible.module_utils.llmfleet.build_host import BuildFailed
from ansible.module_utils.llmfleet.cuda_tables import BUILDERS
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF, BuildRequest
from ansible.module_utils.llmfleet.image_source import SourceError
from ansible.module_utils.llmfleet.image_toolchain import Toolchain
from ansible.module_utils.llmfleet.image_variants import BACK_ENDS

CPU = BuildRequest(ref=DEFAULT_REF, pins=(), cmake_flags=(), cpu_level="x86-64-v3")
CUDA = replace(CPU, variant="cuda", architectures=("86-real",), toolkits=("13.0.2", "12.8.1"))
MIRROR = "docker.m.daocloud.io/nvidia/cuda:"
HUB = "docker.io/nvidia/cuda:"


class Wheels:
    """A wheel store of which a test says what it lacks and whether it breaks."""

    def __init__(self, missing: str = "", broken: str = "") -> None:
        self._missing, self._broken = missing, broken
        self.brought: list[str] = []

    def missing(self, _wheels):
        return self._missing

    def bring(self, wheels, _into):
        if self._broken:
            raise SourceError(self._broken)
        self.brought += [wheel.name for wheel in wheels]


class Host:
    """A builder: ``present`` images, registries that are ``down``, pulls that fail, a mirror with or without CUDA."""

    def __init__(self, present=(), down=("docker.io", "docker.m.daocloud.io"), unpullable=(), packages="no mirror"):
        self.down, self.unpullable, self.packages = down, unpullable, packages
        self.docker = SimpleNamespace(executable="docker", inspect=lambda _kind, name: name in present)
        self.tried: list[tuple[str, str]] = []
        self.pulled: list[str] = []

    def note(self, candidate, result):
        self.tried.append((candidate, result))

    def registry_problem(self, registry):
        return "no answer within 5 s" if registry in self.down else ""

    def cuda_package_problem(self, _wanted, _architecture):
        return self.packages

    def find_base(self, wanted, _references):
        return "bootstrap", f"llmfleet/base:{wanted.replace(':', '-')}"

    make_base = find_base

    def stream(self, argv, _env):
        self.pulled.append(argv[-1])
        return 1 if argv[-1] in self.unpullable else 0

    def why(self):
        return "manifest unknown"


def places(wheels: Wheels | None = None, base: str = "debian:bookworm") -> choice.Places:
    return choice.Places(base, ("docker.io/library/{base}",), wheels or Wheels())


def test_nvidias_images_come_first_then_the_wheels_then_the_distribution():
    rows, reasons = choice.candidates(replace(CUDA, toolkits=("13.0.2", "12.4.1")), "debian:trixie")
    assert [(row.kind, row.base, row.distribution, row.cuda) for row in rows] == [
        ("image", f"{HUB}13.0.2-devel-ubuntu24.04", "ubuntu:noble", "13.0.2"),
        ("image", f"{MIRROR}13.0.2-devel-ubuntu24.04", "ubuntu:noble", "13.0.2"),
        ("image", f"{HUB}12.4.1-devel-ubuntu22.04", "ubuntu:jammy", "12.4.1"),
        ("image", f"{MIRROR}12.4.1-devel-ubuntu22.04", "ubuntu:jammy", "12.4.1"),
        ("wheels", "", "debian:trixie", "13.0.2"),
        ("packages", "", "debian:trixie", "12.4.1"),
    ]
    assert reasons == []


def test_every_toolkit_of_the_table_can_be_compiled_in_its_image():
    for toolkit in BUILDERS:
        rows, _reasons = choice.candidates(replace(CUDA, toolkits=(toolkit.version,)), "debian:bookworm")
        assert rows[0].base == f"{HUB}{toolkit.devel}"


def test_a_toolkit_that_does_not_compile_for_a_gpu_is_left_out_and_named():
    pascal = replace(CUDA, architectures=("61-real", "86-real"))
    rows, reasons = choice.candidates(pascal, "debian:bookworm")
    assert {row.cuda for row in rows} == {"12.8.1"}
    assert "CUDA 13.0.2 does not compile for sm_61" in reasons
    # nobody here knows it yet: nvcc will say
    assert choice.lacks("13.0.2", ("150-real",)) == ""
    assert choice.lacks("12.4.1", ("120a-real",)) == "sm_120"


@pytest.mark.parametrize("variant", sorted({*BACK_ENDS} - {"cuda"}))
def test_other_back_ends_have_one_kind_of_toolchain(variant):
    rows, _reasons = choice.candidates(replace(CUDA, variant=variant), "debian:bookworm")
    assert {row.kind for row in rows} == ({"base"} if variant in ("cpu", "vulkan") else {"image"})
    # Debian 12's headers are too old for llama.cpp's Vulkan back-end
    assert {row.distribution for row in rows if row.kind == "base"} <= {"debian:bookworm", "debian:trixie"}
    assert not [row for row in rows if row.cuda]


@pytest.mark.parametrize(
    ("variant", "base", "fitting"),
    [
        ("cpu", "debian:bullseye", "debian:bullseye"),
        ("vulkan", "debian:bookworm", "debian:trixie"),
        ("vulkan", "ubuntu:jammy", "ubuntu:noble"),
        ("vulkan", "debian:forky", "debian:forky"),
        ("cuda", "debian:bookworm", "debian:bookworm"),
        ("cuda", "debian:forky", "debian:trixie"),
        ("cuda", "ubuntu:focal", "ubuntu:noble"),
    ],
)
def test_a_distribution_that_is_too_old_or_too_new_is_replaced_unless_it_was_asked_for(variant, base, fitting):
    rows, _reasons = choice.candidates(replace(CUDA, variant=variant), base, cuda_images=())
    assert [row.distribution for row in rows] == [fitting]
    asked, reasons = choice.candidates(replace(CUDA, variant=variant, base_asked=base), "debian:trixie", cuda_images=())
    assert [row.distribution for row in asked] == ([base] if fitting == base else [])
    assert any(base in reason for reason in reasons) or fitting == base


def test_the_images_of_the_distribution_that_is_built_on_are_asked_for():
    asked = []
    host = Host()
    host.find_base = lambda wanted, references: asked.append((wanted, references)) or ("pull", references[0])
    chosen = choice.choose_toolchain(host, replace(CUDA, variant="vulkan"), places())
    assert asked == [("debian:trixie", ["docker.io/library/debian:trixie"])]
    assert chosen.toolchain.base == "docker.io/library/debian:trixie"


def test_an_image_that_is_here_is_taken_before_one_that_has_to_be_pulled():
    here = f"{HUB}12.8.1-devel-ubuntu24.04"
    chosen = choice.choose_toolchain(Host(present=[here], down=()), CUDA, places())
    assert (chosen.toolchain.base, chosen.how) == (here, "present")


def test_the_first_registry_that_answers_is_pulled_from():
    host = Host(down=("docker.io",))
    chosen = choice.choose_toolchain(host, CUDA, places())
    assert (chosen.toolchain.base, chosen.how) == (f"{MIRROR}13.0.2-devel-ubuntu24.04", "pull")
    assert host.tried == [(f"toolchain {HUB}13.0.2-devel-ubuntu24.04", "no answer within 5 s")]
    assert host.pulled == []


def test_without_a_registry_the_wheels_are_used(tmp_path):
    wheels = Wheels()
    host = Host()
    planned = choice.choose_toolchain(host, CUDA, places(wheels))
    assert planned == choice.Chosen(
        Toolchain("wheels", "llmfleet/base:debian-bookworm", "debian:bookworm", "13.0.2"), "bootstrap"
    )
    assert wheels.brought == []
    assert choice.make_toolchain(host, CUDA, places(wheels), tmp_path) == planned
    assert len(wheels.brought) == 7


@pytest.mark.parametrize("wheels", [Wheels(missing="no index"), Wheels(broken="the download broke off")])
def test_without_wheels_the_distributions_toolkit_is_used(wheels, tmp_path):
    host = Host(packages="")
    request = replace(CUDA, toolkits=("13.0.2", "11.8.0"))
    made = choice.make_toolchain(host, request, places(wheels), tmp_path)
    assert (made.toolchain.kind, made.toolchain.cuda) == ("packages", "11.8.0")
    assert host.tried[-1][0] == "toolchain CUDA 13.0.2 from the package index"


def test_a_pull_that_fails_leads_to_the_next_candidate(tmp_path):
    gone = f"{HUB}13.0.2-devel-ubuntu24.04"
    host = Host(down=("docker.m.daocloud.io",), unpullable=[gone])
    made = choice.make_toolchain(host, CUDA, places(), tmp_path)
    assert made.toolchain.base == f"{HUB}12.8.1-devel-ubuntu24.04"
    assert (f"toolchain {gone}", "the pull failed: manifest unknown") in host.tried


@pytest.mark.parametrize("making", [False, True])
def test_a_refusal_gives_every_reason_and_a_way_out(making, tmp_path):
    request = replace(CUDA, toolkits=("12.8.1",), architectures=("61-real",))
    host = Host()
    context = (tmp_path,) if making else ()
    ask = choice.make_toolchain if making else choice.choose_toolchain
    with pytest.raises(BuildFailed) as refused:
        ask(host, request, places(), *context)
    said = str(refused.value)
    for words in (
        "no toolchain to build llama.cpp for NVIDIA CUDA",
        "the wheels on the package index are CUDA 13.0, and the hosts need 12.8.1",
        "debian:bookworm has no package of CUDA 12.8.1",
        f"toolchain {HUB}12.8.1-devel-ubuntu24.04: no answer within 5 s",
        "llama_cpp_image_variant: cpu",
    ):
        assert words in said
    # one row a registry, however many toolkits there are
    assert len(host.tried) == 2


def test_a_base_that_fails_says_why_itself(tmp_path):
    class Broken(Host):
        def make_base(self, _wanted, _references):
            raise BuildFailed("debootstrap of debian:bookworm failed: no route")

    with pytest.raises(BuildFailed, match="debootstrap of debian:bookworm failed"):
        choice.make_toolchain(Broken(), CPU, places(), tmp_path)
