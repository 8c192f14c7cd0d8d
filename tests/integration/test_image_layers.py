"""What is in the layers of a built image: the system's part stays the same over commits, and nothing is forgotten."""

from __future__ import annotations

import json
import time

import pytest
from helpers import docker
from test_image import provide, says, work
from tiny_source import CMAKE, tree

__all__ = ["provide", "work"]  # fixtures

SERVER_ONLY = "add_custom_command(TARGET llama-server POST_BUILD COMMAND ${CMAKE_COMMAND} -E "


def layers(image: str) -> list[str]:
    return json.loads(docker("image", "inspect", image))[0]["RootFS"]["Layers"]


@pytest.mark.parametrize("buildkit", ["auto", "none"])
def test_another_commit_moves_the_programs_layer_only(provide, tmp_path, buildkit):
    first, second = (
        provide(sources=[tree(tmp_path / version, f"{version}-{time.time_ns()}")], buildkit=buildkit)["image"]
        for version in ("one", "two")
    )
    assert says(first) != says(second)
    assert len(layers(first)) == len(layers(second)) == 2
    assert layers(first)[0] == layers(second)[0]
    assert layers(first)[1] != layers(second)[1]


def test_equal_content_is_an_equal_layer_even_when_it_is_made_anew(provide, tmp_path):
    row = tree(tmp_path)
    images = [provide(sources=[row], cmake_flags=[f"-DUNUSED={time.time_ns()}"])["image"] for _ in range(2)]
    assert images[0] != images[1]
    assert layers(images[0]) == layers(images[1])


def test_a_library_that_is_missing_fails_the_build_and_names_it(provide, tmp_path):
    removed = f"{CMAKE}\n{SERVER_ONLY} rm ${{CMAKE_BINARY_DIR}}/bin/libgreet.so)\n"
    row = tree(tmp_path / "removed", "r", **{"CMakeLists.txt": removed})
    result = provide(sources=[row])
    assert result["failed"]
    assert "error: the programs need libraries that the toolchain lacks: libgreet.so => not found (" in result["msg"]


def test_a_program_that_does_not_run_fails_the_build(provide, tmp_path):
    row = tree(tmp_path / "aborts", "a", **{"main.cpp": "int main() { return 3; }\n"})
    result = provide(sources=[row])
    assert result["failed"]
    assert "llama-server does not run in the image (exit status 3)" in result["msg"]
