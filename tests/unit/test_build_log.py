"""The line of a build log that says why the build failed."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet.build_log import first_error


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "#8 1.0 [1/3] Building\n#8 2.5 /src/a.cpp:3:5: error: 'x' was not declared\n#8 2.6 ninja: build stopped\n"
            "ERROR: failed to solve: process did not complete: exit code: 1\n",
            "/src/a.cpp:3:5: error: 'x' was not declared",
        ),
        (
            "#8 0.4 CMake Error at CMakeLists.txt:7 (message):\n#8 0.4   needs a\n#8 0.4   compiler\n#8 0.4 \n"
            "#8 0.4 \n#8 0.5 -- Configuring incomplete\n",
            "CMake Error at CMakeLists.txt:7 (message): needs a compiler",
        ),
        ("Reading package lists...\nE: Unable to locate package ccache\n", "E: Unable to locate package ccache"),
        (
            "fatal: not a git repository: x\nfatal: unable to access 'https://h/': TLS\n",
            "fatal: unable to access 'https://h/': TLS",
        ),
        ("#9 3.0 c++: fatal error: Killed signal terminated program cc1plus\n", "memory ran out"),
        ("#9 3.0 nvcc error   : 'cicc' died due to signal 9 (Kill signal)\n", "memory ran out"),
        (
            "#9 1.1 CMake Error at CMakeTestCUDACompiler.cmake:102 (message):\n#9 1.1   is not able to compile\n"
            "#9 1.1     nvcc fatal   : Unsupported gpu architecture 'compute_61'\n",
            "nvcc fatal   : Unsupported gpu architecture 'compute_61' (this CUDA toolkit does not compile for that GPU",
        ),
        (
            "/x/host_config.h:143:2: error: #error -- unsupported GNU version! gcc versions later than 11 are not\n",
            "build on an older base",
        ),
        ("write /x: no space left on device\n", "the disk is full"),
        ("/bin/sh: 1: cmake: not found\n", "/bin/sh: 1: cmake: not found"),
        ("#4 ERROR: executor failed running [/bin/sh -c false]: exit code: 1\n", "executor failed running"),
        ("just\nwords\n\n", "words"),
        ("", "the builder said nothing"),
    ],
)
def test_the_first_real_error_is_found(log, said):
    assert said in first_error(log.splitlines(keepends=True))
