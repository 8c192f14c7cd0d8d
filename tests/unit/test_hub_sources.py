"""Where models come from, and where tokens may go."""

from __future__ import annotations

import typing as t

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub.sources import Source, for_model, parse_sources, why_no_token
from hypothesis import given
from hypothesis import strategies as st

HF = "https://huggingface.co"
MIRROR = "https://hf-mirror.com"
MS = "https://modelscope.cn"


def parse(raw: t.Any, files: t.Collection[str] = (), **environ: str) -> list[Source]:
    return parse_sources(raw, environ, lambda path: path in files)


def rows(sources: t.Iterable[Source]) -> list[tuple[str, str, str]]:
    return [(source.name, source.kind, source.place) for source in sources]


def test_the_default_list() -> None:
    assert rows(parse(None)) == [("hf", "hf", HF), ("hf-mirror", "hf", MIRROR), ("ms", "ms", MS)]


def test_no_source_is_a_choice() -> None:
    assert parse([]) == []


@pytest.mark.parametrize(
    ("raw", "row"),
    [
        ("hf", ("hf", "hf", HF)),
        ("HuggingFace", ("hf", "hf", HF)),
        ([" hf\n"], ("hf", "hf", HF)),
        (["modelscope"], ("ms", "ms", MS)),
        (["/mnt/usb/models/"], ("/mnt/usb/models", "folder", "/mnt/usb/models")),
        (["//mnt//usb/./x"], ("/mnt/usb/x", "folder", "/mnt/usb/x")),
        (["http://hub.lan:8080/"], ("hub.lan:8080", "hf", "http://hub.lan:8080")),
        (["HTTPS://Hub.Example.org/hf/"], ("hub.example.org", "hf", "HTTPS://Hub.Example.org/hf")),
        ({"name": "lan", "url": "http://10.0.0.1/hub"}, ("lan", "hf", "http://10.0.0.1/hub")),
        ({"name": "lan", "kind": "ms", "url": "http://10.0.0.1"}, ("lan", "ms", "http://10.0.0.1")),
        ({"name": "lan", "kind": "modelscope", "url": "http://10.0.0.1"}, ("lan", "ms", "http://10.0.0.1")),
        ({"name": "usb", "path": "/mnt/usb"}, ("usb", "folder", "/mnt/usb")),
        ({"kind": "folder", "path": "/mnt/usb"}, ("/mnt/usb", "folder", "/mnt/usb")),
        ({"kind": "ms"}, ("ms", "ms", MS)),
        ({"name": "hf"}, ("hf", "hf", HF)),
        ({"name": "HF", "kind": "HuggingFace"}, ("hf", "hf", HF)),
        ({"name": "huggingface", "token": None, "url": ""}, ("hf", "hf", HF)),
        ({"name": "hf", "url": "https://hub.example.org"}, ("hf", "hf", "https://hub.example.org")),
    ],
)
def test_one_source(raw: t.Any, row: tuple[str, str, str]) -> None:
    assert rows(parse(raw)) == [row]


def test_the_endpoint_of_the_environment_takes_the_place_of_hf() -> None:
    found = parse(None, HF_ENDPOINT="https://hub.example.org/")
    assert rows(found)[0] == ("hf", "hf", "https://hub.example.org")


def test_a_place_that_is_named_twice_is_asked_once() -> None:
    assert rows(parse(None, HF_ENDPOINT=MIRROR)) == [("hf", "hf", MIRROR), ("ms", "ms", MS)]
    assert len(parse(["hf", "huggingface", "hf"])) == 1


TOKEN = "hf_s3cret"
PATH = "/home/me/.cache/huggingface/token"


