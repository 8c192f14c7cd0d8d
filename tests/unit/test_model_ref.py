"""What a service's model refers to."""

from __future__ import annotations

import string

import pytest
from ansible.module_utils.llmfleet import tiny_gguf
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.model_ref import ModelRef
from ansible.module_utils.llmfleet.model_words import parse
from hypothesis import given
from hypothesis import strategies as st

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
        ("small.GGUF", "", "the path must be absolute"),
        ("qwen3-8b", "", "not a model: give a name of the catalogue"),
        ("C:\\models\\small.gguf", "", "the path must be absolute, as it is on the Linux host"),
        ("C:/models/small.gguf", "", "the path must be absolute, as it is on the Linux host"),
        ("models\\small", "", "the path must be absolute, as it is on the Linux host"),
        ("/srv/m.gguf:Q4_K_M", "", "`:Q4_K_M` chooses among the files of a hub's repository"),
        ("/srv/models/x:ud-q4_k_xl", "", "`:ud-q4_k_xl` chooses among"),
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


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("model", "source", "repo", "quant", "revision"),
    [
        ("hf:org/repo", "hf", "org/repo", "", ""),
        ("HF:org/repo", "hf", "org/repo", "", ""),
        ("hf://org/repo", "hf", "org/repo", "", ""),
        ("huggingface:org/repo", "hf", "org/repo", "", ""),
        ("huggingface://org/repo:Q8_0@v1", "hf", "org/repo", "Q8_0", "v1"),
        ("hf-mirror:org/repo", "hf-mirror", "org/repo", "", ""),
        ("ms:org/repo@master", "ms", "org/repo", "", "master"),
        ("modelscope:org/repo:q4_k_m", "ms", "org/repo", "q4_k_m", ""),
        ("org/repo", "", "org/repo", "", ""),
        (" org/repo ", "", "org/repo", "", ""),
        ("org/repo/", "", "org/repo", "", ""),
        ("org/repo:Q4_K_M", "", "org/repo", "Q4_K_M", ""),
        ("org/repo@main", "", "org/repo", "", "main"),
        ("org/repo:UD-Q4_K_XL@refs/pr/3", "", "org/repo", "UD-Q4_K_XL", "refs/pr/3"),
        (f"Qwen/Qwen2.5-0.5B_x@{COMMIT}", "", "Qwen/Qwen2.5-0.5B_x", "", COMMIT),
        ("models/small", "", "models/small", "", ""),
        ("https://huggingface.co/org/repo", "hf", "org/repo", "", ""),
        ("https://huggingface.co/org/repo/", "hf", "org/repo", "", ""),
        ("https://huggingface.co/org/repo?library=vllm#files", "hf", "org/repo", "", ""),
        ("https://huggingface.co/org/repo/tree/main", "hf", "org/repo", "", "main"),
        ("https://huggingface.co/org/repo/tree/refs%2Fpr%2F3", "hf", "org/repo", "", "refs/pr/3"),
        ("https://hf.co/org/repo", "hf", "org/repo", "", ""),
        ("https://huggingface.co/org/repo:Q4_K_M", "hf", "org/repo", "Q4_K_M", ""),
        ("https://huggingface.co/org/repo@v1", "hf", "org/repo", "", "v1"),
        ("https://hf-mirror.com/org/repo/tree/main", "hf-mirror", "org/repo", "", "main"),
        ("https://modelscope.cn/models/org/repo", "ms", "org/repo", "", ""),
        ("https://www.modelscope.cn/models/org/repo/summary", "ms", "org/repo", "", ""),
        ("https://modelscope.cn/models/org/repo/files", "ms", "org/repo", "", ""),
    ],
)
def test_models_of_hubs(model: str, source: str, repo: str, quant: str, revision: str) -> None:
    ref = parse(model)
    assert (ref.kind, ref.source, ref.repo, ref.quant, ref.revision, ref.file) == (
        "hub",
        source,
        repo,
        quant,
        revision,
        "",
    )
    assert ref.location("/store") == "/store/hub/models--" + repo.replace("/", "--")
    assert ref.pinned is (revision == COMMIT)


