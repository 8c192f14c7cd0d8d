"""The choice between the image that is there, a published one and a build; which image covers which hosts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.image_choice import Choice, Published, choose, covering, covers, keep, unfit
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF, BuildRequest
from ansible.module_utils.llmfleet.image_toolchain import Toolchain

REQUEST = BuildRequest(ref=DEFAULT_REF, pins=((("kind", "git"),),), cmake_flags=(), cpu_level="x86-64-v3")
CUDA = replace(REQUEST, variant="cuda", architectures=("86-real",), toolkits=("13.0.2", "12.9.1", "12.8.1"))
PUBLISHED = Published(("one.example", "two.example"), "ggml-org/llama.cpp", "server-b11206")
NOTHING = Published(("one.example",), "ggml-org/llama.cpp", why="no native code for P40 (6.1)")
ONE, TWO = (f"{host}.example/ggml-org/llama.cpp:server-b11206" for host in ("one", "two"))


def row(request: BuildRequest, cuda: str = "", day: int = 1, **changed) -> dict:
    """The image that a host has after ``request`` was built there with a CUDA toolkit."""
    labels = request.labels(Toolchain("image", cuda=cuda))
    return {
        "references": [request.image()],
        "id": f"sha256:{day}",
        "created": f"2026-11-0{day}",
        "labels": labels,
        **changed,
    }


def other(name: str) -> dict:
    return {"references": [name], "id": "sha256:o", "created": "2026-11-01", "labels": {}}


def never(_registry):
    raise AssertionError("asked")


# --- what is there


def test_what_is_there_is_kept_the_built_one_first():
    assert keep("auto", PUBLISHED, REQUEST, [other(ONE), row(REQUEST)]).image == REQUEST.image()
    assert keep("auto", PUBLISHED, REQUEST, [other(TWO), other(ONE)]) == Choice(
        "keep", ONE, "it is on this host, as published"
    )
    assert keep("auto", PUBLISHED, REQUEST, [other("else/llama.cpp:server-b11206")]) is None
    assert keep("auto", PUBLISHED, REQUEST, []) is None


def test_pull_and_build_accept_only_their_own():
    images = [row(REQUEST), other(ONE)]
    assert keep("pull", PUBLISHED, REQUEST, images).image == ONE
    assert keep("build", PUBLISHED, REQUEST, images).image == REQUEST.image()
    assert keep("build", PUBLISHED, REQUEST, [other(ONE)]) is None
    assert keep("pull", PUBLISHED, REQUEST, [row(REQUEST)]) is None


def test_a_published_image_that_does_not_fit_any_more_is_not_kept():
    assert keep("auto", NOTHING, REQUEST, [other(ONE)]) is None
    assert keep("auto", PUBLISHED, replace(REQUEST, cmake_flags=("-DX=1",)), [other(ONE)]) is None


def test_the_same_image_and_one_that_covers_more_are_told_apart():
    wide = replace(CUDA, architectures=("86-real", "90-real"))
    exact = keep("auto", NOTHING, CUDA, [row(wide, "12.8.1", 2), row(CUDA, "12.8.1", 1)])
    assert exact == Choice("keep", CUDA.image(), "it is on this host, made from the same inputs")
    kept = keep("build", NOTHING, CUDA, [row(wide, "12.8.1")])
    assert kept.image == wide.image() != CUDA.image()
    assert "covers" in kept.why


# --- what covers


@pytest.mark.parametrize(
    ("built", "cuda", "covered"),
    [
        ({"architectures": ("86-real",)}, "12.8.1", True),
        ({"architectures": ("61-real", "86-real", "120-real")}, "12.8.1", True),
        ({"architectures": ("86-real",), "toolkits": ("12.8.1",)}, "12.8.1", True),  # planned for an older driver
        ({"architectures": ("86-real",)}, "12.8.0", True),  # a patch of the same CUDA
        ({"architectures": ("86-real",)}, "13.4.0", False),  # newer than the drivers take
        ({"architectures": ("86-real",)}, "12.80", False),
        ({"architectures": ("86-real",)}, "", False),
        ({"architectures": ("90-real",)}, "12.8.1", False),
        ({"architectures": ("86-virtual",)}, "12.8.1", False),  # would be compiled at the first start
        ({"architectures": ("860-real",)}, "12.8.1", False),
        ({"architectures": ()}, "12.8.1", False),
        ({"architectures": ("86-real",), "cpu_level": "x86-64-v2"}, "12.8.1", True),
        ({"architectures": ("86-real",), "ref": "b1"}, "12.8.1", False),
        ({"architectures": ("86-real",), "cmake_flags": ("-DX=1",)}, "12.8.1", False),
        ({"architectures": ("86-real",), "contents": "light"}, "12.8.1", False),
        ({"architectures": ("86-real",), "base_asked": "debian:trixie"}, "12.8.1", False),
        ({"architectures": ("86-real",), "cpu_level_asked": "x86-64-v3"}, "12.8.1", False),
    ],
)
def test_what_an_image_covers(built, cuda, covered):
    request = replace(CUDA, **built)
    assert bool(covering([row(request, cuda)], CUDA)) is covered


@pytest.mark.parametrize(
    ("built", "proven", "covered"),
    [
        ("x86-64", "x86-64-v3", True),
        ("x86-64-v3", "x86-64-v3", True),
        ("x86-64-v3", "x86-64-v2", False),
        ("x86-64-v3", "x86-64", False),
        ("armv8-a", "x86-64-v3", False),
        ("armv8-a", "armv8.2-a", True),
        ("armv8.2-a", "armv8-a", False),
        ("", "x86-64", False),
    ],
)
def test_a_processor_runs_its_own_level_and_lower_ones(built, proven, covered):
    labels = {"io.llmfleet.recipe": "r", "io.llmfleet.cpu-level": built}
    assert covers(labels, "r", (), (), proven) is covered


def test_code_for_gpus_to_come_is_asked_for_as_such():
    asked = ("86-real", "86-virtual")
    labels = {"io.llmfleet.recipe": "r", "io.llmfleet.cpu-level": "x86-64", "io.llmfleet.cuda": "12.8.1"}
    for built, covered in (("86-real", False), ("86-real;86-virtual", True), ("86-real;120-real;120-virtual", True)):
        assert covers({**labels, "io.llmfleet.architectures": built}, "r", asked, ("12.8.1",), "x86-64") is covered


def test_images_without_labels_and_those_of_somebody_else_cover_nothing():
    assert covering([other("llmfleet/llama.cpp:cpu-0123456789ab")], REQUEST) == ""
    assert covering([row(REQUEST, references=["mine/own:1"])], REQUEST) == ""
    assert covering([], REQUEST) == ""


def test_of_several_the_closest_processor_level_then_the_newest_is_kept():
    low, high = replace(REQUEST, cpu_level="x86-64"), replace(REQUEST, cpu_level="x86-64-v2")
    assert covering([row(low, day=3), row(high, day=1)], REQUEST) == high.image()
    wide = replace(CUDA, architectures=("86-real", "90-real"))
    wider = replace(CUDA, architectures=("75-real", "86-real", "90-real"))
    assert covering([row(wide, "12.8.1", 1), row(wider, "12.8.1", 2)], CUDA) == wider.image()


# --- what is made


def test_the_first_registry_that_answers_is_pulled_from():
    choice, tried = choose("auto", PUBLISHED, REQUEST, lambda registry: "down" if registry == "one.example" else "")
    assert (choice.action, choice.image) == ("pull", TWO)
    assert tried == [{"candidate": ONE, "result": "down"}]


def test_without_a_registry_auto_builds_and_pull_fails_with_the_reasons():
    choice, _tried = choose("auto", PUBLISHED, REQUEST, lambda _registry: "down")
    assert (choice.action, choice.image) == ("build", REQUEST.image())
    assert "no registry" in choice.why
    with pytest.raises(BadInput, match=r"one\.example.*: down; .*two\.example"):
        choose("pull", PUBLISHED, REQUEST, lambda _registry: "down")


@pytest.mark.parametrize(
    ("published", "changed", "why"),
    [
        (PUBLISHED, {"cmake_flags": ("-DX=1",)}, "CMake flags"),
        (PUBLISHED, {"fa_all_quants": True}, "CMake flags"),
        (NOTHING, {}, r"no native code for P40 \(6\.1\)"),
        (replace(NOTHING, why=""), {"ref": "f" * 40}, "no published image is known for ref ffffffffffff"),
        (replace(PUBLISHED, registries=()), {}, "no registry of the published image is named"),
    ],
)
def test_no_registry_is_asked_when_the_published_image_cannot_fit(published, changed, why):
    request = replace(REQUEST, **changed)
    choice, _tried = choose("auto", published, request, never)
    assert choice.action == "build"
    with pytest.raises(BadInput, match=why):
        choose("pull", published, request, never)
    assert unfit(published, request) == choice.why


def test_build_asks_no_registry():
    assert choose("build", PUBLISHED, REQUEST, never)[0] == Choice("build", REQUEST.image(), "source is build")


def test_a_digest_pins_the_pull_and_needs_no_tag():
    pinned = Published(("r.example",), "a/b", digest="sha256:" + "0" * 64)
    assert pinned.references() == ["r.example/a/b@sha256:" + "0" * 64]
    assert unfit(pinned, REQUEST) == ""
