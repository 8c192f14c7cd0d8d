"""Which files of a repository make a model."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.llmfleet.errors import BadInput
from ansible.module_utils.llmfleet.hub import choice, gguf_files, listing, quants
from ansible.module_utils.llmfleet.hub.manifest import Listing, Manifest
from ansible.module_utils.llmfleet.model_words import parse
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))
import hub_listings as hubs

GIB = 1 << 30
UNSLOTH = "unsloth/Qwen3-30B-A3B-GGUF"
DEEPSEEK = "unsloth/DeepSeek-R1-GGUF"
BARTOWSKI = "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF"
QWEN = "Qwen/Qwen2.5-7B-Instruct-GGUF"


def listed(files: t.Mapping[str, int] | t.Iterable[str], repo: str = "org/repo") -> Listing:
    if not isinstance(files, t.Mapping):
        files = dict.fromkeys(files, 1000)
    found = listing.from_hf("hf", repo, hubs.hf_info(repo, files))
    assert found
    return found


def choose(repo: str, word: str = "", engine: str = "", **more: t.Any) -> Manifest:
    return choice.choose(listed(hubs.REPOS[repo], repo), parse(repo + word), engine, **more)


def names(manifest: Manifest) -> list[str]:
    return [file.path for file in manifest.files]


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("Qwen3-0.6B-Q8_0.gguf", "Q8_0"),
        ("qwen2.5-7b-instruct-q4_k_m.gguf", "q4_k_m"),
        ("Qwen2.5-7B.Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen2.5-7B.i1-IQ2_XXS.gguf", "IQ2_XXS"),
        ("UD-Q4_K_XL/M-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("UD-Q4_K_XL/model.gguf", "UD-Q4_K_XL"),
        ("M-IQ4_XS.gguf", "IQ4_XS"),
        ("M-BF16.gguf", "BF16"),
        ("M-bf16/M-bf16.gguf", "bf16"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "fp16"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "q4"),
        ("Meta-Llama-3.1-8B-Instruct-f32.gguf", "f32"),
        ("gpt-oss-20b-mxfp4.gguf", "mxfp4"),
        ("M-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("M-NVFP4.gguf", "NVFP4"),
        ("M-TQ1_0.gguf", "TQ1_0"),
        ("M-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("M-Q4_0-Q8_0.gguf", "Q8_0"),
        ("gemma-3-27b-it-qat-q4_0.gguf", "q4_0"),
        ("M-Q4_K_M-imat.gguf", "Q4_K_M"),
        ("M.Q4_K_M", "Q4_K_M"),
        ("Q8_0.gguf", "Q8_0"),
        ("M-Q6_K_L.GGUF", "Q6_K_L"),
        ("Qwen3-8B.gguf", ""),
        ("Qwen/Q-Star-3.gguf", ""),
        ("MQ4_K_M.gguf", ""),
        ("M-Q4_K_Mx.gguf", ""),
        ("bf16er.gguf", ""),
        ("model.gguf", ""),
    ],
)
def test_the_type_in_a_name(path: str, quant: str) -> None:
    assert quants.named_in(path) == quant


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("F32", "BF16"),
        ("fp16", "Q8_0"),
        ("UD-Q8_K_XL", "Q8_0"),
        ("Q8_0", "Q6_K_L"),
        ("Q6_K_L", "Q6_K"),
        ("Q6_K", "Q5_K_M"),
        ("Q5_K_M", "Q5_1"),
        ("Q5_K_S", "Q5_0"),
        ("Q5_0", "Q4_K_M"),
        ("UD-Q4_K_XL", "Q4_K_M"),
        ("Q4_K_M", "Q4_K_S"),
        ("Q4_K_S", "Q4_0"),
        ("IQ4_XS", "Q4_0"),
        ("Q4_0", "Q3_K_M"),
        ("Q3_K_XL", "Q3_K_L"),
        ("Q3_K_M", "IQ3_M"),
        ("IQ3_M", "Q2_K"),
        ("UD-Q2_K_XL", "Q2_K_L"),
        ("Q2_K", "IQ2_M"),
        ("IQ1_M", "IQ1_S"),
        ("UD-IQ1_S", "IQ1_S"),
        ("IQ1_S", "whatever"),
        ("IQ1_S", "X9_XL"),
    ],
)
def test_the_order_of_types(better: str, worse: str) -> None:
    assert quants.worth(better) > quants.worth(worse)


def test_all_types_of_real_names_are_known() -> None:
    others = ("mmproj", "2b_it_v2")
    paths = [path for files in hubs.REPOS.values() for path in files if path.endswith(".gguf")]
    paths = [path for path in paths if not any(word in path for word in others)]
    assert [path for path in paths if not quants.worth(quants.named_in(path.split("-0000")[0]))] == []


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        ("Qwen/Qwen3-0.6B-GGUF", ("gguf",)),
        ("ggml-org/gemma-3-4b-it-GGUF", ("gguf",)),
        ("Qwen/Qwen3-8B", ("safetensors",)),
        ("BAAI/bge-m3", ("safetensors",)),
        ("org/both", ("gguf", "safetensors")),
    ],
)
def test_formats(repo: str, expected: tuple[str, ...]) -> None:
    assert choice.formats(listed(hubs.REPOS[repo])) == expected


def test_the_candidates_of_a_repository() -> None:
    found = gguf_files.candidates(listed(hubs.REPOS[QWEN]))
    words = [row.word for row in found]
    assert words == ["fp16", "q8_0", "q6_k", "q5_k_m", "q5_0", "q4_k_m", "q4_0", "q3_k_m", "q2_k"]
    assert found[1].as_data() == {
        "quant": "q8_0",
        "files": [f"qwen2.5-7b-instruct-q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)],
        "size": 8_098_525_000,
    }


def test_projectors_and_statistics_are_no_models() -> None:
    assert [row.word for row in gguf_files.candidates(listed(hubs.REPOS["ggml-org/gemma-3-4b-it-GGUF"]))] == [
        "f16",
        "Q8_0",
        "Q4_K_M",
    ]
    others = ["mmproj.gguf", "M-mmproj-f16.gguf", "imatrix.gguf", "M-imatrix.gguf", "mtp-M-Q8_0.gguf", "MTP/M.gguf"]
    assert gguf_files.candidates(listed([*others, "ggml-vocab-bert.gguf", "M.imatrix", "M.gguf.json"])) == []
    assert len(gguf_files.candidates(listed(["smtp-bot-Q8_0.gguf", "imatrixed-Q4_0.gguf"]))) == 1


@pytest.mark.parametrize(
    ("repo", "word", "entry", "count", "quant"),
    [
        ("Qwen/Qwen3-0.6B-GGUF", "", "Qwen3-0.6B-Q8_0.gguf", 1, "Q8_0"),
        (UNSLOTH, "", "Qwen3-30B-A3B-Q4_K_M.gguf", 1, "Q4_K_M"),
        (UNSLOTH, ":ud-q4_k_xl", "Qwen3-30B-A3B-UD-Q4_K_XL.gguf", 1, "UD-Q4_K_XL"),
        (UNSLOTH, ":BF16", "BF16/Qwen3-30B-A3B-BF16-00001-of-00002.gguf", 2, "BF16"),
        (DEEPSEEK, "", "DeepSeek-R1-Q4_K_M/DeepSeek-R1-Q4_K_M-00001-of-00009.gguf", 9, "Q4_K_M"),
        (DEEPSEEK, ":UD-IQ1_S", "DeepSeek-R1-UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", 3, "UD-IQ1_S"),
        (DEEPSEEK, ":bf16", "DeepSeek-R1-BF16/DeepSeek-R1.BF16-00001-of-00030.gguf", 30, "BF16"),
        (BARTOWSKI, "", "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", 1, "Q4_K_M"),
        (BARTOWSKI, ":Q6_K", "Meta-Llama-3.1-8B-Instruct-Q6_K.gguf", 1, "Q6_K"),
        ("ggml-org/gemma-3-4b-it-GGUF", ":F16", "gemma-3-4b-it-f16.gguf", 1, "f16"),
        (QWEN, "", "qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", 2, "q4_k_m"),
        (QWEN, ":Q8_0", "qwen2.5-7b-instruct-q8_0-00001-of-00003.gguf", 3, "q8_0"),
        (QWEN, ":F16", "qwen2.5-7b-instruct-fp16-00001-of-00004.gguf", 4, "fp16"),
        ("mradermacher/Qwen2.5-7B-GGUF", ":q6-k", "Qwen2.5-7B.Q6_K.gguf", 1, "Q6_K"),
        ("google/gemma-2-2b-it-GGUF", "", "2b_it_v2.gguf", 1, ""),
        ("google/gemma-2-2b-it-GGUF", ":2b_it_v2", "2b_it_v2.gguf", 1, ""),
        ("org/both", "", "both-Q4_K_M.gguf", 1, "Q4_K_M"),
    ],
)
def test_a_gguf_model(repo: str, word: str, entry: str, count: int, quant: str) -> None:
    for engine in ("", "llama_server"):
        made = choose(repo, word, engine)
        assert (made.format, made.entry, len(made.files), made.quant) == ("gguf", entry, count, quant)
        assert names(made) == sorted(names(made))
        assert (made.repo, made.commit, made.source) == (repo, hubs.commit_of(repo), "hf")


def test_the_revision_that_was_asked_for_is_kept() -> None:
    assert choose(QWEN, "@v1").asked == "v1"
    assert choose(QWEN).asked == ""
    found = listing.from_hf("hf", QWEN, hubs.hf_info(QWEN), "main")
    assert found
    assert choice.choose(found, parse(QWEN)).asked == "main"


@pytest.mark.parametrize(
    ("repo", "limit", "quant"),
    [
        (UNSLOTH, 80 * GIB, "Q8_0"),
        (UNSLOTH, 31 * GIB, "Q8_0"),
        (UNSLOTH, 24 * GIB, "Q6_K"),
        (UNSLOTH, 22 * GIB, "UD-Q5_K_XL"),
        (UNSLOTH, 17 * GIB, "UD-Q4_K_XL"),
        (UNSLOTH, 16 * GIB, "IQ4_XS"),
        (UNSLOTH, 9 * GIB, "UD-IQ1_M"),
        (BARTOWSKI, 100 * GIB, "Q8_0"),
        (BARTOWSKI, 5 * GIB, "Q4_K_L"),
        ("Qwen/Qwen3-0.6B-GGUF", 100 * GIB, "Q8_0"),
    ],
)
def test_the_best_that_fits(repo: str, limit: int, quant: str) -> None:
    made = choose(repo, limit_bytes=limit)
    assert made.quant == quant
    assert made.size <= limit
    assert made.why == f"{quant} is the best whose files fit into {limit / GIB:.1f} GiB"


def test_a_given_type_is_taken_even_if_it_is_too_large() -> None:
    assert choose(UNSLOTH, ":Q8_0", limit_bytes=GIB).quant == "Q8_0"


def test_nothing_fits() -> None:
    with pytest.raises(BadInput, match=r"its smallest files, UD-IQ1_M, take 8\.8 GiB, and there is room for 8\.0 GiB"):
        choose(UNSLOTH, limit_bytes=8 * GIB)


def test_the_original_where_it_is_all_there_is() -> None:
    files = {"M-F16.gguf": 16 * GIB, "M-F32.gguf": 32 * GIB}
    assert choice.choose(listed(files), parse("org/repo"), limit_bytes=20 * GIB).quant == "F16"
    assert choice.choose(listed(files), parse("org/repo")).quant == "F16"
    mixed = {"M-F16.gguf": 2 * GIB, "M-Q8_0.gguf": 20 * GIB}
    assert choice.choose(listed(mixed), parse("org/repo"), limit_bytes=10 * GIB).quant == "F16"


@pytest.mark.parametrize(
    ("files", "quant"),
    [
        (["M-Q5_K_M.gguf", "M-Q4_K_S.gguf", "M-Q8_0.gguf"], "Q4_K_S"),
        (["M-Q8_0.gguf", "M-Q2_K.gguf"], "Q2_K"),
        (["M-Q4_K.gguf", "M-Q8_0.gguf"], "Q4_K"),
        (["M-mxfp4.gguf", "M-F16.gguf"], "mxfp4"),
        (["M.gguf"], ""),
        (["M.gguf", "M-IQ1_S.gguf"], "IQ1_S"),
    ],
)
def test_what_comes_next_to_the_usual_type(files: list[str], quant: str) -> None:
    assert choice.choose(listed(files), parse("org/repo")).quant == quant


def test_an_exact_spelling_is_meant() -> None:
    both = listed(["M-Q4_K.gguf", "M-Q4_K_M.gguf"])
    assert [choice.choose(both, parse(f"org/repo:{word}")).entry for word in ("q4_k", "Q4_K_M")] == [
        "M-Q4_K.gguf",
        "M-Q4_K_M.gguf",
    ]


def test_one_model_in_one_file_and_in_parts() -> None:
    files = ["M-Q4_K_M.gguf", "M-Q4_K_M-00001-of-00002.gguf", "M-Q4_K_M-00002-of-00002.gguf"]
    assert names(choice.choose(listed(files), parse("org/repo:Q4_K_M"))) == ["M-Q4_K_M.gguf"]
    assert len(gguf_files.candidates(listed(files))) == 1
    second = choice.choose(listed(files), parse("hf:org/repo/M-Q4_K_M-00002-of-00002.gguf"))
    assert second.entry == "M-Q4_K_M-00001-of-00002.gguf"
    # the file is whole even if its parts are not
    assert choice.choose(listed(files[:2]), parse("org/repo:Q4_K_M")).entry == "M-Q4_K_M.gguf"


def test_a_name_stands_for_a_type() -> None:
    files = listed(["weird.gguf", "M-Q4_K_M.gguf"])
    made = choice.choose(files, parse("org/repo:Weird"))
    assert (made.entry, made.quant) == ("weird.gguf", "")


def test_two_models_of_one_type() -> None:
    files = listed(["a/M-Q4_K_M.gguf", "b/N-Q4_K_M.gguf", "b/N-Q8_0.gguf"])
    with pytest.raises(
        BadInput, match=r"2 models there are Q4_K_M \(a/M-Q4_K_M.gguf, b/N-Q4_K_M.gguf\): name the file as hf:"
    ):
        choice.choose(files, parse("org/repo:Q4_K_M"))
    assert choice.choose(files, parse("hf:org/repo/a/M-Q4_K_M.gguf")).entry == "a/M-Q4_K_M.gguf"
    assert choice.choose(files, parse("org/repo")).entry == "b/N-Q4_K_M.gguf"


def test_the_model_that_the_repository_is_called_after() -> None:
    paths = ["M-Q4_K_M.gguf", "draft-of-M-Q4_K_M.gguf", "draft-of-M-Q8_0.gguf"]
    files = listed(paths, "org/M-GGUF")
    assert choice.choose(files, parse("org/M-GGUF")).entry == "M-Q4_K_M.gguf"
    assert [row.files[0].path for row in gguf_files.candidates(files)] == ["M-Q4_K_M.gguf"]
    # the others are there for who names them
    assert choice.choose(files, parse("org/M-GGUF:Q8_0")).entry == "draft-of-M-Q8_0.gguf"


def test_hidden_files_are_no_models() -> None:
    assert gguf_files.candidates(listed([".journal/M-Q8_0.gguf", "a/.M-Q8_0.gguf"])) == []


@pytest.mark.parametrize("engine", ["", "llama_server"])
def test_a_type_that_is_not_there(engine: str) -> None:
    with pytest.raises(
        BadInput, match=r"there is no Q4_K_P; there are BF16, UD-Q8_K_XL, Q8_0,.*; did you mean Q4_K_[MS]\?"
    ):
        choose(UNSLOTH, ":Q4_K_P", engine)
    with pytest.raises(BadInput, match=r"there is no latest; there is Q8_0$"):
        choose("Qwen/Qwen3-0.6B-GGUF", ":latest", engine)
    with pytest.raises(BadInput, match="there is no Q4_K_M, because the repository holds no GGUF model; leave it out"):
        choose("Qwen/Qwen3-8B", ":Q4_K_M", engine)


def test_a_file_that_is_not_there() -> None:
    files = listed(["M-Q4_K_M.gguf", "imatrix-F16.gguf"])
    with pytest.raises(BadInput, match=r"there is no file M-Q4_K_S.gguf; did you mean M-Q4_K_M.gguf\?"):
        choice.choose(files, parse("hf:org/repo/M-Q4_K_S.gguf"))
    with pytest.raises(BadInput, match=r"there is no file zzz.gguf; there is M-Q4_K_M.gguf$"):
        choice.choose(files, parse("hf:org/repo/zzz.gguf"))
    with pytest.raises(BadInput, match=r"imatrix-F16.gguf is no model by itself; there is Q4_K_M"):
        choice.choose(files, parse("hf:org/repo/imatrix-F16.gguf"))


def test_a_projector_comes_only_when_it_is_named() -> None:
    files = listed(["M-Q4_K_M.gguf", "mmproj-F16.gguf", "sub/M.mmproj-Q8_0.gguf"])
    assert choice.choose(files, parse("org/repo")).entry == "M-Q4_K_M.gguf"
    for name in ("mmproj-F16.gguf", "sub/M.mmproj-Q8_0.gguf"):
        found = choice.choose(files, parse(f"hf:org/repo/{name}"))
        assert (found.entry, [file.path for file in found.files]) == (name, [name])


def test_a_split_that_is_not_whole() -> None:
    files = listed(["M-Q8_0-00001-of-00003.gguf", "M-Q8_0-00003-of-00003.gguf", "M-Q4_K_M.gguf"])
    lacking = "is not whole in the repository, which lacks M-Q8_0-00002-of-00003.gguf; there is Q4_K_M"
    for word in (":Q8_0", "/M-Q8_0-00001-of-00003.gguf"):
        with pytest.raises(BadInput, match=lacking):
            choice.choose(files, parse("hf:org/repo" + word))
    assert choice.choose(files, parse("org/repo"), limit_bytes=10**9).quant == "Q4_K_M"
    with pytest.raises(BadInput, match=r"no Q4_0, because the repository lacks M-Q8_0-00002-of-00003.gguf; leave it"):
        choice.choose(listed(["M-Q8_0-00001-of-00003.gguf"]), parse("org/repo:Q4_0"))
    with pytest.raises(BadInput, match=r"lacks M-Q8_0-00001-of-00002.gguf, without which Q8_0 can not be used"):
        choice.choose(listed(["M-Q8_0-00002-of-00002.gguf"]), parse("org/repo"))


def test_a_part_beyond_the_count_is_no_part() -> None:
    files = listed(["M-Q8_0-00001-of-00001.gguf", "M-Q8_0-00007-of-00001.gguf"])
    assert names(choice.choose(files, parse("org/repo"))) == ["M-Q8_0-00001-of-00001.gguf"]
    assert gguf_files.candidates(listed(["M-Q8_0-00000-of-00000.gguf"]))[0].missing == ""
    assert gguf_files.candidates(listed(["M-Q8_0-00001-of-99999.gguf"])) == []


@pytest.mark.parametrize("name", ["M.Q8_0.gguf-split-a", "M.Q8_0.gguf.part1of2", "M.Q8_0.gguf.aa"])
def test_files_that_are_cut_to_pieces(name: str) -> None:
    with pytest.raises(BadInput, match="cut to pieces that engines can not load"):
        choice.choose(listed([name]), parse("org/repo"), "llama_server")


@pytest.mark.parametrize(
    ("sha256", "message"),
    [
        (hubs.digest_of("Qwen3-30B-A3B-Q8_0.gguf"), ""),
        ("0" * 64, "Qwen3-30B-A3B-Q8_0.gguf has the sha256 .* in the repository, not 0000"),
    ],
)
def test_a_digest_that_is_given_is_compared(sha256: str, message: str) -> None:
    ref = parse(f"{UNSLOTH}:Q8_0", sha256)
    if not message:
        assert choice.choose(listed(hubs.REPOS[UNSLOTH], UNSLOTH), ref).quant == "Q8_0"
        return
    with pytest.raises(BadInput, match=message):
        choice.choose(listed(hubs.REPOS[UNSLOTH], UNSLOTH), ref)


@pytest.mark.parametrize(("repo", "word"), [("Qwen/Qwen3-8B", ""), (UNSLOTH, ":BF16")])
def test_one_digest_is_not_that_of_several_files(repo: str, word: str) -> None:
    with pytest.raises(BadInput, match="it has several files, so that one sha256 can not be all of theirs"):
        choice.choose(listed(hubs.REPOS[repo], repo), parse(repo + word, "0" * 64))


TOKENIZER = ["merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]


def parts(count: int) -> list[str]:
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        ("Qwen/Qwen3-0.6B", ["config.json", "generation_config.json", "model.safetensors", *TOKENIZER]),
        (
            "Qwen/Qwen3-8B",
            ["config.json", "generation_config.json", *parts(5), "model.safetensors.index.json", *TOKENIZER],
        ),
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            [
                "config.json",
                "generation_config.json",
                *parts(4),
                "model.safetensors.index.json",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
            ],
        ),
        (
            "mistralai/Mistral-7B-Instruct-v0.3",
            [
                "config.json",
                "generation_config.json",
                *parts(3),
                "model.safetensors.index.json",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer.model",
                "tokenizer.model.v3",
                "tokenizer_config.json",
            ],
        ),
        ("openai-community/gpt2", ["config.json", "generation_config.json", "model.safetensors", *TOKENIZER]),
        (
            "Qwen/Qwen2.5-7B-Instruct-AWQ",
            ["config.json", "generation_config.json", *parts(2), "model.safetensors.index.json", *TOKENIZER],
        ),
        (
            "TheBloke/Mistral-7B-Instruct-v0.2-GPTQ",
            [
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "quantize_config.json",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer.model",
                "tokenizer_config.json",
            ],
        ),
        (
            "BAAI/bge-m3",
            [
                "1_Pooling/config.json",
                "config.json",
                "config_sentence_transformers.json",
                "modules.json",
                "pytorch_model.bin",
                "sentence_bert_config.json",
                "sentencepiece.bpe.model",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
            ],
        ),
        (
            "microsoft/Phi-3.5-mini-instruct",
            [
                "config.json",
                *parts(2),
                "model.safetensors.index.json",
                "tokenizer.json",
                "tokenizer.model",
                "tokenizer_config.json",
            ],
        ),
        (
            "openai/gpt-oss-20b",
            [
                "chat_template.jinja",
                "config.json",
                "generation_config.json",
                "model-00000-of-00002.safetensors",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
            ],
        ),
        ("org/both", ["config.json", "generation_config.json", "model.safetensors", *TOKENIZER]),
    ],
)
def test_a_folder(repo: str, expected: list[str]) -> None:
    made = choose(repo, "", "vllm", limit_bytes=1)
    assert names(made) == sorted(expected)
    assert (made.format, made.entry, made.quant) == ("safetensors", "", "")
    left = len(hubs.REPOS[repo]) - len(expected)
    assert f"; {left} others are not needed" in made.why


def test_weights_that_may_hold_code_are_told() -> None:
    assert "warning: its weights are in .bin files" in choose("BAAI/bge-m3", "", "vllm").why
    assert "warning" not in choose("openai-community/gpt2", "", "vllm").why


def test_code_is_taken_only_when_it_is_trusted() -> None:
    repo = "microsoft/Phi-3.5-mini-instruct"
    assert "without its code (configuration_phi3.py, …), which is not trusted" in choose(repo, "", "vllm").why
    trusted = choose(repo, "", "vllm", trust_remote_code=True)
    assert [name for name in names(trusted) if name.endswith(".py")] == [
        "configuration_phi3.py",
        "modeling_phi3.py",
        "sample_finetune.py",
    ]
    assert "code" not in trusted.why


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        # an index that names files in no usual way
        (["a.safetensors", "b-mtp.safetensors", "model.safetensors.index.json"], 3),
        (["a.safetensors", "model.safetensors.index.json"], 2),
        (["gptq_model-4bit-128g.safetensors", "quantize_config.json"], 2),
        (["model.fp16.safetensors"], 1),
        (["model.fp16.safetensors", "model.safetensors", "model.fp16.safetensors.index.json"], 1),
        (["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"], 1),
        (["model.safetensors-00001-of-00002.safetensors", "model.safetensors-00002-of-00002.safetensors"], 2),
        (["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"], 2),
        # the whole beside its parts
        (["model.safetensors", *parts(2), "model.safetensors.index.json"], 3),
        # the index of another format, or of parts that are not there
        (["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json"], 1),
        (["model.safetensors", "model.fp16.safetensors", "adapter_model.safetensors", "consolidated.safetensors"], 1),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"], 3),
        (["model.safetensors", "chat_template.jinja", "chat_template.json", "additional_chat_templates/rag.jinja"], 4),
        (["model.safetensors", "2_Dense/config.json", "2_Dense/model.safetensors", "onnx/model.safetensors"], 3),
        (["model.safetensors", "vae/config.json", "a/b/tokenizer.json", "README.md", "LICENSE.txt", "x.png"], 1),
        (["model.safetensors", "preprocessor_config.json", "tekken.json", "params.json", "spiece.model"], 4),
    ],
)
def test_what_belongs_to_a_folder(files: list[str], taken: int) -> None:
    made = choice.choose(listed([*files, "config.json"]), parse("org/repo"), "vllm")
    assert len(made.files) == taken + 1


@pytest.mark.parametrize(
    ("files", "engine", "message"),
    [
        (
            ["a-Q8_0.gguf"],
            "vllm",
            r"GGUF files only, and vLLM takes safetensors: .*\(often ORG/repo\), or use `engine: llama",
        ),
        (
            ["model.safetensors", "config.json"],
            "llama_server",
            r"take a GGUF repository .*playbooks/quantize.yml, or use",
        ),
        (["model.safetensors"], "vllm", "lacks config.json"),
        (["consolidated.safetensors", "params.json"], "vllm", "Mistral's own layout, without config.json"),
        (["consolidated.safetensors", "config.json"], "vllm", "Mistral's own layout; give one"),
        (["adapter_model.safetensors", "adapter_config.json"], "vllm", "holds an adapter"),
        (["model_index.json", "unet/x.safetensors"], "vllm", "a pipeline that makes images"),
        (["a/model.safetensors", "config.json"], "vllm", "no weights at its top, only in folders"),
        (["README.md"], "vllm", "no weights that an engine here could load"),
        (["README.md"], "", "holds no GGUF model"),
        ([], "", "holds no GGUF model"),
        ([*parts(3)[:2], "config.json"], "vllm", "lacks model-00003-of-00003.safetensors, without which"),
        (["pytorch_model-00002-of-00002.bin", "config.json"], "vllm", r"lacks pytorch_model-00001-of-00002\.bin"),
        (["model-1-of-3.safetensors", "model-3-of-3.safetensors", "config.json"], "vllm", r"lacks model-2-of-3\.safe"),
        (["model-00000-of-00002.safetensors", "config.json"], "vllm", r"lacks model-00001-of-00002\.safetensors"),
    ],
)
def test_what_an_engine_can_not_use(files: list[str], engine: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        choice.choose(listed(files), parse("org/repo"), engine)
    assert str(caught.value).startswith("model org/repo: ")


def test_a_type_is_not_for_vllm() -> None:
    for word in (":Q4_K_M", "/both-Q4_K_M.gguf"):
        with pytest.raises(BadInput, match="asks for a GGUF file, and vLLM takes whole repositories"):
            choice.choose(listed(hubs.REPOS["org/both"]), parse("hf:org/both" + word), "vllm")


PATHS = st.lists(
    st.one_of(
        st.sampled_from([path for files in hubs.REPOS.values() for path in files]),
        st.from_regex(
            r"[a-z]{1,3}(-Q[1-8]_[0K]|-f16)?(-0000[0-3]-of-0000[0-3])?\.(gguf|safetensors|bin|json)", fullmatch=True
        ),
    ),
    max_size=12,
    unique=True,
)


@given(
    PATHS, st.sampled_from(["", "llama_server", "vllm"]), st.sampled_from(["", ":Q4_K", ":f16"]), st.integers(0, 5000)
)
def test_whatever_is_chosen_is_whole(paths: list[str], engine: str, word: str, limit: int) -> None:
    repository = listed(paths)
    try:
        made = choice.choose(repository, parse("org/repo" + word), engine, limit)
    except BadInput as error:
        said = str(error)
        assert said.isprintable()
        return
    assert made.files
    assert set(made.files) <= set(repository.files)
    assert len(set(names(made))) == len(made.files)
    assert made.why
    if made.format == "gguf":
        assert made.entry == made.files[0].path
        assert word or not limit or made.size <= limit
    else:
        assert "config.json" in names(made)
    assert choice.choose(repository, parse("org/repo" + word), engine, limit) == made
