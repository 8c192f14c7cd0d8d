"""A host for tests of modules that make images: its docker is a program that keeps its images in a folder."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

# images are files named after their reference (with / as !) that hold their labels; a newer file is a newer image
DOCKER = r"""
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).parent
images = here / "images"
args = sys.argv[1:]
with open(here / "calls", "a") as calls:
    calls.write(json.dumps(args) + "\n")
place = lambda name: images / name.replace("/", "!")
def option(name):
    return [args[i + 1] for i, word in enumerate(args) if word == name]
def describe(n):
    labels = dict(line.split("=", 1) for line in place(n).read_text().splitlines() if "=" in line)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(place(n).stat().st_mtime))
    return dict(Id="sha256:" + n, Size=5, RepoTags=[n], RepoDigests=[], Created=created, Config=dict(Labels=labels),
                RootFS=dict(Layers=["sha256:libs", "sha256:" + n]))
def inspect(names):
    names = [n[len("sha256:"):] if n.startswith("sha256:") else n for n in names]
    print(json.dumps([describe(n) for n in names if place(n).exists()]))
    for name in names:
        if not place(name).exists():
            print(f"Error: No such image: {name}", file=sys.stderr)
    sys.exit(not all(place(n).exists() for n in names))
if (here / "down").exists():
    print("Cannot connect to the Docker daemon. Is the docker daemon running?", file=sys.stderr)
    print("[]" if args[0] == "image" else "")
    sys.exit(1)
if args[:2] == ["image", "inspect"]:
    inspect(args[2:])
elif args[0] == "info":
    info = dict(ServerVersion="20.10.24", DockerRootDir="/nowhere", Name="elsewhere", NCPU=2, MemTotal=8 << 30,
                Architecture="x86_64", ClientInfo=dict(Plugins=[]))
    print(json.dumps(info))
elif args[0] == "--version":
    print("Docker version 20.10.24, build 1")
elif args[0] == "build":
    context = pathlib.Path(args[-1])
    print("#1 building", os.environ["DOCKER_BUILDKIT"], sorted(p.name for p in context.iterdir()))
    (here / "Dockerfile").write_text((context / "Dockerfile").read_text())
    made_from = context / "source" / "CMakeLists.txt"
    if "broken" in (made_from.read_text() if made_from.exists() else "") or (here / "broken").exists():
        print("#8 1.0 /src/a.cpp:1:1: error: expected unqualified-id")
        print("ERROR: failed to solve: exit code: 1")
        sys.exit(1)
    place(option("--tag")[0]).write_text("\n".join(option("--label")))
elif args[0] == "tag":
    place(args[2]).write_text(place(args[1]).read_text())
elif args[0] == "rmi":
    for name in args[1:]:
        place(name).unlink()
elif args[0] == "pull":
    if (here / "pull_fails").exists():
        print("error pulling image: unexpected EOF")
        sys.exit(1)
    place(args[1]).write_text("")
elif args[0] == "run":
    sys.exit(132 if (here / "illegal").exists() else 0)
elif args[0] == "images":
    wanted = (option("--filter") or ["="])[0].partition("=")[2]
    repository = "" if args[-1] == option("--format")[0] else args[-1].replace("/", "!") + ":"
    for path in sorted(images.iterdir()):
        if not path.name.startswith(repository):
            continue
        if not wanted or any(line.startswith(wanted + "=") for line in path.read_text().splitlines()):
            name = path.name.replace("!", "/")
            print("sha256:" + name, name if option("--format")[0].endswith("{{.Tag}}") else name.rpartition(":")[0])
elif args[0] == "ps":
    used = (here / "used").read_text() if (here / "used").exists() else "no image"
    print("chat" if used in option("--filter")[0] else "")
else:
    sys.exit(64)
"""


class Host:
    """A host with the fake docker, and the module's arguments for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docker = folder / "docker"
        (folder / "images").mkdir(parents=True)
        self.docker.write_text(f"#!{sys.executable} -SE\n{DOCKER}")
        self.docker.chmod(0o755)
        self.add("llmfleet/base:debian-bookworm", "io.llmfleet.base=debian:bookworm")

    def add(self, name: str, label: str = "") -> None:
        (self.folder / "images" / name.replace("/", "!")).write_text(label)

    def set(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def names(self) -> list[str]:
        return sorted(path.name.replace("!", "/") for path in (self.folder / "images").iterdir())

    def calls(self, verb: str) -> list[list[str]]:
        return [call for call in map(json.loads, (self.folder / "calls").read_text().splitlines()) if call[0] == verb]

    def archive(self, text: str = "project(x)") -> dict:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo("x/CMakeLists.txt")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        path = self.folder / "tree.tar.gz"
        path.write_bytes(out.getvalue())
        return {"archive": str(path), "sha256": hashlib.sha256(out.getvalue()).hexdigest()}