@pytest.mark.parametrize(
    ("raw", "files", "environ", "tokens"),
    [
        (None, [], {"HF_TOKEN": TOKEN}, [(TOKEN, ""), (TOKEN, ""), ("", "")]),
        (None, [], {"HF_TOKEN": f" {TOKEN}\n"}, [(TOKEN, ""), (TOKEN, ""), ("", "")]),
        (None, [PATH], {"HF_TOKEN": TOKEN, "HOME": "/home/me"}, [(TOKEN, ""), (TOKEN, ""), ("", "")]),
        (None, [PATH], {"HOME": "/home/me"}, [("", PATH), ("", PATH), ("", "")]),
        (None, [], {"HOME": "/home/me"}, [("", ""), ("", ""), ("", "")]),
        ("hf", ["/c/huggingface/token"], {"HOME": "/x", "XDG_CACHE_HOME": "/c"}, [("", "/c/huggingface/token")]),
        ("hf", ["/hf/token"], {"HOME": "/x", "HF_HOME": "/hf"}, [("", "/hf/token")]),
        ("hf", ["/run/t", PATH], {"HOME": "/home/me", "HF_TOKEN_PATH": "/run/t"}, [("", "/run/t")]),
        ("hf", ["token"], {"HF_TOKEN_PATH": "token"}, [("", "")]),
        ("hf", [], {"HF_TOKEN": TOKEN, "HF_ENDPOINT": "https://hub.example.org"}, [(TOKEN, "")]),
        ("https://hub.example.org", [], {"HF_TOKEN": TOKEN}, [("", "")]),
        ({"name": "hf", "url": "https://hub.example.org"}, [], {"HF_TOKEN": TOKEN}, [("", "")]),
        ({"name": "hf", "token": "own"}, [], {"HF_TOKEN": TOKEN}, [("own", "")]),
        ({"name": "hf", "token_file": "/run/t"}, [], {"HF_TOKEN": TOKEN}, [("", "/run/t")]),
        ("ms", [], {"MODELSCOPE_API_TOKEN": "m", "HF_TOKEN": TOKEN}, [("m", "")]),
        ({"kind": "ms", "url": "https://hub.example.org"}, [], {"MODELSCOPE_API_TOKEN": "m"}, [("", "")]),
        ("/mnt", [], {"HF_TOKEN": TOKEN}, [("", "")]),
    ],
)
def test_tokens_of_the_host(
    raw: t.Any, files: list[str], environ: dict[str, str], tokens: list[tuple[str, str]]
) -> None:
    found = parse_sources(raw, environ, lambda path: path in files)
    assert [(source.token, source.token_file) for source in found] == tokens
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (7, "sources must be a list such as"),
        ([7], r"sources\[0\] must be a word such as hf"),
        ([""], "an empty word"),
        (["hff"], "source hff: not known; did you mean hf"),
        (["usb/models"], "source usb/models: not known; give one of hf, hf-mirror, ms, a URL or an absolute path"),
        (["file:///mnt"], "not known"),
        (["/mnt/\0"], "the path must be absolute"),
        (["https://"], "is not a URL such as"),
        (["https://me:s3cret@hub.example.org"], "may not hold a user name or password"),
        (["https://hub.example.org:port"], "not a valid URL"),
        (["https://hub.example.org/?a=s3cret"], "ends with its path"),
        (["https://hub.example.org/#a"], "ends with its path"),
        (["https://hub.exa mple.org"], "is not a URL such as"),
        ([{"nam": "x"}], r"sources\[0\]: unknown key `nam` \(did you mean `name`"),
        ([{"name": 7}], "`name` must be a string, not int"),
        ([{"name": "a b", "url": HF}], "`name` must be up to 63"),
        ([{"name": "a\nb", "kind": "git"}], r"source 'a\\nb': `kind` must be"),
        ([{"name": "x"}], "source x: `url` is missing"),
        ([{"name": "x", "kind": "git", "url": HF}], "source x: `kind` must be hf, ms or folder, not git"),
        ([{"name": "x", "kind": "folder"}], "source x: a folder has a `path`"),
        ([{"name": "x", "path": "/a", "token": "s3cret"}], "source x: a folder has a `path`, and neither"),
        ([{"name": "x", "kind": "hf", "path": "/a"}], "source x: `path` is for folders"),
        ([{"name": "x", "path": "a"}], "source x: the path must be absolute, not a"),
        ([{"name": "x", "url": "hub.example.org"}], "is not a URL such as"),
        ([{"name": "hf", "token": "s3cret", "token_file": "/x"}], "exclude each other"),
        ([{"name": "hf", "token": "s3cret with blanks"}], "the token holds white space"),
        ([{"name": "hf", "token": "s3cret\nHost: x"}], "the token holds white space"),
        ([{"name": "hf", "token": "s3crét"}], "the token holds white space or characters"),
        ([{"name": "hf", "token_file": "token"}], "`token_file`: the path must be absolute"),
        ([{"name": "x", "url": HF}, {"name": "x", "url": MS}], "source x: the name is used for two places"),
    ],
)
def test_bad_input_is_one_sentence_without_secrets(raw: t.Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        parse(raw)
    assert str(caught.value).isprintable()
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize("value", ["hub.example.org", "ftp://hub.example.org", "https://me:s3cret@hub.example.org"])
def test_a_wrong_endpoint_of_the_environment_is_named(value: str) -> None:
    with pytest.raises(BadInput, match="HF_ENDPOINT in the environment") as caught:
        parse(None, HF_ENDPOINT=value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "wanted", "names"),
    [
        (None, "", ["hf", "hf-mirror", "ms"]),
        (None, "hf", ["hf", "hf-mirror"]),
        (None, "hf-mirror", ["hf-mirror"]),
        (None, "ms", ["ms"]),
        ({"name": "lan", "url": "https://hf-mirror.com"}, "hf-mirror", ["lan"]),
        (["/mnt", "ms"], "hf", ["/mnt"]),
        (["https://hub.example.org"], "hf", ["hub.example.org"]),
    ],
)
def test_the_sources_of_a_model(raw: t.Any, wanted: str, names: list[str]) -> None:
    assert [source.name for source in for_model(parse(raw), wanted, "org/repo")] == names


