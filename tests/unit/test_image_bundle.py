"""What stands beside an archive of images, and which of its images a host has."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.module_utils.llmfleet import image_bundle

PATH = "/media/stick/llm.tar.gz"
DIGEST, OTHER = "0a" * 32, "1b" * 32
NAME = "llmfleet/llama.cpp:cpu-0123456789ab"
LIBRARIES, PROGRAMS = f"sha256:{'2c' * 32}", f"sha256:{'3d' * 32}"
CONFIG = {"User": "10001:10001", "Entrypoint": ["/app/llama-server"]}


def inspected(*names: str, identity: str = OTHER, layers: t.Sequence[str] = (LIBRARIES, PROGRAMS)) -> str:
    """What `docker image inspect` says of one image with these names."""
    row = {
        "Id": f"sha256:{identity}",
        "RepoTags": list(names),
        "RepoDigests": [],
        "Architecture": "amd64",
        "Os": "linux",
    }
    return json.dumps([{**row, "Config": CONFIG, "RootFS": {"Type": "layers", "Layers": list(layers)}}])


IMAGES = image_bundle.found(inspected(NAME), [NAME])


def written(**changed: t.Any) -> str:
    return json.dumps({"images": IMAGES, "sha256": DIGEST, **changed})


@pytest.mark.parametrize(
    "text",
    [
        f"{DIGEST}  llm.tar.gz\n",
        f"{DIGEST} *llm.tar.gz\n",
        f"{DIGEST}\n",
        f"{DIGEST.upper()}  llm.tar.gz\r\n",
        f"{DIGEST}  /srv/bundles/llm.tar.gz\n",
        f"{DIGEST}  named-otherwise-then.tar.gz\n",
        f"{OTHER}  other.tar.gz\n{DIGEST}  llm.tar.gz\n",
        f"\n# made on Monday\n{DIGEST}  llm.tar.gz\n",
    ],
)
def test_the_digest_is_the_one_of_this_file(text: str) -> None:
    assert image_bundle.digest(text, "llm.tar.gz") == DIGEST


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not a digest  llm.tar.gz\n",
        f"{DIGEST[:-1]}  llm.tar.gz\n",
        f"{DIGEST}0  llm.tar.gz\n",
        f"{OTHER}  one.tar.gz\n{DIGEST}  two.tar.gz\n",
    ],
)
def test_no_digest_is_guessed(text: str) -> None:
    assert image_bundle.digest(text, "llm.tar.gz") == ""


def test_what_was_written_is_read() -> None:
    assert image_bundle.content(written()) == {"images": IMAGES, "sha256": DIGEST}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        written()[:-5],
        written(sha256="0"),
        written(sha256=None),
        written(images=[]),
        written(images=IMAGES[0]),
        written(images=["llmfleet/llama.cpp:1"]),
        written(images=[{"reference": "x"}]),
        written(images=[{**IMAGES[0], "id": "y"}]),
        written(images=[{**IMAGES[0], "layers": None}]),
    ],
)
def test_what_llmfleet_did_not_write_says_nothing(text: str) -> None:
    assert image_bundle.content(text) == {}


def test_a_bundle_is_known_before_it_is_read() -> None:
    known = image_bundle.judge(PATH, True, f"{DIGEST}  llm.tar.gz\n", written())
    assert known == {"sha256": DIGEST, "images": IMAGES, "problem": ""}


@pytest.mark.parametrize("text", ["", "{", written(sha256=OTHER)])
def test_an_archive_of_another_origin_can_be_loaded(text: str) -> None:
    known = image_bundle.judge(PATH, True, f"{DIGEST}  llm.tar.gz\n", text)
    assert known == {"sha256": DIGEST, "images": [], "problem": ""}


@pytest.mark.parametrize(
    ("there", "digest_text", "words"),
    [
        (False, "", "image_bundle: there is no file /media/stick/llm.tar.gz on this machine; correct"),
        (True, "", "sha256sum llm.tar.gz >llm.tar.gz.sha256"),
        (True, " \n", "/media/stick/llm.tar.gz.sha256 is missing"),
        (True, "garbage", "/media/stick/llm.tar.gz.sha256 has no digest of llm.tar.gz"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_sentence(there: bool, digest_text: str, words: str) -> None:
    problem = image_bundle.judge(PATH, there, digest_text, written())["problem"]
    assert words in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        (NAME, NAME),
        ("vllm/vllm-openai", "vllm/vllm-openai:latest"),
        ("registry.test:5000/a", "registry.test:5000/a:latest"),
    ],
)
def test_an_image_is_found_under_its_name(name: str, reference: str) -> None:
    (image,) = image_bundle.found(inspected("else:1", reference), [name])
    assert image["reference"] == reference
    assert image["layers"] == [LIBRARIES, PROGRAMS]


@pytest.mark.parametrize("said", ["", "[]", inspected("llmfleet/llama.cpp:cpu-000000000000")])
def test_an_image_that_is_not_there_is_lacking(said: str) -> None:
    assert image_bundle.found(said, [NAME]) == []
    assert image_bundle.lacking(IMAGES, said) == [NAME]


@pytest.mark.parametrize(
    ("said", "lacking"),
    [
        (inspected(NAME), []),
        # containerd's store names the same image by its manifest
        (inspected(NAME, identity="4e" * 32), []),
        # another image under this name
        (inspected(NAME, identity="4e" * 32, layers=[LIBRARIES]), [NAME]),
    ],
)
def test_an_image_is_known_by_its_content(said: str, lacking: list[str]) -> None:
    assert image_bundle.lacking(IMAGES, said) == lacking
    assert image_bundle.same(IMAGES, image_bundle.found(said, [NAME])) == (not lacking)


def test_hosts_with_more_or_other_images_differ() -> None:
    more = [*IMAGES, *image_bundle.found(inspected("vllm:1"), ["vllm:1"])]
    assert image_bundle.same(more, list(reversed(more)))
    assert not image_bundle.same(IMAGES, more)
    assert not image_bundle.same(more, IMAGES)
    assert not image_bundle.same(IMAGES, [])
