"""The registry_cache role on the real engine, in front of an upstream registry that is a container as well."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import typing as t
from pathlib import Path

import pytest
import yaml
from helpers import docker, free_port, running
from registry import installed

ROOT = Path(__file__).resolve().parents[2]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
IMAGE = "localhost/llmfleet-test-distribution:1"
pytestmark = pytest.mark.full
UPSTREAM, CACHE = "test-cache-upstream", "test-cache"
CONFIG = {
    "version": 0.1,
    "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}},
    "http": {"addr": ":5000"},
}


def pack(files: dict[str, bytes]) -> bytes:
    """Return a tar archive of programs."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def make_image(name: str, files: dict[str, bytes], *changes: str) -> None:
    arguments = [argument for change in changes for argument in ("--change", change)]
    subprocess.run(["docker", "import", *arguments, "-", name], input=pack(files), check=True, capture_output=True)


@pytest.fixture(scope="module")
def distribution() -> t.Iterator[str]:
    """The distribution's docker-registry as an image."""
    program = installed("docker-registry")
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    paths = [program, *re.findall(r"(/\S+) \(0x", listed)]
    make_image(IMAGE, {path: Path(path).read_bytes() for path in paths}, f'ENTRYPOINT ["{program}"]')
    yield IMAGE
    subprocess.run(["docker", "image", "rm", "--force", IMAGE], capture_output=True, check=False)


@pytest.fixture(scope="module")
def upstream(distribution: str, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """The address on the docker bridge of a registry that holds library/hello:1."""
    folder = tmp_path_factory.mktemp("upstream")
    (folder / "config.yml").write_text(yaml.safe_dump(CONFIG))
    port = free_port()
    docker(
        *("run", "--detach", "--name", UPSTREAM, "--publish", f"127.0.0.1:{port}:5000"),
        *("--volume", f"{folder}:/etc/registry:ro", distribution, "serve", "/etc/registry/config.yml"),
    )
    name = f"127.0.0.1:{port}/library/hello:1"
    make_image(name, {"hello": b"hello"})
    docker("push", name)
    docker("image", "rm", name)
    address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", UPSTREAM).strip()
    yield f"http://{address}:5000"
    subprocess.run(["docker", "rm", "--force", "--volumes", UPSTREAM], capture_output=True, check=False)


class Site:
    """One host with a cache; ``run`` runs the playbook and returns what it printed."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder, self.port = folder, free_port()
        registry, _, rest = IMAGE.partition("/")
        name, _, tag = rest.partition(":")
        self.variables: dict[str, t.Any] = {
            "registry_cache_name": CACHE,
            "registry_cache_image_registry": registry,
            "registry_cache_image_name": name,
            "registry_cache_image_tag": tag,
            "registry_cache_image_digest": "",
            "registry_cache_upstream": upstream,
            "registry_cache_directory": str(folder / "cache"),
            "registry_cache_port": self.port,
        }

    def run(self, *arguments: str, code: int = 0, **variables: t.Any) -> str:
        inventory = self.folder / "inventory"
        hosts = {"localhost": LOCAL}
        inventory.write_text(
            yaml.safe_dump({"registry_cache": {"hosts": hosts, "vars": {**self.variables, **variables}}})
        )
        playbook = str(Path(sys.executable).parent / "ansible-playbook")
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            [playbook, "playbooks/registry_cache.yml", "-i", str(inventory), *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    @property
    def blobs(self) -> list[Path]:
        return list((self.folder / "cache").glob("images/docker/registry/v2/blobs/**/data"))


def changed(output: str) -> int:
    return sum(map(int, re.findall(r"changed=(\d+)", output)))


@pytest.fixture(scope="module")
def site(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    # the registry runs as another user
    folder.chmod(0o755)
    yield Site(folder, upstream)
    subprocess.run(["docker", "rm", "--force", CACHE], capture_output=True, check=False)


def container() -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(docker("inspect", CACHE))[0])


def test_the_life_of_a_cache(site: Site) -> None:
    """One test, because each step stands on the one before."""
    assert changed(site.run("--check")) > 0
    assert not running(CACHE)

    first = site.run()
    assert "answers at http://127.0.0.1:" in first
    assert "set registry_cache_bind" in first
    assert changed(site.run()) == 0
    made = container()
    assert made["Config"]["User"] == "10001:10001"
    assert made["HostConfig"]["ReadonlyRootfs"]
    assert made["HostConfig"]["PortBindings"]["5000/tcp"][0]["HostIp"] == "127.0.0.1"

    name = f"127.0.0.1:{site.port}/library/hello:1"
    docker("pull", name)
    docker("image", "rm", name)
    assert site.blobs, "a pull leaves nothing in the cache"
    assert "library/hello" in docker("logs", UPSTREAM)

    # a password reaches the registry by file, and whoever looks at the container does not see it
    secret = {"registry_cache_username": "user", "registry_cache_password": "p4ss-w0rd"}
    changing = site.run("--diff", **secret)
    assert "p4ss-w0rd" not in changing
    assert "p4ss-w0rd" not in json.dumps(container())
    config = site.folder / "cache" / "config" / "config.yml"
    assert "p4ss-w0rd" in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o400
    assert container()["Id"] != made["Id"]
    assert changed(site.run(**secret)) == 0

    docker("stop", CACHE)
    assert changed(site.run(**secret)) == 1
    assert running(CACHE)

    site.run(registry_cache_state="absent")
    assert not running(CACHE)
    assert not config.exists()
    assert site.blobs
    site.run(registry_cache_state="absent", registry_cache_purge=True)
    assert not (site.folder / "cache").exists()


def test_a_cache_that_cannot_start_says_why(site: Site) -> None:
    said = site.run(code=2, registry_cache_upstream="http://127.0.0.1:9", registry_cache_start_timeout=2,
                    registry_cache_username="user", registry_cache_password="x")  # fmt: skip
    site.run(registry_cache_state="absent", registry_cache_purge=True)
    assert "does not answer at http://127.0.0.1:" in said
    assert "connection refused" in said, said


def test_a_container_of_somebody_else_is_left_alone(site: Site, distribution: str) -> None:
    docker("create", "--name", CACHE, distribution)
    assert "was not made by this role" in site.run(code=2)
    assert container()["State"]["Status"] == "created"
    docker("rm", CACHE)


def test_inputs_that_cannot_work_are_refused(site: Site) -> None:
    assert "must be given together" in site.run(code=2, registry_cache_username="user")
    assert "must be the root of a registry" in site.run(code=2, registry_cache_upstream="http://user:x@127.0.0.1:5000")
