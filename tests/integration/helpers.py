"""Running modules and docker for real."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import typing as t
from pathlib import Path

RUNNER = Path(__file__).resolve().parent.parent / "run_module.py"


def start_module(name: str, arguments: dict[str, t.Any], *, check: bool = False) -> subprocess.Popen[str]:
    """Start a module in a process group of its own."""
    if name == "llama_cpp_image":  # the engine is shared: what is old to one test is in use by another
        arguments = {"keep": 1000, **arguments}
    argv = [sys.executable, str(RUNNER), name, json.dumps(arguments), *(["--check"] if check else [])]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def run_module(name: str, arguments: dict[str, t.Any], *, check: bool = False) -> dict[str, t.Any]:
    """Run a module and return its result."""
    out, err = start_module(name, arguments, check=check).communicate()
    assert out, err
    return t.cast("dict[str, t.Any]", json.loads(out.splitlines()[-1]))


def docker(*args: str) -> str:
    """Return both streams of ``docker args``, which must succeed."""
    done = subprocess.run(["docker", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def running(name: str) -> bool:
    """Whether a container of this name runs."""
    return bool(docker("ps", "-q", "--filter", f"name=^{name}$"))


def _ports() -> t.Iterator[int]:
    """Yield ports below those that the system hands out by itself, so that nobody gets one before it is used."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw2")[len("gw") :]) % 3
    first = 20000 + 4000 * worker
    start = random.randrange(4000)
    while True:
        yield from range(first + start, first + 4000)
        start = 0


_PORTS = _ports()


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody uses now, each time another one."""
    return next(filter(_is_free, _PORTS))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
