"""The whole of llama.cpp for CUDA, built by the module: half an hour on two processors, less with a compiler cache.

Without a GPU the image is run with a library in the place of the driver's that has its entry points and does nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from cuda_builder import Builder
from helpers import docker, run_module

pytestmark = pytest.mark.full
SANDBOX = ("--rm", "--network", "none", "--read-only", "--cap-drop", "ALL")
DRIVER = "/usr/lib/x86_64-linux-gnu/libcuda.so.1"


@pytest.fixture(scope="module")
def image() -> str:
    """The CUDA image for an H100, made as a builder without a registry makes it."""
    arguments = {
        "source": "build",
        "variant": "cuda",
        "architectures": ["90-real"],
        "toolkits": ["13.0.2"],
        "cuda_images": [],
        "keep": 1000,
    }
    result = run_module("llama_cpp_image", arguments)
    assert not result.get("failed"), result
    assert result["cuda"] == "13.0.2"
    again = run_module("llama_cpp_image", arguments)
    assert (again["action"], again["changed"]) == ("keep", False)
    return str(result["image"])


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stub")
    folder.chmod(0o755)
    return Builder(folder).stub(folder)


def run(image: str, *words: str, mounts: t.Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = ["docker", "run", *SANDBOX, *(word for mount in mounts for word in ("--volume", mount)), image, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_a_driver_it_fails_and_does_not_fall_back(image):
    said = run(image, "--version")
    assert said.returncode == 127
    assert "libcuda.so.1" in said.stderr


@pytest.mark.parametrize("place", [DRIVER, "/usr/lib64/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"])
def test_the_driver_is_found_wherever_a_container_toolkit_puts_it(image, stub, place):
    said = run(image, "--version", mounts=[f"{stub}:{place}:ro"])
    assert (said.returncode, "0c1e57098" in said.stdout + said.stderr) == (0, True)


def test_a_driver_without_a_gpu_lists_no_device(image, stub):
    said = run(image, "--list-devices", mounts=[f"{stub}:{DRIVER}:ro"])
    assert said.returncode == 0
    assert "Available devices:" in said.stdout
    assert "CUDA0" not in said.stdout


def test_the_image_is_small_and_runs_as_nobody(image):
    inspected = json.loads(docker("image", "inspect", image))[0]
    assert inspected["Size"] < 900 * 10**6
    assert len(inspected["RootFS"]["Layers"]) == 2
    assert inspected["Config"]["User"] == "10001:10001"
    names = [entry.partition("=")[0] for entry in inspected["Config"]["Env"]]
    assert sorted(names) == ["LD_LIBRARY_PATH", "NVIDIA_DRIVER_CAPABILITIES", "PATH"]


@pytest.fixture
def unpacked(image, tmp_path) -> Path:
    """The image's files as a folder, the way a container toolkit finds them before the container starts."""
    container = docker("create", image).strip()
    packed = tmp_path / "image.tar"
    docker("export", "--output", str(packed), container)
    docker("rm", container)
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["tar", "-x", "-f", packed, "-C", tree], check=True)
    packed.unlink()
    return tree


def test_the_container_toolkits_way_of_adding_the_driver_works(unpacked, stub):
    """nvidia-container-toolkit puts the driver's files under their full version and runs the host's ldconfig."""
    # this file decides between Debian's library folder and /usr/lib64
    assert (unpacked / "etc" / "debian_version").is_file()
    folder = unpacked / "usr" / "lib" / "x86_64-linux-gnu"
    shutil.copy(stub, folder / "libcuda.so.580.95.05")
    subprocess.run(["ldconfig", "-r", unpacked], check=True)
    assert (folder / "libcuda.so.1").resolve().name == "libcuda.so.580.95.05"
    cached = subprocess.run(["ldconfig", "-r", unpacked, "-p"], check=True, capture_output=True, text=True).stdout
    for name in ("libcuda.so.1", "libcublas.so.13", "libcudart.so.13"):
        assert name in cached
    for name in ("libdl.so.2", "libpthread.so.0", "librt.so.1"):  # which the real driver needs
        assert list(unpacked.rglob(name)), name


def test_nothing_but_the_needed_libraries_is_in_it(unpacked):
    nvidia = sorted(path.name for path in unpacked.rglob("*") if path.is_file() and "local/cuda" in str(path))
    assert nvidia == ["libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13"]
    assert not list(unpacked.rglob("*stub*"))
    assert not list(unpacked.rglob("libcuda.so*"))
