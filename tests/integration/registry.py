"""A registry on a loopback port: Debian's docker-registry run as a plain process, installed when missing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import typing as t
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import yaml
from helpers import free_port


def installed(program: str) -> str:
    """Return the path of a program, installing the distribution's package of that name when it is missing."""
    places = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    found = shutil.which(program, path=places)
    if not found:
        apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
        subprocess.run([*apt, "update", "-qq"], check=True)
        # its service must not start: the tests run it themselves
        quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        subprocess.run([*apt, "install", "-y", "-qq", "--no-install-recommends", program], check=True, env=quiet)
        found = shutil.which(program, path=places)
    assert found, f"the package {program} holds no {program}"
    return found


@contextmanager
def registry(folder: Path) -> t.Iterator[str]:
    """Run a registry that keeps its images in ``folder``; give its name, such as 127.0.0.1:5000."""
    name = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}, "delete": {"enabled": True}},
        "http": {"addr": name},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [installed("docker-registry"), "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    try:
        _wait(f"http://{name}/v2/", process)
        yield name
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, "docker-registry has ended; see its log"
        try:
            opener.open(url, timeout=2).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError("docker-registry does not answer")
