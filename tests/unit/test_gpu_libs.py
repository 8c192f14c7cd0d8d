"""What the driver's libraries say: their calls on a stand-in, and compiled libraries where there is a compiler."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet import gpu_libs, gpu_look
from ansible.module_utils.llmfleet.gpu_merge import parse_libraries

UUID = "GPU-00112233-4455-6677-8899-aabbccddeeff"


class Cuda:
    """libcuda with one GPU; functions are attributes, as ctypes has them."""

    def cuInit(self, _flags):  # noqa: N802
        return 0

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 11040
        return 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, value, attribute, _device):  # noqa: N802
        value._obj.value = {75: 8, 76: 6, 18: 0}[attribute]
        return 0

    def cuDeviceGetUuid(self, uuid, _device):  # noqa: N802
        ctypes.memmove(uuid, bytes.fromhex("00112233445566778899aabbccddeeff"), 16)
        return 0

    def cuDeviceGetPCIBusId(self, bus, _length, _device):  # noqa: N802
        bus.value = b"0000:01:00.0"
        return 0


class Nvml:
    """NVML with two GPUs, the second of them lost."""

    def nvmlInit_v2(self):  # noqa: N802
        return 0

    def nvmlShutdown(self):  # noqa: N802
        return 0

    def nvmlSystemGetCudaDriverVersion(self, version):  # noqa: N802
        version._obj.value = 10020
        return 0

    def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, _device):  # noqa: N802
        return 15 if index else 0

    def nvmlDeviceGetUUID(self, _device, uuid, _length):  # noqa: N802
        uuid.value = UUID.encode()
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, _device, major, minor):  # noqa: N802
        major._obj.value, minor._obj.value = 8, 6
        return 0


KNOWN = {"uuid": UUID, "pci": "0000:01:00.0", "capability": "8.6", "integrated": False}


def test_libcuda():
    assert gpu_libs.ask_cuda(Cuda()) == {"cuda": "11.4", "gpus": [KNOWN]}


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("cuDeviceGetUuid", {"cuda": "11.4", "gpus": [{**KNOWN, "uuid": None}]}),
        ("cuDeviceGetPCIBusId", {"cuda": "11.4", "gpus": [{**KNOWN, "pci": None}]}),
        ("cuDeviceGetAttribute", {"cuda": "11.4", "gpus": [{**KNOWN, "capability": None, "integrated": None}]}),
        ("cuDeviceGet", {"cuda": "11.4", "gpus": []}),
        ("cuDeviceGetCount", {"cuda": "11.4", "gpus": []}),
        ("cuInit", {"cuda": "11.4", "gpus": []}),
        ("cuDriverGetVersion", {"cuda": None, "gpus": [KNOWN]}),
    ],
)
@pytest.mark.parametrize("way", ["fails", "is not there"])
def test_a_function_of_libcuda_that_does_not_help(monkeypatch, function, found, way):
    if way == "fails":
        monkeypatch.setattr(Cuda, function, lambda *_: 999)
    else:
        monkeypatch.delattr(Cuda, function)
    assert gpu_libs.ask_cuda(Cuda()) == found


def test_nvml():
    assert gpu_libs.ask_nvml(Nvml()) == {"cuda": "10.2", "gpus": [{"uuid": UUID, "capability": "8.6"}]}


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("nvmlInit_v2", {"cuda": None, "gpus": []}),
        ("nvmlDeviceGetCudaComputeCapability", {"cuda": "10.2", "gpus": [{"uuid": UUID, "capability": None}]}),
        ("nvmlDeviceGetUUID", {"cuda": "10.2", "gpus": [{"uuid": None, "capability": "8.6"}]}),
        ("nvmlSystemGetCudaDriverVersion", {"cuda": None, "gpus": [{"uuid": UUID, "capability": "8.6"}]}),
    ],
)
def test_a_function_of_nvml_that_does_not_help(monkeypatch, function, found):
    monkeypatch.delattr(Nvml, function)
    assert gpu_libs.ask_nvml(Nvml()) == found


@pytest.mark.parametrize(("number", "text"), [(12080, "12.8"), (11040, "11.4"), (13000, "13.0"), (0, None)])
def test_version_text(number, text):
    assert gpu_libs.version_text(number) == text


def test_hosts_without_libraries(monkeypatch, capsys):
    def missing(_path):
        raise OSError

    monkeypatch.setattr(gpu_libs.ctypes, "CDLL", missing)
    gpu_libs.main()
    assert capsys.readouterr().out == ""


def test_each_library_answers_on_a_line(monkeypatch, capsys):
    asked = []

    def load(path):
        asked.append(path)
        if path == "libcuda.so.1":
            raise OSError
        return Cuda() if "libcuda" in path else Nvml()

    monkeypatch.setattr(gpu_libs.ctypes, "CDLL", load)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpu_libs.main()
    assert [json.loads(line)["library"] for line in capsys.readouterr().out.splitlines()] == ["nvml", "libcuda"]
    assert asked == ["libnvidia-ml.so.1", "libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"]


def test_the_program_needs_nothing_of_this_project():
    source = Path(gpu_libs.__file__).read_text()
    assert "ansible" not in source
    done = subprocess.run([sys.executable, "-I", "-c", source], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


COMPILER = shutil.which("cc") or shutil.which("gcc")
SOURCE = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int cuDriverGetVersion(int *v) { *v = 11040; return 0; }
int cuInit(unsigned flags) {
    if (getenv("FAKE_HANG")) sleep(60);
    if (getenv("FAKE_CRASH")) abort();
    return getenv("CUDA_VISIBLE_DEVICES") ? 100 : 0;
}
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 7 + d : a == 76 ? 5 : d; return 0; }
int cuDeviceGetUuid(char *u, int d) { memset(u, 0x11 * (d + 1), 16); return 0; }
int cuDeviceGetPCIBusId(char *b, int n, int d) { strncpy(b, d ? "0000:02:00.0" : "0000:01:00.0", n); return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 12080; return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)0x7fff00000001; return 0; }
int nvmlDeviceGetUUID(void *d, char *u, unsigned n) { strncpy(u, "GPU-nvml", n); return d != (void *)0x7fff00000001; }
int nvmlDeviceGetCudaComputeCapability(void *d, int *a, int *b) { *a = 9; *b = 0; return 0; }
"""
FIRST, SECOND = ("GPU-" + "-".join(digit * n for n in (8, 4, 4, 4, 12)) for digit in "12")


