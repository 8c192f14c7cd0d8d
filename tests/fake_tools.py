"""Stands for docker and llama.cpp's tools in it: writes small GGUF files of the type asked for, or fails as told.

What it is to do stands in FAKE_TOOLS (JSON): `fail` {program: [exit status, words]}, `type` (number of another type
than asked for), `parts` (of a split), `sleep` (seconds), `images` (names that exist); `model` is a GGUF file to begin
with and `types` {name: number}. Calls are noted in FAKE_TOOLS_CALLS. It imports nothing but the standard library,
because it is started often.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import time
from pathlib import Path

KEY = b"general.file_type" + struct.pack("<I", 4)


def typed(model: bytes, kind: int) -> bytes:
    """Return ``model`` with a header that says this type."""
    at = model.index(KEY) + len(KEY)
    return model[:at] + struct.pack("<I", kind) + model[at + 4 :]


def type_of(model: bytes) -> int:
    """Return the type that the header of ``model`` says."""
    at = model.index(KEY) + len(KEY)
    return int(struct.unpack("<I", model[at : at + 4])[0])


def part_of(model: bytes, part: int, parts: int) -> bytes:
    """Return ``model`` with a header that says it is a part."""
    keys = struct.unpack("<Q", model[16:24])[0]
    more = b"".join(
        struct.pack("<Q", len(name)) + name + struct.pack("<IH", 2, number)
        for name, number in ((b"split.no", part), (b"split.count", parts))
    )
    # the tensors begin later, at the same alignment
    return model[:16] + struct.pack("<Q", keys + 2) + more + model[24:] + bytes(64)


def main() -> int:
    """Answer one call of docker."""
    told = json.loads(os.environ["FAKE_TOOLS"])
    words = sys.argv[1:]
    with open(os.environ["FAKE_TOOLS_CALLS"], "a", encoding="utf-8") as calls:
        calls.write(json.dumps(words) + "\n")
    if words[:2] == ["image", "inspect"]:
        if words[2] in told.get("images", ["tools"]):
            print(json.dumps([{"Id": "sha256:1", "Config": {"Labels": told.get("labels")}}]))
            return 0
        print("Error: No such image: " + words[2], file=sys.stderr)
        return 1
    if words[0] != "run":
        return 0
    start = words.index("--entrypoint")
    program = os.path.basename(words[start + 1]).replace("python3", "convert")
    time.sleep(told.get("sleep", 0))
    if program in told.get("fail", {}):
        status, said = told["fail"][program]
        print(said, file=sys.stderr)
        return int(status)
    if program == "llama-completion":
        print(told["says"])
        print(told["logs"], file=sys.stderr)
        return 0
    mounts = [dict(re.findall(r"(src|dst)=([^,]+)", words[i + 1])) for i, word in enumerate(words) if word == "--mount"]
    places = {mount["dst"]: mount["src"] for mount in mounts}
    _write(told, program, words[start + 3 :], places)
    print(f"{program} has done its work")
    return 0


def _write(told: dict[str, object], program: str, argv: list[str], places: dict[str, str]) -> None:
    model, types = Path(str(told["model"])).read_bytes(), told["types"]
    assert isinstance(types, dict)
    if program == "convert":
        name, kind = argv[argv.index("--outfile") + 1], types[argv[argv.index("--outtype") + 1].upper()]
    elif program == "llama-quantize":
        asked = next(word for word in reversed(argv) if word in types)
        name, kind = argv[argv.index(asked) - 1], types[asked]
    else:
        name, given = argv[-1], argv[-2]
        source = places.get(given) or os.path.join(places["/out"], os.path.basename(given))
        kind = type_of(Path(source).read_bytes())
    model = typed(model, int(str(told.get("type", kind))))
    stem = os.path.join(places["/out"], os.path.basename(name))
    if "--split" not in argv:
        Path(stem).write_bytes(model)
        return
    parts = int(str(told.get("parts", 3)))
    for part in range(parts):
        content = part_of(model, part, parts) if parts > 1 else model
        Path(f"{stem}-{part + 1:05d}-of-{parts:05d}.gguf").write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
