"""The generated Dockerfiles and their scripts: for each back-end, each contents and each toolchain."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.image_request import DEFAULT_REF, BuildRequest
from ansible.module_utils.llmfleet.image_scripts import CUDA_WHEELS, GATHER, STUBS
from ansible.module_utils.llmfleet.image_template import dockerfile, parts, pruned, scripts
from ansible.module_utils.llmfleet.image_toolchain import Toolchain
from ansible.module_utils.llmfleet.image_variants import BACK_ENDS, CONTENTS, VARIANTS

BASE = Toolchain("base", "llmfleet/base:debian-bookworm", "debian:bookworm")
NVIDIA = Toolchain("image", "docker.io/nvidia/cuda:12.8.1-devel-ubuntu24.04", "ubuntu:noble", "12.8.1")
WHEELS = Toolchain("wheels", "llmfleet/base:debian-bookworm", "debian:bookworm", "13.0.2")
PACKAGES = Toolchain("packages", "llmfleet/base:debian-bookworm", "debian:bookworm", "11.8.0")
CPU = BuildRequest(ref=DEFAULT_REF, pins=(), cmake_flags=(), cpu_level="x86-64-v3")
CUDA = replace(CPU, variant="cuda", architectures=("61-real", "86-real"), toolkits=("12.8.1",))


def toolchains(variant: str) -> list[Toolchain]:
    if variant == "cuda":
        return [NVIDIA, WHEELS, PACKAGES]
    row = VARIANTS[variant]
    return [Toolchain("image", row.sdk[0], row.distribution)] if row.sdk else [BASE]


EVERY = [
    pytest.param(
        replace(CUDA, variant=variant, contents=contents), toolchain, id=f"{variant}-{contents}-{toolchain.kind}"
    )
    for variant, contents in itertools.product(BACK_ENDS, CONTENTS)
    for toolchain in toolchains(variant)
]


@pytest.mark.parametrize("buildkit", [True, False], ids=["buildkit", "legacy"])
@pytest.mark.parametrize(("request_", "toolchain"), EVERY)
def test_the_linter_has_nothing_to_say(request_, toolchain, buildkit, tmp_path):
    """hadolint reads the Dockerfile as a builder does, and every RUN with shellcheck."""
    path = tmp_path / "Dockerfile"
    path.write_text(dockerfile(request_, toolchain, buildkit))
    # versions come from the distribution; its lists stay in a stage that nobody ships; $ORIGIN is for the loader
    allowed = [word for rule in ("DL3008", "DL3009", "SC2016") for word in ("--ignore", rule)]
    linter = Path(sys.executable).with_name("hadolint")
    said = subprocess.run([linter, *allowed, "--no-color", path], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize("buildkit", [True, False], ids=["buildkit", "legacy"])
@pytest.mark.parametrize(("request_", "toolchain"), EVERY)
def test_the_dockerfile_is_complete_and_old_builders_can_read_it(request_, toolchain, buildkit):
    text = dockerfile(replace(request_, cmake_flags=("-DA=b c'd",)), toolchain, buildkit)
    # a mark that was left, a here-document, a frontend that only a registry has, an option of newer builders
    assert not re.search(r"@\w+@|<<|# ?syntax|COPY --link|COPY --parents", text)
    assert r"'-DA=b c'\''d'" in text
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
    assert stages[:2] == ["toolchain", "build"]
    assert set(re.findall(r"--from=(\w+)", text)) <= set(stages)
    # what is compiled is copied after what compiles it, so that another commit finds the compilers in the cache
    assert text.index("apt-get install") < text.index("COPY source") < text.index("COPY tools/gather.sh")


@pytest.mark.parametrize("contents", ["server", "light"])
@pytest.mark.parametrize("variant", BACK_ENDS)
def test_the_image_is_two_layers_of_gathered_files_run_by_a_user_without_rights(variant, contents):
    text = dockerfile(replace(CUDA, variant=variant, contents=contents), toolchains(variant)[0], True)
    final = text[text.index("FROM scratch") :].splitlines()
    assert final[1:3] == ["COPY --from=build /out/libs /", "COPY --from=build /out/app /"]
    assert "USER 10001:10001" in final
    program = {"server": "llama-server", "light": "llama-cli"}[contents]
    assert f'ENTRYPOINT ["/app/{program}"]' in final
    assert not [line for line in final if re.match(r"RUN|ARG|ADD|HEALTHCHECK", line)]


def test_buildkit_mounts_caches_and_secrets():
    text = dockerfile(CUDA, WHEELS, buildkit=True)
    assert "--mount=type=cache,id=llmfleet-ccache,target=/ccache" in text
    assert "--mount=type=bind,source=wheels," in text
    for name in ("apt.conf", "sources.list", "ca.crt"):
        assert f"--mount=type=secret,id={name}," in text
    assert "COPY site" not in text
    assert "COPY wheels" not in text


def test_the_legacy_builder_gets_files_by_copy_and_keeps_them_out_of_the_result():
    text = dockerfile(CUDA, WHEELS, buildkit=False)
    assert "--mount" not in text
    assert "COPY site /run/llmfleet" in text
    assert "COPY wheels /run/wheels" in text
    assert "site" not in text[text.index("FROM scratch") :]


def test_all_compilers_go_through_the_cache():
    text = dockerfile(CUDA, WHEELS, buildkit=True)
    for language in ("C", "CXX", "CUDA"):
        assert f"-DCMAKE_{language}_COMPILER_LAUNCHER=ccache" in text
    rocm = replace(CUDA, variant="rocm")
    assert "-DCMAKE_HIP_COMPILER_LAUNCHER=ccache" in dockerfile(rocm, toolchains("rocm")[0], buildkit=True)


@pytest.mark.parametrize("toolchain", [NVIDIA, WHEELS, PACKAGES], ids=lambda row: row.kind)
@pytest.mark.parametrize(("architecture", "triplet"), [("amd64", "x86_64-linux-gnu"), ("arm64", "aarch64-linux-gnu")])
def test_a_cuda_image_finds_the_driver_and_asks_for_no_gpu_by_itself(toolchain, architecture, triplet):
    text = dockerfile(replace(CUDA, architecture=architecture), toolchain, buildkit=True)
    final = text[text.index("FROM scratch") :]
    assert f"ENV LD_LIBRARY_PATH=/usr/lib/{triplet}:/usr/lib64:" in final
    assert "ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility" in final
    # else every container of the image would get all GPUs from a default runtime
    assert "NVIDIA_VISIBLE_DEVICES" not in text
    # linked and tried with a stand-in, which never reaches the image
    assert f"{STUBS}/libcuda.so.1" in text
    assert "stubs" not in final


def test_only_cuda_images_are_made_with_cuda():
    for variant in set(BACK_ENDS) - {"cuda"}:
        text = dockerfile(replace(CUDA, variant=variant), toolchains(variant)[0], buildkit=True)
        assert not re.search(r"libcuda|CMAKE_CUDA|nvcc|wheels", text), variant


def test_a_foreign_repository_of_the_sdk_image_is_not_asked():
    assert "rm -f /etc/apt/sources.list.d/cuda*" in dockerfile(CUDA, NVIDIA, buildkit=True)
    assert "sources.list.d" not in dockerfile(CUDA, WHEELS, buildkit=True)


def test_the_scripts_are_shell_and_only_those_that_are_used_travel():
    assert set(scripts(BASE)) == set(scripts(NVIDIA)) == {"gather.sh"}
    assert set(scripts(WHEELS)) == {"gather.sh", "cuda_wheels.sh"}
    for text in (GATHER, CUDA_WHEELS):
        assert text.startswith("#!/bin/sh\n")
        subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_an_edit_of_a_script_reaches_the_images_made_with_it():
    assert CUDA_WHEELS in parts("cuda", "server")
    assert CUDA_WHEELS not in parts("cpu", "server")
    assert all(GATHER in parts(variant, contents) for variant in BACK_ENDS for contents in CONTENTS)


def test_only_the_full_image_gets_the_conversion_scripts():
    assert {"conversion", "gguf-py", "requirements"} <= pruned("server") - pruned("full")
    assert {".git", "models", "tests"} <= pruned("full")
    assert not {"ggml", "src", "common", "tools", "vendor", "cmake", "include"} & pruned("server")
