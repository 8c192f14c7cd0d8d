"""The gguf_info module: models of the host and of a server, and the facts it makes of their headers."""

from __future__ import annotations

import io
import json
import struct
import sys
import time
import typing as t
from pathlib import Path

import gguf_info
import pytest
from ansible.module_utils.llmfleet import gguf, gguf_look
from ansible.module_utils.testing import patch_module_args
from gguf_bytes import ARRAY, BOOL, header, key, model, number, numbers, padded, part, tensor, tiny, word, words

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
from hub_server import Hub

TINY = tiny()
TOKEN = "hf_secretsecret"


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HOME", "XDG_CACHE_HOME", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def info(capsys: pytest.CaptureFixture[str]) -> t.Callable[..., dict[str, t.Any]]:
    def run(check: bool = False, **options: t.Any) -> dict[str, t.Any]:
        with patch_module_args({**options, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            gguf_info.main()
        said = capsys.readouterr()
        assert TOKEN not in said.out.replace(json.dumps(options.get("token", "")), "") + said.err
        return json.loads(said.out)

    return run


@pytest.fixture
def hub(tmp_path: Path) -> t.Iterator[t.Any]:
    root = tmp_path / "hub"
    folder = root / "org" / "m"
    folder.mkdir(parents=True)
    (folder / "m.gguf").write_bytes(TINY)
    for place, names in enumerate((("a",), ("b", "c"), ("d",))):
        (folder / f"big-0000{place + 1}-of-00003.gguf").write_bytes(part(place, 3, *names))
    with Hub(root, tokens=[TOKEN]) as running:
        yield running


Info = t.Callable[..., "dict[str, t.Any]"]


def at(hub: t.Any, name: str = "m.gguf") -> str:
    return f"{hub.url}/org/m/resolve/main/{name}"


def tokens(hub: t.Any, port: str) -> set[bool]:
    """Return whether the answered requests had a token; they are noted after the answer, so it may take a moment."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = {bool(row["token"]) for row in hub.requests(port) if row["status"] < 400}
        if found:
            return found
        time.sleep(0.01)
    return set()


@pytest.mark.parametrize("check", [False, True])
def test_tells_of_a_file_of_the_host(info: Info, tmp_path: Path, check: bool) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(TINY)
    # nobody but its owner may read it, and that is no matter here
    file.chmod(0o600)
    found = info(check, path=str(file))
    assert not found["changed"]
    assert found["shape"]["layers"][0]["kv_heads"] == 1
    assert {name: found[name] for name in ("architecture", "name", "layers", "heads", "kv_heads", "key_length")} == {
        "architecture": "llama",
        "name": "llmfleet tiny",
        "layers": 1,
        "heads": 2,
        "kv_heads": 1,
        "key_length": 16,
    }
    assert (found["quant"], found["tokenizer"], found["chat_template"]) == ("F32", "llama", True)
    assert found["quantisation"] == [
        {"type": "F32", "tensors": 12, "weights": 37152, "bytes": 4 * 37152},
    ]
    assert (found["files"], found["size"], found["needed_size"]) == ([str(file)], len(TINY), len(TINY))


def test_its_result_is_what_it_documents(info: Info, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    (tmp_path / "m.gguf").write_bytes(TINY)
    found = info(path=str(tmp_path / "m.gguf"))
    returned = yaml.safe_load(gguf_info.RETURN)
    # warnings are those of all modules that ran in this process
    assert set(returned) == set(found) - {"changed", "invocation", "warnings"}
    kinds = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict, "raw": object}
    for name, row in returned.items():
        assert isinstance(found[name], kinds[row["type"]]), name


def test_tells_of_all_parts_of_a_split_model(info: Info, hub: t.Any) -> None:
    first = hub.root / "org/m/big-00001-of-00003.gguf"
    for found in (info(path=str(first)), info(url=at(hub, first.name))):
        assert (found["split_count"], found["tensor_count"], found["weight_count"]) == (3, 4, 128)
        assert [Path(name).name for name in found["files"]] == [f"big-0000{place}-of-00003.gguf" for place in (1, 2, 3)]
        assert found["size"] == found["needed_size"] == sum(path.stat().st_size for path in first.parent.glob("big-*"))
        assert found["shape"] == {}, "a model without layers has no shape"


def test_a_file_on_a_server_is_told_of_as_one_on_the_host_is(info: Info, hub: t.Any) -> None:
    far, near = info(url=at(hub)), info(path=str(hub.root / "org/m/m.gguf"))
    for found in (far, near):
        found.pop("files")
        found.pop("invocation")
    assert far == near


def test_the_query_of_an_address_goes_to_the_server_and_not_into_results(
    info: Info, hub: t.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    get = gguf_look.source_web.Web.get

    def noting(self: t.Any, source: t.Any, url: str, *rest: t.Any) -> t.Any:
        asked.append(url)
        return get(self, source, url, *rest)

    monkeypatch.setattr(gguf_look.source_web.Web, "get", noting)
    assert info(url=at(hub) + "?signature=abc#part")["files"] == [at(hub)]
    assert asked == [at(hub) + "?signature=abc"]
    assert "signature" not in info(url=at(hub, "none.gguf") + "?signature=abc")["msg"]


FAULTS: dict[str, tuple[dict[str, t.Any], str]] = {
    "no ranges": ({"no_range": True, "times": -1}, ""),
    "busy once": ({"status": 503, "retry_after": 1}, ""),
    "cut": ({"cut_after": 1000, "times": 2}, ""),
    "dropped once": ({"drop": True}, ""),
    "web page": ({"html": True, "times": -1}, "the file is a web page"),
    "gone": ({"status": 410, "times": -1}, "HTTP 410"),
    "corrupt": ({"corrupt": 4, "times": -1}, "GGUF version"),
    "shorter": ({"wrong_size": -4096, "times": -1}, "cut off"),
    "redirects in circles": ({"loop": True, "times": -1, "on": "resolve"}, "it redirects more than"),
    "redirect to a file": ({"redirect": "file:///etc/passwd", "times": -1, "on": "resolve"}, "no http(s) URL"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_of_a_server_are_overcome_or_said(info: Info, hub: t.Any, case: str) -> None:
    fault, message = FAULTS[case]
    hub.fault("m.gguf", **fault)
    found = info(url=at(hub))
    if not message:
        assert found.get("layers") == 1, found
        return
    assert found["failed"]
    assert message in found["msg"]
    assert found["msg"].startswith(at(hub))
    assert "\n" not in found["msg"]


@pytest.mark.parametrize("how", ["token", "token_file", "environment", "file of the environment"])
def test_a_token_opens_a_gated_model_and_goes_to_no_other_host(
    info: Info, hub: t.Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hub.repo("org/m", gated=True, granted=[TOKEN])
    refused = info(url=at(hub))
    assert "HTTP 40" in refused["msg"]
    assert "licence" in refused["msg"]

    place = tmp_path / "token"
    place.write_text(TOKEN + "\n")
    options = {}
    if how == "token":
        options["token"] = TOKEN
    elif how == "token_file":
        options["token_file"] = str(place)
    else:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        if how == "environment":
            monkeypatch.setenv("HF_TOKEN", TOKEN)
        else:
            monkeypatch.setenv("HF_TOKEN_PATH", str(place))
    hub.reset()
    assert info(url=at(hub), **options)["layers"] == 1
    assert tokens(hub, "hub") == {True}
    assert tokens(hub, "cdn") == {False}


def test_a_token_of_the_environment_is_not_for_every_server(
    info: Info, hub: t.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert info(url=at(hub))["layers"] == 1
    assert tokens(hub, "hub") == tokens(hub, "cdn") == {False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either `path` or `url`"),
        ({"path": "/m.gguf", "url": "http://h/m.gguf"}, "either `path` or `url`"),
        ({"path": "/nonexistent/m.gguf"}, "/nonexistent/m.gguf: there is no such file"),
        ({"path": "/"}, "it is a directory"),
        ({"url": "hf:org/repo"}, "`url` must be an http or https URL"),
        ({"url": "file:///etc/passwd"}, "`url` must be an http or https URL"),
        ({"url": "http://[x/m.gguf"}, "`url` is not a valid URL"),
        ({"url": "http://h/a b.gguf"}, "`url` holds a blank"),
        ({"url": "http://u:secret@h/m.gguf"}, "may not hold a user name or password"),
        ({"url": "http://h/m.gguf", "timeout": 0}, "at least 1 second"),
        ({"url": "http://models.example.org/m.gguf", "token": TOKEN}, "the token is not sent"),
        (
            {"url": "https://127.0.0.1:1/m.gguf", "token": "a b"},
            "`token` and `token_file`: the token holds white",
        ),
        (
            {"url": "https://127.0.0.1:1/m.gguf", "token_file": "/nonexistent/t"},
            "file /nonexistent/t with the token",
        ),
        ({"url": "https://127.0.0.1:1/m.gguf", "token_file": "/dev/null"}, "the file /dev/null holds no token"),
    ],
)
def test_bad_input_is_said_in_a_sentence(info: Info, options: dict[str, t.Any], message: str) -> None:
    found = info(**options)
    assert found["failed"]
    assert message in found["msg"]
    assert "secret@" not in found["msg"]
    assert "\n" not in found["msg"]


def test_a_server_that_is_not_there(info: Info) -> None:
    found = info(url="http://127.0.0.1:1/m.gguf", timeout=2)
    assert "http://127.0.0.1:1/m.gguf: the server cannot be reached: the connection was refused" in found["msg"]


def test_what_is_wrong_with_a_file_is_said(info: Info, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(TINY[:-100])
    assert info(path=str(file))["msg"].startswith(f"{file}: the file is cut off: its tensors need {len(TINY)} bytes")


def summary(architecture: str, *keys: bytes, tensors: tuple[bytes, ...] = ()) -> dict[str, t.Any]:
    data = padded(header(word("general.architecture", architecture), *keys, tensors=tensors))
    return gguf.summary(gguf.read_header(io.BytesIO(data), 1 << 40))


def test_what_the_header_does_not_say_follows_from_what_it_says() -> None:
    found = summary(
        "llama", number("llama.embedding_length", 4096), number("llama.attention.head_count", 32), tensors=()
    )
    assert (found["kv_heads"], found["key_length"], found["value_length"]) == (32, 128, 128)
    assert (found["layer_kind"], found["mla"], found["embedding_model"]) == ("attention", False, False)
    assert found["experts"] == {"count": 0, "used": 0, "shared": 0}
    assert (found["quant"], found["quantisation"]) == ("", [])


def test_values_by_layer_are_a_list_where_they_differ() -> None:
    found = summary(
        "gemma4",
        number("gemma4.block_count", 4),
        number("gemma4.attention.head_count", 8),
        numbers("gemma4.attention.head_count_kv", 8, 8, 8, 2),
        numbers("gemma4.feed_forward_length", 64, 64, 64, 64),
        number("gemma4.attention.sliding_window", 1024),
        text_of_flags("gemma4.attention.sliding_window_pattern", True, True, True, False),
    )
    assert (found["heads"], found["kv_heads"], found["feed_forward_length"]) == (8, [8, 8, 8, 2], 64)
    assert (found["sliding_window"], found["sliding_window_pattern"]) == (1024, [1, 1, 1, 0])


def text_of_flags(name: str, *flags: bool) -> bytes:
    return key(name, ARRAY, f"IQ{len(flags)}?", BOOL, len(flags), *flags)


@pytest.mark.parametrize(
    ("architecture", "keys", "kind"),
    [
        ("mamba", [number("mamba.ssm.state_size", 16), number("mamba.attention.head_count", 0)], "recurrent"),
        ("rwkv7", [number("rwkv7.wkv.head_size", 64)], "recurrent"),
        (
            "jamba",
            [
                number("jamba.ssm.state_size", 16),
                number("jamba.attention.head_count", 4),
                numbers("jamba.attention.head_count_kv", 0, 0, 2, 0),
            ],
            "hybrid",
        ),
        (
            "qwen3next",
            [number("qwen3next.ssm.state_size", 128), number("qwen3next.attention.head_count", 16)],
            "hybrid",
        ),
        (
            "lfm2",
            [number("lfm2.shortconv.l_cache", 3), number("lfm2.attention.head_count", 4)],
            "hybrid",
        ),
        ("qwen3", [number("qwen3.attention.head_count", 16), number("other.ssm.state_size", 1)], "attention"),
    ],
)
def test_kinds_of_layers(architecture: str, keys: list[bytes], kind: str) -> None:
    assert summary(architecture, *keys)["layer_kind"] == kind


def test_experts_latent_attention_and_embeddings() -> None:
    found = summary(
        "deepseek2",
        number("deepseek2.attention.kv_lora_rank", 512),
        number("deepseek2.attention.key_length", 576),
        number("deepseek2.attention.value_length", 512),
        number("deepseek2.expert_count", 64),
        number("deepseek2.expert_used_count", 6),
        number("deepseek2.expert_shared_count", 2),
    )
    assert (found["mla"], found["kv_lora_rank"], found["key_length"], found["value_length"]) == (True, 512, 576, 512)
    assert found["experts"] == {"count": 64, "used": 6, "shared": 2}
    assert summary("bert", key("bert.attention.causal", BOOL, "?", False))["embedding_model"]
    assert summary("qwen3", number("qwen3.pooling_type", 3))["embedding_model"]
    assert not summary("qwen3", number("qwen3.pooling_type", 0))["embedding_model"]


def test_types_of_tensors_are_counted() -> None:
    rows = (
        tensor((256, 4), 12, 0, "a"),
        tensor((256, 4), 12, 576, "b"),
        tensor((256,), 14, 1152, "c"),
        tensor((8,), 0, 1376, "d"),
    )
    found = summary("llama", number("general.file_type", 15), words("tokenizer.ggml.tokens", *"abc"), tensors=rows)
    assert found["quant"] == "Q4_K_M"
    assert found["quantisation"] == [
        {"type": "Q4_K", "tensors": 2, "weights": 2048, "bytes": 1152},
        {"type": "Q6_K", "tensors": 1, "weights": 256, "bytes": 210},
        {"type": "F32", "tensors": 1, "weights": 8, "bytes": 32},
    ]
    assert (found["tensor_bytes"], found["vocabulary_size"]) == (1394, 3)
    assert summary("llama", number("general.file_type", 9999), tensors=rows)["quant"] == "Q4_K"


@pytest.mark.parametrize(
    ("value", "heads"),
    [
        (struct.pack("<If", 6, 2.5), 0),
        (struct.pack("<Ii", 5, -4), 0),
        (struct.pack("<IIQ", ARRAY, 5, 0), 0),
        (struct.pack("<IIQ2i", ARRAY, 5, 2, -1, 4), [0, 4]),
        (struct.pack("<IIQ", ARRAY, 8, 1) + struct.pack("<Q", 1) + b"x", 0),
        (struct.pack("<I?", 7, True), 0),
    ],
    ids=["fraction", "negative", "empty list", "list with a negative", "list of texts", "flag"],
)
def test_senseless_values_count_as_absent(value: bytes, heads: t.Any) -> None:
    found = summary("llama", struct.pack("<Q", 26) + b"llama.attention.head_count" + value)
    assert found["heads"] == heads


def test_addresses_are_shown_without_secrets() -> None:
    assert gguf_look.shown("https://u:p@h.example:8/a/b.gguf?sig=1#f") == "https://h.example:8/a/b.gguf"
    assert model()[:4] == b"GGUF"
