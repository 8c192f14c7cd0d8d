"""A source tree of trivial programs with the names of llama.cpp's, which compiles in seconds.

As a program it packs the tree: `tiny_source.py FOLDER` writes FOLDER/tiny-1.tar.gz and prints its sha256. The same
content gives the same archive, whenever it is packed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path

CMAKE = """cmake_minimum_required(VERSION 3.14)
project(tiny CXX)
add_library(greet greet.cpp)
set_target_properties(greet PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
foreach(tool llama-server llama-cli llama-completion llama-quantize llama-gguf-split llama-bench)
  add_executable(${tool} main.cpp)
  target_link_libraries(${tool} PRIVATE greet)
endforeach()
"""
GREET = '#include <iostream>\nvoid greet() { std::cout << "tiny %s\\n"; }\n'
MAIN = "void greet();\nint main() { greet(); }\n"


def tree(folder: Path, version: str = "1", **changed: str) -> dict[str, str]:
    """Write the tree to ``folder``/tiny, pack it next to that, and return the archive as a source row."""
    files = {"CMakeLists.txt": CMAKE, "greet.cpp": GREET % version, "main.cpp": MAIN, "LICENSE": "none\n", **changed}
    root = folder / "tiny"
    root.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            (root / name).write_text(text)
            member = tarfile.TarInfo(f"tiny/{name}")
            member.size, member.mtime = len(text.encode()), 1_000_000_000
            tar.addfile(member, io.BytesIO(text.encode()))
    path = folder / f"tiny-{version}.tar.gz"
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=0))
    return {"archive": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


if __name__ == "__main__":
    print(tree(Path(sys.argv[1]))["sha256"])