if COMPILER:

    @pytest.fixture
    def libraries(tmp_path, monkeypatch):
        """Both libraries, for the loader to find."""
        (tmp_path / "fake.c").write_text(SOURCE)
        for name in gpu_libs.FILES.values():
            argv = [COMPILER, "-shared", "-fPIC", "-w", "-o", str(tmp_path / name), str(tmp_path / "fake.c")]
            subprocess.run(argv, check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    @pytest.mark.usefixtures("libraries")
    def test_compiled_libraries(monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        found = parse_libraries(gpu_look.ask_libraries(20))
        assert found.cuda_version == "11.4"
        assert found.gpus == (
            ("libcuda", {"uuid": FIRST, "pci": "0000:01:00.0", "capability": "7.5", "integrated": False}),
            ("libcuda", {"uuid": SECOND, "pci": "0000:02:00.0", "capability": "8.5", "integrated": True}),
            ("nvml", {"uuid": "GPU-nvml", "capability": "9.0"}),
        )

    @pytest.mark.usefixtures("libraries")
    @pytest.mark.parametrize("trouble", ["FAKE_HANG", "FAKE_CRASH"])
    def test_a_library_that_hangs_or_crashes_leaves_the_others_answer(monkeypatch, trouble):
        monkeypatch.setenv(trouble, "1")
        began = time.monotonic()
        found = parse_libraries(gpu_look.ask_libraries(2))
        assert time.monotonic() - began < 10
        assert (found.cuda_version, [name for name, _ in found.gpus]) == ("12.8", ["nvml"])