def test_a_model_that_no_source_may_answer_for() -> None:
    with pytest.raises(BadInput, match="model org/repo: it is to come from ms, and the sources are hf: add ms to them"):
        for_model(parse(["hf"]), "ms", "org/repo")
    with pytest.raises(BadInput, match="there is no source to get it from"):
        for_model([], "", "org/repo")


@pytest.mark.parametrize(
    ("place", "url", "why"),
    [
        (HF, f"{HF}/org/repo/resolve/main/x", ""),
        (HF, "https://HuggingFace.co:443/x", ""),
        (HF, "https://cdn-lfs.huggingface.co/x", "cdn-lfs.huggingface.co is not huggingface.co"),
        (HF, "https://huggingface.co.example.org/x", "huggingface.co.example.org is not huggingface.co"),
        (HF, "https://huggingface.co@example.org/x", "example.org is not huggingface.co"),
        (HF, "http://huggingface.co/x", "huggingface.co is not huggingface.co"),
        (HF, "https://huggingface.co:8443/x", "huggingface.co is not huggingface.co"),
        (HF, "/relative", "/relative is not huggingface.co"),
        (HF, "https://[::1", "https://[::1 is not a valid URL"),
        (HF, "https://huggingface.co:x/", "https://huggingface.co:x/ is not a valid URL"),
        (HF, "https://me:s3cret@huggingface.co:x/", "https://huggingface.co:x/ is not a valid URL"),
        ("http://hub.example.org", "http://hub.example.org/x", "http://hub.example.org is not encrypted"),
        ("http://8.8.8.8", "http://8.8.8.8/x", "http://8.8.8.8 is not encrypted"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080/x", ""),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8081/x", "10.0.0.1 is not 10.0.0.1"),
        ("http://127.0.0.1:80", "http://127.0.0.1/x", ""),
        ("http://localhost:80", "http://localhost/x", ""),
        ("http://[fd00::1]", "http://[fd00::1]/x", ""),
        (
            "http://localhost.example.org",
            "http://localhost.example.org/x",
            "http://localhost.example.org is not encrypted",
        ),
    ],
)
def test_a_token_goes_to_its_own_place_alone(place: str, url: str, why: str) -> None:
    assert why_no_token(Source("hf", "hf", place, "t"), url) == why


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=20), lambda row: st.lists(row, max_size=3), max_leaves=5)
)
def test_anything_is_a_list_of_sources_or_one_sentence(raw: t.Any) -> None:
    try:
        assert all(source.place for source in parse(raw))
    except BadInput as error:
        said = str(error)
        assert said.isprintable()
