"""Which images host_info tells of, and what it says of them."""

from __future__ import annotations

import json

from ansible.module_utils.llmfleet import image_look
from ansible.module_utils.llmfleet.timed_run import Answer

DOCKER = {"reachable": True, "cli": "/usr/bin/docker"}
LISTED = """\
sha256:aa llmfleet/llama.cpp
sha256:aa llmfleet/llama.cpp
sha256:bb ghcr.m.daocloud.io/ggml-org/llama.cpp
sha256:cc me/llama.cpp-with-extras
sha256:dd <none>
sha256:ee llama.cpp
"""


def described(identity, created, **more):
    return {"Id": identity, "Created": created, "Size": 7, "RepoTags": [f"llmfleet/llama.cpp:{identity[7:]}"], **more}


def test_repositories_are_known_by_their_last_part():
    assert image_look.candidates(LISTED) == ["sha256:aa", "sha256:bb", "sha256:ee"]


def test_what_is_said_of_an_image():
    labels = {"io.llmfleet.recipe": "0123", "org.opencontainers.image.revision": "c", "maintainer": "x"}
    config = {"Config": {"Labels": labels}, "RootFS": {"Layers": ["sha256:1", "sha256:2"]}}
    digest = {"RepoDigests": ["ghcr.io/ggml-org/llama.cpp@sha256:9"]}
    (image,) = image_look.read(json.dumps([described("sha256:aa", "2026-11-02T10:20:30Z", **config, **digest)]))
    assert image == {
        "references": ["llmfleet/llama.cpp:aa", "ghcr.io/ggml-org/llama.cpp@sha256:9"],
        "id": "sha256:aa",
        "size_bytes": 7,
        "created": "2026-11-02T10:20:30Z",
        "labels": {"io.llmfleet.recipe": "0123", "org.opencontainers.image.revision": "c"},
        "layers": ["sha256:1", "sha256:2"],
    }


def test_the_newest_comes_first_and_missing_parts_are_empty():
    rows = [described("sha256:aa", "2026-11-01"), described("sha256:bb", "2026-11-02", Config={"Labels": None})]
    found = image_look.read(json.dumps(rows))
    assert [image["id"] for image in found] == ["sha256:bb", "sha256:aa"]
    assert found[0]["labels"] == {}
    assert found[1]["layers"] == []


def test_two_questions_at_most_and_none_without_an_engine():
    asked = []

    def run(argv, _seconds):
        asked.append(argv[1])
        return Answer(0, LISTED if argv[1] == "images" else "")

    assert image_look.look({**DOCKER, "reachable": False}, 5, run) == []
    assert asked == []
    assert image_look.look(DOCKER, 5, run) == []
    assert asked == ["images", "image"]


def test_an_image_that_goes_meanwhile_hides_no_other():
    def run(argv, _seconds):
        if argv[1] == "images":
            return Answer(0, LISTED)
        return Answer(1, json.dumps([described("sha256:aa", "2026")]), "Error: No such image: sha256:bb")

    assert [image["id"] for image in image_look.look(DOCKER, 5, run)] == ["sha256:aa"]


def test_a_client_that_says_nothing_of_use_is_no_image():
    assert image_look.look(DOCKER, 5, lambda *_: Answer(None)) == []
    assert image_look.look(DOCKER, 5, lambda argv, _: Answer(0, LISTED if argv[1] == "images" else "oops")) == []
