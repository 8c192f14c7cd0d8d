"""One server has built, all of them have the image, and only that one has what building takes."""

from __future__ import annotations

import json


def images(host):
    """The images of the host by name, but for those that it came with."""
    lines = host.check_output("docker images --format '{{.Repository}}:{{.Tag}} {{.ID}}'").splitlines()
    return dict(line.split() for line in lines)


def test_the_programs_of_the_tree_run(host):
    (name,) = (name for name in images(host) if name.startswith("llmfleet/llama.cpp:"))
    assert host.check_output(f"docker run --rm --network none --read-only {name}") == "tiny 1"


def test_one_built_and_the_others_received(host):
    built = {name for name in images(host) if name.startswith(("llmfleet/base:", "llmfleet/toolchain:"))}
    assert bool(built) == (host.backend.get_hostname() == "ship-1")
    (name,) = (name for name in images(host) if name.startswith("llmfleet/llama.cpp:"))
    labels = json.loads(host.check_output(f"docker image inspect {name}"))[0]["Config"]["Labels"]
    assert labels["io.llmfleet.source"] == "archive /srv/tiny-1.tar.gz"


def test_debootstrap_came_where_it_was_needed(host):
    assert host.package("debootstrap").is_installed == (host.backend.get_hostname() == "ship-1")


def test_no_archive_is_left(host):
    assert not host.run("find /var/lib/llmfleet/archives /var/lib/llmfleet/transfers -type f").stdout.split()
