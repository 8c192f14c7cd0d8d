"""Which model a container serves, by what the store noted of it."""

from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils.llmfleet.hub.manifest import GGUF, SAFETENSORS, Manifest, RepoFile
from ansible.module_utils.llmfleet.hub.place import Place
from ansible.module_utils.llmfleet.model_file import write_note
from ansible.module_utils.llmfleet.model_record import model_path, record

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def spec(path, target="/models/m.gguf", argv=None):
    return {
        "argv": argv or ["--model", target],
        "mounts": {target: str(path)},
        "model_fingerprint": "f" * 64,
    }


@pytest.mark.parametrize(
    ("argv", "mounts", "expected"),
    [
        (["--model", "/models/m.gguf"], {"/models/m.gguf": "/srv/m.gguf"}, "/srv/m.gguf"),
        # a split model is mounted as its folder
        (["--model", "/models/m-00001-of-00002.gguf"], {"/models": "/srv"}, "/srv/m-00001-of-00002.gguf"),
        (["-c", "…", "sh", "vllm", "serve", "/models/q"], {"/models/q": "/srv/hub/q"}, "/srv/hub/q"),
        (["--mmproj", "/extra/p.gguf", "--x"], {"/models/m": "/srv/m", "/extra/p.gguf": "/srv/p"}, "/srv/p"),
        (["--nothing"], {"/models/m": "/srv/m"}, "/srv/m"),
        (["/opt/v/bin/vllm", "serve", "/srv/hub/q", "--port", "8000"], {}, "/srv/hub/q"),
        ([], {}, ""),
    ],
)
def test_the_path_is_that_of_the_host(argv, mounts, expected):
    assert model_path({"argv": argv, "mounts": mounts}) == expected


def test_a_file_of_the_users_has_its_fingerprint(tmp_path):
    path = tmp_path / "m.gguf"
    assert record(spec(path)) == {"path": str(path), "source": "", "digest": f"fingerprint:{'f' * 64}"}


def test_a_file_that_the_store_brought_has_the_digest_it_was_verified_by(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"model")
    write_note(str(path), "a" * 64, f"{path}.verified")
    assert record(spec(path))["digest"] == f"sha256:{'a' * 64}"
    # what was changed since then was not verified
    path.write_bytes(b"another model")
    assert record(spec(path))["digest"].startswith("fingerprint:")


def publish(tmp_path, *files, entry=""):
    """Note a model as the store does, and return the path that engines are given."""
    place = Place(str(tmp_path), "org/name-8B--x")
    manifest = Manifest(place.repo, COMMIT, GGUF if entry else SAFETENSORS, files, entry)
    os.makedirs(place.own)
    note = {"files": {}, "models": {manifest.key: {"manifest": manifest.as_data(), "asked": {}}}}
    with open(place.note(COMMIT), "w", encoding="utf-8") as stream:
        json.dump(note, stream)
    return manifest, place.location(manifest)


def test_a_file_of_a_hub_is_told_by_repository_commit_and_digest(tmp_path):
    _, path = publish(tmp_path, RepoFile("q4/m.gguf", 5, "b" * 64), entry="q4/m.gguf")
    assert record(spec(path)) == {"path": path, "source": f"org/name-8B--x@{COMMIT}", "digest": f"sha256:{'b' * 64}"}


def test_a_folder_of_a_hub_has_one_digest_for_all_files(tmp_path):
    manifest, path = publish(
        tmp_path, RepoFile("config.json", 5, blob_id="c" * 40), RepoFile("m.safetensors", 9, "d" * 64)
    )
    found = record(spec(path, "/models/q"))
    assert (found["source"], found["digest"]) == (f"org/name-8B--x@{COMMIT}", f"files:{manifest.key}")


@pytest.mark.parametrize("note", ["", "[]", '{"models": {"x": {"manifest": {"repo": 1}}}}'])
def test_a_note_that_makes_no_sense_leaves_the_fingerprint(tmp_path, note):
    _, path = publish(tmp_path, RepoFile("m.gguf", 5, "b" * 64), entry="m.gguf")
    place = Place(str(tmp_path), "org/name-8B--x")
    with open(place.note(COMMIT), "w", encoding="utf-8") as stream:
        stream.write(note)
    assert record(spec(path))["digest"].startswith("fingerprint:")
    assert record(spec(path))["source"] == f"org/name-8B--x@{COMMIT}"


def test_a_path_that_only_looks_like_the_stores_is_a_path(tmp_path):
    path = str(tmp_path / "hub" / "models--..--x" / "snapshots" / COMMIT / "m.gguf")
    assert record(spec(path))["source"] == ""