@pytest.mark.parametrize(
    ("model", "file", "revision"),
    [
        ("hf:org/repo/x-Q4_K_M.gguf", "x-Q4_K_M.gguf", ""),
        ("hf:org/repo/Q8_0/x-00001-of-00002.gguf@main", "Q8_0/x-00001-of-00002.gguf", "main"),
        ("https://huggingface.co/org/repo/resolve/main/x.gguf?download=true", "x.gguf", "main"),
        ("https://huggingface.co/org/repo/blob/main/BF16/x.gguf", "BF16/x.gguf", "main"),
        ("https://huggingface.co/org/repo/blob/main/a%20b.gguf", "a b.gguf", "main"),
        ("https://modelscope.cn/models/org/repo/resolve/master/x.gguf", "x.gguf", "master"),
        ("https://modelscope.cn/models/org/repo/file/view/master/x.gguf?status=2", "x.gguf", "master"),
    ],
)
def test_one_file_of_a_repository(model: str, file: str, revision: str) -> None:
    ref = parse(model)
    assert (ref.kind, ref.repo, ref.file, ref.revision, ref.quant) == ("hub", "org/repo", file, revision, "")


def test_a_file_of_a_hub_with_its_digest_is_a_url() -> None:
    ref = parse("https://huggingface.co/org/repo/resolve/main/x.gguf?download=true", SHA)
    assert (ref.kind, ref.model) == ("url", "https://huggingface.co/org/repo/resolve/main/x.gguf?download=true")
    page = parse("https://huggingface.co/org/repo/blob/main/blob/x.gguf", SHA)
    assert page.model == "https://huggingface.co/org/repo/resolve/main/blob/x.gguf"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("hf:", "a hub's model has an owner and a name: write hf:ORG/NAME"),
        ("hf:gpt2", "a hub's model has an owner and a name: write hf:ORG/NAME"),
        ("ms://repo", "a hub's model has an owner and a name: write ms://ORG/NAME"),
        ("hf:/repo", "a hub's model has an owner and a name"),
        ("hf:///org/repo", "a hub's model has an owner and a name"),
        ("hf:org/", "a hub's model has an owner and a name"),
        ("hf:org//x.gguf", "a hub's model has an owner and a name"),
        ("org//repo", "neither an absolute path, .* nor a model of a hub, which is ORG/NAME"),
        ("../repo", "the path must be absolute"),
        ("hf:../repo", "'..' is no name of a hub"),
        ("hf:org/..", "'..' is no name of a hub"),
        ("org/re..po", "'re..po' is no name of a hub"),
        ("org/re--po", "'re--po' is no name of a hub"),
        ("org/-repo", "'-repo' is no name of a hub"),
        ("org/.repo", "'.repo' is no name of a hub"),
        ("org/repo.", "'repo.' is no name of a hub"),
        ("org/re po", "'re po' is no name of a hub"),
        ("org/模型", "'模型' is no name of a hub"),
        ("org/" + "x" * 97, "is no name of a hub"),
        ("org/repo:", "the type of weights after the colon is missing"),
        ("org/repo@", "the revision after the @ is missing"),
        ("org/repo:@main", "the type of weights after the colon is missing"),
        ("org/repo@a@b", "'a@b' is no revision: name one revision only"),
        ("org/repo@main:Q4_K_M", "the type of weights comes before the revision: ORG/NAME:QUANT@REVISION"),
        ("org/repo@../main", "'../main' is no revision"),
        ("org/repo@a/../b", "'a/../b' is no revision"),
        ("org/repo@/main", "'/main' is no revision"),
        ("org/repo@-x", "'-x' is no revision"),
        ("org/repo@" + "x" * 201, "is no revision"),
        ("org/repo:Q4 K", "'Q4 K' is no type of weights, such as Q4_K_M"),
        ("org/repo:a/b", "'a/b' is no type of weights"),
        ("org/repo:Q4:Q5", "'Q4:Q5' is no type of weights"),
        ("hf:org/repo/x.gguf:Q4_K_M", "`:Q4_K_M` chooses among the files, and one is named already"),
        ("hf:org/repo/x.bin", "'x.bin' is no GGUF file of a repository"),
        ("hf:org/repo/../x.gguf", "is no GGUF file of a repository"),
        ("hf:org/repo/a//x.gguf", "is no GGUF file of a repository"),
        (
            "org/repo/x.gguf",
            "neither an absolute path, as it is on the host.*named with its source.*as hf:ORG/NAME/FILE",
        ),
        ("./a/b/x.gguf", "the path must be absolute"),
        ("org/repo/more", "neither an absolute path, .* nor a model of a hub, which is ORG/NAME"),
        ("hg:org/repo", "`hg:` is no source of models; did you mean hf:"),
        ("hugginface:org/repo", "did you mean huggingface:"),
        ("ollama:x/y", "`ollama:` is no source of models; known are hf,"),
        ("oci://org/repo", "oci:// is not supported"),
        ("https://huggingface.co/datasets/org/repo", "not the page of a model; write hf:ORG/NAME"),
        ("https://huggingface.co/org", "not the page of a model; write hf:ORG/NAME"),
        ("https://huggingface.co/", "not the page of a model"),
        ("https://huggingface.co/org/repo/tree/main/Q8_0", "write hf:org/repo, with :QUANT and @REVISION after it"),
        ("https://huggingface.co/org/repo/resolve/main/x.bin", "'x.bin' is no GGUF file of a repository"),
        ("https://huggingface.co/org/repo/resolve/main/..%2F..%2Fx.gguf", "is no GGUF file of a repository"),
        ("https://huggingface.co/org/repo/resolve/main/%00.gguf", "is no GGUF file of a repository"),
        ("https://modelscope.cn/models/org", "not the page of a model; write ms:ORG/NAME"),
        ("https://modelscope.cn/models", "not the page of a model; write ms:ORG/NAME"),
        ("https://modelscope.cn/other/x.gguf", "needs the sha256"),
    ],
)
def test_bad_references_to_hubs(model: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        parse(model)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_name_is_not_for_models_of_hubs() -> None:
    with pytest.raises(BadInput, match="`name` is not for models of a hub"):
        parse("org/repo", name="x.gguf")


def test_all_spellings_of_a_model_are_one() -> None:
    spellings = ["hf:org/repo:q4_k_m@main", "HuggingFace://org/repo:Q4_K_M@main", "hf:org/repo/:Q4-K-M@main"]
    assert {parse(model).canonical for model in spellings} == {"hf:org/repo:Q4_K_M@main"}
    assert parse("https://huggingface.co/org/repo/blob/v1/a/x.gguf").canonical == "hf:org/repo/a/x.gguf@v1"


def test_what_always_means_the_same() -> None:
    assert [parse(model).pinned for model in ("tiny", "/x.gguf", "org/repo", "org/repo@main")] == [
        True,
        False,
        False,
        False,
    ]


@given(st.text(max_size=60) | st.text(alphabet="hfms:/@.-_~%?#aQ4 \\" + string.digits, max_size=60))
def test_any_words_are_a_model_or_one_sentence(model: str) -> None:
    check(model)


@given(st.sampled_from(["https://huggingface.co/", "https://hf.co/", "hf:", "ms://"]), st.text(max_size=40))
def test_any_tail_of_a_hub_is_a_model_or_one_sentence(start: str, tail: str) -> None:
    check(start + tail)


def parsed(model: str) -> ModelRef | str:
    try:
        return parse(model)
    except BadInput as error:
        return str(error)


def check(model: str) -> None:
    """What a reference says never leads out of a folder, and its own words mean the same again."""
    ref = parsed(model)
    if isinstance(ref, str):
        assert ref.isprintable()
        return
    assert ref.location("/store").startswith("/")
    if ref.kind == "hub":
        for path in (ref.repo, ref.revision, ref.file):
            assert not {"..", "."} & set(path.split("/"))
            assert "\0" not in path
        if not ref.file or ref.source:
            again = parse(ref.canonical)
            assert (again.repo, again.revision, again.file) == (ref.repo, ref.revision, ref.file)
