"""What hubs answer about a repository's files."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import listing
from ansible.module_utils.llmfleet.hub.manifest import Listing, listing_from
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
import hub_listings as hubs

REPO = "unsloth/Qwen3-30B-A3B-GGUF"
COMMIT = "a" * 40
SHA = "b" * 64


def info(*rows: t.Any, **more: t.Any) -> dict[str, t.Any]:
    return {"sha": COMMIT, "siblings": list(rows), **more}


def row(path: t.Any = "x.gguf", size: t.Any = 1, **more: t.Any) -> dict[str, t.Any]:
    return {"rfilename": path, "size": size, "blobId": "c" * 40, **more}


@pytest.mark.parametrize("repo", hubs.REPOS)
def test_all_ways_to_ask_tell_the_same(repo: str) -> None:
    found = listing.from_hf("hf", repo, json.loads(json.dumps(hubs.hf_info(repo))), "main")
    assert found
    assert {file.path: file.size for file in found.files} == hubs.REPOS[repo]
    assert (found.source, found.repo, found.commit, found.asked) == ("hf", repo, hubs.commit_of(repo), "main")
    assert listing.from_hf_tree("hf", repo, found.commit, hubs.hf_tree(repo, 7), "main") == found
    assert listing_from(json.loads(json.dumps(found.as_data()))) == found
    other = listing.from_ms("ms", repo, [hubs.ms_files(repo)])
    assert [(file.path, file.size) for file in other.files] == [(file.path, file.size) for file in found.files]
    sums = {file.path: file.sha256 for file in other.files}
    assert all(file.sha256 in ("", sums[file.path]) for file in found.files)


def test_a_large_file_is_known_by_its_content_not_by_its_pointer() -> None:
    lfs = {"sha256": SHA, "size": 9, "pointerSize": 135}
    found = listing.from_hf("hf", "o/r", info(row("x.gguf", 9, lfs=lfs), row("config.json", 2)))
    assert found
    assert [(file.path, file.digest) for file in found.files] == [
        ("config.json", "git:" + "c" * 40),
        ("x.gguf", f"sha256:{SHA}"),
    ]
    assert found.files[1].blob_id == ""


def test_a_mirror_that_tells_no_sizes_is_asked_for_its_tree() -> None:
    assert listing.from_hf("hf", "o/r", info({"rfilename": "x.gguf"})) is None
    assert listing.hf_commit("hf", "o/r", info({"rfilename": "x.gguf"})) == COMMIT


@pytest.mark.parametrize(
    ("gated", "expected"), [("manual", True), ("auto", True), (True, True), (False, False), (None, False), ("", False)]
)
def test_gated(gated: t.Any, expected: bool) -> None:
    assert listing.is_gated(info(gated=gated)) is expected
    assert listing.is_gated([]) is False


@pytest.mark.parametrize(
    ("tip", "short", "asked", "expected"),
    [
        (COMMIT, "", "", COMMIT),
        ("", "", COMMIT, COMMIT),
        ("", "", "master", "the newest"),
        ("", "the oldest", "", "the oldest"),
        ("", "fffffff", "", "the newest"),
    ],
)
def test_the_commit_of_modelscope(tip: str, short: str, asked: str, expected: str) -> None:
    repo = "Qwen/Qwen3-8B"
    answer = hubs.ms_files(repo)
    touched = [file["Revision"] for file in answer["Data"]["Files"] if file["Revision"]]
    named = {"the newest": touched[-1], "the oldest": touched[0]}
    answer = hubs.ms_files(repo, tip, named.get(short, short)[:8])
    assert listing.from_ms("ms", repo, [answer], asked).commit == named.get(expected, expected)


def test_a_hub_that_tells_no_commit_is_asked_by_branch() -> None:
    answer = hubs.ms_files("Qwen/Qwen3-8B")
    for file in answer["Data"]["Files"]:
        file["Revision"] = ""
    found = listing.from_ms("ms", "Qwen/Qwen3-8B", [answer])
    assert found.commit.startswith("content-")
    assert listing.revision_to_ask(found.commit, "", "master") == "master"
    assert listing.revision_to_ask(found.commit, "v1", "master") == "v1"
    assert listing.revision_to_ask(COMMIT, "v1", "master") == COMMIT
    answer["Data"]["Files"][0]["Sha256"] = SHA
    assert listing.from_ms("ms", "Qwen/Qwen3-8B", [answer]).commit != found.commit


def test_what_is_no_file_is_passed_over() -> None:
    tree = [[{"type": kind, "path": kind, "size": 1, "oid": "c" * 40} for kind in ("file", "directory", "submodule")]]
    assert [file.path for file in listing.from_hf_tree("hf", "o/r", COMMIT, tree).files] == ["file"]
    rows = [{"Path": kind, "Size": 1, "Type": kind, "Sha256": SHA} for kind in ("blob", "tree", "commit")]
    assert [file.path for file in listing.from_ms("ms", "o/r", [{"Data": {"Files": rows}}]).files] == ["blob"]


def test_a_small_file_with_an_empty_word_about_lfs() -> None:
    found = listing.from_hf("hf", "o/r", info(row("config.json", 2, lfs={}), row("x.json", 2, lfs=None)))
    assert found
    assert {file.digest for file in found.files} == {"git:" + "c" * 40}


def test_pages_of_modelscope() -> None:
    answer = hubs.ms_files(REPO)
    rows = answer["Data"]["Files"]
    pages = [{**answer, "Data": {**answer["Data"], "Files": rows[at : at + 5]}} for at in range(0, len(rows), 5)]
    assert listing.from_ms("ms", REPO, pages) == listing.from_ms("ms", REPO, [answer])


def test_an_empty_repository() -> None:
    found = listing.from_hf("hf", "o/r", info())
    assert found
    assert found.files == ()
    assert listing.from_ms("ms", "o/r", [{"Code": 200, "Success": True, "Data": {"Files": None}}]).files == ()


HOSTILE = [
    "../x.gguf",
    "/etc/passwd",
    "a/../../x",
    "a//b",
    "a/./b",
    "",
    ".",
    "..",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x1b[31mb",
    "\ud800",
    "x" * 241,
    "/".join(["x" * 200] * 11),
]


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_paths(path: str) -> None:
    tree = [[{"type": "file", "path": path, "size": 1, "oid": "c" * 40}]]
    files = {"Success": True, "Data": {"Files": [{"Path": path, "Size": 1, "Type": "blob", "Sha256": SHA}]}}
    for call in (
        lambda: listing.from_hf("lan", "o/r", info(row(path))),
        lambda: listing.from_hf_tree("lan", "o/r", COMMIT, tree),
        lambda: listing.from_ms("lan", "o/r", [files]),
    ):
        with pytest.raises(BadInput, match=r"source lan: the listing of o/r.*(safe path|without a name)") as caught:
            call()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "is not what a hub answers"),
        ([], "is not what a hub answers"),
        ("x", "is not what a hub answers"),
        ({}, "tells no siblings"),
        ({"siblings": {}}, "tells no siblings"),
        ({"siblings": [1]}, "tells no siblings"),
        ({"siblings": []}, "names no commit"),
        ({"siblings": [], "sha": "main"}, "names no commit"),
        ({"siblings": [], "sha": 7}, "names no commit"),
        (info({"size": 1}), "a file without a name"),
        (info(row(7)), "a file without a name"),
        (info(row(size=-1)), "tells no size of 'x.gguf'"),
        (info(row(size="1")), "tells no size of 'x.gguf'"),
        (info(row(size=True)), "tells no size of 'x.gguf'"),
        (info(row(size=1.5)), "tells no size of 'x.gguf'"),
        (info(row(size=1 << 60)), "tells no size of 'x.gguf'"),
        (info(row(lfs={"sha256": "x", "size": 1})), "tells a digest of 'x.gguf' that is none"),
        (info(row(lfs={"sha256": SHA, "size": 2})), "tells two sizes of x.gguf"),
        (info({**row(), "blobId": "../../x"}), "tells a digest of 'x.gguf' that is none"),
        (info(row(), row()), "names a file twice"),
        (info(row("a"), row("a/b")), "names 'a/b' below a file"),
        (info(*[row(f"f{number}") for number in range(listing.MAX_FILES + 1)]), "holds more than 50000 files"),
    ],
)
def test_bad_answers_of_hugging_face(data: t.Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        listing.from_hf("lan", "o/r", data)
    assert "source lan: the listing of o/r" in str(caught.value)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ([], "is not what a hub answers"),
        ({"Success": False, "Message": "no such\nmodel"}, r"was refused: 'no such\\nmodel'"),
        ({"Code": 404}, "was refused: no reason was given"),
        ({"Code": 200}, "is not what a hub answers"),
        ({"Data": {"Files": {"a": 1}}}, "tells no Files"),
        ({"Data": {"Files": [{"Type": "blob", "Size": 1}]}}, "a file without a name"),
        ({"Data": {"Files": [{"Path": "x", "Type": "blob"}]}}, "tells no size of 'x'"),
        ({"Data": {"Files": [{"Path": "x", "Size": 1, "CommittedDate": 10**400, "Revision": 7}] * 2}}, "a file twice"),
    ],
)
def test_bad_answers_of_modelscope(page: t.Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        listing.from_ms("lan", "o/r", [page])
    assert "source lan: the listing of o/r" in str(caught.value)


def test_pages_without_end_are_not_read_to_it() -> None:
    def pages() -> t.Iterator[t.Any]:
        number = 0
        while True:
            number += 1000
            yield [{"type": "file", "path": f"f{number + at}", "size": 1, "oid": ""} for at in range(1000)]

    with pytest.raises(BadInput, match="holds more than 50000 files"):
        listing.from_hf_tree("lan", "o/r", COMMIT, pages())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\n <html>", "is a web page"),
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff\xfe\xff", "is no JSON"),
        (b"[" * 200_000, "is no JSON"),
        (b"1" * 10_000, "is no JSON"),
    ],
)
def test_what_is_no_json(raw: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=f"source lan: the listing of o/r {message}"):
        listing.read_json(raw, "lan", "o/r")


def test_an_answer_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_BYTES", 1 << 20)
    with pytest.raises(BadInput, match="is larger than 1 MiB"):
        listing.read_json(b" " * (1 << 20) + b"1", "lan", "o/r")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "sha",
                    "siblings",
                    "rfilename",
                    "path",
                    "size",
                    "lfs",
                    "oid",
                    "Data",
                    "Files",
                    "Path",
                    "Size",
                    "Sha256",
                ]
            ),
            part,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def made(call: t.Callable[[], Listing | None]) -> Listing | None:
    try:
        return call()
    except BadInput as error:
        assert str(error).isprintable()  # noqa: PT017 -- most of what is given is wrong
        return None


@given(JSON)
def test_any_json_is_a_listing_or_one_sentence(data: t.Any) -> None:
    for found in (
        made(lambda: listing.from_hf("lan", "o/r", data)),
        made(lambda: listing.from_hf("lan", "o/r", {"sha": COMMIT, "siblings": data})),
        made(lambda: listing.from_hf_tree("lan", "o/r", COMMIT, [data])),
        made(lambda: listing.from_ms("lan", "o/r", [data])),
        made(lambda: listing.from_ms("lan", "o/r", [{"Data": {"Files": data}}])),
    ):
        assert found is None or listing_from(found.as_data()) == found
