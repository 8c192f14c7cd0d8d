"""CUDA compiled for real, without a registry and without a GPU: NVIDIA's wheels, our Dockerfile, llama.cpp's kernels.

Whole back-ends take half an hour; here the CUDA project is configured and a few of its files are compiled in a real
docker build, and the machine code in them is read back.
"""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import image_builder
from ansible.module_utils.llmfleet.build_host import BuildFailed
from ansible.module_utils.llmfleet.toolchain_choice import choose_toolchain
from cuda_builder import REQUEST, Builder


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def code_in(path: Path, folder: Path) -> set[tuple[str, int]]:
    """Return (``native`` or ``ptx``, architecture) of the device code in an object file.

    nvcc puts it into the section .nv_fatbin: a header (magic number, version, its own size, size of what follows) and
    entries (kind 2 machine code, 1 PTX; size of the entry's header, of its content; the architecture at offset 28).
    """
    section = folder / f"{path.name}.fatbin"
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".nv_fatbin", "--set-section-flags", ".nv_fatbin=alloc", path, section],
        check=True,
    )
    data = section.read_bytes()
    found = set()
    place = 0
    while place + 16 <= len(data):
        magic, _version, header, size = struct.unpack_from("<IHHQ", data, place)
        if magic != 0xBA55ED50:
            place += 8  # padding between two binaries
            continue
        entry, end = place + header, place + header + size
        while entry < end:
            kind, _, entry_header, content = struct.unpack_from("<HHIQ", data, entry)
            (architecture,) = struct.unpack_from("<I", data, entry + 28)
            found.add(({1: "ptx", 2: "native"}[kind], architecture))
            entry += entry_header + content
        place = end
    return found


def test_kernels_for_one_gpu_hold_machine_code_for_it_and_nothing_else(builder, tmp_path):
    chosen = choose_toolchain(builder.host, REQUEST, builder.places)
    assert (chosen.toolchain.kind, chosen.toolchain.cuda) == ("wheels", "13.0.2")
    objects = builder.compile(REQUEST, ["ggml-cuda", "acc", "norm"], tmp_path)
    for name in ("acc", "norm"):
        assert code_in(objects[name], tmp_path) == {("native", 90)}


def test_kernels_for_two_gpus_hold_both_and_blackwells_own_instructions(builder, tmp_path):
    request = replace(REQUEST, architectures=("86-real", "120-real"))
    objects = builder.compile(request, ["acc"], tmp_path)
    assert code_in(objects["acc"], tmp_path) == {("native", 86), ("native", 120)}
    # llama.cpp itself makes 120a of 120: FP4 tensor cores, not portable to the next GPU
    assert "code=[sm_120a]" in objects["build.ninja"].read_text()


def test_ptx_is_there_when_it_was_asked_for(builder, tmp_path):
    request = replace(REQUEST, architectures=("90-real", "90-virtual"))
    assert code_in(builder.compile(request, ["acc"], tmp_path)["acc"], tmp_path) == {("native", 90), ("ptx", 90)}


def test_a_gpu_that_cuda_has_dropped_is_refused_before_and_explained_after(builder):
    pascal = replace(REQUEST, architectures=("61-real",))
    with pytest.raises(BuildFailed, match=r"CUDA 13\.0\.2 does not compile for sm_61"):
        choose_toolchain(builder.host, pascal, builder.places)
    # somebody who insists gets nvcc's own words and what to do
    with builder.context(REQUEST) as (context, toolchain), pytest.raises(BuildFailed) as failed:
        image_builder.build_image(builder.host, pascal, toolchain, context, builder.how)
    assert "Unsupported gpu architecture" in str(failed.value)
    assert "leave the choice to the plan" in str(failed.value)
