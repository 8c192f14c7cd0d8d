"""A real browser without a screen: Debian's Chromium in a container, driven by Selenium."""

from __future__ import annotations

import subprocess
import sys
import time
import typing as t
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from helpers import docker, free_port
from selenium import webdriver

BUILDER = Path(__file__).resolve().parents[1] / "fixtures" / "build_browser_image.py"
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1280,900",
)


def image() -> str:
    """Return the image of the browser, made if it is not there yet."""
    done = subprocess.run([sys.executable, str(BUILDER)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()[-1]


@contextmanager
def browser(name: str) -> t.Iterator[webdriver.Remote]:
    """Give a browser in a container called ``name``; it is on this machine's network."""
    port = free_port()
    hardened = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "host")
    docker("run", "--detach", "--name", name, *hardened, image(), f"--port={port}")
    try:
        _wait(f"http://127.0.0.1:{port}/status")
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for switch in SWITCHES:
            options.add_argument(switch)
        driver = webdriver.Remote(f"http://127.0.0.1:{port}", options=options)
        try:
            yield driver
        finally:
            driver.quit()
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)


def _wait(url: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert time.monotonic() < until, f"{url} does not answer"
            time.sleep(0.2)
        else:
            return
