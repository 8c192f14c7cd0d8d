"""Every host has the image under its own name, in a state to be started from, and nothing is left of its journey."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def images(host):
    """The images with a build key, as the engine describes them."""
    ids = host.check_output("docker images --quiet --no-trunc --filter label=io.llmfleet.build-key").split()
    return [json.loads(host.check_output(f"docker image inspect {one}"))[0] for one in dict.fromkeys(ids)]


def test_the_image_is_there_once_under_one_name(images):
    (image,) = images
    key = image["Config"]["Labels"]["io.llmfleet.build-key"]
    assert image["RepoTags"] == [f"llmfleet/llama.cpp:cpu-{key}"]


def test_the_server_in_it_starts(host, images):
    answer = host.run(f"docker run --rm --network none --read-only --cap-drop ALL {images[0]['RepoTags'][0]} --version")
    assert answer.rc == 0, answer.stderr
    assert "version" in answer.stdout + answer.stderr


@pytest.mark.parametrize("folder", ["archives", "transfers", "image_bundle"])
def test_no_archive_is_left(host, folder):
    assert not host.run(f"find /var/lib/llmfleet/{folder} -type f").stdout.split()


def test_nobody_serves_parts_of_it_any_more(host):
    assert "python3" not in host.check_output("ss --listening --tcp --processes --numeric")
