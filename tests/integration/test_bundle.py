"""playbooks/image-bundle.yml on this machine: from an image to a file and back, or a sentence that says why not."""

from __future__ import annotations

import hashlib
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
from helpers import docker

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "llmfleet-test-bundle:1"
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}


class Bundle:
    """The playbook, run for a bundle in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "stick" / "one.tar.gz"
        self.work = folder / "work"
        self.inventory = folder / "inventory"
        self.inventory.write_text(yaml.safe_dump({"llm_hosts": {"hosts": {"localhost": LOCAL}}}))

    def run(self, state: str, *arguments: str, code: int = 0, **variables: t.Any) -> str:
        """Return what a run with ``image_bundle_state`` prints, which must end with ``code``."""
        given = {"path": str(self.path), "images": [IMAGE], "work_dir": str(self.work), "state": state, **variables}
        extra = json.dumps({f"image_bundle_{name}": value for name, value in given.items()})
        playbook = str(Path(sys.executable).parent / "ansible-playbook")
        done = subprocess.run(
            [playbook, str(ROOT / "playbooks/image-bundle.yml"), "-i", str(self.inventory), "-e", extra, *arguments],
            cwd=self.folder, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        assert not list(self.work.glob("*")), "something is left on the host"
        return done.stdout

    def refused(self, state: str, **variables: t.Any) -> str:
        """Return the reason that a run gives for failing, on one line."""
        said = self.run(state, code=2, **variables)
        assert "Traceback" not in said
        return " ".join(re.findall(r"^ *msg: (.*?)^(?=PLAY|\S|$)", said, re.MULTILINE | re.DOTALL)[-1].split())


def changed(output: str) -> int:
    return sum(map(int, re.findall(r"changed=(\d+)", output)))


def image_id() -> str:
    return docker("image", "inspect", "--format", "{{.Id}}", IMAGE).strip()


def there() -> bool:
    return bool(docker("image", "ls", "--quiet", IMAGE).strip())


def make_image(text: str) -> str:
    """Make the image of one file that says ``text``; return its id."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("said")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    command = ["docker", "import", "-", IMAGE]
    subprocess.run(command, input=packed.getvalue(), stdout=subprocess.DEVNULL, check=True)
    return image_id()


@pytest.fixture
def bundle(tmp_path: Path) -> t.Iterator[Bundle]:
    make_image("first")
    yield Bundle(tmp_path)
    subprocess.run(["docker", "rmi", "--force", IMAGE], capture_output=True, check=False)


def test_an_image_goes_into_a_file_and_comes_out_of_it(bundle):
    first = image_id()
    assert changed(bundle.run("written", "--check")) > 0
    assert not bundle.path.parent.exists(), "check mode has written"
    bundle.run("written")
    content = bundle.path.read_bytes()
    # by hand it is checked and loaded as well
    subprocess.run(["sha256sum", "--check", f"{bundle.path}.sha256"], cwd=bundle.path.parent, check=True)
    assert changed(bundle.run("written")) == 0

    docker("rmi", IMAGE)
    assert changed(bundle.run("loaded", "--check")) > 0
    assert not there(), "check mode has loaded"
    assert changed(bundle.run("loaded")) > 0
    assert image_id() == first
    assert changed(bundle.run("loaded")) == 0
    assert bundle.path.read_bytes() == content, "loading has touched the file"

    docker("rmi", IMAGE)
    bundle.path.write_bytes(content[:-20])
    assert f"{bundle.path} is damaged or cut off" in bundle.refused("loaded")
    assert not there()

    # another image under the same name: what the file held is an old one now
    second = make_image("second")
    assert changed(bundle.run("written")) > 0
    docker("rmi", IMAGE)
    bundle.run("loaded")
    assert image_id() == second


def test_a_file_of_docker_save_is_loaded_when_its_digest_is_there(bundle):
    first = image_id()
    path = bundle.folder / "saved.tar"
    docker("save", "--output", str(path), IMAGE)
    docker("rmi", IMAGE)
    assert "sha256sum saved.tar >saved.tar.sha256" in bundle.refused("loaded", path="saved.tar")
    path.with_name("saved.tar.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "  saved.tar\n")
    # relative to where the command is given
    assert changed(bundle.run("loaded", path="saved.tar")) > 0
    assert image_id() == first


@pytest.mark.parametrize(
    ("state", "variables", "words"),
    [
        ("written", {"path": ""}, "give the file on this machine, with a name that ends in .tar.gz"),
        ("written", {"path": "bundle.zip"}, "give the file on this machine, with a name that ends in .tar.gz"),
        (
            "written",
            {"images": ["llmfleet-test-none:1"]},
            "No such image: llmfleet-test-none:1; provide them on one host",
        ),
        ("loaded", {"path": "/nonexistent/one.tar.gz"}, "there is no file /nonexistent/one.tar.gz on this machine"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(bundle, state, variables, words):
    assert words in bundle.refused(state, **variables)


def test_a_file_of_the_user_is_not_overwritten(bundle):
    bundle.path.parent.mkdir()
    bundle.path.write_text("photographs")
    assert "llmfleet did not write it" in bundle.refused("written")
    assert bundle.path.read_text() == "photographs"


def test_what_a_killed_run_has_left_on_the_way_is_removed(bundle):
    left = bundle.work / "image_bundle"
    left.mkdir(parents=True)
    (left / "one.tar.gz").write_text("cut off")
    assert changed(bundle.run("absent", path="")) == 1
