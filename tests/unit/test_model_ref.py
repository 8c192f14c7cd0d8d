"""What a service's model refers to."""

from __future__ import annotations

import pytest
from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.model_ref import parse

SHA = "0123456789ab" + "c" * 52


def test_tiny() -> None:
    ref = parse("tiny")
    assert (ref.kind, ref.sha256, ref.location("/store")) == ("tiny", tiny_gguf.SHA256, "/store/tiny.gguf")
    assert parse("tiny", tiny_gguf.SHA256) == ref


def test_a_path_stays_where_it_is() -> None:
    ref = parse("/srv/models/a b.gguf")
    assert (ref.kind, ref.sha256, ref.location("/store")) == ("path", "", "/srv/models/a b.gguf")


def test_two_paths_never_share_a_note() -> None:
    assert parse("/a/model.gguf").file_name != parse("/b/model.gguf").file_name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/models/small.gguf", "0123456789ab-small.gguf"),
        ("HTTP://example.org:8080/small.gguf?download=true&sig=s3cret", "0123456789ab-small.gguf"),
        ("https://example.org/a%20b%2Fc%2F..%2F..%2Fetc.gguf", "0123456789ab-etc.gguf"),
        ("https://example.org/%E6%A8%A1.gguf", "0123456789ab-gguf"),
        ("https://example.org", "0123456789ab-model.gguf"),
        ("https://example.org/..", "0123456789ab-model.gguf"),
        ("https://[::1]:8080/m.gguf", "0123456789ab-m.gguf"),
    ],
)
def test_urls(url: str, name: str) -> None:
    ref = parse(url, SHA.upper())
    assert (ref.kind, ref.sha256, ref.file_name) == ("url", SHA, name)
    assert ref.location("/store") == f"/store/{name}"


def test_an_own_name() -> None:
    assert parse("https://example.org/x", SHA, "small.gguf").location("/store") == "/store/small.gguf"


def test_what_is_shown_holds_no_secret() -> None:
    assert parse("https://example.org/m.gguf?sig=s3cret", SHA).shown == "https://example.org/m.gguf"


@pytest.mark.parametrize(
    ("model", "sha256", "message"),
    [
        ("", "", "`model` is empty"),
        ("  ", "", "`model` is empty"),
        ("tinny", "", "not a model"),
        ("tiny", SHA, "leave its sha256 out"),
        ("models/small.gguf", "", "the path must be absolute"),
        ("./small.gguf", "", "the path must be absolute"),
        ("~/small.gguf", "", "the path must be absolute"),
        ("small.gguf", "", "the path must be absolute"),
        ("hf:org/repo", "", "hub models are not supported yet: give a local GGUF path or a URL with sha256"),
        ("ms:org/repo", "", "hub models are not supported yet"),
        ("hf://org/repo", "", "hub models are not supported yet"),
        ("org/repo", "", "hub models are not supported yet"),
        ("org/repo:Q4_K_M", "", "hub models are not supported yet"),
        ("file:///srv/m.gguf", "", "file:// is not supported"),
        ("s3://bucket/m.gguf", SHA, "s3:// is not supported"),
        ("https://example.org/m.gguf", "", "needs the sha256"),
        ("https://example.org/m.gguf", "abc", "64 hexadecimal digits, not 'abc'"),
        ("/srv/m.gguf", "z" * 64, "64 hexadecimal digits"),
        ("https:///m.gguf", SHA, "not a valid URL"),
        ("https:m.gguf", SHA, "not a valid URL"),
        ("https://example.org:port/m.gguf", SHA, "not a valid URL"),
        ("https://[::1/m.gguf", SHA, "not a valid URL"),
        ("https://example.org/a b.gguf", SHA, "not a valid URL"),
        ("https://例子.org/m.gguf", SHA, "not a valid URL"),
        ("/srv/\0.gguf", "", "NUL"),
    ],
)
def test_bad_input_is_one_sentence(model: str, sha256: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        parse(model, sha256)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("url", ["https://user:s3cret@example.org/m.gguf", "https://user:s3cret@example.org:x/m.gguf"])
@pytest.mark.parametrize("sha256", [SHA, "", "abc"])
def test_a_password_in_a_url_is_refused_and_not_shown(url: str, sha256: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(url, sha256)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["../m.gguf", "a/b", ".hidden", ".", "a\nb"])
def test_a_name_stays_in_the_store(name: str) -> None:
    with pytest.raises(BadInput, match="plain file name"):
        parse("tiny", "", name)
