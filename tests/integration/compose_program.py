"""Docker Compose 2: what this machine has, or Debian's package of it, unpacked into the cache of the checkout."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.llmfleet import base_image

SUITE = "trixie"
"""The first suite of Debian with version 2."""
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "compose"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def compose() -> list[str]:
    """Return the command, fetched when this machine has none."""
    cached = CACHE / "docker-compose"
    for command in (["docker", "compose"], ["docker-compose"], [str(cached)]):
        if _version(command).startswith("2"):
            return command
    _fetch(cached)
    assert _version([str(cached)]).startswith("2")
    return [str(cached)]


def _version(command: list[str]) -> str:
    try:
        done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip().lstrip("v") if done.returncode == 0 else ""


def _fetch(program: Path) -> None:
    """Download the package from where this machine's own packages come from, without touching its package lists."""
    distribution, own = base_image.host_base(Path("/etc/os-release").read_text(encoding="utf-8")).split(":")
    targets = _output("apt-get", "indextargets", "--format", base_image.APT_TARGETS).replace(own, SUITE)
    sources = base_image.parse_targets(targets, f"{distribution}:{SUITE}")
    main = next(source for source in sources if source.release == SUITE)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        work = Path(name)
        for folder in ("lists/partial", "archives/partial"):
            (work / folder).mkdir(parents=True)
        (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {main.uri} {SUITE} main\n")
        apt = ["apt-get", "-qq", "-o", f"Dir::Etc::SourceList={name}/sources.list", "-o", "Dir::Etc::SourceParts=-"]
        apt += ["-o", f"Dir::State::Lists={name}/lists", "-o", f"Dir::Cache={name}", "-o", "APT::Sandbox::User=root"]
        _output(*apt, "update")
        _output(*apt, "download", "docker-compose", cwd=work)
        (package,) = work.glob("docker-compose_*.deb")
        _output("dpkg-deb", "--extract", str(package), f"{name}/unpacked")
        os.replace(next((work / "unpacked").rglob("cli-plugins/docker-compose")), program)


def _output(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
